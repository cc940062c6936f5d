//! Signal dispositions.

use nix::sys::signal::{SigHandler, Signal, signal};
use std::io;

/// Ignores `which` in this process and, unless they change it, in what it forks and executes (signal(7)).
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn ignore(which: Signal) -> io::Result<()> {
    // SAFETY: signal(2) is unsound only with a handler that is not safe to run anywhere; SIG_IGN runs
    // nothing. A handler that was there before is not needed any more by whoever calls this.
    unsafe { signal(which, SigHandler::SigIgn) }?;
    Ok(())
}
