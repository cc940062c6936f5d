//! One peer under one load: started, made ready, watched, ended.

use crate::peers::{self, Peer, Task};
use crate::procfs::{self, Usage};
use crate::results::Results;
use crate::{Bench, Res};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const READY: Duration = Duration::from_secs(60);
/// Longer than any peer needs for any load; a broken one costs this much and no more.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);

/// How the tree is to be watched.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// `-r`.
    pub(crate) recursive: bool,
    /// Directories made later too.
    pub(crate) follow: bool,
}

/// A peer, its directories and its results. Dropping it ends every process of the peer and removes the directories.
pub(crate) struct Run<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) peer: &'a Peer,
    /// The watched tree.
    pub(crate) root: PathBuf,
    pub(crate) results: Results,
    shape: Shape,
    work: PathBuf,
    state: PathBuf,
    main: i32,
    probes: u64,
}

impl<'a> Run<'a> {
    /// Makes the directories; nothing runs yet.
    pub(crate) fn new(bench: &'a Bench, peer: &'a Peer, shape: Shape) -> Res<Run<'a>> {
        let number = bench.next_number();
        let work = bench.dir.join(format!("{number:03}-{}", peer.name));
        let root = work.join("tree");
        fs::create_dir_all(&root)?;
        let state = match (peer.state_in_memory, &bench.memory) {
            (true, Some(memory)) => memory.join(format!("{number:03}-state")),
            (true, None) => return Err("there is no /dev/shm".into()),
            (false, _) => work.join("state"),
        };
        let results = Results::create(&work.join("results"))?;
        // What the last peer left dirty must not be written back on this one's time.
        nix::unistd::syncfs(File::open(&work)?)?;
        Ok(Run {
            bench,
            peer,
            root,
            results,
            shape,
            work,
            state,
            main: 0,
            probes: 0,
        })
    }

    /// Starts the peer; returns at once.
    pub(crate) fn start(&mut self) -> Res<()> {
        let task = Task {
            root: &self.root,
            recursive: self.shape.recursive,
            follow: self.shape.follow,
            work: &self.work,
            state: &self.state,
            handler: &self.bench.handler,
            results: self.results.path(),
            settled: &self.bench.settled,
        };
        let line = peers::command(self.peer, &task)?;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        // Through `__under`, so that the peer dies with the benchmark, however that ends.
        let child = Command::new(std::env::current_exe()?)
            .arg("__under")
            .args(&line)
            .current_dir(&self.work)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.main = i32::try_from(child.id())?;
        Ok(())
    }

    /// Waits until a file put into each of the directories is handled: the seconds from the call to the last.
    /// Files are put again until then, each under a new name.
    pub(crate) fn ready(&mut self, directories: &[PathBuf]) -> Res<f64> {
        let from = Instant::now();
        let mut waiting: Vec<(String, &PathBuf)> = Vec::new();
        for directory in directories {
            self.probes += 1;
            waiting.push((format!("probe-{}-", self.probes), directory));
        }
        let mut pause = Duration::from_millis(20);
        let mut number = 0;
        while !waiting.is_empty() {
            number += 1;
            for (stem, directory) in &waiting {
                fs::write(directory.join(format!("{stem}{number}")), b"probe")?;
            }
            let until = Instant::now() + pause;
            while Instant::now() < until && !waiting.is_empty() {
                self.bench.pause(Duration::from_millis(2))?;
                if self.results.poll()? > 0 {
                    let handled: Vec<&String> = self.results.probes.keys().collect();
                    waiting.retain(|(stem, _)| {
                        !handled.iter().any(|name| name.starts_with(stem.as_str()))
                    });
                }
            }
            if !procfs::alive(self.main) {
                return Err(format!("ended before it was ready; {}", self.log_tail()).into());
            }
            if from.elapsed() > READY {
                return Err(
                    format!("not ready after {} s; {}", READY.as_secs(), self.log_tail()).into(),
                );
            }
            pause = (pause * 2).min(Duration::from_millis(400));
        }
        let took = from.elapsed().as_secs_f64();
        self.until_silent(Duration::from_millis(500))?;
        Ok(took)
    }

    /// [`Run::ready`] for the root alone.
    pub(crate) fn ready_root(&mut self) -> Res<f64> {
        let root = self.root.clone();
        self.ready(std::slice::from_ref(&root))
    }

    /// A directory on the filesystem that the state is on.
    pub(crate) fn flush_place(&self) -> &Path {
        self.state.parent().unwrap_or(&self.work)
    }

    /// Waits until no handler ran for so long.
    fn until_silent(&mut self, silence: Duration) -> Res<()> {
        let (mut last, until) = (Instant::now(), Instant::now() + DEADLINE);
        while last.elapsed() < silence && Instant::now() < until {
            self.bench.pause(Duration::from_millis(10))?;
            if self.results.poll()? > 0 {
                last = Instant::now();
            }
        }
        Ok(())
    }

    /// Waits until `expected` files were handled and nothing came for `linger` after; or nothing came for the
    /// benchmark's quiet time; or the peer is gone; or the deadline.
    pub(crate) fn finish(&mut self, expected: u64, linger: Duration) -> Res<()> {
        let (begin, mut last) = (Instant::now(), Instant::now());
        loop {
            self.bench.pause(Duration::from_millis(50))?;
            if self.results.poll()? > 0 {
                last = Instant::now();
            }
            let complete = self.results.files.len() as u64 >= expected;
            let patience = match (complete, procfs::alive(self.main)) {
                (true, _) => linger,
                (false, true) => self.bench.quiet,
                (false, false) => Duration::from_secs(1),
            };
            if last.elapsed() >= patience {
                break;
            }
            if begin.elapsed() > DEADLINE {
                self.bench.note(format!(
                    "{}: stopped at the deadline of {} s",
                    self.peer.name,
                    DEADLINE.as_secs()
                ));
                break;
            }
        }
        if !procfs::alive(self.main) {
            self.bench.note(format!(
                "{}: ended by itself; {}",
                self.peer.name,
                self.log_tail()
            ));
        }
        Ok(())
    }

    /// What the peer's own processes used so far.
    pub(crate) fn usage(&self) -> Usage {
        procfs::usage(&procfs::services(&self.bench.handler))
    }

    /// Sends a signal to every process of the peer but running handlers. Twice, for what was being forked.
    pub(crate) fn signal(&self, signal: Signal) {
        for _ in 0..2 {
            procfs::signal(&procfs::services(&self.bench.handler), signal);
        }
    }

    /// SIGKILL to every process of the peer; handlers that run may end.
    pub(crate) fn kill(&self) -> Res<()> {
        if !procfs::kill_all(
            || procfs::services(&self.bench.handler),
            Duration::from_secs(10),
        ) {
            return Err("some process of the peer outlives SIGKILL".into());
        }
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.work.join("log")
    }

    fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        match lines.last() {
            Some(last) => format!(
                "its last words: {}",
                last.chars().take(300).collect::<String>()
            ),
            None => "it said nothing".to_string(),
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !procfs::kill_all(procfs::descendants, Duration::from_secs(10)) {
            self.bench
                .note(format!("{}: some process outlives SIGKILL", self.peer.name));
        }
        if self.bench.keep {
            return;
        }
        for place in [&self.work, &self.state] {
            if place.exists() && fs::remove_dir_all(place).is_err() {
                self.bench.note(format!(
                    "{}: could not remove {}",
                    self.peer.name,
                    place.display()
                ));
            }
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds: the clock that the handler reads.
pub(crate) fn now_ns() -> Res<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000_000 + u64::try_from(now.tv_nsec())?)
}

/// Puts a file into the directory in two writes; by rename from a name that starts with a dot, or by close.
/// Returns the time just before the close or the rename.
pub(crate) fn put(directory: &Path, name: &str, body: &[u8], rename: bool) -> Res<u64> {
    let target = directory.join(name);
    let written = if rename {
        directory.join(format!(".{name}.tmp"))
    } else {
        target.clone()
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&written)?;
    let (first, second) = body.split_at(body.len() / 2);
    file.write_all(first)?;
    file.write_all(second)?;
    let mut at = now_ns()?;
    drop(file);
    if rename {
        at = now_ns()?;
        fs::rename(&written, &target)?;
    }
    Ok(at)
}
