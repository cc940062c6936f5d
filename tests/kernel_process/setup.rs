//! How children are set up, as they see it themselves; and the slots that they hold.

use crate::house::{House, is_gone, wait_until};
use crate::{KILL, TERM, failed, first_number};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use settled::core::ids::RunId;
use settled::core::{ChildEnd, SpawnOrder, StartStep, Stdin};
use settled::plan::{Identity, ProcessPlan};
use settled::slots::{Asked, Slots};
use settled::sys::process::{self, Exit, Fork, Stack};
use settled::sys::setup;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;

const NOBODY: u32 = 65534;

/// Whether this process may do what only root may; says so where a test is left out because it may not.
fn root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: this needs root");
    }
    root
}

/// capabilities(7): `CAP_SYS_RESOURCE`, which even root lacks in some containers.
fn may_raise() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:\t"));
    u64::from_str_radix(effective.unwrap(), 16).unwrap() & 1 << 24 != 0
}

fn nobody() -> Identity {
    Identity {
        uid: NOBODY,
        gid: NOBODY,
        groups: vec![NOBODY, 12345, 70000],
        name: "nobody".into(),
        home: "/nonexistent".into(),
    }
}

fn sh(house: &mut House, script: &str, plan: ProcessPlan) -> SpawnOrder {
    let mut order = house.order(&[b"/bin/sh", b"-c", script.as_bytes()]);
    order.process = Rc::new(plan);
    order
}

fn text_of(house: &mut House, order: SpawnOrder) -> String {
    let run = house.spawn(order);
    let (end, output) = house.end(run);
    let text = String::from_utf8(output).unwrap();
    assert_eq!(end, ChildEnd::Exit(0), "{text}");
    text
}

#[test]
fn umask_niceness_and_io_class_are_the_childs() {
    let mut house = House::new();
    let script = "umask; cut -d' ' -f19 /proc/$$/stat; ionice -p $$";
    let plan = ProcessPlan {
        umask: Some(0o027),
        nice: Some(7),
        ionice: Some(2 << 13 | 6),
        ..ProcessPlan::default()
    };
    let before = sh(&mut house, script, ProcessPlan::default());
    let before = text_of(&mut house, before);
    let order = sh(&mut house, script, plan);
    assert_eq!(text_of(&mut house, order), "0027\n7\nbest-effort: prio 6\n");
    let plan = ProcessPlan {
        ionice: Some(3 << 13),
        ..ProcessPlan::default()
    };
    let order = sh(&mut house, "ionice -p $$", plan);
    assert_eq!(text_of(&mut house, order), "idle\n");
    // It was the children's alone: the launchers, whose memory they had, are as they were.
    for _ in 0..4 {
        let after = sh(&mut house, script, ProcessPlan::default());
        assert_eq!(text_of(&mut house, after), before);
    }
}

/// Soft and hard, as `/proc/self/limits` has them.
fn limit_of(limits: &str, name: &str) -> (String, String) {
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    let mut words = line.unwrap().split_ascii_whitespace();
    let mut word = || words.next().unwrap().to_owned();
    (word(), word())
}

#[test]
fn limits_are_the_childs() {
    let mut house = House::new();
    let plan = ProcessPlan {
        limits: vec![
            (libc::RLIMIT_NOFILE, 64),
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_FSIZE, 1 << 40),
            (libc::RLIMIT_CPU, 600),
            (libc::RLIMIT_AS, 2 << 30),
        ],
        ..ProcessPlan::default()
    };
    let order = sh(&mut house, "cat /proc/self/limits", plan);
    let text = text_of(&mut house, order);
    for (name, value) in [
        ("Max open files", 64u64),
        ("Max core file size", 0),
        ("Max file size", 1 << 40),
        ("Max cpu time", 600),
        ("Max address space", 2 << 30),
    ] {
        let value = value.to_string();
        assert_eq!(limit_of(&text, name), (value.clone(), value), "{name}");
    }
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    let order = sh(&mut house, "cat /proc/self/limits", ProcessPlan::default());
    assert_eq!(text_of(&mut house, order), own);
}

#[test]
fn a_limit_may_be_raised_with_privileges_alone() {
    let now = setup::limit(libc::RLIMIT_MSGQUEUE).unwrap();
    let mut house = House::new();
    let mut plan = ProcessPlan {
        limits: vec![(libc::RLIMIT_MSGQUEUE, now.hard.saturating_add(1))],
        ..ProcessPlan::default()
    };
    if may_raise() {
        plan.identity = Some(nobody());
        let mut order = sh(&mut house, "cat /proc/self/limits", plan);
        order.files.clear();
        let text = text_of(&mut house, order);
        let raised = (now.hard + 1).to_string();
        assert_eq!(
            limit_of(&text, "Max msgqueue size"),
            (raised.clone(), raised)
        );
    } else {
        eprintln!("SKIPPED: raising one needs CAP_SYS_RESOURCE");
        let order = sh(&mut house, "exit 0", plan);
        let run = house.spawn(order);
        assert_eq!(house.end(run).0, failed(StartStep::Setup, Errno::EPERM));
    }
}

#[test]
fn a_limit_too_low_for_anything_harms_nobody_else() {
    let mut house = House::new();
    let family = crate::spawners_of(std::process::id());
    for resource in [libc::RLIMIT_AS, libc::RLIMIT_DATA, libc::RLIMIT_STACK] {
        let plan = ProcessPlan {
            limits: vec![(resource, 4096)],
            ..ProcessPlan::default()
        };
        let order = sh(&mut house, "exit 0", plan);
        let run = house.spawn(order);
        let (end, _) = house.end(run);
        assert_ne!(end, ChildEnd::Exit(0), "{resource}");
    }
    let run = house.sh("exit 4");
    assert_eq!(house.end(run).0, ChildEnd::Exit(4));
    let after = crate::spawners_of(std::process::id());
    // Others' tests run beside this one, so only that none of ours is missing.
    let own = |pids: &[i32]| -> Vec<i32> {
        let of_house = |pid: &&i32| crate::session(**pid) == house.spawner_pid;
        pids.iter().filter(of_house).copied().collect()
    };
    assert!(
        own(&after).len() >= own(&family).len(),
        "{family:?} {after:?}"
    );
}

#[test]
fn a_child_is_another_user_with_all_that_belongs_to_it() {
    if !root() {
        return;
    }
    let mut house = House::new();
    let set_mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let plan = ProcessPlan {
        identity: Some(nobody()),
        nice: Some(-3),
        ..ProcessPlan::default()
    };
    let script = "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm):' /proc/self/status; \
                  echo $HOME $USER $LOGNAME; cut -d' ' -f19 /proc/$$/stat; echo again >/dev/stdout; cat <&3";
    // The look at the file is made with the child's rights.
    set_mode(house.dir.path(), 0o700);
    let order = sh(&mut house, script, plan.clone());
    let run = house.spawn(order);
    assert_eq!(house.end(run).0, failed(StartStep::OpenFile, Errno::EACCES));
    set_mode(house.dir.path(), 0o755);
    set_mode(&house.dir.path().join("file"), 0o644);
    let order = sh(&mut house, "id -u; nice", ProcessPlan::default());
    let as_before = text_of(&mut house, order);
    for _ in 0..3 {
        let mut order = sh(&mut house, script, plan.clone());
        order.env = vec![(b"USER".to_vec(), b"given".to_vec())];
        assert_eq!(
            text_of(&mut house, order),
            "Uid:\t65534\t65534\t65534\t65534\nGid:\t65534\t65534\t65534\t65534\n\
             Groups:\t12345 65534 70000 \nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
             /nonexistent given nobody\n-3\nagain\ncontent\n"
        );
        // And the next is root again.
        let order = sh(&mut house, "id -u; nice", ProcessPlan::default());
        assert_eq!(text_of(&mut house, order), as_before);
    }
}

#[test]
fn only_root_becomes_another() {
    if geteuid().is_root() {
        eprintln!("SKIPPED: this needs a user other than root");
        return;
    }
    let mut house = House::new();
    let plan = ProcessPlan {
        identity: Some(nobody()),
        ..ProcessPlan::default()
    };
    let order = sh(&mut house, "exit 0", plan);
    let run = house.spawn(order);
    assert_eq!(house.end(run).0, failed(StartStep::Setup, Errno::EPERM));
}

/// credentials(7): user and groups are the task's, prctl(2): "dumpable" is the memory's, and the parent's signal the task's.
#[test]
fn a_lender_keeps_its_user_and_its_signal_and_becomes_unreadable() {
    if !root() {
        return;
    }
    let lender = match process::fork().unwrap() {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            let run = || -> Option<i32> {
                prctl::set_pdeathsig(Signal::SIGUSR1).ok()?;
                let before = prctl::get_dumpable().ok()?;
                let mut stack = Stack::new(64 * 1024).ok()?;
                let mut child = |_: &process::Loan| {
                    let became = setup::become_user(NOBODY, NOBODY, &[]);
                    let unreadable = prctl::get_dumpable() == Ok(false);
                    i32::from(became.is_err() || geteuid().as_raw() != NOBODY || !unreadable)
                };
                let pid = stack.lend(&mut child, &|_, _| {}).ok()?;
                let kept = geteuid().is_root()
                    && prctl::get_pdeathsig() == Ok(Some(Signal::SIGUSR1))
                    && before
                    && prctl::get_dumpable() == Ok(false);
                // The child is its grandparent's to reap, and that one ends with this test.
                (pid > 0 && kept).then_some(0)
            };
            process::exit_now(run().unwrap_or(1))
        }
    };
    let pidfd = process::pidfd_open(lender).unwrap();
    let mut exit = None;
    wait_until("the lender's end", || {
        exit = process::ended(pidfd.as_fd(), true).unwrap();
        exit.is_some()
    });
    assert_eq!(exit, Some(Exit::Status(0)));
}

#[test]
fn standard_input_may_be_long_and_is_whole() {
    let mut house = House::new();
    let names: Vec<u8> = (0..200_000)
        .flat_map(|n| format!("/some/where/file\n{n}\0").into_bytes())
        .collect();
    for _ in 0..2 {
        let mut order = house.order(&[b"/bin/sh", b"-c", b"tr -cd '\\0' | wc -c; cat; cat <&3"]);
        order.stdin = Stdin::Bytes(names.clone());
        assert_eq!(text_of(&mut house, order), "200000\ncontent\n");
    }
    let mut order = house.order(&[b"/bin/sh", b"-c", b"xargs -0 -n1 printf '<%s>' </dev/stdin"]);
    order.stdin = Stdin::Bytes(b"a b\0\nc\0".to_vec());
    assert_eq!(text_of(&mut house, order), "<a b><\nc>");
    let mut order = house.order(&[b"cat"]);
    order.stdin = Stdin::Bytes(Vec::new());
    assert_eq!(text_of(&mut house, order), "");
}

pub(crate) fn ask(house: &mut House, slot: u32, signal: Option<i32>) -> Asked {
    house.children.ask_slot(slot, signal);
    let answers = house.children.asked();
    assert_eq!(answers.len(), 1);
    answers[0]
}

#[test]
fn a_slot_is_held_by_what_its_child_leaves_behind() {
    let mut house = House::new();
    // Out of its group and session, with its output closed: nothing but the slot tells of it.
    let script = b"setsid sh -c 'exec sleep 1000' >/dev/null 2>&1 </dev/null & echo $!; readlink /proc/$$/fd/4";
    let mut order = house.order(&[b"/bin/sh", b"-c", script]);
    order.slot = 3;
    let run = house.spawn(order.clone());
    let (end, output) = house.end(run);
    assert_eq!(end, ChildEnd::Exit(0));
    assert!(output.ends_with(b"/slots/3\n"), "{output:?}");
    let grandchild = first_number(&output);
    let held = ask(&mut house, 3, None);
    assert_eq!((held.taken, held.signalled), (Ok(true), 0));
    // Neither is it taken for another, nor by the daemon's next life, which cleans up at its start.
    order.run = RunId(1001);
    let second = house.spawn(order.clone());
    assert_eq!(
        house.end(second).0,
        failed(StartStep::Setup, Errno::EWOULDBLOCK)
    );
    let next_life = Slots::open(house.dir.path()).unwrap();
    assert_eq!(next_life.ask(&[(3, None)])[0].taken, Ok(true));
    // Another slot is free.
    assert_eq!(ask(&mut house, 2, Some(KILL)).taken, Ok(false));
    assert!(!is_gone(grandchild));
    let asked = ask(&mut house, 3, Some(TERM));
    assert_eq!(
        (asked.taken, asked.signalled, asked.in_vain),
        (Ok(true), 1, false)
    );
    wait_until("the grandchild's end", || is_gone(grandchild));
    wait_until("the slot", || ask(&mut house, 3, None).taken == Ok(false));
    order.run = RunId(1002);
    order.argv = vec![b"true".to_vec()];
    let third = house.spawn(order);
    assert_eq!(house.end(third).0, ChildEnd::Exit(0));
}

#[test]
fn who_does_not_end_at_a_terms_word_is_killed() {
    let mut house = House::new();
    let up = house.dir.path().join("up");
    let script = format!(
        "(trap '' TERM; exec 5<&4 4<&-; : >{}; exec sleep 1000) & exit 0",
        up.display()
    );
    let mut order = house.order(&[b"/bin/sh", b"-c", script.as_bytes()]);
    order.slot = 9;
    let run = house.spawn(order);
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    wait_until("up", || up.exists());
    assert_eq!(ask(&mut house, 9, Some(TERM)).signalled, 1);
    let after = ask(&mut house, 9, None);
    assert_eq!(after.taken, Ok(true));
    assert_eq!(ask(&mut house, 9, Some(KILL)).signalled, 1);
    wait_until("the slot", || ask(&mut house, 9, None).taken == Ok(false));
}

#[test]
fn a_slot_is_free_as_soon_as_its_children_have_ended() {
    let mut house = House::new();
    for _ in 0..50 {
        let mut order = house.order(&[b"true"]);
        order.slot = 1;
        let run = house.spawn(order);
        assert_eq!(house.end(run).0, ChildEnd::Exit(0));
        // Other tests make copies of this process, which hold for a moment whatever it has open.
        wait_until("the slot", || ask(&mut house, 1, None).taken == Ok(false));
    }
    // With several files there is no descriptor 3; the slot has its number all the same.
    let mut order = house.order(&[
        b"/bin/sh",
        b"-c",
        b"for fd in /proc/$$/fd/*; do [ -h $fd ] && echo ${fd##*/}; done; true",
    ]);
    order.files.push(order.files[0].clone());
    order.slot = 1;
    let text = text_of(&mut house, order);
    assert!(text.starts_with("0\n1\n2\n4\n"), "{text}");
    wait_until("the slot", || ask(&mut house, 1, None).taken == Ok(false));
    // One that could not be started has let go of it.
    let mut order = house.order(&[b"settled-no-such-program"]);
    order.slot = 1;
    let run = house.spawn(order);
    assert_eq!(house.end(run).0, failed(StartStep::Exec, Errno::ENOENT));
    wait_until("the slot", || ask(&mut house, 1, None).taken == Ok(false));
}
