//! Files that are renamed unheard, and what is heard while the scan that is to find them waits for its disk.

use crate::bed::{Bed, counts, until};
use crate::kit;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};

/// `goes` renames a concluded file while the kernel's queue is full; `heard` is what the daemon hears before anything is
/// listed. Nothing is run again when everything is.
fn moved(goes: impl Fn(&Bed), heard: impl Fn(&Bed)) {
    let bed = Bed::new();
    let keys = "settle = \"0\"\nrecursive = true\nexclude = [\"*.not\"]\n";
    bed.configure(&[], keys);
    for dir in ["from/sub", "to"] {
        fs::create_dir_all(bed.inside(dir)).expect("a directory");
    }
    fs::write(bed.inside("from/sub/f"), "x").expect("a file");
    let mut daemon = bed.start();
    bed.wait_runs(1);
    kit::wait_state(&daemon, " 0 candidates");
    let pid = Pid::from_raw(daemon.pid());
    kill(pid, Signal::SIGSTOP).expect("the daemon");
    overflow(&bed);
    goes(&bed);
    let scouts = kit::scouts_of(&daemon);
    kit::send(&scouts, Signal::SIGSTOP);
    kill(pid, Signal::SIGCONT).expect("the daemon");
    daemon.wait_log("the kernel's event queue overflowed");
    heard(&bed);
    // Events are read in their order.
    let before = daemon.log_count(" 1 candidates");
    fs::write(bed.inside("to/last"), "x").expect("a file");
    until("the event of the last file is read", || {
        daemon.signal(libc::SIGUSR1);
        daemon.log_count(" 1 candidates") > before
    });
    kit::send(&scouts, Signal::SIGCONT);
    bed.wait_runs(2);
    let runs = bed.fence("fence");
    let wanted = [("f".into(), 1), ("last".into(), 1)].into();
    assert_eq!(counts(&runs), wanted, "{runs:?}");
    assert_eq!(daemon.stop(), Some(0));
}

/// As many events as the kernel keeps, of files that are not selected, and more.
fn overflow(bed: &Bed) {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let limit: usize = limit.trim().parse().expect("a number");
    let names = [bed.inside("a.not"), bed.inside("b.not")];
    // The same event twice in a row is one.
    for n in 0..limit + 2 {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&names[n % 2]);
        drop(file.expect("a file"));
    }
}

#[test]
fn a_directory_that_went_keeps_its_memory_though_the_one_it_was_in_is_deleted() {
    let goes =
        |bed: &Bed| fs::rename(bed.inside("from/sub"), bed.inside("to/sub")).expect("a rename");
    moved(goes, |bed| {
        fs::remove_dir(bed.inside("from")).expect("rmdir");
    });
}

#[test]
fn a_file_that_went_keeps_its_memory_though_another_is_deleted_under_its_name() {
    let goes = |bed: &Bed| {
        fs::rename(bed.inside("from/sub/f"), bed.inside("to/f")).expect("a rename");
        fs::write(bed.inside("from/sub/f"), "another").expect("a file");
    };
    moved(goes, |bed| {
        fs::remove_file(bed.inside("from/sub/f")).expect("rm");
    });
}
