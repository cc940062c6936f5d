//! Which keys differ between two plans, by the names that they have in settled.toml(5). Every plan is taken apart here
//! without `..`: a key that nothing is said of does not compile.

use super::select::Select;
use crate::plan::{Action, AlertPlan, ClaimPlan, DaemonPlan, ProcessPlan, WatchPlan, WorkerPlan};
use std::fmt::Debug;

/// Keys of `[daemon]` that act at the start alone.
pub(super) const AT_START: [&str; 3] = ["state", "state_force", "on_damage"];

/// Plans are made of text, numbers and lists: what is written of them tells them apart.
fn differ(old: &dyn Debug, new: &dyn Debug) -> bool {
    format!("{old:?}") != format!("{new:?}")
}

/// The fields that have the name of a key are compared; the others, `but` those, are left to who calls this.
macro_rules! differing {
    ($plan:ident, $old:expr, $new:expr, $($key:ident)*; but $($other:ident)*) => {{
        let $plan { $($key: _,)* $($other: _,)* } = $old;
        let mut keys: Vec<&'static str> = Vec::new();
        $(if differ(&$old.$key, &$new.$key) {
            keys.push(stringify!($key));
        })*
        keys
    }};
}

/// The keys of `[daemon]`.
pub(super) fn of_daemon(old: &DaemonPlan, new: &DaemonPlan) -> Vec<&'static str> {
    differing!(DaemonPlan, old, new, state socket socket_group state_force on_damage log log_level concurrency remember
        drain mount_silent metrics_textfile metrics_every; but)
}

/// `[alert]`, in words; `None` where it is as it was.
pub(super) fn of_alert(old: Option<&AlertPlan>, new: Option<&AlertPlan>) -> Option<String> {
    match (old, new) {
        (None, None) => None,
        (None, Some(_)) => Some("[alert] is new".into()),
        (Some(_), None) => Some("[alert] is gone: nobody is told any more".into()),
        (Some(old), Some(new)) => {
            let keys = differing!(AlertPlan, old, new, run dead waiting mount_silent slow_flush every timeout; but);
            (!keys.is_empty()).then(|| format!("[alert] {} changed", keys.join(", ")))
        }
    }
}

/// The keys of a watch.
pub(super) fn of_watch(old: &WatchPlan, new: &WatchPlan) -> Vec<&'static str> {
    let mut keys = differing!(WatchPlan, old, new, name formerly path recursive settle exported flock observe poll
        existing on_ctime on_change batch key serial key_concurrency on_dead rate order env cwd output orphans delivery
        permanent temporary max_age concurrency timeout kill_after attempts backoff expect done dead;
        but excluded select action process claim);
    if differ(&old.excluded, &new.excluded) {
        keys.push("what is left out by itself");
    }
    keys.extend(of_select(&old.select, &new.select));
    keys.extend(of_action(&old.action, &new.action));
    keys.extend(of_process(&old.process, &new.process));
    keys.extend(of_claim(old.claim.as_ref(), new.claim.as_ref()));
    keys
}

fn of_select(old: &Select, new: &Select) -> Vec<&'static str> {
    let mut keys = old.differing(new);
    let rest = [
        (old.min_size != new.min_size, "min_size"),
        (old.max_size != new.max_size, "max_size"),
        (old.min_age != new.min_age, "min_age"),
        (old.ignore_older != new.ignore_older, "ignore_older"),
    ];
    keys.extend(
        rest.iter()
            .filter_map(|(differs, key)| differs.then_some(key)),
    );
    keys
}

fn of_action(old: &Action, new: &Action) -> Vec<&'static str> {
    match (old, new) {
        (Action::Worker(old), Action::Worker(new)) => {
            let mut keys = differing!(WorkerPlan, old, new, workers window ready; but argv);
            if differ(&old.argv, &new.argv) {
                keys.insert(0, "worker");
            }
            keys
        }
        (old, new) if differ(old, new) => vec![match new {
            Action::Run(_) => "run",
            Action::Worker(_) => "worker",
            Action::Deliver(_) => "deliver",
        }],
        _ => Vec::new(),
    }
}

fn of_process(old: &ProcessPlan, new: &ProcessPlan) -> Vec<&'static str> {
    let mut keys = differing!(ProcessPlan, old, new, umask nice ionice limits; but identity);
    if old.identity != new.identity {
        // A user has groups: which of the two was written cannot be told from what came of it.
        keys.insert(0, "user or group");
    }
    keys
}

fn of_claim(old: Option<&ClaimPlan>, new: Option<&ClaimPlan>) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if old.is_some() != new.is_some() {
        keys.push("claim");
    }
    // Where there are no marks the directory follows from the path, as the slots do from the state directory.
    let marks = |claim: Option<&ClaimPlan>| {
        let ClaimPlan {
            dir,
            marks,
            slots: _,
        } = claim?;
        marks.then(|| dir.clone())
    };
    if marks(old) != marks(new) {
        keys.push("claim_done");
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
