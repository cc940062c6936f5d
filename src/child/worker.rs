//! A worker's pipes: the lines that it is fed, and those that it says.
//!
//! Neither side waits for the other: what the worker does not read is queued here, what it says is taken in within each
//! turn's budget.

use super::{Child, Children, Happening, TOKENS_FEED};
use crate::core::Input;
use crate::core::ids::RunId;
use crate::core::protocol::ANSWER_MAX;
use crate::sys::process;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What one read takes: all that a pipe holds by default (pipe(7)).
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Asked for as the size of the pipe to a worker, so that a whole window usually goes out in one write; it is what
/// anybody may have (`/proc/sys/fs/pipe-max-size`) as long as they have not many.
const PIPE_BYTES: i32 = 1024 * 1024;

/// The queue's memory that is kept while the queue is empty.
const KEPT_BYTES: usize = 64 * 1024;

impl Children {
    /// Gives a worker these bytes, whole lines, with the next [`Children::flush`], or as soon as it reads. What cannot be
    /// given any more, because it has ended or has closed its standard input, is dropped: its end is told.
    pub fn feed(&mut self, run: RunId, bytes: &[u8]) {
        self.change_feed(run, |worker| worker.feed.push(bytes));
    }

    /// Closes a worker's standard input once it has been given everything.
    pub fn close_input(&mut self, run: RunId) {
        self.change_feed(run, |worker| worker.feed.close());
    }

    fn change_feed(&mut self, run: RunId, change: impl FnOnce(&mut Worker) -> bool) {
        if let Some(&place) = self.runs.get(&run)
            && let Some(child) = self.places.get_mut(place).and_then(Option::as_mut)
            && let Some(worker) = &mut child.worker
            && change(worker)
            && self.fed.last() != Some(&place)
        {
            self.fed.push(place);
        }
    }

    /// Writes what workers were fed in this turn, to each in one go.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): a worker would wait for ever. The daemon has to end.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(place) = self.fed.pop() {
            self.flush_feed(place)?;
        }
        Ok(())
    }

    pub(super) fn flush_feed(&mut self, place: usize) -> io::Result<()> {
        if let Some(Child {
            worker: Some(worker),
            labels,
            ..
        }) = self.places.get_mut(place).and_then(Option::as_mut)
            && !worker
                .feed
                .flush(&self.registry, Token(TOKENS_FEED | place))?
        {
            self.deaf.push_back(labels.run);
        }
        Ok(())
    }
}

impl Child {
    /// Takes in what a worker says, see [`Worker::hear`].
    pub(super) fn hear(
        &mut self,
        budget: usize,
        buffer: &mut [u8],
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> (bool, usize, usize) {
        let Some(worker) = &mut self.worker else {
            return (false, 0, 0);
        };
        let run = self.labels.run;
        let ended = self.end.is_some();
        let spoke = worker.lines.pipe.is_some();
        let heard = worker.hear(ended, budget, buffer, &mut |line| {
            let line = line.map(<[u8]>::to_vec);
            tell(Happening::Worker(Input::WorkerLine { run, line }));
        });
        if spoke && worker.lines.pipe.is_none() && !ended {
            tell(Happening::Worker(Input::WorkerDeaf { run }));
        }
        heard
    }
}

/// Both pipes of one worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) feed: Feed,
    pub(super) lines: Lines,
}

impl Worker {
    /// Makes the pipes: this side, and the worker's standard input and output. Registers what it says under `token`.
    pub(super) fn new(
        registry: &Registry,
        token: Token,
    ) -> io::Result<(Worker, (OwnedFd, OwnedFd))> {
        let (stdin, feed) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (lines, stdout) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        // This side's ends alone: the worker's are like any program's.
        for end in [&feed, &lines] {
            nix::fcntl::fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        // A smaller one holds less at a time and nothing else.
        let _size = nix::fcntl::fcntl(&feed, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        registry.register(&mut SourceFd(&lines.as_raw_fd()), token, Interest::READABLE)?;
        let worker = Worker {
            feed: Feed {
                pipe: Some(feed),
                ..Feed::default()
            },
            lines: Lines {
                pipe: Some(lines),
                ..Lines::default()
            },
        };
        Ok((worker, (stdin, stdout)))
    }

    /// Takes in what it said and tells whole lines, at most `budget` of them: without newline, or `None` for one of more
    /// than [`ANSWER_MAX`] bytes. Returns whether there may be more, and how many bytes were read and lines told.
    pub(super) fn hear(
        &mut self,
        ended: bool,
        budget: usize,
        buffer: &mut [u8],
        tell: &mut dyn FnMut(Option<&[u8]>),
    ) -> (bool, usize, usize) {
        let heard = self.lines.hear(ended, budget, buffer, tell);
        if self.lines.pipe.is_none() {
            // It cannot answer any more, so it gets no more work, and is told to end.
            self.feed.drop_all();
        }
        heard
    }

    /// It has ended. What it wrote is in the pipe by now; what others go on writing is nothing that it said.
    pub(super) fn ended(&mut self) -> io::Result<()> {
        self.feed.drop_all();
        self.lines.left = match &self.lines.pipe {
            Some(pipe) => process::readable_bytes(pipe.as_fd())?,
            None => 0,
        };
        self.lines.ready = true;
        Ok(())
    }
}

/// What a worker is still to be fed.
#[derive(Debug, Default)]
pub(super) struct Feed {
    /// The write end, `None` once it is closed.
    pipe: Option<OwnedFd>,
    queue: Vec<u8>,
    /// So much of the queue is in the pipe.
    sent: usize,
    /// To be closed when the queue is empty.
    closing: bool,
    /// The pipe was full, and is registered to be told of when there is room.
    waits: bool,
}

impl Feed {
    /// Adds to the queue. Says whether it has to be flushed: not while the pipe is full.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        if self.pipe.is_none() || self.closing {
            return false;
        }
        self.queue.extend_from_slice(bytes);
        !self.waits
    }

    /// Closes the pipe as soon as all is sent. Says whether this has to be flushed.
    pub(super) fn close(&mut self) -> bool {
        self.closing = true;
        !self.waits
    }

    /// Writes what there is room for; [`Feed::flush`] is to be called again when `token` is ready. `false`: the worker
    /// has just been found to have closed its standard input, and is not fed any more.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn flush(&mut self, registry: &Registry, token: Token) -> io::Result<bool> {
        let Some(pipe) = &self.pipe else {
            return Ok(true);
        };
        let full = loop {
            let rest = self.queue.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                break false;
            }
            match nix::unistd::write(pipe, rest) {
                Ok(written) => self.sent += written,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break true,
                // EPIPE, and no SIGPIPE: Rust's runtime ignores that.
                Err(_) => {
                    self.drop_all();
                    return Ok(false);
                }
            }
        };
        if full != self.waits {
            let fd = pipe.as_raw_fd();
            let mut source = SourceFd(&fd);
            if full {
                registry.register(&mut source, token, Interest::WRITABLE)?;
            } else {
                registry.deregister(&mut source)?;
            }
            self.waits = full;
        }
        if full {
            // Not before it is worth it, so that a byte is moved once at most.
            if self.sent >= self.queue.len() - self.sent {
                self.queue.drain(..self.sent);
                self.sent = 0;
            }
        } else if self.closing {
            self.drop_all();
        } else {
            self.sent = 0;
            self.queue.clear();
            self.queue.shrink_to(KEPT_BYTES);
        }
        Ok(true)
    }

    /// Closes the pipe at once.
    fn drop_all(&mut self) {
        *self = Feed::default();
    }
}

/// What a worker said that was not told yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The read end; `None` once it has been read to its end or given up.
    pipe: Option<OwnedFd>,
    buffer: Vec<u8>,
    /// So much of the buffer was told.
    told: usize,
    /// Up to here there is no newline in what was not told.
    searched: usize,
    /// In the middle of a line that was told to be too long.
    skips: bool,
    /// The pipe may have something.
    pub(super) ready: bool,
    /// After the end: how much is still read.
    left: usize,
}

impl Lines {
    fn hear(
        &mut self,
        ended: bool,
        budget: usize,
        buffer: &mut [u8],
        tell: &mut dyn FnMut(Option<&[u8]>),
    ) -> (bool, usize, usize) {
        let mut lines = self.tell(budget, tell);
        if lines >= budget {
            return (true, 0, lines);
        }
        let read = self.read(ended, buffer);
        if read > 0 {
            lines += self.tell(budget - lines, tell);
        } else if self.buffer.is_empty() || self.pipe.is_none() {
            // A line is one once its newline is there: what is left now never will be. An idle worker holds no memory.
            self.buffer = Vec::new();
            (self.told, self.searched) = (0, 0);
        }
        (read > 0, read, lines)
    }

    /// Reads once; 0 if there is nothing, or nothing more.
    fn read(&mut self, ended: bool, buffer: &mut [u8]) -> usize {
        let Some(pipe) = self.pipe.as_ref().filter(|_| self.ready) else {
            return 0;
        };
        let most = if ended {
            self.left.min(buffer.len())
        } else {
            buffer.len()
        };
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        let read = loop {
            let read = if buffer.is_empty() {
                Ok(0)
            } else {
                nix::unistd::read(pipe, &mut *buffer)
            };
            if read != Err(Errno::EINTR) {
                break read;
            }
        };
        match read {
            Ok(read @ 1..) => {
                self.left = self.left.saturating_sub(read);
                self.buffer.drain(..self.told);
                self.searched -= self.told;
                self.told = 0;
                self.buffer
                    .extend_from_slice(buffer.get(..read).unwrap_or_default());
                return read;
            }
            Err(Errno::EAGAIN) if !ended => {}
            // The end. A pipe gives no other error; whatever it is, there is nothing more to be had from it.
            Ok(_) | Err(_) => self.pipe = None,
        }
        self.ready = false;
        0
    }

    /// Tells whole lines of the buffer.
    fn tell(&mut self, budget: usize, tell: &mut dyn FnMut(Option<&[u8]>)) -> usize {
        let mut lines = 0;
        while lines < budget {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let newline = rest.iter().position(|&byte| byte == b'\n');
            let end = newline.map_or(self.buffer.len(), |at| self.searched + at);
            let line = self.buffer.get(self.told..end).unwrap_or_default();
            let too_long = line.len() > ANSWER_MAX;
            if newline.is_none() && !too_long && !self.skips {
                self.searched = end;
                break;
            }
            if !self.skips {
                tell((!too_long).then_some(line));
                lines += 1;
            }
            self.skips = newline.is_none();
            self.told = end + usize::from(newline.is_some());
            self.searched = self.told;
            if newline.is_none() {
                break;
            }
        }
        if self.told == self.buffer.len() {
            self.buffer.clear();
            (self.told, self.searched) = (0, 0);
        }
        lines
    }
}
