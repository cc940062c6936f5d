//! Output that goes to files, with real children and real writers. A program of its own without the usual harness: the
//! writers are the daemon's own program under a subcommand, and here that program is this one.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "kernel_process/house.rs"]
mod house;

use house::{House, is_gone, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use settled::core::ids::RunId;
use settled::core::{ChildEnd, Program, Stdin};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const KILL: i32 = Signal::SIGKILL as i32;
const TERM: i32 = Signal::SIGTERM as i32;

/// What may lie between a child and a file that takes nothing: the queue, a pipe to the writer, what a read takes beyond
/// the bound.
const HELD_MAX: usize = (1 << 20) + (64 << 10) + (8 << 10);

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if arguments.first().is_some_and(|name| name == "settled") {
        return settled::cli::main(arguments.into_iter());
    }
    let tests: &[(&str, fn())] = &[
        ("own_program", own_program),
        ("whole_lines_of_many", whole_lines_of_many),
        ("renamed_and_opened_anew", renamed_and_opened_anew),
        ("what_is_not_in_use_is_closed", what_is_not_in_use_is_closed),
        (
            "a_file_that_hangs_holds_its_children_alone",
            a_file_that_hangs_holds_its_children_alone,
        ),
        ("a_full_disk_is_waited_for", a_full_disk_is_waited_for),
        (
            "a_writer_that_dies_takes_nothing_along",
            a_writer_that_dies_takes_nothing_along,
        ),
        (
            "a_file_that_cannot_be_opened_is_tried_again",
            a_file_that_cannot_be_opened_is_tried_again,
        ),
        (
            "an_end_that_was_asked_for_does_not_wait",
            an_end_that_was_asked_for_does_not_wait,
        ),
    ];
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut failed = 0;
    for (name, test) in tests.iter().filter(|(name, _)| chosen(name)) {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    ExitCode::from(u8::from(failed > 0))
}

/// Starts a shell whose output goes to `path`.
fn sh(house: &mut House, path: &Path, script: &str) -> u64 {
    let mut order = house.order(&[b"/bin/sh", b"-c", script.as_bytes()]);
    order.output = Some(path.as_os_str().as_bytes().to_vec());
    house.spawn(order)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The writer processes that are this one's.
fn writers() -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if let Some((head, rest)) = stat.split_once(" (settled-output) ") {
            let mut fields = rest.split(' ');
            if fields.next() != Some("Z") && fields.next() == Some(&own) {
                found.push(head.parse().unwrap());
            }
        }
    }
    found
}

fn fifo(house: &House) -> PathBuf {
    let path = house.dir.path().join("fifo");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    path
}

/// Ends as the daemon does.
fn close(house: &mut House) {
    house.children.close_outputs();
    house.until("everything written", |house| {
        house.children.open_outputs() == (0, 0)
    });
    wait_until("the writers' ends", || writers().is_empty());
}

/// Others get through, one after another, whatever goes on.
fn others_run(house: &mut House) {
    for _ in 0..20 {
        let run = house.sh("echo through");
        assert_eq!(house.end(run), (ChildEnd::Exit(0), b"through\n".to_vec()));
    }
}

fn own_program() {
    let mut house = House::new();
    let path = house.dir.path().join("-odd\n\u{ff}name");
    let argv: [&[u8]; 3] = [b"settled", b"append-output", path.as_os_str().as_bytes()];
    for text in ["one\n", "two\nwithout newline"] {
        let mut order = house.order(&argv);
        order.program = Program::Own;
        order.stdin = Stdin::Bytes(text.into());
        order.files.clear();
        let run = house.spawn(order);
        assert_eq!(house.end(run), (ChildEnd::Exit(0), vec![]));
    }
    assert_eq!(text(&path), "one\ntwo\nwithout newline");
    assert_eq!(path.metadata().unwrap().mode() & 0o7777 & !0o640, 0);
}

fn whole_lines_of_many() {
    let mut house = House::new();
    let path = house.dir.path().join("log");
    // Each line comes in two pieces, so that only whoever puts lines together again has them whole.
    let script = |n: u32| {
        format!(
            "i=0; while [ $i -lt 500 ]; do printf 'child {n} '; printf 'line %d of it\\n' $i; i=$((i+1)); done; printf end"
        )
    };
    let runs: Vec<u64> = (0..8).map(|n| sh(&mut house, &path, &script(n))).collect();
    for &run in &runs {
        let (end, output) = house.end(run);
        assert_eq!(end, ChildEnd::Exit(0));
        // The end is kept for the journal all the same.
        assert!(output.ends_with(b"line 499 of it\nend"));
        assert!(!house.lines.contains_key(&run), "not for the log");
    }
    close(&mut house);
    let text = text(&path);
    let mut next = [0; 8];
    let mut ends = 0;
    for line in text.lines() {
        if line == "end" {
            ends += 1;
            continue;
        }
        let numbers: Vec<usize> = line
            .split(' ')
            .filter_map(|word| word.parse().ok())
            .collect();
        let [child, number] = numbers[..] else {
            panic!("{line:?}");
        };
        assert_eq!(line, format!("child {child} line {number} of it"));
        assert_eq!(number, next[child], "in order");
        next[child] += 1;
    }
    assert_eq!((next, ends), ([500; 8], 8));
    assert_eq!(house.troubles, Vec::<String>::new());
}

fn renamed_and_opened_anew() {
    let mut house = House::new();
    let (path, old) = (house.dir.path().join("log"), house.dir.path().join("log.1"));
    let go = fifo(&house);
    let script = format!("echo one; read line <{}; echo two", go.display());
    let run = sh(&mut house, &path, &script);
    house.until("one", |_| text(&path) == "one\n");
    std::fs::rename(&path, &old).unwrap();
    house.children.reopen_outputs();
    // Without a line: it is there when logrotate goes on.
    house.until("a new file", |_| path.exists());
    std::fs::write(&go, "go\n").unwrap();
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    close(&mut house);
    assert_eq!(
        (text(&path).as_str(), text(&old).as_str()),
        ("two\n", "one\n")
    );
    assert_eq!(house.troubles, Vec::<String>::new());
}

fn what_is_not_in_use_is_closed() {
    let mut house = House::new();
    let path = house.dir.path().join("log");
    for turn in 1..4 {
        let run = sh(&mut house, &path, "echo line");
        assert_eq!(house.end(run).0, ChildEnd::Exit(0));
        house.until("a writer", |_| text(&path).lines().count() == turn);
        assert_eq!(writers().len(), 1);
        house.children.reopen_outputs();
        house.until("no writer", |house| {
            writers().is_empty() && house.children.open_outputs() == (0, 0)
        });
    }
    assert_eq!(house.troubles, Vec::<String>::new());
}

fn a_file_that_hangs_holds_its_children_alone() {
    let mut house = House::new();
    let path = fifo(&house);
    let run = sh(&mut house, &path, "seq 1 400000");
    let short = sh(&mut house, &path, "sleep 0; echo short");
    // Nobody reads: everything fills up, and stays.
    house.until("a full queue", |house| {
        house.children.open_outputs().1 >= 1 << 20
    });
    others_run(&mut house);
    assert!(!house.ended.contains_key(&run));
    let held = house.children.open_outputs().1;
    assert!(held <= HELD_MAX, "{held}");
    let reader = std::thread::spawn(move || {
        let mut read = String::new();
        std::fs::File::open(path)
            .unwrap()
            .read_to_string(&mut read)
            .unwrap();
        read
    });
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    assert_eq!(house.end(short).0, ChildEnd::Exit(0));
    close(&mut house);
    let read = reader.join().unwrap();
    let numbers: Vec<&str> = read.lines().filter(|line| *line != "short").collect();
    assert_eq!(numbers.len(), 400_000);
    assert!(
        (1..)
            .zip(numbers)
            .all(|(n, line): (u32, _)| line == n.to_string())
    );
}

fn a_full_disk_is_waited_for() {
    let mut house = House::new();
    // As a full disk, but every write fails; and it is written in whole as soon as it is something else.
    let path = house.dir.path().join("log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let run = sh(&mut house, &path, "seq 1 400000");
    house.until("a full queue", |house| {
        house.children.open_outputs().1 >= 1 << 20
    });
    house.until("a word about it", |house| !house.troubles.is_empty());
    others_run(&mut house);
    assert!(!house.ended.contains_key(&run));
    assert_eq!(house.troubles.len(), 1, "{:?}", house.troubles);
    assert!(
        house.troubles[0].contains("No space left"),
        "{:?}",
        house.troubles
    );
    let writer = writers();
    std::fs::remove_file(&path).unwrap();
    house.children.reopen_outputs();
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    assert_eq!(writers(), writer, "it is the same one");
    close(&mut house);
    let expected: String = (1..=400_000).map(|n: u32| format!("{n}\n")).collect();
    assert!(text(&path) == expected);
    assert!(
        house.troubles[1].contains("written again"),
        "{:?}",
        house.troubles
    );
}

fn a_writer_that_dies_takes_nothing_along() {
    let mut house = House::new();
    let path = fifo(&house);
    let run = sh(&mut house, &path, "seq 1 100000");
    house.until("a writer", |house| {
        writers().len() == 1 && house.children.open_outputs().1 > 100_000
    });
    let victim = writers()[0];
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    house.until("a word about it", |house| !house.troubles.is_empty());
    assert!(
        house.troubles[0].contains("signal 9"),
        "{:?}",
        house.troubles
    );
    assert!(is_gone(victim));
    let reader = std::thread::spawn(move || {
        let mut read = String::new();
        std::fs::File::open(path)
            .unwrap()
            .read_to_string(&mut read)
            .unwrap();
        read
    });
    assert_eq!(house.end(run).0, ChildEnd::Exit(0));
    close(&mut house);
    let expected: String = (1..=100_000).map(|n: u32| format!("{n}\n")).collect();
    assert!(reader.join().unwrap() == expected);
}

fn a_file_that_cannot_be_opened_is_tried_again() {
    let mut house = House::new();
    let dir = house.dir.path().join("missing");
    let path = dir.join("log");
    let run = sh(&mut house, &path, "echo kept");
    // There is room for it, so the job need not wait.
    assert_eq!(house.end(run), (ChildEnd::Exit(0), b"kept\n".to_vec()));
    house.until("words about it", |house| house.troubles.len() >= 2);
    let troubles = house.troubles.join("\n");
    for part in [
        format!("output {}: No such file or directory", path.display()),
        "exit status 73".into(),
        "in 1 s".into(),
    ] {
        assert!(troubles.contains(&part), "{troubles}");
    }
    std::fs::create_dir(&dir).unwrap();
    house.until("kept", |_| text(&path) == "kept\n");
    close(&mut house);
}

fn an_end_that_was_asked_for_does_not_wait() {
    let mut house = House::new();
    let path = fifo(&house);
    let flood = sh(&mut house, &path, "exec yes");
    house.until("a full queue", |house| {
        house.children.open_outputs().1 >= 1 << 20
    });
    // The pipe to the writer counted in that; by now the queue alone is full.
    others_run(&mut house);
    // These end by themselves, with something said that finds no room.
    let marks: Vec<PathBuf> = (0..4)
        .map(|n| house.dir.path().join(n.to_string()))
        .collect();
    let ended: Vec<u64> = marks
        .iter()
        .map(|mark| {
            let script = format!("echo said; : >{}; exit 3", mark.display());
            sh(&mut house, &path, &script)
        })
        .collect();
    house.until("all started", |_| marks.iter().all(|mark| mark.exists()));
    let silent = sh(&mut house, &path, "exit 5");
    assert_eq!(
        house.end(silent).0,
        ChildEnd::Exit(5),
        "has nothing to wait for"
    );
    house.until("their processes' ends", |house| {
        ended
            .iter()
            .all(|&run| house.children.pid(RunId(run)).is_none())
    });
    assert!(ended.iter().all(|run| !house.ended.contains_key(run)));
    for &run in &ended {
        house.children.kill(RunId(run), TERM);
    }
    others_run(&mut house);
    assert!(ended.iter().all(|run| !house.ended.contains_key(run)));
    for &run in &ended {
        house.children.kill(RunId(run), KILL);
        assert_eq!(house.end(run), (ChildEnd::Exit(3), vec![]), "as it was");
    }
    house.children.kill(RunId(flood), KILL);
    assert_eq!(house.end(flood).0, ChildEnd::Signal(KILL));
    // Nobody ever reads: the writer is left to itself, and hears of no other end than that of its input.
    let left = writers();
    assert_eq!(left.len(), 1);
    let status = text(Path::new(&format!("/proc/{}/status", left[0])));
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:\t"));
    let ignored = u64::from_str_radix(ignored.unwrap(), 16).unwrap();
    assert!(ignored & 1 << (TERM - 1) != 0, "{status}");
    kill(Pid::from_raw(left[0]), Signal::SIGKILL).unwrap();
    wait_until("its end", || is_gone(left[0]));
}
