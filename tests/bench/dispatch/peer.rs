//! One peer that runs: started, watched, ended with everything that it made.

use crate::procfs::{self, Usage};
use crate::{Asked, Res, pause};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Directories that the files are spread over.
pub(crate) const DIRECTORIES: usize = 16;

/// A peer, its directory and its processes; dropping it ends and removes them.
pub(crate) struct Peer {
    pub(crate) work: PathBuf,
    /// The watched tree, with [`DIRECTORIES`] in it.
    pub(crate) root: PathBuf,
    pub(crate) state: PathBuf,
    pub(crate) main: i32,
    keep: bool,
}

impl Peer {
    /// Makes the directories. `memory`: the state is not on the disk.
    pub(crate) fn new(asked: &Asked, name: &str, memory: bool) -> Res<Peer> {
        let work = asked.dir.join(name);
        // The writer's own waits for the disk are not what is measured.
        let root = match &asked.memory {
            Some(memory) => memory.join(format!("{name}-tree")),
            None => work.join("tree"),
        };
        for number in 0..DIRECTORIES {
            fs::create_dir_all(root.join(format!("d{number:02}")))?;
        }
        fs::create_dir_all(&work)?;
        let state = match (&asked.memory, memory) {
            (Some(memory), true) => memory.join(name),
            (None, true) => return Err("there is no /dev/shm".into()),
            (_, false) => work.join("state"),
        };
        // What the last peer left dirty must not be written back on this one's time.
        nix::unistd::syncfs(fs::File::open(&work)?)?;
        Ok(Peer {
            work,
            root,
            state,
            main: 0,
            keep: asked.keep,
        })
    }

    /// Starts it; returns at once.
    pub(crate) fn start(&mut self, line: &[OsString]) -> Res<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())?;
        let child = Command::new(std::env::current_exe()?)
            .arg("__under")
            .args(line)
            .current_dir(&self.work)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.main = i32::try_from(child.id())?;
        Ok(())
    }

    /// Starts the daemon with one or more watches.
    pub(crate) fn start_settled(
        &mut self,
        asked: &Asked,
        concurrency: usize,
        watches: &str,
    ) -> Res<()> {
        let config = self.work.join("settled.toml");
        fs::write(
            &config,
            format!(
                "[daemon]\nstate = \"{}\"\nlog = \"stderr\"\nlog_level = \"{}\"\nconcurrency = {concurrency}\n\n{watches}",
                self.state.display(),
                asked.log_level
            ),
        )?;
        self.start(&[
            asked.settled.clone().into(),
            "run".into(),
            "-c".into(),
            config.into(),
        ])
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.work.join("log")
    }

    pub(crate) fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// Waits until `what`, at most so long.
    pub(crate) fn until(
        &self,
        patience: Duration,
        mut what: impl FnMut() -> Res<bool>,
    ) -> Res<bool> {
        let until = Instant::now() + patience;
        while !what()? {
            if Instant::now() > until {
                return Ok(false);
            }
            if !procfs::alive(self.main) {
                let log = self.log_text();
                let tail: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(format!("the peer ended by itself: {}", tail.join(" | ")).into());
            }
            pause(2);
        }
        Ok(true)
    }

    /// What its processes used: the main one, those that run `program` besides, and all but those.
    pub(crate) fn usage(&self, program: &Path, word: &str) -> (Usage, Usage, Usage) {
        let all = procfs::descendants();
        let is = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            exe == program
                && line
                    .split(|byte| *byte == 0)
                    .any(|part| part == word.as_bytes())
        };
        let (workers, own): (Vec<i32>, Vec<i32>) = all.into_iter().partition(is);
        (
            procfs::usage(&[self.main]),
            procfs::usage(&workers),
            procfs::usage(&own),
        )
    }

    /// Asks the main process to end, and waits.
    pub(crate) fn stop(&self) -> Res<()> {
        procfs::signal(&[self.main], Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(60);
        while procfs::alive(self.main) {
            if Instant::now() > until {
                return Err("it does not stop".into());
            }
            pause(5);
        }
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !procfs::kill_all(procfs::descendants, Duration::from_secs(10)) {
            eprintln!("some process outlives SIGKILL");
        }
        if self.keep {
            return;
        }
        for place in [&self.work, &self.state, &self.root] {
            if place.exists() && fs::remove_dir_all(place).is_err() {
                eprintln!("could not remove {}", place.display());
            }
        }
    }
}

/// The name of a file, 7 bytes.
pub(crate) fn name(number: usize) -> String {
    format!("f{number:06}")
}

/// Where file `number` is put.
pub(crate) fn place(root: &Path, number: usize) -> PathBuf {
    root.join(format!("d{:02}/{}", number / 4 % DIRECTORIES, name(number)))
}

/// Writes files of 100 bytes; whenever so many wait as `ahead` says, waits until `handled` says that some were handled. Returns how many
/// seconds it waited: about as long as it took in all where the peer is the slower one.
pub(crate) fn produce(
    peer: &Peer,
    files: usize,
    ahead: usize,
    mut handled: impl FnMut() -> Res<usize>,
) -> Res<f64> {
    let mut waited = Duration::ZERO;
    for number in 0..files {
        if ahead > 0 && number % 64 == 0 {
            let floor = (number + 64).saturating_sub(ahead);
            let from = Instant::now();
            if !peer.until(Duration::from_secs(60), || Ok(handled()? >= floor))? {
                return Err("nothing was handled for a minute".into());
            }
            waited += from.elapsed();
        }
        fs::write(place(&peer.root, number), [b'x'; 100])?;
    }
    Ok(waited.as_secs_f64())
}
