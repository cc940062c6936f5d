//! Slots: a file each in the state directory, whose lock an attempt and all its descendants hold, so that the next life of
//! the daemon can tell whether any of them is still there.
//!
//! The lock is that of an open file (flock(2)): it is inherited with the descriptor, whatever becomes of the processes
//! between, and is gone when the last copy of the descriptor is. The kernel lets go of it, whoever is killed.

use crate::sys::file::flock;
use crate::sys::process;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// How often all processes are looked through for a holder: one may be born, or give the descriptor another number, behind
/// the back of a look.
const ROUNDS: usize = 3;

/// The directory of slots.
#[derive(Debug)]
pub struct Slots {
    path: PathBuf,
    dir: OwnedFd,
    /// `major:minor` of its filesystem, as the kernel names it in `/proc/PID/fdinfo`: not always what stat(2) says.
    device: String,
}

/// What became of a question about a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Which.
    pub slot: u32,
    /// A process holds it; or it cannot be found out, with this errno, which has to be taken for the same.
    pub taken: Result<bool, i32>,
    /// So many processes were sent the signal.
    pub signalled: u32,
    /// It is held and a signal was to be sent, but nobody was found who could be sent it.
    pub in_vain: bool,
}

impl Slots {
    /// Opens `slots` in the state directory, which it makes if it is missing, and forgets slots that nobody holds.
    ///
    /// # Errors
    /// What mkdir(2), open(2), flock(2) and readdir(3) give. InvalidData: the kernel does not tell of locks.
    pub fn open(state: &Path) -> io::Result<Slots> {
        let path = state.join("slots");
        let dir = open_dir(&path)?;
        let device = device_of(&dir)?;
        let slots = Slots { path, dir, device };
        slots.tidy()?;
        Ok(slots)
    }

    /// Takes a slot: a fresh descriptor that is its lock, closed by execve. A directory that was taken away is made again:
    /// what it had is not missed before the next start, which then finds no process that outlived this one.
    ///
    /// # Errors
    /// EWOULDBLOCK: it is held. Others as of mkdir(2) and open(2).
    pub fn take(&mut self, slot: u32) -> io::Result<OwnedFd> {
        let file = match self.file(slot, OFlag::O_CREAT) {
            Err(Errno::ENOENT) => {
                self.dir = open_dir(&self.path)?;
                self.file(slot, OFlag::O_CREAT)?
            }
            file => file?,
        };
        flock(file.as_fd(), libc::LOCK_EX | libc::LOCK_NB)?;
        Ok(file)
    }

    fn take_there(&self, slot: u32) -> io::Result<OwnedFd> {
        let file = self.file(slot, OFlag::empty())?;
        flock(file.as_fd(), libc::LOCK_EX | libc::LOCK_NB)?;
        Ok(file)
    }

    /// Asks of each slot whether somebody holds it, after having sent the signal, if there is one, to those who do.
    /// Looks through `/proc` once for all of them, touches no file that a process has open, and spares this process.
    pub fn ask(&self, questions: &[(u32, Option<i32>)]) -> Vec<Asked> {
        let mut wanted = Vec::new();
        let mut answers = Vec::new();
        for &(slot, signal) in questions {
            let found = self.holders_mark(slot);
            let taken = match &found {
                Ok(mark) => Ok(mark.is_some()),
                Err(errno) => Err(*errno as i32),
            };
            if let (Ok(Some(mark)), Some(signal)) = (found, signal) {
                wanted.push((answers.len(), mark, signal));
            }
            answers.push(Asked {
                slot,
                taken,
                signalled: 0,
                in_vain: false,
            });
        }
        for _ in 0..ROUNDS {
            let missed = |(number, ..): &(usize, String, i32)| {
                answers
                    .get(*number)
                    .is_some_and(|a: &Asked| a.signalled == 0)
            };
            let left: Vec<_> = wanted.iter().filter(|one| missed(one)).cloned().collect();
            if left.is_empty() {
                break;
            }
            for pid in processes() {
                signal_if_holder(pid, &left, &mut answers);
            }
        }
        for (number, ..) in wanted {
            if let Some(answer) = answers.get_mut(number) {
                // It may have ended by itself meanwhile.
                answer.in_vain =
                    answer.signalled == 0 && !matches!(self.holders_mark(answer.slot), Ok(None));
            }
        }
        answers
    }

    /// How the kernel writes that a descriptor is the lock on this slot; `None` if there is no lock.
    fn holders_mark(&self, slot: u32) -> Result<Option<String>, Errno> {
        let file = match self.file(slot, OFlag::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            file => file?,
        };
        match flock(file.as_fd(), libc::LOCK_EX | libc::LOCK_NB) {
            Ok(()) => Ok(None),
            Err(Errno::EWOULDBLOCK) => {
                let info = own_info(&file).map_err(errno_of)?;
                let inode = field(&info, "ino:").ok_or(Errno::EOPNOTSUPP)?;
                Ok(Some(format!("{}:{inode}", self.device)))
            }
            Err(errno) => Err(errno),
        }
    }

    fn file(&self, slot: u32, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        openat(&self.dir, slot.to_string().as_str(), flags, mode)
    }

    /// Removes the files of slots that nobody holds. Only while none is being taken.
    fn tidy(&self) -> io::Result<()> {
        let again = openat(
            &self.dir,
            ".",
            OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        for entry in nix::dir::Dir::from_fd(again)?.iter() {
            let entry = entry?;
            let number = entry.file_name().to_str().ok();
            let Some(slot) = number.and_then(|name| name.parse().ok()) else {
                continue;
            };
            match self.take_there(slot) {
                // Whoever comes later takes another file of that name.
                Ok(_lock) => unlinkat(&self.dir, entry.file_name(), UnlinkatFlags::NoRemoveDir)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens the directory, which it makes if it is missing.
fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// Learns from the lock of a directory how the kernel names the filesystem where it tells of locks: on btrfs and others
/// it is not the number that stat(2) has.
fn device_of(dir: &OwnedFd) -> io::Result<String> {
    flock(dir.as_fd(), libc::LOCK_SH | libc::LOCK_NB)?;
    let info = own_info(dir);
    flock(dir.as_fd(), libc::LOCK_UN)?;
    let info = info?;
    let silent = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel does not tell of locks in /proc/self/fdinfo",
        )
    };
    let (device, _inode) = locks(&info)
        .next()
        .and_then(|place| place.rsplit_once(':'))
        .ok_or_else(silent)?;
    Ok(device.to_owned())
}

/// proc_pid_fdinfo(5) of a descriptor of this process.
fn own_info(fd: &OwnedFd) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(str::trim)
}

/// `major:minor:inode` of each flock(2) lock that the descriptor is, from lines like
/// `lock: 1: FLOCK  ADVISORY  WRITE 7276 fe:00:10019349 0 EOF`.
fn locks(info: &str) -> impl Iterator<Item = &str> {
    info.lines()
        .filter_map(|line| line.strip_prefix("lock:"))
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            (words.next() == Some("FLOCK"))
                .then(|| words.nth(3))
                .flatten()
        })
}

fn errno_of(error: io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

/// All but this one.
fn processes() -> impl Iterator<Item = i32> {
    let own = std::process::id();
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(move |pid| *pid != own)
        .filter_map(|pid| i32::try_from(pid).ok())
}

/// Sends a process the signals of those slots that it holds. The process that is looked at again is the one that is
/// signalled: if its number has been given to another meanwhile, the descriptor still stands for the one that has ended.
fn signal_if_holder(pid: i32, wanted: &[(usize, String, i32)], answers: &mut [Asked]) {
    let holds_any = |place: &str| wanted.iter().any(|(_, mark, _)| mark == place);
    if !any_lock(pid, &holds_any) {
        return;
    }
    let Ok(pidfd) = process::pidfd_open(pid) else {
        // It has ended.
        return;
    };
    for (number, mark, signal) in wanted {
        if any_lock(pid, &|place| place == mark)
            && process::signal_process(pidfd.as_fd(), *signal).is_ok()
            && let Some(answer) = answers.get_mut(*number)
        {
            answer.signalled += 1;
        }
    }
}

/// Whether a descriptor of the process is such a lock. One that may not be looked at is taken for one that has none: what
/// counts in the end is whether the lock is held, and that the kernel says of everybody.
fn any_lock(pid: i32, such: &dyn Fn(&str) -> bool) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fdinfo")) else {
        return false;
    };
    let mut text = String::new();
    for entry in entries.flatten() {
        text.clear();
        let read = File::open(entry.path())
            .and_then(|mut info| io::Read::read_to_string(&mut info, &mut text));
        if read.is_ok() && locks(&text).any(such) {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_as_the_kernel_writes_them() {
        let text = "pos:\t0\nflags:\t0100002\nmnt_id:\t27\nino:\t10019349\n\
                    lock:\t1: POSIX  ADVISORY  WRITE 1 fe:00:1 0 EOF\n\
                    lock:\t2: FLOCK  ADVISORY  WRITE 0 fe:00:10019349 0 EOF\n";
        assert_eq!(locks(text).collect::<Vec<_>>(), ["fe:00:10019349"]);
        assert_eq!(field(text, "ino:"), Some("10019349"));
        assert_eq!(locks("pos:\t0\n").count(), 0);
    }

    #[test]
    fn a_slot_is_held_as_long_as_a_copy_of_its_descriptor_is_open() {
        let state = tempfile::tempdir().unwrap();
        let mut slots = Slots::open(state.path()).unwrap();
        let lock = slots.take(3).unwrap();
        let copy = lock.try_clone().unwrap();
        drop(lock);
        let refused = slots.take(3).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EWOULDBLOCK));
        // This process is never signalled, and another slot is another matter.
        let answers = slots.ask(&[(3, Some(libc::SIGKILL)), (4, Some(libc::SIGKILL))]);
        let all: Vec<_> = answers
            .iter()
            .map(|answer| (answer.slot, answer.taken, answer.signalled))
            .collect();
        assert_eq!(all, [(3, Ok(true), 0), (4, Ok(false), 0)]);
        drop(copy);
        assert_eq!(slots.ask(&[(3, None)])[0].taken, Ok(false));
        slots.take(3).unwrap();
    }

    #[test]
    fn a_directory_that_is_taken_away_is_made_again() {
        let state = tempfile::tempdir().unwrap();
        let mut slots = Slots::open(state.path()).unwrap();
        drop(slots.take(1).unwrap());
        std::fs::remove_dir_all(state.path().join("slots")).unwrap();
        let lock = slots.take(1).unwrap();
        assert_eq!(slots.ask(&[(1, None)])[0].taken, Ok(true));
        drop(lock);
        assert!(state.path().join("slots/1").exists());
    }

    #[test]
    fn only_what_is_held_stays() {
        use std::os::unix::fs::MetadataExt;
        let state = tempfile::tempdir().unwrap();
        let held = {
            let mut slots = Slots::open(state.path()).unwrap();
            drop(slots.take(1).unwrap());
            slots.take(2).unwrap()
        };
        std::fs::write(state.path().join("slots/README"), "").unwrap();
        let slots = Slots::open(state.path()).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(state.path().join("slots"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["2", "README"]);
        let mode = |name: &str| state.path().join(name).metadata().unwrap().mode() & 0o777;
        assert_eq!((mode("slots"), mode("slots/2")), (0o700, 0o600));
        assert_eq!(slots.ask(&[(2, None)])[0].taken, Ok(true));
        drop(held);
        assert_eq!(slots.ask(&[(2, None)])[0].taken, Ok(false));
    }
}
