//! A test bed: a directory to watch, a place for state and results, and the built daemon over them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a fact is waited for before the test fails. Nothing is concluded from how long it took.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a fact.
pub fn until(what: &str, fact: impl FnMut() -> bool) {
    until_in(DEADLINE, what, fact);
}

/// Waits for a fact with a deadline of its own.
pub fn until_in(deadline: Duration, what: &str, mut fact: impl FnMut() -> bool) {
    let start = Instant::now();
    while !fact() {
        assert!(start.elapsed() < deadline, "it did not come to be: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a recorder wrote down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub watch: String,
    pub job: String,
    pub attempt: u32,
    pub recovered: bool,
    /// As the last argument.
    pub path: PathBuf,
    /// As `SETTLED_PATH`.
    pub env_path: PathBuf,
    /// Bytes read from descriptor 3; `None` if that was not open.
    pub size: Option<u64>,
    /// FNV-1a of them.
    pub hash: u64,
    pub pid: i32,
    /// `RECORDER_LIFE` in the daemon's environment: which of its lives it was; 0 where that is not told.
    pub life: u32,
}

impl Run {
    pub fn name(&self) -> OsString {
        self.path
            .file_name()
            .map(OsStr::to_owned)
            .unwrap_or_default()
    }
}

pub fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

fn unhex(text: &str) -> PathBuf {
    let bytes = (0..text.len() / 2)
        .map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hex"))
        .collect();
    PathBuf::from(OsString::from_vec(bytes))
}

/// The recorder's binary; built if `cargo test` was told to build this test only and it is missing or old.
pub fn recorder() -> PathBuf {
    example("recorder", "tests/real/recorder.rs")
}

/// The same of another example.
pub fn example(name: &str, source: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a path of the test itself");
    path.pop();
    path.pop();
    // Built as this test was.
    let profile = match path.file_name() {
        Some(dir) if dir != "debug" => dir.to_owned(),
        _ => "dev".into(),
    };
    let path = path.join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let made = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    if made(&path) < made(&source) {
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--example", name, "--profile"])
            .arg(profile)
            .status()
            .expect("cargo");
        assert!(status.success());
    }
    path
}

/// A directory with everything in it; removed at the end.
pub struct Bed {
    dir: tempfile::TempDir,
}

impl Bed {
    /// On the filesystem of the build directory: a real disk, not a tmpfs.
    pub fn new() -> Bed {
        Bed::in_dir(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    pub fn in_dir(parent: &Path) -> Bed {
        let dir = tempfile::Builder::new()
            .prefix("bed-")
            .tempdir_in(parent)
            .expect("a temporary directory");
        fs::create_dir(dir.path().join("in")).expect("a directory to watch");
        Bed { dir }
    }

    /// It stays; where it is.
    #[allow(dead_code)]
    pub fn keep(mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.root().to_owned()
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// `name` beside the watched directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `name` in the watched directory.
    pub fn inside(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.path().join("in").join(Path::new(name.as_ref()))
    }

    pub fn results(&self) -> PathBuf {
        self.path("results")
    }

    /// `run = [...]` for a recorder with these words.
    pub fn run_key(&self, words: &[&str]) -> String {
        let mut args = vec![
            recorder().display().to_string(),
            self.results().display().to_string(),
        ];
        args.extend(words.iter().map(|word| (*word).to_owned()));
        args.push("{path}".into());
        format!("run = {args:?}\n")
    }

    /// Writes a configuration with one watch `w` over `in`, running the recorder; `keys` are more lines of
    /// the block.
    pub fn configure(&self, words: &[&str], keys: &str) {
        let text = format!(
            "[watch.w]\npath = {:?}\n{}{keys}\n",
            self.path("in"),
            self.run_key(words)
        );
        self.configure_text(&text);
    }

    /// Writes a configuration: `[daemon]` with this bed's state and a debug log on stderr, then `text`.
    pub fn configure_text(&self, text: &str) {
        let daemon = if text.contains("[daemon]") {
            String::new()
        } else {
            format!(
                "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\n\n",
                self.path("state")
            )
        };
        fs::write(self.path("settled.toml"), format!("{daemon}{text}")).expect("a configuration");
    }

    pub fn start(&self) -> Daemon {
        let config = self.path("settled.toml");
        let daemon = self.spawn(&[OsStr::new("run"), OsStr::new("-c"), config.as_os_str()]);
        daemon.wait_log("ready:");
        daemon
    }

    /// The built program with these arguments; not waited for.
    pub fn spawn(&self, args: &[&OsStr]) -> Daemon {
        self.spawn_with(args, &[])
    }

    pub fn spawn_with(&self, args: &[&OsStr], env: &[(&str, &str)]) -> Daemon {
        let mut command = Command::new(env!("CARGO_BIN_EXE_settled"));
        command.args(args);
        self.spawn_command(command, env)
    }

    /// The built program by way of another one.
    pub fn spawn_command(&self, mut command: Command, env: &[(&str, &str)]) -> Daemon {
        let mut child = command
            .envs(env.iter().copied())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the built program");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("a pipe");
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                sink.lock()
                    .expect("no panic elsewhere")
                    .push(String::from_utf8_lossy(&line).into_owned());
            }
        });
        Daemon {
            child,
            lines,
            ended: None,
        }
    }

    /// Everything the recorders wrote so far, in order.
    pub fn runs(&self) -> Vec<Run> {
        let Ok(text) = fs::read_to_string(self.results()) else {
            return Vec::new();
        };
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(parse_run).collect()
    }

    pub fn wait_runs(&self, count: usize) -> Vec<Run> {
        self.wait_runs_in(DEADLINE, count)
    }

    pub fn wait_runs_in(&self, deadline: Duration, count: usize) -> Vec<Run> {
        // Only what is new is read each time: the machine is for those who work.
        let (mut seen, mut lines) = (0, 0);
        until_in(deadline, &format!("{count} runs"), || {
            let Ok(mut file) = fs::File::open(self.results()) else {
                return count == 0;
            };
            let mut more = Vec::new();
            file.seek(SeekFrom::Start(seen)).expect("the results");
            seen += file.read_to_end(&mut more).expect("the results") as u64;
            lines += more.iter().filter(|byte| **byte == b'\n').count();
            lines >= count
        });
        self.runs()
    }

    /// The runs so far, when everything that came before has settled and was run: in a watch with
    /// `concurrency = 1`. One file that is written now may still overtake another's quiet time by a
    /// moment; a second one, written when the first was run, cannot.
    pub fn fence(&self, name: &str) -> Vec<Run> {
        let mut runs = Vec::new();
        let names = [format!("{name}.1"), format!("{name}.2")];
        for name in &names {
            fs::write(self.inside(name), "fence").expect("a fence");
            until("the fence's run", || {
                runs = self.runs();
                runs.iter().any(|run| run.name() == *name.as_str())
            });
        }
        runs.retain(|run| !names.iter().any(|name| run.name() == name.as_str()));
        runs
    }
}

/// A recorder's line.
pub fn parse_run(line: &str) -> Run {
    let f: Vec<&str> = line.split(' ').collect();
    assert_eq!(f.len(), 10, "a recorder's line: {line:?}");
    Run {
        watch: f[0].into(),
        job: f[1].into(),
        attempt: f[2].parse().expect("a number"),
        recovered: f[3] == "1",
        path: unhex(f[4]),
        env_path: unhex(f[5]),
        size: f[6].parse().ok(),
        hash: f[7].parse().expect("a number"),
        pid: f[8].parse().expect("a number"),
        life: f[9].parse().expect("a number"),
    }
}

/// How often each name was run.
pub fn counts(runs: &[Run]) -> BTreeMap<OsString, usize> {
    let mut counts = BTreeMap::new();
    for run in runs {
        *counts.entry(run.name()).or_insert(0) += 1;
    }
    counts
}

/// The running program. Dropped, it is killed, and its log printed if the test failed.
pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    ended: Option<ExitStatus>,
}

impl Daemon {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub fn log(&self) -> Vec<String> {
        self.lines.lock().expect("no panic elsewhere").clone()
    }

    pub fn wait_log(&self, text: &str) {
        until(&format!("a log line with {text:?}"), || {
            self.log().iter().any(|line| line.contains(text))
        });
    }

    /// How many log lines contain `text`.
    pub fn log_count(&self, text: &str) -> usize {
        self.log().iter().filter(|line| line.contains(text)).count()
    }

    pub fn signal(&self, signal: i32) {
        let pid = nix::unistd::Pid::from_raw(self.pid());
        let signal = nix::sys::signal::Signal::try_from(signal).expect("a signal");
        nix::sys::signal::kill(pid, signal).expect("a running daemon");
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait();
    }

    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let mut status = None;
        until("the daemon's end", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        self.ended = status;
        status.expect("just seen")
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        self.wait().code()
    }
}

impl Drop for Bed {
    /// What the daemon started and did not live to end would wait for ever for what happens here.
    fn drop(&mut self) {
        let here = self.dir.path().as_os_str().as_bytes();
        let Ok(processes) = fs::read_dir("/proc") else {
            return;
        };
        for process in processes.flatten() {
            let pid = process.file_name();
            let Some(pid) = pid.to_str().and_then(|pid| pid.parse::<i32>().ok()) else {
                continue;
            };
            let told = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if told.windows(here.len()).any(|part| part == here) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let skip = log.len().saturating_sub(200);
            eprintln!("--- the daemon's log, last lines of {} ---", log.len());
            for line in &log[skip..] {
                eprintln!("{line}");
            }
        }
    }
}

/// A name that is not UTF-8.
pub fn bytes(name: &[u8]) -> OsString {
    OsStr::from_bytes(name).to_owned()
}
