//! `settled append-output FILE`: what the daemon runs to write the output of children to a file. The file may hang, or its
//! disk be full: then this waits, and the daemon does not.

use super::exit;
use crate::sys;
use clap::{Arg, ArgMatches, Command, value_parser};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What one write has at most; as much as a pipe holds.
const BUFFER_BYTES: usize = 64 * 1024;

/// How often the same trouble is said.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Wait before what failed is tried again.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// The subcommand, which is the daemon's own.
pub(super) fn command() -> Command {
    Command::new("append-output")
        .about("Append standard input to a file, whole lines at a time; SIGHUP opens it anew")
        .hide(true)
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf)),
        )
}

/// Runs until standard input ends.
pub(super) fn run(given: &ArgMatches) -> ExitCode {
    let Some(path) = given.get_one::<PathBuf>("file") else {
        return ExitCode::from(exit::USAGE);
    };
    let mut troubles = Troubles::default();
    match append(path, &mut troubles) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(error) => {
            troubles.say(&error.to_string());
            ExitCode::from(exit::CANTCREAT)
        }
    }
}

fn append(path: &Path, troubles: &mut Troubles) -> io::Result<()> {
    let (reopen, sender) = UnixStream::pair()?;
    reopen.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(Signal::SIGHUP as i32, sender)?;
    // The service manager may tell the whole service to stop; this has to outlast the children, and the end of
    // standard input is the word for it.
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        sys::signal::ignore(signal)?;
    }
    sys::process::set_name(c"settled-output");
    let mut writer = Writer {
        path,
        // Before anything is read: what nobody can write stays in the pipe.
        file: open(path)?,
        stale: false,
        reopen,
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut held = 0;
    loop {
        writer.wait()?;
        let room = buffer.get_mut(held..).unwrap_or_default();
        // Not through the library's buffer, which poll(2) knows nothing of.
        let read = match nix::unistd::read(io::stdin(), room) {
            Err(Errno::EINTR) => continue,
            read => read?,
        };
        held += read;
        let here = buffer.get(..held).unwrap_or_default();
        // Whole lines, for others may append to the same file; but the rest at the end, and what is no line at all.
        let whole = match here.iter().rposition(|&byte| byte == b'\n') {
            Some(last) if read > 0 => last + 1,
            None if read > 0 && held < buffer.len() => 0,
            _ => held,
        };
        writer.write(here.get(..whole).unwrap_or_default(), troubles);
        buffer.copy_within(whole..held, 0);
        held -= whole;
        if read == 0 {
            return Ok(());
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

struct Writer<'a> {
    path: &'a Path,
    file: File,
    /// Asked to open the file anew, and not done yet.
    stale: bool,
    /// Readable after SIGHUP.
    reopen: UnixStream,
}

impl Writer<'_> {
    /// Waits for something to read, and meanwhile does what SIGHUP asks.
    fn wait(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        loop {
            let mut fds = [
                PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.reopen.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled?,
            };
            let [input, hangup] =
                fds.map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            if hangup {
                self.look_for_hangup();
                // That it cannot be opened now is found again, and said, at the next line.
                if self.stale {
                    let _said_later = self.open_anew();
                }
            }
            if input {
                return Ok(());
            }
        }
    }

    fn look_for_hangup(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.reopen.read(&mut bytes), Ok(1..)) {
            self.stale = true;
        }
    }

    fn open_anew(&mut self) -> io::Result<()> {
        self.file = open(self.path)?;
        self.stale = false;
        Ok(())
    }

    /// Writes all of it, however long that takes.
    fn write(&mut self, mut bytes: &[u8], troubles: &mut Troubles) {
        while !bytes.is_empty() {
            self.look_for_hangup();
            if self.stale
                && let Err(error) = self.open_anew()
            {
                // The file that it had, under whatever name, is better than nothing.
                troubles.say(&format!("cannot be opened again: {error}"));
            }
            match self.file.write(bytes) {
                Ok(0) => std::thread::sleep(TRY_EVERY),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    troubles.say(&format!("{error}; tried again until it can be written"));
                    std::thread::sleep(TRY_EVERY);
                    continue;
                }
            }
        }
        if !self.stale {
            troubles.over();
        }
    }
}

/// What was said to the daemon, on standard error, and when.
#[derive(Debug, Default)]
struct Troubles {
    last: Option<(String, Instant)>,
}

impl Troubles {
    fn say(&mut self, text: &str) {
        let recent = |(said, at): &(String, Instant)| said == text && at.elapsed() < SAY_EVERY;
        if !self.last.as_ref().is_some_and(recent) {
            // Without a reader the daemon is gone, and this goes on until its input ends.
            let _nobody_reads = writeln!(io::stderr(), "{text}");
            self.last = Some((text.to_owned(), Instant::now()));
        }
    }

    fn over(&mut self) {
        if self.last.take().is_some() {
            let _nobody_reads = writeln!(io::stderr(), "written again");
        }
    }
}
