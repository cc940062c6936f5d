//! What lies under the daemon changes: mounts come and go.

use crate::bed::{Bed, bytes, counts};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

fn ran(program: &str, args: &[&std::ffi::OsStr]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A bind mount; `None` where this user or machine may not mount. Undone when dropped.
struct Mounted<'a>(&'a Path);

fn mounted<'a>(what: &Path, on: &'a Path) -> Option<Mounted<'a>> {
    let done = ran(
        "mount",
        &["--bind".as_ref(), what.as_os_str(), on.as_os_str()],
    );
    if !done {
        eprintln!("not tested: nothing can be mounted here");
    }
    done.then_some(Mounted(on))
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        crate::bed::until("the unmount", || ran("umount", &[self.0.as_os_str()]));
    }
}

#[test]
fn an_unmounted_empty_mount_point_forgets_nothing() {
    for nested in [false, true] {
        for restarted in [false, true] {
            let bed = Bed::new();
            let disk = bed.path("disk");
            fs::create_dir_all(disk.join("sub")).expect("a disk");
            fs::write(disk.join("a"), "x").expect("a file");
            fs::write(disk.join("sub/b"), "y").expect("a file");
            let point = if nested {
                bed.inside("m")
            } else {
                bed.path("in")
            };
            fs::create_dir_all(&point).expect("a mount point");
            let keys = "settle = \"0\"\nrecursive = true\nconcurrency = 1\n";
            bed.configure(&[], keys);
            let Some(mount) = mounted(&disk, &point) else {
                return;
            };
            let mut daemon = bed.start();
            bed.wait_runs(2);
            if restarted {
                daemon.stop();
            }
            drop(mount);
            if restarted {
                daemon = bed.start();
            }
            // A listing of the empty mount point by itself, and one after it.
            fs::write(point.join("under"), "u").expect("a file");
            bed.wait_runs(3);
            for round in 0..2 {
                let listed = daemon.log_count("listing everything again");
                daemon.signal(libc::SIGUSR2);
                crate::bed::until("a listing", || {
                    daemon.log_count("listing everything again") > listed
                });
                bed.fence(&format!("fence-{round}"));
            }
            if restarted {
                daemon.stop();
                daemon = bed.start();
            }
            let Some(_mount) = mounted(&disk, &point) else {
                return;
            };
            fs::write(point.join("sub/new"), "z").expect("a file");
            bed.wait_runs(8);
            let runs = bed.fence("fence-2");
            let counts = counts(&runs);
            assert_eq!(
                counts.get(&bytes(b"a")),
                Some(&1),
                "{nested} {restarted} {runs:?}"
            );
            assert_eq!(
                counts.get(&bytes(b"b")),
                Some(&1),
                "{nested} {restarted} {runs:?}"
            );
            assert_eq!(
                counts.get(&bytes(b"new")),
                Some(&1),
                "{nested} {restarted} {runs:?}"
            );
            drop(daemon);
        }
    }
}

#[test]
fn a_linked_root_that_leads_elsewhere_is_found_by_a_listing() {
    let bed = Bed::new();
    let link = bed.path("link");
    fs::create_dir(bed.path("other")).expect("a directory");
    std::os::unix::fs::symlink(bed.path("in"), &link).expect("a link");
    let run = bed.run_key(&[]);
    bed.configure_text(&format!(
        "[watch.w]\npath = {link:?}\nsettle = \"0\"\n{run}"
    ));
    let daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    std::os::unix::fs::symlink(bed.path("other"), bed.path("link2")).expect("a link");
    fs::rename(bed.path("link2"), &link).expect("a rename over the link");
    fs::write(link.join("b"), "y").expect("a file");
    daemon.signal(libc::SIGUSR2);
    let runs = bed.wait_runs(2);
    assert_eq!(runs[1].path, bed.path("other").join("b"));
}

/// A tmpfs for the state.
struct Small(std::path::PathBuf);

impl Drop for Small {
    fn drop(&mut self) {
        ran("umount", &["-l".as_ref(), self.0.as_os_str()]);
    }
}

/// More is decided in one turn than there is room for: the daemon stands still, and neither ends nor does anything of
/// it before it can be written down.
#[test]
fn a_turn_that_has_no_room_waits_for_it() {
    for stopped in [false, true] {
        let bed = Bed::new();
        let state = bed.path("state");
        fs::create_dir(&state).expect("a mount point");
        let options = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "small"];
        let mut args: Vec<&std::ffi::OsStr> = options.iter().map(|word| word.as_ref()).collect();
        args.push(state.as_os_str());
        if !ran("mount", &args) {
            eprintln!("not tested: nothing can be mounted here");
            return;
        }
        let _small = Small(state.clone());
        bed.configure(&[], "settle = \"0\"\nexisting = \"skip\"\n");
        let config = bed.path("settled.toml");
        let run = ["run".as_ref(), "-c".as_ref(), config.as_os_str()];
        let env = [("SETTLED_TEST_COMPACT_BYTES", "1000000000000")];
        let daemon = bed.spawn_with(&run, &env);
        daemon.wait_log("ready:");
        drop(daemon);
        // The next start finds a watch that it has not seen, and many files in it: a baseline of each.
        for n in 0..3000 {
            fs::write(bed.inside(format!("{n:0200}")), "x").expect("a file");
        }
        let text = fs::read_to_string(&config).expect("the configuration");
        fs::write(&config, text.replace("[watch.w]", "[watch.v]")).expect("a configuration");
        fs::write(state.join("ballast"), vec![0; 1 << 20]).expect_err("a full disk");
        let mut daemon = bed.spawn_with(&run, &env);
        daemon.wait_log("everything waits");
        if stopped {
            daemon.signal(libc::SIGTERM);
            assert_eq!(daemon.wait().code(), Some(73), "{:?}", daemon.log());
            fs::remove_file(state.join("ballast")).expect("room");
            daemon = bed.spawn_with(&run, &env);
        } else {
            fs::remove_file(state.join("ballast")).expect("room");
            daemon.wait_log("going on");
        }
        daemon.wait_log("ready:");
        fs::write(bed.inside("new"), "y").expect("a file");
        let runs = bed.wait_runs(1);
        assert_eq!(runs[0].path, bed.inside("new"));
        daemon.signal(libc::SIGTERM);
        assert_eq!(daemon.wait().code(), Some(0), "{:?}", daemon.log());
        assert_eq!(bed.runs().len(), 1);
    }
}

/// Nothing that is decided from then on would be known to the next start.
#[test]
fn a_state_directory_that_is_taken_away_ends_the_daemon() {
    let bed = Bed::new();
    bed.configure(&[], "settle = \"0\"\n");
    let config = bed.path("settled.toml");
    let mut daemon = bed.spawn_with(
        &["run".as_ref(), "-c".as_ref(), config.as_os_str()],
        &[("SETTLED_TEST_COMPACT_BYTES", "1000000000000")],
    );
    daemon.wait_log("ready:");
    fs::write(bed.inside("a"), "x").expect("a file");
    bed.wait_runs(1);
    fs::remove_dir_all(bed.path("state")).expect("a directory less");
    fs::write(bed.inside("b"), "x").expect("a file");
    assert_eq!(daemon.wait().code(), Some(74), "{:?}", daemon.log());
    daemon.wait_log("taken away");
    // Its record went nowhere: it was not begun.
    assert_eq!(bed.runs().len(), 1);
}

/// What compaction has left over and cannot remove is told of once, whichever flush meets it, and holds nothing up.
#[test]
fn a_leftover_that_cannot_be_removed_is_told_of() {
    let bed = Bed::in_dir(Path::new("/dev/shm"));
    bed.configure(&[], "settle = \"0\"\n");
    let config = bed.path("settled.toml");
    let daemon = bed.spawn_with(
        &["run".as_ref(), "-c".as_ref(), config.as_os_str()],
        &[("SETTLED_TEST_COMPACT_BYTES", "100000")],
    );
    daemon.wait_log("ready:");
    // More of them than the switch itself removes, and among them one that is no file at all.
    for name in ["0000000000.base", "0000000001.base", "0000000002.base"] {
        fs::write(bed.path("state").join(name), "old").expect("a file");
    }
    fs::create_dir(bed.path("state").join("0000000000.log")).expect("a directory");
    let mut written = 0;
    let mut write = |count: usize| {
        for n in written..written + count {
            fs::write(bed.inside(format!("f{n:06}")), "x").expect("a file");
        }
        written += count;
        bed.wait_runs(written);
    };
    crate::bed::until("a compaction", || {
        write(20);
        !bed.path("state").join("0000000001.log").exists()
    });
    // Two flushes later at the latest; the next compaction is far.
    write(1);
    write(1);
    daemon.wait_log("0000000000.log: Is a directory");
    (0..40).for_each(|_| write(1));
    let said = daemon.log_count("0000000000.log: Is a directory");
    assert!(said < 4, "{:?}", daemon.log());
    // The others did not wait for it.
    assert!(!bed.path("state").join("0000000002.log").exists());
}
