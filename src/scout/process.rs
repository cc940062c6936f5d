//! A scout's life: it reads questions, asks the kernel, writes answers, until its socket ends.
//!
//! Questions are answered in order, with two exceptions. A listing is made piece by piece between the other questions
//! (`listings`), so that a large directory does not keep them. A file which has to be copied, or goes to another mount, is
//! handed to a process of its own: neither its size nor a server that does not answer may keep the mount's other questions.
//! That process reports on a pipe, and dies with its scout, so that no two ever work on one file.

use super::listings::Listings;
use super::wire::{self, Malformed};
use crate::core::ask::{Act, Answer, Disposal, Exports, Question};
use crate::core::ids::AskId;
use crate::core::mask;
use crate::exports::{self, Tables};
use crate::mover::{Ended, Failure, Mover, Order};
use crate::probe::{Prober, Wanted, resolve};
use crate::sys::process::{self, Fork};
use inotify::{Inotify, WatchMask, Watches};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid, pipe2, read, write};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Answers are written when they come to this many bytes, and before the scout waits: some sixty probes, so that the daemon
/// works on the first while the last are asked.
const FLUSH_BYTES: usize = 4096;

/// What may be said and not read, in the kernel's own reckoning, which is about twice the bytes (socket(7), SO_SNDBUF).
const SEND_BYTES: usize = 64 * 1024;

/// Bytes read from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// Disposals whose directories are made durable together.
const HELD_MAX: usize = 256;

/// Processes of their own at the same time.
const AWAY_MAX: usize = 4;

/// Exit statuses, from sysexits(3).
const EX_OK: i32 = 0;
const EX_IOERR: i32 = 74;
const EX_PROTOCOL: i32 = 76;

/// The life of a scout, in a process that has just been cloned and has one thread. Ends with the socket.
///
/// `inotify` is the daemon's instance, to which watches are added. Everything above the three standard descriptors is
/// closed but these two.
pub fn run(socket: OwnedFd, inotify: OwnedFd) -> ! {
    let mut keep = [socket.as_raw_fd(), inotify.as_raw_fd()];
    keep.sort_unstable();
    process::close_others(3, &keep);
    // A handler of the daemon's would keep it from being ended while it waits in the kernel.
    process::default_signals();
    process::unblock_signals();
    // The break of a lease that is held for a microsecond must not end it.
    process::ignore_sigio();
    let inotify = Inotify::from(inotify);
    let status = match Scout::new(socket, inotify.watches()).serve() {
        Ok(()) => EX_OK,
        Err(End::Malformed) => EX_PROTOCOL,
        Err(End::Socket) => EX_IOERR,
    };
    process::exit_now(status)
}

/// Why it cannot go on.
enum End {
    Malformed,
    Socket,
}

impl From<Malformed> for End {
    fn from(_: Malformed) -> End {
        End::Malformed
    }
}

impl From<Errno> for End {
    fn from(_: Errno) -> End {
        End::Socket
    }
}

/// A process of its own that disposes of one file.
struct Away {
    ask: AskId,
    pid: Pid,
    /// Its answer comes here, as a frame, and then the end.
    report: OwnedFd,
    said: Vec<u8>,
}

struct Scout {
    socket: OwnedFd,
    watches: Watches,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    prober: Prober,
    mover: Mover<fn(&'static str)>,
    /// Answers that hold once the mover's directories are durable.
    held: Vec<(AskId, Disposal)>,
    listings: Listings,
    /// The daemon has read nearly everything.
    may_list: bool,
    away: Vec<Away>,
    queue: VecDeque<(AskId, Question)>,
    /// Ended, or about to.
    zombies: Vec<Pid>,
}

fn no_step(_: &'static str) {}

impl Scout {
    fn new(socket: OwnedFd, watches: Watches) -> Scout {
        let mut mover: Mover<fn(&'static str)> = Mover::new(no_step);
        mover.may_copy = false;
        Scout {
            socket,
            watches,
            inbox: Vec::new(),
            outbox: Vec::new(),
            prober: Prober::new(),
            mover,
            held: Vec::new(),
            listings: Listings::default(),
            may_list: false,
            away: Vec::new(),
            queue: VecDeque::new(),
            zombies: Vec::new(),
        }
    }

    fn serve(&mut self) -> Result<(), End> {
        // Only so that listings end sooner where it is more.
        let _as_it_is = setsockopt(&self.socket, SndBuf, &SEND_BYTES);
        loop {
            self.answer_inbox()?;
            self.send_away()?;
            self.release()?;
            if std::mem::take(&mut self.may_list) {
                // Nobody's answer waits for it.
                self.flush()?;
                self.list_on()?;
            }
            // Before the last answer: whoever has it may unmount.
            self.prober.rest();
            self.flush()?;
            if self.inbox.is_empty() {
                self.inbox = Vec::new();
            }
            let must_look = !self.away.is_empty() || !self.listings.is_empty();
            if must_look && !self.wait()? {
                continue;
            }
            let start = self.inbox.len();
            self.inbox.resize(start + READ_BYTES, 0);
            let room = self.inbox.get_mut(start..).unwrap_or_default();
            let filled = match read(self.socket.as_fd(), room) {
                Ok(0) => return Ok(()),
                Ok(filled) => filled,
                Err(Errno::EINTR) => 0,
                Err(errno) => return Err(errno.into()),
            };
            self.inbox.truncate(start + filled);
        }
    }

    /// Waits for the socket or the processes. While there is something to be listed, also until the daemon has read
    /// nearly all that was said: what it has not is before every other answer. True if the socket has a question.
    fn wait(&mut self) -> Result<bool, End> {
        let mut awaited = PollFlags::POLLIN;
        awaited.set(PollFlags::POLLOUT, !self.listings.is_empty());
        let mut fds = vec![PollFd::new(self.socket.as_fd(), awaited)];
        let reports = self.away.iter().map(|away| away.report.as_fd());
        fds.extend(reports.map(|report| PollFd::new(report, PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = fds
            .iter()
            .map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let socket = ready.next().unwrap_or(PollFlags::empty());
        let ready: Vec<bool> = ready.map(|events| !events.is_empty()).collect();
        // A unix socket has room again when three quarters of what it may hold are free (unix_poll() in the kernel).
        self.may_list = socket.contains(PollFlags::POLLOUT);
        self.hear(&ready);
        Ok(socket.intersects(!PollFlags::POLLOUT))
    }

    /// Takes what the processes of their own reported.
    fn hear(&mut self, ready: &[bool]) {
        let mut index = 0;
        let (mut outbox, mut zombies) = (Vec::new(), Vec::new());
        self.away.retain_mut(|away| {
            let is_ready = ready.get(index).copied().unwrap_or(false);
            index += 1;
            let mut buffer = [0; 1024];
            match is_ready.then(|| read(away.report.as_fd(), &mut buffer)) {
                None | Some(Err(Errno::EINTR)) => true,
                Some(Ok(filled @ 1..)) => {
                    away.said
                        .extend_from_slice(buffer.get(..filled).unwrap_or_default());
                    true
                }
                Some(Ok(0) | Err(_)) => {
                    match wire::take(&mut away.said.as_slice()) {
                        Ok(Some(_)) => outbox.append(&mut away.said),
                        // It was ended in the middle: asked again, another one goes on from there.
                        _ => say(
                            &mut outbox,
                            away.ask,
                            Some(Answer::Disposed(Ok(failed(libc::EIO, "copy process")))),
                        ),
                    }
                    zombies.push(away.pid);
                    false
                }
            }
        });
        self.outbox.append(&mut outbox);
        self.zombies.append(&mut zombies);
        self.zombies.retain(|&pid| {
            let state = waitpid(pid, Some(WaitPidFlag::WNOHANG));
            matches!(state, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
        });
    }

    /// Answers every question that has arrived whole.
    fn answer_inbox(&mut self) -> Result<(), End> {
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = inbox.as_slice();
        while let Some(frame) = wire::take(&mut rest)? {
            let (ask, question) = postcard::from_bytes(frame).map_err(|_| Malformed)?;
            self.answer(ask, question);
            if self.held.len() >= HELD_MAX {
                self.release()?;
            }
            if self.outbox.len() >= FLUSH_BYTES {
                self.flush()?;
            }
        }
        let done = inbox.len() - rest.len();
        self.inbox = inbox;
        self.inbox.drain(..done);
        Ok(())
    }

    fn answer(&mut self, ask: AskId, question: Question) {
        match &question {
            Question::Resolve { path } => {
                say(&mut self.outbox, ask, Some(Answer::Resolved(resolve(path))));
            }
            Question::Probe {
                place,
                lock,
                flock,
                lease,
            } => {
                let wanted = Wanted {
                    lock: *lock,
                    flock: *flock,
                    lease: *lease,
                };
                let facts = self.prober.probe(place, wanted);
                say(&mut self.outbox, ask, Some(Answer::Probed(facts)));
            }
            Question::Moved { place } => {
                let times = self.prober.moved(place);
                say(&mut self.outbox, ask, Some(Answer::Moved(times)));
            }
            Question::Bind { .. } => self.listings.push(ask, question),
            Question::Exports => {
                let tables = Tables::default();
                // First, so that no change after this goes unheard.
                let wds = hear_of(&tables, &mut self.watches);
                let exports = Exports {
                    wds,
                    ..exports::survey(&tables)
                };
                say(&mut self.outbox, ask, Some(Answer::Exports(exports)));
            }
            Question::Dispose { .. } => self.dispose(ask, question),
        }
    }

    /// Goes on with the listings for a moment.
    fn list_on(&mut self) -> Result<(), End> {
        let (socket, outbox) = (self.socket.as_fd(), &mut self.outbox);
        let mut written = Ok(());
        self.listings
            .go_on(&mut self.prober, &mut self.watches, &mut |ask, answer| {
                say(outbox, ask, Some(answer));
                if outbox.len() >= FLUSH_BYTES && written.is_ok() {
                    written = flush(socket, outbox);
                }
            });
        written
    }

    fn dispose(&mut self, ask: AskId, question: Question) {
        if self.goes_elsewhere(&question) {
            self.hand_away(ask, question);
            return;
        }
        match dispose(&mut self.prober, &mut self.mover, &question) {
            Ok(Ended::Answer(disposal)) => self.held.push((ask, disposal)),
            Ok(Ended::MustCopy) => self.hand_away(ask, question),
            Err(fault) => say(&mut self.outbox, ask, Some(Answer::Disposed(Err(fault)))),
        }
    }

    /// Whether the mount table says that the target is on another mount, which must not be touched from here. If it
    /// cannot be read, it might be.
    fn goes_elsewhere(&mut self, question: &Question) -> bool {
        let Question::Dispose { place, act, .. } = question else {
            return false;
        };
        let Act::Move { dir, .. } = act else {
            return false;
        };
        match self.prober.mounts() {
            Ok(mounts) => {
                crate::mounts::find(mounts, dir).is_none_or(|mount| mount.id != place.mount)
            }
            Err(_) => true,
        }
    }

    fn hand_away(&mut self, ask: AskId, question: Question) {
        say(&mut self.outbox, ask, None);
        self.queue.push_back((ask, question));
    }

    /// Starts processes for what is queued, as many as there may be.
    fn send_away(&mut self) -> Result<(), End> {
        while self.away.len() < AWAY_MAX {
            let Some((ask, question)) = self.queue.pop_front() else {
                break;
            };
            match start_away(ask, &question) {
                Ok(away) => self.away.push(away),
                Err(errno) => {
                    let failed = failed(errno as i32, "start copy process");
                    say(&mut self.outbox, ask, Some(Answer::Disposed(Ok(failed))));
                }
            }
        }
        Ok(())
    }

    /// Makes what was disposed of durable, and says so.
    fn release(&mut self) -> Result<(), End> {
        if self.held.is_empty() {
            return Ok(());
        }
        let synced = self.mover.sync();
        for (ask, disposal) in self.held.drain(..) {
            let disposal = durable(disposal, synced);
            say(&mut self.outbox, ask, Some(Answer::Disposed(Ok(disposal))));
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), End> {
        flush(self.socket.as_fd(), &mut self.outbox)?;
        if self.outbox.capacity() > READ_BYTES {
            self.outbox = Vec::new();
        }
        Ok(())
    }
}

/// Watches the directories where the export tables are. One that is not there, or that cannot be watched, is heard of by
/// SIGHUP alone.
fn hear_of(tables: &Tables, watches: &mut Watches) -> Vec<i32> {
    let mask = WatchMask::from_bits_truncate(mask::WATCHED);
    let added = tables
        .directories()
        .into_iter()
        .filter_map(|dir| watches.add(dir, mask).ok());
    added.map(|wd| wd.get_watch_descriptor_id()).collect()
}

fn failed(errno: i32, step: &str) -> Disposal {
    Disposal::Failed {
        errno,
        step: step.into(),
    }
}

/// What holds of an answer after its directories were synced, or were not.
fn durable(disposal: Disposal, synced: Result<(), Failure>) -> Disposal {
    match (disposal, synced) {
        (Disposal::Done, Err(Failure { errno, step })) => failed(errno as i32, step),
        (disposal, _) => disposal,
    }
}

fn dispose<S: FnMut(&'static str)>(
    prober: &mut Prober,
    mover: &mut Mover<S>,
    question: &Question,
) -> Result<Ended, crate::core::ask::Fault> {
    let Question::Dispose {
        place,
        private,
        expect,
        lease,
        act,
    } = question
    else {
        return Ok(Ended::Answer(failed(libc::EINVAL, "question")));
    };
    let order = Order {
        rel: &place.rel,
        private,
        expect,
        lease: *lease,
        act,
    };
    Ok(mover.dispose(prober.base(place)?, &order))
}

/// Forks a process that disposes of one file, as long as that takes.
fn start_away(ask: AskId, question: &Question) -> nix::Result<Away> {
    let (report, out) = pipe2(OFlag::O_CLOEXEC)?;
    let scout = getpid();
    match process::fork() {
        Ok(Fork::Parent(pid)) => Ok(Away {
            ask,
            pid: Pid::from_raw(pid),
            report,
            said: Vec::new(),
        }),
        Ok(Fork::Child) => {
            // The scout may have ended before this was asked for.
            if set_pdeathsig(Signal::SIGKILL).is_err() || getppid() != scout {
                process::exit_now(EX_IOERR);
            }
            // The daemon is to see the end of the scout's socket when the scout ends.
            process::close_others(3, &[out.as_raw_fd()]);
            let mut mover = Mover::new(no_step);
            let answer = match dispose(&mut Prober::new(), &mut mover, question) {
                Ok(Ended::Answer(disposal)) => Ok(durable(disposal, mover.sync())),
                Ok(Ended::MustCopy) => Ok(failed(libc::EXDEV, "copy")),
                Err(fault) => Err(fault),
            };
            let mut frame = Vec::new();
            say(&mut frame, ask, Some(Answer::Disposed(answer)));
            let written = flush(out.as_fd(), &mut frame);
            process::exit_now(if written.is_ok() { EX_OK } else { EX_IOERR })
        }
        Err(error) => Err(Errno::from_raw(
            error.raw_os_error().unwrap_or(libc::EAGAIN),
        )),
    }
}

fn say(out: &mut Vec<u8>, ask: AskId, answer: Option<Answer>) {
    if wire::put(out, &(ask, &answer)).is_err() {
        // No answer is that long: a part of a listing ends at 8 KiB. Without it the daemon would wait, so it sees a
        // scout that ends.
        process::exit_now(EX_PROTOCOL);
    }
}

/// Writes all of it; waits while the daemon is behind with reading.
fn flush(to: BorrowedFd<'_>, outbox: &mut Vec<u8>) -> Result<(), End> {
    let mut rest = outbox.as_slice();
    while !rest.is_empty() {
        match write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    outbox.clear();
    Ok(())
}
