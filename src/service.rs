//! The service manager's side of the daemon: signals in, sd_notify(3) out.

use crate::sys;
use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::signal::Signal as Number;
use signal_hook::SigId;
use signal_hook::low_level::{pipe, unregister};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;

/// A signal that means something to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Reload.
    Hup,
    /// Log the state.
    Usr1,
    /// List everything again.
    Usr2,
    /// Drain; the second one of this or [`Signal::Int`] stops at once.
    Term,
    /// As [`Signal::Term`].
    Int,
}

impl Signal {
    /// As in `kill -l`, for the log.
    pub fn name(self) -> &'static str {
        match self {
            Signal::Hup => "SIGHUP",
            Signal::Usr1 => "SIGUSR1",
            Signal::Usr2 => "SIGUSR2",
            Signal::Term => "SIGTERM",
            Signal::Int => "SIGINT",
        }
    }
}

/// What may be pending of one signal is bounded by its socket's buffer (some hundred); more of the same say
/// nothing new. Each has a socket of its own, so that a flood of one cannot displace another.
#[derive(Debug)]
struct Line {
    signal: Signal,
    id: SigId,
    receiver: UnixStream,
}

/// Signals as a source of the loop, readable when one came.
///
/// Processes that are forked while this exists share its sockets and handlers: until they reset their signals,
/// one sent to them arrives here. So make it after the spawner was forked, or let the spawner reset first.
#[derive(Debug)]
pub struct Signals {
    lines: Vec<Line>,
}

impl Signals {
    /// Catches HUP, TERM, INT, USR1 and USR2, and ignores PIPE (a reader that went away is an error of the
    /// write), IO (the break of a lease that a probe held; its default is to end the process) and XFSZ.
    ///
    /// # Errors
    /// What socketpair(2) or sigaction(2) give.
    pub fn new() -> io::Result<Signals> {
        sys::signal::ignore(Number::SIGPIPE)?;
        sys::signal::ignore(Number::SIGIO)?;
        // A limit of file sizes (setrlimit(2), RLIMIT_FSIZE) is to be an errno of the write, not an end.
        sys::signal::ignore(Number::SIGXFSZ)?;
        let mut signals = Signals { lines: Vec::new() };
        // The order of `drain`: those that ask for an end come last.
        for (signal, number) in [
            (Signal::Hup, Number::SIGHUP),
            (Signal::Usr1, Number::SIGUSR1),
            (Signal::Usr2, Number::SIGUSR2),
            (Signal::Term, Number::SIGTERM),
            (Signal::Int, Number::SIGINT),
        ] {
            let (receiver, sender) = UnixStream::pair()?;
            receiver.set_nonblocking(true)?;
            let id = pipe::register(number as i32, sender)?;
            let line = Line {
                signal,
                id,
                receiver,
            };
            signals.lines.push(line);
        }
        Ok(signals)
    }

    /// Appends every signal that has come, each as often as it came: by kind, TERM and INT last.
    ///
    /// # Errors
    /// What read(2) gives, other than "nothing there"; UnexpectedEof if somebody took the handlers away.
    pub fn drain(&mut self, into: &mut Vec<Signal>) -> io::Result<()> {
        let mut bytes = [0; 256];
        for line in &mut self.lines {
            loop {
                match line.receiver.read(&mut bytes) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => into.extend(std::iter::repeat_n(line.signal, count)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }
}

impl Drop for Signals {
    /// The signals are not delivered here any more; they stay caught, and without effect.
    fn drop(&mut self) {
        for line in &self.lines {
            unregister(line.id);
        }
    }
}

impl Source for Signals {
    fn register(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        let mut fds = self.lines.iter().map(|line| line.receiver.as_raw_fd());
        fds.try_for_each(|fd| SourceFd(&fd).register(to, token, interest))
    }

    fn reregister(&mut self, to: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        let mut fds = self.lines.iter().map(|line| line.receiver.as_raw_fd());
        fds.try_for_each(|fd| SourceFd(&fd).reregister(to, token, interest))
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        let mut fds = self.lines.iter().map(|line| line.receiver.as_raw_fd());
        fds.try_for_each(|fd| SourceFd(&fd).deregister(from))
    }
}

/// Variables by which a service manager speaks to this process alone (sd_notify(3), sd_watchdog_enabled(3)).
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Messages that wait for room in the manager's socket; more than that displace the oldest.
const OUTBOX: usize = 16;

/// The service manager, if there is one. Sending never blocks.
#[derive(Debug)]
pub struct Manager {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    outbox: VecDeque<String>,
}

impl Manager {
    /// Reads what the manager left in the environment, and removes it from there so that children do not
    /// speak in the daemon's name. Call it before anything is forked.
    ///
    /// # Errors
    /// InvalidInput: `NOTIFY_SOCKET` or `WATCHDOG_USEC` is not understood, in words for the operator. Else
    /// what socket(2) gives, or the refusal of [`sys::environ::remove`].
    pub fn from_env() -> io::Result<Manager> {
        let manager = Manager::from_vars(|name| std::env::var_os(name))?;
        if VARIABLES
            .iter()
            .any(|name| std::env::var_os(name).is_some())
        {
            sys::environ::remove(&VARIABLES)?;
        }
        Ok(manager)
    }

    fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> io::Result<Manager> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidInput, text);
        let to = match var("NOTIFY_SOCKET").filter(|v| !v.is_empty()) {
            None => None,
            Some(name) => {
                let address = match name.as_bytes() {
                    [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
                    [b'/', ..] => SocketAddr::from_pathname(&name)?,
                    _ => {
                        let name = name.display();
                        return Err(invalid(format!(
                            "NOTIFY_SOCKET is {name:?}: only a unix socket (a path, or @ and a name) can be notified"
                        )));
                    }
                };
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                Some((socket, address))
            }
        };
        let number = |name: &str| match var(name) {
            None => Ok(None),
            Some(value) => {
                let number = value.to_str().and_then(|v| v.parse::<u64>().ok());
                let text = || invalid(format!("{name} is {:?}, not a number", value.display()));
                number.map(Some).ok_or_else(text)
            }
        };
        let mine = number("WATCHDOG_PID")?.is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC")?
            .filter(|us| mine && *us > 0)
            .map(|us| Duration::from_micros(us) / 2);
        Ok(Manager {
            to,
            watchdog,
            outbox: VecDeque::new(),
        })
    }

    /// Whether somebody listens.
    pub fn is_there(&self) -> bool {
        self.to.is_some()
    }

    /// How often [`Manager::watchdog`] is to be called: half of what the manager waits for. `None`: never.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.is_there())
    }

    /// `READY=1`: started, or done reloading.
    ///
    /// # Errors
    /// As [`Manager::retry`].
    pub fn ready(&mut self) -> io::Result<()> {
        self.send("READY=1\n".into())
    }

    /// `RELOADING=1`; [`Manager::ready`] ends it.
    ///
    /// # Errors
    /// As [`Manager::retry`].
    pub fn reloading(&mut self) -> io::Result<()> {
        let now = sys::clock::monotonic_us();
        self.send(format!("RELOADING=1\nMONOTONIC_USEC={now}\n"))
    }

    /// `STOPPING=1`.
    ///
    /// # Errors
    /// As [`Manager::retry`].
    pub fn stopping(&mut self) -> io::Result<()> {
        self.send("STOPPING=1\n".into())
    }

    /// `STATUS=`: one line for people; control characters in it become spaces.
    ///
    /// # Errors
    /// As [`Manager::retry`].
    pub fn status(&mut self, text: &str) -> io::Result<()> {
        let text = text.replace(char::is_control, " ");
        self.outbox
            .retain(|message| !message.starts_with("STATUS="));
        self.send(format!("STATUS={text}\n"))
    }

    /// `WATCHDOG=1`: the loop goes round.
    ///
    /// # Errors
    /// As [`Manager::retry`].
    pub fn watchdog(&mut self) -> io::Result<()> {
        self.outbox.retain(|message| message != "WATCHDOG=1\n");
        self.send("WATCHDOG=1\n".into())
    }

    /// `EXTEND_TIMEOUT_USEC=`: starting, reloading or stopping takes at most this much longer from now.
    ///
    /// # Errors
    /// As [`Manager::retry`].
    pub fn extend_timeout(&mut self, by: Duration) -> io::Result<()> {
        self.send(format!("EXTEND_TIMEOUT_USEC={}\n", by.as_micros()))
    }

    /// Whether a message waits because the manager's socket was full: call [`Manager::retry`] soon.
    pub fn wants_retry(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what waits, in order, as far as there is room.
    ///
    /// # Errors
    /// What sendto(2) gives, other than "full": the message is lost then (nobody listens).
    pub fn retry(&mut self) -> io::Result<()> {
        let Some((socket, address)) = &self.to else {
            self.outbox.clear();
            return Ok(());
        };
        while let Some(message) = self.outbox.front() {
            match socket.send_to_addr(message.as_bytes(), address) {
                Err(e) if is_full(&e) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                result => {
                    self.outbox.pop_front();
                    result?;
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, message: String) -> io::Result<()> {
        if self.to.is_some() {
            if self.outbox.len() >= OUTBOX {
                self.outbox.pop_front();
            }
            self.outbox.push_back(message);
        }
        self.retry()
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use signal_hook::low_level::raise;
    use std::process::Command;
    use std::sync::Mutex;

    /// Dispositions belong to the whole process, and tests run side by side.
    static DISPOSITIONS: Mutex<()> = Mutex::new(());

    fn drained(signals: &mut Signals) -> Vec<Signal> {
        let mut seen = Vec::new();
        signals.drain(&mut seen).unwrap();
        seen
    }

    #[test]
    fn signals_are_counted_and_wake_the_loop() {
        let _alone = DISPOSITIONS.lock().unwrap();
        let mut signals = Signals::new().unwrap();
        let mut poll = mio::Poll::new().unwrap();
        poll.registry()
            .register(&mut signals, Token(0), Interest::READABLE)
            .unwrap();
        let mut ready = mio::Events::with_capacity(8);
        for (number, signal) in [
            (libc::SIGHUP, Signal::Hup),
            (libc::SIGUSR1, Signal::Usr1),
            (libc::SIGUSR2, Signal::Usr2),
            (libc::SIGTERM, Signal::Term),
            (libc::SIGINT, Signal::Int),
        ] {
            raise(number).unwrap();
            poll.poll(&mut ready, Some(Duration::from_secs(20)))
                .unwrap();
            assert!(ready.iter().any(|e| e.token() == Token(0)), "{signal:?}");
            assert_eq!(drained(&mut signals), [signal]);
        }
        // The second one within one turn is noticed, whichever of the two it is.
        for number in [libc::SIGTERM, libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            raise(number).unwrap();
        }
        let seen = drained(&mut signals);
        assert_eq!(seen, [Signal::Hup, Signal::Term, Signal::Term, Signal::Int]);
        // A flood of one signal does not displace another.
        for _ in 0..5000 {
            raise(libc::SIGUSR1).unwrap();
        }
        raise(libc::SIGTERM).unwrap();
        let seen = drained(&mut signals);
        assert_eq!(seen.last(), Some(&Signal::Term));
        assert!(seen.len() > 100);
        assert_eq!(drained(&mut signals), []);
    }

    #[test]
    fn pipe_and_io_are_ignored() {
        let _alone = DISPOSITIONS.lock().unwrap();
        // The default of SIGIO ends the process; std has ignored SIGPIPE at start already.
        let _signals = Signals::new().unwrap();
        raise(libc::SIGIO).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let ignored = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
        let ignored = u64::from_str_radix(ignored.unwrap().trim(), 16).unwrap();
        for number in [libc::SIGPIPE, libc::SIGIO] {
            assert_ne!(ignored & (1 << (number - 1)), 0, "{number}");
        }
    }

    fn manager_at(socket: &str) -> Manager {
        let socket = OsString::from(socket);
        Manager::from_vars(|name| (name == "NOTIFY_SOCKET").then(|| socket.clone())).unwrap()
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn states_reach_a_socket_by_path_and_by_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("settled-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        for (listener, variable) in [
            (
                UnixDatagram::bind(&path).unwrap(),
                path.display().to_string(),
            ),
            (
                UnixDatagram::bind_addr(&address).unwrap(),
                format!("@{name}"),
            ),
        ] {
            listener
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            let mut manager = manager_at(&variable);
            assert!(manager.is_there());
            manager.ready().unwrap();
            assert_eq!(received(&listener), "READY=1\n");
            manager.status("2 jobs\nREADY=1").unwrap();
            assert_eq!(received(&listener), "STATUS=2 jobs READY=1\n");
            manager.watchdog().unwrap();
            assert_eq!(received(&listener), "WATCHDOG=1\n");
            manager.extend_timeout(Duration::from_millis(1500)).unwrap();
            assert_eq!(received(&listener), "EXTEND_TIMEOUT_USEC=1500000\n");
            manager.stopping().unwrap();
            assert_eq!(received(&listener), "STOPPING=1\n");
            let before = sys::clock::monotonic_us();
            manager.reloading().unwrap();
            let text = received(&listener);
            let usec = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            let usec: u64 = usec.trim_end().parse().unwrap();
            assert!((before..=sys::clock::monotonic_us()).contains(&usec));
        }
    }

    #[test]
    fn a_full_socket_blocks_nobody_and_loses_nothing_that_matters() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut manager = manager_at(path.to_str().unwrap());
        while !manager.wants_retry() {
            manager.watchdog().unwrap();
        }
        for n in 0..100 {
            manager.watchdog().unwrap();
            manager.status(&format!("{n}")).unwrap();
        }
        manager.ready().unwrap();
        assert!(manager.wants_retry());
        let mut bytes = [0; 4096];
        while listener.recv(&mut bytes).is_ok() {}
        manager.retry().unwrap();
        assert!(!manager.wants_retry());
        let rest = [
            received(&listener),
            received(&listener),
            received(&listener),
        ];
        assert_eq!(rest, ["WATCHDOG=1\n", "STATUS=99\n", "READY=1\n"]);

        drop(listener);
        assert!(manager.ready().is_err());
        assert!(!manager.wants_retry());
    }

    #[test]
    fn the_environment_is_read_strictly() {
        let with = |vars: &[(&str, &str)]| {
            Manager::from_vars(|name| {
                let found = vars.iter().find(|(n, _)| *n == name);
                found.map(|(_, v)| OsString::from(*v))
            })
        };
        let pid = std::process::id().to_string();
        let other = (std::process::id() + 1).to_string();
        let socket = ("NOTIFY_SOCKET", "@x");
        let half = Some(Duration::from_secs(15));
        let usec = ("WATCHDOG_USEC", "30000000");
        for (vars, interval) in [
            (vec![socket, usec], half),
            (vec![socket, usec, ("WATCHDOG_PID", pid.as_str())], half),
            (vec![socket, usec, ("WATCHDOG_PID", other.as_str())], None),
            (vec![socket, ("WATCHDOG_USEC", "0")], None),
            (vec![usec], None),
            (vec![], None),
        ] {
            assert_eq!(
                with(&vars).unwrap().watchdog_interval(),
                interval,
                "{vars:?}"
            );
        }
        let mut nobody = with(&[]).unwrap();
        assert!(!nobody.is_there());
        nobody.ready().unwrap();
        assert!(!nobody.wants_retry());
        for vars in [
            [("NOTIFY_SOCKET", "vsock:2:9999"), usec],
            [socket, ("WATCHDOG_USEC", "soon")],
            [socket, ("WATCHDOG_USEC", "-1")],
        ] {
            let error = with(&vars).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{vars:?}");
        }
    }

    /// Runs in a process of its own, see below.
    #[test]
    #[ignore = "asked for by the next one"]
    fn take_the_environment() {
        let manager = Manager::from_env().map_err(|e| e.to_string());
        println!("taken: {:?}", manager.map(|m| m.is_there()));
    }

    #[test]
    fn beside_other_threads_the_environment_is_refused_not_raced() {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "service::tests::take_the_environment"])
            .args(["--ignored", "--nocapture"])
            .env("NOTIFY_SOCKET", "@nobody")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            text.contains("taken: Err(\"the environment is changed only"),
            "{text}"
        );
    }
}
