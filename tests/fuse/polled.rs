//! What another party writes, of which no event tells.

use crate::bed::{Bed, fnv, until};
use crate::kit;
use crate::mount::Liar;
use crate::{assert_once, daemon, fence, watch};
use std::fs::{self, File, FileTimes};
use std::time::{Duration, SystemTime};

crate::tests![
    files_of_another_party_are_found_once_and_whole,
    a_file_that_grows_at_every_look_waits_until_it_has_stopped,
    so_does_one_whose_size_seems_to_stand_still_until_it_is_opened,
    a_directory_whose_times_seem_to_stand_still_is_listed_all_the_same,
    a_server_whose_clock_is_wrong_is_no_reason_to_miss_or_to_repeat,
    what_is_done_with_a_file_afterwards_is_done_through_the_mount,
];

const QUICK: &str = "poll = \"50ms\"\nsettle = \"300ms\"\nrecursive = true\nconcurrency = 1\n";

fn bed_with(keys: &str) -> (Bed, Liar) {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "in");
    bed.configure_text(&format!(
        "{}{}",
        daemon(&bed, ""),
        watch(&bed, "w", "in", &[], keys)
    ));
    (bed, liar)
}

fn files_of_another_party_are_found_once_and_whole() {
    let (bed, liar) = bed_with(QUICK);
    let content = |name: &str| name.repeat(name.len() * 500);
    let mut names = Vec::new();
    let mut put = |name: &str| {
        liar.put(name, &content(name));
        names.push(name.rsplit('/').next().unwrap_or_default().to_owned());
    };
    put("before");
    let _daemon = bed.start();
    bed.wait_runs(1);
    for n in 0..10 {
        put(&format!("top{n}"));
    }
    for dir in ["one", "one/two"] {
        fs::create_dir(liar.backing.join(dir)).expect("a directory");
        for n in 0..10 {
            put(&format!("{dir}/{}{n}", dir.len()));
        }
    }
    let runs = fence(&bed, &liar, "fence");
    assert_once(&runs, names.iter().map(String::as_str));
    for run in &runs {
        let behind = run.path.strip_prefix(&liar.point).expect("below the mount");
        let bytes = fs::read(liar.backing.join(behind)).expect("the file");
        assert_eq!(
            (run.size, run.hash),
            (Some(bytes.len() as u64), fnv(&bytes)),
            "{run:?}"
        );
    }
}

/// It has settled once, as it is behind the mount.
fn grown_whole(bed: &Bed, liar: &Liar) {
    assert_eq!(liar.number("grows"), 0);
    let bytes = fs::read(liar.backing.join("grows")).expect("the file");
    let runs = fence(bed, liar, "fence");
    assert_once(&runs, ["grows"]);
    assert_eq!(
        (runs[0].size, runs[0].hash),
        (Some(bytes.len() as u64), fnv(&bytes))
    );
    // It did not settle before and turned out to have changed.
    assert_eq!(kit::job(bed, "grows").started.len(), 1);
}

fn a_file_that_grows_at_every_look_waits_until_it_has_stopped() {
    let (bed, liar) = bed_with(QUICK);
    let _daemon = bed.start();
    liar.tell("grow grows 60");
    liar.put("grows", "begun\n");
    bed.wait_runs(1);
    grown_whole(&bed, &liar);
}

fn so_does_one_whose_size_seems_to_stand_still_until_it_is_opened() {
    let (bed, liar) = bed_with(QUICK);
    let _daemon = bed.start();
    liar.tell("stale");
    liar.tell("grow grows 20");
    liar.put("grows", "begun\n");
    bed.wait_runs(1);
    grown_whole(&bed, &liar);
}

fn a_directory_whose_times_seem_to_stand_still_is_listed_all_the_same() {
    let (bed, liar) = bed_with(QUICK);
    fs::create_dir(liar.backing.join("sub")).expect("a directory");
    liar.put("sub/a", "x");
    let _daemon = bed.start();
    bed.wait_runs(1);
    liar.tell("stale");
    // The old times are in the server's memory now.
    liar.wait_more("count readdir", 8);
    liar.put("sub/b", "x");
    bed.wait_runs(2);
    assert_once(&fence(&bed, &liar, "fence"), ["a", "b"]);
}

fn a_server_whose_clock_is_wrong_is_no_reason_to_miss_or_to_repeat() {
    let (bed, liar) = bed_with(QUICK);
    let _daemon = bed.start();
    let day = Duration::from_secs(24 * 3600);
    let put = |name: &str, time: SystemTime| {
        let path = liar.backing.join(name);
        fs::write(bed.path("outside"), name).expect("a file");
        let file = File::options()
            .write(true)
            .open(bed.path("outside"))
            .expect("a file");
        file.set_times(FileTimes::new().set_modified(time))
            .expect("its time");
        fs::rename(bed.path("outside"), path).expect("a rename");
    };
    put("tomorrow", SystemTime::now() + day);
    put("long-ago", SystemTime::UNIX_EPOCH + day);
    put("before-all", SystemTime::UNIX_EPOCH - day);
    bed.wait_runs(3);
    let runs = fence(&bed, &liar, "fence");
    assert_once(&runs, ["before-all", "long-ago", "tomorrow"]);
}

fn what_is_done_with_a_file_afterwards_is_done_through_the_mount() {
    for archived in [false, true] {
        let (bed, liar) = bed_with(QUICK);
        // Not watched, as it is in the tree itself.
        let archive = liar.point.join("archive");
        let done = match archived {
            false => "done = \"delete\"\n".to_owned(),
            true => format!("done = {{ move = {archive:?} }}\n"),
        };
        let keys = format!("{QUICK}{done}");
        let watch = watch(&bed, "w", "in", &[], &keys);
        bed.configure_text(&format!("{}{watch}", daemon(&bed, "")));
        let mut daemon = bed.start();
        for name in ["a", "b"] {
            liar.put(name, name);
            until("it is gone from there", || {
                !liar.backing.join(name).exists()
            });
            if archived {
                let there = liar.backing.join("archive").join(name);
                until("it is in the archive", || there.exists());
            }
        }
        assert_once(&fence(&bed, &liar, "fence"), ["a", "b"]);
        assert_eq!(daemon.stop(), Some(0));
    }
}
