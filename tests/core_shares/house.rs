//! A core whose questions are answered at once: with a watch `w` over one directory, or more watches.

use settled::core::ask::{
    Answer, Bound, DirTimes, Disposal, Entry, Exports, Facts, Fault, Held, Kind, Question,
    Resolved, Stat, Version,
};
use settled::core::ids::{AskId, MountId, RunId};
use settled::core::time::{Mono, Now, Wall};
use settled::core::{ChildEnd, Core, Effect, Input, Mount, ScoutId, mask};
use settled::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const ROOT: &str = "/srv/in";
pub const MOUNT: MountId = MountId(5);
/// Long after 1970, in nanoseconds.
const WALL: i64 = 1_750_000_000_000_000_000;

#[derive(Clone, Copy, Debug)]
pub struct File {
    pub version: Version,
    pub ctime_ns: i64,
}

pub struct House {
    pub core: Core,
    pub mono: Mono,
    /// The clock shows so many nanoseconds less.
    pub set_back: i64,
    mounts: Vec<Mount>,
    /// Mounts that do not answer.
    pub hung: BTreeSet<MountId>,
    /// Dispositions are not answered.
    pub keeps: bool,
    /// Mounts on which children do not get on.
    pub holds: BTreeSet<MountId>,
    /// Questions that they were asked.
    unanswered: Vec<(AskId, Question)>,
    /// Children that they hold.
    pub held: Vec<(RunId, MountId)>,
    /// Signals that were sent, and when.
    pub killed: Vec<(RunId, i32, Mono)>,
    /// The daemon has ended.
    pub stopped: Option<Mono>,
    /// By absolute path.
    pub files: BTreeMap<Vec<u8>, File>,
    /// What a scout says of the tables; `None`: nothing, ever.
    pub exports: Option<Exports>,
    /// What the lease says.
    pub lease: Held,
    /// The NFS server has the file open; asked for a lease, it closes it.
    pub served: bool,
    /// Each question for a lease, and when.
    pub leases: Vec<Mono>,
    /// Files whose commands were started, and when.
    pub started: Vec<(String, Mono)>,
    /// Each listing, and when.
    pub listings: Vec<Mono>,
    /// When its names moved, by its own clock.
    pub names_at: i64,
    /// Each question for that, and when.
    pub moved: Vec<Mono>,
    /// How long a listing takes.
    pub listing_takes: Duration,
    /// How the next listings end.
    pub listing_fails: Option<Fault>,
    pub log: Vec<String>,
    pub asked: Vec<AskId>,
    stamp: i64,
    late: Vec<Input>,
}

pub fn plan(keys: &str) -> Plan {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settled.toml");
    let text = format!(
        "[daemon]\nlog_level = \"debug\"\nconcurrency = 2\n[watch.w]\npath = {ROOT:?}\nrun = [\"true\", \"{{path}}\"]\n{keys}\n"
    );
    std::fs::write(&file, text).unwrap();
    settled::config::load(&file).unwrap()
}

/// A name is one in [`ROOT`].
fn full(name: &str) -> String {
    match name.starts_with('/') {
        true => name.to_owned(),
        false => format!("{ROOT}/{name}"),
    }
}

fn wd(dir: &str) -> i32 {
    1 + i32::from(dir != ROOT)
}

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Nothing is exported.
pub fn nothing() -> Option<Exports> {
    Some(Exports {
        trees: Ok(Vec::new()),
        wds: Vec::new(),
    })
}

impl House {
    pub fn new(keys: &str, mount: Mount, exports: Option<Exports>) -> House {
        House::with_mounts(keys, vec![mount], exports)
    }

    pub fn with_mounts(keys: &str, mounts: Vec<Mount>, exports: Option<Exports>) -> House {
        let mut house = House {
            core: Core::new(plan(keys), 7),
            mono: Mono(1_000_000_000_000),
            set_back: 0,
            mounts: mounts.clone(),
            hung: BTreeSet::new(),
            holds: BTreeSet::new(),
            keeps: false,
            unanswered: Vec::new(),
            held: Vec::new(),
            killed: Vec::new(),
            stopped: None,
            files: BTreeMap::new(),
            exports,
            lease: Held::Free,
            served: false,
            leases: Vec::new(),
            started: Vec::new(),
            listings: Vec::new(),
            names_at: 0,
            moved: Vec::new(),
            listing_takes: Duration::ZERO,
            listing_fails: None,
            log: Vec::new(),
            asked: Vec::new(),
            stamp: 0,
            late: Vec::new(),
        };
        house.core.start(house.now(), mounts);
        house.turn();
        house
    }

    pub fn now(&self) -> Now {
        Now {
            mono: self.mono,
            wall: Wall(WALL + self.mono.0 as i64 - self.set_back),
            utc_offset_s: 0,
        }
    }

    pub fn input(&mut self, input: Input) {
        let now = self.now();
        self.core.step(now, input);
        self.turn();
    }

    pub fn event(&mut self, mask: u32, name: &str) {
        let path = full(name);
        let slash = path.rfind('/').unwrap();
        self.input(Input::Event {
            wd: wd(&path[..slash]),
            mask,
            cookie: 0,
            name: path[slash + 1..].into(),
        });
    }

    /// New content, without an event.
    pub fn write(&mut self, name: &str) {
        self.stamp += 1;
        let stamp = WALL + self.stamp;
        let path = full(name).into_bytes();
        if !self.files.contains_key(&path) {
            self.names_at += 1;
        }
        let file = self.files.entry(path).or_insert(File {
            version: Version {
                ino: 100 + self.stamp as u64,
                btime_ns: stamp,
                ..Version::default()
            },
            ctime_ns: stamp,
        });
        file.version.size += 1;
        file.version.mtime_ns = stamp;
        file.ctime_ns = stamp;
    }

    /// New content, as a local writer's.
    pub fn write_and_close(&mut self, name: &str) {
        self.write(name);
        self.event(mask::CLOSE_WRITE, name);
    }

    /// Lets the core do what it wants to do within the time.
    pub fn pass(&mut self, time: Duration) {
        let end = self.mono.after(time);
        let mut turns = 0;
        while let Some(at) = self.core.deadline().filter(|at| *at <= end) {
            self.mono = self.mono.max(at);
            self.turn();
            turns += 1;
            assert!(turns < 100_000, "it never comes to rest");
        }
        self.mono = self.mono.max(end);
    }

    /// How long after `since` the file's command was started.
    pub fn started_after(&self, name: &str, since: Mono) -> Option<Duration> {
        let path = full(name);
        let mut of = self.started.iter().filter(|(started, _)| *started == path);
        of.next_back().map(|(_, at)| at.since(since))
    }

    /// A mount answers again: everything that it was asked, and what it held goes on.
    pub fn recover(&mut self, mount: MountId) {
        self.hung.remove(&mount);
        self.holds.remove(&mount);
        for (ask, question) in std::mem::take(&mut self.unanswered) {
            for answer in self.answers(ask, &question) {
                self.late.push(Input::Answer(ask, answer));
            }
        }
        for (run, _) in std::mem::take(&mut self.held) {
            let end = ChildEnd::Exit(0);
            self.late.push(Input::Ended {
                run,
                end,
                output: Vec::new(),
            });
        }
        let now = self.now();
        for input in std::mem::take(&mut self.late) {
            self.core.step(now, input);
        }
        self.turn();
    }

    fn turn(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "a turn has no end");
            let now = self.now();
            self.core.due(now);
            for effect in self.core.effects() {
                self.perform(effect);
            }
            if self.late.is_empty() {
                return;
            }
            let now = self.now();
            for input in std::mem::take(&mut self.late) {
                self.core.step(now, input);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Ask(ask, ScoutId::Mount(mount), question) if self.hung.contains(&mount) => {
                self.unanswered.push((ask, question));
            }
            Effect::Ask(ask, _, question) => {
                for answer in self.answers(ask, &question) {
                    self.late.push(Input::Answer(ask, answer));
                }
            }
            Effect::Spawn(order) => {
                let path = String::from_utf8(order.argv[1].clone()).unwrap();
                self.started.push((path, self.mono));
                let mount = order.files[0].place.mount;
                if self.holds.contains(&mount) {
                    self.held.push((order.run, mount));
                    return;
                }
                self.late.push(Input::Ended {
                    run: order.run,
                    end: ChildEnd::Exit(0),
                    output: Vec::new(),
                });
            }
            Effect::Kill(run, signal) => {
                self.killed.push((run, signal, self.mono));
                let held = self.held.len();
                self.held.retain(|(held, _)| *held != run);
                if self.held.len() < held {
                    let end = ChildEnd::Signal(signal);
                    self.late.push(Input::Ended {
                        run,
                        end,
                        output: Vec::new(),
                    });
                }
            }
            Effect::Stop(_) => self.stopped = Some(self.mono),
            Effect::Log(_, line) => self.log.push(line.text),
            _ => {}
        }
    }

    fn answers(&mut self, ask: AskId, question: &Question) -> Vec<Answer> {
        let root = Version {
            ino: 2,
            btime_ns: WALL,
            ..Version::default()
        };
        let stat = |file: &File| Stat {
            kind: Kind::File,
            version: file.version,
            ctime_ns: file.ctime_ns,
        };
        match question {
            Question::Exports => {
                self.asked.push(ask);
                self.exports
                    .clone()
                    .map(Answer::Exports)
                    .into_iter()
                    .collect()
            }
            Question::Moved { .. } => {
                self.moved.push(self.mono);
                vec![Answer::Moved(Ok(DirTimes {
                    ino: root.ino,
                    btime_ns: root.btime_ns,
                    ctime_ns: self.names_at,
                }))]
            }
            Question::Resolve { path } => {
                let above = self.mounts.iter().filter(|m| path.starts_with(&m.point));
                let mount = above.max_by_key(|m| m.point.len()).unwrap().id;
                vec![Answer::Resolved(Ok(Resolved {
                    path: path.clone(),
                    mount,
                    ident: root,
                }))]
            }
            Question::Bind { place, watch } => {
                self.listings.push(self.mono);
                self.mono = self.mono.after(self.listing_takes);
                let dir = [place.path(), b"/".to_vec()].concat();
                let entries = self.files.iter().filter_map(|(path, file)| {
                    Some(Entry {
                        name: path.strip_prefix(dir.as_slice())?.to_vec(),
                        stat: Ok(stat(file)),
                    })
                });
                vec![
                    Answer::Bound(Ok(Bound {
                        wd: watch.then_some(Ok(wd(&String::from_utf8(place.path()).unwrap()))),
                        ident: root,
                        ctime_ns: self.names_at,
                    })),
                    Answer::Entries(entries.collect()),
                    Answer::Listed(self.listing_fails.map_or(Ok(()), Err)),
                ]
            }
            Question::Probe {
                place, lock, lease, ..
            } => {
                let Some(file) = self.files.get(&place.path()).copied() else {
                    return vec![Answer::Probed(Err(Fault::Here(2)))];
                };
                let mut held = Held::NotAsked;
                if *lease {
                    self.leases.push(self.mono);
                    held = self.lease;
                    if std::mem::take(&mut self.served) {
                        held = Held::By(0);
                        self.late.push(Input::Event {
                            wd: wd(ROOT),
                            mask: mask::CLOSE_WRITE,
                            cookie: 0,
                            name: place.rel.clone(),
                        });
                    }
                }
                vec![Answer::Probed(Ok(Facts {
                    stat: stat(&file),
                    lock: if *lock { Held::Free } else { Held::NotAsked },
                    flock: Held::NotAsked,
                    lease: held,
                }))]
            }
            Question::Dispose { .. } if self.keeps => Vec::new(),
            Question::Dispose { place, .. } => {
                self.files.remove(&place.path());
                vec![Answer::Disposed(Ok(Disposal::Done))]
            }
        }
    }
}
