//! `settled top`: status, and the files that most deserve a look, again and again.

use super::ask::{self, Target, ago, shown, span};
use super::{exit, fail, list, status};
use crate::config;
use crate::control::client::{Connection, NoAnswer};
use crate::control::{Line, Request};
use crate::core::view::FileRow;
use crate::sys::{clock, terminal};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Of the files that there are, so many are kept to be shown: the oldest of each state.
const KEPT: usize = 200;
/// The alternate screen without a cursor, and back (console_codes(4)).
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first place, and from a place on clear the line or the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";
/// Where no terminal tells how large it is.
const SIZE: (usize, usize) = (50, 200);
/// What ends it: q, and what Ctrl-C sends where the terminal makes no signal of it.
const QUIT: [u8; 2] = [b'q', 3];
/// Every state but `ready`: of those there may be half a million, and none has anything to tell.
const STATES: [&str; 7] = [
    "running",
    "halted",
    "orphaned",
    "backoff",
    "waiting",
    "looking",
    "disposing",
];

pub(super) fn command() -> Command {
    let [config, socket, _] = ask::arguments();
    Command::new("top")
        .about("Show status, and what runs and waits for longest, again and again; q ends it")
        .args([config, socket])
        .arg(
            Arg::new("watch")
                .long("watch")
                .value_name("NAME")
                .action(ArgAction::Append)
                .help("Files of this watch only; can be given more than once"),
        )
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("DURATION")
                .help("Time between two looks")
                .default_value("2s")
                .value_parser(config::duration),
        )
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("NUMBER")
                .help("End after so many looks; 1 where standard output is no terminal")
                .value_parser(value_parser!(u32).range(1..)),
        )
}

pub(super) fn run(given: &ArgMatches) -> ExitCode {
    match top(given) {
        Ok(code) | Err(code) => code,
    }
}

fn top(given: &ArgMatches) -> Result<ExitCode, ExitCode> {
    let target = Target::of(given)?;
    let watches: Vec<String> = given
        .get_many::<String>("watch")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let interval = given
        .get_one::<Duration>("interval")
        .copied()
        .unwrap_or(Duration::from_secs(2))
        .max(Duration::from_millis(100));
    let count = given.get_one::<u32>("count").copied();
    // The first look is to say why there is none, not to draw it.
    let mut asker = Asker {
        target,
        watches,
        connection: None,
    };
    let first = asker
        .look()
        .map_err(|error| ask::fail_no_answer("top", &error))?;
    if !io::stdout().is_terminal() {
        return plain(&mut asker, first, interval, count.unwrap_or(1));
    }
    let screen = Screen::open().map_err(|error| {
        let text = format!("settled top: the terminal: {error}");
        fail(exit::OSERR, &text)
    })?;
    let drawn = draw(&mut asker, &screen, first, interval, count);
    drop(screen);
    match drawn {
        Ok(()) => Ok(ExitCode::from(exit::OK)),
        Err(error) => Err(fail(
            exit::IOERR,
            &format!("settled top: the terminal: {error}"),
        )),
    }
}

/// One look after another as text, for what is no terminal.
fn plain(
    asker: &mut Asker,
    first: Vec<String>,
    interval: Duration,
    count: u32,
) -> Result<ExitCode, ExitCode> {
    ask::print("top", &joined(&first))?;
    for _ in 1..count {
        std::thread::sleep(interval);
        let lines = asker
            .look()
            .map_err(|error| ask::fail_no_answer("top", &error))?;
        ask::print("top", &format!("\n{}", joined(&lines)))?;
    }
    Ok(ExitCode::from(exit::OK))
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Who is asked, over one connection as long as that holds.
struct Asker {
    target: Target,
    watches: Vec<String>,
    connection: Option<Connection>,
}

impl Asker {
    fn look(&mut self) -> Result<Vec<String>, NoAnswer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.target.connect()?,
        };
        let mut rows = Vec::new();
        connection.ask(&Request::Status {}, &mut |text, line| {
            rows.push((text.to_owned(), line));
            true
        })?;
        let mut files = Files::default();
        let request = Request::List {
            watches: self.watches.clone(),
            states: STATES.map(str::to_owned).to_vec(),
            name: None,
            before_ns: None,
            after_ns: None,
        };
        connection.ask(&request, &mut |_, line| {
            if let Line::File(row) = line {
                files.add(*row);
            }
            true
        })?;
        self.connection = Some(connection);
        let mut lines = vec![ask::stamp(clock::wall().0)];
        lines.extend(status::describe(&rows).lines().map(str::to_owned));
        lines.push(String::new());
        lines.extend(files.lines());
        Ok(lines)
    }
}

/// The oldest files of each state.
#[derive(Default)]
struct Files {
    rows: [Vec<FileRow>; STATES.len()],
    counts: [u64; STATES.len()],
}

impl Files {
    fn add(&mut self, row: FileRow) {
        let Some(place) = STATES.iter().position(|state| *state == row.state) else {
            return;
        };
        if let (Some(rows), Some(count)) = (self.rows.get_mut(place), self.counts.get_mut(place)) {
            *count += 1;
            rows.push(row);
            if rows.len() >= 2 * KEPT {
                rows.sort_by_key(|row| row.since_ns);
                rows.truncate(KEPT);
            }
        }
    }

    fn lines(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let kinds = STATES.iter().zip(&mut self.rows).zip(self.counts);
        for ((state, rows), count) in kinds.filter(|(_, count)| *count > 0) {
            rows.sort_by_key(|row| row.since_ns);
            let oldest = rows.first().map_or(0, |row| row.since_ns);
            lines.push(format!(
                "{count} {state}, the oldest for {}:",
                span(ago(oldest))
            ));
            for row in rows.iter().take(KEPT) {
                lines.push(list::describe(row).trim_end().to_owned());
            }
        }
        lines
    }
}

/// A terminal that is drawn on, and is as it was before afterwards.
struct Screen {
    before: Termios,
    /// It is to end, or was given another size.
    end: Arc<AtomicBool>,
    resized: Arc<AtomicBool>,
}

impl Screen {
    fn open() -> io::Result<Screen> {
        let (end, resized) = (Arc::default(), Arc::default());
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&end))?;
        }
        signal_hook::flag::register(libc::SIGWINCH, Arc::clone(&resized))?;
        let before = tcgetattr(io::stdout())?;
        let mut keys = before.clone();
        keys.local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
        tcsetattr(io::stdout(), SetArg::TCSANOW, &keys)?;
        let screen = Screen {
            before,
            end,
            resized,
        };
        let mut out = io::stdout();
        out.write_all(ENTER.as_bytes())?;
        out.flush()?;
        Ok(screen)
    }

    fn ends(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to tell that the terminal is gone.
        let mut out = io::stdout();
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
        let _ = tcsetattr(io::stdout(), SetArg::TCSANOW, &self.before);
    }
}

fn draw(
    asker: &mut Asker,
    screen: &Screen,
    first: Vec<String>,
    interval: Duration,
    count: Option<u32>,
) -> io::Result<()> {
    let mut lines = first;
    let mut looks = 1;
    loop {
        frame(&lines)?;
        if count.is_some_and(|count| looks >= count) || !wait(screen, interval, &lines)? {
            return Ok(());
        }
        looks += 1;
        match asker.look() {
            Ok(seen) => lines = seen,
            // What was seen last stays, with the reason above it; it is asked again.
            Err(error) => {
                let text = format!("{}: {}", ask::stamp(clock::wall().0), ask::reason(&error));
                if let Some(line) = lines.first_mut() {
                    *line = shown(text.as_bytes());
                }
            }
        }
    }
}

/// Draws over what was there, so that nothing flickers.
fn frame(lines: &[String]) -> io::Result<()> {
    let (rows, columns) = terminal::size(io::stdout().as_fd()).unwrap_or(SIZE);
    let mut out = String::from(HOME);
    for (at, line) in lines.iter().take(rows).enumerate() {
        if at > 0 {
            out.push_str("\r\n");
        }
        out.extend(line.chars().take(columns));
        out.push_str(CLEAR_LINE);
    }
    out.push_str(CLEAR_REST);
    let mut stdout = io::stdout();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()
}

/// Waits for the time to look again. `false`: it is to end.
fn wait(screen: &Screen, interval: Duration, lines: &[String]) -> io::Result<bool> {
    let until = clock::boottime().after(interval);
    loop {
        if screen.ends() {
            return Ok(false);
        }
        if screen.resized.swap(false, Ordering::Relaxed) {
            frame(lines)?;
        }
        let left = until.since(clock::boottime());
        if left.is_zero() {
            return Ok(true);
        }
        let stdin = io::stdin();
        let mut ready = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let millis = left.as_millis().clamp(1, 60_000);
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO);
        match poll(&mut ready, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => {
                let mut keys = [0; 64];
                let read = stdin.lock().read(&mut keys)?;
                let pressed = keys.get(..read).unwrap_or_default();
                if read == 0 || pressed.iter().any(|key| QUIT.contains(key)) {
                    return Ok(false);
                }
            }
        }
    }
}
