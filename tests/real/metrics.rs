//! The daemon in numbers: what it did is what it says it did, in a text that its readers understand.

use crate::bed::{Bed, until, until_in};
use crate::kit::{self, SLOW, put, wait_concluded};
use settled::metrics::families::{FAMILIES, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

/// Samples by name and labels, as they stand in the text.
type Samples = BTreeMap<String, f64>;

/// Reads a text file as strictly as its format is: every sample below the head of its family, none twice.
fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut families: BTreeSet<String> = BTreeSet::new();
    let (mut family, mut kind, mut helped) = (String::new(), String::new(), true);
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(helped, "{family} has no help");
            let (name, word) = rest.split_once(' ').expect("a type");
            assert!(families.insert(name.to_owned()), "{name} comes twice");
            (family, kind, helped) = (name.to_owned(), word.to_owned(), false);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.starts_with(&format!("{family} ")), "{line}");
            helped = true;
            continue;
        }
        assert!(!line.starts_with('#'), "{line}");
        let (sample, number) = line.rsplit_once(' ').expect("a number");
        let name = sample.split('{').next().expect("a name");
        let suffix = name
            .strip_prefix(family.as_str())
            .expect("its family's name");
        let suffixes: &[&str] = match kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.contains(&suffix), "{line}");
        let number: f64 = number.parse().expect("a number");
        assert!(
            samples.insert(sample.to_owned(), number).is_none(),
            "{sample} comes twice"
        );
    }
    let known: BTreeSet<String> = FAMILIES
        .iter()
        .map(|family| match family.kind {
            Kind::Counter => format!("{}_total", family.name),
            Kind::Info => format!("{}_info", family.name),
            Kind::Gauge | Kind::Histogram => family.name.to_owned(),
        })
        .collect();
    assert_eq!(families, known, "text, then table");
    samples
}

fn configure(bed: &Bed, action: &str, keys: &str) {
    bed.configure_text(&format!(
        "[daemon]\nstate = {:?}\nsocket = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\nmetrics_textfile = {:?}\n\
         metrics_every = \"1s\"\n[watch.w]\npath = {:?}\nsettle = \"0\"\n\
         backoff = {{ first = \"10ms\", max = \"10ms\" }}\n{action}\n{keys}\n",
        bed.path("state"),
        bed.path("state/control.sock"),
        bed.path("metrics/settled.prom"),
        bed.path("in"),
    ));
}

fn read(bed: &Bed) -> Samples {
    let text = fs::read_to_string(bed.path("metrics/settled.prom"));
    text.map(|text| parse(&text)).unwrap_or_default()
}

/// Waits for a text in which this holds.
fn wait(bed: &Bed, what: &str, fact: impl Fn(&Samples) -> bool) -> Samples {
    let mut samples = Samples::new();
    until_in(SLOW, what, || {
        samples = read(bed);
        fact(&samples)
    });
    samples
}

fn has(samples: &Samples, name: &str, number: f64) -> bool {
    samples.get(name) == Some(&number)
}

#[test]
fn what_was_done_is_counted() {
    let bed = Bed::new();
    fs::create_dir(bed.path("metrics")).expect("a directory");
    // Three are done, of which one at its second attempt; two are dead, one of them at once.
    let text = "case \"$2\" in *.bad) exit 65;; *.worse) exit 1;; *.late)\n\
                [ \"$SETTLED_ATTEMPT\" = 2 ] || exit 75;; esac\n";
    let run = kit::shell_key(&bed, text, &["{path}"]);
    configure(&bed, &run, "attempts = 2\n");
    let mut daemon = kit::start(&bed);
    for name in ["a", "b", "c.late", "d.bad", "e.worse"] {
        put(&bed, name, "text");
    }
    wait_concluded(&bed, 5);
    let name = "settled_outcomes_total{watch=\"w\",outcome=\"done\"}";
    let all = wait(&bed, "three done", |all| has(all, name, 3.0));
    for (name, number) in [
        ("settled_arrivals_total{watch=\"w\"}", 5.0),
        ("settled_outcomes_total{watch=\"w\",outcome=\"dead\"}", 2.0),
        ("settled_outcomes_total{watch=\"w\",outcome=\"gone\"}", 0.0),
        ("settled_attempts_started_total{watch=\"w\"}", 7.0),
        ("settled_retries_total{watch=\"w\"}", 2.0),
        ("settled_attempts_total{watch=\"w\",result=\"done\"}", 3.0),
        ("settled_attempts_total{watch=\"w\",result=\"retry\"}", 2.0),
        ("settled_attempts_total{watch=\"w\",result=\"dead\"}", 2.0),
        ("settled_attempts_total{watch=\"w\",result=\"again\"}", 0.0),
        ("settled_settle_seconds_count{watch=\"w\"}", 5.0),
        ("settled_queue_wait_seconds_count{watch=\"w\"}", 5.0),
        ("settled_run_seconds_count{watch=\"w\"}", 7.0),
        ("settled_run_seconds_bucket{watch=\"w\",le=\"+Inf\"}", 7.0),
        ("settled_watch_root_present{watch=\"w\"}", 1.0),
        ("settled_jobs{watch=\"w\",state=\"running\"}", 0.0),
        ("settled_candidates{watch=\"w\"}", 0.0),
        ("settled_journal_has_room", 1.0),
        ("settled_inotify_watches", 1.0),
        ("settled_inotify_overflows_total", 0.0),
        ("settled_log_lines_dropped_total", 0.0),
        ("settled_files_remembered", 5.0),
    ] {
        assert_eq!(all.get(name), Some(&number), "{name}");
    }
    for name in [
        "settled_journal_flush_seconds_count",
        "settled_journal_flushed_bytes_total",
        "settled_journal_records_total",
        "settled_journal_size_bytes",
        "settled_loop_turns_total",
        "settled_loop_longest_stall_seconds",
        "settled_inotify_watches_limit",
        "settled_memory_bytes",
        "settled_run_seconds_sum{watch=\"w\"}",
    ] {
        assert!(all.get(name).is_some_and(|number| *number > 0.0), "{name}");
    }
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").expect("a limit");
    let limit: f64 = limit.trim().parse().expect("a number");
    assert!(has(&all, "settled_inotify_watches_limit", limit));
    // The collector of node_exporter runs as somebody else.
    let mode = fs::metadata(bed.path("metrics/settled.prom")).expect("a file");
    assert_eq!(mode.permissions().mode() & 0o777, 0o644);
    assert_eq!(daemon.stop(), Some(0));
    let names: Vec<_> = fs::read_dir(bed.path("metrics"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names, ["settled.prom"], "nothing is left beside it");
}

#[test]
fn what_waits_is_counted_by_state_and_with_its_age() {
    let bed = Bed::new();
    fs::create_dir(bed.path("metrics")).expect("a directory");
    let run = kit::shell_key(&bed, "echo began >> \"$1\"; exec sleep 600\n", &["{path}"]);
    configure(&bed, &run, "concurrency = 1\nkill_after = \"1s\"\n");
    let daemon = kit::start(&bed);
    for name in ["a", "b", "c"] {
        put(&bed, name, "text");
    }
    let held = fs::File::create(bed.inside("held")).expect("a file");
    let all = wait(&bed, "one running, two ready, one held", |all| {
        has(all, "settled_jobs{watch=\"w\",state=\"running\"}", 1.0)
            && has(all, "settled_jobs{watch=\"w\",state=\"ready\"}", 2.0)
            && has(all, "settled_candidates{watch=\"w\"}", 1.0)
    });
    let age = |all: &Samples| all["settled_candidate_oldest_seconds{watch=\"w\"}"];
    let before = age(&all);
    wait(&bed, "it gets older", |all| age(all) > before + 1.0);
    drop(held);
    wait(&bed, "it settles", |all| {
        has(all, "settled_candidates{watch=\"w\"}", 0.0)
            && age(all) == 0.0
            && has(all, "settled_jobs{watch=\"w\",state=\"ready\"}", 3.0)
    });
    // Their sleeps end with them.
    kit::children_with(&daemon, "sleep")
        .into_iter()
        .for_each(kit::kill);
}

#[test]
fn a_reader_never_sees_half_a_text_and_a_file_that_cannot_be_written_is_said_once() {
    let bed = Bed::new();
    let run = kit::shell_key(&bed, "true\n", &["{path}"]);
    configure(&bed, &run, "");
    let daemon = kit::start(&bed);
    daemon.wait_log("metrics_textfile: it cannot be written: No such file or directory");
    put(&bed, "a", "text");
    wait_concluded(&bed, 1);
    fs::create_dir(bed.path("metrics")).expect("a directory");
    let mut inodes = BTreeSet::new();
    until_in(SLOW, "ten files, one after another", || {
        // Each is parsed to its end.
        let _ = read(&bed);
        inodes.extend(fs::metadata(bed.path("metrics/settled.prom")).map(|meta| meta.ino()));
        let all = read(&bed);
        all.get("settled_loop_turns_total")
            .is_some_and(|turns| *turns > 10.0)
            && inodes.len() > 1
    });
    daemon.wait_log("metrics_textfile: written again");
    assert_eq!(
        daemon.log_count("metrics_textfile: it cannot be written"),
        1
    );
}

#[test]
fn a_file_on_a_disk_that_hangs_holds_up_nothing() {
    let bed = Bed::new();
    fs::create_dir(bed.path("metrics")).expect("a directory");
    let run = kit::shell_key(&bed, "true\n", &["{path}"]);
    configure(&bed, &run, "");
    let daemon = kit::start(&bed);
    wait(&bed, "a text", |all| !all.is_empty());
    // A writer that is stopped is one whose write does not return.
    let mut stopped = Vec::new();
    until_in(SLOW, "a writer that is stopped", || {
        stopped = kit::children_with(&daemon, "write-textfile");
        for pid in &stopped {
            let pid = nix::unistd::Pid::from_raw(*pid);
            // It may have ended by itself.
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP);
        }
        stopped.retain(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('T'))
        });
        !stopped.is_empty()
    });
    for name in ["a", "b", "c"] {
        put(&bed, name, "text");
    }
    wait_concluded(&bed, 3);
    // Time enough for more of them.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        kit::children_with(&daemon, "write-textfile"),
        stopped,
        "no other is started"
    );
    stopped.into_iter().for_each(kit::kill);
    wait(&bed, "the next text", |all| {
        has(
            all,
            "settled_outcomes_total{watch=\"w\",outcome=\"done\"}",
            3.0,
        )
    });
}

#[test]
fn a_reload_begins_and_ends_it() {
    let bed = Bed::new();
    fs::create_dir(bed.path("metrics")).expect("a directory");
    let run = kit::shell_key(&bed, "true\n", &["{path}"]);
    kit::configure(&bed, &run, "");
    let daemon = kit::start(&bed);
    assert!(!bed.path("metrics/settled.prom").exists());
    configure(&bed, &run, "");
    daemon.signal(libc::SIGHUP);
    wait(&bed, "a text", |all| !all.is_empty());
    kit::configure(&bed, &run, "");
    daemon.signal(libc::SIGHUP);
    until("both reloads", || daemon.log_count("reloaded") == 2);
    until("no writer", || {
        kit::children_with(&daemon, "write-textfile").is_empty()
    });
    fs::remove_file(bed.path("metrics/settled.prom")).expect("a file");
    // Longer than between two of them.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!bed.path("metrics/settled.prom").exists());
}
