//! What an administrator's mistakes, and programs that keep to no protocol, must not do to dispatch.

use crate::bed::{Bed, until};
use crate::kit::{self, children_with, job, ledger, put, shell_key, wait_concluded, wait_ledger};
use std::fs;
use std::time::{Duration, Instant};

/// `worker = [...]` that is a script in `sh`, with the ledger as its argument.
fn worker(bed: &Bed, text: &str) -> String {
    let words = [
        "/bin/sh".to_owned(),
        kit::script(bed, "worker.sh", text),
        bed.path("ledger").display().to_string(),
    ];
    format!("worker = {words:?}")
}

/// In `sh`: reads a job, and answers it.
const ANSWER: &str = "read -r line\njob=${line#*\\\"job\\\":\\\"} job=${job%%\\\"*}\n\
    printf '{\"job\":\"%s\",\"result\":\"done\"}\\n' \"$job\"\n";

#[test]
fn an_answer_that_nobody_asked_for_does_not_make_a_worker_ready() {
    let bed = Bed::new();
    let text = "echo start >> $1\necho '{\"job\":\"x\",\"result\":\"done\"}'\nexec sleep 1000\n";
    let keys = "ready = \"300ms\"\nkill_after = \"1s\"\n";
    kit::configure(&bed, &worker(&bed, text), keys);
    let daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_ledger(&bed, "start", 3);
    assert!(daemon.log_count("which it does not have") >= 2);
}

#[test]
fn answers_that_nobody_asked_for_give_a_worker_no_more_time() {
    let bed = Bed::new();
    // It babbles faster than its time runs out.
    let text = "read -r line\necho got >> $1\n\
        while echo '{\"job\":\"x\",\"result\":\"done\"}'; do sleep 0.1; done\n";
    let keys = "timeout = \"500ms\"\nkill_after = \"1s\"\nattempts = 2\n";
    kit::configure(&bed, &worker(&bed, text), keys);
    let _daemon = kit::start(&bed);
    put(&bed, "a", "x");
    let jobs = wait_concluded(&bed, 1);
    assert_eq!(
        jobs[0].concluded,
        [("dead".to_owned(), "timed out".to_owned())]
    );
}

#[test]
fn a_worker_that_ends_by_itself_is_not_started_again_at_once() {
    let bed = Bed::new();
    // Each answers one job, and is through.
    let text = format!("date +%s%N | sed 's/^/start /' >> $1\n{ANSWER}");
    kit::configure(&bed, &worker(&bed, &text), "");
    let _daemon = kit::start(&bed);
    for number in 0..4 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_concluded(&bed, 4);
    let times: Vec<u64> = ledger(&bed)
        .iter()
        .filter_map(|line| line.strip_prefix("start ")?.parse().ok())
        .collect();
    assert!(times.len() >= 4, "{times:?}");
    // A start takes its time, so that two can be nearer to each other than the daemon's orders.
    let all = times[times.len() - 1] - times[0];
    assert!(all >= (times.len() as u64 - 2) * 500_000_000, "{times:?}");
}

#[test]
fn a_worker_that_has_closed_its_input_holds_no_jobs() {
    let bed = Bed::new();
    let text = format!("echo start >> $1\n{ANSWER}exec <&-\nexec sleep 1000\n");
    kit::configure(
        &bed,
        &worker(&bed, &text),
        "kill_after = \"300ms\"\nattempts = 9\n",
    );
    let daemon = kit::start(&bed);
    for number in 0..3 {
        put(&bed, format!("f{number}"), "x");
    }
    let jobs = wait_concluded(&bed, 3);
    assert_eq!(kit::outcomes(&jobs)["done"], 3);
    daemon.wait_log("a worker has closed its standard input or output");
}

#[test]
fn a_worker_that_has_closed_its_output_holds_no_jobs() {
    let bed = Bed::new();
    let text = format!(
        "if mkdir \"$1.once\"; then read -r line; exec >&-; exec sleep 1000; fi\n\
         while :; do\n{ANSWER}done\n"
    );
    kit::configure(&bed, &worker(&bed, &text), "kill_after = \"300ms\"\n");
    let daemon = kit::start(&bed);
    put(&bed, "a", "x");
    assert_eq!(wait_concluded(&bed, 1)[0].outcome(), Some("done"));
    daemon.wait_log("a worker has closed its standard input or output");
}

#[test]
fn one_worker_that_cannot_be_kept_alive_does_not_hold_up_the_start_of_another() {
    let bed = Bed::new();
    // The first fails ever again, and waits longer and longer; the other ends once in a while.
    let text = format!(
        "if mkdir \"$1.first\" 2>/dev/null; then exit 1; fi\n\
         if mkdir \"$1.second\" 2>/dev/null; then {ANSWER}sleep 1; rmdir \"$1.second\"; exit 0; fi\n\
         exit 1\n"
    );
    kit::configure(&bed, &worker(&bed, &text), "workers = 2\nattempts = 1000\n");
    let daemon = kit::start(&bed);
    for number in 0..8 {
        put(&bed, format!("f{number}"), "x");
    }
    let start = Instant::now();
    let jobs = wait_concluded(&bed, 8);
    assert_eq!(kit::outcomes(&jobs)["done"], 8);
    // Far more than it takes, and less than waits for the one that never comes up add up to.
    assert!(start.elapsed() < Duration::from_secs(200));
    drop(daemon);
}

#[test]
fn a_worker_that_says_it_is_ready_when_it_is_to_end_is_ended() {
    let bed = Bed::new();
    let text = "trap '' TERM\necho start >> $1\nwhile [ ! -e \"$1.go\" ]; do sleep 0.05; done\n\
        echo '{\"ready\":true}'\nwhile :; do sleep 1; done\n";
    let keys = "ready = \"300s\"\nkill_after = \"1s\"\n";
    kit::configure(&bed, &worker(&bed, text), keys);
    let daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_ledger(&bed, "start", 1);
    let old = children_with(&daemon, "worker.sh");
    kit::configure(&bed, "run = [\"/bin/true\"]", "");
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
    fs::write(bed.path("ledger.go"), "").expect("a file");
    assert_eq!(wait_concluded(&bed, 1)[0].outcome(), Some("done"));
    until("the worker of the old plan has ended", || {
        old.iter().all(|pid| !kit::alive(*pid))
    });
}

#[test]
fn what_a_worker_asks_for_is_not_cut_to_the_backoff() {
    let bed = Bed::new();
    let text = "while read -r line; do\njob=${line#*\\\"job\\\":\\\"} job=${job%%\\\"*}\n\
        case $line in *'\"attempt\":1,'*) printf '{\"job\":\"%s\",\"result\":\"retry\",\"after\":2}\\n' \"$job\";;\n\
        *) printf '{\"job\":\"%s\",\"result\":\"done\"}\\n' \"$job\";; esac\ndone\n";
    kit::configure(&bed, &worker(&bed, text), "");
    let daemon = kit::start(&bed);
    put(&bed, "a", "x");
    daemon.wait_log("its worker asked for a retry");
    // Over a restart, too.
    drop(daemon);
    let _daemon = kit::start(&bed);
    wait_concluded(&bed, 1);
    let job = job(&bed, "a");
    let apart = job.started[1].1 - job.started[0].1;
    assert!(apart >= 2_000_000_000, "{job:?}");
}

#[test]
fn the_slots_directory_can_be_taken_away() {
    let bed = Bed::new();
    kit::configure(&bed, &shell_key(&bed, "echo ran >> $1\n", &[]), "");
    let _daemon = kit::start(&bed);
    put(&bed, "a", "x");
    wait_concluded(&bed, 1);
    fs::remove_dir_all(bed.path("state/slots")).expect("the slots");
    put(&bed, "b", "x");
    let jobs = wait_concluded(&bed, 2);
    assert_eq!(kit::outcomes(&jobs)["done"], 2);
    assert_eq!(jobs[1].started.len(), 1);
}

#[test]
fn another_rate_holds_from_the_reload_on() {
    let bed = Bed::new();
    let run = shell_key(&bed, "echo ran >> $1\n", &[]);
    kit::configure(&bed, &run, "rate = \"1/h\"\n");
    let daemon = kit::start(&bed);
    for number in 0..4 {
        put(&bed, format!("f{number}"), "x");
    }
    wait_ledger(&bed, "ran", 1);
    kit::configure(&bed, &run, "rate = \"100/s\"\n");
    daemon.signal(libc::SIGHUP);
    wait_concluded(&bed, 4);
}

#[test]
fn a_batch_of_files_that_are_gone_takes_few_starts_to_find_out() {
    const FILES: usize = 100;
    let bed = Bed::new();
    for number in 0..FILES {
        put(&bed, format!("f{number:03}"), "x");
    }
    let run = shell_key(&bed, "shift\necho ran $# >> ${LEDGER}\n", &["{path}"]);
    let keys = format!(
        "batch = {{ max = 1000, wait = \"9s\" }}\nobserve = \"poll\"\npoll = \"300s\"\n\
         env = {{ LEDGER = {:?} }}\n",
        bed.path("ledger")
    );
    kit::configure(&bed, &run, &keys);
    let daemon = kit::start(&bed);
    until("all have settled", || {
        daemon.log_count("\" settled") >= FILES
    });
    // Nothing tells of that.
    for number in (0..FILES).filter(|number| number % 2 == 0) {
        fs::remove_file(bed.inside(format!("f{number:03}"))).expect("it is there");
    }
    let jobs = wait_concluded(&bed, FILES);
    let outcomes = kit::outcomes(&jobs);
    assert_eq!((outcomes["done"], outcomes["gone"]), (50, 50));
    assert_eq!(wait_ledger(&bed, "ran", 1), ["ran 50"]);
    let most = jobs.iter().map(|job| job.started.len()).max();
    assert!(most <= Some(3), "{most:?} starts");
}
