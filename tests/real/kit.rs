//! What the tests of dispatch share: scripts, a ledger that they write to, and what the journal says of jobs.

use crate::bed::{Bed, Daemon, until_in};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// For what takes many processes on a machine that has other things to do.
pub const SLOW: Duration = Duration::from_secs(300);

/// One job, as the journal has it.
#[derive(Clone, Debug, Default)]
pub struct Job {
    pub name: OsString,
    /// When it settled.
    pub settled_ns: i64,
    /// Attempts begun: number and time.
    pub started: Vec<(u64, i64)>,
    /// Attempts that ended and were not the last: number, how, counted.
    pub ended: Vec<(u64, String, u64)>,
    /// Outcome and the last attempt's end.
    pub concluded: Vec<(String, String)>,
    /// When.
    pub concluded_ns: i64,
    pub output: String,
}

impl Job {
    /// Its only outcome; none if it has none yet. Two are a failure.
    pub fn outcome(&self) -> Option<&str> {
        assert!(self.concluded.len() < 2, "concluded twice: {self:?}");
        Some(self.concluded.first()?.0.as_str())
    }
}

/// All jobs in the bed's journal, in the order in which they settled.
pub fn jobs(bed: &Bed) -> Vec<Job> {
    let dump = Command::new(env!("CARGO_BIN_EXE_settled"))
        .args(["journal", "dump", "--json", "--state"])
        .arg(bed.path("state"))
        .output()
        .expect("the built program");
    assert!(dump.status.success(), "{dump:?}");
    let mut jobs: BTreeMap<u64, Job> = BTreeMap::new();
    for line in dump.stdout.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            continue;
        }
        let row: serde_json::Value = serde_json::from_slice(line).expect("JSON");
        let number = |key: &str| row[key].as_u64().unwrap_or_default();
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let wall = row["wall_ns"].as_i64().expect("a time");
        let id = number("job");
        match text("kind").as_str() {
            "settled" if number("dir") > 0 => {
                let job = jobs.entry(id).or_default();
                job.name = row["name_hex"]
                    .as_str()
                    .map_or_else(|| text("name").into(), unhex);
                job.settled_ns = wall;
            }
            "started" | "started-slot" => {
                let started = (number("attempt"), wall);
                jobs.entry(id).or_default().started.push(started);
            }
            "ended" => {
                let ended = (number("attempt"), text("end"), number("counted"));
                jobs.entry(id).or_default().ended.push(ended);
            }
            "concluded" => {
                let job = jobs.entry(id).or_default();
                job.concluded.push((text("outcome"), text("end")));
                job.concluded_ns = wall;
                job.output = text("output");
            }
            _ => {}
        }
    }
    jobs.into_values().collect()
}

/// The job of the file with this name; it must have one and no more.
pub fn job(bed: &Bed, name: &str) -> Job {
    let mut all = jobs(bed);
    all.retain(|job| job.name == name);
    assert_eq!(all.len(), 1, "jobs of {name}: {all:?}");
    all.remove(0)
}

/// Waits until so many jobs are concluded, and gives all.
pub fn wait_concluded(bed: &Bed, count: usize) -> Vec<Job> {
    let mut all = Vec::new();
    let mut wait = Duration::from_millis(20);
    until_in(SLOW, &format!("{count} jobs concluded"), || {
        all = jobs(bed);
        let there = all.iter().filter(|job| job.outcome().is_some()).count() >= count;
        if !there {
            // A dump reads everything: not more often than it is worth.
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_secs(1));
        }
        there
    });
    all
}

/// How many jobs ended how.
pub fn outcomes(jobs: &[Job]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for job in jobs {
        let outcome = job.outcome().unwrap_or("owed").to_owned();
        *counts.entry(outcome).or_insert(0) += 1;
    }
    counts
}

pub fn unhex(text: &str) -> OsString {
    let bytes = (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
        .collect();
    OsString::from_vec(bytes)
}

/// Writes `text` beside the watched directory.
pub fn script(bed: &Bed, name: &str, text: &str) -> String {
    let path = bed.path(name);
    fs::write(&path, text).expect("a script");
    path.display().to_string()
}

/// The whole lines of the bed's ledger, to which the scripts write.
pub fn ledger(bed: &Bed) -> Vec<String> {
    let bytes = fs::read(bed.path("ledger")).unwrap_or_default();
    let whole = bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    String::from_utf8_lossy(&bytes[..whole])
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Waits until the ledger has so many lines that begin with `word`, and gives those.
pub fn wait_ledger(bed: &Bed, word: &str, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    until_in(
        SLOW,
        &format!("{count} lines of {word:?} in the ledger"),
        || {
            lines = ledger(bed);
            lines.retain(|line| line.split(' ').next() == Some(word));
            lines.len() >= count
        },
    );
    lines
}

/// A configuration of one watch `w` over `in` with this action, for files that settle at once.
pub fn configure(bed: &Bed, action: &str, keys: &str) {
    bed.configure_text(&format!(
        "[watch.w]\npath = {:?}\nsettle = \"0\"\nbackoff = {{ first = \"10ms\", max = \"10ms\" }}\n{action}\n{keys}\n",
        bed.path("in"),
    ));
}

/// `run = ["/bin/sh", SCRIPT, LEDGER, args...]`.
pub fn shell_key(bed: &Bed, text: &str, args: &[&str]) -> String {
    let mut words = vec![
        "/bin/sh".to_owned(),
        script(bed, "job.sh", text),
        bed.path("ledger").display().to_string(),
    ];
    words.extend(args.iter().map(|arg| (*arg).to_owned()));
    format!("run = {words:?}")
}

/// The daemon with a journal that keeps everything.
pub fn start(bed: &Bed) -> Daemon {
    let config = bed.path("settled.toml");
    let daemon = bed.spawn_with(
        &[OsStr::new("run"), OsStr::new("-c"), config.as_os_str()],
        &[("SETTLED_TEST_COMPACT_BYTES", "1000000000000")],
    );
    daemon.wait_log("ready:");
    daemon
}

/// Files that are whole when their names appear.
pub fn put(bed: &Bed, name: impl AsRef<OsStr>, content: &str) {
    let outside = bed.path("outside");
    fs::write(&outside, content).expect("a file");
    fs::rename(&outside, bed.inside(name)).expect("a rename");
}

/// A number from the environment.
pub fn env_number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// The daemon's children whose command line has `word` in it.
pub fn children_with(daemon: &Daemon, word: &str) -> Vec<i32> {
    let pid = daemon.pid();
    let children =
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children
        .split_whitespace()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
        })
        .map(|pid| pid.parse().expect("a pid"))
        .collect()
}

/// SIGKILL to a process that a test has to do with.
pub fn kill(pid: i32) {
    let pid = Pid::from_raw(pid);
    // It may have ended by itself.
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
}

pub fn alive(pid: i32) -> bool {
    // A zombie is none: it does nothing any more.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| !rest.starts_with('Z'))
    })
}

/// Reads the daemon's log until its state has these words.
pub fn wait_state(daemon: &Daemon, words: &str) {
    until_in(SLOW, &format!("a state with {words:?}"), || {
        daemon.signal(libc::SIGUSR1);
        std::thread::sleep(Duration::from_millis(20));
        daemon.log_count(words) > 0
    });
}

/// Processes of the daemon that call themselves so.
pub fn children_named(daemon: &Daemon, name: &str) -> Vec<Pid> {
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .expect("the daemon's children");
    children
        .split_whitespace()
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .map(|pid| Pid::from_raw(pid.parse().expect("a pid")))
        .collect()
}

pub fn scouts_of(daemon: &Daemon) -> Vec<Pid> {
    children_named(daemon, "settled-scout")
}

/// A signal to each of them.
pub fn send(pids: &[Pid], signal: nix::sys::signal::Signal) {
    for pid in pids {
        nix::sys::signal::kill(*pid, signal).expect("a process");
    }
}

/// The path of a tool that lies with this package's examples.
pub fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("packaging/examples")
        .join(name)
}

/// A small filesystem, for as long as this lives. Needs root.
pub struct Small(pub PathBuf);

impl Small {
    /// At a new directory; `size` as mount(8) takes it for a tmpfs.
    pub fn mount(at: PathBuf, size: &str) -> Small {
        std::fs::create_dir(&at).expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "small"]);
        assert!(mount.arg(&at).status().expect("mount").success());
        Small(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
