//! What the fuzz targets run, and `tests/journal_fuzz.rs` without any tool: functions of a fuzzer's bytes that
//! panic where the journal breaks a promise.
//!
//! ```text
//! record     bodies and frames                      input    bytes read as choices
//! segment    files of arbitrary bytes               naive    the format once more, to judge by
//! recovery   a script's directory, damaged          damage   what can happen to files
//!                                                   history  the script
//! ```
// Each target uses its part of this.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod damage;
pub mod history;
pub mod input;
pub mod naive;
pub mod record;
pub mod recovery;
pub mod segment;

pub use record::record;
pub use recovery::recovery;
pub use segment::segment;

/// The names of the targets.
pub const TARGETS: [&str; 3] = ["record", "segment", "recovery"];

/// What the targets need besides their input.
pub struct Bench {
    plan: settled::plan::Plan,
    scratch: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Bench {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("settled.toml");
        let text = "[watch.w1]\npath = \"/srv/in\"\nrun = [\"true\"]\n";
        std::fs::write(&file, text).unwrap();
        let plan = settled::config::load(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        Bench { plan, scratch }
    }

    pub fn run(&self, target: &str, data: &[u8]) {
        match target {
            "record" => record(data),
            "segment" => segment(data, self.scratch.path()),
            "recovery" => recovery(data, &self.plan),
            other => panic!("no target {other}"),
        }
    }

    pub fn plan(&self) -> &settled::plan::Plan {
        &self.plan
    }
}
