//! Answers and events in the orders in which disks give them: single cases of what `sim` tries at random.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use settled::core::ask::{
    Act, Answer, Bound, Disposal as Answered, Entry, Facts, Fault, Held, Kind, Question, Resolved,
    Stat, Version,
};
use settled::core::files::{ctime_digest, name_hash, version_digest};
use settled::core::ids::{AskId, DirId, JobId, MountId, RunId, WatchId};
use settled::core::orders::{Name, Order, Which};
use settled::core::query::{Explained, judge};
use settled::core::record::{AttemptEnd, Disposal, DisposedHow, Outcome, Record};
use settled::core::time::{Mono, Now, Wall};
use settled::core::view::Finding;
use settled::core::{ChildEnd, Command, Core, Effect, Input, Mount, mask};
use std::fs;

const MS: u64 = 1_000_000;
const AWAY: u8 = 2;

fn now(at_ms: u64) -> Now {
    Now {
        mono: Mono(at_ms * MS),
        wall: Wall(i64::try_from(at_ms * MS).unwrap()),
        utc_offset_s: 0,
    }
}

/// A version of inode `ino`; another `mtime_ns` is another version of the same file.
fn version(ino: u64, mtime_ns: i64) -> Version {
    Version {
        ino,
        btime_ns: 1000 + i64::try_from(ino).unwrap(),
        generation: 0,
        size: 3,
        mtime_ns,
    }
}

fn entry(name: &[u8], kind: Kind, version: Version) -> Entry {
    Entry {
        name: name.to_vec(),
        stat: Ok(stat(kind, version)),
    }
}

fn stat(kind: Kind, version: Version) -> Stat {
    Stat {
        kind,
        version,
        ctime_ns: 5,
    }
}

/// A core that watches /srv/in, and what it has asked and wished for.
struct Bed {
    core: Core,
    at_ms: u64,
    asked: Vec<(AskId, Question)>,
    records: Vec<Record>,
    unwatched: Vec<i32>,
    runs: Vec<RunId>,
    /// How often a worker was handed something.
    handed: usize,
}

impl Bed {
    fn start(records: Vec<Record>) -> Bed {
        Bed::with("", records)
    }

    fn with(more: &str, records: Vec<Record>) -> Bed {
        Bed::of("run = [\"true\"]\n", more, records)
    }

    fn of(action: &str, more: &str, records: Vec<Record>) -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("settled.toml");
        let text = "[watch.in]\npath = \"/srv/in\"\nrecursive = true\nexported = false\ndone = \"delete\"\n";
        fs::write(&file, [text, action, more].concat()).unwrap();
        let mut core = Core::new(settled::config::load(&file).unwrap(), 7);
        for record in records {
            core.replay(Wall(1), record);
        }
        let mount = Mount {
            id: MountId(1),
            point: b"/".to_vec(),
            fstype: "ext4".into(),
            remote_writers: false,
            attribute_cache_s: 0,
        };
        core.start(now(0), vec![mount]);
        let mut bed = Bed {
            core,
            at_ms: 0,
            asked: Vec::new(),
            records: Vec::new(),
            unwatched: Vec::new(),
            runs: Vec::new(),
            handed: 0,
        };
        bed.turn(0);
        bed
    }

    /// What is due after so long.
    fn turn(&mut self, after_ms: u64) {
        self.at_ms += after_ms;
        self.core.due(now(self.at_ms));
        for effect in self.core.effects() {
            match effect {
                Effect::Ask(ask, _, question) => self.asked.push((ask, question)),
                Effect::Append(record) => self.records.push(record),
                Effect::Unwatch(wd) => self.unwatched.push(wd),
                Effect::Spawn(order) => self.runs.push(order.run),
                Effect::Feed(..) | Effect::FeedFirst(..) => self.handed += 1,
                _ => {}
            }
        }
    }

    fn input(&mut self, input: Input) {
        self.core.step(now(self.at_ms), input);
        self.turn(0);
    }

    fn event(&mut self, wd: i32, mask: u32, name: &[u8]) {
        self.input(Input::Event {
            wd,
            mask,
            cookie: 1,
            name: name.to_vec(),
        });
    }

    fn renames(&mut self, cookie: u32, from: &[u8], to: &[u8]) {
        for (mask, name) in [(mask::MOVED_FROM, from), (mask::MOVED_TO, to)] {
            self.input(Input::Event {
                wd: 1,
                mask,
                cookie,
                name: name.to_vec(),
            });
        }
    }

    fn answer(&mut self, ask: AskId, answers: Vec<Answer>) {
        for answer in answers {
            self.input(Input::Answer(ask, answer));
        }
    }

    /// Takes the first question that is one of these.
    fn take(&mut self, mut which: impl FnMut(&Question) -> bool) -> Option<AskId> {
        let at = self.asked.iter().position(|(_, q)| which(q))?;
        Some(self.asked.remove(at).0)
    }

    fn resolve(&mut self, ident: Version) {
        let ask = self.take(|q| matches!(q, Question::Resolve { .. }));
        let resolved = Resolved {
            path: b"/srv/in".to_vec(),
            mount: MountId(1),
            ident,
        };
        self.answer(ask.unwrap(), vec![Answer::Resolved(Ok(resolved))]);
    }

    /// The directory `rel` has this watch descriptor, and these are in it.
    fn list(&mut self, rel: &[u8], wd: i32, ident: Version, entries: Vec<Entry>) {
        let of = |q: &Question| matches!(q, Question::Bind { place, .. } if place.rel == rel);
        let ask = self.take(of).expect("nobody asked for the directory");
        let bound = Bound {
            wd: Some(Ok(wd)),
            ident,
            ctime_ns: 0,
        };
        self.answer(
            ask,
            vec![
                Answer::Bound(Ok(bound)),
                Answer::Entries(entries),
                Answer::Listed(Ok(())),
            ],
        );
    }

    /// Every look at `f` finds this version, until nobody looks for two seconds.
    fn looks_find(&mut self, version: Version) {
        let facts = Facts {
            stat: stat(Kind::File, version),
            lock: Held::Free,
            flock: Held::NotAsked,
            lease: Held::Free,
        };
        for _ in 0..20 {
            while let Some(ask) = self.take(|q| matches!(q, Question::Probe { .. })) {
                self.answer(ask, vec![Answer::Probed(Ok(facts))]);
            }
            self.turn(100);
        }
    }

    fn dispose(&mut self, with: Answered) {
        let wanted = |q: &Question| matches!(q, Question::Dispose { place, act: Act::Delete, .. } if place.rel == b"f");
        let ask = self.take(wanted).expect("no disposition is asked for");
        self.answer(ask, vec![Answer::Disposed(Ok(with))]);
    }

    fn disposed(&self) -> bool {
        let how = DisposedHow::Done;
        let job = JobId(7);
        self.records.contains(&Record::Disposed { job, how })
    }

    fn another_job(&self) -> bool {
        let other = |record: &Record| matches!(record, Record::Settled { .. });
        self.records.iter().any(other)
    }
}

/// Job 7 is done with this version of /srv/in/f, which is to be deleted. The root was inode 2.
fn concluded(version: Version) -> Vec<Record> {
    vec![
        Record::Watch {
            watch: WatchId(1),
            name: "in".into(),
        },
        Record::Scanned { watch: WatchId(1) },
        Record::Dir {
            dir: DirId(1),
            watch: WatchId(1),
            parent: DirId(0),
            name: Vec::new(),
            ino: 2,
            btime_ns: 1002,
        },
        Record::Settled {
            job: JobId(7),
            dir: DirId(1),
            name: b"f".to_vec(),
            version,
            ctime_ns: 5,
            reruns: 0,
        },
        Record::Started {
            job: JobId(7),
            attempt: 1,
            slot: 0,
        },
        Record::Concluded {
            job: JobId(7),
            outcome: Outcome::Done,
            end: Some(AttemptEnd::Exit(0)),
            disposal: Disposal::Delete,
            version,
            ctime_ns: 5,
            output: Vec::new(),
        },
    ]
}

/// An older version of it was concluded before, and is remembered in this state.
fn older(state: u8) -> Record {
    Record::Remembered {
        dir: DirId(1),
        name_hash: name_hash(b"f"),
        version: version_digest(&version(20, 1)),
        ctime: ctime_digest(1),
        state,
        at: Wall(1),
    }
}

/// The directory was replaced while nobody looked; the file, which was elsewhere, comes into the new one.
fn comes_back_without_its_directory(records: Vec<Record>) {
    let mut bed = Bed::start(records);
    let file = version(20, 9);
    bed.resolve(version(3, 0));
    bed.list(b"", 1, version(3, 0), Vec::new());
    bed.dispose(Answered::Gone);
    bed.turn(5000);
    assert!(!bed.disposed());
    bed.event(1, mask::MOVED_TO, b"f");
    bed.looks_find(file);
    assert!(!bed.another_job(), "{:?}", bed.records);
    bed.dispose(Answered::Done);
    assert!(bed.disposed());
}

#[test]
fn what_was_away_is_disposed_of_in_the_directory_that_replaced_its_own() {
    comes_back_without_its_directory(concluded(version(20, 9)));
}

#[test]
fn an_older_version_away_under_the_same_name_does_not_hide_the_one_that_waits() {
    let mut records = concluded(version(20, 9));
    records.insert(3, older(0));
    comes_back_without_its_directory(records);
}

#[test]
fn a_disposition_that_fails_for_a_while_keeps_its_file() {
    let mut records = concluded(version(20, 9));
    records.insert(3, older(AWAY));
    let mut bed = Bed::start(records);
    let file = version(20, 9);
    bed.resolve(version(2, 0));
    let entries = vec![entry(b"f", Kind::File, file)];
    bed.list(b"", 1, version(2, 0), entries);
    let failed = || Answered::Failed {
        errno: 5,
        step: "rename to the private name".into(),
    };
    bed.dispose(failed());
    bed.looks_find(file);
    assert!(!bed.another_job(), "{:?}", bed.records);
    bed.dispose(Answered::Done);
    assert!(bed.disposed());
}

/// The watch descriptor changed between the halves of a rename there and back: only the first was heard.
#[test]
fn a_directory_listed_after_it_went_is_back() {
    let mut bed = Bed::start(Vec::new());
    let (root, sub) = (version(2, 0), version(4, 0));
    let entries = || vec![entry(b"d", Kind::Dir, version(4, 0))];
    bed.resolve(root);
    bed.list(b"", 1, root, entries());
    bed.list(b"d", 2, sub, Vec::new());
    bed.event(1, mask::MOVED_FROM | mask::ISDIR, b"d");
    bed.input(Input::Command(Command::Rescan));
    bed.resolve(root);
    bed.list(b"", 6, root, entries());
    bed.list(b"d", 2, sub, Vec::new());
    // Longer than any half is waited for.
    bed.turn(10_000);
    assert!(!bed.unwatched.contains(&2));
    bed.event(2, mask::MOVED_TO, b"f");
    assert!(
        bed.asked
            .iter()
            .any(|(_, q)| matches!(q, Question::Probe { place, .. } if place.rel == b"d/f")),
        "nothing in it is heard of"
    );
}

/// What a look did not find while its directory was away for a moment is not what the command left.
#[test]
fn a_look_into_a_directory_that_came_after_it_was_asked_says_nothing() {
    let mut bed = Bed::with("on_change = \"accept\"\n", Vec::new());
    let (root, sub) = (version(2, 0), version(4, 0));
    let (read, left) = (version(20, 9), version(20, 12));
    bed.resolve(root);
    bed.list(b"", 1, root, vec![entry(b"d", Kind::Dir, sub)]);
    bed.list(b"d", 2, sub, vec![entry(b"f", Kind::File, read)]);
    bed.looks_find(read);
    let run = bed.runs.pop().expect("nothing is run");
    bed.event(1, mask::MOVED_FROM | mask::ISDIR, b"d");
    bed.input(Input::Ended {
        run,
        end: ChildEnd::Exit(0),
        output: Vec::new(),
    });
    let look = bed.take(|q| matches!(q, Question::Probe { .. })).unwrap();
    bed.event(1, mask::MOVED_TO | mask::ISDIR, b"d");
    bed.answer(look, vec![Answer::Probed(Err(Fault::Here(2)))]);
    bed.looks_find(left);
    let concluded = bed.records.iter().find_map(|record| match record {
        Record::Concluded { version, .. } => Some(*version),
        _ => None,
    });
    assert_eq!(concluded, Some(left));
}

/// A file has its private name for a moment; another comes under its own meanwhile, and is renamed. Whatever is to be done
/// with the first is still to be done where that is.
#[test]
fn what_comes_under_the_name_of_a_hidden_file_takes_no_job_along() {
    let file = version(20, 9);
    let mut bed = Bed::start(concluded(file));
    bed.resolve(version(2, 0));
    let entries = vec![entry(b"f", Kind::File, file)];
    bed.list(b"", 1, version(2, 0), entries);
    let mut hidden = Vec::new();
    let ask = bed.take(|q| match q {
        Question::Dispose { private, .. } => {
            hidden.clone_from(private);
            true
        }
        _ => false,
    });
    bed.renames(1, b"f", &hidden);
    bed.event(1, mask::CREATE, b"f");
    bed.renames(2, b"f", b"g");
    bed.renames(3, &hidden, b"f");
    bed.answer(
        ask.expect("no disposition is asked for"),
        vec![Answer::Disposed(Ok(Answered::Busy))],
    );
    let renamed = |record: &Record| matches!(record, Record::Renamed { .. });
    assert!(!bed.records.iter().any(renamed), "{:?}", bed.records);
    bed.turn(10_000);
    bed.dispose(Answered::Done);
    assert!(bed.disposed());
}

/// A dead job that holds up others is looked at, and before the answer somebody asks for another attempt: who looked did not
/// ask whether its file is open, as whoever hands it to a worker has to.
#[test]
fn a_look_of_before_there_was_a_worker_hands_nothing_over() {
    let file = version(20, 9);
    let mut records = concluded(file);
    records.pop();
    records.push(Record::Ended {
        job: JobId(7),
        attempt: 1,
        end: AttemptEnd::Exit(65),
        counted: 1,
        not_before: Wall(i64::MAX),
        output: Vec::new(),
    });
    let more = "on_dead = \"halt\"\nattempts = 1\n";
    let mut bed = Bed::of("worker = [\"true\"]\n", more, records);
    bed.resolve(version(2, 0));
    let entries = vec![entry(b"f", Kind::File, file)];
    bed.list(b"", 1, version(2, 0), entries);
    bed.turn(10);
    let leases = |wanted: bool| move |q: &Question| matches!(q, Question::Probe { lease, .. } if *lease == wanted);
    let early = bed.take(leases(false)).expect("nobody looks at it");
    let order = Order::Retry(Which {
        name: Name::Job("00000007-7".into()),
        watch: None,
    });
    bed.input(Input::Command(Command::Asked(1, order)));
    let facts = |lease: Held| {
        vec![Answer::Probed(Ok(Facts {
            stat: stat(Kind::File, file),
            lock: Held::NotAsked,
            flock: Held::NotAsked,
            lease,
        }))]
    };
    bed.answer(early, facts(Held::NotAsked));
    assert_eq!(bed.handed, 0);
    let late = bed.take(leases(true)).expect("nobody asks for a lease");
    bed.answer(late, facts(Held::Free));
    assert_eq!(bed.handed, 1);
}

/// Whoever may ask can name a path that leads through two thousand directories: the answer is made in many steps, and
/// is the one that is made at once.
#[test]
fn the_longest_path_is_explained_in_many_steps() {
    let more = "exclude = [\"**/x?/y*\", \"*.bak\"]\n";
    let bed = Bed::with(more, Vec::new());
    let plan = {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("settled.toml");
        let text = "[watch.in]\npath = \"/srv/in\"\nrecursive = true\nexported = false\nrun = [\"true\"]\n";
        fs::write(&file, text.to_owned() + more).unwrap();
        settled::config::load(&file).unwrap().watches.remove(0)
    };
    let long = |end: &str| {
        let names = (4096 - "/srv/in/".len() - end.len()) / 2;
        "a/".repeat(names) + end
    };
    for (rel, rule) in [
        (long("f.csv"), ""),
        (long("f.bak"), "exclude"),
        (long("x1/yy/f.csv"), "exclude"),
        (long(".hidden/f.csv"), "built-in"),
        (
            "a/".repeat(1000) + "x.bak/" + &"a/".repeat(1000) + "f",
            "exclude",
        ),
    ] {
        let mut whole = Finding::default();
        judge(&plan, rel.as_bytes(), false, 0, &mut whole);
        assert_eq!(whole.rule, rule, "{rel}");
        let path = format!("/srv/in/{rel}");
        let (mut at, mut steps) = (Explained::default(), 0);
        let found = loop {
            steps += 1;
            match bed.core.explain_on(path.as_bytes(), &mut at) {
                (None, true) => {}
                (found, more) => {
                    assert!(!more);
                    break found.unwrap();
                }
            }
        };
        assert!((10..=2000).contains(&steps), "{steps} for {rel}");
        assert_eq!(
            (&found.rule, &found.pattern, &found.at, found.selected),
            (&whole.rule, &whole.pattern, &whole.at, whole.selected),
        );
    }
}
