//! The three places. Each takes a rendered record, or a part of it, or says that it cannot now.

use super::text;
use crate::core::LogLine;
use crate::core::time::Wall;
use crate::plan::{Level, LogTo};
use crate::sys::clock;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, getsockopt, send, sockopt::SndBuf};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::write;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use syslog::{Facility, LogFormat, Logger, LoggerBackend, Severity};

/// Largest syslog datagram: what rsyslog takes unless told otherwise.
const SYSLOG_DATAGRAM: usize = 8 * 1024;
/// Largest journald datagram; less if the socket's buffer is smaller.
const JOURNAL_DATAGRAM: usize = 64 * 1024;
/// Bookkeeping of the kernel that counts against the socket's buffer, generously.
const DATAGRAM_OVERHEAD: usize = 1024;

/// Where the log's ends are.
#[derive(Debug)]
pub struct Targets {
    /// journald's native socket.
    pub journal: PathBuf,
    /// syslog's datagram socket.
    pub syslog: PathBuf,
    /// Used in place of standard error.
    pub stderr: Option<OwnedFd>,
    /// `$JOURNAL_STREAM`: device and inode of a standard error that leads to the journal (systemd.exec(5)).
    pub journal_stream: Option<OsString>,
}

impl Default for Targets {
    fn default() -> Targets {
        Targets {
            journal: "/run/systemd/journal/socket".into(),
            syslog: "/dev/log".into(),
            stderr: None,
            journal_stream: std::env::var_os("JOURNAL_STREAM"),
        }
    }
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// So many bytes of it are written.
    Part(usize),
    /// Nothing, but later maybe.
    NotNow,
    /// It is lost.
    Never,
}

#[derive(Debug)]
pub(super) enum Target {
    Stderr(Stderr),
    Journald(Journald),
    Syslog(Syslog),
}

impl Target {
    /// The error is a sentence with a remedy.
    pub(super) fn open(to: LogTo, places: &Targets) -> Result<Target, String> {
        match to {
            LogTo::Stderr => Stderr::open(places).map(Target::Stderr).map_err(|e| {
                format!("cannot log to standard error: {e}; redirect it to a file or to /dev/null")
            }),
            LogTo::Journald => Journald::open(&places.journal).map(Target::Journald).map_err(|e| {
                let path = places.journal.display();
                format!("cannot log to journald at {path}: {e}; start systemd-journald, or set log = \"stderr\" or \"syslog\"")
            }),
            LogTo::Syslog => Syslog::open(&places.syslog).map(Target::Syslog).map_err(|e| {
                let path = places.syslog.display();
                format!("cannot log to syslog at {path}: {e}; start a syslog daemon with a datagram socket there, or set log = \"stderr\" or \"journald\"")
            }),
        }
    }

    pub(super) fn render(&self, level: Level, line: &LogLine) -> Vec<u8> {
        match self {
            Target::Stderr(stderr) => stderr.render(level, line, clock::wall()),
            Target::Journald(journald) => text::journal_fields(level, line, journald.limit),
            Target::Syslog(syslog) => syslog.render(level, line),
        }
    }

    /// How many bytes of whole lines may go out together; 0 where each line is a datagram of its own.
    pub(super) fn joins(&self) -> usize {
        match self {
            // No more than that is sure to be written in one piece (pipe(7)).
            Target::Stderr(_) => libc::PIPE_BUF,
            Target::Journald(_) | Target::Syslog(_) => 0,
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Sent {
        match self {
            Target::Stderr(stderr) => stderr.send(bytes),
            Target::Journald(journald) => journald.send(bytes),
            Target::Syslog(syslog) => syslog.send(bytes),
        }
    }
}

/// How to write to standard error without ever waiting. Its open file is shared with other processes, so
/// O_NONBLOCK must not be set on it.
#[derive(Debug)]
enum Way {
    /// The same pipe or terminal, opened again for this process alone, with O_NONBLOCK.
    Own(OwnedFd),
    /// A socket: each send says for itself that it will not wait.
    Socket(OwnedFd),
    /// Anything else: only after poll(2) says that PIPE_BUF bytes have room (pipe(7)).
    Shared(OwnedFd),
}

#[derive(Debug)]
pub(super) struct Stderr {
    way: Way,
    /// The journal reads it: levels in its form, and no time, which it has itself.
    journal: bool,
}

impl Stderr {
    fn open(places: &Targets) -> io::Result<Stderr> {
        let fd = match &places.stderr {
            Some(fd) => fd.try_clone()?,
            None => io::stderr().as_fd().try_clone_to_owned()?,
        };
        let stat = fstat(&fd)?;
        let journal = places.journal_stream.as_ref();
        let journal = journal.is_some_and(|j| j.to_str() == Some(&stream_name(&stat)));
        Ok(Stderr {
            way: Way::of(fd, &stat),
            journal,
        })
    }

    fn render(&self, level: Level, line: &LogLine, at: Wall) -> Vec<u8> {
        let sentence = text::sentence(line);
        let record = if self.journal {
            format!("<{}>{sentence}\n", text::priority(level))
        } else {
            let (stamp, word) = (text::utc_stamp(at), text::word(level));
            format!("{stamp} {word} {sentence}\n")
        };
        record.into_bytes()
    }

    fn send(&mut self, bytes: &[u8]) -> Sent {
        // More than PIPE_BUF could wait for room that poll(2) did not promise, and would mix with the lines
        // of others.
        let part = bytes.get(..libc::PIPE_BUF).unwrap_or(bytes);
        loop {
            let result = match &self.way {
                Way::Own(fd) => write(fd, part),
                Way::Socket(fd) => {
                    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                    send(fd.as_raw_fd(), part, flags)
                }
                Way::Shared(fd) => write_if_ready(fd, part),
            };
            return match result {
                Ok(0) | Err(Errno::EAGAIN) => Sent::NotNow,
                Ok(count) => Sent::Part(count),
                Err(Errno::EINTR) => continue,
                Err(_) => Sent::Never,
            };
        }
    }
}

impl Way {
    fn of(fd: OwnedFd, stat: &FileStat) -> Way {
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if kind == SFlag::S_IFSOCK {
            return Way::Socket(fd);
        }
        // Opening anything else again would lose the position that it shares with others.
        if kind == SFlag::S_IFIFO || kind == SFlag::S_IFCHR {
            let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            // Refused where another user owns it, or /proc is not there: then the other way does.
            if let Ok(own) = open(path.as_str(), flags, Mode::empty()) {
                return Way::Own(own);
            }
        }
        Way::Shared(fd)
    }
}

fn write_if_ready(fd: &OwnedFd, bytes: &[u8]) -> nix::Result<usize> {
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut polled, PollTimeout::ZERO)? == 0 {
        return Err(Errno::EAGAIN);
    }
    write(fd, bytes)
}

/// As systemd writes it into `$JOURNAL_STREAM`.
fn stream_name(stat: &FileStat) -> String {
    format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// A connected datagram socket that never waits, and the most it takes at once.
fn connect(path: &Path, limit: usize) -> io::Result<(UnixDatagram, usize)> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect(path)?;
    let buffer = getsockopt(&socket, SndBuf)?;
    let limit = limit.min(buffer.saturating_sub(DATAGRAM_OVERHEAD));
    Ok((socket, limit))
}

fn sent(result: &io::Result<()>, bytes: &[u8]) -> Option<Sent> {
    let error = match result {
        Ok(()) => return Some(Sent::Part(bytes.len())),
        Err(e) => e.raw_os_error().map(Errno::from_raw),
    };
    match error {
        Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) => Some(Sent::NotNow),
        Some(Errno::EMSGSIZE) => Some(Sent::Never),
        // Whoever listened is gone: connect again.
        _ => None,
    }
}

#[derive(Debug)]
pub(super) struct Journald {
    path: PathBuf,
    socket: UnixDatagram,
    limit: usize,
}

impl Journald {
    fn open(path: &Path) -> io::Result<Journald> {
        let (socket, limit) = connect(path, JOURNAL_DATAGRAM)?;
        Ok(Journald {
            path: path.into(),
            socket,
            limit,
        })
    }

    fn send(&mut self, bytes: &[u8]) -> Sent {
        if let Some(sent) = sent(&self.socket.send(bytes).map(drop), bytes) {
            return sent;
        }
        let Ok((socket, limit)) = connect(&self.path, JOURNAL_DATAGRAM) else {
            return Sent::NotNow;
        };
        (self.socket, self.limit) = (socket, limit);
        sent(&self.socket.send(bytes).map(drop), bytes).unwrap_or(Sent::NotNow)
    }
}

/// RFC 3164 as the crate's own formatter has it, but with the local time that such lines are read in, and
/// without a call that can panic.
#[derive(Clone, Debug)]
struct Local3164 {
    pid: u32,
}

impl LogFormat<&str> for Local3164 {
    fn format<W: Write>(&self, w: &mut W, severity: Severity, message: &str) -> syslog::Result<()> {
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        let now = clock::wall();
        let stamp = text::syslog_stamp(now, clock::utc_offset(now));
        let head = format!("<{priority}>{stamp} settled[{}]: ", self.pid);
        let (message, cut) = text::cut_text(message, SYSLOG_DATAGRAM - head.len());
        write!(w, "{head}{message}{cut}").map_err(syslog::Error::Write)
    }
}

pub(super) struct Syslog {
    path: PathBuf,
    logger: Logger<LoggerBackend, Local3164>,
}

impl fmt::Debug for Syslog {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Syslog")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Syslog {
    fn open(path: &Path) -> io::Result<Syslog> {
        let pid = std::process::id();
        let backend = Syslog::backend(path)?;
        let logger = Logger::new(backend, Local3164 { pid });
        Ok(Syslog {
            path: path.into(),
            logger,
        })
    }

    /// The crate would connect by itself, but to a socket that waits.
    fn backend(path: &Path) -> io::Result<LoggerBackend> {
        let (socket, _) = connect(path, SYSLOG_DATAGRAM)?;
        Ok(LoggerBackend::Unix(socket))
    }

    fn render(&self, level: Level, line: &LogLine) -> Vec<u8> {
        let severity = match level {
            Level::Error => Severity::LOG_ERR,
            Level::Warning => Severity::LOG_WARNING,
            Level::Info => Severity::LOG_INFO,
            Level::Debug => Severity::LOG_DEBUG,
        };
        let mut bytes = Vec::new();
        let format = &self.logger.formatter;
        // Writing into a Vec cannot fail.
        let _ = format.format(&mut bytes, severity, &text::sentence(line));
        bytes
    }

    fn send(&mut self, bytes: &[u8]) -> Sent {
        if let Some(sent) = sent(&self.logger.backend.write_all(bytes), bytes) {
            return sent;
        }
        let Ok(backend) = Syslog::backend(&self.path) else {
            return Sent::NotNow;
        };
        self.logger.backend = backend;
        sent(&self.logger.backend.write_all(bytes), bytes).unwrap_or(Sent::NotNow)
    }
}

#[cfg(test)]
impl Target {
    pub(super) fn shared(fd: OwnedFd) -> Target {
        let way = Way::Shared(fd);
        Target::Stderr(Stderr {
            way,
            journal: false,
        })
    }

    pub(super) fn has_own_file(&self) -> bool {
        matches!(
            self,
            Target::Stderr(Stderr {
                way: Way::Own(_),
                ..
            })
        )
    }
}
