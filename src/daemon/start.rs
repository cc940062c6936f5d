//! From a plan to a running loop: what is made in which order, and what each failure means.

use super::{Daemon, Due, Fatal, INOTIFY, MOUNTS, SIGNALS, room::Room};
use crate::child::Children;
use crate::core::time::Now;
use crate::core::{Core, LogLine};
use crate::journal::{Journal, Opened};
use crate::log::Log;
use crate::plan::{Level, Plan};
use crate::scout::Scouts;
use crate::service::{Manager, Signals};
use crate::spawner::Spawner;
use crate::sys::clock;
use crate::watch::Watcher;
use mio::{Events, Interest, Poll};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// Where the plan came from, for SIGHUP.
#[derive(Clone, Debug)]
pub enum Source {
    /// A configuration file: read again on SIGHUP.
    File(PathBuf),
    /// The command line.
    Arguments,
}

/// Runs the daemon until it is told to stop. The exit status is one of sysexits(3).
pub fn run(plan: Plan, source: Source) -> ExitCode {
    let mut daemon = match Daemon::start(plan, source) {
        Ok(daemon) => daemon,
        Err(fatal) => {
            eprintln!("settled: {}", fatal.text);
            return ExitCode::from(fatal.status);
        }
    };
    loop {
        match daemon.turn() {
            Ok(None) => {}
            Ok(Some(status)) => return status,
            Err(fatal) => {
                daemon.say(Level::Error, fatal.text);
                daemon.log.flush(clock::boottime());
                return ExitCode::from(fatal.status);
            }
        }
    }
}

impl Daemon {
    fn start(plan: Plan, source: Source) -> Result<Daemon, Fatal> {
        let os = |what: &'static str| {
            move |error: std::io::Error| Fatal::new(71, format!("{what}: {error}"))
        };
        clock::read_zone();
        let manager = Manager::from_env().map_err(os("the service manager's environment"))?;
        let watcher = Watcher::new().map_err(|error| {
            Fatal::new(
                71,
                format!("inotify: {error}; raise the sysctl fs.inotify.max_user_instances"),
            )
        })?;
        // Before anything that a scout should not inherit: the journal's lock and mapping, signal handlers,
        // the state's memory.
        let spawner = Spawner::start(watcher.as_fd(), crate::scout::run)
            .map_err(os("the spawner cannot be forked"))?;
        let mut log = Log::open(plan.daemon.log, plan.daemon.log_level)
            .map_err(|error| Fatal::new(69, error.to_string()))?;
        let signals = Signals::new().map_err(os("signals"))?;

        let mut records = Vec::new();
        let Opened { journal, report } = Journal::open(&plan.daemon.state, &mut |at, record| {
            records.push((at, record));
        })
        .map_err(|error| Fatal::new(error.exit_status(), error.to_string()))?;
        for text in report.lines() {
            log.line(
                Level::Warning,
                &LogLine {
                    text,
                    ..LogLine::default()
                },
            );
        }
        let mut scouts = Scouts::new(plan.daemon.mount_silent);
        let mut core = Core::new(plan, journal.id());
        for (at, record) in records {
            core.replay(at, record);
        }

        let poll = Poll::new().map_err(os("epoll"))?;
        let registry = poll.registry();
        let mut daemon_signals = signals;
        let mut watcher = watcher;
        let mut mounts =
            crate::mounts::Source::open().map_err(os("/proc/self/mountinfo"))?;
        registry
            .register(&mut daemon_signals, SIGNALS, Interest::READABLE)
            .and_then(|()| registry.register(&mut watcher, INOTIFY, Interest::READABLE))
            .and_then(|()| registry.register(&mut mounts, MOUNTS, Interest::PRIORITY))
            .and_then(|()| scouts.register(registry))
            .map_err(os("epoll"))?;
        let children = registry
            .try_clone()
            .and_then(|registry| Children::new(spawner, registry))
            .map_err(os("epoll"))?;

        let wall = clock::wall();
        let now = Now {
            mono: clock::boottime(),
            wall,
            utc_offset_s: clock::utc_offset(wall),
        };
        let mut daemon = Daemon {
            core,
            journal,
            log,
            poll,
            events: Events::with_capacity(256),
            signals: daemon_signals,
            manager,
            watcher,
            mounts,
            children,
            scouts,
            source,
            // Whatever came before the registration is not told of.
            due: Due {
                signals: true,
                inotify: true,
                mounts: false,
            },
            answers: Vec::new(),
            room: Room::default(),
            stops: 0,
            watchdog: None,
            stop: None,
            now,
        };
        if daemon.watcher.drops_events() {
            daemon.say(Level::Warning, "SETTLED_TEST_DROP: events are dropped on purpose".into());
        }
        let table = daemon.read_mounts();
        daemon.core.start(now, table);
        Ok(daemon)
    }
}
