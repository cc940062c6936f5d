//! What the commands that ask a daemon have in common: where it listens, what it means that it does not, and how
//! times are shown.

use super::{DEFAULT_CONFIG, exit, fail};
use crate::config::{self, DEFAULT_SOCKET, DEFAULT_STATE, Seen};
use crate::control::client::{Connection, NoAnswer};
use crate::control::{LINK, Line, Request};
use crate::core::time::{Wall, civil_date};
use crate::sys::clock;
use clap::{Arg, ArgAction, ArgMatches, value_parser};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// How a daemon is started that runs as a service.
pub(super) const START: &str = "systemctl start settled";

/// The options that say which daemon.
pub(super) fn arguments() -> [Arg; 3] {
    [
        Arg::new("config")
            .short('c')
            .long("config")
            .value_name("FILE")
            .help("The configuration that names the socket and the state directory")
            .default_value(DEFAULT_CONFIG)
            .value_parser(value_parser!(PathBuf)),
        Arg::new("socket")
            .long("socket")
            .value_name("FILE")
            .help("The daemon's control socket, whatever the configuration says")
            .value_parser(value_parser!(PathBuf)),
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("A JSON object for each row"),
    ]
}

/// Which daemon is asked, and what can be known without it.
pub(super) struct Target {
    pub(super) socket: PathBuf,
    /// The state directory, where the configuration or the daemon tells.
    pub(super) state: Option<PathBuf>,
    /// The configuration, where it can be read.
    pub(super) seen: Option<Seen>,
    /// Why it cannot.
    pub(super) note: Option<String>,
    /// The socket was named on the command line.
    by_name: bool,
}

impl Target {
    /// Reads the configuration, unless only the socket matters.
    pub(super) fn of(given: &ArgMatches) -> Result<Target, ExitCode> {
        let socket = given.get_one::<PathBuf>("socket").cloned();
        let named = given.value_source("config") == Some(clap::parser::ValueSource::CommandLine);
        if socket.is_some() && !named {
            return Ok(Target {
                socket: socket.unwrap_or_default(),
                state: None,
                seen: None,
                note: None,
                by_name: true,
            });
        }
        let by_name = socket.is_some();
        match config::look(&super::config_path(given)) {
            Ok(seen) => Ok(Target {
                socket: socket.unwrap_or_else(|| seen.daemon.socket.clone()),
                state: Some(seen.daemon.state.clone()),
                seen: Some(seen),
                note: None,
                by_name,
            }),
            Err(errors) if named => Err(super::fail_config(&errors)),
            // Who may ask need not be able to read what the daemon was told.
            Err(errors) => Ok(Target {
                socket: socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
                state: Some(DEFAULT_STATE.into()),
                seen: None,
                note: Some(errors.to_string()),
                by_name,
            }),
        }
    }

    /// Connects. A daemon that still listens where an earlier configuration said is found by its state directory.
    pub(super) fn connect(&self) -> Result<Connection, NoAnswer> {
        let nobody = match Connection::open(&self.socket) {
            Err(error @ NoAnswer::Nobody(..)) if self.seen.is_some() && !self.by_name => error,
            opened => return opened,
        };
        let link = self.state.as_ref().map(|state| state.join(LINK));
        let linked = link.and_then(|link| Connection::open(&link).ok());
        linked.ok_or(nobody)
    }

    /// The whole answer.
    pub(super) fn ask(&self, request: &Request) -> Result<Vec<(String, Line)>, NoAnswer> {
        let mut lines = Vec::new();
        self.connect()?.ask(request, &mut |text, line| {
            lines.push((text.to_owned(), line));
            true
        })?;
        Ok(lines)
    }
}

/// Why a command that needs a daemon has no answer, and what to do about it.
pub(super) fn fail_no_answer(command: &str, error: &NoAnswer) -> ExitCode {
    let text = format!("settled {command}: {}", reason(error));
    fail(exit_code(error), &text)
}

/// What the exit status says of it.
pub(super) fn exit_code(error: &NoAnswer) -> u8 {
    match error {
        NoAnswer::Nobody(_, error) if error.kind() == ErrorKind::PermissionDenied => exit::NOPERM,
        NoAnswer::Refused(refusal) => match refusal.code.as_str() {
            "denied" => exit::NOPERM,
            "busy" => exit::TEMPFAIL,
            "configuration" => exit::CONFIG,
            "not-found" => exit::NOINPUT,
            "conflict" => exit::TEMPFAIL,
            _ => exit::USAGE,
        },
        NoAnswer::Nobody(..) | NoAnswer::Broken(_) => exit::UNAVAILABLE,
    }
}

/// The same as a sentence, with the command that starts one where none is there.
pub(super) fn reason(error: &NoAnswer) -> String {
    match error {
        NoAnswer::Nobody(path, os) if os.kind() == ErrorKind::PermissionDenied => format!(
            "{}: {os}; ask as root, as the daemon's user or as a member of [daemon] socket_group",
            path.display()
        ),
        NoAnswer::Nobody(..) => format!(
            "{error}; start one with '{START}', or name its configuration with -c or its socket with --socket"
        ),
        _ => error.to_string(),
    }
}

/// Writes to standard output. Whoever read the first lines and went away has seen enough.
pub(super) fn print(command: &str, text: &str) -> Result<(), ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ExitCode::from(exit::OK)),
        Err(error) => Err(fail(
            exit::IOERR,
            &format!("settled {command}: standard output: {error}"),
        )),
    }
}

/// `2026-11-21 19:24:16.123 +0100`: local time, with its offset.
pub(super) fn stamp(ns: i64) -> String {
    let at = Wall(ns);
    let offset = clock::utc_offset(at);
    let local = ns.div_euclid(1_000_000) + i64::from(offset) * 1000;
    let ms = local.rem_euclid(86_400_000);
    let sign = if offset < 0 { '-' } else { '+' };
    let east = offset.unsigned_abs() / 60;
    format!(
        "{} {:02}:{:02}:{:02}.{:03} {sign}{:02}{:02}",
        civil_date(at, offset),
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000,
        east / 60,
        east % 60
    )
}

/// `0.4 s`, `3 min 20 s`, `5 h 2 min`, `3 d 4 h`.
pub(super) fn span(span: Duration) -> String {
    let s = span.as_secs();
    match s {
        0..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

/// How long ago a time was, by this machine's clock.
pub(super) fn ago(ns: i64) -> Duration {
    clock::wall().since(Wall(ns))
}

/// Bytes of anybody's as one line that steers no terminal.
pub(super) fn shown(bytes: &[u8]) -> String {
    let mut text = String::new();
    crate::log::escape(&mut text, bytes, false);
    text
}

/// The same of what came as JSON.
pub(super) fn shown_path(text: &str, hex: &str) -> String {
    shown(&crate::core::view::bytes_of(text, hex))
}

/// A path as the daemon knows it: absolute, by name.
pub(super) fn absolute(path: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    let base = match path.is_absolute() {
        true => PathBuf::from("/"),
        false => std::env::current_dir()?,
    };
    Ok(config::absolute(
        base.as_os_str().as_bytes(),
        path.as_os_str().as_bytes(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (s, text) in [
            (0, "0.0 s"),
            (59, "59.0 s"),
            (200, "3 min 20 s"),
            (18_120, "5 h 2 min"),
            (273_700, "3 d 4 h"),
        ] {
            assert_eq!(span(Duration::from_secs(s)), text);
        }
    }
}
