//! What the kernel does, as the spawner relies on it.

use crate::house::{is_gone, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use settled::sys::packet;
use settled::sys::process::{self, Exit, Fork, Loan, Stack};
use std::os::fd::{AsFd, OwnedFd};

fn reaped(pid: i32) -> Exit {
    let pidfd = process::pidfd_open(pid).unwrap();
    let mut exit = None;
    wait_until("the end of a process", || {
        exit = process::ended(pidfd.as_fd(), true).unwrap();
        exit.is_some()
    });
    exit.unwrap()
}

/// Runs `body` in a copy of this process, its result being the exit status. Returns its pid.
fn copy(body: impl FnOnce() -> i32) -> i32 {
    match process::fork().unwrap() {
        Fork::Child => process::exit_now(body()),
        Fork::Parent(pid) => pid,
    }
}

fn say(socket: &OwnedFd, number: i32) {
    let _reader_gone = packet::send(socket.as_fd(), &number.to_ne_bytes(), &[], true);
}

fn hear(socket: &OwnedFd) -> i32 {
    let mut bytes = [0; 4];
    let packet = packet::receive(socket.as_fd(), &mut bytes, true).unwrap();
    assert_eq!(packet.len, 4);
    i32::from_ne_bytes(bytes)
}

#[test]
fn a_sibling_is_its_makers_parents_child() {
    let (ours, its) = packet::pair().unwrap();
    let maker = copy(|| {
        let Ok(Fork::Parent(pid)) = process::fork_sibling().inspect(|fork| {
            if *fork == Fork::Child {
                process::exit_now(23);
            }
        }) else {
            return 1;
        };
        // Not its maker's to wait for.
        let wait = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        say(&its, pid);
        if wait == Err(nix::errno::Errno::ECHILD) {
            0
        } else {
            2
        }
    });
    let sibling = hear(&ours);
    assert_eq!(reaped(maker), Exit::Status(0));
    assert_eq!(reaped(sibling), Exit::Status(23));
}

#[test]
fn a_sibling_ends_with_its_makers_signal_for_the_parent() {
    // clone(2): with CLONE_PARENT the exit signal is that of the maker, here fork's SIGCHLD; a plain wait, which
    // sees no others, finds it.
    let (ours, its) = packet::pair().unwrap();
    let maker = copy(|| match process::fork_sibling() {
        Ok(Fork::Child) => process::exit_now(5),
        Ok(Fork::Parent(pid)) => {
            say(&its, pid);
            0
        }
        Err(_) => 1,
    });
    let sibling = hear(&ours);
    assert_eq!(reaped(maker), Exit::Status(0));
    let status = waitpid(Pid::from_raw(sibling), None).unwrap();
    assert_eq!(status, WaitStatus::Exited(Pid::from_raw(sibling), 5));
}

/// A copy of this process lends its memory to a child that says its pid and then waits for the socket's end.
fn lender(announced: bool) -> (i32, i32, OwnedFd) {
    let (ours, its) = packet::pair().unwrap();
    let lender = copy(|| {
        let Ok(mut stack) = Stack::new(64 * 1024) else {
            return 1;
        };
        let mut written = false;
        let mut child = |loan: &Loan| {
            written = true;
            if announced {
                loan.announce(17);
            }
            say(&its, nix::unistd::getpid().as_raw());
            let mut byte = [0];
            let _end = packet::receive(its.as_fd(), &mut byte, true);
            9
        };
        let torn = |number, pid| {
            if number == 17 {
                say(&its, pid);
            }
        };
        let lent = stack.lend(&mut child, &torn);
        // Suspended until here, and sharing memory.
        if lent.is_ok() && written { 50 } else { 2 }
    });
    let child = hear(&ours);
    (lender, child, ours)
}

#[test]
fn a_lender_goes_on_when_its_child_has_ended() {
    let (lender, child, socket) = lender(true);
    assert!(!is_gone(lender));
    // This process holds the other end's copy too, so say the word instead of closing.
    say(&socket, 0);
    assert_eq!(reaped(child), Exit::Status(9));
    assert_eq!(reaped(lender), Exit::Status(50));
}

#[test]
fn a_lender_does_not_trust_memory_that_a_killed_child_had() {
    for (announced, status) in [(true, process::TORN), (false, process::LOST)] {
        let (lender, child, socket) = lender(announced);
        kill(Pid::from_raw(child), Signal::SIGKILL).unwrap();
        assert_eq!(reaped(child), Exit::Signal(Signal::SIGKILL as i32));
        assert_eq!(reaped(lender), Exit::Status(status));
        if announced {
            assert_eq!(hear(&socket), child);
        }
    }
}

#[test]
fn a_pid_stays_with_an_ended_child_until_it_is_reaped() {
    let child = copy(|| 3);
    let pidfd = process::pidfd_open(child).unwrap();
    wait_until("the child's end", || {
        process::ended(pidfd.as_fd(), false).unwrap().is_some()
    });
    assert_eq!(
        process::ended(pidfd.as_fd(), false).unwrap(),
        Some(Exit::Status(3))
    );
    assert!(kill(Pid::from_raw(child), None).is_ok());
    assert_eq!(
        process::ended(pidfd.as_fd(), true).unwrap(),
        Some(Exit::Status(3))
    );
    assert!(process::ended(pidfd.as_fd(), true).is_err());
}
