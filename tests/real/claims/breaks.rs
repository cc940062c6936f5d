//! What goes wrong with claims: keepers that end or hang, claim directories that are not there, stops and reloads.

use super::{DELETE, action, assert_one_at_a_time, begun, notes, two, wait_empty, wait_no_notes};
use crate::bed::{Bed, Daemon, until, until_in};
use crate::kit::{self, SLOW, alive, put, wait_ledger};
use std::fs;

/// The process that keeps a daemon's claims.
fn keeper(daemon: &Daemon) -> i32 {
    let mut found = Vec::new();
    until("a process that keeps claims", || {
        found = kit::children_with(daemon, "keep-claims");
        found.len() == 1
    });
    found[0]
}

#[test]
fn a_killed_keeper_is_started_again_and_takes_again_what_is_at_work() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    for (machine, places) in [(&a, 2), (&b, 8)] {
        machine.configure(
            places,
            &format!("{}\n{DELETE}", action(&bed, "wait_for \"$go\"")),
        );
    }
    let one = a.start();
    for number in 0..6 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_ledger(&bed, "begin", 2);
    let other = b.start();
    wait_ledger(&bed, "begin", 6);
    for _ in 0..3 {
        let pid = keeper(&one);
        let before = one.log_count("the process that keeps the claims ended");
        kit::kill(pid);
        until("it is said", || {
            one.log_count("the process that keeps the claims ended") > before
        });
        until("another is there", || {
            kit::children_with(&one, "keep-claims")
                .iter()
                .any(|p| *p != pid)
        });
    }
    // The other has had time to ask.
    let refused = other.log_count("another machine has claimed it");
    until_in(SLOW, "it is refused again", || {
        other.log_count("another machine has claimed it") > refused
    });
    fs::write(bed.path("go"), "").expect("a sign");
    wait_empty(&bed);
    assert_eq!(begun(&bed).len(), 6, "each once");
    assert_one_at_a_time(&bed);
    assert!(begun(&bed).iter().all(|one| !one.recovered));
}

#[test]
fn nothing_is_run_without_the_claim_directory_and_all_is_once_it_is_there() {
    let bed = Bed::new();
    let (a, _) = two(&bed);
    let marks = bed.path("marks");
    a.configure(4, &format!("{}\nclaim_done = {marks:?}", action(&bed, "")));
    let daemon = a.start();
    for number in 0..5 {
        put(&bed, format!("f{number}"), "x");
    }
    daemon.wait_log("no claim can be made");
    until("all have settled", || daemon.log_count(" settled") == 5);
    daemon.signal(libc::SIGUSR1);
    daemon.wait_log("5 ready");
    assert_eq!(daemon.log_count("no claim can be made"), 1);
    assert_eq!(begun(&bed).len(), 0);
    fs::create_dir(&marks).expect("a directory for marks");
    wait_ledger(&bed, "end", 5);
    daemon.wait_log("claims can be made again");
    assert_eq!(begun(&bed).len(), 5);
    // Taken away while nothing is claimed, and something else in its place.
    until("nothing is claimed", || {
        let names = notes(&bed, "marks");
        names.len() == 5 && names.iter().all(|name| name.ends_with(".done"))
    });
    fs::remove_dir_all(&marks).expect("no directory");
    fs::write(&marks, "").expect("a file");
    put(&bed, "late", "x");
    until("it is said again", || {
        daemon.log_count("no claim can be made") == 2
    });
    fs::remove_file(&marks).expect("no file");
    fs::create_dir(&marks).expect("a directory for marks");
    wait_ledger(&bed, "end", 6);
}

#[test]
fn a_stop_gives_back_what_was_claimed_and_not_begun() {
    let bed = Bed::new();
    let (a, b) = two(&bed);
    for machine in [&a, &b] {
        machine.configure(
            2,
            &format!("{}\n{DELETE}", action(&bed, "wait_for \"$go\"")),
        );
    }
    let mut one = a.start();
    for number in 0..4 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_ledger(&bed, "begin", 2);
    one.signal(libc::SIGTERM);
    one.wait_log("stopping:");
    let _other = b.start();
    // Those that the first has not begun.
    wait_ledger(&bed, "begin", 4);
    fs::write(bed.path("go"), "").expect("a sign");
    wait_empty(&bed);
    assert_eq!(one.wait().code(), Some(0));
    let all = begun(&bed);
    assert_eq!(all.len(), 4);
    assert!(all.iter().all(|one| !one.recovered), "{all:?}");
    wait_no_notes(&bed);
}

/// The lock file is replaced under what is at work: what locked the old one and what locks the new one know nothing of each
/// other, so that nothing new is begun by whoever has the old one.
#[test]
fn a_lock_file_that_was_replaced_is_not_used_together_with_the_new_one() {
    let bed = Bed::new();
    let (a, _) = two(&bed);
    a.configure(
        4,
        &format!("{}\n{DELETE}", action(&bed, "wait_for \"$go\"")),
    );
    let daemon = a.start();
    put(&bed, "f0", "x");
    wait_ledger(&bed, "begin", 1);
    fs::remove_file(bed.path("in/.settled-claims/locks")).expect("a lock file");
    put(&bed, "f1", "x");
    daemon.wait_log("no claim can be made: the lock file was taken away or replaced");
    assert_eq!(begun(&bed).len(), 1);
    fs::write(bed.path("go"), "").expect("a sign");
    wait_empty(&bed);
    assert_eq!(begun(&bed).len(), 2);
}

/// Another claim directory, and then none: what is at work keeps the claim that it has until it is over.
#[test]
fn a_reload_makes_claims_elsewhere_or_not_at_all() {
    let bed = Bed::new();
    let (a, _) = two(&bed);
    let then = "wait_for \"$go.$name\"";
    let marks = bed.path("marks");
    fs::create_dir(&marks).expect("a directory for marks");
    let action = action(&bed, then);
    a.configure(4, &format!("{action}\n{DELETE}"));
    let mut daemon = a.start();
    put(&bed, "one", "x");
    wait_ledger(&bed, "begin", 1);
    let reload = |keys: &str, times: usize| {
        a.configure(4, keys);
        daemon.signal(libc::SIGHUP);
        until("it is reloaded", || daemon.log_count("reloaded") == times);
    };
    reload(&format!("{action}\n{DELETE}\nclaim_done = {marks:?}"), 1);
    put(&bed, "two", "x");
    wait_ledger(&bed, "begin", 2);
    assert_eq!(notes(&bed, "in/.settled-claims").len(), 1);
    assert_eq!(notes(&bed, "marks").len(), 1);
    assert_eq!(kit::children_with(&daemon, "keep-claims").len(), 2);
    fs::write(bed.path("go.one"), "").expect("a sign");
    until("the first keeper is gone", || {
        kit::children_with(&daemon, "keep-claims").len() == 1
    });
    wait_no_notes(&bed);
    let text = fs::read_to_string(a.config()).expect("a configuration");
    let without = text
        .replace("claim = \"lock\"\n", "")
        .replace(&format!("claim_done = {marks:?}"), "");
    fs::write(a.config(), without).expect("a configuration");
    daemon.signal(libc::SIGHUP);
    until("it is reloaded", || daemon.log_count("reloaded") == 2);
    put(&bed, "three", "x");
    wait_ledger(&bed, "begin", 3);
    fs::write(bed.path("go.two"), "").expect("a sign");
    fs::write(bed.path("go.three"), "").expect("a sign");
    wait_empty(&bed);
    until("no keeper is left", || {
        kit::children_with(&daemon, "keep-claims").is_empty()
    });
    assert_eq!(
        notes(&bed, "marks")
            .iter()
            .filter(|name| name.ends_with(".begun"))
            .count(),
        0
    );
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(begun(&bed).len(), 3);
}

#[test]
fn a_claim_directory_that_hangs_holds_up_its_watch_alone_and_no_stop() {
    let bed = Bed::new();
    let action = action(&bed, "");
    fs::create_dir(bed.path("near")).expect("a directory");
    let mut daemon = {
        bed.configure_text(&format!(
            "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\nmount_silent = \"1s\"\n\n\
             [defaults]\nsettle = \"0\"\n{action}\n\n\
             [watch.w]\npath = {:?}\nclaim = \"lock\"\n{DELETE}\n\n[watch.near]\npath = {:?}\n",
            bed.path("state"),
            bed.path("in"),
            bed.path("near"),
        ));
        kit::start(&bed)
    };
    put(&bed, "before", "x");
    wait_ledger(&bed, "end", 1);
    let pid = keeper(&daemon);
    let send = |signal| {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, signal).expect("a running process");
    };
    send(nix::sys::signal::Signal::SIGSTOP);
    put(&bed, "held-up", "x");
    daemon.wait_log("the claim directory does not answer");
    fs::write(bed.path("near/f"), "x").expect("a file");
    wait_ledger(&bed, "end", 2);
    send(nix::sys::signal::Signal::SIGCONT);
    daemon.wait_log("the claim directory answers again");
    wait_ledger(&bed, "end", 3);
    wait_empty(&bed);
    send(nix::sys::signal::Signal::SIGSTOP);
    put(&bed, "held-up-too", "x");
    until("it is said again", || {
        daemon.log_count("the claim directory does not answer") == 2
    });
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(begun(&bed).len(), 3);
    send(nix::sys::signal::Signal::SIGCONT);
    until("the process that kept claims is gone", || !alive(pid));
}
