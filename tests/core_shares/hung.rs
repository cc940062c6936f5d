//! A mount hangs: nothing else waits for it.

use crate::house::{House, MOUNT, nothing, seconds};
use crate::remote::nfs;
use settled::core::ids::MountId;
use settled::core::{Command, Input, Mount};
use std::time::Duration;

const LOCAL: MountId = MountId(1);

/// Watch `w` on the mount, and `x` beside it; two children at once in all.
fn house(keys: &str) -> House {
    let local = Mount {
        id: LOCAL,
        point: b"/".to_vec(),
        fstype: "ext4".into(),
        remote_writers: false,
        attribute_cache_s: 0,
    };
    let text = format!(
        "settle = \"0\"\n{keys}\n[watch.x]\npath = \"/home/in\"\nsettle = \"0\"\nrun = [\"true\", \"{{path}}\"]\n"
    );
    let mut house = House::with_mounts(&text, vec![local, nfs(0)], nothing());
    house.pass(seconds(5));
    house
}

/// Children of `w` hang as they open their files.
fn stuck(keys: &str) -> House {
    let mut house = house(keys);
    house.holds.insert(MOUNT);
    for name in ["a", "b", "c"] {
        house.write(name);
    }
    house.pass(seconds(3));
    assert_eq!((house.started.len(), house.held.len()), (2, 2));
    house.hung.insert(MOUNT);
    house
}

#[test]
fn children_that_a_mount_holds_take_nobodys_place() {
    let mut house = stuck("");
    let since = house.mono;
    house.write_and_close("/home/in/one");
    house.pass(seconds(2));
    assert_eq!(house.started_after("/home/in/one", since), None);
    house.input(Input::MountSlow(MOUNT, true));
    assert_eq!(house.started_after("/home/in/one", since), Some(seconds(2)));
    let since = house.mono;
    house.write_and_close("/home/in/two");
    assert_eq!(
        house.started_after("/home/in/two", since),
        Some(Duration::ZERO)
    );
    // Nothing more is begun where the mount hangs.
    assert_eq!(house.started.len(), 4);
    house.pass(seconds(120));
    assert_eq!(house.started.len(), 4);
    house.recover(MOUNT);
    house.input(Input::MountSlow(MOUNT, false));
    house.pass(seconds(10));
    let mut names: Vec<&str> = house
        .started
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    names.sort_unstable();
    let w = ["/srv/in/a", "/srv/in/b", "/srv/in/c"];
    assert_eq!(names, [&["/home/in/one", "/home/in/two"][..], &w].concat());
}

/// A local disk that is slow is no reason to start more than `concurrency`.
#[test]
fn what_a_slow_disk_holds_keeps_its_place() {
    let mut house = house("");
    house.holds.insert(LOCAL);
    for name in ["/home/in/one", "/home/in/two", "/home/in/three"] {
        house.write_and_close(name);
    }
    house.input(Input::MountSlow(LOCAL, true));
    house.pass(seconds(100));
    assert_eq!(house.started.len(), 2);
}

#[test]
fn the_daemon_stops_without_waiting_for_children_that_a_mount_holds() {
    let mut house = stuck("");
    house.input(Input::Command(Command::Drain));
    house.pass(Duration::from_millis(400));
    assert_eq!(house.stopped, None);
    let since = house.mono;
    house.input(Input::MountSlow(MOUNT, true));
    house.pass(Duration::ZERO);
    assert_eq!(house.killed.len(), 2, "{:?}", house.killed);
    assert!(
        house
            .killed
            .iter()
            .all(|(_, signal, _)| *signal == libc::SIGTERM)
    );
    assert_eq!(house.stopped, Some(since));
}

#[test]
fn the_daemon_stops_without_waiting_for_dispositions_on_a_mount_that_hangs() {
    let mut house = house("done = \"delete\"");
    house.keeps = true;
    house.write("a");
    house.pass(seconds(3));
    assert_eq!(house.started.len(), 1);
    house.input(Input::Command(Command::Drain));
    house.pass(seconds(30));
    assert_eq!(house.stopped, None, "a mount that answers is waited for");
    let since = house.mono;
    house.input(Input::MountSlow(MOUNT, true));
    assert_eq!(house.stopped, Some(since));
}

#[test]
fn the_log_and_the_state_name_what_does_not_answer() {
    let mut house = house("");
    house.hung.insert(MOUNT);
    house.pass(seconds(3));
    let mut state = |input: Input| {
        house.log.clear();
        house.input(input);
        house.input(Input::Command(Command::LogState));
        house.pass(seconds(1));
        house.log.join("\n")
    };
    let slow = state(Input::MountSlow(MOUNT, true));
    assert!(
        slow.contains("state: the mount (nfs4) is slow to answer, 1 questions asked"),
        "{slow}"
    );
    let silent = state(Input::MountSilent(MOUNT, true));
    assert!(
        silent.contains("the mount does not answer; work on it is held (1 questions asked"),
        "{silent}"
    );
    assert!(
        silent.contains("state: the mount (nfs4) does not answer"),
        "{silent}"
    );
    assert!(
        silent.contains("state: the mount (ext4) answers"),
        "{silent}"
    );
    assert!(
        silent.contains("by inotify and listed (nfs4: others may write to it)"),
        "{silent}"
    );
    assert!(silent.contains("by inotify (ext4)"), "{silent}");
    let again = state(Input::MountSilent(MOUNT, false));
    assert!(
        again.contains("the mount answers again, 1.0 s after"),
        "{again}"
    );
    let root = state(Input::RootSilent(0, true));
    assert!(
        root.contains("the directory does not answer; its watch waits"),
        "{root}"
    );
}
