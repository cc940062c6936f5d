//! What goes, and is heard to go, while a scan is under way: it is gone, and nothing is kept or waits because of it.

use super::moves::{remembered, root};
use super::*;

impl Bed {
    fn ev(&mut self, wd: i32, mask: u32, cookie: u32, name: &[u8]) {
        self.input(Input::Event {
            wd,
            mask,
            cookie,
            name: name.to_vec(),
        });
    }

    /// The directory is found if somebody asks for it.
    fn found(&mut self, rel: &[u8], wd: Result<i32, i32>, ino: u64, there: Vec<Entry>) {
        let of = |q: &Question| matches!(q, Question::Bind { place, .. } if place.rel == rel);
        let Some(ask) = self.take(of) else {
            return;
        };
        let bound = Bound {
            wd: Some(wd),
            ident: version(ino, 0),
            ctime_ns: 0,
        };
        self.answer(
            ask,
            vec![
                Answer::Bound(Ok(bound)),
                Answer::Entries(there),
                Answer::Listed(Ok(())),
            ],
        );
    }

    fn not_found(&mut self, rel: &[u8]) {
        let of = |q: &Question| matches!(q, Question::Bind { place, .. } if place.rel == rel);
        if let Some(ask) = self.take(of) {
            self.answer(ask, vec![Answer::Bound(Err(Fault::Here(2)))]);
        }
    }

    fn all_looks(&mut self, find: impl Fn(&[u8]) -> Option<Version>) {
        while let Some((_, q)) =
            (self.asked.iter()).find(|(_, q)| matches!(q, Question::Probe { .. }))
        {
            let Question::Probe { place, .. } = q else {
                continue;
            };
            let rel = place.rel.clone();
            match find(&rel) {
                Some(version) => self.look(&rel, version),
                None => {
                    let of = |q: &Question| matches!(q, Question::Probe { place, .. } if place.rel == rel);
                    let ask = self.take(of).unwrap();
                    self.answer(ask, vec![Answer::Probed(Err(Fault::Here(2)))]);
                }
            }
        }
    }

    /// How many are remembered in the root, which has none.
    fn in_root(&self) -> usize {
        let of_root = |r: &Record| {
            matches!(
                r,
                Record::Remembered {
                    dir: DirId(1),
                    state: 0,
                    ..
                }
            )
        };
        self.core.snapshot().filter(of_root).count()
    }

    fn settled(&self, ino: u64) -> usize {
        let of_it =
            |r: &&Record| matches!(r, Record::Settled { version, .. } if version.ino == ino);
        self.records.iter().filter(of_it).count()
    }
}

/// The watch has a directory without an inotify watch, and another whose files are deleted.
#[test]
fn deletions_leave_nothing_where_a_directory_has_no_watch() {
    let mut records = remembered();
    for n in 0..10u64 {
        records.push(remembers(
            3,
            format!("x{n}").as_bytes(),
            version(100 + n, 9),
        ));
    }
    let mut bed = Bed::start(records);
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.found(b"d", Err(28), 4, vec![]);
    let mut there = vec![entry(b"f", Kind::File, version(20, 9))];
    for n in 0..10u64 {
        there.push(entry(
            format!("x{n}").as_bytes(),
            Kind::File,
            version(100 + n, 9),
        ));
    }
    bed.found(b"e", Ok(3), 6, there);
    bed.turn(10);
    for n in 0..10 {
        bed.ev(3, mask::DELETE, 0, format!("x{n}").as_bytes());
    }
    for _ in 0..600 {
        bed.turn(100);
        bed.found(b"d", Err(28), 4, vec![]);
    }
    bed.input(Input::Command(Command::Rescan));
    for _ in 0..600 {
        bed.turn(100);
        if bed
            .asked
            .iter()
            .any(|(_, q)| matches!(q, Question::Resolve { .. }))
        {
            bed.resolve(version(2, 0));
        }
        bed.found(b"", Ok(1), 2, root());
        bed.found(b"d", Err(28), 4, vec![]);
        bed.found(
            b"e",
            Ok(3),
            6,
            vec![entry(b"f", Kind::File, version(20, 9))],
        );
    }
    assert_eq!(bed.in_root(), 0);
}

/// A root is away, and files go from a directory of it that is heard of still.
#[test]
fn what_goes_while_the_root_is_missing_is_not_waited_for() {
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(b"d", 2, version(4, 0), vec![]);
    bed.list(
        b"e",
        3,
        version(6, 0),
        vec![entry(b"f", Kind::File, version(20, 9))],
    );
    bed.turn(10);
    bed.ev(1, mask::MOVE_SELF, 0, b"");
    let ask = bed.take(|q| matches!(q, Question::Resolve { .. })).unwrap();
    bed.answer(ask, vec![Answer::Resolved(Err(2))]);
    for n in 0..50u32 {
        bed.ev(3, mask::MOVED_FROM, 100 + n, format!("n{n}").as_bytes());
    }
    for _ in 0..600 {
        bed.turn(100);
        if let Some(ask) = bed.take(|q| matches!(q, Question::Resolve { .. })) {
            bed.answer(ask, vec![Answer::Resolved(Err(2))]);
        }
    }
    let text = format!("{:?}", bed.core);
    let halves = text.matches("HalfRename {").count();
    assert_eq!(halves, 0);
}

/// A file is renamed away, a poll misses it, and it is renamed back.
#[test]
fn what_was_seen_gone_and_is_put_back_is_new_where_directories_are_polled() {
    let file = version(20, 9);
    let mut bed = Bed::with("observe = \"both\"\npoll = \"10m\"\n", remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(b"d", 2, version(4, 0), vec![]);
    bed.list(b"e", 3, version(6, 0), vec![entry(b"f", Kind::File, file)]);
    bed.turn(10);
    bed.ev(3, mask::MOVED_FROM, 7, b"f");
    let poll = |bed: &mut Bed, there: bool| {
        bed.found(b"", Ok(1), 2, root());
        bed.found(b"d", Ok(2), 4, vec![]);
        let there = if there {
            vec![entry(b"f", Kind::File, file)]
        } else {
            vec![]
        };
        bed.found(b"e", Ok(3), 6, there);
    };
    // Eleven minutes: one poll.
    for _ in 0..6600 {
        bed.turn(100);
        poll(&mut bed, false);
    }
    bed.ev(3, mask::MOVED_TO, 8, b"f");
    for _ in 0..40000 {
        bed.turn(100);
        bed.all_looks(|_| Some(file));
        poll(&mut bed, true);
    }
    assert_eq!(bed.settled(20), 1);
}

/// A file is deleted and, as it has another link, there again, with a scan under way.
#[test]
fn what_is_deleted_and_put_back_during_a_scan_is_new() {
    let file = version(20, 9);
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(b"e", 3, version(6, 0), vec![entry(b"f", Kind::File, file)]);
    bed.ev(3, mask::DELETE, 0, b"f");
    bed.turn(1000);
    bed.ev(3, mask::MOVED_TO, 8, b"f");
    bed.turn(1000);
    bed.list(b"d", 2, version(4, 0), vec![]);
    for _ in 0..100 {
        bed.turn(100);
        bed.all_looks(|_| Some(file));
    }
    assert_eq!(bed.settled(20), 1);
}

/// Its disposition is tried again later; its file and directory are deleted, and there is a new one.
#[test]
fn a_disposition_ends_whose_directory_was_deleted_and_made_again_during_a_scan() {
    let file = version(20, 9);
    let mut records = remembered();
    records.pop();
    records.push(Record::Settled {
        job: JobId(7),
        dir: DirId(3),
        name: b"f".to_vec(),
        version: file,
        ctime_ns: 5,
        reruns: 0,
    });
    records.push(Record::Started {
        job: JobId(7),
        attempt: 1,
        slot: 0,
    });
    records.push(Record::Concluded {
        job: JobId(7),
        outcome: Outcome::Done,
        end: Some(AttemptEnd::Exit(0)),
        disposal: Disposal::Delete,
        version: file,
        ctime_ns: 5,
        output: vec![],
    });
    let mut bed = Bed::start(records);
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(b"e", 3, version(6, 0), vec![entry(b"f", Kind::File, file)]);
    let dispose = |bed: &mut Bed, with: Answered| {
        let Some(ask) = bed.take(|q| matches!(q, Question::Dispose { .. })) else {
            return;
        };
        bed.answer(ask, vec![Answer::Disposed(Ok(with))]);
    };
    // The disk of the target is full, say.
    dispose(
        &mut bed,
        Answered::Failed {
            errno: 28,
            step: "rename".to_string(),
        },
    );
    bed.ev(3, mask::DELETE, 0, b"f");
    bed.ev(1, mask::DELETE | mask::ISDIR, 0, b"e");
    bed.ev(1, mask::CREATE | mask::ISDIR, 0, b"e");
    bed.found(b"e", Ok(5), 8, vec![]);
    bed.found(b"d", Ok(2), 4, vec![]);
    for _ in 0..36000 {
        bed.turn(100);
        bed.all_looks(|_| None);
        dispose(&mut bed, Answered::Gone);
        bed.found(b"", Ok(1), 2, root());
        bed.found(b"d", Ok(2), 4, vec![]);
        bed.found(b"e", Ok(5), 8, vec![]);
    }
    let over = bed
        .records
        .iter()
        .any(|r| matches!(r, Record::Disposed { .. }));
    assert!(over, "{:?}", bed.records);
}

/// The scout has opened the directory before it was deleted, and says so after the event.
#[test]
fn a_directory_that_is_opened_and_then_deleted_is_forgotten() {
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    let ask = bed
        .take(|q| matches!(q, Question::Bind { place, .. } if place.rel == b"e"))
        .unwrap();
    bed.ev(1, mask::DELETE | mask::ISDIR, 0, b"e");
    let bound = Bound {
        wd: Some(Ok(3)),
        ident: version(6, 0),
        ctime_ns: 0,
    };
    // readdir of a directory that is deleted: ENOENT.
    bed.answer(
        ask,
        vec![
            Answer::Bound(Ok(bound)),
            Answer::Listed(Err(Fault::Here(2))),
        ],
    );
    bed.ev(3, mask::DELETE_SELF, 0, b"");
    bed.ev(3, mask::IGNORED, 0, b"");
    for _ in 0..10 {
        bed.turn(10);
        bed.not_found(b"e");
    }
    bed.list(b"d", 2, version(4, 0), vec![]);
    for _ in 0..6000 {
        bed.turn(100);
        bed.not_found(b"e");
    }
    let there = bed
        .core
        .snapshot()
        .any(|r| matches!(r, Record::Dir { dir: DirId(3), .. }));
    assert!(!there);
}

/// Deleted and made again between any two polls.
#[test]
fn a_directory_that_is_another_one_at_each_poll_holds_up_no_others_files() {
    let file = version(70, 9);
    let mut bed = Bed::with("observe = \"poll\"\nsettle = \"3s\"\n", remembered());
    bed.resolve(version(2, 0));
    let mut ino = 1000;
    let mut last = 0;
    for n in 0..1200 {
        bed.turn(100);
        bed.all_looks(|rel| {
            if rel == b"z" {
                Some(file)
            } else if rel == b"d/c" {
                Some(version(ino + 500_000, 9))
            } else {
                Some(version(20, 9))
            }
        });
        let of = |q: &Question| matches!(q, Question::Bind { place, .. } if place.rel.is_empty());
        if n >= last + 8 && bed.asked.iter().any(|(_, q)| of(q)) {
            ino += 1;
            last = n;
        }
        let mut there = vec![
            entry(b"d", Kind::Dir, version(ino, 0)),
            entry(b"e", Kind::Dir, version(6, 0)),
        ];
        if n > 100 {
            there.push(entry(b"z", Kind::File, file));
        }
        bed.found(b"", Ok(1), 2, there);
        bed.found(
            b"d",
            Ok(2),
            ino,
            vec![entry(b"c", Kind::File, version(ino + 500_000, 9))],
        );
        bed.found(
            b"e",
            Ok(3),
            6,
            vec![entry(b"f", Kind::File, version(20, 9))],
        );
    }
    assert_eq!(bed.settled(70), 1);
}

/// A directory is deleted, and another one is renamed into its place, with a scan under way. How often its file settles.
fn renamed_over(btime: bool) -> usize {
    let strip = |mut v: Version| {
        if !btime {
            v.btime_ns = 0;
        }
        v
    };
    let file = strip(version(20, 9));
    let mut records = remembered();
    records.pop();
    for (dir, name, v) in [(3, &b"f"[..], file), (2, b"x", strip(version(40, 9)))] {
        records.push(remembers(dir, name, v));
    }
    let mut bed = Bed::start(records);
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(
        b"d",
        2,
        version(4, 0),
        vec![entry(b"x", Kind::File, strip(version(40, 9)))],
    );
    bed.ev(2, mask::DELETE, 0, b"x");
    bed.ev(1, mask::DELETE | mask::ISDIR, 0, b"d");
    bed.ev(1, mask::MOVED_FROM | mask::ISDIR, 9, b"e");
    bed.ev(1, mask::MOVED_TO | mask::ISDIR, 9, b"d");
    for _ in 0..200 {
        bed.turn(100);
        bed.all_looks(|rel| (rel == b"d/f").then_some(file));
        bed.found(b"", Ok(1), 2, vec![entry(b"d", Kind::Dir, version(6, 0))]);
        bed.found(b"d", Ok(3), 6, vec![entry(b"f", Kind::File, file)]);
        bed.not_found(b"e");
    }
    bed.settled(20)
}

#[test]
fn what_a_directory_holds_goes_along_when_it_takes_a_deleted_ones_place() {
    assert_eq!(renamed_over(true), 0);
    // Where files have no birth times nothing tells but the rename.
    assert_eq!(renamed_over(false), 0);
}

/// A file is renamed into a directory whose coming was not heard, while one scan waits for a look and another is to follow,
/// which finds that directory.
#[test]
fn what_goes_where_only_the_next_scan_looks_is_found_by_it() {
    let file = version(20, 9);
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(
        b"d",
        2,
        version(4, 0),
        vec![entry(b"x", Kind::File, version(30, 9))],
    );
    bed.event(2, mask::CLOSE_WRITE, b"x");
    bed.input(Input::Command(Command::Rescan));
    bed.resolve(version(2, 0));
    bed.list(b"e", 3, version(6, 0), vec![entry(b"f", Kind::File, file)]);
    let everything = |bed: &mut Bed| {
        let mut all = root();
        all.push(entry(b"n", Kind::Dir, version(8, 0)));
        bed.found(b"", Ok(1), 2, all);
        let x = vec![entry(b"x", Kind::File, version(30, 9))];
        bed.found(b"d", Ok(2), 4, x);
        bed.found(b"e", Ok(3), 6, vec![]);
        bed.found(b"n", Ok(4), 8, vec![entry(b"g", Kind::File, file)]);
    };
    bed.ev(3, mask::MOVED_FROM, 7, b"f");
    for _ in 0..10 {
        bed.turn(100);
    }
    for _ in 0..100 {
        bed.turn(100);
        bed.all_looks(|rel| Some(if rel == b"n/g" { file } else { version(30, 9) }));
        everything(&mut bed);
    }
    assert_eq!(bed.settled(20), 0, "{:?}", bed.records);
}

/// A file is renamed into a directory whose coming was not heard, another comes under its name, and the daemon is killed
/// before the scan is over that has listed everything but that directory.
#[test]
fn what_is_remembered_beside_its_name_until_the_scan_ends_is_so_over_a_kill() {
    let (file, other) = (version(20, 9), version(30, 9));
    let f = |version| vec![entry(b"f", Kind::File, version)];
    let mut bed = Bed::start(remembered());
    bed.resolve(version(2, 0));
    bed.list(b"", 1, version(2, 0), root());
    bed.list(b"e", 3, version(6, 0), f(file));
    bed.ev(3, mask::MOVED_FROM, 7, b"f");
    bed.ev(3, mask::MOVED_TO, 8, b"f");
    let x = vec![entry(b"x", Kind::File, version(31, 9))];
    bed.list(b"d", 2, version(4, 0), x);
    // The scan waits for a look.
    bed.event(2, mask::CLOSE_WRITE, b"x");
    for _ in 0..10 {
        bed.turn(100);
    }
    let mut journal = remembered();
    journal.append(&mut bed.records);
    let mut bed = Bed::start(journal);
    bed.resolve(version(2, 0));
    let mut all = root();
    all.push(entry(b"n", Kind::Dir, version(8, 0)));
    bed.list(b"", 1, version(2, 0), all);
    bed.list(b"d", 2, version(4, 0), vec![]);
    bed.list(b"e", 3, version(6, 0), f(other));
    let g = vec![entry(b"g", Kind::File, file)];
    bed.list(b"n", 4, version(8, 0), g);
    for _ in 0..30 {
        bed.turn(100);
        bed.all_looks(|rel| Some(if rel == b"n/g" { file } else { other }));
    }
    assert_eq!(bed.settled(30), 1, "{:?}", bed.records);
    assert_eq!(bed.settled(20), 0, "{:?}", bed.records);
}
