//! Can the simulator find faults? Each of a list of deliberate ones is put into a copy of the sources, built,
//! and run until a schedule fails.
//!
//! ```text
//! cargo test --release --test sim -- --ignored mutants --nocapture      all
//! SETTLED_SIM_MUTANT=flush ...                                          those with that in their names
//! SETTLED_SIM_SEEDS=100000 ...                                          schedules for each, at most
//! ```

mod list;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

pub struct Mutant {
    pub name: &'static str,
    pub file: &'static str,
    pub old: &'static str,
    pub new: &'static str,
}

impl Mutant {
    /// The mutated text; an error if the list has not kept up with the sources.
    fn apply(&self, text: &str) -> Result<String, String> {
        match text.matches(self.old).count() {
            1 => Ok(text.replacen(self.old, self.new, 1)),
            n => Err(format!(
                "{}: its text is {n} times in {}",
                self.name, self.file
            )),
        }
    }
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Only what the simulator needs: the rest of the library would be built each time for nothing.
const LIBRARY: &str = "pub mod core;\npub mod journal;\npub mod plan;\npub mod sys;\n";

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

/// A copy of the sources whose only test is the simulator.
fn scratch() -> PathBuf {
    let tree = here().join("target/mutants");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(tree.join("tests")).expect("a directory");
    for part in ["src", "tests/sim", "tests/journal_support", "Cargo.lock"] {
        copy(&here().join(part), &tree.join(part));
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
fn build(tree: &Path) -> Result<PathBuf, String> {
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
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true")
        .env("RUSTFLAGS", "-Awarnings")
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let program = text
        .lines()
        .rfind(|line| line.trim_start().starts_with("Executable"))
        .and_then(|line| line.split('(').nth(1)?.strip_suffix(')'))
        .map(PathBuf::from);
    match program {
        Some(program) if output.status.success() => Ok(program),
        _ => Err(text),
    }
}

/// Runs it: the seed of the first schedule that fails, and what was wrong.
fn hunt(program: &Path, seeds: &str) -> Option<String> {
    let output = Command::new(program)
        .args(["--exact", "seeds", "--nocapture"])
        .env("SETTLED_SIM_SEEDS", seeds)
        .env_remove("SETTLED_SIM_SEED")
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("the simulator");
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().rfind(|line| line.starts_with("seed "));
    let line = line.unwrap_or("it ended without a word");
    Some(line.chars().take(150).collect())
}

/// Every deliberate fault is caught.
#[test]
#[ignore = "builds the simulator once for each fault: some ten minutes"]
fn mutants() {
    let only = std::env::var("SETTLED_SIM_MUTANT").unwrap_or_default();
    let seeds = std::env::var("SETTLED_SIM_SEEDS").unwrap_or_else(|_| "20000".into());
    let tree = scratch();
    let mut missed = Vec::new();
    let chosen = list::ALL
        .iter()
        .filter(|mutant| mutant.name.contains(&only));
    for mutant in chosen {
        let began = Instant::now();
        let file = tree.join(mutant.file);
        let text = fs::read_to_string(&file).expect("a source");
        let result = mutant.apply(&text).and_then(|mutated| {
            fs::write(&file, mutated).expect("a source");
            let program = build(&tree);
            fs::write(&file, &text).expect("a source");
            Ok(hunt(&program?, &seeds))
        });
        let seconds = began.elapsed().as_secs();
        match result {
            Ok(Some(violation)) => {
                println!("caught      {seconds:>4} s  {}: {violation}", mutant.name)
            }
            Ok(None) => {
                println!("NOT CAUGHT  {seconds:>4} s  {}", mutant.name);
                missed.push(mutant.name.to_owned());
            }
            Err(error) => {
                println!("NOT BUILT   {seconds:>4} s  {}: {error}", mutant.name);
                missed.push(mutant.name.to_owned());
            }
        }
    }
    assert!(missed.is_empty(), "not caught: {}", missed.join(", "));
}

/// The list keeps up with the sources: a fault whose text is gone would be found by nobody.
#[test]
fn every_mutant_still_applies() {
    for mutant in list::ALL {
        let text = fs::read_to_string(here().join(mutant.file)).expect("a source");
        mutant.apply(&text).expect("the mutant's text");
    }
}
