//! The mover, on real files: what it does, what it refuses, and that it can be killed at any step and asked again.
#![allow(clippy::unwrap_used)]

use settled::core::ask::{Act, Disposal, Place, Version};
use settled::mover::{Ended, Mover, Order, Rung};
use settled::probe::{Prober, Wanted, resolve};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const PRIVATE: &str = ".settled-job-7";
const CONTENT: &[u8] = b"what was uploaded";

/// A directory to take files from and one to move them to.
struct Yard {
    from: TempDir,
    to: TempDir,
    expect: Version,
}

fn probe(path: &Path) -> Version {
    let resolved = resolve(path.parent().unwrap().as_os_str().as_bytes()).unwrap();
    let place = Place {
        base: resolved.path,
        mount: resolved.mount,
        rel: path.file_name().unwrap().as_bytes().to_vec(),
    };
    let wanted = Wanted {
        lock: true,
        ..Wanted::default()
    };
    Prober::new().probe(&place, wanted).unwrap().stat.version
}

impl Yard {
    /// With `in/a.csv` to be disposed of. `far`: the target is on another filesystem.
    fn new(far: bool) -> Yard {
        let disk = env!("CARGO_TARGET_TMPDIR");
        let from = TempDir::new_in(disk).unwrap();
        let to = TempDir::new_in(if far { "/dev/shm" } else { disk }).unwrap();
        fs::create_dir(from.path().join("in")).unwrap();
        let file = from.path().join("in/a.csv");
        fs::write(&file, CONTENT).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123_456_789);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(time)
            .unwrap();
        let devices = [&from, &to].map(|dir| fs::metadata(dir.path()).unwrap().dev());
        assert_eq!(
            devices[0] != devices[1],
            far,
            "the test needs /dev/shm to be a filesystem of its own"
        );
        let expect = probe(&file);
        Yard { from, to, expect }
    }

    fn file(&self) -> PathBuf {
        self.from.path().join("in/a.csv")
    }

    fn private(&self) -> PathBuf {
        self.from.path().join("in").join(PRIVATE)
    }

    /// Below directories that are not there yet.
    fn target(&self) -> PathBuf {
        self.to.path().join("archive/2026/in/a.csv")
    }

    fn act(&self) -> Act {
        self.act_as("in/a.csv")
    }

    fn act_as(&self, rel: &str) -> Act {
        Act::Move {
            dir: self
                .to
                .path()
                .join("archive/2026")
                .as_os_str()
                .as_bytes()
                .to_vec(),
            rel: rel.as_bytes().to_vec(),
        }
    }

    fn ask(&self, act: &Act) -> Disposal {
        self.ask_with(act, Rung::NoReplace, |_| {})
    }

    fn ask_with(&self, act: &Act, rung: Rung, step: impl FnMut(&'static str)) -> Disposal {
        let mut mover = Mover::new(step);
        mover.rung = rung;
        let base = File::open(self.from.path()).unwrap();
        let order = Order {
            rel: b"in/a.csv",
            private: PRIVATE.as_bytes(),
            expect: &self.expect,
            lease: true,
            act,
        };
        let ended = mover.dispose(base.as_fd(), &order);
        mover.sync().unwrap();
        match ended {
            Ended::Answer(disposal) => disposal,
            Ended::MustCopy => panic!("copying is allowed"),
        }
    }

    /// All files of both directories, with their bytes.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => walk(&path, files),
                    false => files.push((path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        let mut files = Vec::new();
        walk(self.from.path(), &mut files);
        walk(self.to.path(), &mut files);
        files.sort();
        files
    }

    fn is_part(&self, path: &Path) -> bool {
        path.file_name().unwrap().as_bytes().ends_with(b".part")
    }

    fn whole(&self) -> Vec<PathBuf> {
        let files = self.files().into_iter();
        let whole = files.filter(|(path, bytes)| bytes == CONTENT && !self.is_part(path));
        whole.map(|(path, _)| path).collect()
    }

    fn assert_only(&self, path: &Path) {
        assert_eq!(self.files(), [(path.to_path_buf(), CONTENT.to_vec())]);
    }
}

/// A process that ends: nothing of it runs any more but the closing of its descriptors.
struct Killed;

/// Asks, and ends the mover just before its step `at`. `None` if it has no such step.
fn kill_at(yard: &Yard, act: &Act, rung: Rung, at: usize) -> Option<&'static str> {
    let mut steps = 0;
    let last = RefCell::new("");
    let result = catch_unwind(AssertUnwindSafe(|| {
        yard.ask_with(act, rung, |step| {
            last.replace(step);
            if steps == at {
                resume_unwind(Box::new(Killed));
            }
            steps += 1;
        });
    }));
    match result {
        Ok(()) => None,
        Err(payload) if payload.is::<Killed>() => Some(last.into_inner()),
        Err(payload) => resume_unwind(payload),
    }
}

/// Where the content may be while a move is under way.
fn assert_findable(yard: &Yard, context: &str) {
    let whole = yard.whole();
    let known = [yard.file(), yard.private(), yard.target()];
    assert!(
        whole.iter().all(|path| known.contains(path)),
        "{context}: {whole:?}"
    );
    match whole.len() {
        1 => {}
        // A link or a durable copy at the target, and the source not yet unlinked; or both halves of a rename by link.
        2 => {
            let inodes: Vec<u64> = whole
                .iter()
                .map(|path| fs::metadata(path).unwrap().ino())
                .collect();
            let copied = whole.contains(&yard.target()) && whole.contains(&yard.private());
            assert!(inodes[0] == inodes[1] || copied, "{context}: {whole:?}");
        }
        _ => panic!("{context}: the content is at {whole:?}"),
    }
}

/// Kills it at every step, and while it recovers at every step again; then lets it finish.
fn matrix(far: bool, rung: Rung, deletes: bool) -> usize {
    let mut points = 0;
    for first in 0.. {
        let mut reached = false;
        for second in 0.. {
            let yard = Yard::new(far);
            let act = if deletes { Act::Delete } else { yard.act() };
            let Some(step) = kill_at(&yard, &act, rung, first) else {
                break;
            };
            reached = true;
            let gone = deletes && !yard.file().exists() && !yard.private().exists();
            if !gone {
                assert_findable(&yard, step);
            }
            let again = kill_at(&yard, &act, rung, second);
            let context = format!("killed before {step:?}, then before {again:?}");
            let gone = deletes && !yard.file().exists() && !yard.private().exists();
            if !gone {
                assert_findable(&yard, &context);
            }
            let answer = yard.ask_with(&act, rung, |_| {});
            if deletes {
                assert_eq!(
                    answer,
                    if gone { Disposal::Gone } else { Disposal::Done },
                    "{context}"
                );
                assert_eq!(yard.files(), [], "{context}");
            } else {
                assert_eq!(answer, Disposal::Done, "{context}");
                assert_eq!(
                    yard.files(),
                    [(yard.target(), CONTENT.to_vec())],
                    "{context}"
                );
                assert_eq!(yard.ask(&act), Disposal::Done, "{context}: asked once more");
            }
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
fn killed_at_any_step_of_a_delete() {
    assert!(matrix(false, Rung::NoReplace, true) >= 4);
}

#[test]
fn killed_at_any_step_of_a_delete_without_noreplace() {
    assert!(matrix(false, Rung::Link, true) >= 6);
    assert!(matrix(false, Rung::Placeholder, true) >= 6);
}

#[test]
fn killed_at_any_step_of_a_move() {
    assert!(matrix(false, Rung::NoReplace, false) >= 20);
}

#[test]
fn killed_at_any_step_of_a_move_without_noreplace() {
    assert!(matrix(false, Rung::Link, false) >= 20);
    assert!(matrix(false, Rung::Placeholder, false) >= 20);
}

#[test]
fn killed_at_any_step_of_a_move_to_another_filesystem() {
    assert!(matrix(true, Rung::NoReplace, false) >= 60);
}

#[test]
fn killed_at_any_step_of_a_move_to_another_filesystem_without_noreplace() {
    assert!(matrix(true, Rung::Link, false) >= 60);
}

#[test]
fn a_copy_is_like_its_source() {
    let yard = Yard::new(true);
    let before = fs::metadata(yard.file()).unwrap();
    assert_eq!(yard.ask(&yard.act()), Disposal::Done);
    yard.assert_only(&yard.target());
    let after = fs::metadata(yard.target()).unwrap();
    let like = |meta: &fs::Metadata| {
        (
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.len(),
        )
    };
    assert_eq!(like(&after), like(&before));
}

#[test]
fn big_and_empty_files_arrive_whole() {
    for size in [0, 1, 128 * 1024, 20 * 1024 * 1024 + 17] {
        let mut yard = Yard::new(true);
        let bytes: Vec<u8> = (0..size).map(|n: usize| (n / 4096 + n) as u8).collect();
        fs::write(yard.file(), &bytes).unwrap();
        yard.expect = probe(&yard.file());
        assert_eq!(yard.ask(&yard.act()), Disposal::Done);
        assert_eq!(fs::read(yard.target()).unwrap(), bytes);
        assert!(!yard.file().exists() && !yard.private().exists());
    }
}

#[test]
fn nothing_is_overwritten() {
    for (far, rung) in [
        (false, Rung::NoReplace),
        (false, Rung::Link),
        (false, Rung::Placeholder),
        (true, Rung::NoReplace),
        (true, Rung::Placeholder),
    ] {
        let yard = Yard::new(far);
        fs::create_dir_all(yard.target().parent().unwrap()).unwrap();
        fs::write(yard.target(), b"older").unwrap();
        assert_eq!(
            yard.ask_with(&yard.act(), rung, |_| {}),
            Disposal::Taken(1),
            "{far} {rung:?}"
        );
        assert_eq!(fs::read(yard.target()).unwrap(), b"older");
        assert_eq!(
            fs::read(yard.file()).unwrap(),
            CONTENT,
            "visible under its own name"
        );
        assert!(!yard.private().exists());
        fs::write(yard.target().with_file_name("a.1.csv"), b"old").unwrap();
        assert_eq!(yard.ask_with(&yard.act(), rung, |_| {}), Disposal::Taken(2));
        assert_eq!(
            yard.ask_with(&yard.act_as("in/a.2.csv"), rung, |_| {}),
            Disposal::Done
        );
        let arrived = yard.target().with_file_name("a.2.csv");
        assert_eq!(yard.whole(), [arrived]);
        assert_eq!(yard.files().len(), 3);
    }
}

#[test]
fn a_stranger_of_the_same_size_and_time_is_no_copy_of_ours() {
    let yard = Yard::new(true);
    fs::create_dir_all(yard.target().parent().unwrap()).unwrap();
    let mut other = CONTENT.to_vec();
    other[0] ^= 1;
    fs::write(yard.target(), &other).unwrap();
    let time = fs::metadata(yard.file()).unwrap().modified().unwrap();
    File::options()
        .write(true)
        .open(yard.target())
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(yard.ask(&yard.act()), Disposal::Taken(1));
    assert_eq!(fs::read(yard.target()).unwrap(), other);
    assert_eq!(fs::read(yard.file()).unwrap(), CONTENT);
}

#[test]
fn another_version_is_left() {
    let yard = Yard::new(false);
    fs::write(yard.file(), b"the next upload").unwrap();
    for act in [Act::Delete, yard.act()] {
        let steps = RefCell::new(Vec::new());
        let answer = yard.ask_with(&act, Rung::NoReplace, |step| steps.borrow_mut().push(step));
        assert_eq!(answer, Disposal::Changed);
        assert_eq!(steps.into_inner(), [""; 0], "its name did not even flicker");
        assert_eq!(yard.files(), [(yard.file(), b"the next upload".to_vec())]);
    }
    fs::remove_file(yard.file()).unwrap();
    symlink("/etc/passwd", yard.file()).unwrap();
    assert_eq!(yard.ask(&Act::Delete), Disposal::Changed);
    assert!(yard.file().is_symlink());
    fs::remove_file(yard.file()).unwrap();
    for act in [Act::Delete, yard.act()] {
        assert_eq!(yard.ask(&act), Disposal::Gone);
    }
    assert!(
        !yard.to.path().join("archive").exists(),
        "for nothing, nothing is made"
    );
}

/// Replaces the file by an upload with another name, at the moment between the look and the rename.
fn replace(yard: &Yard) {
    let upload = yard.from.path().join("upload");
    fs::write(&upload, b"the next upload").unwrap();
    fs::rename(upload, yard.file()).unwrap();
}

#[test]
fn what_was_caught_by_mistake_goes_back() {
    for act in [None, Some(())] {
        let yard = Yard::new(false);
        let act = act.map_or(Act::Delete, |()| yard.act());
        let answer = yard.ask_with(&act, Rung::NoReplace, |step| {
            if step == "claim" {
                replace(&yard);
            }
        });
        assert_eq!(answer, Disposal::Changed);
        assert_eq!(yard.files(), [(yard.file(), b"the next upload".to_vec())]);
    }
}

#[test]
fn what_was_caught_by_mistake_goes_back_beside_a_newer_one() {
    let yard = Yard::new(false);
    let answer = yard.ask_with(&Act::Delete, Rung::NoReplace, |step| match step {
        "claim" => replace(&yard),
        "put back" => fs::write(yard.file(), b"newer still").unwrap(),
        _ => {}
    });
    assert_eq!(answer, Disposal::Changed);
    let beside = yard.file().with_file_name("a.1.csv");
    let expected = [
        (beside, b"the next upload".to_vec()),
        (yard.file(), b"newer still".to_vec()),
    ];
    assert_eq!(yard.files(), expected);
}

#[test]
fn killed_before_a_stranger_went_back_it_goes_back_later() {
    let yard = Yard::new(false);
    let result = catch_unwind(AssertUnwindSafe(|| {
        yard.ask_with(&Act::Delete, Rung::NoReplace, |step| match step {
            "claim" => replace(&yard),
            "put back" => resume_unwind(Box::new(Killed)),
            _ => {}
        })
    }));
    assert!(result.is_err());
    assert!(yard.private().exists());
    assert_eq!(yard.ask(&Act::Delete), Disposal::Changed);
    assert_eq!(yard.files(), [(yard.file(), b"the next upload".to_vec())]);
}

#[test]
fn a_busy_file_is_left() {
    for far in [false, true] {
        let yard = Yard::new(far);
        let writer = File::options().append(true).open(yard.file()).unwrap();
        let steps = RefCell::new(0);
        let answer = yard.ask_with(&yard.act(), Rung::NoReplace, |_| *steps.borrow_mut() += 1);
        assert_eq!((answer, steps.into_inner()), (Disposal::Busy, 0));
        drop(writer);
        assert_eq!(yard.ask(&yard.act()), Disposal::Done);
        yard.assert_only(&yard.target());
    }
}

#[test]
fn a_file_that_becomes_busy_goes_back() {
    for (far, moment) in [(false, "claim"), (true, "claim"), (true, "copy")] {
        let yard = Yard::new(far);
        let writer = RefCell::new(None);
        let answer = yard.ask_with(&yard.act(), Rung::NoReplace, |step| {
            if step == moment && writer.borrow().is_none() {
                let path = [yard.file(), yard.private()]
                    .into_iter()
                    .find(|path| path.exists());
                let open = File::options().append(true).open(path.unwrap()).unwrap();
                writer.replace(Some(open));
            }
        });
        assert_eq!(answer, Disposal::Busy, "{moment}");
        yard.assert_only(&yard.file());
        drop(writer);
        assert_eq!(yard.ask(&yard.act()), Disposal::Done);
    }
}

#[test]
fn a_source_that_changes_while_it_is_copied_goes_back() {
    let yard = Yard::new(true);
    let once = RefCell::new(true);
    let answer = yard.ask_with(&yard.act(), Rung::NoReplace, |step| {
        if step == "copy" && once.replace(false) {
            let mut writer = File::options().append(true).open(yard.private()).unwrap();
            writer.write_all(b" and more").unwrap();
        }
    });
    let grown = [CONTENT, b" and more"].concat();
    assert!(
        matches!(answer, Disposal::Changed | Disposal::Failed { .. }),
        "{answer:?}"
    );
    let files = yard.files();
    assert_eq!(files, [(yard.file(), grown)], "{answer:?}");
}

#[test]
fn a_source_that_changes_after_it_was_copied_stays() {
    for moment in ["fsync copy", "rename copy", "fsync target directory"] {
        let yard = Yard::new(true);
        let once = RefCell::new(true);
        let answer = yard.ask_with(&yard.act(), Rung::NoReplace, |step| {
            if step == moment && once.replace(false) {
                let mut writer = File::options().append(true).open(yard.private()).unwrap();
                writer.write_all(b" and more").unwrap();
            }
        });
        assert_eq!(answer, Disposal::Changed, "{moment}");
        let grown = [CONTENT, b" and more"].concat();
        assert_eq!(fs::read(yard.file()).unwrap(), grown, "{moment}");
        assert_eq!(fs::read(yard.target()).unwrap(), CONTENT, "{moment}");
    }
}

#[test]
fn a_concluded_file_whose_name_was_taken_waits_under_its_private_name() {
    let yard = Yard::new(false);
    fs::create_dir_all(yard.target().parent().unwrap()).unwrap();
    fs::write(yard.target(), b"older").unwrap();
    let answer = yard.ask_with(&yard.act(), Rung::NoReplace, |step| {
        if step == "put back" {
            fs::write(yard.file(), b"the next upload").unwrap();
        }
    });
    assert_eq!(answer, Disposal::Taken(1));
    assert_eq!(yard.whole(), [yard.private()]);
    assert_eq!(yard.ask(&yard.act_as("in/a.1.csv")), Disposal::Done);
    assert_eq!(yard.whole(), [yard.target().with_file_name("a.1.csv")]);
    assert_eq!(fs::read(yard.file()).unwrap(), b"the next upload");
    assert_eq!(fs::read(yard.target()).unwrap(), b"older");
}

#[test]
fn no_link_is_followed_below_the_target() {
    let yard = Yard::new(false);
    let elsewhere = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let top = yard.to.path().join("archive/2026");
    fs::create_dir_all(&top).unwrap();
    symlink(elsewhere.path(), top.join("in")).unwrap();
    let answer = yard.ask(&yard.act());
    assert!(
        matches!(
            answer,
            Disposal::Failed {
                errno: libc::ELOOP,
                ..
            }
        ),
        "{answer:?}"
    );
    yard.assert_only(&yard.file());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    let answer = yard.ask(&yard.act_as("../a.csv"));
    assert!(
        matches!(
            answer,
            Disposal::Failed {
                errno: libc::EXDEV,
                ..
            }
        ),
        "{answer:?}"
    );
    // The administrator's own path may be a link.
    fs::remove_file(top.join("in")).unwrap();
    fs::rename(&top, elsewhere.path().join("real")).unwrap();
    symlink(elsewhere.path().join("real"), &top).unwrap();
    assert_eq!(yard.ask(&yard.act()), Disposal::Done);
    assert_eq!(
        fs::read(elsewhere.path().join("real/in/a.csv")).unwrap(),
        CONTENT
    );
}

#[test]
fn where_nothing_can_be_made_the_source_stays_under_its_name() {
    let yard = Yard::new(false);
    let blocked = Act::Move {
        dir: b"/proc/self/archive".to_vec(),
        rel: b"a.csv".to_vec(),
    };
    let answer = yard.ask(&blocked);
    assert!(matches!(answer, Disposal::Failed { .. }), "{answer:?}");
    yard.assert_only(&yard.file());
    fs::write(yard.to.path().join("archive"), b"a file").unwrap();
    let answer = yard.ask(&yard.act());
    assert!(
        matches!(
            answer,
            Disposal::Failed {
                errno: libc::ENOTDIR,
                ..
            }
        ),
        "{answer:?}"
    );
    assert_eq!(yard.whole(), [yard.file()]);
}

#[test]
fn of_a_copy_whose_source_was_taken_away_nothing_stays() {
    let killed_copying = |n| {
        let yard = Yard::new(true);
        (kill_at(&yard, &yard.act(), Rung::NoReplace, n)? == "copy").then_some(yard)
    };
    let yard = (0..20).find_map(killed_copying).unwrap();
    assert!(
        yard.files().iter().any(|(path, _)| yard.is_part(path)),
        "{:?}",
        yard.files()
    );
    fs::remove_file(yard.private()).unwrap();
    assert_eq!(yard.ask(&yard.act()), Disposal::Gone);
    assert_eq!(yard.files(), []);
}

#[test]
fn without_leave_to_copy_it_says_so_and_another_goes_on() {
    let yard = Yard::new(true);
    let act = yard.act();
    let mut mover = Mover::new(|_| {});
    mover.may_copy = false;
    let base = File::open(yard.from.path()).unwrap();
    let order = Order {
        rel: b"in/a.csv",
        private: PRIVATE.as_bytes(),
        expect: &yard.expect,
        lease: true,
        act: &act,
    };
    assert_eq!(mover.dispose(base.as_fd(), &order), Ended::MustCopy);
    assert_findable(&yard, "must copy");
    assert_eq!(yard.ask(&act), Disposal::Done);
    yard.assert_only(&yard.target());
}
