//! The fuzz targets of `tests/fuzz` without a fuzzer: every input that is kept, and as many random ones as there is
//! time for in a test run. `make fuzz` does the same with coverage for as long as one likes.
//!
//! `FUZZ_INPUTS=100000 cargo test --release --test journal_fuzz` runs more of them.
#![allow(clippy::unwrap_used)]

#[path = "fuzz/harness/mod.rs"]
mod harness;
mod journal_support;

use harness::Bench;
use harness::history::open;
use journal_support::{KINDS, Memory, Random};
use settled::core::time::Wall;
use settled::journal::storage::File;
use settled::journal::{OnDamage, body};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

fn kept(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target)
}

/// What fails is named: a file, or the bytes.
fn run(bench: &Bench, target: &str, name: &str, data: &[u8]) {
    let ran = catch_unwind(AssertUnwindSafe(|| bench.run(target, data)));
    if ran.is_err() {
        let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("target {target}, input {name}: {hex}");
    }
}

fn random(random: &mut Random) -> Vec<u8> {
    let length = match random.below(4) {
        0 => random.below(16),
        1 => random.below(128),
        _ => random.below(600),
    };
    (0..length).map(|_| random.next() as u8).collect()
}

fn target(target: &str, inputs: u64) {
    let bench = Bench::new();
    let mut files: Vec<_> = fs::read_dir(kept(target))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for path in files {
        let data = fs::read(&path).unwrap();
        run(&bench, target, &path.display().to_string(), &data);
    }
    let inputs = std::env::var("FUZZ_INPUTS").map_or(inputs, |n| n.parse().unwrap());
    for seed in 0..inputs {
        let data = random(&mut Random(seed));
        run(&bench, target, &format!("of seed {seed}"), &data);
    }
}

#[test]
fn records() {
    target("record", 20_000);
}

#[test]
fn segments() {
    target("segment", 1_000);
}

#[test]
fn recoveries() {
    target("recovery", 300);
}

/// One segment of a real journal, without the zeros at its end.
fn real_segment() -> Vec<u8> {
    let memory = Memory::new(1);
    let (mut journal, _, _) = open(memory.clone(), OnDamage::Stop).unwrap();
    let mut random = Random(1);
    for kind in 0..2 * KINDS {
        journal.append(Wall(1), &random.record_of(kind)).unwrap();
        if kind % 5 == 0 {
            journal.flush().unwrap();
        }
    }
    journal.flush().unwrap();
    let mut bytes = memory.bytes(File::Log(1));
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    bytes.truncate(end.next_multiple_of(8));
    bytes
}

/// `FUZZ_SEEDS=tests/fuzz/corpus cargo test --test journal_fuzz -- --ignored seeds` writes the inputs that a
/// fuzzer begins with, beside those that are there.
#[test]
#[ignore = "writes the seeds"]
fn seeds() {
    let dir = PathBuf::from(std::env::var("FUZZ_SEEDS").unwrap());
    let put = |target: &str, name: String, data: &[u8]| {
        fs::create_dir_all(dir.join(target)).unwrap();
        fs::write(dir.join(target).join(name), data).unwrap();
    };
    let mut draw = Random(2);
    for kind in 0..KINDS {
        let record = draw.record_of(kind);
        let mut data = vec![0, body::kind(&record) as u8];
        body::encode(&mut data, &record);
        put("record", format!("seed-body-{kind:02}"), &data);
    }
    for n in 0..8 {
        let data = [&[2 + n % 2], draw.bytes(100).as_slice()].concat();
        put("record", format!("seed-drawn-{n}"), &data);
    }
    let real = real_segment();
    put(
        "segment",
        "seed-real".into(),
        &[&[0], real.as_slice()].concat(),
    );
    put(
        "segment",
        "seed-sealed".into(),
        &[&[2], real.as_slice()].concat(),
    );
    for n in 0..16 {
        let data = [&[3 + n % 3], draw.bytes(500).as_slice()].concat();
        put("segment", format!("seed-built-{n:02}"), &data);
        let data = draw.bytes(800);
        put("recovery", format!("seed-script-{n:02}"), &data);
    }
}

/// `FUZZ_INPUT=FILE cargo test --test journal_fuzz -- --ignored one` runs one input through the target that its
/// directory is named after; `FUZZ_SEED=N FUZZ_TARGET=recovery` a random one.
#[test]
#[ignore = "for looking into one input"]
fn one() {
    let name = std::env::var("FUZZ_TARGET").unwrap();
    let data = match std::env::var("FUZZ_INPUT") {
        Ok(path) => fs::read(path).unwrap(),
        Err(_) => random(&mut Random(
            std::env::var("FUZZ_SEED").unwrap().parse().unwrap(),
        )),
    };
    Bench::new().run(&name, &data);
}
