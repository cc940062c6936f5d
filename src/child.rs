//! Work processes: asked for, known by their pid, watched by pidfd, heard, signalled, reaped.
//!
//! A run goes through: asked for → made (its pid is known) → exited and reaped → its output read to the end → ended. It can
//! also end without having been made. Nothing here waits: the spawner reports, pidfds and pipes become ready, and what is
//! too much for one turn is due in the next.

mod output;
mod setup;
mod sink;
pub(crate) mod start;
mod tend;
mod worker;

pub use output::{LINE_MAX, TAIL_MAX};

use crate::core::ids::RunId;
use crate::core::time::Mono;
use crate::core::{ChildEnd, Input, NotStarted, Program, SpawnOrder, StartStep, Stdin};
use crate::slots::Slots;
use crate::spawner::wire::{Order, Report, push_string};
use crate::spawner::{Ends, Refused, ScoutMade, Spawner, TOKEN_REPORTS, TOKEN_SPAWNER};
use crate::sys::process::{self, Exit};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};
use output::Capture;
use sink::{Sinks, TOKENS_SINK};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use tend::{Given, Voice, variables_of};
use worker::Worker;

/// Tokens of children's pidfds, of their outputs, and of workers' pipes: these, with the child's place added.
const TOKENS_PIDFD: usize = 2 << 32;
const TOKENS_OUTPUT: usize = 3 << 32;
const TOKENS_FEED: usize = 6 << 32;
const TOKENS_LINES: usize = 7 << 32;

/// Runs from here on are loggers (see `sink`), which the core does not know.
const LOGGERS: u64 = 1 << 63;

/// Runs from here on are asked for by the loop itself, and the core does not know them either.
pub(crate) const OWN_RUNS: RunId = RunId(LOGGERS | 1 << 62);

/// What one read takes from an output.
const READ_BYTES: usize = 4096;

/// What one turn reads, over all children: so many bytes, or lines, and what is left is due in the next. A read is finished
/// once begun, so that a turn has up to `READ_BYTES` lines more.
const TURN_BYTES: usize = 256 * 1024;
const TURN_LINES: usize = 1024;

/// A line of a child's output.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Whose.
    pub run: RunId,
    /// The name of its watch.
    pub watch: &'a str,
    /// Its job, as users see it.
    pub job_name: &'a str,
    /// The number of its attempt.
    pub attempt: u32,
    /// Without newline, at most [`LINE_MAX`] bytes, which need not be UTF-8.
    pub text: &'a [u8],
}

/// What happened to processes.
#[derive(Debug)]
pub enum Happening<'a> {
    /// A child said something.
    Line(Line<'a>),
    /// A worker said a line to the daemon, or will take or say no more: [`Input::WorkerLine`], [`Input::WorkerDeaf`].
    Worker(Input),
    /// A run ended: always [`Input::Ended`], after the last of its lines of either kind.
    Ended(Input),
    /// A scout was made, or could not be.
    Scout(ScoutMade),
    /// Something that the log is to say about a file that output goes to.
    Trouble(String),
}

/// What log lines of a child carry.
#[derive(Debug)]
struct Labels {
    run: RunId,
    watch: String,
    job_name: String,
    attempt: u32,
}

impl Labels {
    fn line<'a>(&'a self, text: &'a [u8]) -> Line<'a> {
        Line {
            run: self.run,
            watch: &self.watch,
            job_name: &self.job_name,
            attempt: self.attempt,
            text,
        }
    }
}

/// One run.
#[derive(Debug)]
struct Child {
    labels: Labels,
    /// Known from the spawner's report until the child is reaped: as long as it is here, nobody else can have it.
    pid: Option<i32>,
    pidfd: Option<OwnedFd>,
    /// The read end; `None` once it has been read to its end or given up.
    output: Option<OwnedFd>,
    /// The write end. The child has its own; this one is kept so that there is a descriptor to spare for the pidfd.
    spare: Option<Rc<OwnedFd>>,
    capture: Capture,
    /// The output may have something to read.
    audible: bool,
    worker: Option<Worker>,
    /// Signals to be sent as soon as there is a pid.
    owed: Vec<i32>,
    /// It was sent a signal: what is left of its group when its leader ends is killed.
    signalled: bool,
    /// It was to be killed: its end does not wait for room in a sink.
    killed: bool,
    voice: Voice,
    not_started: Option<(NotStarted, u32)>,
    end: Option<ChildEnd>,
    /// After the end: how much of the output is still read, even if others keep writing to it.
    left: usize,
    due: bool,
}

/// The children, and the spawner that makes them.
#[derive(Debug)]
pub struct Children {
    spawner: Spawner,
    registry: Registry,
    places: Vec<Option<Child>>,
    free: Vec<usize>,
    runs: BTreeMap<RunId, usize>,
    /// Places whose output can be read, or whose end can be told.
    due: VecDeque<usize>,
    /// Places of workers that were fed since the last [`Children::flush`].
    fed: Vec<usize>,
    /// Workers that were found to have closed their standard input.
    deaf: VecDeque<RunId>,
    /// Ends of runs that never had a place.
    stillborn: VecDeque<(RunId, ChildEnd)>,
    scouts: VecDeque<ScoutMade>,
    slots: Slots,
    /// Questions about slots, until [`Children::asked`].
    questions: Vec<(u32, Option<i32>)>,
    sinks: Sinks,
    /// Loggers that were asked for so far.
    loggers: u64,
    troubles: VecDeque<String>,
    now: Mono,
    buffer: Vec<u8>,
}

impl Children {
    /// Registers the spawner's sockets with the loop.
    pub fn new(spawner: Spawner, registry: Registry, slots: Slots) -> io::Result<Children> {
        spawner.register(&registry)?;
        Ok(Children {
            spawner,
            registry,
            places: Vec::new(),
            free: Vec::new(),
            runs: BTreeMap::new(),
            due: VecDeque::new(),
            fed: Vec::new(),
            deaf: VecDeque::new(),
            stillborn: VecDeque::new(),
            scouts: VecDeque::new(),
            slots,
            questions: Vec::new(),
            sinks: Sinks::default(),
            loggers: 0,
            troubles: VecDeque::new(),
            now: Mono(0),
            buffer: vec![0; worker::READ_BYTES],
        })
    }

    /// Runs that were asked for and have not ended.
    pub fn running(&self) -> usize {
        self.runs.range(..RunId(LOGGERS)).count() + self.stillborn.len()
    }

    /// Those of them whose process exists.
    pub fn adopted_count(&self) -> usize {
        self.places
            .iter()
            .flatten()
            .filter(|child| child.pid.is_some() && child.labels.run < RunId(LOGGERS))
            .count()
    }

    /// The process of a run, while there is one that has not been reaped.
    pub fn pid(&self, run: RunId) -> Option<i32> {
        self.child(run)?.pid
    }

    /// Asks for a scout. [`Happening::Scout`] with the same number follows.
    ///
    /// # Errors
    /// As [`Children::ready`].
    pub fn scout(&mut self, number: u64, socket: OwnedFd) -> io::Result<()> {
        self.spawner.order_scout(&self.registry, number, socket)
    }

    /// Asks for a child. However this goes, [`Happening::Ended`] follows once, unless there is an error.
    ///
    /// # Errors
    /// As [`Children::ready`].
    pub fn spawn(&mut self, order: SpawnOrder) -> io::Result<()> {
        let run = order.run;
        match self
            .prepare(&order)
            .and_then(|given| self.try_spawn(order, given))
        {
            Ok(()) => Ok(()),
            Err(Refused::ThisOne(error)) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                let why = NotStarted::Failed(StartStep::Setup, errno);
                self.stillborn
                    .push_back((run, ChildEnd::NotStarted(why, 0)));
                Ok(())
            }
            Err(Refused::Fatal(error)) => Err(error),
        }
    }

    fn try_spawn(&mut self, order: SpawnOrder, given: Given) -> Result<(), Refused> {
        let strings = || -> Option<_> {
            let (mut argv, mut env, mut cwd) = (Vec::new(), Vec::new(), Vec::new());
            for arg in &order.argv {
                push_string(&mut argv, &[arg])?;
            }
            for (name, value) in &order.env {
                push_string(&mut env, &[name, b"=", value])?;
            }
            for (name, value) in variables_of(&order) {
                push_string(&mut env, &[name, b"=", value])?;
            }
            push_string(&mut cwd, &[&order.cwd])?;
            Some((argv, env, cwd))
        };
        let this_one = |errno: Errno| Refused::ThisOne(errno.into());
        let (argv, env, cwd) = strings().ok_or_else(|| this_one(Errno::EINVAL))?;
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(this_one)?;
        // The read end alone: the child's end is like any program's output.
        nix::fcntl::fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(this_one)?;
        let place = self.free.last().copied().unwrap_or(self.places.len());
        self.registry
            .register(
                &mut SourceFd(&output.as_raw_fd()),
                Token(TOKENS_OUTPUT | place),
                Interest::READABLE,
            )
            .map_err(Refused::ThisOne)?;
        let input = Rc::new(input);
        let (worker, worker_ends) = match order.stdin {
            Stdin::Worker => {
                let (worker, ends) = Worker::new(&self.registry, Token(TOKENS_LINES | place))
                    .map_err(Refused::ThisOne)?;
                (Some(worker), Some(ends))
            }
            Stdin::Nothing | Stdin::Bytes(_) => (None, None),
        };
        self.spawner.order_child(
            &self.registry,
            &Order {
                run: order.run,
                argv: &argv,
                env: &env,
                cwd: &cwd,
                files: order
                    .files
                    .iter()
                    .map(|file| (&file.place, file.expect, file.lease))
                    .collect(),
                own: order.program == Program::Own,
                process: Cow::Borrowed(&*order.process),
            },
            Ends {
                output: Rc::clone(&input),
                worker: worker_ends,
                stdin: given.stdin,
                slot: given.slot,
            },
        )?;
        let voice = match (given.logger, &order.output) {
            (Some(sink), _) => Voice::Logger(sink),
            (None, Some(path)) => Voice::Sink(self.sinks.use_for(path)),
            (None, None) => Voice::Log,
        };
        let child = Child {
            labels: Labels {
                run: order.run,
                watch: order.watch,
                job_name: order.job_name,
                attempt: order.attempt,
            },
            pid: None,
            pidfd: None,
            output: Some(output),
            spare: Some(input),
            capture: Capture::default(),
            audible: true,
            worker,
            owed: Vec::new(),
            signalled: false,
            killed: false,
            voice,
            not_started: None,
            end: None,
            left: 0,
            due: false,
        };
        self.runs.insert(order.run, place);
        match self.places.get_mut(place) {
            Some(free) => {
                self.free.pop();
                *free = Some(child);
            }
            None => self.places.push(Some(child)),
        }
        Ok(())
    }

    /// Sends a signal to the process group of a run. One whose process is not known yet gets it as soon as it is; one that was
    /// not even handed to the spawner ends as if by that signal; one whose leader has ended gets nothing. When the leader
    /// of a signalled group ends, the rest of the group is killed, before anybody else can have its number. After SIGKILL an
    /// end is told though there is no room for the rest of the output where it should go; that rest is lost.
    pub fn kill(&mut self, run: RunId, signal: i32) {
        let Some(&place) = self.runs.get(&run) else {
            return;
        };
        let Some(child) = self.places.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        child.killed |= signal == libc::SIGKILL;
        if child.end.is_some() {
            // Perhaps it waits for room in a sink.
            self.mark(place);
            return;
        }
        if child.pid.is_none() && self.spawner.take_back(run) {
            child.end = Some(ChildEnd::Signal(signal));
            self.mark(place);
            return;
        }
        child.signalled = true;
        match child.pid {
            Some(pid) => send(pid, signal),
            None => child.owed.push(signal),
        }
    }

    /// Takes note of a ready source. `false` if the token is none of this room's. To be followed by [`Children::turn`].
    ///
    /// # Errors
    /// The spawner, or a part of it, is no more; orders may be lost with it. The daemon has to end.
    pub fn ready(&mut self, token: Token) -> io::Result<bool> {
        let place = token.0 & 0xffff_ffff;
        match token {
            TOKEN_SPAWNER => {
                let scouts = &mut self.scouts;
                self.spawner
                    .spawner_ready(&self.registry, &mut |made| scouts.push_back(made))?;
            }
            TOKEN_REPORTS => {
                self.spawner.reports_ready(&self.registry)?;
                self.read_reports()?;
            }
            Token(number) if number >> 32 == TOKENS_PIDFD >> 32 => {
                if !self.spawner.launcher_ready(&self.registry, token)? {
                    // Why a child did not start was said before it ended.
                    self.read_reports()?;
                    self.leader_ended(place)?;
                }
            }
            Token(number) if number >> 32 == TOKENS_OUTPUT >> 32 => {
                self.mark_ready(place, |child| child.audible = true);
            }
            Token(number) if number >> 32 == TOKENS_LINES >> 32 => {
                self.mark_ready(place, |child| {
                    if let Some(worker) = &mut child.worker {
                        worker.lines.ready = true;
                    }
                });
            }
            Token(number) if number >> 32 == TOKENS_SINK >> 32 => {
                self.sinks.ready(place);
                self.flush_sinks();
            }
            Token(number) if number >> 32 == TOKENS_FEED >> 32 => self.flush_feed(place)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Tells what happened, within this turn's budget. `true` if something is left: then call it again in the next turn
    /// without having waited for events.
    pub fn turn(&mut self, tell: &mut dyn FnMut(Happening<'_>)) -> bool {
        while let Some(made) = self.scouts.pop_front() {
            tell(Happening::Scout(made));
        }
        while let Some((run, end)) = self.stillborn.pop_front() {
            let output = Vec::new();
            tell(Happening::Ended(Input::Ended { run, end, output }));
        }
        while let Some(run) = self.deaf.pop_front() {
            tell(Happening::Worker(Input::WorkerDeaf { run }));
        }
        let (mut bytes, mut lines) = (0, 0);
        while bytes < TURN_BYTES && lines < TURN_LINES {
            let Some(place) = self.due.pop_front() else {
                break;
            };
            let Some(child) = self.places.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            child.due = false;
            let full = match child.voice {
                Voice::Sink(sink) if self.sinks.is_full(sink) => Some(sink),
                _ => None,
            };
            let (full, muted) = (full.unwrap_or_default(), full.is_some() && child.may_wait());
            let (more_output, read, said) = if muted {
                (false, 0, 0)
            } else {
                let mut lead = child.voice.lead(&mut self.sinks, tell);
                child.read(&mut self.buffer, &mut lead)
            };
            let (more_lines, heard, told) = child.hear(TURN_LINES - lines, &mut self.buffer, tell);
            bytes += read + heard;
            lines += said + told;
            if more_output || more_lines {
                child.due = true;
                self.due.push_back(place);
            } else if muted {
                self.sinks.park(full, place);
            } else if child.end.is_some() {
                self.end(place, tell);
            }
        }
        self.flush_sinks();
        while let Some(text) = self.troubles.pop_front() {
            tell(Happening::Trouble(text));
        }
        self.has_due()
    }

    /// Whether [`Children::turn`] has something to tell.
    pub fn has_due(&self) -> bool {
        !(self.due.is_empty()
            && self.scouts.is_empty()
            && self.deaf.is_empty()
            && self.stillborn.is_empty()
            && self.troubles.is_empty())
    }

    fn child(&self, run: RunId) -> Option<&Child> {
        self.places.get(*self.runs.get(&run)?)?.as_ref()
    }

    fn mark_ready(&mut self, place: usize, note: impl FnOnce(&mut Child)) {
        if let Some(child) = self.places.get_mut(place).and_then(Option::as_mut) {
            note(child);
            self.mark(place);
        }
    }

    fn mark(&mut self, place: usize) {
        if let Some(child) = self.places.get_mut(place).and_then(Option::as_mut)
            && !child.due
        {
            child.due = true;
            self.due.push_back(place);
        }
    }

    fn read_reports(&mut self) -> io::Result<()> {
        while let Some(report) = self.spawner.report()? {
            let (Report::Made(run, _) | Report::NotStarted(run, ..)) = report;
            let Some(&place) = self.runs.get(&run) else {
                continue;
            };
            let Some(child) = self.places.get_mut(place).and_then(Option::as_mut) else {
                continue;
            };
            match report {
                Report::Made(_, pid) if child.pid.is_none() && child.end.is_none() => {
                    child.adopt(&self.registry, place, pid)?;
                }
                Report::Made(..) => {}
                Report::NotStarted(_, why, file) => {
                    child.not_started = Some((why, file));
                    if child.pid.is_none() {
                        child.end = Some(ChildEnd::NotStarted(why, file));
                        self.mark(place);
                    }
                }
            }
        }
        Ok(())
    }

    fn leader_ended(&mut self, place: usize) -> io::Result<()> {
        let Some(child) = self.places.get_mut(place).and_then(Option::as_mut) else {
            return Ok(());
        };
        if child.reap()? {
            self.mark(place);
        }
        Ok(())
    }

    fn end(&mut self, place: usize, tell: &mut dyn FnMut(Happening<'_>)) {
        let Some(child) = self.places.get_mut(place).and_then(Option::take) else {
            return;
        };
        self.free.push(place);
        let Child {
            labels,
            capture,
            end,
            voice,
            ..
        } = child;
        let run = labels.run;
        self.runs.remove(&run);
        let Some(end) = end else {
            return;
        };
        let mut lead = voice.lead(&mut self.sinks, tell);
        let output = capture.finish(&mut |text| lead(Happening::Line(labels.line(text))));
        drop(lead);
        match voice {
            Voice::Logger(sink) => {
                let text = self.sinks.ended(sink, end, self.now);
                self.troubles.extend(text);
                return;
            }
            Voice::Sink(sink) => self.sinks.leave(sink, place),
            Voice::Log => {}
        }
        tell(Happening::Ended(Input::Ended { run, end, output }));
    }
}

impl Child {
    /// Whether its output, now that there is no room for it, is to wait. If not, it is given up.
    fn may_wait(&mut self) -> bool {
        if self.end.is_some() {
            if self.killed {
                self.output = None;
            }
            return self.left > 0 && self.output.is_some();
        }
        self.output.is_some()
    }

    /// Its process exists.
    fn adopt(&mut self, registry: &Registry, place: usize, pid: i32) -> io::Result<()> {
        self.pid = Some(pid);
        self.spare = None;
        let pidfd = process::pidfd_open(pid)?;
        registry.register(
            &mut SourceFd(&pidfd.as_raw_fd()),
            Token(TOKENS_PIDFD | place),
            Interest::READABLE,
        )?;
        self.pidfd = Some(pidfd);
        for signal in std::mem::take(&mut self.owed) {
            send(pid, signal);
        }
        Ok(())
    }

    /// Reaps it if it has ended; says whether it has just done so.
    fn reap(&mut self) -> io::Result<bool> {
        let (Some(pidfd), Some(pid)) = (&self.pidfd, self.pid) else {
            return Ok(false);
        };
        if self.signalled && process::ended(pidfd.as_fd(), false)?.is_some() {
            send(pid, libc::SIGKILL);
        }
        let Some(exit) = process::ended(pidfd.as_fd(), true)? else {
            return Ok(false);
        };
        self.pid = None;
        self.pidfd = None;
        self.end = Some(match (self.not_started, exit) {
            (Some((why, file)), _) => ChildEnd::NotStarted(why, file),
            (None, Exit::Status(status)) => ChildEnd::Exit(status),
            (None, Exit::Signal(signal)) => ChildEnd::Signal(signal),
        });
        // What it wrote is in the pipe by now; what others go on writing is not its output.
        self.left = match &self.output {
            Some(output) => process::readable_bytes(output.as_fd())?,
            None => 0,
        };
        if let Some(worker) = &mut self.worker {
            worker.ended()?;
        }
        Ok(true)
    }

    /// Reads its output once. Returns whether there may be more, and how many bytes and lines were read.
    fn read(
        &mut self,
        buffer: &mut [u8],
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> (bool, usize, usize) {
        let ended = self.end.is_some();
        let Some(output) = self.output.as_ref().filter(|_| self.audible || ended) else {
            return (false, 0, 0);
        };
        let buffer = buffer.get_mut(..READ_BYTES).unwrap_or_default();
        let most = if ended {
            self.left.min(buffer.len())
        } else {
            buffer.len()
        };
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let read = if buffer.is_empty() {
            Ok(0)
        } else {
            nix::unistd::read(output, buffer)
        };
        match read {
            Ok(0) => self.output = None,
            Ok(read) => {
                self.left = self.left.saturating_sub(read);
                let labels = &self.labels;
                let text = buffer.get(..read).unwrap_or_default();
                let lines = self
                    .capture
                    .take(text, &mut |text| tell(Happening::Line(labels.line(text))));
                return (true, read, lines);
            }
            Err(Errno::EINTR) => return (true, 0, 0),
            Err(Errno::EAGAIN) if !ended => self.audible = false,
            // A pipe gives no other error; whatever it is, there is nothing more to be had from it.
            Err(_) => self.output = None,
        }
        (false, 0, 0)
    }
}

/// Signals the group of a leader that has not been reaped. That there is nobody left in it, or nobody who may be
/// signalled, changes nothing: the leader's end is what is waited for.
fn send(leader: i32, signal: i32) {
    let _nobody_there = process::signal_group(leader, signal);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_others_write_after_the_end_is_not_read() {
        let (output, input) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut input = std::fs::File::from(input);
        input.write_all(&[b'x'; 10_000]).unwrap();
        let mut child = Child {
            labels: Labels {
                run: RunId(1),
                watch: String::new(),
                job_name: String::new(),
                attempt: 1,
            },
            pid: None,
            pidfd: None,
            output: Some(output),
            spare: None,
            capture: Capture::default(),
            audible: true,
            worker: None,
            owed: Vec::new(),
            signalled: false,
            killed: false,
            voice: Voice::Log,
            not_started: None,
            end: Some(ChildEnd::Exit(0)),
            left: 5_000,
            due: false,
        };
        let mut buffer = [0; READ_BYTES];
        let reads: Vec<_> = (0..3)
            .map(|_| child.read(&mut buffer, &mut |_| {}).1)
            .collect();
        assert_eq!(reads, [4096, 904, 0]);
        assert!(child.output.is_none());
        assert!(input.write_all(b"y").is_err());
    }
}
