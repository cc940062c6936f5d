//! The state directory as it is just before every flush, in every way in which a power cut could have left it: of
//! what was written since the last flush each page is there or not, and each new name, rename and removal is done or
//! not. The journal's own code works on real files; each image is opened, read, written to and opened again.

use super::journal_support::{Naming, Random, number, numbered};
use super::number_from;
use settled::core::time::Wall;
use settled::journal::segment::{Disk, DiskJournal};
use settled::journal::storage::{Fault, File, Storage};
use settled::journal::{Journal, Opened, Options};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const PAGE: usize = 4096;

fn options() -> Options {
    Options {
        segment_bytes: 64 * 1024,
        reserve_bytes: 8 * 1024,
        now: Wall(1),
        ..Options::default()
    }
}

/// What the world has been promised.
#[derive(Clone, Debug, Default)]
struct Promise {
    appended: u64,
    flushed: u64,
    /// Numbers below one of these are left out: a compaction leaves them out, and may or may not count yet.
    first: BTreeSet<u64>,
}

/// A file, whatever its names are.
type Inode = usize;

/// What a power cut leaves for certain, and what it may leave.
#[derive(Debug, Default)]
struct Known {
    names: BTreeMap<File, Inode>,
    sure_names: BTreeMap<File, Inode>,
    pending: Vec<Naming>,
    /// As read back after the last flush.
    sure: Vec<Vec<u8>>,
    /// Where the file is now; `None` once it has been removed: what it had then.
    last: Vec<Vec<u8>>,
    promise: Promise,
    images: u64,
    torn: u64,
    most: u64,
    random: Option<Random>,
}

/// The real storage, looked at before each of its flushes.
#[derive(Debug)]
struct Watched {
    disk: Disk,
    dir: PathBuf,
    known: Rc<RefCell<Known>>,
}

impl Watched {
    fn made(&self, file: File) {
        let known = &mut *self.known.borrow_mut();
        if !known.names.contains_key(&file) {
            let inode = known.sure.len();
            known.sure.push(Vec::new());
            known.last.push(Vec::new());
            known.names.insert(file, inode);
            known.pending.push(Naming::Make(file, inode));
        }
    }

    fn read(&self, file: File) -> Vec<u8> {
        fs::read(self.dir.join(file.to_string())).unwrap()
    }

    /// Opens what a power cut could leave now.
    fn images(&self) {
        let known = &mut *self.known.borrow_mut();
        for (file, inode) in known.names.clone() {
            known.last[inode] = self.read(file);
        }
        // Everything that is open: the names first, then each page that is not as it was, and each length.
        let mut open = vec![];
        open.extend((0..known.pending.len()).map(Open::Name));
        for (inode, (sure, last)) in known.sure.iter().zip(&known.last).enumerate() {
            if sure.len() != last.len() {
                open.push(Open::Length(inode));
            }
            for at in (0..sure.len().max(last.len())).step_by(PAGE) {
                if page(sure, at) != page(last, at) {
                    open.push(Open::Page(inode, at));
                }
            }
        }
        let all = if open.len() < 20 {
            1u64 << open.len()
        } else {
            u64::MAX
        };
        // Never flushed, and so on the disk at once at worst: it must not know of a segment whose name may be lost.
        let lock = fs::read(self.dir.join("lock")).unwrap();
        let mut random = known.random.take().unwrap();
        for choice in 0..all.min(known.most) {
            let taken: Vec<bool> = if all <= known.most {
                (0..open.len())
                    .map(|bit| choice & (1 << bit) != 0)
                    .collect()
            } else {
                open.iter().map(|_| random.below(2) == 0).collect()
            };
            known.image(&open, &taken, &lock);
        }
        known.random = Some(random);
    }
}

#[derive(Clone, Copy, Debug)]
enum Open {
    Name(usize),
    Length(Inode),
    Page(Inode, usize),
}

fn page(bytes: &[u8], at: usize) -> Vec<u8> {
    let end = bytes.len().min(at + PAGE);
    let mut page = bytes.get(at..end).unwrap_or_default().to_vec();
    page.resize(PAGE, 0);
    page
}

impl Known {
    fn image(&mut self, open: &[Open], taken: &[bool], lock: &[u8]) {
        let mut names = self.sure_names.clone();
        let mut contents = self.sure.clone();
        // Lengths before pages: what lies behind the end is not there.
        for (what, taken) in open.iter().zip(taken) {
            match *what {
                Open::Name(at) if *taken => self.pending[at].apply(&mut names),
                Open::Length(inode) if *taken => contents[inode].resize(self.last[inode].len(), 0),
                Open::Page(inode, at) if *taken => {
                    let new = page(&self.last[inode], at);
                    for (to, from) in contents[inode].iter_mut().skip(at).zip(new) {
                        *to = from;
                    }
                }
                Open::Name(_) | Open::Length(_) | Open::Page(..) => {}
            }
        }
        self.images += 1;
        let temp = tempfile::Builder::new()
            .prefix("bed-")
            .tempdir_in("/dev/shm")
            .unwrap();
        let dir = temp.path().join("state");
        fs::create_dir(&dir).unwrap();
        for (file, inode) in &names {
            fs::write(dir.join(file.to_string()), &contents[*inode]).unwrap();
        }
        fs::write(dir.join("lock"), lock).unwrap();
        let story = || format!("{names:?}, of {open:?} {taken:?}, {:?}", self.promise);
        let (mut journal, numbers, cut) = open_at(&dir, &story);
        self.torn += u64::from(cut > 0);
        let end = self.promise.holds(&numbers, &story);
        for n in end..end + 3 {
            journal.append(Wall(9), &numbered(n)).unwrap();
        }
        journal.flush().unwrap();
        drop(journal);
        let (_, again, _) = open_at(&dir, &story);
        let expected: Vec<u64> = numbers.iter().copied().chain(end..end + 3).collect();
        assert_eq!(again, expected, "{}", story());
    }
}

impl Promise {
    /// What was flushed is there, of the rest a beginning, in order; where the next record begins.
    fn holds(&self, numbers: &[u64], story: &dyn Fn() -> String) -> u64 {
        let all: BTreeSet<u64> = numbers.iter().copied().collect();
        let first = all.first().copied().unwrap_or(0);
        // Nothing at all is right where a compaction left out all there was.
        let forgotten = self.first.last().copied().unwrap_or(0);
        let end = all.last().map_or(forgotten, |last| last + 1);
        assert!(
            all.is_empty() || self.first.contains(&first),
            "begins with {first}: {}",
            story()
        );
        assert!(
            all.is_empty() || end - first == all.len() as u64,
            "a hole: {numbers:?}: {}",
            story()
        );
        assert!(end >= self.flushed, "lost {end}: {}", story());
        assert!(end <= self.appended, "invented {end}: {}", story());
        end
    }
}

fn open_at(dir: &Path, story: &dyn Fn() -> String) -> (DiskJournal, Vec<u64>, u64) {
    let mut numbers = Vec::new();
    let opened = DiskJournal::open(dir, &options(), false)
        .and_then(|opened| opened.replay(|_, record| numbers.push(number(&record))));
    let (journal, report) = opened.unwrap_or_else(|error| panic!("{error}: {}", story()));
    assert_eq!(report.damage, [], "{}", story());
    (journal, numbers, report.cut_bytes)
}

impl Storage for Watched {
    fn list(&mut self) -> Result<Vec<(File, u64)>, Fault> {
        self.disk.list()
    }

    fn noted(&mut self) -> Result<Option<u32>, Fault> {
        self.disk.noted()
    }

    fn path(&self, file: File) -> String {
        self.disk.path(file)
    }

    fn read_at(&mut self, file: File, offset: u64, into: &mut [u8]) -> Result<usize, Fault> {
        self.disk.read_at(file, offset, into)
    }

    fn allocate(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault> {
        self.disk.allocate(file, offset, length)?;
        self.made(file);
        Ok(())
    }

    fn reserve(&mut self, file: File, offset: u64, length: u64) -> Result<(), Fault> {
        self.disk.reserve(file, offset, length)?;
        self.made(file);
        Ok(())
    }

    fn write(&mut self, file: File, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        self.disk.write(file, offset, bytes)?;
        self.made(file);
        Ok(())
    }

    fn flush(&mut self, file: File) -> Result<(), Fault> {
        self.images();
        self.disk.flush(file)?;
        let bytes = self.read(file);
        let known = &mut *self.known.borrow_mut();
        let inode = known.names[&file];
        known.sure[inode].clone_from(&bytes);
        known.last[inode] = bytes;
        Ok(())
    }

    fn rename(&mut self, from: File, to: File) -> Result<(), Fault> {
        self.disk.rename(from, to)?;
        let known = &mut *self.known.borrow_mut();
        let naming = Naming::Rename(from, to);
        naming.apply(&mut known.names);
        known.pending.push(naming);
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), Fault> {
        self.images();
        self.disk.sync_dir()?;
        let known = &mut *self.known.borrow_mut();
        known.pending.clear();
        known.sure_names = known.names.clone();
        Ok(())
    }

    fn truncate(&mut self, file: File, length: u64) -> Result<(), Fault> {
        self.disk.truncate(file, length)
    }

    fn remove(&mut self, file: File) -> Result<(), Fault> {
        if self.known.borrow().names.contains_key(&file) {
            let bytes = self.read(file);
            let known = &mut *self.known.borrow_mut();
            let inode = known.names[&file];
            known.last[inode] = bytes;
            let naming = Naming::Remove(file);
            naming.apply(&mut known.names);
            known.pending.push(naming);
        }
        self.disk.remove(file)
    }

    fn keep_aside(&mut self, file: File) -> Result<String, Fault> {
        self.disk.keep_aside(file)
    }

    fn release(&mut self, file: File) {
        self.disk.release(file);
    }
}

/// One life of the journal in `dir`, over what is known of it.
fn open_watched(dir: &Path, known: &Rc<RefCell<Known>>) -> (Journal<Watched>, Vec<u64>) {
    let storage = Watched {
        disk: Disk::lock(dir, false).unwrap(),
        dir: dir.to_owned(),
        known: Rc::clone(known),
    };
    let options = Options {
        random_id: 7,
        random_salt: 9,
        ..options()
    };
    let mut numbers = Vec::new();
    let opened = Opened::new(storage, options).unwrap();
    let replayed = opened.replay(|_, record| numbers.push(number(&record)));
    (replayed.unwrap().0, numbers)
}

/// Appends, flushes, uses up segments and compacts, over several starts.
fn every_image(parent: &Path) {
    let temp = tempfile::Builder::new()
        .prefix("bed-")
        .tempdir_in(parent)
        .unwrap();
    let dir = temp.path().join("state");
    let seed = number_from("TORTURE_SEED", 1);
    let mut random = Random(seed);
    let known = Rc::new(RefCell::new(Known {
        most: number_from("TORTURE_IMAGES", 3),
        random: Some(Random(random.next())),
        ..Known::default()
    }));
    known.borrow_mut().promise.first.insert(0);
    for _ in 0..3 {
        let (mut journal, numbers) = open_watched(&dir, &known);
        known.borrow().promise.holds(&numbers, &|| "a start".into());
        assert!(
            numbers
                .last()
                .is_none_or(|last| last + 1 == known.borrow().promise.appended)
        );
        for _ in 0..12 {
            for _ in 0..random.below(350) {
                let n = known.borrow().promise.appended;
                // Before the call: it may flush by itself.
                known.borrow_mut().promise.appended += 1;
                journal.append(Wall(2), &numbered(n)).unwrap();
            }
            journal.flush().unwrap();
            let appended = known.borrow().promise.appended;
            known.borrow_mut().promise.flushed = appended;
            if random.below(4) == 0 {
                let from = *known.borrow().promise.first.last().unwrap();
                let keep = from + random.below((appended - from) as usize + 1) as u64;
                journal.compact_begin(Wall(3)).unwrap();
                known.borrow_mut().promise.first.insert(keep);
                for n in keep..appended {
                    journal.compact_push(&numbered(n)).unwrap();
                }
                journal.compact_commit().unwrap();
                known
                    .borrow_mut()
                    .promise
                    .first
                    .retain(|first| *first == keep);
            }
        }
    }
    let Known { images, torn, .. } = *known.borrow();
    println!(
        "{}: seed {seed}: {images} images, {torn} with something to cut",
        parent.display()
    );
    assert!(images > 200 && torn > 10, "{images} {torn}");
}

#[test]
fn every_image_opens() {
    every_image(Path::new(env!("CARGO_TARGET_TMPDIR")));
}

#[test]
fn every_image_opens_on_tmpfs() {
    every_image(Path::new("/dev/shm"));
}
