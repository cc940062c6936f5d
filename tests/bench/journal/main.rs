//! The journal measured: `cargo bench --bench journal -- [append | recovery] [options]`. Tables, no assertion.
//!
//! `append` holds it against programs that do nothing but pwrite(2) and fdatasync(2); `recovery` holds the start with a
//! long journal against reading the same bytes, and tells what a remembered file costs in memory.

mod append;
#[path = "../../journal_support/mod.rs"]
mod journal_support;
mod recovery;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) type Res<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: cargo bench --bench journal -- [append | recovery] [options]
  --dir DIR        where the files go, in a directory of its own (default: cargo's target directory)
  --rounds N       how often everything is run, in turning order (default: append 15, recovery 5)
  --files N        recovery: live files (default 1000000), with ten records each";

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) dir: PathBuf,
    pub(crate) rounds: Option<usize>,
    pub(crate) files: u64,
}

/// The middle one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// One-minute load average and processors, for whoever reads the table.
pub(crate) fn load() -> Res<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default().to_owned();
    let processors = std::thread::available_parallelism()?;
    Ok(format!("load {load} on {processors} processors"))
}

fn run() -> Res<()> {
    let mut asked = Asked {
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        rounds: None,
        files: 1_000_000,
    };
    let mut what = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(USAGE);
        match arg.as_str() {
            "--bench" => {}
            "--dir" => asked.dir = value()?.into(),
            "--rounds" => asked.rounds = Some(value()?.parse()?),
            "--files" => asked.files = value()?.parse()?,
            "__start" => return recovery::start(&value()?, value()?.as_ref()),
            "append" | "recovery" => what.push(arg),
            _ => return Err(USAGE.into()),
        }
    }
    let wanted = |name| what.is_empty() || what.iter().any(|asked| asked == name);
    if wanted("append") {
        append::run(&asked)?;
    }
    if wanted("recovery") {
        recovery::run(&asked)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
