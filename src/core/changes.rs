//! Which keys differ between two plans, by the names that they have in settled.toml(5).

use crate::plan::{Action, DaemonPlan, WatchPlan};
use std::fmt::Debug;

/// Keys of `[daemon]` that act at the start alone.
pub(super) const AT_START: [&str; 4] = ["state", "state_force", "on_damage", "log"];

/// Plans are made of text, numbers and lists: what is written of them tells them apart.
fn differ(old: &dyn Debug, new: &dyn Debug) -> bool {
    format!("{old:?}") != format!("{new:?}")
}

macro_rules! differing {
    ($old:expr, $new:expr, $($field:ident)*) => {{
        let mut keys: Vec<&'static str> = Vec::new();
        $(if differ(&$old.$field, &$new.$field) {
            keys.push(stringify!($field));
        })*
        keys
    }};
}

/// The keys of `[daemon]`.
pub(super) fn of_daemon(old: &DaemonPlan, new: &DaemonPlan) -> Vec<&'static str> {
    differing!(old, new, state socket socket_group state_force on_damage log log_level concurrency remember drain
        mount_silent)
}

/// The keys of a watch.
pub(super) fn of_watch(old: &WatchPlan, new: &WatchPlan) -> Vec<&'static str> {
    let mut keys = differing!(old, new, name path recursive settle exported flock observe poll existing on_ctime
        on_change batch key serial key_concurrency on_dead rate order env cwd output orphans delivery permanent temporary
        max_age concurrency timeout kill_after attempts backoff claim done dead);
    if differ(&old.process, &new.process) {
        keys.push("user, group, umask, nice, ionice or limits");
    }
    if differ(&old.excluded, &new.excluded) {
        keys.push("what is left out by itself");
    }
    if differ(&old.action, &new.action) {
        keys.push(match new.action {
            Action::Run(_) => "run",
            Action::Worker(_) => "worker",
            Action::Deliver(_) => "deliver",
        });
    }
    let texts = |plan: &WatchPlan| -> [Vec<String>; 2] {
        let texts = |list: &[super::select::Pattern]| {
            list.iter().map(|pattern| format!("{pattern:?}")).collect()
        };
        [texts(plan.select.include()), texts(plan.select.exclude())]
    };
    let ([old_in, old_out], [new_in, new_out]) = (texts(old), texts(new));
    let (was, is) = (&old.select, &new.select);
    for (differs, key) in [
        (old_in != new_in, "include"),
        (old_out != new_out, "exclude"),
        (was.built_in() != is.built_in(), "builtin_excludes"),
        (was.min_size != is.min_size, "min_size"),
        (was.max_size != is.max_size, "max_size"),
        (was.min_age != is.min_age, "min_age"),
        (was.ignore_older != is.ignore_older, "ignore_older"),
    ] {
        if differs {
            keys.push(key);
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_differs_is_named() {
        let old = WatchPlan::placeholder("w");
        assert_eq!(of_watch(&old, &old.clone()), Vec::<&str>::new());
        let new = WatchPlan {
            settle: Some(Duration::from_secs(2)),
            recursive: true,
            ..old.clone()
        };
        assert_eq!(of_watch(&old, &new), ["recursive", "settle"]);
    }
}
