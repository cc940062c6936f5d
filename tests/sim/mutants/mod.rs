//! Can the simulator find faults? Deliberate ones are put into a copy of the sources, all at once, each
//! behind a question; the copy is built once, and run with one fault after another until a schedule fails.
//! A schedule counts only if it passes without the fault. Four guards are not among them, as the schedules show nothing
//! without them: the tests that fail then are in `core_answers`, and in `real` (a rotation while the daemon was down).
//!
//! ```text
//! cargo test --release --test sim -- --ignored mutants --nocapture      all, and the copy without any
//! SETTLED_SIM_MUTANT='flush|key' ...                                    those with one of these in their names
//! SETTLED_SIM_SEEDS=100000 ...                                          schedules for each, at most
//! ```

mod acting;
mod dispatching;
mod journal;
mod observing;
mod remembering;
mod working;

use crate::setup::DENSE;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A deliberate fault. `MUTANT` in `new` is true while this fault is at work; else the text must do what
/// `old` does.
pub struct Mutant {
    pub name: &'static str,
    pub file: &'static str,
    /// What is there, once.
    pub old: &'static str,
    pub new: &'static str,
}

/// Schedules of their own for faults that few show: tried first. Where the worlds have changed since, others are
/// looked for as for any fault.
const OWN: &[(&str, u64)] = &[
    ("a scan that waits for its root compares nothing", 15_632),
    ("a listing from before an event counts", 16_662),
    (
        "what is deleted while a scan is under way takes another file's memory along",
        96_677,
    ),
    (
        "a directory that goes while a scan is under way takes along what went from it",
        84_021,
    ),
    ("a file that was seen is unseen once it is renamed", 150_495),
];

/// All of them; the first has number 1.
fn all() -> Vec<&'static Mutant> {
    [
        observing::ALL,
        working::ALL,
        remembering::ALL,
        acting::ALL,
        dispatching::ALL,
        journal::ALL,
    ]
    .into_iter()
    .flatten()
    .collect()
}

impl Mutant {
    /// Where its text is; an error if the list has not kept up with the sources.
    fn place(&self, text: &str) -> Result<Range<usize>, String> {
        let mut found = text.match_indices(self.old);
        match (found.next(), found.next()) {
            (Some((at, old)), None) => Ok(at..at + old.len()),
            _ => Err(format!(
                "{}: its text is not once in {}",
                self.name, self.file
            )),
        }
    }

    /// Its text, asking for its number.
    fn guarded(&self, number: usize) -> String {
        let krate = if self.file.starts_with("src/") {
            "crate"
        } else {
            "settled"
        };
        self.new
            .replace("MUTANT", &format!("{krate}::mutant({number})"))
    }
}

/// Puts all faults of one file into its text.
///
/// # Errors
/// One is not there, or two want the same place.
fn mutated(file: &str, text: &str) -> Result<String, String> {
    let mut places = Vec::new();
    for (at, mutant) in all().into_iter().enumerate() {
        if mutant.file == file {
            places.push((mutant.place(text)?, mutant, at + 1));
        }
    }
    places.sort_by_key(|(place, ..)| place.start);
    let mut out = String::new();
    let mut from = 0;
    for (place, mutant, number) in places {
        if place.start < from {
            return Err(format!("{}: another fault has its place", mutant.name));
        }
        out.push_str(&text[from..place.start]);
        out.push_str(&mutant.guarded(number));
        from = place.end;
    }
    out.push_str(&text[from..]);
    Ok(out)
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Only what the simulator needs; which fault is at work comes with the environment.
const LIBRARY: &str = "\
pub mod core;
pub mod journal;
pub mod plan;
pub mod sys;

static MUTANT: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
    std::env::var(\"SETTLED_SIM_FAULT\").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
});

#[inline]
pub fn mutant(number: usize) -> bool {
    *MUTANT == number
}
";

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a directory");
        for entry in fs::read_dir(from).expect("a directory") {
            let entry = entry.expect("an entry");
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a copy");
    }
}

/// A copy of the sources with all faults in it, whose only test is the simulator.
fn scratch() -> PathBuf {
    let tree = here().join("target/mutants");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("tests")).expect("a directory");
    for part in ["src", "tests/sim", "tests/journal_support", "Cargo.lock"] {
        copy(&here().join(part), &tree.join(part));
    }
    let mut files: Vec<&str> = all().iter().map(|mutant| mutant.file).collect();
    files.sort_unstable();
    files.dedup();
    for file in files {
        let text = fs::read_to_string(tree.join(file)).expect("a source");
        let text = mutated(file, &text).expect("the list keeps up with the sources");
        fs::write(tree.join(file), text).expect("a source");
    }
    fs::write(tree.join("src/lib.rs"), LIBRARY).expect("the library");
    let manifest = fs::read_to_string(here().join("Cargo.toml")).expect("Cargo.toml");
    let kept: Vec<String> = manifest
        .split("\n[")
        .enumerate()
        .map(|(at, part)| {
            if at == 0 {
                part.to_owned()
            } else {
                format!("[{part}")
            }
        })
        .filter(|part| {
            let target = ["[[bin]]", "[[example]]", "[[bench]]", "[[test]]"]
                .iter()
                .any(|head| part.starts_with(head));
            !target || part.contains("tests/sim/main.rs")
        })
        .collect();
    let manifest = kept.join("\n").replace(
        "default-run = \"settled\"\n",
        "autobins = false\nautotests = false\n",
    );
    fs::write(tree.join("Cargo.toml"), manifest + "\n[workspace]\n").expect("Cargo.toml");
    tree
}

/// Builds the copy; the path of the test program.
fn build(tree: &Path) -> PathBuf {
    let output = Command::new(env!("CARGO"))
        .current_dir(tree)
        .args([
            "test",
            "--release",
            "--offline",
            "--test",
            "sim",
            "--no-run",
        ])
        .env("CARGO_TARGET_DIR", here().join("target/mutants-build"))
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "2")
        .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true")
        .env("RUSTFLAGS", "-Awarnings")
        .output()
        .expect("cargo");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let program = text
        .lines()
        .rfind(|line| line.trim_start().starts_with("Executable"))
        .and_then(|line| line.split('(').nth(1)?.strip_suffix(')'))
        .map(PathBuf::from);
    match program {
        Some(program) if output.status.success() => program,
        _ => panic!("the copy with the faults in it cannot be built:\n{text}"),
    }
}

/// Schedules that one process runs: few enough to be over in seconds, so that one which is still at it after
/// [`PATIENCE`] goes round for ever, however busy the machine is.
const SLICE: u64 = 1000;
/// In seconds.
const PATIENCE: &str = "600";

/// Runs schedules `from..=to` with one fault at work (0: none): the first that fails, and what was wrong.
fn first_failure(program: &Path, fault: usize, from: u64, to: u64) -> Option<(u64, String)> {
    (from..=to)
        .step_by(SLICE as usize)
        .find_map(|first| fails_in(program, fault, first, to.min(first + SLICE - 1)))
}

fn fails_in(program: &Path, fault: usize, from: u64, to: u64) -> Option<(u64, String)> {
    // A fault may make the core go round for ever.
    let output = Command::new("timeout")
        .arg(PATIENCE)
        .arg(program)
        .args(["--exact", "seeds", "--nocapture"])
        .env("SETTLED_SIM_FAULT", fault.to_string())
        .env("SETTLED_SIM_FIRST", from.to_string())
        .env("SETTLED_SIM_SEEDS", (to + 1 - from).to_string())
        .env("SETTLED_SIM_WORKERS", "1")
        .env("SETTLED_SIM_TELL", "0")
        .env_remove("SETTLED_SIM_SEED")
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the simulator");
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = text.lines().rev().find_map(|line| {
        let (seed, why) = line.strip_prefix("seed ")?.split_once(": ")?;
        Some((seed.parse().ok()?, why.to_owned()))
    });
    Some(said.unwrap_or((from, "it did not end".into())))
}

/// The first of the schedules that fails with the fault and passes without it; its own before all others.
fn hunt(program: &Path, fault: usize, name: &str, schedules: u64) -> Option<(u64, String)> {
    for (_, own) in OWN.iter().filter(|(named, _)| *named == name) {
        if let Some(found) = first_failure(program, fault, *own, *own)
            && first_failure(program, 0, *own, *own).is_none()
        {
            return Some(found);
        }
    }
    // What is rare elsewhere is sought in dense worlds.
    let few = schedules.min(2000);
    [
        (1, few),
        (DENSE, DENSE + schedules - 1),
        (few + 1, schedules),
    ]
    .into_iter()
    .find_map(|(from, to)| first_of(program, fault, from, to))
}

fn first_of(program: &Path, fault: usize, mut from: u64, to: u64) -> Option<(u64, String)> {
    while from <= to {
        let (seed, why) = first_failure(program, fault, from, to)?;
        if first_failure(program, 0, seed, seed).is_none() {
            return Some((seed, why));
        }
        from = seed + 1;
    }
    None
}

/// Every deliberate fault is caught, and without any nothing is.
#[test]
#[ignore = "builds the simulator with the faults in it, and runs it with each: some minutes"]
fn mutants() {
    let only = std::env::var("SETTLED_SIM_MUTANT").unwrap_or_default();
    let schedules = crate::number("SETTLED_SIM_SEEDS").unwrap_or(20_000);
    let began = Instant::now();
    let program = build(&scratch());
    println!("built in {} s", began.elapsed().as_secs());
    let names = std::iter::once("(no fault)").chain(all().into_iter().map(|mutant| mutant.name));
    let chosen: Vec<(usize, &str)> = names
        .enumerate()
        .filter(|(number, name)| *number == 0 || only.split('|').any(|part| name.contains(part)))
        .collect();
    let next = AtomicUsize::new(0);
    let wrong = Mutex::new(Vec::new());
    println!("{:<58} {:>9}  rule of the oracle", "fault", "schedules");
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((number, name)) =
                    chosen.get(next.fetch_add(1, Ordering::Relaxed)).copied()
                {
                    let found = if number == 0 {
                        first_failure(&program, 0, 1, schedules)
                    } else {
                        hunt(&program, number, name, schedules)
                    };
                    let (after, what) = match &found {
                        Some((seed, why)) => (*seed, why.chars().take(90).collect()),
                        None if number == 0 => (schedules, "passes".to_owned()),
                        None => (schedules, "NOT CAUGHT".to_owned()),
                    };
                    println!("{name:<58} {after:>9}  {what}");
                    if found.is_some() == (number == 0) {
                        wrong.lock().expect("the list").push(name);
                    }
                }
            });
        }
    });
    println!(
        "{} faults in {} s",
        chosen.len() - 1,
        began.elapsed().as_secs()
    );
    let wrong = wrong.into_inner().expect("the list");
    assert!(wrong.is_empty(), "not as it must be: {}", wrong.join(", "));
}

/// The list keeps up with the sources: a fault whose text is gone would be found by nobody.
#[test]
fn every_mutant_still_applies() {
    for mutant in all() {
        let text = fs::read_to_string(here().join(mutant.file)).expect("a source");
        mutated(mutant.file, &text).expect("the mutant's text");
    }
    for (name, _) in OWN {
        assert!(all().iter().any(|mutant| mutant.name == *name), "{name}");
    }
}
