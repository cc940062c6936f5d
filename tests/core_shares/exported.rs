//! Directories that this machine exports: a full quiet time follows the grant of a lease.

use crate::house::{House, MOUNT, ROOT, nothing, seconds};
use settled::core::ask::{ExportedTree, Exports, Held};
use settled::core::{Input, Mount, QUIET_EXPORTED, mask};
use std::time::Duration;

fn local() -> Mount {
    Mount {
        id: MOUNT,
        point: b"/".to_vec(),
        fstype: "ext4".into(),
        remote_writers: false,
        attribute_cache_s: 0,
    }
}

fn tree(path: &str) -> Option<Exports> {
    Some(Exports {
        trees: Ok(vec![ExportedTree {
            mount: MOUNT,
            path: path.into(),
            export: path.into(),
            why: "*(rw) in /var/lib/nfs/etab".into(),
        }]),
        wds: vec![77],
    })
}

fn unreadable() -> Option<Exports> {
    Some(Exports {
        trees: Err("/var/lib/nfs/etab: Permission denied".into()),
        wds: vec![77],
    })
}

#[test]
fn forty_seconds_follow_the_grant() {
    for (signal, exports, keys) in [
        (mask::CLOSE_WRITE, tree(ROOT), ""),
        (mask::MOVED_TO, tree("/srv"), ""),
        (mask::CREATE, nothing(), "exported = true"),
        (mask::CLOSE_WRITE, unreadable(), ""),
    ] {
        let mut house = House::new(keys, local(), exports);
        house.write("a");
        let since = house.mono;
        house.event(signal, "a");
        house.pass(seconds(300));
        let granted = *house.leases.first().unwrap();
        // The lease is asked early, so that the wait for what may follow it begins early.
        let early = Duration::from_millis(1100);
        assert!(granted.since(since) < early, "{:?}", house.leases);
        let waited = house.started_after("a", granted).unwrap();
        assert_eq!(waited, QUIET_EXPORTED);
        assert_eq!(house.started.len(), 1);
    }
}

#[test]
fn what_is_not_exported_settles_as_ever() {
    for (exports, keys) in [
        (nothing(), ""),
        (tree("/srv/inn"), ""),
        (tree("/srv/in/below"), ""),
        (tree(ROOT), "exported = false"),
        (unreadable(), "exported = false"),
    ] {
        let mut house = House::new(keys, local(), exports);
        let since = house.mono;
        house.write_and_close("a");
        house.pass(seconds(300));
        assert_eq!(house.started_after("a", since), Some(seconds(1)), "{keys}");
        // The lease is asked once before it settles.
        assert_eq!(house.leases.len(), 1, "{keys}");
    }
}

/// The server holds the file for the client: the first question is refused, makes it close the file, and that close is an
/// event.
#[test]
fn the_close_that_the_question_makes_is_followed_by_another_question() {
    let mut house = House::new("", local(), tree(ROOT));
    house.served = true;
    house.write_and_close("a");
    house.pass(seconds(300));
    assert!(house.leases.len() >= 3, "{:?}", house.leases);
    let granted = house.leases[1];
    assert_eq!(house.started_after("a", granted), Some(QUIET_EXPORTED));
}

/// NFSv3: the server closes after each burst of writes, and the bursts are 29 s apart.
#[test]
fn bursts_half_a_minute_apart_are_one_file() {
    let mut house = House::new("", local(), tree(ROOT));
    for _ in 0..8 {
        house.served = true;
        house.write("a");
        house.pass(seconds(3));
        house.event(mask::CLOSE_WRITE, "a");
        house.pass(seconds(26));
    }
    assert_eq!(house.started, []);
    let last = house.mono;
    house.pass(seconds(300));
    assert!(house.started_after("a", last).unwrap() >= seconds(11));
    assert_eq!(house.started.len(), 1);
}

/// The same without any event, as where the queue overflowed: size and time are all there is.
#[test]
fn a_change_seen_alone_starts_the_wait_again() {
    let mut house = House::new("", local(), tree(ROOT));
    house.write_and_close("a");
    house.pass(seconds(39));
    house.write("a");
    house.pass(seconds(39));
    assert_eq!(house.started, []);
    house.pass(seconds(300));
    assert_eq!(house.started.len(), 1);
}

#[test]
fn a_settle_of_ones_own_follows_the_grant_too() {
    let mut house = House::new("settle = \"10s\"", local(), tree(ROOT));
    let since = house.mono;
    house.lease = Held::By(0);
    house.write_and_close("a");
    house.pass(seconds(60));
    assert_eq!(house.started, []);
    house.lease = Held::Free;
    let free = house.mono;
    house.pass(seconds(300));
    let granted = *house.leases.iter().find(|at| **at >= free).unwrap();
    assert_eq!(house.started_after("a", granted), Some(seconds(10)));
    assert!(house.started_after("a", since).unwrap() >= seconds(70));
}

/// Where the lease cannot be asked, there is no grant to wait for.
#[test]
fn without_leases_quiet_time_alone_decides() {
    let mut house = House::new("", local(), tree(ROOT));
    house.lease = Held::CannotAsk(libc::EACCES);
    let since = house.mono;
    house.write_and_close("a");
    house.pass(seconds(300));
    assert_eq!(house.started_after("a", since), Some(QUIET_EXPORTED));
}

#[test]
fn a_table_that_changes_is_read_again() {
    let mut house = House::new("", local(), tree("/elsewhere"));
    assert_eq!(house.asked.len(), 1);
    house.exports = tree(ROOT);
    let event = |name: &str| Input::Event {
        wd: 77,
        mask: mask::MOVED_TO,
        cookie: 0,
        name: name.into(),
    };
    house.input(event("rmtab"));
    assert_eq!(house.asked.len(), 1);
    house.input(event("etab"));
    assert_eq!(house.asked.len(), 2);
    assert!(
        house
            .log
            .iter()
            .any(|line| line.contains("exported over NFS"))
    );
    let since = house.mono;
    house.write_and_close("a");
    house.pass(seconds(20));
    assert_eq!(house.started, []);
    // What waits for the longer time is judged anew when that is not needed any more.
    house.exports = nothing();
    house.input(event("etab"));
    house.pass(Duration::ZERO);
    assert_eq!(house.started_after("a", since), Some(seconds(20)));
    // Nothing is exported: mounts that come and go show nothing that is.
    let asked = house.asked.len();
    house.input(Input::Mounts(vec![local()]));
    assert_eq!(house.asked.len(), asked);
}

/// The disk with the tables hangs: everything waits a moment, and then for as long as where all is exported.
#[test]
fn a_table_that_is_not_answered_delays_and_stops_nothing() {
    let mut house = House::new("", local(), None);
    house.write("a");
    house.pass(seconds(1));
    assert_eq!(house.listings, []);
    house.pass(seconds(300));
    assert_eq!(house.started.len(), 1);
    assert_eq!(
        house
            .log
            .iter()
            .filter(|l| l.starts_with("the NFS export tables"))
            .count(),
        1
    );
    let since = house.mono;
    house.write_and_close("b");
    house.pass(seconds(300));
    assert!(house.started_after("b", since).unwrap() >= QUIET_EXPORTED);
    // The answer comes in the end.
    let since = house.mono;
    house.write_and_close("c");
    house.pass(seconds(5));
    let ask = house.asked[0];
    let answer = nothing().map(settled::core::ask::Answer::Exports).unwrap();
    house.input(Input::Answer(ask, answer));
    house.pass(Duration::ZERO);
    assert_eq!(house.started_after("c", since), Some(seconds(5)));
}

#[test]
fn the_state_says_what_is_exported_and_why() {
    let mut house = House::new("", local(), tree("/srv"));
    house.log.clear();
    house.input(Input::Command(settled::core::Command::LogState));
    let said = "state: exported over NFS (/srv to *(rw) in /var/lib/nfs/etab)";
    assert!(house.log.iter().any(|line| line == said), "{:?}", house.log);
}
