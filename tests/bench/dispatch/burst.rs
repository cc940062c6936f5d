//! Load `burst`: many files in one watch, and a file every 100 ms in another.

use crate::peer::{self, Peer};
use crate::results::Results;
use crate::{Asked, Res, load_average, median, now_ns, procfs};
use nix::sys::signal::Signal;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub(crate) fn run(asked: &Asked) -> Res<()> {
    let mut peer = Peer::new(asked, "burst", false)?;
    // On the same mount: what is asked of it waits in the same scout's line.
    let other = peer.root.with_file_name("other");
    fs::create_dir(&other)?;
    let mut results = Results::create(&peer.work.join("results"))?;
    let ledger = peer.work.join("ledger");
    fs::write(&ledger, b"")?;
    let big_results = Results::create(&peer.work.join("big-results"))?;
    let action = if asked.by_worker {
        format!(
            "worker = [\"{}\", \"__worker\", \"{}\"]\nwindow = {}",
            std::env::current_exe()?.display(),
            ledger.display(),
            asked.window
        )
    } else {
        format!(
            "run = [\"{}\", \"{}\", \"{{path}}\"]\nconcurrency = 4",
            asked.handler.display(),
            big_results.path().display()
        )
    };
    let watches = format!(
        "[watch.big]\npath = \"{}\"\nrecursive = true\nsettle = \"0s\"\n{action}\n\n\
         [watch.other]\npath = \"{}\"\nsettle = \"0s\"\nrun = [\"{}\", \"{}\", \"{{path}}\"]\n",
        peer.root.display(),
        other.display(),
        asked.handler.display(),
        results.path().display(),
    );
    let before = load_average();
    peer.start_settled(asked, 8, &watches)?;
    let mut probe = 0;
    while results.probes.is_empty() {
        probe += 1;
        fs::write(other.join(format!("probe-{probe}")), b"probe")?;
        peer.until(Duration::from_millis(200), || Ok(results.poll()? > 0))?;
        if probe > 100 {
            return Err("not ready".into());
        }
    }
    crate::pause(500);
    let idle = sizes(&peer);
    let (over, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    let root = peer.root.clone();
    let from = Instant::now();
    let mut wrote_s = 0.0;
    let (mut peak, mut put, mut told) = (Sizes::default(), Vec::new(), 0);
    std::thread::scope(|scope| -> Res<()> {
        let writer = scope.spawn(|| -> Res<()> {
            let done = (0..asked.burst).try_for_each(|number| {
                written.store(number + 1, Ordering::Relaxed);
                fs::write(peer::place(&root, number), [b'x'; 100])
            });
            over.store(true, Ordering::Relaxed);
            Ok(done?)
        });
        let mut end = None;
        let mut next = Instant::now();
        while end.is_none_or(|end| Instant::now() < end) {
            if over.load(Ordering::Relaxed) && end.is_none() {
                wrote_s = from.elapsed().as_secs_f64();
                end = Some(Instant::now() + Duration::from_secs(asked.seconds));
            }
            fs::write(other.join(format!("f{:06}", put.len())), b"x")?;
            put.push(now_ns()?);
            if put.len() % 5 == 0 {
                peak.grow(&sizes(&peer));
            }
            if put.len() % 50 == 25 && told < 4 {
                // Asked for the state: what does the daemon say itself?
                procfs::signal(&[peer.main], Signal::SIGUSR1);
                told += 1;
            }
            next += Duration::from_millis(100);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            if !procfs::alive(peer.main) {
                return Err(format!(
                    "it ended: {}",
                    peer.log_text().lines().last().unwrap_or_default()
                )
                .into());
            }
        }
        writer.join().map_err(|_| "the writer panicked")?
    })?;
    // The last of them may be on their way.
    let _late_is_seen_below = peer.until(Duration::from_secs(20), || {
        results.poll()?;
        Ok(results.files.len() >= put.len())
    })?;
    let mut waits = Vec::new();
    let mut missing = 0;
    for (number, at) in put.iter().enumerate() {
        match results
            .files
            .get(&format!("f{number:06}"))
            .and_then(|runs| runs.first())
        {
            Some(run) => waits.push(run.at_ns.saturating_sub(*at) as f64 / 1e6),
            None => missing += 1,
        }
    }
    waits.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let index = (part * waits.len() as f64).ceil() as usize;
        waits
            .get(index.saturating_sub(1))
            .copied()
            .unwrap_or(f64::NAN)
    };
    let handled = if asked.by_worker {
        fs::metadata(&ledger)?.len() / 8
    } else {
        fs::metadata(big_results.path())?.len() / 128
    };
    println!(
        "## burst: {} files in one watch (by {}), written in {wrote_s:.1} s; a file every 100 ms in another, until {} s after\n",
        asked.burst,
        if asked.by_worker {
            "a worker"
        } else {
            "children, 4 at once"
        },
        asked.seconds
    );
    println!(
        "- files of the other watch: {}, not started: {missing}; from close to the child's first instruction, ms: median {:.1}, \
         p99 {:.1}, most {:.1}\n- of the burst handled by then: {handled}",
        put.len(),
        median(&waits),
        at(0.99),
        at(1.0)
    );
    let show = |what: &str, sizes: &Sizes| {
        println!(
            "- {what}, KiB: daemon private {}, peak RSS {}; scouts and spawner ({}) private {}, peak RSS {}",
            sizes.private, sizes.rss, sizes.processes, sizes.others_private, sizes.others_rss
        );
    };
    show("idle before", &idle);
    show("most", &peak);
    for line in peer
        .log_text()
        .lines()
        .filter(|line| line.contains("state: ") && !line.contains("waits"))
    {
        println!("- says: {line}");
    }
    for line in peer
        .log_text()
        .lines()
        .filter(|line| line.contains("overflow"))
        .take(3)
    {
        println!("- says: {line}");
    }
    println!("- load average before: {before}\n");
    Ok(())
}

#[derive(Debug, Default)]
struct Sizes {
    private: u64,
    rss: u64,
    processes: u64,
    others_private: u64,
    others_rss: u64,
}

impl Sizes {
    fn grow(&mut self, other: &Sizes) {
        self.private = self.private.max(other.private);
        self.rss = self.rss.max(other.rss);
        self.processes = self.processes.max(other.processes);
        self.others_private = self.others_private.max(other.others_private);
        self.others_rss = self.others_rss.max(other.others_rss);
    }
}

/// Of the daemon, and of those of its processes that run the same program.
fn sizes(peer: &Peer) -> Sizes {
    let program = fs::read_link(format!("/proc/{}/exe", peer.main)).unwrap_or_default();
    let mut others = procfs::descendants();
    others.retain(|pid| {
        *pid != peer.main
            && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program)
    });
    let (main, others) = (procfs::usage(&[peer.main]), procfs::usage(&others));
    Sizes {
        private: main.private_kib,
        rss: main.peak_rss_kib,
        processes: others.processes,
        others_private: others.private_kib,
        others_rss: others.peak_rss_kib,
    }
}
