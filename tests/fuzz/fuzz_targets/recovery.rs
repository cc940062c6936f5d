#![no_main]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../../journal_support/mod.rs"]
mod journal_support;

use libfuzzer_sys::fuzz_target;

thread_local!(static BENCH: harness::Bench = harness::Bench::new());

fuzz_target!(|data: &[u8]| BENCH.with(|bench| bench.run("recovery", data)));
