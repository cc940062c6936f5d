//! A mount that hangs from the start: FUSE, with nobody behind it. Every call on it waits until the connection is closed.

use crate::bed::{Bed, until};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

struct Hung {
    at: PathBuf,
    /// Closed, it lets go of everybody who waits.
    connection: Option<File>,
}

impl Hung {
    fn mount(bed: &Bed) -> Option<Hung> {
        let at = bed.path("hung");
        fs::create_dir(&at).expect("a mount point");
        let fuse = match File::options().read(true).write(true).open("/dev/fuse") {
            Ok(fuse) => fuse,
            Err(error) => {
                eprintln!("skipped: /dev/fuse: {error}");
                return None;
            }
        };
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            fuse.as_raw_fd()
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        if let Err(error) = mount(
            Some("hung"),
            &at,
            Some("fuse"),
            flags,
            Some(options.as_str()),
        ) {
            eprintln!("skipped: FUSE cannot be mounted: {error}");
            return None;
        }
        Some(Hung {
            at,
            connection: Some(fuse),
        })
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        drop(self.connection.take());
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

fn configure(bed: &Bed) {
    let run = bed.run_key(&[]);
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\nmount_silent = \"1s\"\ndrain = \"1h\"\n\
         [watch.w]\npath = {:?}\n{run}[watch.hung]\npath = {:?}\npoll = \"100ms\"\n{run}",
        bed.path("state"),
        bed.path("in"),
        bed.path("hung"),
    ));
}

#[test]
fn a_daemon_that_starts_while_a_mount_hangs_serves_the_others() {
    let bed = Bed::new();
    let Some(hung) = Hung::mount(&bed) else {
        return;
    };
    configure(&bed);
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    daemon.wait_log("the directory does not answer; its watch waits, everything else goes on");
    daemon.signal(libc::SIGUSR1);
    daemon.wait_log("looking for its directory, which does not answer");
    fs::write(bed.inside("b"), "x").expect("a file");
    bed.wait_runs(2);

    // The connection breaks, the mount goes away: what lies below it is watched.
    drop(hung);
    daemon.wait_log("the directory answers again");
    fs::write(bed.path("hung/c"), "x").expect("a file");
    until("its run", || bed.runs().iter().any(|run| run.name() == "c"));
    assert_eq!(daemon.stop(), Some(0));
}

/// `drain` is an hour.
#[test]
fn a_daemon_stops_while_a_mount_hangs() {
    let bed = Bed::new();
    let Some(_hung) = Hung::mount(&bed) else {
        return;
    };
    configure(&bed);
    let mut daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    assert_eq!(daemon.stop(), Some(0));
}
