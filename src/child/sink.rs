//! Output that goes to a file instead of the log.
//!
//! A file can hang, so it is written by a process of its own for each file, a *logger* (`settled append-output`), which reads
//! a pipe. What it has not taken yet is queued here, up to a bound; as long as a queue is full, the children whose lines
//! would go there are not read, and wait for room as they would for any slow reader. Nothing is dropped: the pipe is this
//! side's too, so what is in it outlives a logger that was killed, and the next one goes on reading there.

use crate::core::ids::RunId;
use crate::core::time::Mono;
use crate::core::{ChildEnd, NotStarted};
use crate::sys::process;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

/// Tokens of the pipes to loggers: this, with the sink's number added.
pub(super) const TOKENS_SINK: usize = 9 << 32;

/// From here on a queue is full. It may grow by what one read of a child takes beyond it.
const QUEUE_MAX: usize = 1 << 20;

/// Waits between loggers that end: the first, doubled up to the last.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// A logger that ran for so long was not a failure: the waits begin anew.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// One file.
#[derive(Debug)]
struct Sink {
    path: Vec<u8>,
    /// Children whose lines go here.
    users: usize,
    queue: VecDeque<u8>,
    pipe: Option<Pipe>,
    /// The pipe was full; its token becomes ready when there is room.
    waits: bool,
    /// Nobody needs the file any more: its logger gets the end once it has got the rest.
    closing: bool,
    logger: Option<RunId>,
    started: Mono,
    /// When the next logger may be started.
    again: Mono,
    wait: Duration,
    /// Places of children that are not read because the queue is full.
    parked: BTreeSet<usize>,
}

#[derive(Debug)]
struct Pipe {
    reader: Rc<OwnedFd>,
    /// `None` once the logger is to come to its end. What it does not read by then, the next one does.
    writer: Option<OwnedFd>,
}

impl Sink {
    fn is_full(&self) -> bool {
        self.queue.len() >= QUEUE_MAX
    }

    /// Whether something is there that a logger would write.
    fn holds_something(&self) -> bool {
        let in_pipe = |pipe: &Pipe| process::readable_bytes(pipe.reader.as_fd()).unwrap_or(0) > 0;
        !self.queue.is_empty() || self.pipe.as_ref().is_some_and(in_pipe)
    }

    fn wants_logger(&self) -> bool {
        self.logger.is_none() && self.holds_something()
    }

    /// Writes what there is room for.
    fn flush(&mut self) {
        let Some(pipe) = &mut self.pipe else {
            return;
        };
        while let Some(writer) = pipe.writer.as_ref().filter(|_| !self.waits) {
            let (next, _) = self.queue.as_slices();
            if next.is_empty() {
                // It may have grown to a megabyte; an idle one holds little.
                self.queue.shrink_to(4096);
                if self.closing && self.logger.is_some() {
                    pipe.writer = None;
                }
                return;
            }
            match nix::unistd::write(writer, next) {
                Ok(written) => drop(self.queue.drain(..written)),
                Err(Errno::EINTR) => {}
                // There is no other error than EAGAIN as long as the reader is open, which it is here.
                Err(_) => self.waits = true,
            }
        }
    }
}

/// All of them, by number.
#[derive(Debug, Default)]
pub(super) struct Sinks {
    all: Vec<Option<Sink>>,
}

impl Sinks {
    /// The number of the sink for this file, for one more child.
    pub(super) fn use_for(&mut self, path: &[u8]) -> usize {
        let same = |sink: &Option<Sink>| sink.as_ref().is_some_and(|sink| sink.path == path);
        let number = self.all.iter().position(same).unwrap_or_else(|| {
            let new = Some(Sink {
                path: path.to_vec(),
                users: 0,
                queue: VecDeque::new(),
                pipe: None,
                waits: false,
                closing: false,
                logger: None,
                started: Mono(0),
                again: Mono(0),
                wait: WAIT_FIRST,
                parked: BTreeSet::new(),
            });
            match self.all.iter().position(Option::is_none) {
                Some(free) => {
                    self.all[free] = new;
                    free
                }
                None => {
                    self.all.push(new);
                    self.all.len() - 1
                }
            }
        });
        if let Some(sink) = self.sink(number) {
            sink.users += 1;
            sink.closing = false;
        }
        number
    }

    /// One child less.
    pub(super) fn leave(&mut self, number: usize, place: usize) {
        if let Some(sink) = self.sink(number) {
            sink.users -= 1;
            sink.parked.remove(&place);
        }
    }

    /// Queues a line, which gets its newline here.
    pub(super) fn take(&mut self, number: usize, line: &[u8]) {
        if let Some(sink) = self.sink(number) {
            sink.queue.extend(line);
            sink.queue.push_back(b'\n');
        }
    }

    /// Whether there is no room for more.
    pub(super) fn is_full(&self, number: usize) -> bool {
        let sink = self.all.get(number).and_then(Option::as_ref);
        sink.is_some_and(Sink::is_full)
    }

    /// This place is to be told of when there is room again, see [`Sinks::flush`].
    pub(super) fn park(&mut self, number: usize, place: usize) {
        if let Some(sink) = self.sink(number) {
            sink.parked.insert(place);
        }
    }

    /// Hands on what was queued; appends the places that can be read again.
    pub(super) fn flush(&mut self, unparked: &mut Vec<usize>) {
        for sink in self.all.iter_mut().flatten() {
            sink.flush();
            // Not at the first byte of room: who waits is to be read in pieces worth the while.
            if sink.queue.len() <= QUEUE_MAX / 2 {
                unparked.extend(std::mem::take(&mut sink.parked));
            }
        }
    }

    /// There is room in the pipe that has this token.
    pub(super) fn ready(&mut self, number: usize) {
        if let Some(sink) = self.sink(number) {
            sink.waits = false;
        }
    }

    /// When [`Sinks::due`] is to be asked though nothing happens.
    pub(super) fn deadline(&self) -> Option<Mono> {
        let waiting = self.all.iter().flatten().filter(|sink| sink.wants_logger());
        waiting.map(|sink| sink.again).min()
    }

    /// Sinks whose logger is to be started now: number, path, and what it reads, or why that could not be made.
    pub(super) fn due(
        &mut self,
        registry: &Registry,
        now: Mono,
    ) -> Vec<(usize, Vec<u8>, io::Result<Rc<OwnedFd>>)> {
        let mut start = Vec::new();
        for (number, sink) in self.all.iter_mut().enumerate() {
            let Some(sink) = sink.as_mut().filter(|sink| sink.wants_logger()) else {
                continue;
            };
            if sink.again > now {
                continue;
            }
            let reader = match &sink.pipe {
                Some(pipe) => Ok(Rc::clone(&pipe.reader)),
                None => make_pipe(registry, number).map(|pipe| {
                    sink.waits = false;
                    Rc::clone(&sink.pipe.insert(pipe).reader)
                }),
            };
            start.push((number, sink.path.clone(), reader));
        }
        start
    }

    /// A logger was asked for.
    pub(super) fn started(&mut self, number: usize, logger: RunId, now: Mono) {
        if let Some(sink) = self.sink(number) {
            sink.logger = Some(logger);
            sink.started = now;
        }
    }

    /// A logger ended, or could not be asked for. What is to be said about it, if anything.
    pub(super) fn ended(&mut self, number: usize, end: ChildEnd, now: Mono) -> Option<String> {
        let place = self.all.get_mut(number)?;
        let sink = place.as_mut()?;
        sink.logger = None;
        let had_end = sink.pipe.as_ref().is_some_and(|pipe| pipe.writer.is_none());
        if had_end && end == ChildEnd::Exit(0) {
            sink.pipe = None;
            sink.again = now;
            if sink.users == 0 && sink.queue.is_empty() {
                *place = None;
            }
            return None;
        }
        if end == ChildEnd::Signal(libc::SIGHUP) {
            // It was asked to open its file anew before it had learnt to listen.
            sink.again = now;
            return None;
        }
        if now.since(sink.started) >= GOOD_FOR {
            sink.wait = WAIT_FIRST;
        }
        let wait = sink.wait;
        sink.again = now.after(wait);
        sink.wait = (wait * 2).min(WAIT_MAX);
        let why = match end {
            ChildEnd::Exit(status) => format!("exit status {status}"),
            ChildEnd::Signal(signal) => format!("signal {signal}"),
            ChildEnd::NotStarted(NotStarted::Failed(step, errno), _) => {
                format!("{step:?}: {}", io::Error::from_raw_os_error(errno))
            }
            ChildEnd::NotStarted(..) => "not started".into(),
        };
        Some(format!(
            "{}: its writer has ended ({why}); output is kept, and the next one is started in {} s",
            self.name(number),
            wait.as_secs()
        ))
    }

    /// What log lines about a sink begin with.
    pub(super) fn name(&self, number: usize) -> String {
        let sink = self.all.get(number).and_then(Option::as_ref);
        let path = sink.map_or(&[][..], |sink| &sink.path);
        format!("output {}", String::from_utf8_lossy(path))
    }

    /// The loggers of files that are in use, to be told to open them anew; those of others come to their end.
    pub(super) fn reopen(&mut self) -> Vec<RunId> {
        let mut loggers = Vec::new();
        for sink in self.all.iter_mut().flatten() {
            sink.closing = sink.users == 0;
            sink.flush();
            if !sink.closing {
                loggers.extend(sink.logger);
            }
        }
        loggers
    }

    /// Nothing more will come: each logger gets its end as soon as it has got everything, and one that waited to be started
    /// is not made to wait.
    pub(super) fn close(&mut self, now: Mono) {
        for sink in self.all.iter_mut().flatten() {
            sink.closing = true;
            sink.again = sink.again.min(now);
            sink.flush();
        }
    }

    /// Loggers that have not ended, and bytes that none of them has taken.
    pub(super) fn open(&self) -> (usize, usize) {
        let sinks = || self.all.iter().flatten();
        let bytes = sinks().map(|sink| {
            let pipe = sink.pipe.as_ref();
            let in_pipe = pipe.map_or(0, |pipe| {
                process::readable_bytes(pipe.reader.as_fd()).unwrap_or(0)
            });
            in_pipe + sink.queue.len()
        });
        (
            sinks().filter(|sink| sink.logger.is_some()).count(),
            bytes.sum(),
        )
    }

    fn sink(&mut self, number: usize) -> Option<&mut Sink> {
        self.all.get_mut(number)?.as_mut()
    }
}

fn make_pipe(registry: &Registry, number: usize) -> io::Result<Pipe> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // The write end alone: the logger's end is like any program's input.
    nix::fcntl::fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    registry.register(
        &mut SourceFd(&writer.as_raw_fd()),
        Token(TOKENS_SINK | number),
        Interest::WRITABLE,
    )?;
    Ok(Pipe {
        reader: Rc::new(reader),
        writer: Some(writer),
    })
}
