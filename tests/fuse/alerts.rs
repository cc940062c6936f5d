//! What a mount that does not answer makes a person be told.

use crate::bed::{Bed, until};
use crate::mount::Liar;
use crate::telling::{alert_block, told, wait_told};
use crate::{daemon, kit, watch};
use std::fs;

crate::tests![
    a_mount_that_is_silent_is_told_once,
    a_root_that_is_not_found_because_its_mount_hangs_is_told,
    a_flush_that_takes_long_is_told,
];

const FAR: &str = "poll = \"50ms\"\nsettle = \"200ms\"\n";

fn a_mount_that_is_silent_is_told_once() {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "far");
    let alert = alert_block(&bed, "mount_silent = \"2s\"\nevery = \"0\"");
    let far = watch(&bed, "far", "far", &[], FAR);
    bed.configure_text(&format!("{}{alert}{far}", daemon(&bed, "")));
    liar.put("a", "x");
    let daemon = bed.start();
    bed.wait_runs(1);
    assert!(told(&bed).is_empty());
    liar.tell("hang all");
    let all = wait_told(&bed, "mount-silent", 1);
    assert_eq!(all[0].path, liar.point.display().to_string());
    assert!(all[0].text.contains("does not answer"), "{:?}", all[0]);
    assert_eq!(all[0].count, 1);
    liar.tell("back");
    daemon.wait_log("answers again");
    liar.put("b", "x");
    bed.wait_runs(2);
    assert_eq!(told(&bed).len(), 1, "{:?}", told(&bed));
    // The next time is another one.
    liar.tell("deaf");
    wait_told(&bed, "mount-silent", 2);
    liar.tell("back");
}

fn a_root_that_is_not_found_because_its_mount_hangs_is_told() {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "far");
    fs::create_dir(liar.backing.join("root")).expect("a directory");
    let alert = alert_block(&bed, "every = \"0\"");
    let far = watch(&bed, "far", "far/root", &[], FAR);
    bed.configure_text(&format!("{}{alert}{far}", daemon(&bed, "")));
    liar.tell("hang all");
    let mut daemon = bed.start();
    let all = wait_told(&bed, "root-silent", 1);
    assert_eq!(all[0].watch, "far");
    assert_eq!(all[0].path, liar.point.join("root").display().to_string());
    assert!(all[0].text.contains("does not answer"), "{:?}", all[0]);
    liar.tell("back");
    liar.put("root/a", "x");
    bed.wait_runs(1);
    assert_eq!(daemon.stop(), Some(0));
}

/// The disk that the journal is on takes its time.
fn a_flush_that_takes_long_is_told() {
    let bed = Bed::new();
    let disk = Liar::mount(&bed, "disk", "state");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&disk.backing, mode).expect("chmod");
    disk.tell("cached");
    let alert = alert_block(&bed, "slow_flush = \"500ms\"\nevery = \"0\"");
    let near = watch(&bed, "near", "in", &[], "settle = \"0\"\n");
    let socket = format!(
        "state_force = true\nsocket = {:?}",
        bed.path("control.sock")
    );
    bed.configure_text(&format!("{}{alert}{near}", daemon(&bed, &socket)));
    let mut daemon = bed.start();
    kit::put(&bed, "quick", "x");
    bed.wait_runs(1);
    disk.tell("hang fsync");
    kit::put(&bed, "slow", "x");
    until("a flush waits", || disk.number("held") > 0);
    // That long it has to take, at least.
    std::thread::sleep(std::time::Duration::from_millis(600));
    disk.tell("back");
    let all = wait_told(&bed, "slow-flush", 1);
    assert!(
        all[0].text.contains("a flush of the journal took"),
        "{:?}",
        all[0]
    );
    bed.wait_runs(2);
    assert_eq!(daemon.stop(), Some(0));
}
