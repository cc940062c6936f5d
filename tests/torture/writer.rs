//! Whoever brings the files: in every way that is usual, without regard to the daemon, but never taking away a
//! version that has not been run yet.

use super::journal_support::Random;
use super::oracle::{Oracle, VersionId};
use super::{Campaign, Done};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Versions that wait for their run at a time.
const OUTSTANDING_MAX: usize = 120;
const DIRS: usize = 5;
const NAMES: usize = 60;

/// The thread that writes.
pub struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub fn start(oracle: &Oracle, inside: PathBuf, campaign: &Campaign, seed: u64) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let mut hand = Hand {
            oracle: oracle.clone(),
            inside,
            done: campaign.done,
            renames: campaign.renames,
            unique: campaign.unique,
            poison: campaign.poison(),
            random: Random(seed),
            current: BTreeMap::new(),
            count: 0,
        };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                hand.act();
            }
        });
        Writer { stop, thread }
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer");
    }
}

struct Hand {
    oracle: Oracle,
    inside: PathBuf,
    done: Done,
    renames: bool,
    unique: bool,
    poison: bool,
    random: Random,
    /// What was last written under each name.
    current: BTreeMap<PathBuf, VersionId>,
    count: u64,
}

impl Hand {
    fn nap(&mut self, most_ms: usize) {
        let most = most_ms * 1000;
        let micros = self.random.below(most + 1) as u64;
        std::thread::sleep(Duration::from_micros(micros));
    }

    fn any_path(&mut self) -> PathBuf {
        let dir = self.random.below(DIRS + 1);
        let name = if self.poison && self.random.below(12) == 0 {
            format!("p{:04}", self.count)
        } else if self.unique {
            format!("f{:05}", self.count)
        } else {
            format!("f{:02}", self.random.below(NAMES))
        };
        match dir {
            0 => self.inside.join(name),
            dir => self.inside.join(format!("d{dir}")).join(name),
        }
    }

    fn act(&mut self) {
        self.oracle.read();
        if self.oracle.waiting() > OUTSTANDING_MAX {
            std::thread::sleep(Duration::from_millis(2));
            return;
        }
        self.nap(4);
        let path = self.any_path();
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        let old = self.current.get(&path).copied();
        if old.is_some_and(|old| !self.oracle.is_run(old)) {
            return;
        }
        match old {
            Some(old) if path.exists() => {
                // Where files go away when they are done, most have the time to.
                if self.done != Done::Keep && self.random.below(4) != 0 {
                    return;
                }
                match self.random.below(8) {
                    0 if self.done == Done::Keep => {
                        fs::remove_file(&path).expect("a kept file");
                        self.current.remove(&path);
                        self.oracle.taken(old);
                    }
                    1 | 2 if self.renames => self.rename(old, &path),
                    3..=5 => {
                        self.oracle.taken(old);
                        self.write(&path, Way::Over);
                    }
                    _ => {
                        self.oracle.taken(old);
                        self.write(&path, Way::Replace);
                    }
                }
            }
            _ => {
                let way = match self.random.below(4) {
                    0 => Way::Link,
                    1 => Way::Rename,
                    _ => Way::New,
                };
                self.write(&path, way);
            }
        }
    }

    /// A file that has been run gets another name, and is not run for it.
    fn rename(&mut self, version: VersionId, path: &Path) {
        let to = self.any_path();
        fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        if self.current.contains_key(&to) || to.exists() {
            return;
        }
        fs::rename(path, &to).expect("a kept file");
        self.current.remove(path);
        self.oracle.now_at(version, &to);
        self.current.insert(to, version);
    }

    fn write(&mut self, path: &Path, way: Way) {
        self.count += 1;
        let length = self.random.below(3000);
        let mut content = format!("{} {:?} {}\n", self.count, way, path.display()).into_bytes();
        content.extend(self.random.bytes(length));
        let version = self.oracle.announce(path, &content);
        match self.bring(path, way, &content) {
            Ok(()) => {
                self.current.insert(path.to_owned(), version);
                self.oracle.at_rest(version);
            }
            // Something came back under the name meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.oracle.void(version),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }

    fn bring(&mut self, path: &Path, way: Way, content: &[u8]) -> io::Result<()> {
        let hidden = path.with_file_name(format!(".tmp-{}", self.count));
        let mut new = OpenOptions::new();
        new.write(true).create_new(true);
        match way {
            Way::New => self.slowly(new.open(path)?, content),
            Way::Over => {
                let file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(path)?;
                self.slowly(file, content)
            }
            Way::Link => {
                self.slowly(new.open(&hidden)?, content)?;
                let linked = fs::hard_link(&hidden, path);
                fs::remove_file(&hidden)?;
                linked
            }
            Way::Rename => {
                self.slowly(new.open(&hidden)?, content)?;
                let renamed = nix::fcntl::renameat2(
                    nix::fcntl::AT_FDCWD,
                    &hidden,
                    nix::fcntl::AT_FDCWD,
                    path,
                    nix::fcntl::RenameFlags::RENAME_NOREPLACE,
                );
                if renamed.is_err() {
                    fs::remove_file(&hidden)?;
                }
                Ok(renamed?)
            }
            Way::Replace => {
                self.slowly(new.open(&hidden)?, content)?;
                fs::rename(&hidden, path)
            }
        }
    }

    fn slowly(&mut self, mut file: File, content: &[u8]) -> io::Result<()> {
        let half = self.random.below(content.len());
        file.write_all(&content[..half])?;
        if self.random.below(4) == 0 {
            self.nap(10);
        }
        file.write_all(&content[half..])
    }
}

/// How a version comes to its name.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Made, written, closed.
    New,
    /// Written over the version before, in place.
    Over,
    /// Written under another name, linked.
    Link,
    /// Written under another name, renamed.
    Rename,
    /// The same over the version before.
    Replace,
}
