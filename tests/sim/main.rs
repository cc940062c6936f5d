//! The simulator: the real core under a fake disk, a fake clock, fake children and crashes at every effect.
//!
//! ```text
//! cargo test --test sim                                   1,500 schedules
//! SETTLED_SIM_SEEDS=1000000 cargo test --release --test sim seeds    many
//! SETTLED_SIM_SEED=17 cargo test --test sim seeds -- --nocapture     one, with its story
//! ```
#![allow(missing_docs)]

mod checks;
mod children;
mod disk;
mod edge;
mod effects;
#[path = "../journal_support/mod.rs"]
mod journal_support;
mod mutants;
mod notify;
mod oracle;
mod past;
mod rng;
mod roots;
mod scenes;
mod scouts;
mod setup;
mod store;
mod story;
mod workers;
mod world;
mod writers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Tally, World};

/// Runs one schedule. The violation or panic, if there is one.
fn run(seed: u64) -> (Tally, Option<String>) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        World::new(seed, setup::draw(seed)).run()
    }));
    match result {
        Ok(end) => end,
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            (Tally::default(), Some(format!("panic: {text}")))
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a seed again and prints what happened.
fn tell(seed: u64) -> Option<String> {
    story::begin(true);
    let (_, violation) = run(seed);
    for line in story::take() {
        println!("{line}");
    }
    story::begin(false);
    violation
}

#[test]
fn seeds() {
    if let Some(seed) = number("SETTLED_SIM_SEED") {
        if let Some(violation) = tell(seed) {
            panic!("seed {seed}: {violation}");
        }
        return;
    }
    let first = number("SETTLED_SIM_FIRST").unwrap_or(1);
    let count = number("SETTLED_SIM_SEEDS").unwrap_or(1500);
    let most = number("SETTLED_SIM_FAILURES").unwrap_or(1);
    let workers = number("SETTLED_SIM_WORKERS").unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |workers| workers.get() as u64)
    });
    let next = AtomicU64::new(first);
    // Seeds above the lowest that failed are of no interest where one failure is enough.
    let end = AtomicU64::new(first + count);
    let mut failed: Vec<(u64, String)> = Vec::new();
    let mut total = Tally::default();
    std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|_| {
                scope.spawn(|| {
                    let mut failed = Vec::new();
                    let mut total = Tally::default();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end.load(Ordering::Relaxed) || failed.len() as u64 >= most {
                            return (failed, total);
                        }
                        let (tally, violation) = run(seed);
                        total.add(&tally);
                        if let Some(violation) = violation {
                            failed.push((seed, violation));
                            if most == 1 {
                                end.fetch_min(seed, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        for handle in handles {
            let (mut some, tally) = handle.join().expect("a worker");
            failed.append(&mut some);
            total.add(&tally);
        }
    });
    println!("{count} schedules: {total:?}");
    failed.sort();
    if most > 1 {
        for (seed, violation) in &failed {
            println!("seed {seed}: {violation}");
        }
    }
    if let Some((seed, violation)) = failed.first() {
        if most == 1 && number("SETTLED_SIM_TELL") != Some(0) {
            tell(*seed);
        }
        panic!(
            "\nseed {seed}: {violation}\nagain: SETTLED_SIM_SEED={seed} cargo test --test sim seeds -- --nocapture"
        );
    }
}

#[test]
fn a_seed_means_the_same_for_ever() {
    for seed in [3, 4, 5] {
        let mut stories = Vec::new();
        for _ in 0..2 {
            story::begin(true);
            run(seed);
            stories.push(story::take());
        }
        assert!(stories[0] == stories[1], "seed {seed} is not deterministic");
        assert!(!stories[0].is_empty());
    }
    story::begin(false);
}
