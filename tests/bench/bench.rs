//! The benchmark: `cargo bench --bench loads -- [W1 .. W7] [options]`. One command, tables out.
//!
//! It holds the program against a bare inotify + posix_spawn loop (`raw_spawn`) and against inotifywait and incron, under
//! the loads W1 to W7, interleaved: every round runs every peer once under each load, in turning order. Ratios to
//! the bare loop are the message; nothing is asserted by time.
//!
//! It starts itself again for two things: `__raw-spawn` is the bare loop, `__under` ties a peer's life to its own.

mod loads;
mod peers;
mod procfs;
mod raw_spawn;
mod report;
mod results;
mod run;

use loads::{LOADS, Load};
use peers::{FAMILIES, Family, Peer};
use report::{Row, median};
use run::Run;
use std::cell::{Cell, RefCell};
use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) type Res<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: cargo bench --bench loads -- [W1 .. W7] [options]
  --peers A,B      of settled,raw-spawn,inotifywait-sh,inotifywait-xargs,incron (default: all)
  --rounds N       default 3
  --dir DIR        where files, state and results go, in a directory of its own (default: cargo's target directory)
  --quiet SECS     a peer that lost files is waited for until it was quiet so long (default 5)
  --settled FILE   the program to measure (default: the one just built)
  --quick          a tenth of the files: tries the benchmark itself, its figures are not the loads'
  --no-install     do not install missing peers with apt-get
  --keep           leave the directory behind";

/// What every run needs.
pub(crate) struct Bench {
    pub(crate) dir: PathBuf,
    /// A directory on /dev/shm.
    pub(crate) memory: Option<PathBuf>,
    pub(crate) handler: PathBuf,
    pub(crate) settled: PathBuf,
    pub(crate) quiet: Duration,
    pub(crate) keep: bool,
    quick: bool,
    interrupted: Arc<AtomicBool>,
    number: Cell<u32>,
    notes: RefCell<Vec<String>>,
}

impl Bench {
    /// Sleeps; an error once the benchmark was asked to stop.
    pub(crate) fn pause(&self, time: Duration) -> Res<()> {
        let mut left = time;
        loop {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err("interrupted".into());
            }
            if left.is_zero() {
                return Ok(());
            }
            let step = left.min(Duration::from_millis(200));
            std::thread::sleep(step);
            left -= step;
        }
    }

    /// The load's number of files, or a tenth of it.
    pub(crate) fn scaled(&self, number: usize) -> usize {
        if self.quick {
            number.div_ceil(10)
        } else {
            number
        }
    }

    /// Says something below the table of the load that runs.
    pub(crate) fn note(&self, text: String) {
        eprintln!("    {text}");
        self.notes.borrow_mut().push(text);
    }

    pub(crate) fn next_number(&self) -> u32 {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }
}

struct Options {
    loads: Vec<&'static Load>,
    families: Vec<Family>,
    rounds: usize,
    dir: PathBuf,
    quiet: Duration,
    settled: PathBuf,
    quick: bool,
    install: bool,
    keep: bool,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match args.split_first() {
        Some((word, rest)) if word == "__raw-spawn" => raw_spawn::run(rest),
        Some((word, rest)) if word == "__under" => under(rest),
        // `cargo test --all-targets` runs benchmarks too, without `--bench`: an hour's work is not meant there.
        None => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => parse(&args).and_then(|options| bench(&options)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loads: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Becomes the command, which gets SIGKILL when the benchmark dies.
fn under(line: &[OsString]) -> Res<()> {
    use std::os::unix::process::CommandExt;
    let (program, rest) = line.split_first().ok_or("__under: no command")?;
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    Err(Command::new(program).args(rest).exec().into())
}

fn parse(args: &[OsString]) -> Res<Options> {
    let mut options = Options {
        loads: Vec::new(),
        families: FAMILIES.to_vec(),
        rounds: 3,
        dir: PathBuf::from(env!("CARGO_TARGET_TMPDIR")),
        quiet: Duration::from_secs(5),
        settled: PathBuf::from(env!("CARGO_BIN_EXE_settled")),
        quick: false,
        install: true,
        keep: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let arg = arg.to_str().ok_or("arguments must be UTF-8")?;
        let mut value = || {
            args.next()
                .and_then(|value| value.to_str())
                .ok_or(format!("{arg} needs a value\n{USAGE}"))
        };
        match arg {
            "--bench" => {}
            "--peers" => {
                let names: Vec<&str> = value()?.split(',').collect();
                if let Some(unknown) = names
                    .iter()
                    .find(|name| FAMILIES.iter().all(|family| family.name() != **name))
                {
                    return Err(format!("no peer {unknown}\n{USAGE}").into());
                }
                options
                    .families
                    .retain(|family| names.contains(&family.name()));
            }
            "--rounds" => options.rounds = value()?.parse()?,
            "--dir" => options.dir = fs::canonicalize(value()?)?,
            "--quiet" => options.quiet = Duration::from_secs(value()?.parse()?),
            "--settled" => options.settled = fs::canonicalize(value()?)?,
            "--quick" => options.quick = true,
            "--no-install" => options.install = false,
            "--keep" => options.keep = true,
            id => match LOADS.iter().find(|load| load.id.eq_ignore_ascii_case(id)) {
                Some(load) => options.loads.push(load),
                None => return Err(format!("what is {id}?\n{USAGE}").into()),
            },
        }
    }
    if options.loads.is_empty() {
        options.loads = LOADS.iter().collect();
    }
    Ok(options)
}

fn bench(options: &Options) -> Res<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGHUP,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))?;
    }
    fs::create_dir_all(&options.dir)?;
    let mut dir = tempfile::Builder::new()
        .prefix("loads-")
        .tempdir_in(&options.dir)?;
    dir.disable_cleanup(options.keep);
    // As /proc/PID/exe will name the handler: without links.
    let here = fs::canonicalize(dir.path())?;
    let memory = tempfile::Builder::new()
        .prefix("loads-")
        .tempdir_in("/dev/shm")
        .ok();
    let (handler, handler_is) = build_handler(&here)?;
    let mut head = head(options, &here, handler_is);
    let mut families = Vec::new();
    for family in &options.families {
        match peers::provide(*family, options.install) {
            Ok(()) => families.push(*family),
            Err(reason) => head.push_str(&format!("- left out: {}: {reason}\n", family.name())),
        }
    }
    let mut versions: Vec<String> = families
        .iter()
        .filter_map(|family| peers::version(*family))
        .collect();
    versions.dedup();
    head.push_str(&format!(
        "- peers: settled {}, {}\n",
        env!("CARGO_PKG_VERSION"),
        versions.join(", ")
    ));
    let bench = Bench {
        dir: here,
        memory: memory.as_ref().map(|memory| memory.path().to_path_buf()),
        handler,
        settled: options.settled.clone(),
        quiet: options.quiet,
        keep: options.keep,
        quick: options.quick,
        interrupted,
        number: Cell::new(0),
        notes: RefCell::new(Vec::new()),
    };

    let mut tables: Vec<Vec<Row>> = Vec::new();
    let mut notes: Vec<Vec<String>> = vec![Vec::new(); options.loads.len()];
    for load in &options.loads {
        let peers = families.iter().flat_map(|family| (load.rows)(*family));
        tables.push(
            peers
                .map(|peer| Row {
                    name: peer.name,
                    rounds: Vec::new(),
                })
                .collect(),
        );
    }
    let mut flushes: [Vec<f64>; 4] = Default::default();
    'rounds: for round in 0..options.rounds {
        if let Err(error) = measure_flushes(&bench, &mut flushes) {
            bench.note(format!("flush: {error}"));
        }
        for ((load, rows), notes) in options.loads.iter().zip(&mut tables).zip(&mut notes) {
            let mut peers: Vec<Peer> = families
                .iter()
                .flat_map(|family| (load.rows)(*family))
                .collect();
            // Another one goes first in every round, so that none always follows the same neighbour.
            let turn = round % peers.len().max(1);
            peers.rotate_left(turn);
            for peer in &peers {
                eprintln!("round {} {} {}", round + 1, load.id, peer.name);
                let sample =
                    Run::new(&bench, peer, load.shape).and_then(|mut run| (load.run)(&mut run));
                if let Err(error) = &sample {
                    bench.note(format!("{}: {error}", peer.name));
                }
                if let Some(row) = rows.iter_mut().find(|row| row.name == peer.name) {
                    row.rounds.push(sample.ok());
                }
                for note in bench.notes.take() {
                    notes.push(format!("round {}: {note}", round + 1));
                }
                if bench.interrupted.load(Ordering::Relaxed) {
                    head.push_str("- INTERRUPTED: what follows is a part\n");
                    break 'rounds;
                }
            }
        }
    }

    let flush = |at: usize| {
        flushes
            .get(at)
            .and_then(|all| median(all))
            .map_or("-".to_string(), |us| format!("{us:.0}"))
    };
    head.push_str(&format!(
        "- one flush (512 B + fdatasync), median in us: {} one every 20 ms, {} one after the other; {} into blocks allocated \
         but never written; {} on /dev/shm\n- load average at the end: {}\n",
        flush(0), flush(1), flush(2), flush(3), load_average()
    ));
    println!("{head}");
    for ((load, rows), notes) in options.loads.iter().zip(&tables).zip(&notes) {
        println!("{}", report::table(load, rows, notes));
    }
    Ok(())
}

fn measure_flushes(bench: &Bench, into: &mut [Vec<f64>; 4]) -> Res<()> {
    let [paced, sequence, allocated, memory] = into;
    paced.push(loads::flush_us(&bench.dir, true, true)?);
    sequence.push(loads::flush_us(&bench.dir, false, true)?);
    allocated.push(loads::flush_us(&bench.dir, true, false)?);
    if let Some(directory) = &bench.memory {
        memory.push(loads::flush_us(directory, true, true)?);
    }
    Ok(())
}

/// As near to "first instruction" as this machine's compiler gets; the words say how near.
fn build_handler(dir: &Path) -> Res<(PathBuf, &'static str)> {
    let source = dir.join("handler.c");
    fs::write(&source, include_str!("handler.c"))?;
    let handler = dir.join("handler");
    let bare = [
        "-static",
        "-nostdlib",
        "-fno-stack-protector",
        "-fno-builtin",
        "-fno-pie",
        "-no-pie",
    ];
    let ways: [(&[&str], &str); 3] = [
        (&bare, "static, without libc"),
        (&["-DHOSTED", "-D_GNU_SOURCE", "-static"], "static"),
        (
            &["-DHOSTED", "-D_GNU_SOURCE"],
            "dynamic: its start-up is in every latency",
        ),
    ];
    let mut said = String::new();
    for (flags, is) in ways {
        let output = Command::new("cc")
            .arg("-O1")
            .args(flags)
            .arg("-o")
            .arg(&handler)
            .arg(&source)
            .output();
        match output {
            Ok(output) if output.status.success() => return Ok((handler, is)),
            Ok(output) => said = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => said = error.to_string(),
        }
    }
    Err(format!("cc cannot build the handler: {said}").into())
}

fn head(options: &Options, dir: &Path, handler: &str) -> String {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_string()
    };
    let cpu = read("/proc/cpuinfo");
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("")
        .trim_start_matches(['\t', ' ', ':']);
    let mut out = String::from("# Loads\n\n");
    if options.quick {
        out.push_str("**--quick: a tenth of the files; these are not the loads' figures.**\n\n");
    }
    out.push_str(&format!(
        "- Linux {}, {} cores ({cpu}), {} on {}\n",
        read("/proc/sys/kernel/osrelease"),
        std::thread::available_parallelism().map_or(0, usize::from),
        filesystem(dir),
        dir.display(),
    ));
    out.push_str(&format!(
        "- max_queued_events {}\n",
        read("/proc/sys/fs/inotify/max_queued_events")
    ));
    out.push_str(&format!(
        "- {} rounds, peers interleaved; measurements are medians over the rounds, counts (lost, duplicates, ...) the worst \
         round; `x raw`: the median of the rounds' ratios to raw-spawn\n",
        options.rounds
    ));
    out.push_str(&format!(
        "- handler: C, {handler}\n- load average at the start: {}\n",
        load_average()
    ));
    out
}

fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Type of the filesystem that the directory is on: the longest mount point above it, see proc_pid_mountinfo(5).
fn filesystem(dir: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounts = table.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        Some((
            PathBuf::from(before.split(' ').nth(4)?),
            after.split(' ').next()?,
        ))
    });
    let above = mounts.filter(|(point, _)| dir.starts_with(point));
    // Of two mounts on one point the later hides the earlier.
    above
        .max_by_key(|(point, _)| point.as_os_str().len())
        .map_or("?".to_string(), |(_, kind)| kind.to_string())
}
