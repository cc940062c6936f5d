//! The small process that all others are cloned from: the daemon's end of it. What goes on inside is in `room`.
//!
//! ```text
//! daemon ──ctl───► spawner ──clone──► scouts, launchers          (requests for them, and their pids)
//!        ──desk──► launchers ──vfork──► work children            (orders, and reports about them)
//! ```
//!
//! All of them are the daemon's own children (clone(2), `CLONE_PARENT`): it alone reaps them. Both sockets are packet sockets.
//! The daemon never waits for room in them, it queues; so the other side may wait, and no two can wait for each other.
//! When the daemon ends, by whatever means, the sockets close and spawner and launchers end.

mod room;
pub(crate) mod wire;

use crate::core::ask::Place;
use crate::core::ids::RunId;
use crate::sys::packet;
use crate::sys::process::{self, Exit, Fork};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use wire::{Envelope, Order, PACKET_MAX, Reply, Report, Request};

/// What a scout does, all its life: its socket, and the inotify instance that it shares with the daemon.
pub type ScoutMain = fn(OwnedFd, OwnedFd) -> !;

/// The spawner's socket.
pub const TOKEN_SPAWNER: Token = Token(3);
/// The socket of orders and reports.
pub const TOKEN_REPORTS: Token = Token(4);
/// Tokens of launchers' pidfds, with a number below 2^31 added.
const TOKENS_LAUNCHER: usize = (2 << 32) | (1 << 31);

/// Longest report or reply.
const ANSWER_MAX: usize = 64;

/// One end of a packet socket, with what is still to be sent.
#[derive(Debug)]
struct Outbox {
    socket: OwnedFd,
    token: Token,
    queue: VecDeque<(Vec<u8>, Vec<Rc<OwnedFd>>)>,
    /// The socket was full; its token becomes ready when there is room.
    waits: bool,
}

impl Outbox {
    fn send(
        &mut self,
        registry: &Registry,
        bytes: Vec<u8>,
        fds: Vec<Rc<OwnedFd>>,
    ) -> io::Result<()> {
        self.queue.push_back((bytes, fds));
        if self.waits {
            Ok(())
        } else {
            self.flush(registry)
        }
    }

    /// Sends what there is room for. Asks to be told of more room only where it is needed: each message taken by the
    /// other side would wake the loop.
    fn flush(&mut self, registry: &Registry) -> io::Result<()> {
        while let Some((bytes, fds)) = self.queue.front() {
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            match packet::send(self.socket.as_fd(), bytes, &borrowed, false) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.waits == self.queue.is_empty() {
            self.waits = !self.waits;
            let interest = if self.waits {
                Interest::READABLE | Interest::WRITABLE
            } else {
                Interest::READABLE
            };
            registry.reregister(
                &mut SourceFd(&self.socket.as_raw_fd()),
                self.token,
                interest,
            )?;
        }
        Ok(())
    }

    /// The next message, `None` if there is none now.
    fn receive(&self, buffer: &mut [u8; ANSWER_MAX]) -> io::Result<Option<usize>> {
        match packet::receive(self.socket.as_fd(), buffer, false) {
            Ok(packet) if packet.len == 0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the spawner has ended",
            )),
            Ok(packet) => Ok(Some(packet.len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn unreadable<T>(_: postcard::Error) -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "a message of the spawner cannot be read",
    ))
}

/// A scout was made, or could not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScoutMade {
    /// The number given with the request.
    pub number: u64,
    /// The scout's pid, to be reaped by the caller; or the errno of clone(2).
    pub pid: Result<i32, i32>,
}

/// The daemon's end of the spawner.
///
/// An error of any method but `start` means that the spawner or a launcher is no more, or cannot be understood, and that an
/// order may be lost with it: the daemon has to end, and its next start recovers.
#[derive(Debug)]
pub struct Spawner {
    ctl: Outbox,
    desk: Outbox,
    pid: i32,
    /// Launchers by number of their token, `None` where one has ended.
    launchers: Vec<Option<OwnedFd>>,
}

impl Spawner {
    /// Forks the spawner. To be called while the process is still small and has one thread: what it holds now, every
    /// scout carries along. The spawner keeps a descriptor of its own for `inotify`, and standard error.
    ///
    /// # Errors
    /// Those of socketpair(2) and fork(2).
    pub fn start(inotify: BorrowedFd<'_>, scout_main: ScoutMain) -> io::Result<Spawner> {
        let (ctl, its_ctl) = packet::pair()?;
        let (desk, its_desk) = packet::pair()?;
        let inotify = inotify.try_clone_to_owned()?;
        let outbox = |socket, token| Outbox {
            socket,
            token,
            queue: VecDeque::new(),
            waits: false,
        };
        match process::fork()? {
            Fork::Child => room::live(|| {
                room::spawner(room::Given {
                    ctl: its_ctl,
                    desk: its_desk,
                    inotify,
                    scout_main,
                })
            }),
            Fork::Parent(pid) => Ok(Spawner {
                ctl: outbox(ctl, TOKEN_SPAWNER),
                desk: outbox(desk, TOKEN_REPORTS),
                pid,
                launchers: Vec::new(),
            }),
        }
    }

    /// The spawner's pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Registers the sockets under [`TOKEN_SPAWNER`] and [`TOKEN_REPORTS`].
    pub(crate) fn register(&self, registry: &Registry) -> io::Result<()> {
        for outbox in [&self.ctl, &self.desk] {
            let fd = outbox.socket.as_raw_fd();
            registry.register(&mut SourceFd(&fd), outbox.token, Interest::READABLE)?;
        }
        Ok(())
    }

    /// Asks for a scout; [`ScoutMade`] with the same number follows.
    pub(crate) fn order_scout(
        &mut self,
        registry: &Registry,
        number: u64,
        socket: OwnedFd,
    ) -> io::Result<()> {
        let request = postcard::to_stdvec(&Request::Scout(number)).or_else(unreadable)?;
        self.ctl.send(registry, request, vec![Rc::new(socket)])
    }

    /// Sends an order; reports with its run follow.
    ///
    /// # Errors
    /// As said above; besides those of memfd_create(2), for an order that is too long for a message: see [`Refused`].
    pub(crate) fn order_child(
        &mut self,
        registry: &Registry,
        order: &Order<'_, &Place>,
        ends: Ends,
    ) -> Result<(), Refused> {
        let worker = ends.worker.is_some();
        let (stdin, slot) = (ends.stdin.is_some(), ends.slot.is_some());
        let encode = |in_file| {
            let envelope = Envelope {
                run: order.run,
                worker,
                stdin,
                slot,
                in_file,
            };
            postcard::to_stdvec(&envelope)
                .or_else(unreadable)
                .map_err(Refused::Fatal)
        };
        let mut message = encode(false)?;
        message = postcard::to_extend(order, message)
            .or_else(unreadable)
            .map_err(Refused::Fatal)?;
        let mut fds = vec![ends.output];
        if let Some((stdin, stdout)) = ends.worker {
            fds.extend([stdin, stdout].map(Rc::new));
        }
        fds.extend(ends.stdin);
        fds.extend(ends.slot.map(Rc::new));
        if message.len() > PACKET_MAX {
            let start = encode(false)?.len();
            let body = message.get(start..).unwrap_or_default();
            fds.push(Rc::new(packet::file_of(body).map_err(Refused::ThisOne)?));
            message = encode(true)?;
        }
        self.desk
            .send(registry, message, fds)
            .map_err(Refused::Fatal)
    }

    /// Takes back an order that was not sent yet. `false` if it was.
    pub(crate) fn take_back(&mut self, run: RunId) -> bool {
        let before = self.desk.queue.len();
        self.desk.queue.retain(|(message, _)| {
            postcard::take_from_bytes::<Envelope>(message)
                .map_or(true, |(envelope, _)| envelope.run != run)
        });
        // An emptied queue still waits for room; the next flush sees that there is nothing left to wait for.
        self.desk.queue.len() != before
    }

    /// To be called when [`TOKEN_SPAWNER`] is ready.
    pub(crate) fn spawner_ready(
        &mut self,
        registry: &Registry,
        scout: &mut dyn FnMut(ScoutMade),
    ) -> io::Result<()> {
        self.ctl.flush(registry)?;
        let mut buffer = [0; ANSWER_MAX];
        while let Some(len) = self.ctl.receive(&mut buffer)? {
            match postcard::from_bytes(buffer.get(..len).unwrap_or_default()).or_else(unreadable)? {
                Reply::Launcher(pid) => self.add_launcher(registry, pid)?,
                Reply::Scout(number, pid) => scout(ScoutMade { number, pid }),
            }
        }
        Ok(())
    }

    /// To be called when [`TOKEN_REPORTS`] is ready, before [`Spawner::report`].
    pub(crate) fn reports_ready(&mut self, registry: &Registry) -> io::Result<()> {
        self.desk.flush(registry)
    }

    /// The next report, `None` if there is none now.
    pub(crate) fn report(&mut self) -> io::Result<Option<Report>> {
        let mut buffer = [0; ANSWER_MAX];
        match self.desk.receive(&mut buffer)? {
            Some(len) => postcard::from_bytes(buffer.get(..len).unwrap_or_default())
                .or_else(unreadable)
                .map(Some),
            None => Ok(None),
        }
    }

    fn add_launcher(&mut self, registry: &Registry, pid: i32) -> io::Result<()> {
        let pidfd = process::pidfd_open(pid)?;
        let free = self.launchers.iter().position(Option::is_none);
        let number = free.unwrap_or(self.launchers.len());
        let token = Token(TOKENS_LAUNCHER + number);
        registry.register(&mut SourceFd(&pidfd.as_raw_fd()), token, Interest::READABLE)?;
        match self.launchers.get_mut(number) {
            Some(place) => *place = Some(pidfd),
            None => self.launchers.push(Some(pidfd)),
        }
        Ok(())
    }

    /// To be called with every token of a pidfd. `false` if it is no launcher's.
    pub(crate) fn launcher_ready(&mut self, registry: &Registry, token: Token) -> io::Result<bool> {
        let Some(number) = token
            .0
            .checked_sub(TOKENS_LAUNCHER)
            .filter(|&n| n < 1 << 31)
        else {
            return Ok(false);
        };
        let Some(place) = self.launchers.get_mut(number) else {
            return Ok(true);
        };
        let ended = match place {
            Some(pidfd) => process::ended(pidfd.as_fd(), true)?,
            None => None,
        };
        match ended {
            None => {}
            // One more than needed.
            Some(Exit::Status(0)) => *place = None,
            // A child was killed between its order and its exec; that one's own pidfd says so.
            Some(Exit::Status(process::TORN)) => {
                *place = None;
                let request = postcard::to_stdvec(&Request::Launcher).or_else(unreadable)?;
                self.ctl.send(registry, request, Vec::new())?;
            }
            Some(exit) => {
                return Err(io::Error::other(format!(
                    "a launcher of the spawner has ended: {exit:?}"
                )));
            }
        }
        Ok(true)
    }
}

/// The ends of pipes that go with an order.
#[derive(Debug)]
pub(crate) struct Ends {
    /// Standard output and standard error, or a worker's standard error alone.
    pub(crate) output: Rc<OwnedFd>,
    /// A worker's standard input and standard output.
    pub(crate) worker: Option<(OwnedFd, OwnedFd)>,
    /// Standard input of others, where it is not empty.
    pub(crate) stdin: Option<Rc<OwnedFd>>,
    /// The lock on a slot. Let go of here once the order has been sent.
    pub(crate) slot: Option<OwnedFd>,
}

/// Why an order was not sent.
#[derive(Debug)]
pub(crate) enum Refused {
    /// This one cannot be; others can.
    ThisOne(io::Error),
    /// There is no spawner any more.
    Fatal(io::Error),
}
