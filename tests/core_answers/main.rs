//! Answers and events in the orders in which disks give them: single cases of what `sim` tries at random.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bed;
mod goings;
mod mounts;
mod moves;

use bed::*;
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
