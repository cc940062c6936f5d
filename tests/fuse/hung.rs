//! A mount that does not answer: everything else goes on, and what was held is done once when it answers.

use crate::bed::{Bed, DEADLINE, Daemon, counts, until};
use crate::mount::Liar;
use crate::{assert_once, daemon, fence, kit, wait_log_since, watch};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

crate::tests![
    another_watch_goes_on_and_the_daemon_stops,
    a_daemon_that_starts_meanwhile_serves_the_others,
    what_came_meanwhile_is_run_once_when_it_answers,
    scouts_that_cannot_be_killed_are_few,
    jobs_whose_files_are_there_hold_up_nobody_elses,
    a_move_into_it_holds_up_nobody_elses,
    a_delivery_into_it_holds_up_nobody_elses,
    jobs_that_take_all_places_hold_up_nobody_elses,
    a_job_that_runs_while_it_hangs_is_concluded_once,
    one_operation_that_hangs_is_enough,
    readiness_does_not_wait_for_a_listing,
];

/// A server that has taken a request and does not answer, and one that takes none: in the first case not even SIGKILL
/// ends who waits.
const WAYS: &[&str] = &["hang all", "deaf"];

const FAR: &str = "poll = \"50ms\"\nsettle = \"200ms\"\nrecursive = true\n";
const NEAR: &str = "settle = \"0\"\n";

/// A watch `far` over a mount, and one `near` over a directory; `keys` are the daemon's, `far` those of its watch.
fn bed_with(keys: &str, far: &str) -> (Bed, Liar) {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "far");
    bed.configure_text(&format!(
        "{}{}{}",
        daemon(&bed, keys),
        watch(&bed, "far", "far", &[], far),
        watch(&bed, "near", "in", &[], NEAR)
    ));
    (bed, liar)
}

fn put_near(bed: &Bed, name: &str) {
    kit::put(bed, name, "near");
}

fn ran(bed: &Bed, name: &str) -> usize {
    bed.runs().iter().filter(|run| run.name() == *name).count()
}

fn wait_ran(bed: &Bed, name: &str) {
    until(&format!("the run of {name}"), || ran(bed, name) > 0);
}

/// Files in the other watch are run, one after the other.
fn near_goes_on(bed: &Bed, what: &str) {
    for n in 0..10 {
        let name = format!("{what}-{n}");
        put_near(bed, &name);
        wait_ran(bed, &name);
    }
}

fn another_watch_goes_on_and_the_daemon_stops() {
    for way in WAYS {
        // Waiting for what never ends would take an hour.
        let (bed, liar) = bed_with("drain = \"1h\"", FAR);
        liar.put("a", "x");
        let mut daemon = bed.start();
        wait_ran(&bed, "a");
        liar.tell(way);
        liar.put("b", "x");
        near_goes_on(&bed, "at-once");
        daemon.wait_log("does not answer");
        near_goes_on(&bed, "when-known");
        assert_eq!(daemon.stop(), Some(0), "{way}");
        assert_eq!(ran(&bed, "b"), 0, "{way}");
        // It was not forgotten.
        liar.tell("back");
        let _daemon = bed.start();
        wait_ran(&bed, "b");
        let runs = fence(&bed, &liar, "fence");
        assert!(
            counts(&runs).values().all(|times| *times == 1),
            "{way}: {runs:?}"
        );
    }
}

fn a_daemon_that_starts_meanwhile_serves_the_others() {
    for way in WAYS {
        for known in [false, true] {
            let (bed, liar) = bed_with("", FAR);
            liar.put("a", "x");
            if known {
                let mut daemon = bed.start();
                wait_ran(&bed, "a");
                liar.put("kept", "x");
                daemon.kill();
            }
            liar.tell(way);
            let mut daemon = bed.start();
            near_goes_on(&bed, "first");
            // A second start, while the first one's scouts still wait.
            daemon.kill();
            daemon = bed.start();
            near_goes_on(&bed, "second");
            assert_eq!(daemon.stop(), Some(0), "{way}");
            daemon = bed.start();
            near_goes_on(&bed, "third");
            liar.tell("back");
            wait_ran(&bed, "a");
            if known {
                wait_ran(&bed, "kept");
            }
            let runs = fence(&bed, &liar, "fence");
            // One that a kill cut short says so when it is run again.
            let runs: Vec<_> = runs.into_iter().filter(|run| !run.recovered).collect();
            assert!(
                counts(&runs).values().all(|times| *times == 1),
                "{way}, {known}: {runs:?}"
            );
            drop(daemon);
        }
    }
}

fn what_came_meanwhile_is_run_once_when_it_answers() {
    for way in WAYS {
        let (bed, liar) = bed_with("", &format!("{FAR}concurrency = 1\n"));
        liar.put("a", "x");
        let daemon = bed.start();
        wait_ran(&bed, "a");
        let mut names = vec!["a".to_owned()];
        for round in 0..3 {
            let from = daemon.log().len();
            liar.tell(way);
            fs::create_dir_all(liar.backing.join("sub")).expect("a directory");
            for n in 0..10 {
                let name = format!("r{round}-{n}");
                let dir = if n % 2 == 0 { "" } else { "sub/" };
                liar.put(&format!("{dir}{name}"), &name);
                names.push(name);
            }
            wait_log_since(&daemon, from, "does not answer");
            liar.tell("back");
            wait_log_since(&daemon, from, "answers again");
            bed.wait_runs(names.len());
        }
        assert_once(
            &fence(&bed, &liar, "fence"),
            names.iter().map(String::as_str),
        );
    }
}

/// The daemon's children that were sent SIGKILL and are still there: it waits for them in the kernel (proc_pid_status(5)).
fn unkillable(daemon: &Daemon) -> usize {
    let killed = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pending = status
            .lines()
            .find_map(|line| line.strip_prefix("SigPnd:\t"));
        let pending = pending.and_then(|mask| u64::from_str_radix(mask, 16).ok());
        pending.is_some_and(|mask| mask & 1 << (libc::SIGKILL - 1) != 0)
    };
    let children = kit::children_with(daemon, "");
    children.iter().filter(|pid| killed(pid)).count()
}

/// Of each mount there are never more than the one that is used and two that were given up.
fn scouts_that_cannot_be_killed_are_few() {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "far");
    // It counts time for this test: it is listed again and again, by the daemon's own clock.
    let clock = Liar::mount(&bed, "clock-behind", "clock");
    bed.configure_text(&format!(
        "{}{}{}{}",
        daemon(&bed, ""),
        watch(&bed, "far", "far", &[], FAR),
        watch(&bed, "clock", "clock", &[], "poll = \"200ms\"\n"),
        watch(&bed, "near", "in", &[], NEAR)
    ));
    liar.put("a", "x");
    let mut daemon = bed.start();
    daemon.wait_log("done: attempt 1");
    let before = kit::children_with(&daemon, "").len();
    liar.tell("hang all");
    until("two were given up", || unkillable(&daemon) == 2);
    // The next would be due 4 s after the second.
    for _ in 0..60 {
        clock.wait_more("count readdir", 2);
        assert_eq!(unkillable(&daemon), 2);
        let now = kit::children_with(&daemon, "").len();
        assert!(now <= before + 2, "{now}, and {before} before");
    }
    near_goes_on(&bed, "all-the-while");
    liar.tell("back");
    until("those that were given up are gone", || {
        unkillable(&daemon) == 0
    });
    assert_eq!(daemon.stop(), Some(0));
}

/// Its watch has all places but one. Children that are started from then on hang where they first open their files.
fn jobs_whose_files_are_there_hold_up_nobody_elses() {
    jobs_hang("concurrency = 3\n", 3);
}

fn jobs_that_take_all_places_hold_up_nobody_elses() {
    jobs_hang("", 4);
}

fn jobs_hang(keys: &str, at_once: usize) {
    for way in WAYS {
        let bed = Bed::new();
        let liar = Liar::mount(&bed, "behind", "far");
        let until_go = format!("until={}", bed.path("go").display());
        bed.configure_text(&format!(
            "{}{}{}",
            daemon(&bed, "concurrency = 4"),
            watch(&bed, "far", "far", &[&until_go], &format!("{FAR}{keys}")),
            watch(&bed, "near", "in", &[], NEAR)
        ));
        let names: Vec<String> = (0..20).map(|n| format!("f{n}")).collect();
        names.iter().for_each(|name| liar.put(name, "x"));
        let mut daemon = bed.start();
        until("all have settled", || kit::jobs(&bed).len() == names.len());
        bed.wait_runs(at_once);
        liar.tell(way);
        fs::write(bed.path("go"), "").expect("a file");
        if at_once < 4 {
            near_goes_on(&bed, "at-once");
        }
        // From now on who waits for it has no place.
        daemon.wait_log("does not answer");
        near_goes_on(&bed, "when-known");
        let far = bed.runs().iter().filter(|run| run.watch == "far").count();
        assert_eq!(far, at_once, "{way}");
        liar.tell("back");
        names.iter().for_each(|name| wait_ran(&bed, name));
        let runs = fence(&bed, &liar, "fence");
        assert!(
            counts(&runs).values().all(|times| *times == 1),
            "{way}: {runs:?}"
        );
        assert_eq!(daemon.stop(), Some(0));
    }
}

fn a_move_into_it_holds_up_nobody_elses() {
    for way in WAYS {
        let bed = Bed::new();
        let liar = Liar::mount(&bed, "behind", "far");
        fs::create_dir(bed.path("moved")).expect("a directory");
        let archive = liar.point.join("archive");
        bed.configure_text(&format!(
            "{}{}{}",
            // What it has begun to move is waited for that long.
            daemon(&bed, "drain = \"2s\""),
            watch(
                &bed,
                "moved",
                "moved",
                &[],
                &format!("{NEAR}done = {{ move = {archive:?} }}\n")
            ),
            watch(&bed, "near", "in", &[], NEAR)
        ));
        let mut daemon = bed.start();
        liar.tell(way);
        let names: Vec<String> = (0..10).map(|n| format!("m{n}")).collect();
        for name in &names {
            fs::write(bed.path("moved").join(name), name).expect("a file");
        }
        // The jobs themselves have nothing to do with it.
        names.iter().for_each(|name| wait_ran(&bed, name));
        near_goes_on(&bed, "meanwhile");
        assert_eq!(daemon.stop(), Some(0), "{way}");
        daemon = bed.start();
        near_goes_on(&bed, "again");
        liar.tell("back");
        let there = liar.backing.join("archive");
        until("all are moved", || {
            names.iter().all(|name| there.join(name).exists())
        });
        for name in &names {
            assert_eq!(fs::read_to_string(there.join(name)).expect("a file"), *name);
            assert_eq!(ran(&bed, name), 1, "{way}");
        }
        until("they are nowhere else", || {
            fs::read_dir(bed.path("moved"))
                .expect("a directory")
                .next()
                .is_none()
        });
        assert_eq!(daemon.stop(), Some(0), "{way}");
    }
}

fn a_delivery_into_it_holds_up_nobody_elses() {
    for way in WAYS {
        let bed = Bed::new();
        let liar = Liar::mount(&bed, "behind", "far");
        fs::create_dir(bed.path("out")).expect("a directory");
        bed.configure_text(&format!(
            "{}[watch.out]\npath = {:?}\nsettle = \"0\"\ndeliver = {{ to = {:?} }}\nconcurrency = 2\ndone = \"delete\"\n{}",
            daemon(&bed, "concurrency = 4\ndrain = \"2s\""),
            bed.path("out"),
            liar.point,
            watch(&bed, "near", "in", &[], NEAR)
        ));
        let mut daemon = bed.start();
        liar.tell(way);
        let names: Vec<String> = (0..10).map(|n| format!("d{n}")).collect();
        for name in &names {
            fs::write(bed.path("out").join(name), name).expect("a file");
        }
        until("deliveries have begun", || {
            kit::jobs(&bed).iter().any(|job| !job.started.is_empty())
        });
        near_goes_on(&bed, "meanwhile");
        // Cut short: the drain is over before the mount answers.
        daemon.signal(libc::SIGTERM);
        daemon.wait();
        daemon = bed.start();
        near_goes_on(&bed, "again");
        liar.tell("back");
        until("all are delivered", || {
            names
                .iter()
                .all(|name| !bed.path("out").join(name).exists())
        });
        for name in &names {
            let there = fs::read_to_string(liar.backing.join(name));
            assert_eq!(there.expect("a delivered file"), *name, "{way}");
        }
        assert_eq!(daemon.stop(), Some(0), "{way}");
        let there: Vec<_> = fs::read_dir(&liar.backing)
            .expect("a directory")
            .flatten()
            .collect();
        assert_eq!(there.len(), names.len(), "{way}: {there:?}");
    }
}

fn a_job_that_runs_while_it_hangs_is_concluded_once() {
    for way in WAYS {
        let bed = Bed::new();
        let liar = Liar::mount(&bed, "behind", "far");
        let until_go = format!("until={}", bed.path("go").display());
        bed.configure_text(&format!(
            "{}{}{}",
            daemon(&bed, ""),
            watch(
                &bed,
                "far",
                "far",
                &[&until_go],
                &format!("{FAR}done = \"delete\"\n")
            ),
            watch(&bed, "near", "in", &[], NEAR)
        ));
        liar.put("a", "x");
        let mut daemon = bed.start();
        bed.wait_runs(1);
        liar.tell(way);
        fs::write(bed.path("go"), "").expect("a file");
        near_goes_on(&bed, "meanwhile");
        daemon.wait_log("does not answer");
        near_goes_on(&bed, "when-known");
        liar.tell("back");
        until("it is deleted", || !liar.backing.join("a").exists());
        let runs = fence(&bed, &liar, "fence");
        assert!(
            counts(&runs).values().all(|times| *times == 1),
            "{way}: {runs:?}"
        );
        assert_eq!(daemon.stop(), Some(0));
    }
}

fn one_operation_that_hangs_is_enough() {
    for op in ["lookup", "getattr", "open", "opendir", "readdir"] {
        let (bed, liar) = bed_with("", FAR);
        liar.put("a", "x");
        let mut daemon = bed.start();
        wait_ran(&bed, "a");
        let from = daemon.log().len();
        liar.tell(&format!("hang {op}"));
        liar.put("b", "x");
        until("something hangs", || liar.number("held") > 0);
        wait_log_since(&daemon, from, "does not answer");
        near_goes_on(&bed, op);
        liar.tell("back");
        wait_ran(&bed, "b");
        let runs = fence(&bed, &liar, "fence");
        assert!(
            counts(&runs).values().all(|times| *times == 1),
            "{op}: {runs:?}"
        );
        assert_eq!(daemon.stop(), Some(0), "{op}");
    }
}

/// A first listing may take longer than a service manager waits.
fn readiness_does_not_wait_for_a_listing() {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "far");
    let far = watch(&bed, "far", "far", &[], FAR);
    bed.configure_text(&format!(
        "{}{far}",
        // For this daemon it is only slow.
        daemon(&bed, "").replace("mount_silent = \"1s\"", "mount_silent = \"1h\"")
    ));
    liar.put("a", "x");
    liar.tell("hang readdir");
    let notify = bed.path("notify");
    let socket = UnixDatagram::bind(&notify).expect("a socket");
    socket.set_read_timeout(Some(DEADLINE)).expect("a socket");
    let mut command = Command::new("env");
    command.arg(format!("NOTIFY_SOCKET={}", notify.display()));
    command.arg(env!("CARGO_BIN_EXE_settled"));
    command.args(["run", "-c"]).arg(bed.path("settled.toml"));
    let mut daemon = bed.spawn_command(command, &[]);
    let mut bytes = [0; 4096];
    loop {
        let length = socket.recv(&mut bytes).expect("READY=1");
        if bytes[..length] == *b"READY=1\n" {
            break;
        }
    }
    assert!(liar.number("held") > 0, "the listing hangs still");
    assert!(bed.runs().is_empty());
    liar.tell("back");
    wait_ran(&bed, "a");
    assert_eq!(daemon.stop(), Some(0));
}
