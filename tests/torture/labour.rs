//! The work that torture gives to the daemon: writes down what it was given, and finds out whether it is alone at it.
//!
//! `labour RESULTS FORM NAP [ITEM...]`; forms: `child` (`SETTLED_*`, the file on descriptor 3), `batch` (items
//! `JOB:ATTEMPT:PATH`), `worker` (settled-worker(7)); `heir` is a child that leaves a process behind. Each job takes up to
//! `NAP` milliseconds. A batch with a file called `p*` in it fails.
//!
//! At its begin RESULTS gets the line of a recorder for each job. RESULTS.more gets `beside JOB PID WHAT` if somebody else
//! was at the job, or at another one of the same key, `end JOB ATTEMPT PID` when it is done, and `failed` for `end` when
//! it failed.

#![allow(unsafe_code)]

use std::env;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

struct Labour {
    results: PathBuf,
    nap_ms: u64,
}

/// What is to be done with one file.
struct Item {
    job: String,
    attempt: String,
    recovered: bool,
    key: String,
    path: PathBuf,
}

fn env_text(name: &str) -> String {
    env::var_os(name).map_or_else(String::new, |value| value.to_string_lossy().into_owned())
}

fn append(path: &Path, line: &str) {
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .and_then(|mut out| out.write_all(line.as_bytes()))
        .expect("the ledger takes a line");
}

/// FNV-1a of all that the file holds, and how much that is.
fn digest(mut file: impl Read) -> io::Result<(u64, u64)> {
    let (mut size, mut hash) = (0u64, 0xcbf2_9ce4_8422_2325u64);
    let mut buffer = [0; 65536];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((size, hash));
        }
        size += n as u64;
        for byte in &buffer[..n] {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

impl Labour {
    fn more(&self, line: &str) {
        append(&self.results.with_extension("more"), line);
    }

    /// A lock that ends with this process, and with whoever inherits it.
    fn alone(&self, item: &Item, what: &str) -> File {
        let path = self.results.with_extension("locks").join(what);
        let lock = File::create(path).expect("a lock");
        // SAFETY: the descriptor is open.
        let locked = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        if locked != 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
            let who = std::process::id();
            self.more(&format!("beside {} {who} {what}\n", item.job));
        }
        lock
    }

    fn locks(&self, item: &Item) -> Vec<File> {
        let mut locks = vec![self.alone(item, &item.job)];
        if !item.key.is_empty() {
            locks.push(self.alone(item, &format!("key-{}", item.key.replace('/', "_"))));
        }
        locks
    }

    fn begin(&self, item: &Item, file: impl Read) {
        let read = digest(file).ok();
        let path: String = item
            .path
            .as_os_str()
            .as_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let (size, hash) =
            read.map_or(("-".to_owned(), 0), |(size, hash)| (size.to_string(), hash));
        append(
            &self.results,
            &format!(
                "w {} {} {} {path} {path} {size} {hash} {} {}\n",
                item.job,
                item.attempt,
                u8::from(item.recovered),
                std::process::id(),
                env_text("RECORDER_LIFE"),
            ),
        );
    }

    fn end(&self, word: &str, item: &Item) {
        let Item { job, attempt, .. } = item;
        self.more(&format!("{word} {job} {attempt} {}\n", std::process::id()));
    }

    fn nap(&self, salt: usize) {
        let seed = u64::from(std::process::id()).wrapping_add(salt as u64 * 7919);
        std::thread::sleep(Duration::from_millis(seed % (self.nap_ms + 1)));
    }

    fn child(&self, path: &OsStr, leave_heir: bool) {
        let item = Item {
            job: env_text("SETTLED_JOB"),
            attempt: env_text("SETTLED_ATTEMPT"),
            recovered: env::var_os("SETTLED_RECOVERED").is_some(),
            key: env_text("SETTLED_KEY"),
            path: path.into(),
        };
        let mut locks = self.locks(&item);
        // SAFETY: the daemon passes the file as descriptor 3 and nothing here owns it yet.
        let mut file = unsafe { File::from_raw_fd(3) };
        file.seek(SeekFrom::Start(0)).expect("the file");
        self.begin(&item, &file);
        // Below the slot's descriptor, so that the kernel gives up this lock before that one; and inherited.
        // SAFETY: both are open; what 3 was is not used any more.
        let moved = unsafe { libc::dup2(locks[0].as_raw_fd(), 3) };
        assert_eq!(moved, 3);
        std::mem::forget(file);
        drop(locks.remove(0));
        self.nap(0);
        if leave_heir && std::process::id().is_multiple_of(2) {
            let seconds = format!("0.{:03}", u64::from(std::process::id()) % (self.nap_ms + 1));
            // Standard output is not left to it: the daemon would wait for its end.
            let heir = std::process::Command::new("sleep")
                .arg(seconds)
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("sleep(1)");
            // It outlives this process on purpose.
            std::mem::forget(heir);
        }
        self.end("end", &item);
    }

    fn batch(&self, args: &[std::ffi::OsString]) {
        let items: Vec<Item> = args
            .iter()
            .map(|arg| {
                let text = arg.to_str().expect("text");
                let mut parts = text.splitn(3, ':');
                let mut next = || parts.next().expect("JOB:ATTEMPT:PATH").to_owned();
                Item {
                    job: next(),
                    attempt: next(),
                    recovered: env::var_os("SETTLED_RECOVERED").is_some(),
                    key: String::new(),
                    path: next().into(),
                }
            })
            .collect();
        assert_eq!(env_text("SETTLED_BATCH"), items.len().to_string());
        let _locks: Vec<_> = items.iter().map(|item| self.locks(item)).collect();
        for item in &items {
            match File::open(&item.path) {
                Ok(file) => self.begin(item, file),
                // Taken away since the daemon looked.
                Err(_) => self.begin(item, io::empty()),
            }
        }
        self.nap(0);
        let poisoned = |item: &Item| {
            let name = item.path.file_name().unwrap_or_default();
            name.as_bytes().starts_with(b"p")
        };
        let failed = items.iter().any(poisoned);
        for item in &items {
            self.end(if failed { "failed" } else { "end" }, item);
        }
        if failed {
            std::process::exit(1);
        }
    }

    fn worker(&self) {
        let mut count = 0;
        for line in io::stdin().lock().lines() {
            let line = line.expect("a line");
            let message: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let jobs = match message.get("jobs") {
                Some(jobs) => jobs.as_array().expect("jobs").clone(),
                None => vec![message],
            };
            for job in jobs {
                let text = |key: &str| job[key].as_str().expect("a text").to_owned();
                let item = Item {
                    job: text("job"),
                    attempt: job["attempt"].to_string(),
                    recovered: job["recovered"] == true,
                    key: text("key"),
                    path: text("path").into(),
                };
                // As settled-worker(7) advises: it may lie in the pipe for long.
                let file = File::open(&item.path).ok().filter(|file| {
                    let meta = file.metadata().expect("an open file");
                    let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
                    (job["size"].as_u64(), job["mtime_ns"].as_i64())
                        == (Some(meta.len()), Some(mtime_ns))
                });
                let result = if let Some(file) = file {
                    let locks = self.locks(&item);
                    self.begin(&item, &file);
                    count += 1;
                    self.nap(count);
                    self.end("end", &item);
                    drop(locks);
                    "done"
                } else {
                    "retry"
                };
                let answer = format!("{{\"job\":\"{}\",\"result\":\"{result}\"}}\n", item.job);
                let mut out = io::stdout();
                if out
                    .write_all(answer.as_bytes())
                    .and_then(|()| out.flush())
                    .is_err()
                {
                    // Nobody listens any more.
                    return;
                }
            }
        }
    }
}

fn main() {
    let args: Vec<_> = env::args_os().collect();
    let nap = String::from_utf8(args[3].clone().into_vec()).expect("a number");
    let labour = Labour {
        results: PathBuf::from(&args[1]),
        nap_ms: nap.parse().expect("a number"),
    };
    match args[2].to_str() {
        Some("child") => labour.child(&args[4], false),
        Some("heir") => labour.child(&args[4], true),
        Some("batch") => labour.batch(&args[4..]),
        Some("worker") => labour.worker(),
        form => panic!("unknown form {form:?}"),
    }
}
