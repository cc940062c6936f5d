//! Load `worker`, its peers, and the worker itself.

use crate::peer::{self, Peer};
use crate::{Asked, Res, load_average, median, now_ns, raw_spawn};
use inotify::{EventMask, Inotify};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PEERS: [&str; 4] = ["raw-pipe", "settled", "settled-tmpfs", "inotifywait-xargs"];
/// A name and its newline, as the ledger has them.
const ENTRY: usize = 8;

#[derive(Clone, Debug, Default)]
struct Sample {
    rate: f64,
    waited: f64,
    lost: usize,
    twice: usize,
    /// What the journal says; `None` where there is none.
    concluded: Option<u64>,
    main_us: f64,
    others_us: f64,
    worker_us: f64,
    rss_kib: u64,
}

pub(crate) fn run(asked: &Asked) -> Res<()> {
    let names: Vec<&str> = PEERS.into_iter().filter(|name| asked.wants(name)).collect();
    let mut samples: HashMap<&str, Vec<Sample>> = HashMap::new();
    let mut loads = Vec::new();
    for round in 0..asked.rounds {
        let mut order = names.clone();
        order.rotate_left(round % names.len().max(1));
        for name in order {
            eprintln!("worker: round {} {name}", round + 1);
            loads.push(load_average());
            let sample = one(asked, name).map_err(|error| format!("{name}: {error}"))?;
            samples.entry(name).or_default().push(sample);
        }
    }
    println!(
        "## worker: {} files of 100 bytes, 16 directories, one worker, window {}, at most {} files ahead, log_level {}\n",
        asked.files, asked.window, asked.ahead, asked.log_level
    );
    println!(
        "| peer | files/s | x raw-pipe | writer waited % | lost | handed twice | concluded | main us/file | its others us/file | worker us/file \
         | peak RSS KiB |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    for name in names {
        let own = samples.get(name).map_or(&[][..], Vec::as_slice);
        let raw = samples.get("raw-pipe").map_or(&[][..], Vec::as_slice);
        let ratios: Vec<f64> = own
            .iter()
            .zip(raw)
            .map(|(own, raw)| own.rate / raw.rate)
            .collect();
        let of = |what: fn(&Sample) -> f64| median(&own.iter().map(what).collect::<Vec<_>>());
        let worst = |what: fn(&Sample) -> usize| own.iter().map(what).max().unwrap_or(0);
        let concluded: Vec<String> = own
            .iter()
            .map(|sample| {
                sample
                    .concluded
                    .map_or("-".into(), |count| count.to_string())
            })
            .collect();
        println!(
            "| {name} | {:.0} | {:.2} | {:.0} | {} | {} | {} | {:.1} | {:.1} | {:.1} | {:.0} |",
            of(|sample| sample.rate),
            median(&ratios),
            of(|sample| sample.waited),
            worst(|sample| sample.lost),
            worst(|sample| sample.twice),
            concluded.join(" "),
            of(|sample| sample.main_us),
            of(|sample| sample.others_us),
            of(|sample| sample.worker_us),
            of(|sample| sample.rss_kib as f64),
        );
    }
    println!("\n- load averages before each: {}\n", loads.join("; "));
    Ok(())
}

fn one(asked: &Asked, name: &str) -> Res<Sample> {
    let mut peer = Peer::new(asked, name, name == "settled-tmpfs")?;
    let ledger = peer.work.join("ledger");
    fs::write(&ledger, b"")?;
    let own = std::env::current_exe()?;
    match name {
        "raw-pipe" => peer.start(&[
            own.clone().into(),
            "__raw-pipe".into(),
            peer.root.clone().into(),
            ledger.clone().into(),
        ])?,
        "inotifywait-xargs" => {
            // Names with a newline or a blank would break it; the load has none.
            let line = "inotifywait -m -q -r -e close_write -e moved_to --format '%w%f' \"$1\" | xargs -n 100 \"$2\" \"$3\"";
            peer.start(&[
                "/bin/sh".into(),
                "-c".into(),
                line.into(),
                "sh".into(),
                peer.root.clone().into(),
                asked.consumer.clone().into(),
                ledger.clone().into(),
            ])?;
        }
        _ => {
            let watch = format!(
                "[watch.bench]\npath = \"{}\"\nrecursive = true\nsettle = \"0s\"\nworker = [\"{}\", \"__worker\", \"{}\"]\nwindow = {}\n",
                peer.root.display(),
                own.display(),
                ledger.display(),
                asked.window
            );
            peer.start_settled(asked, 4, &watch)?;
        }
    }
    let handled = || Ok(usize::try_from(fs::metadata(&ledger)?.len())? / ENTRY);
    let probes = ready(&peer, &handled)?;
    let from = now_ns()?;
    let files = asked.files.next_multiple_of(100);
    let waited = peer::produce(&peer, files, asked.ahead, || Ok(handled()? - probes))?;
    let all = peer.until(Duration::from_secs(60), || Ok(handled()? >= files + probes))?;
    let took = (now_ns()? - from) as f64 / 1e9;
    let (main, workers, others) = peer.usage(&own, "__worker");
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for line in fs::read(&ledger)?.split(|byte| *byte == b'\n') {
        if line.first() == Some(&b'f') {
            *counts.entry(line.to_vec()).or_default() += 1;
        }
    }
    let concluded = match name.starts_with("settled") {
        true => {
            peer.stop()?;
            Some(concluded(asked, &peer.state)?.saturating_sub(probes as u64))
        }
        false => None,
    };
    if !all {
        eprintln!("    {} of {files} after a minute", counts.len());
    }
    let per_file = |ns: u64| ns as f64 / 1e3 / files as f64;
    Ok(Sample {
        rate: counts.len() as f64 / took,
        waited: waited / took * 100.0,
        lost: files - counts.len().min(files),
        twice: counts.values().filter(|count| **count > 1).count(),
        concluded,
        main_us: per_file(main.cpu_ns),
        others_us: per_file(others.cpu_ns - main.cpu_ns.min(others.cpu_ns)),
        worker_us: per_file(workers.cpu_ns),
        rss_kib: main.peak_rss_kib,
    })
}

/// Puts files, each under a name of its own, until one of every directory was handled; how many were.
fn ready(peer: &Peer, handled: &dyn Fn() -> Res<usize>) -> Res<usize> {
    let mut put = 0;
    // Whole hundreds, for the sake of `xargs -n 100`.
    loop {
        for _ in 0..100 {
            let directory = format!("d{:02}", put % peer::DIRECTORIES);
            fs::write(
                peer.root.join(directory).join(format!("p{put:06}")),
                b"probe",
            )?;
            put += 1;
        }
        if peer.until(Duration::from_millis(500), || Ok(handled()? >= 100))? {
            break;
        }
        if put > 10_000 {
            return Err("not ready".into());
        }
    }
    // What else was put is handled too, or was before anybody looked.
    let mut before = handled()?;
    loop {
        crate::pause(300);
        let now = handled()?;
        if now == before {
            return Ok(now);
        }
        before = now;
    }
}

/// How many jobs the journal calls concluded, or remembers as such after a compaction.
fn concluded(asked: &Asked, state: &Path) -> Res<u64> {
    let said = Command::new(&asked.settled)
        .args(["journal", "stat", "--state"])
        .arg(state)
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let of = |kind: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(kind)?
                    .strip_prefix(": ")?
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .unwrap_or(0)
    };
    Ok(of("concluded") + of("remembered"))
}

// ---- the worker ----

/// `LEDGER`: answers each line at once; of what came with one read the names go to the ledger and the answers to
/// standard output in one write each. It looks for what it needs and does not read JSON: what is measured is what feeds it.
pub(crate) fn answer(args: &[OsString]) -> Res<()> {
    let [ledger] = args else {
        return Err("__worker LEDGER".into());
    };
    let mut ledger = OpenOptions::new().append(true).open(ledger)?;
    let (mut stdin, mut stdout) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut buffer = vec![0; 256 * 1024];
    let (mut rest, mut names, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let read = stdin.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        rest.extend_from_slice(buffer.get(..read).unwrap_or_default());
        let mut done = 0;
        while let Some(length) = rest
            .get(done..)
            .and_then(|left| left.iter().position(|byte| *byte == b'\n'))
        {
            let line = rest.get(done..done + length).unwrap_or_default();
            let job = member(line, b"\"job\":\"").ok_or("a line without job")?;
            let name = member(line, b",\"name\":\"").ok_or("a line without name")?;
            names.extend_from_slice(name);
            names.push(b'\n');
            answers.extend_from_slice(b"{\"job\":\"");
            answers.extend_from_slice(job);
            answers.extend_from_slice(b"\",\"result\":\"done\"}\n");
            done += length + 1;
        }
        rest.drain(..done);
        ledger.write_all(&names)?;
        stdout.write_all(&answers)?;
        stdout.flush()?;
        names.clear();
        answers.clear();
    }
}

fn member<'a>(line: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let at = line.windows(key.len()).position(|window| window == key)? + key.len();
    line.get(at..)?.split(|byte| *byte == b'"').next()
}

// ---- the bare loop ----

/// `ROOT LEDGER`: what the work costs when nothing is remembered, checked or recovered: reads inotify, writes a line for
/// each file into the pipe of one worker, waits where the pipe is full, and never hears an answer.
pub(crate) fn raw_pipe(args: &[OsString]) -> Res<()> {
    let [root, ledger] = args else {
        return Err("__raw-pipe ROOT LEDGER".into());
    };
    let mut worker = Command::new(std::env::current_exe()?)
        .arg("__worker")
        .arg(ledger)
        .stdin(Stdio::piped())
        .stdout(File::options().write(true).open("/dev/null")?)
        .spawn()?;
    let mut pipe = worker.stdin.take().ok_or("no pipe")?;
    let mut inotify = Inotify::init()?;
    let mut directories = HashMap::new();
    raw_spawn::add_tree(&inotify, PathBuf::from(root), &mut directories)?;
    let (mut buffer, mut lines, mut job) = (vec![0u8; 64 * 1024], Vec::new(), 0u64);
    loop {
        let mut ready = [nix::poll::PollFd::new(
            inotify.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        nix::poll::poll(&mut ready, nix::poll::PollTimeout::NONE)?;
        loop {
            match inotify.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        let (Some(name), Some(directory)) =
                            (event.name, directories.get(&event.wd))
                        else {
                            continue;
                        };
                        if event.mask.contains(EventMask::ISDIR) {
                            continue;
                        }
                        job += 1;
                        write!(lines, "{{\"job\":\"00000000-{job}\",\"path\":\"")?;
                        lines.extend_from_slice(directory.as_os_str().as_bytes());
                        lines.push(b'/');
                        lines.extend_from_slice(name.as_bytes());
                        lines.extend_from_slice(b"\",\"name\":\"");
                        lines.extend_from_slice(name.as_bytes());
                        lines.extend_from_slice(b"\"}\n");
                    }
                    pipe.write_all(&lines)?;
                    lines.clear();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
