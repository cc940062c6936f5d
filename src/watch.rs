//! inotify: drain, decode, and remove when told. Adding is done by the scouts, which inherit the descriptor:
//! it is one queue, whoever added the watch.
//!
//! The descriptor is non-blocking and close-on-exec: what is forked has it, what is executed has not.
//!
//! # For tests
//! With `SETTLED_TEST_DROP=half` in the environment a pseudo-random half of all events is dropped, and an
//! overflow reported in their place, as if the kernel's queue were too small; with `silent-half` they are
//! dropped without a word, as a remote writer's are.

use crate::core::Input;
use crate::sys;
use inotify::{EventMask, Inotify};
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// Bytes of the read buffer: some 2000 events with short names.
const BUFFER: usize = 64 * 1024;
/// The smallest event: the structure without a name (inotify(7)).
const SMALLEST: usize = 16;
/// The largest one: with a name of NAME_MAX bytes and its terminating zeros. A smaller buffer is refused
/// (EINVAL) when such an event is next.
const LARGEST: usize = SMALLEST + 256;

/// What a test wants to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    None,
    Told,
    Silent,
}

impl Loss {
    fn parse(value: &[u8]) -> io::Result<Loss> {
        match value {
            b"" => Ok(Loss::None),
            b"half" => Ok(Loss::Told),
            b"silent-half" => Ok(Loss::Silent),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "SETTLED_TEST_DROP is for tests and must be half or silent-half",
            )),
        }
    }
}

/// The one inotify instance of the daemon.
#[derive(Debug)]
pub struct Watcher {
    inotify: Inotify,
    buffer: Vec<u8>,
    loss: Loss,
    random: u64,
}

/// What [`Watcher::drain`] has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// The queue was empty after it.
    pub empty: bool,
    /// At least so many bytes: names are filled up in the queue, here they are counted as they are.
    pub bytes: usize,
}

impl Watcher {
    /// A new, empty instance.
    ///
    /// # Errors
    /// EMFILE: `fs.inotify.max_user_instances` (or the process's limit of descriptors) is reached
    /// (inotify_init(2)); InvalidInput: `SETTLED_TEST_DROP` has a value that is not known.
    pub fn new() -> io::Result<Watcher> {
        let value = std::env::var_os("SETTLED_TEST_DROP").unwrap_or_default();
        Watcher::losing(Loss::parse(value.as_bytes())?)
    }

    fn losing(loss: Loss) -> io::Result<Watcher> {
        Ok(Watcher {
            inotify: Inotify::init()?,
            buffer: vec![0; BUFFER],
            loss,
            random: 0x9e37_79b9_7f4a_7c15,
        })
    }

    /// Whether events are being dropped for a test; to be said in the log at start.
    pub fn drops_events(&self) -> bool {
        self.loss != Loss::None
    }

    /// How many bytes of events wait in the kernel's queue.
    ///
    /// # Errors
    /// None is known for an instance that is open.
    pub fn queued(&self) -> io::Result<usize> {
        sys::notify::queued(self.inotify.as_fd())
    }

    /// Appends what waits in the kernel's queue to `into`, until that is empty or about `budget_events` were read (call
    /// again then, readiness will not be signalled anew). A read takes whole buffers, so up to 16 events more than the
    /// budget may come, and at least one is always asked for.
    ///
    /// # Errors
    /// What read(2) gives, other than "nothing there" and "interrupted". What was read before the error is
    /// in `into`.
    pub fn drain(&mut self, budget_events: usize, into: &mut Vec<Input>) -> io::Result<Drained> {
        let mut left = budget_events;
        let mut lost = false;
        let mut bytes = 0;
        let result = loop {
            let room = left.saturating_mul(SMALLEST).clamp(LARGEST, BUFFER);
            let buffer = self.buffer.get_mut(..room).unwrap_or_default();
            let events = match self.inotify.read_events(buffer) {
                Ok(events) => events,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(true),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => break Err(e),
            };
            for event in events {
                left = left.saturating_sub(1);
                bytes += SMALLEST + event.name.map_or(0, |name| name.len());
                if event.mask.contains(EventMask::Q_OVERFLOW) {
                    into.push(Input::Overflow);
                    continue;
                }
                if self.loss != Loss::None && coin(&mut self.random) {
                    lost = true;
                    continue;
                }
                into.push(Input::Event {
                    wd: event.wd.get_watch_descriptor_id(),
                    mask: event.mask.bits(),
                    cookie: event.cookie,
                    name: event.name.map_or_else(Vec::new, |n| n.as_bytes().to_vec()),
                });
            }
            if left == 0 {
                break Ok(false);
            }
        };
        if lost && self.loss == Loss::Told {
            into.push(Input::Overflow);
        }
        result.map(|empty| Drained { empty, bytes })
    }

    /// Removes a watch. One that the kernel has removed already (its directory is gone or was unmounted) is
    /// no error. Events of it that were queued before still come, then one with `IN_IGNORED`.
    ///
    /// # Errors
    /// What inotify_rm_watch(2) gives, other than EINVAL.
    pub fn remove(&self, wd: i32) -> io::Result<()> {
        match sys::notify::rm_watch(self.inotify.as_fd(), wd) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }
}

/// One bit of a xorshift generator: the same sequence in every run.
fn coin(state: &mut u64) -> bool {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 63 == 1
}

impl AsFd for Watcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl AsRawFd for Watcher {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_raw_fd()
    }
}

impl Source for Watcher {
    fn register(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).register(to, token, interest)
    }

    fn reregister(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).reregister(to, token, interest)
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        SourceFd(&self.as_raw_fd()).deregister(from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::mask;
    use inotify::WatchMask;
    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::time::Duration;

    fn add(watcher: &Watcher, dir: &Path) -> i32 {
        let bits = WatchMask::from_bits_retain(mask::WATCHED);
        let wd = watcher.inotify.watches().add(dir, bits).unwrap();
        wd.get_watch_descriptor_id()
    }

    fn all(watcher: &mut Watcher) -> Vec<Input> {
        let mut seen = Vec::new();
        while !watcher.drain(1000, &mut seen).unwrap().empty {}
        seen
    }

    fn names_with(seen: &[Input], bit: u32) -> Vec<Vec<u8>> {
        let of = |input: &Input| match input {
            Input::Event { mask, name, .. } if mask & bit != 0 => Some(name.clone()),
            _ => None,
        };
        seen.iter().filter_map(of).collect()
    }

    fn overflows(seen: &[Input]) -> usize {
        let is = |input: &&Input| matches!(input, Input::Overflow);
        seen.iter().filter(is).count()
    }

    fn events(seen: &[Input]) -> usize {
        seen.len() - overflows(seen)
    }

    #[test]
    fn names_come_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::losing(Loss::None).unwrap();
        let wd = add(&watcher, dir.path());
        let long = [b'x'; 255];
        let names: [&[u8]; 7] = [
            b"plain.csv",
            b"with\nnewline",
            b"\xff\xfe\x80",
            b"-rf",
            b"$(reboot)",
            b"\"'\\ ",
            &long,
        ];
        for name in names {
            fs::write(dir.path().join(OsStr::from_bytes(name)), b"1").unwrap();
        }
        let seen = all(&mut watcher);
        assert_eq!(names_with(&seen, mask::CREATE), names);
        assert_eq!(names_with(&seen, mask::CLOSE_WRITE), names);
        for input in &seen {
            assert!(
                matches!(input, Input::Event { wd: w, .. } if *w == wd),
                "{input:?}"
            );
        }
    }

    #[test]
    fn both_halves_of_a_rename_share_a_cookie() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let mut watcher = Watcher::losing(Loss::None).unwrap();
        add(&watcher, dir.path());
        fs::rename(dir.path().join("a"), dir.path().join("b")).unwrap();
        let seen = all(&mut watcher);
        let [
            Input::Event {
                mask: from,
                cookie: c1,
                name: n1,
                ..
            },
            Input::Event {
                mask: to,
                cookie: c2,
                name: n2,
                ..
            },
        ] = seen.as_slice()
        else {
            panic!("{seen:?}")
        };
        assert_eq!(*from, mask::MOVED_FROM | mask::ISDIR);
        assert_eq!(*to, mask::MOVED_TO | mask::ISDIR);
        assert!(*c1 != 0 && c1 == c2);
        assert_eq!((n1.as_slice(), n2.as_slice()), (&b"a"[..], &b"b"[..]));
    }

    #[test]
    fn the_kernels_overflow_is_reported_once_and_what_it_kept_is_delivered() {
        let text = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = text.trim().parse().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::losing(Loss::None).unwrap();
        add(&watcher, dir.path());
        // Two events each; neighbours differ, so that the kernel merges none.
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, b"").unwrap();
        for turn in 0..=limit / 2 {
            let (from, to) = if turn % 2 == 0 { (&a, &b) } else { (&b, &a) };
            fs::rename(from, to).unwrap();
        }
        let seen = all(&mut watcher);
        assert_eq!(overflows(&seen), 1);
        assert_eq!(events(&seen), limit);
        fs::write(dir.path().join("later"), b"").unwrap();
        assert_eq!(names_with(&all(&mut watcher), mask::CREATE), [b"later"]);
    }

    #[test]
    fn the_budget_bounds_a_drain_and_nothing_is_lost_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::losing(Loss::None).unwrap();
        add(&watcher, dir.path());
        let wanted: Vec<Vec<u8>> = (0..500).map(|n| format!("f{n}").into_bytes()).collect();
        for name in &wanted {
            fs::write(dir.path().join(OsStr::from_bytes(name)), b"").unwrap();
        }
        let (mut seen, mut drains) = (Vec::new(), 0);
        loop {
            let before = seen.len();
            let queued = watcher.queued().unwrap();
            let drained = watcher.drain(50, &mut seen).unwrap();
            assert!(seen.len() - before <= 50 + 16);
            assert!(drained.bytes >= (seen.len() - before) * SMALLEST);
            assert!(
                drained.bytes <= queued - watcher.queued().unwrap(),
                "never more than was read"
            );
            if drained.empty {
                break;
            }
            drains += 1;
            assert!(
                seen.len() > before,
                "a drain without the end made no progress"
            );
        }
        assert!(drains >= 1000 / 66);
        assert_eq!(names_with(&seen, mask::CREATE), wanted);
        assert!(
            watcher.drain(0, &mut seen).unwrap().empty,
            "an empty queue is at its end"
        );
    }

    #[test]
    fn removed_by_number_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::losing(Loss::None).unwrap();
        let wd = add(&watcher, dir.path());
        watcher.remove(wd).unwrap();
        watcher.remove(wd).unwrap();
        fs::write(dir.path().join("unseen"), b"").unwrap();
        let seen = all(&mut watcher);
        assert!(
            matches!(seen.as_slice(), [Input::Event { mask, .. }] if *mask == mask::IGNORED),
            "{seen:?}"
        );
    }

    #[test]
    fn lossy_modes_lose_about_half_and_one_of_them_says_so() {
        for (loss, told) in [(Loss::Told, true), (Loss::Silent, false)] {
            let dir = tempfile::tempdir().unwrap();
            let mut watcher = Watcher::losing(loss).unwrap();
            assert!(watcher.drops_events());
            add(&watcher, dir.path());
            for n in 0..1000 {
                fs::write(dir.path().join(n.to_string()), b"").unwrap();
            }
            let seen = all(&mut watcher);
            assert!((800..1200).contains(&events(&seen)), "{}", events(&seen));
            assert_eq!(overflows(&seen) > 0, told);
        }
        assert_eq!(Loss::parse(b"half").unwrap(), Loss::Told);
        assert_eq!(Loss::parse(b"silent-half").unwrap(), Loss::Silent);
        assert_eq!(Loss::parse(b"").unwrap(), Loss::None);
        assert!(Loss::parse(b"all").is_err());
    }

    #[test]
    fn readiness_comes_through_mio_and_the_descriptor_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let mut watcher = Watcher::losing(Loss::None).unwrap();
        add(&watcher, dir.path());
        let mut poll = mio::Poll::new().unwrap();
        poll.registry()
            .register(&mut watcher, Token(1), Interest::READABLE)
            .unwrap();
        let mut ready = mio::Events::with_capacity(4);
        poll.poll(&mut ready, Some(Duration::ZERO)).unwrap();
        assert!(ready.is_empty());
        fs::write(dir.path().join("x"), b"").unwrap();
        poll.poll(&mut ready, Some(Duration::from_secs(20)))
            .unwrap();
        assert!(
            ready
                .iter()
                .any(|e| e.token() == Token(1) && e.is_readable())
        );

        let flags = fcntl(&watcher, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC));
        let flags = fcntl(&watcher, FcntlArg::F_GETFL).unwrap();
        assert!(OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    }
}
