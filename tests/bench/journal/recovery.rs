//! The start with a long journal: ten records for each live file, read back by the journal alone and by the journal and
//! the core, against reading the same bytes. Each in a process of its own, so that its memory can be told.

use crate::{Asked, Res, load, median};
use settled::core::Core;
use settled::core::ask::Version;
use settled::core::ids::{DirId, JobId, WatchId};
use settled::core::record::{AttemptEnd, Disposal, Outcome, Record, Summary};
use settled::core::time::{Mono, Now, Wall};
use settled::journal::segment::DiskJournal;
use settled::journal::{Options, history};
use settled::plan::{DaemonPlan, Level, LogTo, Plan, WatchPlan};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FILES_A_DIR: u64 = 1000;
/// Times that each file settled and was run for: three records each.
const RUNS: u64 = 3;
/// Time from one to the next: more than is remembered of what is no more.
const APART: Duration = Duration::from_secs(40 * 86400);
/// Bytes that a file has more in its next version; more than there are files.
const RUN_BYTES: u64 = 1 << 40;
/// When all this is over.
const NOW_NS: i64 = 1_700_000_000_000_000_000;

fn plan(state: &Path) -> Plan {
    Plan {
        daemon: DaemonPlan {
            state: state.to_owned(),
            socket: state.join("control.sock"),
            socket_group: None,
            state_force: true,
            on_damage: settled::plan::OnDamage::Stop,
            log: LogTo::Stderr,
            log_level: Level::Error,
            concurrency: 1,
            remember: Duration::from_secs(30 * 86400),
            drain: Duration::from_secs(1),
            mount_silent: Duration::from_secs(1),
            metrics_textfile: None,
            metrics_every: Duration::from_secs(15),
        },
        watches: vec![WatchPlan::placeholder("w")],
        alert: None,
    }
}

/// Writes the journal: a thousand directories first, a baseline of every file, then its runs.
fn build(state: &Path, files: u64) -> Res<u64> {
    let opened = DiskJournal::open(state, &Options::default(), true)?;
    let (mut journal, _) = opened.replay(|_, _| ())?;
    let mut records = 0u64;
    let mut at = Wall(NOW_NS);
    let mut append = |record: Record| {
        records += 1;
        if let Record::Settled { version, .. } = &record {
            let ago = RUNS - version.size / RUN_BYTES;
            at = Wall(NOW_NS).before(APART * u32::try_from(ago)?);
        }
        journal.append(at, &record)?;
        if records.is_multiple_of(4096) {
            journal.flush()?;
        }
        Res::Ok(())
    };
    append(Record::Watch {
        watch: WatchId(1),
        name: "w".into(),
    })?;
    let root = Record::Dir {
        dir: DirId(1),
        watch: WatchId(1),
        parent: DirId(0),
        name: Vec::new(),
        ino: 2,
        btime_ns: 1,
    };
    append(root)?;
    let dirs = u32::try_from(files.div_ceil(FILES_A_DIR))?;
    for dir in 0..dirs {
        append(Record::Dir {
            dir: DirId(dir + 2),
            watch: WatchId(1),
            parent: DirId(1),
            name: format!("customer-{dir:04}").into_bytes(),
            ino: 100 + u64::from(dir),
            btime_ns: 1,
        })?;
    }
    let place = |n: u64| DirId((n % u64::from(dirs)) as u32 + 2);
    let name = |n: u64| format!("delivery-{n:08}.csv.gz").into_bytes();
    let version = |n: u64, run: u64| Version {
        ino: n + 10_000,
        btime_ns: 1_700_000_000_000_000_000,
        generation: 1,
        size: run * RUN_BYTES + n,
        mtime_ns: NOW_NS + n as i64,
    };
    for n in 0..files {
        append(Record::Baseline {
            dir: place(n),
            name: name(n),
            version: version(n, 0),
            ctime_ns: 1,
        })?;
    }
    for run in 1..=RUNS {
        for n in 0..files {
            let job = JobId((run - 1) * files + n + 1);
            append(Record::Settled {
                job,
                dir: place(n),
                name: name(n),
                version: version(n, run),
                ctime_ns: run as i64,
                reruns: 0,
            })?;
            append(Record::Started {
                job,
                attempt: 1,
                slot: 0,
            })?;
            append(Record::Concluded {
                job,
                outcome: Outcome::Done,
                end: Some(AttemptEnd::Exit(0)),
                disposal: Disposal::Keep,
                version: version(n, run),
                ctime_ns: run as i64,
                output: Vec::new(),
            })?;
        }
    }
    journal.flush()?;
    Ok(records)
}

/// What one process found out: seconds, and memory in bytes before and after, and at most.
struct Found {
    seconds: f64,
    bytes: u64,
    records: u64,
    before: u64,
    after: u64,
    peak: u64,
}

/// The part of a process of its own. `how`: read, journal, core.
pub(crate) fn start(how: &str, state: &Path) -> Res<()> {
    let before = memory("/proc/self/smaps_rollup", &["Private_Dirty:"])?;
    let begun = Instant::now();
    let (mut bytes, mut records) = (0, 0u64);
    let mut kept = None;
    match how {
        "read" => {
            let mut buffer = vec![0; 1 << 20];
            for entry in fs::read_dir(state)? {
                let mut file = fs::File::open(entry?.path())?;
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        got => bytes += got as u64,
                    }
                }
            }
        }
        "journal" | "core" => {
            let opened = DiskJournal::open(state, &Options::default(), true)?;
            let mut core = Core::new(plan(state), opened.id());
            let with_core = how == "core";
            let (journal, report) = opened.replay(|at, record| {
                records += 1;
                if with_core {
                    core.replay(at, record);
                }
            })?;
            let now = Now {
                mono: Mono(1),
                wall: Wall(NOW_NS),
                utc_offset_s: 0,
            };
            if with_core {
                core.start(now, Vec::new());
            }
            bytes = report.bytes;
            kept = Some((core, journal));
        }
        "explain" => {
            let rel = b"customer-0001/delivery-00000001.csv.gz";
            let is = |_: &str, found: &[u8]| found == rel;
            let found = history::of_path(state, rel, &is)?;
            records = found.jobs.len() as u64;
        }
        _ => return Err("no such start".into()),
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = memory("/proc/self/smaps_rollup", &["Private_Dirty:"])?;
    let peak = memory("/proc/self/status", &["VmHWM:"])?;
    println!("{seconds} {bytes} {records} {before} {after} {peak}");
    drop(kept);
    Ok(())
}

/// The sum of such lines of a file of proc(5), in bytes.
fn memory(path: &str, names: &[&str]) -> Res<u64> {
    let mut sum = 0;
    for line in fs::read_to_string(path)?.lines() {
        let mut words = line.split_whitespace();
        if words.next().is_some_and(|name| names.contains(&name)) {
            sum += words.next().unwrap_or("0").parse::<u64>()? * 1024;
        }
    }
    Ok(sum)
}

fn started(how: &str, state: &Path) -> Res<Found> {
    let output = Command::new(std::env::current_exe()?)
        .args(["__start", how])
        .arg(state)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut words = text.split_whitespace();
    let mut next = || {
        words.next().ok_or_else(|| {
            let error = String::from_utf8_lossy(&output.stderr);
            format!("{how}: {error}")
        })
    };
    Ok(Found {
        seconds: next()?.parse()?,
        bytes: next()?.parse()?,
        records: next()?.parse()?,
        before: next()?.parse()?,
        after: next()?.parse()?,
        peak: next()?.parse()?,
    })
}

const HOWS: [(&str, &str); 4] = [
    ("read", "reading the same bytes"),
    ("journal", "the journal alone"),
    ("core", "the journal and the core"),
    ("explain", "what is told of one path"),
];

fn table(state: &Path, rounds: usize, files: u64) -> Res<()> {
    let mut all: Vec<Vec<Found>> = HOWS.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for turn in 0..HOWS.len() {
            let at = (turn + round) % HOWS.len();
            let found = started(HOWS[at].0, state)?;
            // The first round brings everything into the page cache.
            if round > 0 {
                all[at].push(found);
            }
        }
    }
    let reading: Vec<f64> = all[0].iter().map(|found| found.seconds).collect();
    for ((_, name), found) in HOWS.iter().zip(&all) {
        let mut seconds: Vec<f64> = found.iter().map(|found| found.seconds).collect();
        let ratios = seconds.iter().zip(&reading).map(|(a, b)| a / b);
        let mut ratios: Vec<f64> = ratios.collect();
        let Some(last) = found.last() else { continue };
        println!(
            "  {name:25} {:6.2} s, {:5.2} times ({:.2}-{:.2} s); {} records, {} MB read; memory at most {} MB",
            median(&mut seconds),
            median(&mut ratios),
            seconds.first().unwrap_or(&0.0),
            seconds.last().unwrap_or(&0.0),
            last.records,
            last.bytes / 1_000_000,
            last.peak / 1_000_000,
        );
    }
    if let Some(core) = all[2].last() {
        let bytes = core.after.saturating_sub(core.before);
        println!(
            "  private memory after it: {bytes} bytes more, {:.1} a file",
            bytes as f64 / files as f64
        );
    }
    Ok(())
}

/// The figures, first with every record there, then after a compaction.
pub(crate) fn run(asked: &Asked) -> Res<()> {
    let rounds = asked.rounds.unwrap_or(5);
    let dir = tempfile::tempdir_in(&asked.dir)?;
    let state = dir.path().join("state");
    let records = build(&state, asked.files)?;
    println!(
        "recovery: {} live files, {records} records; medians of {rounds} rounds, warm page cache; {}",
        asked.files,
        load()?
    );
    table(&state, rounds, asked.files)?;
    let opened = DiskJournal::open(&state, &Options::default(), true)?;
    let mut core = Core::new(plan(&state), opened.id());
    let (mut journal, _) = opened.replay(|at, record| core.replay(at, record))?;
    let now = Now {
        mono: Mono(1),
        wall: Wall(NOW_NS),
        utc_offset_s: 0,
    };
    core.start(now, Vec::new());
    for (which, carried) in [
        ("a compaction", true),
        ("a second one", true),
        ("one of the state alone", false),
    ] {
        let begun = Instant::now();
        let mut summaries = 0u64;
        let mut keep = |_, summary: &mut Summary| {
            let kept = carried && core.carries(summary);
            summaries += u64::from(kept);
            kept
        };
        let mut old = journal.reader()?;
        journal.compact_begin(now.wall)?;
        match carried {
            true => {
                journal.compact_copy_at(core.snapshot_with_times(), &mut old, &mut keep)?;
            }
            false => journal.compact_copy(core.snapshot())?,
        }
        journal.compact_switch()?;
        println!(
            "after {which}, which took {:.2?}: {summaries} summaries, {} MB; memory at most {} MB",
            begun.elapsed(),
            journal.live_bytes() / 1_000_000,
            memory("/proc/self/status", &["VmHWM:"])? / 1_000_000
        );
        // The start takes the directory over.
        drop(journal);
        table(&state, rounds, asked.files)?;
        let opened = DiskJournal::open(&state, &Options::default(), true)?;
        (journal, _) = opened.replay(|_, _| ())?;
    }
    drop((journal, core));
    println!("{}", load()?);
    Ok(())
}
