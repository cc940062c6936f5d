//! The built daemon is killed at random moments, hundreds of times, while files keep coming; and the journal's
//! directory is opened as every power cut could have left it.
//!
//! `cargo test --release --test torture`; what the variables change:
//!
//! | variable | |
//! | --- | --- |
//! | `TORTURE_KILLS` | SIGKILLs in each campaign (8) |
//! | `TORTURE_SEED` | where the random numbers begin (1); what the writer does and when is killed follows from it, how the kernel schedules does not |
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

mod images;
mod oracle;
mod writer;

use bed::{Bed, until_in};
use journal_support::Random;
use oracle::Oracle;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
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
}

const USUAL: Campaign = Campaign {
    name: "",
    done: Done::Keep,
    tmpfs: false,
    compact: None,
    drop: None,
    renames: false,
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
        bed.configure(
            &["nap=6"],
            &format!(
                "recursive = true\nsettle = \"0\"\nconcurrency = 4\nexisting = \"run\"\n{done}\n"
            ),
        );
        let log = bed.path("log");
        Place {
            bed,
            other,
            archive,
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
        if let Some(bytes) = campaign.compact {
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
            println!("{name}: seed {seed}: {kills} kills, {figures}");
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

fn torture(campaign: &Campaign, place: &Place, kills: u64, seed: u64) -> String {
    let mut random = Random(seed);
    let oracle = Oracle::new(place.bed.results());
    let writer = Writer::start(&oracle, place.bed.path("in"), campaign, random.next());
    let mut life = 0;
    let mut compactions = 0;
    for _ in 0..kills {
        life += 1;
        let daemon = place.start(campaign, life);
        // Mostly in the middle of its start or of its first work, now and then later.
        let most = if random.below(8) == 0 { 1200 } else { 150 };
        std::thread::sleep(Duration::from_millis(random.below(most + 1) as u64));
        daemon.kill();
        compactions = place.bases().max(compactions);
    }
    writer.stop();
    life += 1;
    let mut daemon = place.start(campaign, life);
    let gone = |dir: &Path| oracle::files_below(dir).is_empty();
    let inside = place.bed.path("in");
    until_in(
        DEADLINE,
        "every version run, and what is done with them",
        || {
            oracle.read();
            let ended = daemon.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the last life has ended by itself: {}",
                daemon.said()
            );
            oracle.all_run() && (campaign.done == Done::Keep || gone(&inside))
        },
    );
    daemon.stop();
    // What has been done is not done again.
    let runs = oracle.read();
    life += 1;
    let daemon = place.start(campaign, life);
    let fences = ["fence.1", "fence.2"];
    for name in fences {
        fs::write(inside.join(name), name).unwrap();
        until_in(DEADLINE, "the fence's run", || {
            oracle.has_run(&inside.join(name))
        });
    }
    daemon.stop();
    assert_eq!(
        oracle.read(),
        runs + fences.len(),
        "something was run again: {}",
        oracle.tail()
    );
    oracle.judge(campaign.done, &inside, &place.archive, &place.log);
    until_in(DEADLINE, "no process is left over", || {
        place.left_over().is_empty()
    });
    assert!(
        campaign.compact.is_none() || compactions > 0 || kills < 20,
        "the journal was never compacted"
    );
    format!(
        "{}; segment of the last compaction {compactions}",
        oracle.figures()
    )
}
