//! The loads W1 to W7. Each takes a fresh peer through one run and returns one number for each of its columns.

use crate::Res;
use crate::peers::{Family, Peer};
use crate::procfs;
use crate::report::{Column, Fold, Ratio, median, percentile};
use crate::run::{Run, Shape, now_ns, put};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;
use nix::sys::time::TimeValLike;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// One load.
pub(crate) struct Load {
    /// As on the command line.
    pub(crate) id: &'static str,
    /// The table's heading.
    pub(crate) title: &'static str,
    /// What is said below the table.
    pub(crate) remark: &'static str,
    /// What [`Load::run`] returns, in order.
    pub(crate) columns: &'static [Column],
    /// How the tree is watched.
    pub(crate) shape: Shape,
    /// The rows that a family has.
    pub(crate) rows: fn(Family) -> Vec<Peer>,
    /// Runs it.
    pub(crate) run: fn(&mut Run<'_>) -> Res<Sample>,
}

/// One run's numbers; `None` where there is nothing to say.
pub(crate) type Sample = Vec<Option<f64>>;

const FLAT: Shape = Shape {
    recursive: false,
    follow: false,
};
const TREE: Shape = Shape {
    recursive: true,
    follow: false,
};
const GROWING: Shape = Shape {
    recursive: true,
    follow: true,
};

const fn middle(name: &'static str, decimals: usize, ratio: Ratio) -> Column {
    Column {
        name,
        decimals,
        fold: Fold::Median,
        ratio,
    }
}

const fn count(name: &'static str) -> Column {
    Column {
        name,
        decimals: 0,
        fold: Fold::Worst,
        ratio: Ratio::No,
    }
}

/// All of them.
pub(crate) const LOADS: [Load; 7] = [
    Load {
        id: "W1",
        title: "latency: 300 files of 4 KiB, one every 20 ms",
        remark: "From the writer's close to the handler's first instruction. `settled-shm` keeps its state on /dev/shm. \
            `flush_ms`: 512 B + fdatasync where the peer's state is (or would be), one every 20 ms, just after its run.",
        columns: &[
            middle("p50_ms", 3, Ratio::Always),
            middle("p99_ms", 3, Ratio::Always),
            middle("max_ms", 3, Ratio::No),
            count("lost"),
            count("duplicates"),
            count("partial"),
            middle("peer_cpu_s", 3, Ratio::No),
            middle("flush_ms", 3, Ratio::No),
        ],
        shape: FLAT,
        rows: |family| match family {
            Family::Settled => {
                vec![
                    Peer::plain(family),
                    Peer {
                        name: "settled-shm",
                        state_in_memory: true,
                        ..Peer::plain(family)
                    },
                ]
            }
            _ => vec![Peer::plain(family)],
        },
        run: latency,
    },
    Load {
        id: "W2",
        title: "burst: 20,000 files of 1 KiB, two writers, 16 directories, half by close, half by rename",
        remark: "From the first write to the last handler's first instruction; a ratio only where nothing was lost. \
            `peer_cpu_s` is the peer's own processes, `child_cpu_s` all they started. `peak_rss_kib` sums the peaks of \
            its processes, shared pages counted for each. `stray`: handlers run for names used while writing.",
        columns: &[
            middle("total_s", 2, Ratio::IfNothingLost),
            middle("files_per_s", 0, Ratio::No),
            count("lost"),
            count("duplicates"),
            count("partial"),
            count("stray"),
            middle("peer_cpu_s", 2, Ratio::Always),
            middle("child_cpu_s", 2, Ratio::Always),
            middle("peak_rss_kib", 0, Ratio::No),
        ],
        shape: TREE,
        rows: |family| vec![Peer::plain(family)],
        run: burst,
    },
    Load {
        id: "W3",
        title: "overflow: W2 with the peer stopped while the kernel's queue overflows",
        remark: "`fs.inotify.max_queued_events` holds for the whole machine and is left alone: every process of the peer \
            gets SIGSTOP after 2,000 files and SIGCONT when more than that many events have happened; 1,000 files \
            follow. `recovery_s`: from SIGCONT to the last handler.",
        columns: &[
            count("lost"),
            count("duplicates"),
            count("partial"),
            count("stray"),
            middle("handled", 0, Ratio::No),
            middle("recovery_s", 2, Ratio::IfNothingLost),
            middle("peer_cpu_s", 2, Ratio::No),
        ],
        shape: TREE,
        rows: |family| vec![Peer::plain(family)],
        run: overflow,
    },
    Load {
        id: "W4",
        title: "slow writer: 20 files in ten chunks 100 ms apart, closed and reopened between",
        remark: "`early`: files whose first handler saw less than the whole; `complete`: files whose last handler saw the \
            whole. `settled-default` has its default settle, `settled-2s` settle = 2s.",
        columns: &[
            middle("dispatches_per_file", 1, Ratio::No),
            count("early"),
            Column {
                name: "complete",
                decimals: 0,
                fold: Fold::Least,
                ratio: Ratio::No,
            },
            count("lost"),
        ],
        shape: FLAT,
        rows: |family| match family {
            Family::Settled => vec![
                Peer {
                    name: "settled-default",
                    settle: None,
                    ..Peer::plain(family)
                },
                Peer {
                    name: "settled-2s",
                    settle: Some("2s"),
                    ..Peer::plain(family)
                },
            ],
            _ => vec![Peer::plain(family)],
        },
        run: chunks,
    },
    Load {
        id: "W5",
        title: "new directories: mkdir -p a/b/c and a file in it at once, 500 times, 10 ms apart",
        remark: "raw-spawn watches what is there at start, so it has no row. incron needs IN_CREATE in its mask to follow, \
            and then handles directories as well (`stray`).",
        columns: &[
            count("lost"),
            count("duplicates"),
            count("partial"),
            count("stray"),
            middle("p50_ms", 3, Ratio::No),
            middle("max_ms", 3, Ratio::No),
        ],
        shape: GROWING,
        rows: |family| match family {
            Family::RawSpawn => vec![],
            Family::Incron => vec![Peer {
                name: "incron-create",
                ..Peer::plain(family)
            }],
            _ => vec![Peer::plain(family)],
        },
        run: new_directories,
    },
    Load {
        id: "W6",
        title: "crash: 2,000 files at 250/s, SIGKILL half-way, restart after 2 s",
        remark: "Every process of the peer is killed but running handlers, which end by themselves. `recovered`: those of \
            the duplicates that were told they repeat an attempt cut short.",
        columns: &[
            count("lost"),
            count("lost_before_kill"),
            count("lost_while_down"),
            count("lost_after_restart"),
            count("duplicates"),
            count("recovered"),
            count("partial"),
        ],
        shape: FLAT,
        rows: |family| vec![Peer::plain(family)],
        run: crash,
    },
    Load {
        id: "W7",
        title: "idle: 10,000 directories, 20 s",
        remark: "Ready: a file put into each of eleven directories over the tree was handled. Memory at the end, over all \
            processes of the peer: private is Private_Clean + Private_Dirty + Swap; pss adds each shared page's share. \
            `wakeups`: voluntary context switches of every thread in the idle time.",
        columns: &[
            middle("ready_s", 3, Ratio::Always),
            middle("private_kib", 0, Ratio::Always),
            middle("anon_kib", 0, Ratio::No),
            middle("pss_kib", 0, Ratio::No),
            middle("processes", 0, Ratio::No),
            middle("cpu_ms", 3, Ratio::No),
            count("wakeups"),
        ],
        shape: TREE,
        rows: |family| vec![Peer::plain(family)],
        run: idle,
    },
];

fn name(number: usize) -> String {
    format!("f{number:06}")
}

fn whole(number: u64) -> Option<f64> {
    Some(number as f64)
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

fn sleep_until(when: Instant) {
    std::thread::sleep(when.saturating_duration_since(Instant::now()));
}

/// First runs against the times at which the files were complete, in ms, sorted.
fn latencies(run: &Run<'_>, complete_ns: &[u64]) -> Vec<f64> {
    let first = |number: usize| run.results.files.get(&name(number))?.first().copied();
    let mut all: Vec<f64> = complete_ns
        .iter()
        .enumerate()
        .filter_map(|(number, at)| Some((first(number)?.at_ns as f64 - *at as f64) / 1e6))
        .collect();
    all.sort_by(f64::total_cmp);
    all
}

fn lost(run: &Run<'_>, files: usize) -> u64 {
    (files as u64).saturating_sub(run.results.files.len() as u64)
}

fn latency(run: &mut Run<'_>) -> Res<Sample> {
    let files = run.bench.scaled(300);
    let body = vec![b'x'; 4096];
    run.start()?;
    run.ready_root()?;
    let before = run.usage();
    let mut complete = Vec::new();
    let from = Instant::now();
    for number in 0..files {
        sleep_until(from + Duration::from_millis(20) * u32::try_from(number)?);
        complete.push(put(&run.root, &name(number), &body, false)?);
        run.bench.pause(Duration::ZERO)?;
    }
    run.finish(files as u64, Duration::from_secs(1))?;
    let after = run.usage();
    let all = latencies(run, &complete);
    Ok(vec![
        percentile(&all, 0.5),
        percentile(&all, 0.99),
        all.last().copied(),
        whole(lost(run, files)),
        whole(run.results.duplicates().0),
        whole(run.results.partial(4096)),
        Some(after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9),
        Some(flush_us(run.flush_place(), true, true)? / 1e3),
    ])
}

const SMALL: usize = 1024;

/// Sixteen directories, each of them seen to work.
fn sixteen(run: &mut Run<'_>) -> Res<Vec<PathBuf>> {
    let directories: Vec<PathBuf> = (0..16)
        .map(|number| run.root.join(format!("d{number:02}")))
        .collect();
    for directory in &directories {
        fs::create_dir(directory)?;
    }
    run.start()?;
    run.ready(&directories)?;
    Ok(directories)
}

/// Two writers, odd and even numbers; every second file of each by rename.
fn write_all(directories: &[PathBuf], numbers: Range<usize>) -> Res<()> {
    let body = vec![b'x'; SMALL];
    let writer = |parity: usize| -> Res<()> {
        for number in numbers.clone().filter(|number| number % 2 == parity) {
            let Some(directory) = directories.get(number / 4 % directories.len()) else {
                continue;
            };
            put(directory, &name(number), &body, number / 2 % 2 == 1)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| writer(1));
        let own = writer(0);
        other.join().map_err(|_| "a writer panicked")?.and(own)
    })
}

fn children_cpu_s() -> Res<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(
        (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64
            / 1e6,
    )
}

fn burst(run: &mut Run<'_>) -> Res<Sample> {
    let files = run.bench.scaled(20_000);
    let children_before = children_cpu_s()?;
    let directories = sixteen(run)?;
    let from = now_ns()?;
    write_all(&directories, 0..files)?;
    run.finish(files as u64, Duration::from_secs(1))?;
    let usage = run.usage();
    // Ended here, so that all it used can be read.
    run.kill()?;
    procfs::kill_all(procfs::descendants, Duration::from_secs(10));
    let own_s = usage.cpu_ns as f64 / 1e9;
    let total_s = seconds(from, run.results.last_ns);
    let handled = run.results.files.len() as f64;
    Ok(vec![
        Some(total_s),
        (total_s > 0.0).then_some(handled / total_s),
        whole(lost(run, files)),
        whole(run.results.duplicates().0),
        whole(run.results.partial(SMALL as i64)),
        whole(run.results.stray),
        Some(own_s),
        Some((children_cpu_s()? - children_before - own_s).max(0.0)),
        whole(usage.peak_rss_kib),
    ])
}

fn overflow(run: &mut Run<'_>) -> Res<Sample> {
    let queue: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")?
        .trim()
        .parse()?;
    // Each file makes at least one event that every peer asks for, each second one makes two.
    let (before, after) = (2_000, 1_000);
    let stopped = (queue + queue / 32).max(17_000);
    let files = before + stopped + after;
    let directories = sixteen(run)?;
    write_all(&directories, 0..before)?;
    run.signal(Signal::SIGSTOP);
    write_all(&directories, before..before + stopped)?;
    let from = now_ns()?;
    run.signal(Signal::SIGCONT);
    write_all(&directories, before + stopped..files)?;
    run.finish(files as u64, Duration::from_secs(1))?;
    Ok(vec![
        whole(lost(run, files)),
        whole(run.results.duplicates().0),
        whole(run.results.partial(SMALL as i64)),
        whole(run.results.stray),
        whole(run.results.files.len() as u64),
        Some(seconds(from, run.results.last_ns)),
        Some(run.usage().cpu_ns as f64 / 1e9),
    ])
}

fn chunks(run: &mut Run<'_>) -> Res<Sample> {
    const FILES: usize = 20;
    const CHUNKS: u32 = 10;
    let whole_size = i64::from(CHUNKS) * 1024;
    run.start()?;
    run.ready_root()?;
    let from = Instant::now();
    for chunk in 0..CHUNKS {
        sleep_until(from + Duration::from_millis(100) * chunk);
        for number in 0..FILES {
            let path = run.root.join(name(number));
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)?
                .write_all(&[b'x'; 1024])?;
        }
        run.bench.pause(Duration::ZERO)?;
    }
    // How often each is handled is the question: wait for silence, however many there are.
    run.finish(u64::MAX, Duration::ZERO)?;
    let runs: u64 = run
        .results
        .files
        .values()
        .map(|runs| runs.len() as u64)
        .sum();
    let size = |seen: Option<&crate::results::Seen>| seen.map_or(0, |seen| seen.size);
    let early = run
        .results
        .files
        .values()
        .filter(|runs| size(runs.first()) < whole_size)
        .count();
    let complete = run
        .results
        .files
        .values()
        .filter(|runs| size(runs.last()) == whole_size)
        .count();
    Ok(vec![
        Some(runs as f64 / FILES as f64),
        whole(early as u64),
        whole(complete as u64),
        whole(lost(run, FILES)),
    ])
}

fn new_directories(run: &mut Run<'_>) -> Res<Sample> {
    let files = run.bench.scaled(500);
    run.start()?;
    run.ready_root()?;
    let stray_before = run.results.stray;
    let mut complete = Vec::new();
    let from = Instant::now();
    for number in 0..files {
        sleep_until(from + Duration::from_millis(10) * u32::try_from(number)?);
        let directory = run.root.join(format!("t{number:04}/a/b/c"));
        fs::create_dir_all(&directory)?;
        complete.push(put(&directory, &name(number), &[b'x'; SMALL], false)?);
        run.bench.pause(Duration::ZERO)?;
    }
    run.finish(files as u64, Duration::from_secs(1))?;
    let all = latencies(run, &complete);
    Ok(vec![
        whole(lost(run, files)),
        whole(run.results.duplicates().0),
        whole(run.results.partial(SMALL as i64)),
        whole(run.results.stray - stray_before),
        percentile(&all, 0.5),
        all.last().copied(),
    ])
}

fn crash(run: &mut Run<'_>) -> Res<Sample> {
    let files = run.bench.scaled(2_000);
    run.start()?;
    run.ready_root()?;
    let written = AtomicUsize::new(0);
    let root = run.root.clone();
    let (complete, killed_ns, restarted_ns) = std::thread::scope(|scope| -> Res<_> {
        let writer = scope.spawn(|| paced_writer(&root, files, &written));
        while written.load(Ordering::Relaxed) < files / 2 && !writer.is_finished() {
            run.bench.pause(Duration::from_millis(1))?;
        }
        let killed_ns = now_ns()?;
        run.kill()?;
        run.bench.pause(Duration::from_secs(2))?;
        let restarted_ns = now_ns()?;
        run.start()?;
        let complete = writer.join().map_err(|_| "the writer panicked")??;
        Ok((complete, killed_ns, restarted_ns))
    })?;
    run.finish(files as u64, Duration::from_secs(2))?;
    let mut lost_in = [0u64; 3];
    for (number, at) in complete.iter().enumerate() {
        if !run.results.files.contains_key(&name(number)) {
            let [before, down, after] = &mut lost_in;
            *(match at {
                at if *at < killed_ns => before,
                at if *at < restarted_ns => down,
                _ => after,
            }) += 1;
        }
    }
    let (duplicates, recovered) = run.results.duplicates();
    let [before, down, after] = lost_in;
    Ok(vec![
        whole(before + down + after),
        whole(before),
        whole(down),
        whole(after),
        whole(duplicates),
        whole(recovered),
        whole(run.results.partial(SMALL as i64)),
    ])
}

/// One file each 4 ms; returns when each was complete.
fn paced_writer(root: &Path, files: usize, written: &AtomicUsize) -> Res<Vec<u64>> {
    let from = Instant::now();
    let mut complete = Vec::new();
    for number in 0..files {
        sleep_until(from + Duration::from_millis(4) * u32::try_from(number)?);
        complete.push(put(root, &name(number), &[b'x'; SMALL], false)?);
        written.store(number + 1, Ordering::Relaxed);
    }
    Ok(complete)
}

fn idle(run: &mut Run<'_>) -> Res<Sample> {
    // A hundred directories with ninety-nine in each.
    let inner = run.bench.scaled(99);
    let mut sample = vec![run.root.clone()];
    for outer in 0..100 {
        let directory = run.root.join(format!("d{outer:02}"));
        fs::create_dir(&directory)?;
        for number in 0..inner {
            fs::create_dir(directory.join(format!("e{number:02}")))?;
        }
        if outer % 10 == 9 {
            sample.push(directory.join(format!("e{:02}", inner - 1)));
        }
    }
    run.start()?;
    let ready_s = run.ready(&sample)?;
    // What the probes left to do may end first.
    run.bench.pause(Duration::from_secs(3))?;
    let before = run.usage();
    run.bench
        .pause(Duration::from_secs(run.bench.scaled(20) as u64))?;
    let after = run.usage();
    Ok(vec![
        Some(ready_s),
        whole(after.private_kib),
        whole(after.anonymous_kib),
        whole(after.pss_kib),
        whole(after.processes),
        Some(after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e6),
        whole(after.wakeups.saturating_sub(before.wakeups)),
    ])
}

/// The time of one journal-sized flush in a directory: 512 bytes written into a file made before, and fdatasync, in
/// microseconds (median). `paced`: one every 20 ms, as W1 asks for it; else one after the other. `zeroed`: the file's
/// blocks were written before, else only allocated, which costs the filesystem its own journal at each first write.
pub(crate) fn flush_us(directory: &Path, paced: bool, zeroed: bool) -> Res<f64> {
    use std::os::unix::fs::FileExt;
    const LENGTH: usize = 4 << 20;
    let path = directory.join("flush");
    let file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .open(&path)?;
    if zeroed {
        file.write_all_at(&vec![0; LENGTH], 0)?;
    } else {
        nix::fcntl::posix_fallocate(&file, 0, LENGTH as i64)?;
    }
    file.sync_all()?;
    let rounds = if paced { 50 } else { 300 };
    let mut took = Vec::new();
    for round in 0..rounds {
        if paced {
            std::thread::sleep(Duration::from_millis(20));
        }
        let from = Instant::now();
        file.write_all_at(&[b'j'; 512], round * 512)?;
        file.sync_data()?;
        took.push(from.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(&path)?;
    median(&took).ok_or_else(|| "no flush".into())
}
