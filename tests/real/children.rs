//! Children that misbehave hold nobody but themselves.

use crate::bed::{Bed, until};
use crate::kit;
use std::fs;
use std::path::Path;

/// A bed whose watch `w` runs this shell text for each file, and whose watch `other` records as ever.
fn shell(script: &str, keys: &str) -> Bed {
    let bed = Bed::new();
    fs::create_dir(bed.path("other")).expect("a second directory");
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\nrun = [\"/bin/sh\", \"-c\", {script:?}, \"sh\", \"{{path}}\"]\n{keys}\n\
         [watch.other]\npath = {:?}\nsettle = \"0\"\n{}",
        bed.path("in"),
        bed.path("other"),
        bed.run_key(&[]),
    ));
    bed
}

/// The other watch goes on.
fn others_go_on(bed: &Bed) {
    let before = bed.runs().len();
    fs::write(bed.path(&format!("other/f{before}")), "x").expect("a file");
    bed.wait_runs(before + 1);
}

#[test]
fn one_that_ignores_term_is_killed_with_its_group() {
    let bed = shell(
        "trap '' TERM; echo $$ > \"$1.pid.tmp\"; sleep 1000 & echo $! >> \"$1.pid.tmp\"; mv \"$1.pid.tmp\" \"$1.pid\"; wait; wait; sleep 1000",
        "include = [\"job\"]\ntimeout = \"300ms\"\nkill_after = \"300ms\"\nattempts = 1\n",
    );
    let daemon = bed.start();
    fs::write(bed.inside("job"), "x").expect("a file");
    until("it runs", || bed.inside("job.pid").exists());
    others_go_on(&bed);
    daemon.wait_log("timed out");
    let pids = fs::read_to_string(bed.inside("job.pid")).expect("its pids");
    for pid in pids.split_whitespace() {
        until("the whole group is gone", || {
            !Path::new(&format!("/proc/{pid}")).exists()
        });
    }
}

#[test]
fn one_that_closes_its_output() {
    let bed = shell("exec >&- 2>&-; exit 0", "");
    let daemon = bed.start();
    fs::write(bed.inside("job"), "x").expect("a file");
    daemon.wait_log("done");
    others_go_on(&bed);
}

#[test]
fn one_that_floods() {
    let bed = shell(
        "trap 'exit 0' TERM; while :; do echo a line of output that never ends; done",
        "timeout = \"1s\"\nattempts = 1\n",
    );
    let daemon = bed.start();
    fs::write(bed.inside("job"), "x").expect("a file");
    daemon.wait_log("a line of output that never ends");
    others_go_on(&bed);
    until("it ends in time", || {
        daemon.log_count("timed out") + daemon.log_count("done: attempt 1") >= 2
    });
}

#[test]
fn one_whose_grandchild_keeps_the_pipe_open() {
    let bed = shell(
        "sleep 1000 & echo $! > \"$1.pid\"; exit 0",
        "include = [\"job\"]\n",
    );
    let daemon = bed.start();
    fs::write(bed.inside("job"), "x").expect("a file");
    until("the job is done though the pipe is open", || {
        daemon
            .log()
            .iter()
            .any(|line| line.contains("/in/job") && line.contains("done"))
    });
    others_go_on(&bed);
    let pid: i32 = fs::read_to_string(bed.inside("job.pid"))
        .expect("its pid")
        .trim()
        .parse()
        .expect("a number");
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
        .expect("the grandchild, still there");
}

#[test]
fn its_output_is_logged_with_watch_job_and_attempt() {
    let bed = shell("echo out; echo err >&2; printf 'no end'", "");
    let daemon = bed.start();
    fs::write(bed.inside("job"), "x").expect("a file");
    daemon.wait_log("done");
    for text in ["out", "err", "no end"] {
        assert!(
            daemon
                .log()
                .iter()
                .any(|line| line.contains(&format!("attempt 1: {text}"))
                    && line.contains("watch=w")
                    && line.contains("job=")),
            "{text}: {:?}",
            daemon.log()
        );
    }
}

#[test]
fn a_program_that_is_not_there_is_an_outcome_with_its_reason() {
    let bed = Bed::new();
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\n[watch.w]\npath = {:?}\nsettle = \"0\"\nattempts = 2\n\
         backoff = {{ first = \"10ms\", max = \"10ms\" }}\nrun = [\"/nonexistent/program\", \"{{path}}\"]\n",
        bed.path("state"),
        bed.path("in"),
    ));
    let daemon = bed.start();
    fs::write(bed.inside("job"), "x").expect("a file");
    daemon.wait_log("the program cannot be executed: No such file or directory");
    daemon.wait_log("dead");
}

#[test]
fn exit_statuses_mean_what_the_manual_says() {
    let bed = Bed::new();
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nlog = \"stderr\"\n[watch.w]\npath = {:?}\nsettle = \"0\"\nattempts = 3\n\
         backoff = {{ first = \"10ms\", max = \"10ms\" }}\n\
         run = [\"/bin/sh\", \"-c\", \"echo $SETTLED_ATTEMPT >> $1.n; case $SETTLED_NAME in sig) kill -9 $$;; *) exit $(cat $1);; esac\", \"sh\", \"{{path}}\"]\n\
         exclude = [\"*.n\"]\n",
        bed.path("state"),
        bed.path("in"),
    ));
    let daemon = bed.start();
    for (name, status) in [
        ("ok", "0"),
        ("again", "75"),
        ("bad", "65"),
        ("other", "3"),
        ("sig", "0"),
    ] {
        fs::write(bed.path("new"), status).expect("a file");
        fs::rename(bed.path("new"), bed.inside(name)).expect("a rename");
    }
    until("all are concluded", || {
        daemon.log_count("; dead") == 4 && daemon.log_count("done: attempt") == 1
    });
    let attempts = |name: &str| {
        fs::read_to_string(bed.inside(format!("{name}.n")))
            .expect("its attempts")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(attempts("ok"), "1");
    assert_eq!(attempts("bad"), "1");
    for name in ["again", "other", "sig"] {
        assert_eq!(attempts(name), "1 2 3", "{name}");
    }
}

#[test]
fn descriptors_and_signals_are_clean() {
    let bed = shell(
        "ls /proc/self/fd > \"$1.fds\"; grep -E '^Sig(Blk|Ign)' /proc/self/status > \"$1.sig\"; cat <&3 > \"$1.copy\"",
        "include = [\"job\"]\n",
    );
    let daemon = bed.start();
    fs::write(bed.inside("job"), "content").expect("a file");
    daemon.wait_log("done");
    assert_eq!(
        fs::read_to_string(bed.inside("job.copy")).expect("a copy"),
        "content"
    );
    let fds = fs::read_to_string(bed.inside("job.fds")).expect("its descriptors");
    // 4 is the lock of its slot, 5 is ls's own.
    assert_eq!(
        fds.split_whitespace().collect::<Vec<_>>(),
        ["0", "1", "2", "3", "4", "5"]
    );
    let signals = fs::read_to_string(bed.inside("job.sig")).expect("its signals");
    for line in signals.lines() {
        let (_, mask) = line.split_once('\t').expect("a mask");
        let mask = u64::from_str_radix(mask, 16).expect("hexadecimal");
        // 32 and 33 are the C library's own; a parent that used posix_spawn leaves them ignored.
        assert_eq!(mask & !(0b11 << 31), 0, "{signals}");
    }
}

#[test]
fn a_stopped_scout_holds_its_own_mount_only() {
    let bed = Bed::new();
    let shm = tempfile::tempdir_in("/dev/shm").expect("another filesystem");
    bed.configure_text(&format!(
        "[watch.disk]\npath = {:?}\nsettle = \"0\"\n{}\n[watch.shm]\npath = {:?}\nsettle = \"0\"\n{}",
        bed.path("in"),
        bed.run_key(&[]),
        shm.path(),
        bed.run_key(&[]),
    ));
    let daemon = bed.start();
    fs::write(bed.inside("a"), "x").expect("a file");
    fs::write(shm.path().join("a"), "x").expect("a file");
    bed.wait_runs(2);

    let scouts = kit::scouts_of(&daemon);
    assert_eq!(scouts.len(), 2, "a scout for each mount");
    let mut went_on = Vec::new();
    for scout in &scouts {
        let before = bed.runs().len();
        nix::sys::signal::kill(*scout, nix::sys::signal::Signal::SIGSTOP).expect("a scout");
        fs::write(bed.inside(format!("b{scout}")), "x").expect("a file");
        fs::write(shm.path().join(format!("b{scout}")), "x").expect("a file");
        let runs = bed.wait_runs(before + 1);
        went_on.push(runs[before].watch.clone());
        nix::sys::signal::kill(*scout, nix::sys::signal::Signal::SIGCONT).expect("a scout");
        bed.wait_runs(before + 2);
    }
    went_on.sort();
    assert_eq!(
        went_on,
        ["disk", "shm"],
        "each went on while the other was held"
    );
}
