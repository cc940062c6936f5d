//! A core that is told what disks answer, and what it asks and wishes for.

use super::*;

pub const MS: u64 = 1_000_000;
pub const AWAY: u8 = 2;

pub fn now(at_ms: u64) -> Now {
    Now {
        mono: Mono(at_ms * MS),
        wall: Wall(i64::try_from(at_ms * MS).unwrap()),
        utc_offset_s: 0,
    }
}

/// A version of inode `ino`; another `mtime_ns` is another version of the same file.
pub fn version(ino: u64, mtime_ns: i64) -> Version {
    Version {
        ino,
        btime_ns: 1000 + i64::try_from(ino).unwrap(),
        generation: 0,
        size: 3,
        mtime_ns,
    }
}

pub fn entry(name: &[u8], kind: Kind, version: Version) -> Entry {
    Entry {
        name: name.to_vec(),
        stat: Ok(stat(kind, version)),
    }
}

pub fn stat(kind: Kind, version: Version) -> Stat {
    Stat {
        kind,
        version,
        ctime_ns: 5,
    }
}

/// A local mount.
pub fn mount(id: u64, point: &[u8]) -> Mount {
    Mount {
        id: MountId(id),
        point: point.to_vec(),
        fstype: "ext4".into(),
        remote_writers: false,
        attribute_cache_s: 0,
    }
}

/// A core that watches /srv/in, and what it has asked and wished for.
pub struct Bed {
    pub core: Core,
    pub at_ms: u64,
    pub asked: Vec<(AskId, Question)>,
    pub records: Vec<Record>,
    pub unwatched: Vec<i32>,
    pub runs: Vec<RunId>,
    /// How often a worker was handed something.
    pub handed: usize,
}

impl Bed {
    pub fn start(records: Vec<Record>) -> Bed {
        Bed::with("", records)
    }

    pub fn with(more: &str, records: Vec<Record>) -> Bed {
        Bed::of("run = [\"true\"]\n", more, records)
    }

    pub fn of(action: &str, more: &str, records: Vec<Record>) -> Bed {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("settled.toml");
        let text = "[watch.in]\npath = \"/srv/in\"\nrecursive = true\nexported = false\ndone = \"delete\"\n";
        fs::write(&file, [text, action, more].concat()).unwrap();
        let mut core = Core::new(settled::config::load(&file).unwrap(), 7);
        for record in records {
            core.replay(Wall(1), record);
        }
        core.start(now(0), vec![mount(1, b"/")]);
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
    pub fn turn(&mut self, after_ms: u64) {
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

    pub fn input(&mut self, input: Input) {
        self.core.step(now(self.at_ms), input);
        self.turn(0);
    }

    pub fn event(&mut self, wd: i32, mask: u32, name: &[u8]) {
        self.input(Input::Event {
            wd,
            mask,
            cookie: 1,
            name: name.to_vec(),
        });
    }

    pub fn renames(&mut self, cookie: u32, from: &[u8], to: &[u8]) {
        for (mask, name) in [(mask::MOVED_FROM, from), (mask::MOVED_TO, to)] {
            self.input(Input::Event {
                wd: 1,
                mask,
                cookie,
                name: name.to_vec(),
            });
        }
    }

    pub fn answer(&mut self, ask: AskId, answers: Vec<Answer>) {
        for answer in answers {
            self.input(Input::Answer(ask, answer));
        }
    }

    /// Takes the first question that is one of these.
    pub fn take(&mut self, mut which: impl FnMut(&Question) -> bool) -> Option<AskId> {
        let at = self.asked.iter().position(|(_, q)| which(q))?;
        Some(self.asked.remove(at).0)
    }

    pub fn resolve(&mut self, ident: Version) {
        assert!(self.finds(b"/srv/in", 1, ident), "nobody asks for the root");
    }

    /// `path` is found on this mount; `false` if nobody asks for it.
    pub fn finds(&mut self, path: &[u8], on: u64, ident: Version) -> bool {
        let of = |q: &Question| matches!(q, Question::Resolve { path: asked } if asked == path);
        let Some(ask) = self.take(of) else {
            return false;
        };
        let resolved = Resolved {
            path: path.to_vec(),
            mount: MountId(on),
            ident,
        };
        self.answer(ask, vec![Answer::Resolved(Ok(resolved))]);
        true
    }

    /// The directory `rel` has this watch descriptor, and these are in it.
    pub fn list(&mut self, rel: &[u8], wd: i32, ident: Version, entries: Vec<Entry>) {
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
    pub fn looks_find(&mut self, version: Version) {
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

    pub fn dispose(&mut self, with: Answered) {
        let wanted = |q: &Question| matches!(q, Question::Dispose { place, act: Act::Delete, .. } if place.rel == b"f");
        let ask = self.take(wanted).expect("no disposition is asked for");
        self.answer(ask, vec![Answer::Disposed(Ok(with))]);
    }

    pub fn disposed(&self) -> bool {
        let how = DisposedHow::Done;
        let job = JobId(7);
        self.records.contains(&Record::Disposed { job, how })
    }

    pub fn another_job(&self) -> bool {
        let other = |record: &Record| matches!(record, Record::Settled { .. });
        self.records.iter().any(other)
    }
}

/// Job 7 is done with this version of /srv/in/f, which is to be deleted. The root was inode 2.
pub fn concluded(version: Version) -> Vec<Record> {
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
pub fn older(state: u8) -> Record {
    Record::Remembered {
        dir: DirId(1),
        name_hash: name_hash(b"f"),
        version: version_digest(&version(20, 1)),
        ctime: ctime_digest(1),
        state,
        at: Wall(1),
    }
}

/// A version was done with, and is remembered under this name.
pub fn remembers(dir: u32, name: &[u8], version: Version) -> Record {
    Record::Remembered {
        dir: DirId(dir),
        name_hash: name_hash(name),
        version: version_digest(&version),
        ctime: ctime_digest(5),
        state: 0,
        at: Wall(1),
    }
}
