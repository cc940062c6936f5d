//! The built daemon is killed at random moments, hundreds of times, while files keep coming; and the journal's
//! directory is opened as every power cut could have left it.
//!
//! `cargo test --release --test torture`; what the variables change:
//!
//! | variable | |
//! | --- | --- |
//! | `TORTURE_KILLS` | SIGKILLs in each campaign (8) |
//! | `TORTURE_SEED` | where the random numbers begin (1); what the writer does and when is killed follows from it, how the kernel schedules does not |
//! | `SETTLED_WORKER_KILLS` | SIGKILLs of processes that do the work, where the daemon lives (20) |
//! | `TORTURE_IMAGES` | images of the state directory at most for each flush (3; with 64 every one of small batches, some minutes) |
//! | `TORTURE_KEEP` | any value: directories and the daemon's debug log stay, and are named |
//!
//! One campaign: `cargo test --release --test torture moved_elsewhere -- --nocapture`, which also prints the figures.
//! `tests/vm/power-cuts` does the same to a whole machine.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../real/bed.rs"]
mod bed;
#[path = "../journal_support/mod.rs"]
mod journal_support;

mod dispatch;
mod images;
mod oracle;
mod owed;
mod writer;

use bed::{Bed, until_in};
use journal_support::Random;
use oracle::Oracle;
use owed::Owed;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use writer::Writer;

/// How long the last life has for what is left, and a killed one for its end.
const DEADLINE: Duration = Duration::from_secs(180);

fn number_from(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// What is done with files that are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Keep,
    Delete,
    /// To the same filesystem.
    Move,
    /// To another one, where there is one.
    MoveElsewhere,
}

/// One kind of torture.
struct Campaign {
    name: &'static str,
    done: Done,
    /// Whether the journal is on a tmpfs.
    tmpfs: bool,
    /// Bytes beyond the live state at which the journal is compacted.
    compact: Option<&'static str>,
    /// `SETTLED_TEST_DROP`.
    drop: Option<&'static str>,
    /// Whether files that have been run are renamed.
    renames: bool,
    /// Whether no two versions have one name.
    unique: bool,
    /// What does the work.
    act: Act,
    /// More lines of the watch.
    keys: &'static str,
    /// The longest life of the daemon, where it is not over at once, in milliseconds.
    life_ms: usize,
    victims: Victims,
}

/// What does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Recorder,
    /// `labour` in this form, each job taking up to so many milliseconds.
    Labour(&'static str, u32),
    /// A delivery to the other filesystem, or to the same.
    Deliver {
        elsewhere: bool,
        on_conflict: &'static str,
    },
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victims {
    Daemon,
    /// Before each kill of the daemon some of its children with this word in their command lines.
    Both(&'static str),
    /// Only those: the daemon lives.
    Children(&'static str),
}

impl Campaign {
    /// Whether the journal tells everything at the end.
    fn journalled(&self) -> bool {
        self.act != Act::Recorder && self.compact.is_none()
    }

    fn once(&self) -> bool {
        self.keys.contains("at-most-once")
    }

    fn serial(&self) -> bool {
        self.keys.contains("serial")
    }

    fn batch(&self) -> bool {
        matches!(self.act, Act::Labour("batch", _))
    }

    /// Whether files called `p*` fail.
    fn poison(&self) -> bool {
        self.batch()
    }
}

const USUAL: Campaign = Campaign {
    name: "",
    done: Done::Keep,
    tmpfs: false,
    compact: None,
    drop: None,
    renames: false,
    unique: false,
    act: Act::Recorder,
    keys: "concurrency = 4\n",
    life_ms: 1200,
    victims: Victims::Daemon,
};

#[test]
fn kept() {
    let name = "kept";
    run(&Campaign { name, ..USUAL });
}

#[test]
fn kept_with_compaction() {
    run(&Campaign {
        name: "kept, compaction",
        compact: Some("20000"),
        ..USUAL
    });
}

#[test]
fn kept_with_compaction_on_tmpfs() {
    run(&Campaign {
        name: "kept, tmpfs, compaction",
        tmpfs: true,
        compact: Some("8000"),
        ..USUAL
    });
}

#[test]
fn kept_with_half_of_all_events_lost() {
    run(&Campaign {
        name: "kept, half of the events lost",
        drop: Some("half"),
        ..USUAL
    });
}

#[test]
fn kept_and_renamed() {
    run(&Campaign {
        name: "kept and renamed",
        renames: true,
        ..USUAL
    });
}

#[test]
fn deleted_with_compaction() {
    run(&Campaign {
        name: "deleted, compaction",
        done: Done::Delete,
        compact: Some("20000"),
        ..USUAL
    });
}

#[test]
fn moved() {
    run(&Campaign {
        name: "moved",
        done: Done::Move,
        ..USUAL
    });
}

#[test]
fn moved_elsewhere_with_compaction() {
    run(&Campaign {
        name: "moved elsewhere, compaction",
        done: Done::MoveElsewhere,
        compact: Some("20000"),
        ..USUAL
    });
}

#[test]
fn moved_elsewhere_on_tmpfs() {
    run(&Campaign {
        name: "moved elsewhere, tmpfs",
        done: Done::MoveElsewhere,
        tmpfs: true,
        ..USUAL
    });
}

/// The places of a campaign.
struct Place {
    bed: Bed,
    /// On the other filesystem; removed with this.
    other: tempfile::TempDir,
    archive: PathBuf,
    /// Of deliveries.
    target: Option<PathBuf>,
    log: PathBuf,
}

impl Place {
    fn new(campaign: &Campaign) -> Place {
        let disk = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let memory = Path::new("/dev/shm");
        let (here, there) = if campaign.tmpfs {
            (memory, disk)
        } else {
            (disk, memory)
        };
        let bed = Bed::in_dir(here);
        let other = tempfile::Builder::new()
            .prefix("bed-")
            .tempdir_in(there)
            .unwrap();
        let archive = match campaign.done {
            Done::MoveElsewhere => other.path().join("archive"),
            Done::Keep | Done::Delete | Done::Move => bed.path("archive"),
        };
        let done = match campaign.done {
            Done::Keep => "done = \"keep\"".into(),
            Done::Delete => "done = \"delete\"".into(),
            Done::Move | Done::MoveElsewhere => format!("done = {{ move = {archive:?} }}"),
        };
        let target = match campaign.act {
            Act::Deliver {
                elsewhere: true, ..
            } => Some(other.path().join("target")),
            Act::Deliver { .. } => Some(bed.path("target")),
            Act::Recorder | Act::Labour(..) => None,
        };
        let action = match (&target, campaign.act) {
            (Some(to), Act::Deliver { on_conflict, .. }) => {
                format!("deliver = {{ to = {to:?}, on_conflict = {on_conflict:?} }}\n")
            }
            (_, Act::Labour(form, nap)) => labour(&bed, form, nap),
            _ => bed.run_key(&["nap=6"]),
        };
        bed.configure_text(&format!(
            "[daemon]\nstate = {:?}\nlog = \"stderr\"\nlog_level = \"debug\"\nconcurrency = 64\n\n\
             [watch.w]\npath = {:?}\nrecursive = true\nsettle = \"0\"\nexisting = \"run\"\n\
             {action}{done}\n{}",
            bed.path("state"),
            bed.path("in"),
            campaign.keys,
        ));
        fs::create_dir(bed.results().with_extension("locks")).unwrap();
        let log = bed.path("log");
        Place {
            bed,
            other,
            archive,
            target,
            log,
        }
    }

    fn start(&self, campaign: &Campaign, life: u32) -> Life {
        let log = OpenOptions::new().append(true).create(true).open(&self.log);
        let mut log = log.unwrap();
        writeln!(log, "--- life {life}").unwrap();
        let from = log.seek(SeekFrom::End(0)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_settled"));
        command
            .args(["run", "-c"])
            .arg(self.bed.path("settled.toml"))
            .env("RECORDER_LIFE", life.to_string())
            .env("TORTURE_BED", self.bed.root())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let never = campaign.journalled().then_some("1000000000000");
        if let Some(bytes) = campaign.compact.or(never) {
            command.env("SETTLED_TEST_COMPACT_BYTES", bytes);
        }
        if let Some(drop) = campaign.drop {
            command.env("SETTLED_TEST_DROP", drop);
        }
        let child = command.spawn().expect("the built program");
        let log = self.log.clone();
        Life { child, log, from }
    }

    fn bases(&self) -> usize {
        fs::read_dir(self.bed.path("state")).map_or(0, |entries| {
            let names = entries.flatten().map(|entry| entry.file_name());
            let numbers = names.filter_map(|name| {
                let number = name.to_str()?.strip_suffix(".base")?.parse().ok()?;
                Some(number)
            });
            numbers.max().unwrap_or(0)
        })
    }

    /// Processes that were started by any life of the daemon, and what they are called.
    fn left_over(&self) -> Vec<String> {
        let mark = format!("TORTURE_BED={}", self.bed.root().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ
                .split(|byte| *byte == 0)
                .any(|one| one == mark.as_bytes())
            {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                found.push(format!("{} {}", entry.file_name().display(), name.trim()));
            }
        }
        found
    }
}

/// The watch's action: `labour` in this form.
fn labour(bed: &Bed, form: &str, nap: u32) -> String {
    let program = bed::example("labour", "tests/torture/labour.rs");
    let mut argv = vec![
        program.display().to_string(),
        bed.results().display().to_string(),
        form.to_owned(),
        nap.to_string(),
    ];
    match form {
        "worker" => return format!("worker = {argv:?}\n"),
        "batch" => argv.push("{job}:{attempt}:{path}".into()),
        _ => argv.push("{path}".into()),
    }
    format!("run = {argv:?}\n")
}

/// One life of the daemon.
struct Life {
    child: Child,
    log: PathBuf,
    from: u64,
}

impl Life {
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until_in(DEADLINE, "the daemon's end", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn kill(mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the daemon has ended by itself, {status}: {}", self.said());
        }
        self.child.kill().unwrap();
        self.wait();
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// SIGKILL to one of its children that have this word in their command lines; which.
    fn kill_child(&self, word: &str, random: &mut Random) -> Option<i32> {
        let pid = self.child.id();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let mut found: Vec<i32> = children
            .split_whitespace()
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
            })
            .map(|pid| pid.parse().unwrap())
            .collect();
        if found.is_empty() {
            return None;
        }
        let pid = found.swap_remove(random.below(found.len()));
        // It may have ended by itself; nobody else has its number before the daemon has waited for it.
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
        Some(pid)
    }

    /// Before it is ready it may not yet have taken charge of its signals.
    fn stop(mut self) {
        until_in(DEADLINE, "the daemon is ready", || {
            fs::read(&self.log).is_ok_and(|text| {
                let from = usize::try_from(self.from).unwrap();
                String::from_utf8_lossy(text.get(from..).unwrap_or_default()).contains(" ready: ")
            })
        });
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = self.wait();
        assert!(status.success(), "{status}: {}", self.said());
    }

    /// The end of its log.
    fn said(&self) -> String {
        let mut text = Vec::new();
        let mut log = fs::File::open(&self.log).unwrap();
        log.seek(SeekFrom::Start(self.from)).unwrap();
        log.read_to_end(&mut text).unwrap();
        let from = text.len().saturating_sub(4000);
        String::from_utf8_lossy(&text[from..]).into_owned()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Already gone where it was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(campaign: &Campaign) {
    let kills = number_from("TORTURE_KILLS", 8);
    let seed = number_from("TORTURE_SEED", 1);
    let place = Place::new(campaign);
    let keep = std::env::var_os("TORTURE_KEEP").is_some();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        torture(campaign, &place, kills, seed)
    }));
    let name = campaign.name;
    match outcome {
        Ok(figures) => {
            println!("{name}: seed {seed}: {figures}");
            if keep {
                println!("{name}: kept in {}", place.bed.keep().display());
                let _kept = place.other.keep();
            }
        }
        Err(panic) => {
            let _kept = place.other.keep();
            eprintln!(
                "{name}: seed {seed}, {kills} kills; kept in {}",
                place.bed.keep().display()
            );
            std::panic::resume_unwind(panic);
        }
    }
}

fn wall_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_nanos()).unwrap()
}

fn sleep_up_to(random: &mut Random, most_ms: usize) {
    std::thread::sleep(Duration::from_millis(random.below(most_ms + 1) as u64));
}

/// Everything that was under way when a campaign's kills are over.
struct Field {
    life: u32,
    compactions: usize,
    /// When each life was over.
    kills: Vec<i64>,
    children_killed: u64,
    /// Where the daemon was not killed.
    daemon: Option<Life>,
}

fn kill_at_random(
    campaign: &Campaign,
    place: &Place,
    oracle: &Oracle,
    random: &mut Random,
    kills: u64,
) -> Field {
    let mut field = Field {
        life: 0,
        compactions: 0,
        kills: Vec::new(),
        children_killed: 0,
        daemon: None,
    };
    if let Victims::Children(word) = campaign.victims {
        field.life = 1;
        let mut daemon = place.start(campaign, 1);
        while field.children_killed < number_from("SETTLED_WORKER_KILLS", 20) {
            sleep_up_to(random, 60);
            if let Some(pid) = daemon.kill_child(word, random) {
                oracle.killed(pid, 1);
                field.children_killed += 1;
            }
            assert!(
                !daemon.has_ended(),
                "it has ended by itself: {}",
                daemon.said()
            );
        }
        field.daemon = Some(daemon);
        return field;
    }
    for _ in 0..kills {
        field.life += 1;
        let daemon = place.start(campaign, field.life);
        // Mostly in the middle of its start or of its first work, now and then later.
        let later = random.below(8) == 0;
        match campaign.victims {
            Victims::Both(word) if random.below(2) == 0 => {
                for _ in 0..random.below(12) {
                    sleep_up_to(random, 60);
                    if let Some(pid) = daemon.kill_child(word, random) {
                        oracle.killed(pid, field.life);
                        field.children_killed += 1;
                    }
                }
            }
            _ => sleep_up_to(random, if later { campaign.life_ms } else { 150 }),
        }
        daemon.kill();
        field.kills.push(wall_ns());
        field.compactions = place.bases().max(field.compactions);
        if campaign.once() && field.life.is_multiple_of(10) {
            let owed = Owed::read(&place.bed.path("state"));
            oracle.held(&owed.map(|owed| owed.held()).unwrap_or_default());
        }
    }
    field
}

fn torture(campaign: &Campaign, place: &Place, kills: u64, seed: u64) -> String {
    let mut random = Random(seed);
    let oracle = Oracle::new(place.bed.results(), place.target.clone());
    let writer = Writer::start(&oracle, place.bed.path("in"), campaign, random.next());
    let mut field = kill_at_random(campaign, place, &oracle, &mut random, kills);
    writer.stop();
    let mut daemon = field.daemon.take().unwrap_or_else(|| {
        field.life += 1;
        place.start(campaign, field.life)
    });
    let gone = |dir: &Path| oracle::files_below(dir).is_empty();
    let inside = place.bed.path("in");
    let state = place.bed.path("state");
    let all_run = || {
        oracle.read();
        if campaign.once() && campaign.journalled() {
            // Nobody is told of some: they are counted below.
            return true;
        }
        oracle.all_run()
    };
    until_in(
        DEADLINE,
        "every version run, and what is done with them",
        || {
            assert!(
                !daemon.has_ended(),
                "it has ended by itself: {}",
                daemon.said()
            );
            let done = all_run() && (campaign.done == Done::Keep || gone(&inside));
            // What an earlier life has left running is waited for, and repeated then.
            let (jobs, open) = match done.then(|| Owed::read(&state)).flatten() {
                Some(owed) => owed.count(),
                None => return false,
            };
            let every = !campaign.journalled() || jobs >= oracle.versions();
            if open > 0 || !every {
                std::thread::sleep(Duration::from_millis(100));
            }
            every && open == 0
        },
    );
    daemon.stop();
    field.kills.push(wall_ns());
    // What has been done is not done again.
    let runs = oracle.read();
    field.life += 1;
    let daemon = place.start(campaign, field.life);
    let fences = ["fence.1", "fence.2"];
    for name in fences {
        fs::write(inside.join(name), name).unwrap();
        until_in(DEADLINE, "the fence's run", || {
            oracle.has_run(&inside.join(name))
        });
    }
    daemon.stop();
    field.kills.push(wall_ns());
    assert_eq!(
        oracle.read(),
        runs + fences.len(),
        "something was run again: {}",
        oracle.tail()
    );
    let log = String::from_utf8_lossy(&fs::read(&place.log).unwrap()).into_owned();
    let owed = Owed::read(&state).expect("a journal");
    let (more, held) = if campaign.journalled() {
        let wrong = owed.judge(campaign, &oracle.deeds(), &field.kills, &log);
        (wrong, owed.held())
    } else {
        (Vec::new(), Vec::new())
    };
    oracle.judge(campaign, &inside, &place.archive, &held, (&log, more));
    until_in(DEADLINE, "no process is left over", || {
        place.left_over().is_empty()
    });
    assert!(
        campaign.compact.is_none() || field.compactions > 0 || kills < 20,
        "the journal was never compacted"
    );
    let lives = field.kills.len() - 2;
    let mut figures = format!(
        "{lives} kills of the daemon, {} of others, {}; segment of the last compaction {}",
        field.children_killed,
        oracle.figures(),
        field.compactions
    );
    if campaign.journalled() {
        figures += &format!("; jobs: {}", owed.figures(&log));
    }
    figures
}
