//! What /proc says of a peer: which processes are its own, what they cost, what they hold. See proc(5).

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Every live descendant of this process. The benchmark is a child subreaper and runs one peer at a time, so these
/// are the peer's processes, its orphans and its running handlers included.
pub(crate) fn descendants() -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in numbers("/proc") {
        if let Some(stat) = stat(&format!("/proc/{pid}/stat"))
            && !stat.zombie
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut left = vec![i32::try_from(std::process::id()).unwrap_or(0)];
    while let Some(pid) = left.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            found.push(child);
            left.push(child);
        }
    }
    found
}

/// [`descendants`] without running handlers: what the peer itself consists of.
pub(crate) fn services(handler: &Path) -> Vec<i32> {
    let mut pids = descendants();
    pids.retain(|pid| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe != handler));
    pids
}

/// Whether the process exists and has not ended.
pub(crate) fn alive(pid: i32) -> bool {
    stat(&format!("/proc/{pid}/stat")).is_some_and(|stat| !stat.zombie)
}

/// Sends the signal to each; one that is gone already is no error.
pub(crate) fn signal(pids: &[i32], signal: Signal) {
    for &pid in pids {
        let _gone_is_fine = kill(Pid::from_raw(pid), signal);
    }
}

/// Collects what has ended.
pub(crate) fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// Kills `which()` until it names nobody. False: somebody is still there after `patience`.
pub(crate) fn kill_all(which: impl Fn() -> Vec<i32>, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let pids = which();
        if pids.is_empty() {
            reap();
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        signal(&pids, Signal::SIGKILL);
        std::thread::sleep(Duration::from_millis(2));
        reap();
    }
}

/// What a set of processes has used and holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// CPU time of all threads, without reaped children.
    pub(crate) cpu_ns: u64,
    /// Voluntary context switches of all threads: how often somebody waited and was woken.
    pub(crate) wakeups: u64,
    /// Sum of the processes' peak resident sizes; shared pages count once for each.
    pub(crate) peak_rss_kib: u64,
    /// Private_Clean + Private_Dirty + Swap.
    pub(crate) private_kib: u64,
    /// Anonymous.
    pub(crate) anonymous_kib: u64,
    /// Proportional: a page shared by n processes counts 1/n for each.
    pub(crate) pss_kib: u64,
    /// How many.
    pub(crate) processes: u64,
}

/// Reads [`Usage`]; a process that ends meanwhile counts as far as it was read.
pub(crate) fn usage(pids: &[i32]) -> Usage {
    let mut all = Usage {
        processes: pids.len() as u64,
        ..Usage::default()
    };
    for pid in pids {
        for tid in numbers(&format!("/proc/{pid}/task")) {
            let thread = format!("/proc/{pid}/task/{tid}");
            all.cpu_ns += cpu_ns(&thread);
            all.wakeups += field(&format!("{thread}/status"), "voluntary_ctxt_switches:");
        }
        all.peak_rss_kib += field(&format!("/proc/{pid}/status"), "VmHWM:");
        let map = format!("/proc/{pid}/smaps_rollup");
        all.private_kib +=
            field(&map, "Private_Clean:") + field(&map, "Private_Dirty:") + field(&map, "Swap:");
        all.anonymous_kib += field(&map, "Anonymous:");
        all.pss_kib += field(&map, "Pss:");
    }
    all
}

/// Nanoseconds where the kernel keeps schedstat, else clock ticks.
fn cpu_ns(thread: &str) -> u64 {
    let exact = fs::read_to_string(format!("{thread}/schedstat")).ok();
    let exact = exact.and_then(|text| text.split_whitespace().next()?.parse().ok());
    exact.unwrap_or_else(|| {
        stat(&format!("{thread}/stat")).map_or(0, |stat| stat.ticks * 10_000_000)
    })
}

struct Stat {
    zombie: bool,
    parent: i32,
    /// USER_HZ is 100 on every Linux that Rust runs on.
    ticks: u64,
}

fn stat(path: &str) -> Option<Stat> {
    let text = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&text);
    // The name may hold spaces and parentheses: the fields start after the last one.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    Some(Stat {
        zombie: matches!(fields.first(), Some(&"Z" | &"X")),
        parent: fields.get(1)?.parse().ok()?,
        ticks: ticks(11)? + ticks(12)?,
    })
}

/// The number after `key` at a line's start; 0 where there is none.
fn field(path: &str, key: &str) -> u64 {
    let Ok(text) = fs::read_to_string(path) else {
        return 0;
    };
    let value = text.lines().find_map(|line| line.strip_prefix(key));
    value
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

fn numbers(directory: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
