//! Dispatch measured: `cargo bench --bench dispatch -- [worker | child | burst] [options]`. Tables, no assertion by time.
//!
//! * `worker`: small files through one worker, against a bare loop that reads inotify and writes lines to a pipe read by
//!   the same worker, and against `inotifywait | xargs -n 100`. Whatever was handed over is in the worker's own ledger,
//!   and the journal says what was concluded: each file once, or the table says so.
//! * `child`: one child per file, against a bare inotify + posix_spawn loop.
//! * `burst`: a burst in one watch while a file comes to another one every 100 ms: how long that waits for its child,
//!   and what the daemon and its scouts hold meanwhile.
//!
//! Peers run interleaved, another one first in each round; ratios are round by round.

mod burst;
mod child;
mod peer;
#[path = "../procfs.rs"]
#[allow(dead_code)] // Other benchmarks use the rest.
mod procfs;
#[path = "../raw_spawn.rs"]
mod raw_spawn;
#[path = "../results.rs"]
#[allow(dead_code)] // Other benchmarks use the rest.
mod results;
mod worker;

use nix::time::{ClockId, clock_gettime};
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

pub(crate) type Res<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: cargo bench --bench dispatch -- [worker | child | burst] [options]
  --rounds N       worker, child: rounds (default 3); burst: always one
  --files N        worker: files (default 20000)
  --window N       worker: jobs that it may have unanswered (default 256)
  --ahead N        worker, child: files that wait at most, so that no peer's queue in the kernel overflows
                   (default 6000); 0: no bound
  --children N     child: files (default 5000)
  --burst N        burst: files (default 50000)
  --by WHAT        burst: worker or run (default run)
  --seconds N      burst: how long the other watch is looked at after the burst was written (default 30)
  --peers A,B      worker, child: only these
  --log-level L    of the daemon (default info)
  --dir DIR        where the files go, in a directory of its own (default: cargo's target directory)
  --settled FILE   the program to measure (default: the one just built)
  --keep           leave the directory behind";

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) rounds: usize,
    pub(crate) files: usize,
    pub(crate) window: usize,
    pub(crate) ahead: usize,
    pub(crate) children: usize,
    pub(crate) burst: usize,
    pub(crate) by_worker: bool,
    pub(crate) seconds: u64,
    pub(crate) peers: Vec<String>,
    pub(crate) log_level: String,
    pub(crate) settled: PathBuf,
    /// A directory on the disk.
    pub(crate) dir: PathBuf,
    /// A directory on /dev/shm, where there is one.
    pub(crate) memory: Option<PathBuf>,
    pub(crate) handler: PathBuf,
    pub(crate) consumer: PathBuf,
    pub(crate) keep: bool,
}

impl Asked {
    pub(crate) fn wants(&self, peer: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|wanted| wanted == peer)
    }
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match args.split_first() {
        Some((word, rest)) if word == "__worker" => worker::answer(rest),
        Some((word, rest)) if word == "__raw-pipe" => worker::raw_pipe(rest),
        Some((word, rest)) if word == "__raw-spawn" => raw_spawn::run(rest),
        Some((word, rest)) if word == "__under" => under(rest),
        // `cargo test --all-targets` runs benchmarks too, without `--bench`.
        None => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dispatch: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes the command, which gets SIGKILL when the benchmark dies.
fn under(line: &[OsString]) -> Res<()> {
    let (program, rest) = line.split_first().ok_or("__under: no command")?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Err(Command::new(program).args(rest).exec().into())
}

fn run(args: &[OsString]) -> Res<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut asked = Asked {
        rounds: 3,
        files: 20_000,
        window: 256,
        ahead: 6_000,
        children: 5_000,
        burst: 50_000,
        by_worker: false,
        seconds: 30,
        peers: Vec::new(),
        log_level: "info".into(),
        settled: PathBuf::from(env!("CARGO_BIN_EXE_settled")),
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        memory: None,
        handler: PathBuf::new(),
        consumer: PathBuf::new(),
        keep: false,
    };
    let mut what = Vec::new();
    let mut args = args.iter().map(|arg| arg.to_str().unwrap_or_default());
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(USAGE);
        match arg {
            "--bench" => {}
            "--rounds" => asked.rounds = value()?.parse()?,
            "--files" => asked.files = value()?.parse()?,
            "--window" => asked.window = value()?.parse()?,
            "--ahead" => asked.ahead = value()?.parse()?,
            "--children" => asked.children = value()?.parse()?,
            "--burst" => asked.burst = value()?.parse()?,
            "--by" => asked.by_worker = value()? == "worker",
            "--seconds" => asked.seconds = value()?.parse()?,
            "--peers" => asked.peers = value()?.split(',').map(str::to_owned).collect(),
            "--log-level" => asked.log_level = value()?.to_owned(),
            "--settled" => asked.settled = fs::canonicalize(value()?)?,
            "--dir" => asked.dir = fs::canonicalize(value()?)?,
            "--keep" => asked.keep = true,
            "worker" | "child" | "burst" => what.push(arg),
            _ => return Err(USAGE.into()),
        }
    }
    if what.is_empty() {
        what = vec!["worker", "child", "burst"];
    }
    fs::create_dir_all(&asked.dir)?;
    let mut dir = tempfile::Builder::new()
        .prefix("dispatch-")
        .tempdir_in(&asked.dir)?;
    dir.disable_cleanup(asked.keep);
    let memory = tempfile::Builder::new()
        .prefix("dispatch-")
        .tempdir_in("/dev/shm")
        .ok();
    asked.dir = fs::canonicalize(dir.path())?;
    asked.memory = memory.as_ref().map(|memory| memory.path().to_path_buf());
    asked.handler = build(&asked.dir, "handler", include_str!("../handler.c"))?;
    asked.consumer = build(&asked.dir, "consumer", include_str!("consumer.c"))?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!(
        "# Dispatch\n\n- Linux {}, {} cores, load average at the start: {}\n",
        kernel.trim(),
        std::thread::available_parallelism().map_or(0, usize::from),
        load_average()
    );
    for what in what {
        match what {
            "worker" => worker::run(&asked)?,
            "child" => child::run(&asked)?,
            _ => burst::run(&asked)?,
        }
    }
    println!("- load average at the end: {}", load_average());
    Ok(())
}

/// A program of C: as small as this machine's compiler can make it.
fn build(dir: &Path, name: &str, source: &str) -> Res<PathBuf> {
    let (text, program) = (dir.join(format!("{name}.c")), dir.join(name));
    fs::write(&text, source)?;
    for flags in [
        &["-DHOSTED", "-D_GNU_SOURCE", "-static"][..],
        &["-DHOSTED", "-D_GNU_SOURCE"],
    ] {
        let built = Command::new("cc")
            .arg("-O1")
            .args(flags)
            .arg("-o")
            .arg(&program)
            .arg(&text)
            .output()?;
        if built.status.success() {
            return Ok(program);
        }
    }
    Err(format!("cc cannot build {name}").into())
}

pub(crate) fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The middle one; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock that the handler reads.
pub(crate) fn now_ns() -> Res<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
