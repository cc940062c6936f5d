//! Deliveries, on real files: what arrives, what is refused, and that they can be killed at any moment and asked again.
#![allow(clippy::unwrap_used)]

#[path = "deliver/process.rs"]
mod process;

use settled::core::delivery::{DeliverOrder, SweepOrder};
use settled::deliver::{Delivered, Deliverer, Swept, Undelivered, sweep};
use settled::mover::Rung;
use settled::plan::{DeliverCheck, OnConflict};
use std::cell::RefCell;
use std::fs::{self, File, FileTimes};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

const CONTENT: &[u8] = b"what was uploaded";
const TEMPORARY: &str = ".settled-5e771ed0-18~";

/// A file to deliver, and a directory that it goes to.
struct Yard {
    from: TempDir,
    to: TempDir,
}

impl Yard {
    /// `far`: the target is on another filesystem.
    fn new(far: bool, content: &[u8]) -> Yard {
        let disk = env!("CARGO_TARGET_TMPDIR");
        let from = TempDir::new_in(disk).unwrap();
        let to = TempDir::new_in(if far { "/dev/shm" } else { disk }).unwrap();
        let devices = [&from, &to].map(|dir| fs::metadata(dir.path()).unwrap().dev());
        assert_eq!(
            devices[0] != devices[1],
            far,
            "the test needs /dev/shm to be a filesystem of its own"
        );
        let yard = Yard { from, to };
        fs::write(yard.file(), content).unwrap();
        fs::set_permissions(yard.file(), fs::Permissions::from_mode(0o640)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let times = FileTimes::new().set_modified(time).set_accessed(time);
        let file = File::options().write(true).open(yard.file()).unwrap();
        file.set_times(times).unwrap();
        yard
    }

    fn file(&self) -> PathBuf {
        self.from.path().join("a.csv")
    }

    /// In a directory that is not there yet.
    fn top(&self) -> PathBuf {
        self.to.path().join("out/b")
    }

    fn target(&self) -> PathBuf {
        self.top().join("in/a.csv")
    }

    fn order(&self) -> DeliverOrder {
        let meta = fs::metadata(self.file()).unwrap();
        DeliverOrder {
            to: self.top().as_os_str().as_bytes().to_vec(),
            rel: b"in/a.csv".to_vec(),
            job: "5e771ed0-18".into(),
            recovered: false,
            size: meta.len(),
            mtime_ns: meta.mtime() * 1_000_000_000 + meta.mtime_nsec(),
            verify: DeliverCheck::Sha256,
            mode: None,
            owner: (None, None),
            keep_times: true,
            on_conflict: OnConflict::Fail,
        }
    }

    fn ask(&self, order: &DeliverOrder) -> Result<Delivered, Undelivered> {
        self.ask_with(order, Rung::NoReplace, |_| {})
    }

    fn ask_with(
        &self,
        order: &DeliverOrder,
        rung: Rung,
        step: impl FnMut(&'static str),
    ) -> Result<Delivered, Undelivered> {
        let source = File::open(self.file()).unwrap();
        let mut deliverer = Deliverer::new(step);
        deliverer.rung = rung;
        deliverer.deliver(source.as_fd(), order)
    }

    /// What is in the target directory, with the bytes of files.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
            let Ok(entries) = fs::read_dir(dir) else {
                return;
            };
            for entry in entries {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, files),
                    false => files.push((path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.top(), &mut files);
        files.sort();
        files
    }

    /// Those that a watch there would see.
    fn visible(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = self.files();
        files.retain(|(path, _)| path.file_name() != Some(TEMPORARY.as_ref()));
        files
    }

    /// Puts something under the target's name.
    fn occupy(&self, content: &[u8]) {
        fs::create_dir_all(self.target().parent().unwrap()).unwrap();
        fs::write(self.target(), content).unwrap();
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.target().with_file_name(name)
    }
}

fn named(rel: &str) -> Result<Delivered, Undelivered> {
    Ok(Delivered::As(rel.as_bytes().to_vec()))
}

/// A process that ends: nothing of it runs any more but the closing of its descriptors.
struct Killed;

/// Asks, and ends the delivery just before its step `at`. `None` if it has no such step.
fn kill_at(yard: &Yard, order: &DeliverOrder, rung: Rung, at: usize) -> Option<&'static str> {
    let mut steps = 0;
    let last = RefCell::new("");
    let result = catch_unwind(AssertUnwindSafe(|| {
        yard.ask_with(order, rung, |step| {
            last.replace(step);
            if steps == at {
                resume_unwind(Box::new(Killed));
            }
            steps += 1;
        })
    }));
    match result {
        Ok(answer) => {
            assert!(answer.is_ok(), "{answer:?}");
            None
        }
        Err(payload) if payload.is::<Killed>() => Some(last.into_inner()),
        Err(payload) => resume_unwind(payload),
    }
}

/// Kills it at every step, and at every step of the attempt after that; then lets it finish.
fn matrix(far: bool, rung: Rung, on_conflict: OnConflict) -> usize {
    let mut points = 0;
    for first in 0.. {
        let mut reached = false;
        for second in 0.. {
            let yard = Yard::new(far, CONTENT);
            let replaces = on_conflict == OnConflict::Replace;
            if replaces {
                yard.occupy(b"older");
            }
            let whole = [(yard.target(), CONTENT.to_vec())];
            let before = match replaces {
                true => vec![(yard.target(), b"older".to_vec())],
                false => Vec::new(),
            };
            let assert_nothing_or_whole = |context: &str| {
                let mut files = yard.visible();
                if rung == Rung::Placeholder && !replaces {
                    files.retain(|(_, bytes)| !bytes.is_empty());
                }
                assert!(files == before || files == whole, "{context}: {files:?}");
            };
            let mut order = yard.order();
            order.on_conflict = on_conflict;
            let Some(step) = kill_at(&yard, &order, rung, first) else {
                break;
            };
            reached = true;
            assert_nothing_or_whole(step);
            order.recovered = true;
            let again = kill_at(&yard, &order, rung, second);
            let context = format!("killed before {step:?}, then before {again:?}");
            assert_nothing_or_whole(&context);
            let answer = yard.ask_with(&order, rung, |_| {});
            assert!(
                matches!(answer, Ok(Delivered::As(_) | Delivered::Before(_))),
                "{context}: {answer:?}"
            );
            assert_eq!(yard.files(), whole, "{context}");
            points += 1;
            if again.is_none() {
                break;
            }
        }
        if !reached {
            return points;
        }
    }
    unreachable!()
}

#[test]
fn killed_at_any_step() {
    for far in [false, true] {
        assert!(matrix(far, Rung::NoReplace, OnConflict::Fail) >= 60);
        assert!(matrix(far, Rung::NoReplace, OnConflict::Rename) >= 60);
    }
}

#[test]
fn killed_at_any_step_of_a_replacement() {
    assert!(matrix(true, Rung::NoReplace, OnConflict::Replace) >= 40);
}

#[test]
fn killed_at_any_step_where_names_are_given_otherwise() {
    assert!(matrix(false, Rung::Link, OnConflict::Rename) >= 60);
    assert!(matrix(false, Rung::Placeholder, OnConflict::Fail) >= 60);
}

#[test]
fn a_copy_is_like_its_source() {
    for far in [false, true] {
        let yard = Yard::new(far, CONTENT);
        let before = fs::metadata(yard.file()).unwrap();
        assert_eq!(yard.ask(&yard.order()), named("in/a.csv"));
        let after = fs::metadata(yard.target()).unwrap();
        assert_eq!(yard.files(), [(yard.target(), CONTENT.to_vec())]);
        assert_eq!(fs::read(yard.file()).unwrap(), CONTENT);
        let like = |meta: &fs::Metadata| (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.len());
        assert_eq!(like(&after), like(&before));
        assert_eq!(
            (after.atime(), after.atime_nsec()),
            (1_700_000_000, 123_456_789),
            "reading it back is no access"
        );
    }
}

#[test]
fn mode_owner_and_times_as_configured() {
    let yard = Yard::new(true, CONTENT);
    let mut order = yard.order();
    (order.mode, order.keep_times) = (Some(0o2604), false);
    let root = nix::unistd::geteuid().is_root();
    if root {
        order.owner = (Some(12_345), Some(54_321));
    } else {
        eprintln!("SKIPPED: another owner, for only root can give files away");
    }
    assert_eq!(yard.ask(&order), named("in/a.csv"));
    let meta = fs::metadata(yard.target()).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o2604);
    assert!(meta.mtime() > 1_700_000_000, "the time of the copy");
    if root {
        assert_eq!((meta.uid(), meta.gid()), (12_345, 54_321));
    }
    // What only somebody else's right would let run as somebody else is not copied.
    let yard = Yard::new(false, CONTENT);
    fs::set_permissions(yard.file(), fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(yard.ask(&yard.order()), named("in/a.csv"));
    let meta = fs::metadata(yard.target()).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o755);
}

#[test]
fn big_and_empty_files_arrive_whole() {
    for (far, size) in [(true, 0), (true, 1), (false, 131_072), (true, 20_000_017)] {
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n / 4096 + n) as u8).collect();
        for verify in [DeliverCheck::Size, DeliverCheck::Sha256] {
            let yard = Yard::new(far, &bytes);
            let order = DeliverOrder {
                verify,
                ..yard.order()
            };
            assert_eq!(yard.ask(&order), named("in/a.csv"));
            let files = yard.files();
            assert!(files == [(yard.target(), bytes.clone())], "{size} {far}");
        }
    }
}

#[test]
fn holes_stay_holes() {
    const MIB: u64 = 1 << 20;
    for (far, data, size) in [
        (false, vec![0, 10 * MIB], 12 * MIB),
        (true, vec![3 * MIB, 9 * MIB], 9 * MIB + 3),
        (true, vec![], 8 * MIB),
    ] {
        let yard = Yard::new(far, b"");
        let file = File::options().write(true).open(yard.file()).unwrap();
        for at in &data {
            file.write_all_at(b"end", *at).unwrap();
        }
        file.set_len(size).unwrap();
        let source = fs::metadata(yard.file()).unwrap();
        assert!(source.blocks() * 512 < MIB, "the source is sparse");
        assert_eq!(yard.ask(&yard.order()), named("in/a.csv"));
        let copy = fs::metadata(yard.target()).unwrap();
        assert!(copy.blocks() * 512 < MIB, "{} blocks", copy.blocks());
        assert!(fs::read(yard.file()).unwrap() == fs::read(yard.target()).unwrap());
    }
}

#[test]
fn what_has_the_name_is_kept_or_replaced_as_configured() {
    for (on_conflict, answer, expected) in [
        (
            OnConflict::Fail,
            Err(Undelivered::Conflict),
            b"older".as_slice(),
        ),
        (OnConflict::Skip, Ok(Delivered::Skipped), b"older"),
        (OnConflict::Replace, named("in/a.csv"), CONTENT),
    ] {
        for rung in [Rung::NoReplace, Rung::Link, Rung::Placeholder] {
            for late in [false, true] {
                let yard = Yard::new(true, CONTENT);
                if !late {
                    yard.occupy(b"older");
                }
                let order = DeliverOrder {
                    on_conflict,
                    ..yard.order()
                };
                let got = yard.ask_with(&order, rung, |step| {
                    // Somebody else is quicker by a hair.
                    if late && step == "rename" {
                        yard.occupy(b"older");
                    }
                });
                assert_eq!(got, answer, "{rung:?} {late}");
                assert_eq!(yard.files(), [(yard.target(), expected.to_vec())]);
            }
        }
    }
}

#[test]
fn a_taken_name_gets_a_number() {
    for rung in [Rung::NoReplace, Rung::Link, Rung::Placeholder] {
        let yard = Yard::new(true, CONTENT);
        yard.occupy(b"older");
        fs::write(yard.beside("a.1.csv"), b"old").unwrap();
        let mut order = yard.order();
        order.on_conflict = OnConflict::Rename;
        assert_eq!(
            yard.ask_with(&order, rung, |_| {}),
            named("in/a.2.csv"),
            "{rung:?}"
        );
        let expected = [
            (yard.beside("a.1.csv"), b"old".to_vec()),
            (yard.beside("a.2.csv"), CONTENT.to_vec()),
            (yard.target(), b"older".to_vec()),
        ];
        assert_eq!(yard.files(), expected);
        // The same bytes once more are another delivery, unless this one is said to have been cut short.
        order.recovered = true;
        let before = Ok(Delivered::Before(b"in/a.2.csv".to_vec()));
        assert_eq!(yard.ask(&order), before);
        assert_eq!(yard.files(), expected);
        order.recovered = false;
        assert_eq!(yard.ask(&order), named("in/a.3.csv"));
    }
}

#[test]
fn a_target_with_other_bytes_is_not_what_an_earlier_attempt_made() {
    let yard = Yard::new(true, CONTENT);
    let mut other = CONTENT.to_vec();
    other[3] ^= 1;
    yard.occupy(&other);
    let mut order = yard.order();
    order.recovered = true;
    assert_eq!(yard.ask(&order), Err(Undelivered::Conflict));
    order.on_conflict = OnConflict::Replace;
    assert_eq!(yard.ask(&order), named("in/a.csv"));
    order.on_conflict = OnConflict::Fail;
    let before = Ok(Delivered::Before(b"in/a.csv".to_vec()));
    assert_eq!(yard.ask(&order), before);
}

#[test]
fn a_directory_is_not_replaced() {
    let yard = Yard::new(false, CONTENT);
    fs::create_dir_all(yard.target()).unwrap();
    for on_conflict in [OnConflict::Replace, OnConflict::Fail] {
        let order = DeliverOrder {
            on_conflict,
            ..yard.order()
        };
        assert_eq!(yard.ask(&order), Err(Undelivered::Conflict));
    }
    assert!(yard.target().is_dir());
    assert_eq!(yard.files(), []);
}

#[test]
fn links_lead_to_the_target_and_not_out_of_it() {
    let yard = Yard::new(false, CONTENT);
    let elsewhere = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::create_dir(elsewhere.path().join("b")).unwrap();
    symlink(elsewhere.path(), yard.to.path().join("out")).unwrap();
    assert_eq!(yard.ask(&yard.order()), named("in/a.csv"));
    let arrived = elsewhere.path().join("b/in/a.csv");
    assert_eq!(fs::read(&arrived).unwrap(), CONTENT);

    // A link below the target directory, in the middle: refused.
    fs::remove_dir_all(elsewhere.path().join("b/in")).unwrap();
    fs::create_dir(elsewhere.path().join("outside")).unwrap();
    symlink(
        elsewhere.path().join("outside"),
        elsewhere.path().join("b/in"),
    )
    .unwrap();
    let answer = yard.ask(&yard.order());
    assert!(
        matches!(&answer, Err(Undelivered::Failed(why)) if why.errno == nix::errno::Errno::ENOTDIR),
        "{answer:?}"
    );
    assert_eq!(
        fs::read_dir(elsewhere.path().join("outside"))
            .unwrap()
            .count(),
        0
    );

    // At its end: it has the name, and is itself what is replaced.
    fs::remove_file(elsewhere.path().join("b/in")).unwrap();
    fs::create_dir(elsewhere.path().join("b/in")).unwrap();
    let victim = elsewhere.path().join("outside/victim");
    fs::write(&victim, b"older").unwrap();
    symlink(&victim, &arrived).unwrap();
    assert_eq!(yard.ask(&yard.order()), Err(Undelivered::Conflict));
    let mut order = yard.order();
    order.on_conflict = OnConflict::Replace;
    assert_eq!(yard.ask(&order), named("in/a.csv"));
    assert!(!arrived.is_symlink());
    assert_eq!(fs::read(&victim).unwrap(), b"older");
}

#[test]
fn a_source_that_changes_is_not_delivered() {
    for verify in [DeliverCheck::Size, DeliverCheck::Sha256] {
        for moment in ["make hidden file", "copy"] {
            let yard = Yard::new(true, CONTENT);
            let order = DeliverOrder {
                verify,
                ..yard.order()
            };
            let answer = yard.ask_with(&order, Rung::NoReplace, |step| {
                if step == moment {
                    let file = File::options().append(true).open(yard.file()).unwrap();
                    file.write_all_at(b" and more", 0).unwrap();
                }
            });
            assert_eq!(answer, Err(Undelivered::Changed), "{moment}");
            assert_eq!(yard.files(), []);
            // Nor is it begun with another version.
            assert_eq!(yard.ask(&order), Err(Undelivered::Changed));
        }
    }
}

/// What a bad disk, wire or driver would do: the hidden file is not what was written.
fn damage(yard: &Yard, harm: impl Fn(&File)) {
    let file = File::options().write(true).open(yard.top().join(TEMPORARY));
    harm(&file.unwrap());
}

#[test]
fn a_damaged_copy_does_not_get_its_name() {
    for (verify, what, harm) in [
        (
            DeliverCheck::Sha256,
            "SHA-256",
            &(|file: &File| file.write_all_at(b"W", 0).unwrap()) as &dyn Fn(&File),
        ),
        (DeliverCheck::Sha256, "size", &|file| {
            file.set_len(3).unwrap()
        }),
        (DeliverCheck::Size, "size", &|file| {
            file.set_len(99).unwrap()
        }),
    ] {
        for far in [false, true] {
            let yard = Yard::new(far, CONTENT);
            let order = DeliverOrder {
                verify,
                ..yard.order()
            };
            let answer = yard.ask_with(&order, Rung::NoReplace, |step| {
                if step == "check" {
                    damage(&yard, harm);
                }
            });
            assert_eq!(answer, Err(Undelivered::Differs(what)));
            assert_eq!(yard.files(), [], "it is removed");
            assert_eq!(yard.ask(&order), named("in/a.csv"));
        }
    }
}

#[test]
fn a_sweep_removes_what_is_dead_and_nothing_else() {
    let yard = Yard::new(true, CONTENT);
    let order = SweepOrder {
        dir: yard.top().as_os_str().as_bytes().to_vec(),
        journal: "5e771ed0".into(),
    };
    assert_eq!(sweep(&order), Ok(Swept::default()), "nothing is there");
    assert!(!yard.top().exists());
    fs::create_dir_all(yard.top().join(".settled-5e771ed0-4~")).unwrap();
    for name in [
        ".settled-5e771ed0-1~",
        ".settled-5e771ed0-2~",
        ".settled-5e771ed0-3~",
        ".settled-00000000-1~",
        ".settled-5e771ed0-1",
        "a.csv~",
    ] {
        fs::write(yard.top().join(name), b"part").unwrap();
    }
    let alive = File::open(yard.top().join(".settled-5e771ed0-2~")).unwrap();
    alive.lock().unwrap();
    let expected = Swept {
        removed: 2,
        left: 2,
    };
    assert_eq!(sweep(&order), Ok(expected));
    let mut names: Vec<_> = fs::read_dir(yard.top())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let kept = [
        ".settled-00000000-1~",
        ".settled-5e771ed0-1",
        ".settled-5e771ed0-2~",
        ".settled-5e771ed0-4~",
        "a.csv~",
    ];
    assert_eq!(names, kept);
}

#[test]
fn a_sweep_leaves_a_delivery_alone_at_every_step() {
    let yard = Yard::new(true, CONTENT);
    let order = SweepOrder {
        dir: yard.top().as_os_str().as_bytes().to_vec(),
        journal: "5e771ed0".into(),
    };
    let swept = RefCell::new(Vec::new());
    let answer = yard.ask_with(&yard.order(), Rung::NoReplace, |step| {
        if step == "lock hidden file" && !swept.borrow().is_empty() {
            return;
        }
        let found = sweep(&order).unwrap();
        if found != Swept::default() {
            swept.borrow_mut().push((step, found.removed));
        }
    });
    assert_eq!(answer, named("in/a.csv"));
    let swept = swept.into_inner();
    // Once, in the moment when it was not locked yet: then it is made again.
    assert_eq!(swept.first(), Some(&("lock hidden file", 1)));
    assert!(swept.len() > 3 && swept.iter().skip(1).all(|(_, removed)| *removed == 0));
    assert_eq!(yard.files(), [(yard.target(), CONTENT.to_vec())]);
}
