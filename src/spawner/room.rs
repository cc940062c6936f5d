//! Inside the spawner and its launchers.
//!
//! The spawner makes scouts and launchers; a launcher makes work children. A launcher keeps one child made in advance, which
//! borrows its memory and waits for an order, so that making it is not part of an order's latency; the launcher itself is
//! suspended until that child has executed its program. A program on a hung mount therefore holds its launcher, and nothing
//! else: all launchers read orders from one socket, the kernel gives each order to one that waits, and the spawner makes
//! another launcher when orders lie there and nobody takes them.

use super::ScoutMain;
use super::wire::{Envelope, Order, PACKET_MAX, Reply, Report, Request};
use crate::child::start::{self, Base, Streams};
use crate::core::ask::Place;
use crate::core::ids::RunId;
use crate::core::{NotStarted, StartStep};
use crate::sys::packet;
use crate::sys::process::{self, ExecRoom, Fork, Loan, Shared, Stack};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::SeqCst;

/// Launchers that are kept although there is nothing to do. Two, so that one takes the next order while the other waits for
/// an exec.
const LAUNCHERS: u32 = 2;

/// How long, in milliseconds, orders may lie untaken before there is one more launcher.
const PATIENCE_MS: u16 = 20;

/// The numbers from here on are the spawner's own descriptors; those below are a child's.
const OWN_FDS: i32 = 10;

/// A child's stack: the look at the file and `PATH_MAX` buffers, several times over.
const STACK_BYTES: usize = 256 * 1024;

/// Exit statuses of the processes in here, from sysexits(3).
const EX_SOFTWARE: i32 = 70;
const EX_OSERR: i32 = 71;

/// What the daemon gives the spawner.
pub(super) struct Given {
    pub(super) ctl: OwnedFd,
    pub(super) desk: OwnedFd,
    pub(super) inotify: OwnedFd,
    pub(super) scout_main: ScoutMain,
}

/// Runs `body` as the rest of this process's life.
pub(super) fn live(body: impl FnOnce() -> io::Result<Infallible>) -> ! {
    let status = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(never)) => match never {},
        Ok(Err(_)) => EX_OSERR,
        Err(_) => EX_SOFTWARE,
    };
    process::exit_now(status)
}

/// The spawner's life, in a fresh copy of the daemon.
pub(super) fn spawner(given: Given) -> io::Result<Infallible> {
    // First of all, so that no signal meant for the daemon's group ends the spawner before the daemon has drained.
    process::block_signals();
    process::default_signals();
    process::ignore_sigio();
    nix::unistd::setsid()?;
    process::set_name(c"settled-spawner");
    let ctl = process::dup_from(given.ctl.as_fd(), OWN_FDS)?;
    let desk = process::dup_from(given.desk.as_fd(), OWN_FDS)?;
    let inotify = process::dup_from(given.inotify.as_fd(), OWN_FDS)?;
    let low_bell = process::bell()?;
    let bell = process::dup_from(low_bell.as_fd(), OWN_FDS)?;
    // Before its number is closed below: an owner that outlives that would close a stranger's.
    drop(low_bell);
    let mut keep = [&ctl, &desk, &inotify, &bell].map(|fd| fd.as_raw_fd());
    keep.sort_unstable();
    // The owners of what is closed here are never dropped: this function does not return to them.
    std::mem::forget((given.ctl, given.desk, given.inotify));
    process::close_others(3, &keep);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    process::put_at(null.as_fd(), 0)?;
    process::put_at(null.as_fd(), 1)?;
    drop(null);
    nix::unistd::chdir("/")?;
    let mut spawner = Room {
        ctl,
        desk,
        inotify,
        bell,
        shared: process::shared()?,
        base: Base::of_this_process(),
        scout_main: given.scout_main,
    };
    process::trim_memory();
    for _ in 0..LAUNCHERS {
        spawner.add_launcher()?;
    }
    spawner.serve()
}

/// What the spawner holds.
struct Room {
    ctl: OwnedFd,
    desk: OwnedFd,
    inotify: OwnedFd,
    /// Rung by the launcher that was the last to stand ready.
    bell: OwnedFd,
    shared: &'static Shared,
    base: Base,
    scout_main: ScoutMain,
}

/// What the spawner knows about the orders.
#[derive(Clone, Copy, Debug)]
enum Watch {
    /// Somebody stands ready, or will ring.
    Calm,
    /// Nobody did; so many orders had been taken then.
    Uneasy(u32),
    /// Nobody stands ready, but there is no order either.
    AllBusy,
}

impl Room {
    fn serve(&mut self) -> io::Result<Infallible> {
        let mut watch = Watch::Calm;
        loop {
            let (other, patience) = match watch {
                Watch::Calm => (Some(self.bell.as_fd()), PollTimeout::NONE),
                Watch::Uneasy(_) => (None, PollTimeout::from(PATIENCE_MS)),
                Watch::AllBusy => (Some(self.desk.as_fd()), PollTimeout::NONE),
            };
            let (request, other) = poll_two(self.ctl.as_fd(), other, patience)?;
            if request {
                // Messages end with the daemon: so does this.
                self.answer()?;
            }
            watch = match watch {
                Watch::Calm if other => {
                    process::hush(self.bell.as_fd());
                    Watch::Uneasy(self.shared.taken.load(SeqCst))
                }
                Watch::Uneasy(taken) if !request => self.look(taken)?,
                Watch::AllBusy if other => Watch::Uneasy(self.shared.taken.load(SeqCst)),
                unchanged => unchanged,
            };
        }
    }

    /// Nobody stood ready a while ago. And now?
    fn look(&self, taken_before: u32) -> io::Result<Watch> {
        if self.shared.idle.load(SeqCst) > 0 {
            self.shared.told.store(false, SeqCst);
            // One that was taken between the two would not have rung.
            if self.shared.idle.load(SeqCst) > 0 {
                return Ok(Watch::Calm);
            }
            self.shared.told.store(true, SeqCst);
        }
        let (waiting, _) = poll_two(self.desk.as_fd(), None, PollTimeout::ZERO)?;
        if !waiting {
            return Ok(Watch::AllBusy);
        }
        let taken = self.shared.taken.load(SeqCst);
        if taken == taken_before {
            // Without room for another process those that there are remain, and this is tried again.
            let _no_room = self.add_launcher();
        }
        Ok(Watch::Uneasy(taken))
    }

    fn answer(&self) -> io::Result<()> {
        let mut buffer = [0u8; 64];
        let mut packet = packet::receive(self.ctl.as_fd(), &mut buffer, true)?;
        if packet.len == 0 {
            process::exit_now(0);
        }
        let request = postcard::from_bytes(&buffer[..packet.len]).map_err(|_| Errno::EBADMSG)?;
        match request {
            Request::Launcher => {
                if self.add_launcher().is_err() {
                    // No room for another process now: looked at again as if nobody stood ready.
                    process::ring(self.bell.as_fd());
                }
                Ok(())
            }
            Request::Scout(number) => {
                let socket = packet.fds[0].take().ok_or(Errno::EBADMSG)?;
                let made = self.add_scout(socket);
                let made = made.map_err(|error| error.raw_os_error().unwrap_or(libc::EAGAIN));
                self.reply(&Reply::Scout(number, made))
            }
        }
    }

    /// Waits if the daemon is behind with reading. The daemon never waits for the spawner, so it will read.
    fn reply(&self, reply: &Reply) -> io::Result<()> {
        let mut buffer = [0u8; 64];
        let bytes = postcard::to_slice(reply, &mut buffer).map_err(|_| Errno::EMSGSIZE)?;
        packet::send(self.ctl.as_fd(), bytes, &[], true)
    }

    fn add_scout(&self, socket: OwnedFd) -> io::Result<i32> {
        match process::fork_sibling()? {
            Fork::Parent(pid) => Ok(pid),
            Fork::Child => live(|| {
                process::default_sigio();
                process::unblock_signals();
                process::set_name(c"settled-scout");
                let inotify = process::dup_from(self.inotify.as_fd(), 3)?;
                let mut keep = [socket.as_raw_fd(), inotify.as_raw_fd()];
                keep.sort_unstable();
                process::close_others(3, &keep);
                (self.scout_main)(socket, inotify)
            }),
        }
    }

    fn add_launcher(&self) -> io::Result<()> {
        match process::fork_sibling()? {
            Fork::Parent(pid) => self.reply(&Reply::Launcher(pid)),
            Fork::Child => live(|| {
                let mut keep = [&self.desk, &self.bell].map(|fd| fd.as_raw_fd());
                keep.sort_unstable();
                process::close_others(3, &keep);
                launcher(
                    self.desk.as_fd(),
                    self.bell.as_fd(),
                    self.shared,
                    &self.base,
                )
            }),
        }
    }
}

/// Whether the descriptors have something to read, or have ended.
fn poll_two(
    one: BorrowedFd<'_>,
    other: Option<BorrowedFd<'_>>,
    patience: PollTimeout,
) -> io::Result<(bool, bool)> {
    let mut fds = [
        PollFd::new(one, PollFlags::POLLIN),
        PollFd::new(other.unwrap_or(one), PollFlags::POLLIN),
    ];
    let count = if other.is_some() { 2 } else { 1 };
    match nix::poll::poll(&mut fds[..count], patience) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let [one, two] = fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
    Ok((one, two && count == 2))
}

/// A launcher's life.
fn launcher(
    desk: BorrowedFd<'_>,
    bell: BorrowedFd<'_>,
    shared: &'static Shared,
    base: &Base,
) -> io::Result<Infallible> {
    let mut stack = Stack::new(STACK_BYTES)?;
    let mut mail = Mail {
        buffer: vec![0; PACKET_MAX],
        long: Vec::new(),
    };
    let mut room = ExecRoom::default();
    loop {
        let stands_ready = shared.idle.fetch_update(SeqCst, SeqCst, |idle| {
            (idle < LAUNCHERS).then_some(idle + 1)
        });
        if stands_ready.is_err() {
            // Made for a hang that is over.
            process::exit_now(0);
        }
        let mut ending = None;
        let mut child = |loan: &Loan| {
            let taken = match mail.take(desk, bell, shared) {
                Ok(Some(taken)) => taken,
                Ok(None) => {
                    ending = Some(0);
                    return 0;
                }
                Err(_) => {
                    ending = Some(EX_OSERR);
                    return EX_OSERR;
                }
            };
            match mail.order(&taken) {
                Ok(order) => start::start(order, &taken.streams, desk, base, &mut room, loan),
                Err(why) => start::refuse(taken.run, why, desk),
            }
        };
        // Killed by the daemon, or by somebody else perhaps before the daemon had heard of it.
        let torn = |number, pid| {
            let _daemon_gone = start::report(desk, &Report::Made(RunId(number), pid));
        };
        let made = stack.lend(&mut child, &torn);
        if let Some(status) = ending {
            process::exit_now(status);
        }
        if let Err(error) = made {
            // No room for another process: what is ordered meanwhile is refused, with that reason.
            let Some(taken) = mail.take(desk, bell, shared)? else {
                process::exit_now(0);
            };
            let why = NotStarted::Failed(StartStep::Fork, error.raw_os_error().unwrap_or(0));
            start::report(desk, &Report::NotStarted(taken.run, why, 0))?;
        }
        mail.long = Vec::new();
    }
}

/// Where orders are received. Belongs to the launcher, so that what its child puts here is not lost.
struct Mail {
    buffer: Vec<u8>,
    /// A long order.
    long: Vec<u8>,
}

/// An order that was taken and is still to be read.
struct Taken {
    run: RunId,
    /// Where it is in `Mail::buffer`, if it is not a long one.
    short: Option<std::ops::Range<usize>>,
    streams: Streams,
    file: Option<OwnedFd>,
}

impl Mail {
    /// Waits for an order; `None` when the daemon is gone.
    fn take(
        &mut self,
        desk: BorrowedFd<'_>,
        bell: BorrowedFd<'_>,
        shared: &Shared,
    ) -> io::Result<Option<Taken>> {
        let packet = packet::receive(desk, &mut self.buffer, true)?;
        if packet.len == 0 {
            return Ok(None);
        }
        shared.taken.fetch_add(1, SeqCst);
        if shared.idle.fetch_sub(1, SeqCst) == 1 && !shared.told.swap(true, SeqCst) {
            process::ring(bell);
        }
        let bytes = self.buffer.get(..packet.len).unwrap_or_default();
        let (envelope, rest) =
            postcard::take_from_bytes::<Envelope>(bytes).map_err(|_| Errno::EBADMSG)?;
        let mut fds = packet.fds.into_iter().flatten();
        let mut fd = || fds.next().ok_or(Errno::EBADMSG);
        let streams = Streams {
            output: fd()?,
            worker: if envelope.worker {
                Some((fd()?, fd()?))
            } else {
                None
            },
            stdin: envelope.stdin.then(&mut fd).transpose()?,
            slot: envelope.slot.then(&mut fd).transpose()?,
        };
        Ok(Some(Taken {
            run: envelope.run,
            short: (!envelope.in_file).then_some(packet.len - rest.len()..packet.len),
            streams,
            file: fds.next(),
        }))
    }

    /// Reads it.
    fn order(&mut self, taken: &Taken) -> Result<Order<'_, Place>, NotStarted> {
        let bytes = match (&taken.short, &taken.file) {
            (Some(range), _) => self.buffer.get(range.clone()).unwrap_or_default(),
            (None, Some(file)) => {
                packet::read_whole(file.as_fd(), &mut self.long).map_err(|error| {
                    NotStarted::Failed(StartStep::Setup, error.raw_os_error().unwrap_or(libc::EIO))
                })?;
                &self.long
            }
            (None, None) => &[],
        };
        postcard::from_bytes(bytes).map_err(|_| NotStarted::Failed(StartStep::Setup, libc::EBADMSG))
    }
}
