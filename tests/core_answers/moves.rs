//! Files whose renames are heard late or not at all, while a scan is under way: what is remembered and owed goes along.

use super::*;

/// The root with the directories `d` and `e`, in which `e/f` is remembered as inode 20.
pub fn remembered() -> Vec<Record> {
    let mut records = concluded(version(20, 9));
    records.truncate(3);
    for (dir, name, ino) in [(2, "d", 4), (3, "e", 6)] {
        records.push(Record::Dir {
            dir: DirId(dir),
            watch: WatchId(1),
            parent: DirId(1),
            name: name.into(),
            ino,
            btime_ns: 1000 + i64::try_from(ino).unwrap(),
        });
    }
    records.push(remembers(3, b"f", version(20, 9)));
    records
}

pub fn root() -> Vec<Entry> {
    vec![
        entry(b"d", Kind::Dir, version(4, 0)),
        entry(b"e", Kind::Dir, version(6, 0)),
    ]
}

impl Bed {
    fn named(&mut self, wd: i32, mask: u32, cookie: u32, name: &[u8]) {
        self.input(Input::Event {
            wd,
            mask,
            cookie,
            name: name.to_vec(),
        });
    }

    /// The look at `rel` that was asked for finds this version.
    pub fn look(&mut self, rel: &[u8], version: Version) {
        let of = |q: &Question| matches!(q, Question::Probe { place, .. } if place.rel == rel);
        let ask = self.take(of).expect("nobody looks at it");
        let facts = Facts {
            stat: stat(Kind::File, version),
            lock: Held::Free,
            flock: Held::NotAsked,
            lease: Held::Free,
        };
        self.answer(ask, vec![Answer::Probed(Ok(facts))]);
    }
}

impl Bed {
    /// For three seconds every look finds the file, another one at `others` and nothing at `gone`.
    fn looks(&mut self, others: &[u8], gone: &[u8]) {
        for _ in 0..30 {
            while let Some((_, question)) =
                (self.asked.iter()).find(|(_, q)| matches!(q, Question::Probe { .. }))
            {
                let Question::Probe { place, .. } = question else {
                    continue;
                };
                let rel = place.rel.clone();
                if rel == gone {
                    let of = |q: &Question| matches!(q, Question::Probe { place, .. } if place.rel == gone);
                    let ask = self.take(of).unwrap();
                    self.answer(ask, vec![Answer::Probed(Err(Fault::Here(2)))]);
                    continue;
                }
                let ino = if rel == others { 30 } else { 20 };
                self.look(&rel, version(ino, 9));
            }
            // Another file has its name.
            let other =
                |q: &Question| matches!(q, Question::Dispose { place, .. } if place.rel == b"f");
            while let Some(ask) = self.take(other) {
                self.answer(ask, vec![Answer::Disposed(Ok(Answered::Changed))]);
            }
            self.turn(100);
        }
    }

    /// Whether the file has settled again.
    fn again(&self) -> bool {
        let again = |record: &Record| matches!(record, Record::Settled { version, .. } if version.ino == 20);
        self.records.iter().any(again)
    }
}

/// Events of a directory whose watch descriptor is not known yet are told when it is: that a file came to the one is told
/// before that it left the other, where another has its name already.
#[test]
fn where_a_rename_went_that_is_told_from_behind_the_scans_end_says() {
    let file = version(20, 9);
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.named(3, mask::MOVED_FROM, 7, b"f");
    bed.named(2, mask::MOVED_TO, 7, b"g");
    bed.named(3, mask::MOVED_TO, 8, b"f");
    bed.list(b"d", 2, version(4, 0), vec![entry(b"g", Kind::File, file)]);
    let other = version(30, 9);
    bed.list(b"e", 3, version(6, 0), vec![entry(b"f", Kind::File, other)]);
    // The disk takes its time.
    for _ in 0..10 {
        bed.turn(100);
    }
    bed.looks(b"e/f", b"");
    assert!(!bed.again(), "{:?}", bed.records);
}

/// The scan has seen under which name a file is that was renamed unheard, and waits for a look at another one, when it
/// is renamed again.
#[test]
fn what_a_scan_has_seen_is_found_where_a_rename_takes_it_before_the_end() {
    let file = version(20, 9);
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(b"d", 2, version(4, 0), vec![entry(b"g", Kind::File, file)]);
    bed.event(2, mask::CLOSE_WRITE, b"x");
    bed.list(b"e", 3, version(6, 0), Vec::new());
    bed.named(2, mask::MOVED_FROM, 7, b"g");
    bed.named(1, mask::MOVED_TO, 7, b"h");
    bed.look(b"d/x", version(30, 9));
    bed.looks(b"d/x", b"d/g");
    assert!(!bed.again(), "{:?}", bed.records);
}

/// A directory with what it holds was renamed unheard, and a scan is on its way to where it is, when the directory is
/// deleted that it was in.
#[test]
fn what_went_from_a_directory_before_it_was_deleted_is_found_by_the_scan() {
    let file = version(20, 9);
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.event(1, mask::DELETE | mask::ISDIR, b"e");
    bed.list(b"d", 2, version(4, 0), vec![entry(b"g", Kind::File, file)]);
    bed.looks(b"", b"");
    assert!(!bed.again(), "{:?}", bed.records);
}

/// A file was renamed unheard, another has come under its name, and that one is deleted while a scan is on its way to
/// where the first is.
#[test]
fn what_is_deleted_under_a_name_takes_no_other_files_memory_along() {
    let file = version(20, 9);
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(
        b"e",
        3,
        version(6, 0),
        vec![entry(b"f", Kind::File, version(30, 9))],
    );
    bed.event(3, mask::DELETE, b"f");
    bed.list(b"d", 2, version(4, 0), vec![entry(b"g", Kind::File, file)]);
    bed.looks(b"", b"");
    assert!(!bed.again(), "{:?}", bed.records);
}

/// Another directory has lain where that of a disposition's file was. It is back, and the file has another name there, and
/// another file its own.
#[test]
fn what_waits_to_be_disposed_of_is_found_under_another_name_when_its_directory_is_back() {
    let file = version(20, 9);
    let mut bed = Bed::start(concluded(file));
    bed.resolve(version(3, 0));
    bed.list(b"", 1, version(3, 0), Vec::new());
    bed.dispose(Answered::Gone);
    bed.turn(5000);
    bed.input(Input::Command(Command::Rescan));
    bed.resolve(version(2, 0));
    let entries = vec![
        entry(b"d", Kind::Dir, version(4, 0)),
        entry(b"f", Kind::File, version(30, 9)),
        entry(b"g", Kind::File, file),
    ];
    bed.list(b"", 2, version(2, 0), entries);
    bed.looks(b"f", b"");
    bed.list(b"d", 3, version(4, 0), Vec::new());
    bed.looks(b"f", b"");
    let of_it = |q: &Question| matches!(q, Question::Dispose { place, .. } if place.rel == b"g");
    assert!(
        bed.take(of_it).is_some(),
        "{:?} {:?}",
        bed.asked,
        bed.records
    );
}

/// Its file was renamed, another that is remembered has its name now, and where the renamed one went from there was not
/// heard: the answer that it is gone does not mean that it is under its first name.
#[test]
fn a_disposition_does_not_go_back_to_a_name_that_another_file_has() {
    let (file, other) = (version(20, 9), version(30, 9));
    let mut records = concluded(file);
    records.push(remembers(1, b"k", other));
    let mut bed = Bed::start(records);
    bed.resolve(version(2, 0));
    let entries = vec![
        entry(b"f", Kind::File, file),
        entry(b"k", Kind::File, other),
    ];
    bed.list(b"", 1, version(2, 0), entries);
    bed.renames(1, b"f", b"h");
    bed.renames(2, b"k", b"f");
    bed.dispose(Answered::Changed);
    let of_it = |q: &Question| matches!(q, Question::Dispose { place, .. } if place.rel == b"h");
    let ask = bed.take(of_it).expect("no disposition is asked for");
    bed.answer(ask, vec![Answer::Disposed(Ok(Answered::Gone))]);
    bed.looks(b"f", b"h");
    let other_again =
        |record: &Record| matches!(record, Record::Settled { version, .. } if version.ino == 30);
    assert!(!bed.records.iter().any(other_again), "{:?}", bed.records);
    let back =
        |record: &Record| matches!(record, Record::Renamed { to_name, .. } if to_name == b"f");
    assert_eq!(bed.records.iter().filter(|r| back(r)).count(), 1);
}

/// A file was renamed while nobody looked, the one that has its name now was begun before the scan had found that, and
/// the daemon was killed: what is concluded at the next start, before anything is listed, leaves the first remembered.
#[test]
fn what_a_job_that_is_held_at_a_start_came_in_place_of_is_still_remembered() {
    let (file, other) = (version(20, 9), version(30, 9));
    let mut records = concluded(other);
    records.pop();
    records.insert(3, remembers(1, b"f", file));
    let mut bed = Bed::with("delivery = \"at-most-once\"\n", records);
    bed.input(Input::Slot {
        slot: 0,
        taken: false,
    });
    let held = |record: &Record| {
        matches!(
            record,
            Record::Concluded {
                outcome: Outcome::Held,
                ..
            }
        )
    };
    assert!(bed.records.iter().any(held), "{:?}", bed.records);
    bed.resolve(version(2, 0));
    let entries = vec![
        entry(b"f", Kind::File, other),
        entry(b"g", Kind::File, file),
    ];
    bed.list(b"", 1, version(2, 0), entries);
    bed.looks(b"f", b"");
    assert!(!bed.again(), "{:?}", bed.records);
}

/// Without a watch descriptor no event tells: what one listing misses may have been renamed into a directory whose turn
/// comes later.
#[test]
fn a_listing_of_a_directory_without_a_watch_says_nothing_of_where_its_files_went() {
    let file = version(20, 9);
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    for (rel, ino) in [(b"d", 4), (b"e", 6)] {
        let of = |q: &Question| matches!(q, Question::Bind { place, .. } if place.rel == rel);
        let ask = bed.take(of).expect("nobody asked for the directory");
        let bound = Bound {
            wd: Some(Err(28)),
            ident: version(ino, 0),
            ctime_ns: 0,
        };
        let there = match rel {
            b"e" => vec![entry(b"f", Kind::File, file)],
            _ => Vec::new(),
        };
        bed.answer(
            ask,
            vec![
                Answer::Bound(Ok(bound)),
                Answer::Entries(there),
                Answer::Listed(Ok(())),
            ],
        );
    }
    bed.turn(10);
    bed.records.clear();
    // Something wants `e` listed, and nothing else.
    bed.event(1, mask::CREATE | mask::ISDIR, b"e");
    bed.list(b"e", 3, version(6, 0), Vec::new());
    let gone = |record: &Record| matches!(record, Record::Gone { .. });
    assert!(!bed.records.iter().any(gone), "{:?}", bed.records);
}

/// A job's file is looked at after its command, was renamed before that, and the scan that finds it under its new name is
/// done before the answer is there: what lies under the former name is another file.
#[test]
fn a_look_at_a_name_that_the_file_has_no_longer_says_nothing_of_it() {
    let (file, other) = (version(20, 9), version(30, 9));
    let mut bed = Bed::with("on_change = \"accept\"\n", Vec::new());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), vec![entry(b"f", Kind::File, file)]);
    bed.looks(b"", b"");
    let run = bed.runs.pop().expect("nothing is run");
    bed.input(Input::Ended {
        run,
        end: ChildEnd::Exit(0),
        output: Vec::new(),
    });
    let of_it = |q: &Question| matches!(q, Question::Probe { place, .. } if place.rel == b"f");
    let look = bed.take(of_it).expect("nobody looks at it");
    bed.input(Input::Command(Command::Rescan));
    bed.resolve(version(2, 0));
    let entries = vec![
        entry(b"f", Kind::File, other),
        entry(b"g", Kind::File, file),
    ];
    bed.list(b"", 1, version(2, 0), entries);
    let facts = Facts {
        stat: stat(Kind::File, other),
        lock: Held::NotAsked,
        flock: Held::NotAsked,
        lease: Held::NotAsked,
    };
    bed.answer(look, vec![Answer::Probed(Ok(facts))]);
    bed.looks(b"f", b"");
    let concluded = bed.records.iter().find_map(|record| match record {
        Record::Concluded { version, .. } => Some(*version),
        _ => None,
    });
    assert_eq!(concluded, Some(file), "{:?}", bed.records);
}

/// Dead, and everything behind it waits until its file is replaced: also by one that was done with under that name before.
#[test]
fn a_halted_job_is_over_when_a_file_that_was_done_with_has_its_name() {
    let (file, other) = (version(20, 9), version(30, 9));
    let mut records = concluded(other);
    records.pop();
    records.insert(3, remembers(1, b"f", file));
    records.push(Record::Ended {
        job: JobId(7),
        attempt: 1,
        end: AttemptEnd::Exit(65),
        counted: 1,
        not_before: Wall(i64::MAX),
        output: Vec::new(),
    });
    let mut bed = Bed::with("on_dead = \"halt\"\nattempts = 1\n", records);
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), vec![entry(b"f", Kind::File, other)]);
    bed.looks(b"f", b"");
    let over = |bed: &Bed| {
        let of_it =
            |record: &&Record| matches!(record, Record::Concluded { job, .. } if *job == JobId(7));
        bed.records.iter().find(of_it).is_some()
    };
    assert!(!over(&bed), "{:?}", bed.records);
    bed.event(1, mask::MOVED_TO, b"f");
    bed.looks(b"", b"");
    assert!(over(&bed), "{:?}", bed.records);
}
