//! Mounts that come and go under the daemon.

use crate::bed::{Bed, Daemon, until};
use crate::kit;
use crate::mount::Liar;
use crate::{assert_once, daemon, fence, watch};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};

crate::tests![
    a_mount_that_comes_back_as_another_device_repeats_nothing,
    a_job_that_ends_while_its_mount_is_away_is_concluded,
    a_mount_over_a_watched_directory_hides_it_and_gives_it_back,
    what_is_mounted_while_the_root_is_looked_for_is_watched,
    a_mount_in_a_watched_tree_comes_and_goes,
    a_bind_mount_of_a_remote_directory_is_polled,
    two_watches_see_one_directory_through_a_bind_mount,
];

const KEYS: &str = "poll = \"50ms\"\nsettle = \"300ms\"\nrecursive = true\nconcurrency = 1\n";

/// Undone when dropped.
struct Bound(PathBuf);

impl Bound {
    fn new(what: &Path, at: &Path) -> Bound {
        fs::create_dir_all(at).expect("a mount point");
        let none: Option<&str> = None;
        mount(Some(what), at, none, MsFlags::MS_BIND, none).expect("a bind mount");
        Bound(at.to_owned())
    }

    fn undo(self) {
        until("the unmount", || {
            umount2(&self.0, MntFlags::empty()).is_ok()
        });
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _undone_already = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Two listings of everything.
fn listed_again(daemon: &Daemon) {
    for _ in 0..2 {
        let from = daemon.log().len();
        daemon.signal(libc::SIGUSR2);
        crate::wait_log_since(daemon, from, "listing everything again");
    }
}

/// A local file that is run when everything before it was.
fn local_fence(bed: &Bed, path: &Path) {
    let name = path.file_name().expect("a name").to_owned();
    fs::write(path, "fence").expect("a file");
    until("the fence's run", || {
        bed.runs().iter().any(|run| run.name() == name)
    });
}

/// Mounted again with another device number: one that is free again may be given out at once.
fn mount_elsewhere(bed: &Bed, point: &str, device: u64) -> Liar {
    let mut kept = Vec::new();
    loop {
        let again = Liar::mount(bed, "behind", point);
        if again.device() != device {
            return again;
        }
        again.unmount();
        // It takes the number.
        let name = format!("kept{}", kept.len());
        kept.push(Liar::mount(bed, &name, &format!("{name}-point")));
    }
}

fn a_mount_that_comes_back_as_another_device_repeats_nothing() {
    for stopped in [false, true] {
        let bed = Bed::new();
        let liar = Liar::mount(&bed, "behind", "in");
        bed.configure_text(&format!(
            "{}{}",
            daemon(&bed, ""),
            watch(&bed, "w", "in", &[], KEYS)
        ));
        fs::create_dir(liar.backing.join("sub")).expect("a directory");
        for name in ["a", "b", "sub/c"] {
            liar.put(name, name);
        }
        let mut daemon = bed.start();
        bed.wait_runs(3);
        let device = liar.device();
        if stopped {
            assert_eq!(daemon.stop(), Some(0));
        }
        liar.unmount();
        if !stopped {
            // The empty mount point is watched now, and listed.
            local_fence(&bed, &bed.inside("under"));
            listed_again(&daemon);
            local_fence(&bed, &bed.inside("under-2"));
        }
        let liar = mount_elsewhere(&bed, "in", device);
        if stopped {
            daemon = bed.start();
        }
        liar.put("new", "new");
        until("the new file's run", || {
            bed.runs().iter().any(|run| run.name() == *"new")
        });
        let runs: Vec<_> = fence(&bed, &liar, "fence")
            .into_iter()
            .filter(|run| !run.name().to_string_lossy().starts_with("under"))
            .collect();
        assert_once(&runs, ["a", "b", "c", "new"]);
        assert_eq!(daemon.stop(), Some(0));
    }
}

fn a_job_that_ends_while_its_mount_is_away_is_concluded() {
    for done in ["keep", "delete"] {
        for deep in ["", "sub/deep/"] {
            let bed = Bed::new();
            let disk = bed.path("disk");
            fs::create_dir_all(disk.join(deep)).expect("a directory");
            let bound = Bound::new(&disk, &bed.path("in"));
            let words = format!("until={}", bed.path("go").display());
            let keys = format!("{KEYS}done = {done:?}\n");
            let watch = watch(&bed, "w", "in", &[&words], &keys);
            bed.configure_text(&format!("{}{watch}", daemon(&bed, "")));
            let mut daemon = bed.start();
            fs::write(disk.join(deep).join("a"), "x").expect("a file");
            bed.wait_runs(1);
            // The job has its file open.
            umount2(&bed.path("in"), MntFlags::MNT_DETACH).expect("an unmount");
            let from = daemon.log().len();
            crate::wait_log_since(&daemon, from.saturating_sub(1), "watching");
            listed_again(&daemon);
            fs::write(bed.path("go"), "").expect("a file");
            local_fence(&bed, &bed.inside("under"));
            listed_again(&daemon);
            local_fence(&bed, &bed.inside("under-2"));
            let bound_again = Bound::new(&disk, &bed.path("in"));
            fs::write(disk.join(deep).join("b"), "x").expect("a file");
            until("the new file's run", || {
                bed.runs().iter().any(|run| run.name() == *"b")
            });
            local_fence(&bed, &bed.inside("last"));
            assert_once(&bed.runs(), ["a", "b", "last", "under", "under-2"]);
            if done == "delete" {
                until("it is deleted", || !disk.join(deep).join("a").exists());
            }
            assert_eq!(daemon.stop(), Some(0));
            bound_again.undo();
            drop(bound);
        }
    }
}

fn a_mount_over_a_watched_directory_hides_it_and_gives_it_back() {
    let bed = Bed::new();
    bed.configure_text(&format!(
        "{}{}",
        daemon(&bed, ""),
        watch(&bed, "w", "in", &[], KEYS)
    ));
    fs::write(bed.inside("local"), "x").expect("a file");
    let mut daemon = bed.start();
    bed.wait_runs(1);
    let mut names = vec!["local".to_owned()];
    for round in 0..3 {
        let from = daemon.log().len();
        let liar = Liar::mount(&bed, "behind", "in");
        let name = format!("over{round}");
        liar.put(&name, "x");
        names.push(name);
        bed.wait_runs(names.len());
        crate::wait_log_since(&daemon, from, "watching");
        let from = daemon.log().len();
        liar.unmount();
        let name = format!("under{round}");
        fs::write(bed.inside(&name), "x").expect("a file");
        names.push(name);
        bed.wait_runs(names.len());
        crate::wait_log_since(&daemon, from, "watching");
        listed_again(&daemon);
    }
    local_fence(&bed, &bed.inside("last"));
    names.push("last".into());
    assert_once(&bed.runs(), names.iter().map(String::as_str));
    assert_eq!(daemon.stop(), Some(0));
}

/// It has been round once since this was called.
fn wait_turn(daemon: &Daemon) {
    for _ in 0..2 {
        let from = daemon.log().len();
        daemon.signal(libc::SIGUSR1);
        crate::wait_log_since(daemon, from, "state: ");
    }
}

/// Whether it waits for something to do.
fn sleeps(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, rest) = stat.rsplit_once(") ").expect("its name in brackets");
    rest.starts_with('S')
}

fn what_is_mounted_while_the_root_is_looked_for_is_watched() {
    let bed = Bed::new();
    bed.configure_text(&format!(
        "{}{}",
        daemon(&bed, ""),
        watch(&bed, "w", "in", &[], KEYS)
    ));
    let disks = ["one", "other"].map(|name| bed.path(name));
    for disk in &disks {
        fs::create_dir(disk).expect("a directory");
    }
    let mut daemon = bed.start();
    local_fence(&bed, &bed.inside("before"));
    let spawner = kit::children_named(&daemon, "settled-spawner");
    let others = kit::scouts_of(&daemon);
    kit::send(&spawner, Signal::SIGSTOP);
    let first = Bound::new(&disks[0], &bed.path("in"));
    wait_turn(&daemon);
    first.undo();
    wait_turn(&daemon);
    // The answer that nothing is mounted is on its way when the second comes.
    let pid = [Pid::from_raw(daemon.pid())];
    kit::send(&pid, Signal::SIGSTOP);
    kit::send(&spawner, Signal::SIGCONT);
    until("the answer", || {
        let mut scouts = kit::scouts_of(&daemon).into_iter();
        scouts.any(|pid| !others.contains(&pid) && sleeps(pid))
    });
    let _second = Bound::new(&disks[1], &bed.path("in"));
    kit::send(&pid, Signal::SIGCONT);
    local_fence(&bed, &disks[1].join("after"));
    assert_once(&bed.runs(), ["before", "after"]);
    assert_eq!(daemon.stop(), Some(0));
}

fn a_mount_in_a_watched_tree_comes_and_goes() {
    let bed = Bed::new();
    bed.configure_text(&format!(
        "{}{}",
        daemon(&bed, ""),
        watch(&bed, "w", "in", &[], KEYS)
    ));
    fs::create_dir(bed.inside("m")).expect("a mount point");
    fs::write(bed.inside("m/covered"), "x").expect("a file");
    fs::write(bed.inside("beside"), "x").expect("a file");
    let mut daemon = bed.start();
    bed.wait_runs(2);
    let mut names = vec!["covered".to_owned(), "beside".to_owned()];
    for round in 0..3 {
        let liar = Liar::mount(&bed, "behind", "in/m");
        let name = format!("far{round}");
        // Nobody tells of it.
        liar.put(&name, "x");
        names.push(name);
        bed.wait_runs(names.len());
        let name = format!("far-later{round}");
        liar.put(&name, "x");
        names.push(name);
        bed.wait_runs(names.len());
        liar.unmount();
        let name = format!("near{round}");
        fs::write(bed.inside("m").join(&name), "x").expect("a file");
        names.push(name);
        bed.wait_runs(names.len());
        listed_again(&daemon);
        if round == 1 {
            daemon.kill();
            daemon = bed.start();
        }
    }
    local_fence(&bed, &bed.inside("last"));
    names.push("last".into());
    assert_once(&bed.runs(), names.iter().map(String::as_str));
    assert_eq!(daemon.stop(), Some(0));
}

fn a_bind_mount_of_a_remote_directory_is_polled() {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "far");
    fs::create_dir(liar.backing.join("deep")).expect("a directory");
    let bound = Bound::new(&liar.point.join("deep"), &bed.path("in"));
    bed.configure_text(&format!(
        "{}{}",
        daemon(&bed, ""),
        watch(&bed, "w", "in", &[], KEYS)
    ));
    liar.put("deep/a", "x");
    let mut daemon = bed.start();
    bed.wait_runs(1);
    liar.put("deep/b", "x");
    bed.wait_runs(2);
    bound.undo();
    local_fence(&bed, &bed.inside("under"));
    listed_again(&daemon);
    local_fence(&bed, &bed.inside("under-2"));
    let bound = Bound::new(&liar.point.join("deep"), &bed.path("in"));
    liar.put("deep/c", "x");
    bed.wait_runs(5);
    let runs = fence_below(&bed, &liar, "deep");
    assert_once(&runs, ["a", "b", "under", "under-2", "c"]);
    assert_eq!(daemon.stop(), Some(0));
    bound.undo();
}

/// As [`fence`], in a directory.
fn fence_below(bed: &Bed, liar: &Liar, dir: &str) -> Vec<crate::bed::Run> {
    let mut runs = fence(bed, liar, &format!("{dir}/fence"));
    runs.retain(|run| !run.name().to_string_lossy().starts_with("fence"));
    runs
}

fn two_watches_see_one_directory_through_a_bind_mount() {
    let bed = Bed::new();
    let bound = Bound::new(&bed.path("in"), &bed.path("other"));
    bed.configure_text(&format!(
        "{}{}{}",
        daemon(&bed, ""),
        watch(&bed, "one", "in", &[], KEYS),
        watch(&bed, "two", "other", &[], KEYS)
    ));
    let mut daemon = bed.start();
    for (n, dir) in ["in", "other", "in", "other"].into_iter().enumerate() {
        fs::write(bed.path(dir).join(format!("f{n}")), "x").expect("a file");
        bed.wait_runs(2 * n + 2);
    }
    bound.undo();
    // Where it was there is an empty directory now: nothing of it is gone, and what comes is the other watch's alone.
    local_fence(&bed, &bed.path("other").join("under"));
    fs::write(bed.inside("f4"), "x").expect("a file");
    bed.wait_runs(10);
    let bound = Bound::new(&bed.path("in"), &bed.path("other"));
    bed.wait_runs(11);
    fs::write(bed.inside("f5"), "x").expect("a file");
    bed.wait_runs(13);
    listed_again(&daemon);
    local_fence(&bed, &bed.inside("last"));
    until("both", || bed.runs().len() >= 15);
    let runs = bed.runs();
    let of = |watch: &str| -> Vec<_> {
        runs.iter()
            .filter(|run| run.watch == watch)
            .cloned()
            .collect()
    };
    assert_once(&of("one"), ["f0", "f1", "f2", "f3", "f4", "f5", "last"]);
    assert_once(
        &of("two"),
        ["f0", "f1", "f2", "f3", "f4", "f5", "last", "under"],
    );
    assert_eq!(daemon.stop(), Some(0));
    bound.undo();
}
