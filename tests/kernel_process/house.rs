//! A daemon without a core: the loop, the spawner, and what was told.

use mio::{Events, Poll};
use settled::child::{Children, Happening};
use settled::core::ask::{Place, Version};
use settled::core::ids::{JobId, MountId, RunId};
use settled::core::{ChildEnd, Input, Program, SpawnFile, SpawnOrder, Stdin};
use settled::slots::Slots;
use settled::spawner::Spawner;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

fn no_scouts(_socket: OwnedFd, _inotify: OwnedFd) -> ! {
    std::process::abort()
}

/// A daemon without a core.
pub(crate) struct House {
    pub(crate) poll: Poll,
    pub(crate) children: Children,
    pub(crate) spawner_pid: i32,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) ended: BTreeMap<u64, (ChildEnd, Vec<u8>)>,
    pub(crate) lines: BTreeMap<u64, Vec<Vec<u8>>>,
    pub(crate) worker_lines: BTreeMap<u64, Vec<Option<Vec<u8>>>>,
    /// Most lines that one turn told.
    pub(crate) lines_a_turn_max: usize,
    pub(crate) scouts: BTreeMap<u64, Result<i32, i32>>,
    pub(crate) troubles: Vec<String>,
    next: u64,
}

impl House {
    pub(crate) fn new() -> House {
        House::with_scouts(no_scouts)
    }

    pub(crate) fn with_scouts(main: settled::spawner::ScoutMain) -> House {
        let inotify = inotify::Inotify::init().unwrap();
        let spawner = Spawner::start(inotify.as_fd(), main).unwrap();
        let spawner_pid = spawner.pid();
        let poll = Poll::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let slots = Slots::open(dir.path()).unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let children = Children::new(spawner, registry, slots).unwrap();
        House {
            poll,
            children,
            spawner_pid,
            dir,
            ended: BTreeMap::new(),
            lines: BTreeMap::new(),
            worker_lines: BTreeMap::new(),
            lines_a_turn_max: 0,
            scouts: BTreeMap::new(),
            troubles: Vec::new(),
            next: 1,
        }
    }

    pub(crate) fn file(&self, name: &[u8], content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(std::ffi::OsStr::from_bytes(name));
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn order(&mut self, argv: &[&[u8]]) -> SpawnOrder {
        let path = self.dir.path().join("file");
        if !path.exists() {
            self.file(b"file", b"content\n");
        }
        let run = self.next;
        self.next += 1;
        SpawnOrder {
            run: RunId(run),
            jobs: vec![JobId(run)],
            program: Program::Command,
            argv: argv.iter().map(|arg| arg.to_vec()).collect(),
            env: vec![],
            cwd: b"/".to_vec(),
            files: vec![SpawnFile {
                place: place(&path),
                expect: version(&path),
                lease: false,
            }],
            stdin: Stdin::Nothing,
            process: std::rc::Rc::default(),
            slot: 0,
            output: None,
            watch: "w".into(),
            job_name: format!("j-{run}"),
            attempt: 1,
        }
    }

    pub(crate) fn spawn(&mut self, order: SpawnOrder) -> u64 {
        let run = order.run.0;
        self.children.spawn(order).unwrap();
        run
    }

    pub(crate) fn sh(&mut self, script: &str) -> u64 {
        let order = self.order(&[b"/bin/sh", b"-c", script.as_bytes()]);
        self.spawn(order)
    }

    /// One turn of the loop.
    pub(crate) fn turn(&mut self) -> std::io::Result<()> {
        let timeout = if self.children.has_due() {
            Duration::ZERO
        } else {
            Duration::from_millis(100)
        };
        let mut events = Events::with_capacity(64);
        match self.poll.poll(&mut events, Some(timeout)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => result?,
        }
        for event in &events {
            assert!(self.children.ready(event.token())?);
        }
        let (ended, lines, scouts) = (&mut self.ended, &mut self.lines, &mut self.scouts);
        let worker_lines = &mut self.worker_lines;
        let troubles = &mut self.troubles;
        let mut said = 0;
        self.children.turn(&mut |happening| match happening {
            Happening::Line(line) => {
                said += 1;
                lines
                    .entry(line.run.0)
                    .or_default()
                    .push(line.text.to_vec());
            }
            Happening::Ended(Input::Ended { run, end, output }) => {
                assert!(ended.insert(run.0, (end, output)).is_none(), "ended twice");
            }
            Happening::Ended(other) => panic!("{other:?}"),
            Happening::Worker(Input::WorkerLine { run, line }) => {
                assert!(!ended.contains_key(&run.0), "a line after the end");
                said += 1;
                worker_lines.entry(run.0).or_default().push(line);
            }
            // Told whenever one of its pipes is closed, the usual end included.
            Happening::Worker(Input::WorkerDeaf { run }) => {
                assert!(!ended.contains_key(&run.0), "deaf after the end");
            }
            Happening::Worker(other) => panic!("{other:?}"),
            Happening::Trouble(text) => troubles.push(text),
            Happening::Scout(made) => assert!(scouts.insert(made.number, made.pid).is_none()),
        });
        self.lines_a_turn_max = self.lines_a_turn_max.max(said);
        self.children.tick(settled::sys::clock::boottime())?;
        self.children.flush()?;
        Ok(())
    }

    /// Turns the loop until something is so.
    pub(crate) fn until(&mut self, what: &str, mut so: impl FnMut(&House) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(
                start.elapsed() < DEADLINE,
                "{what}: not within {DEADLINE:?}"
            );
            self.turn().unwrap();
        }
    }

    pub(crate) fn end(&mut self, run: u64) -> (ChildEnd, Vec<u8>) {
        self.until("end", |house| house.ended.contains_key(&run));
        self.ended[&run].clone()
    }

    pub(crate) fn said(&self, run: u64) -> Vec<u8> {
        self.lines
            .get(&run)
            .map(|lines| lines.join(&b'\n'))
            .unwrap_or_default()
    }
}

pub(crate) fn place(path: &Path) -> Place {
    let bytes = path.as_os_str().as_bytes();
    let dir = path.parent().unwrap().as_os_str().as_bytes();
    Place {
        base: dir.to_vec(),
        mount: mount_of(path.parent().unwrap()),
        rel: bytes[dir.len() + 1..].to_vec(),
    }
}

/// As proc_pid_fdinfo(5) tells it.
fn mount_of(dir: &Path) -> MountId {
    let dir = File::open(dir).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&dir);
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("mnt_id:"))
        .unwrap();
    MountId(line.trim().parse().unwrap())
}

pub(crate) fn version(path: &Path) -> Version {
    let meta = std::fs::symlink_metadata(path).unwrap();
    let btime = meta
        .created()
        .ok()
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    Version {
        ino: meta.ino(),
        btime_ns: btime.map_or(0, |time| time.as_nanos() as i64),
        generation: 0,
        size: meta.size(),
        mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
    }
}

/// Waits for something that the loop has no part in.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(
            start.elapsed() < DEADLINE,
            "{what}: not within {DEADLINE:?}"
        );
        std::thread::yield_now();
    }
}

/// A process is no more, or only its exit status is left.
pub(crate) fn is_gone(pid: i32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z'),
        Err(_) => true,
    }
}

/// Spawner, launchers and waiting children whose parent is `parent`.
pub(crate) fn spawners_of(parent: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_ascii_whitespace();
        if stat.contains("(settled-spawner)")
            && fields.next() != Some("Z")
            && fields.next() == Some(&parent.to_string())
        {
            found.push(pid);
        }
    }
    found
}
