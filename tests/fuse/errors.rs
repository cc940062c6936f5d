//! A server that answers with errors, or with half of what it has: nothing is concluded from that.

use crate::bed::{Bed, until};
use crate::mount::Liar;
use crate::{assert_once, daemon, fence, gone, watch};

crate::tests![
    errors_and_half_listings_do_not_say_that_a_file_is_gone,
    nor_do_they_to_a_daemon_that_starts_among_them,
    a_file_that_cannot_be_opened_is_run_when_it_can,
];

const KEYS: &str = "poll = \"50ms\"\nsettle = \"300ms\"\nrecursive = true\nconcurrency = 1\n";

/// EIO, EACCES and ESTALE; half listings last, as each directory has only one that is quiet.
const ORDERS: &[&str] = &[
    "fail 5 list",
    "fail 13 list",
    "fail 116 list",
    "fail 5 look",
    "fail 13 look",
    "fail 116 look",
    "fail 5 readdir",
    "fail 116 getattr",
    "fail 5 all",
    "half eio",
    "half once",
];

fn bed_with_files() -> (Bed, Liar, Vec<String>) {
    let bed = Bed::new();
    let liar = Liar::mount(&bed, "behind", "in");
    bed.configure_text(&format!(
        "{}{}",
        daemon(&bed, ""),
        watch(&bed, "w", "in", &[], KEYS)
    ));
    let mut names = Vec::new();
    for dir in ["", "sub/", "sub/deep/"] {
        std::fs::create_dir_all(liar.backing.join(dir)).expect("a directory");
        for n in 0..4 {
            let name = format!("{}{n}", dir.len());
            liar.put(&format!("{dir}{name}"), "x");
            names.push(name);
        }
    }
    (bed, liar, names)
}

/// Another file, and everything so far was run once.
fn goes_on(bed: &Bed, liar: &Liar, names: &mut Vec<String>, order: &str) {
    let name = format!("after-{}", order.replace(' ', "-"));
    liar.put(&format!("sub/{name}"), "x");
    names.push(name);
    bed.wait_runs(names.len());
    let runs = fence(bed, liar, &format!("fence-{}", order.replace(' ', "-")));
    let runs: Vec<_> = runs
        .into_iter()
        .filter(|run| !run.name().to_string_lossy().starts_with("fence"))
        .collect();
    assert_once(&runs, names.iter().map(String::as_str));
    assert_eq!(gone(bed), 0, "after {order}");
}

fn errors_and_half_listings_do_not_say_that_a_file_is_gone() {
    let (bed, liar, mut names) = bed_with_files();
    let mut daemon = bed.start();
    bed.wait_runs(names.len());
    for order in ORDERS {
        liar.tell(order);
        // Often enough for whatever wants to see a thing twice; a directory's quiet half comes once.
        liar.wait_more("failed", if *order == "half once" { 3 } else { 4 });
        liar.tell("back");
        goes_on(&bed, &liar, &mut names, order);
    }
    assert_eq!(daemon.stop(), Some(0));
}

fn nor_do_they_to_a_daemon_that_starts_among_them() {
    let (bed, liar, mut names) = bed_with_files();
    let mut daemon = bed.start();
    bed.wait_runs(names.len());
    for order in ORDERS {
        assert_eq!(daemon.stop(), Some(0), "before {order}");
        liar.tell(order);
        let before = liar.number("failed");
        daemon = bed.start();
        until("errors", || liar.number("failed") > before + 2);
        liar.tell("back");
        goes_on(&bed, &liar, &mut names, order);
    }
}

fn a_file_that_cannot_be_opened_is_run_when_it_can() {
    for errno in [5, 13, 116] {
        let (bed, liar, mut names) = bed_with_files();
        let _daemon = bed.start();
        bed.wait_runs(names.len());
        liar.tell(&format!("fail {errno} open"));
        liar.put("new", "y");
        liar.wait_more("failed", 2);
        assert_eq!(bed.runs().len(), names.len());
        liar.tell("back");
        names.push("new".into());
        bed.wait_runs(names.len());
        let runs = fence(&bed, &liar, "fence");
        assert_once(&runs, names.iter().map(String::as_str));
    }
}
