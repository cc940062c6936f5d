//! How a child is set up before it looks at its files: what it may use, how it is scheduled, as whom it runs.
//!
//! Limits are set in two steps. Raising one takes privileges, so it is done while they are there; but one that is low would
//! already hold for what the child itself still has to do, in memory that is not its own. So they fall last.

use crate::plan::ProcessPlan;
use crate::sys::setup::{self, Limit};
use nix::sys::stat::{Mode, umask};
use std::io;

/// Everything but the limits that fall.
pub(super) fn first(plan: &ProcessPlan) -> io::Result<()> {
    for &(resource, wanted) in &plan.limits {
        let now = setup::limit(resource)?;
        if wanted > now.hard {
            let hard = wanted;
            setup::set_limit(resource, Limit { hard, ..now })?;
        }
    }
    if let Some(nice) = plan.nice {
        setup::set_nice(nice)?;
    }
    if let Some(ionice) = plan.ionice {
        setup::set_ionice(ionice)?;
    }
    if let Some(mask) = plan.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    if let Some(who) = &plan.identity {
        setup::become_user(who.uid, who.gid, &who.groups)?;
    }
    Ok(())
}

/// The limits, as the program is to have them. From here on there may be no memory to be had.
pub(super) fn last(plan: &ProcessPlan) -> io::Result<()> {
    for &(resource, wanted) in &plan.limits {
        let (soft, hard) = (wanted, wanted);
        setup::set_limit(resource, Limit { soft, hard })?;
    }
    Ok(())
}
