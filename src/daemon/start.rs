//! From a plan to a running loop: what is made in which order, and what each failure means.

use super::compaction::{Compaction, Slack};
use super::textfile::Textfile;
use super::{Daemon, Due, Fatal, INOTIFY, MOUNTS, SIGNALS, room::Room};
use crate::child::Children;
use crate::core::time::{Mono, Now};
use crate::core::{Core, LogLine};
use crate::journal::error::BadDirectory;
use crate::journal::segment::DiskJournal;
use crate::journal::{JournalError, OnDamage, Options, Report};
use crate::log::Log;
use crate::plan::{Level, Plan};
use crate::scout::Scouts;
use crate::service::{Manager, Signals};
use crate::slots::Slots;
use crate::spawner::Spawner;
use crate::sys::{clock, process};
use crate::watch::Watcher;
use mio::{Events, Interest, Poll};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
            Ok(Some(status)) => {
                daemon.end_outputs();
                return status;
            }
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
        // What comes before there are handlers waits for them: by default some of these signals would end the process.
        process::block_signals();
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
        process::unblock_signals();

        let wall = clock::wall();
        let (slack, options) = Slack::from_env().map_err(os("the environment"))?;
        let options = Options {
            now: wall,
            on_damage: match plan.daemon.on_damage {
                crate::plan::OnDamage::Stop => OnDamage::Stop,
                crate::plan::OnDamage::Continue => OnDamage::Continue,
            },
            ..options
        };
        let broken = |error: JournalError| Fatal::new(exit_status(&error), error.to_string());
        let mut patience = Patience::begin(manager);
        let opened = DiskJournal::open(&plan.daemon.state, &options, plan.daemon.state_force)
            .map_err(broken)?;
        // Not before the journal's lock is held: slots belong to one daemon.
        let slots = Slots::open(&plan.daemon.state).map_err(os("the state directory's slots"))?;
        let silent = plan.daemon.mount_silent;
        let (socket, group) = (plan.daemon.socket.clone(), plan.daemon.socket_group);
        let textfile = Textfile::new(&plan.daemon);
        let mut core = Core::new(plan, opened.id());
        let (journal, report) = opened
            .replay(|at, record| {
                patience.another();
                core.replay(at, record);
            })
            .map_err(broken)?;
        let (manager, untold) = patience.over();
        say_report(&mut log, &report);
        if let Some(text) = untold {
            log.line(
                Level::Warning,
                &LogLine {
                    text,
                    ..LogLine::default()
                },
            );
        }

        let poll = Poll::new().map_err(os("epoll"))?;
        let registry = poll.registry();
        let mut daemon_signals = signals;
        let mut watcher = watcher;
        let mut mounts = crate::mounts::Source::open().map_err(os("/proc/self/mountinfo"))?;
        registry
            .register(&mut daemon_signals, SIGNALS, Interest::READABLE)
            .and_then(|()| registry.register(&mut watcher, INOTIFY, Interest::READABLE))
            .and_then(|()| registry.register(&mut mounts, MOUNTS, Interest::PRIORITY))
            .map_err(os("epoll"))?;
        let children = registry
            .try_clone()
            .and_then(|registry| Children::new(spawner, registry, slots))
            .map_err(os("epoll"))?;
        let scouts = Scouts::new(registry, silent).map_err(os("epoll"))?;

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
                compaction: false,
                scouts: Vec::new(),
            },
            burst: super::burst::Burst::default(),
            held: Vec::new(),
            late: Vec::new(),
            behind: super::late::Late::default(),
            inputs: Vec::new(),
            effects: Vec::new(),
            room: Room::new(slack.look),
            compaction: Compaction::new(slack, !report.damage.is_empty()),
            control: None,
            meter: super::control::Meter::new(now),
            textfile,
            stops: 0,
            watchdog: None,
            stop: None,
            now,
        };
        if daemon.watcher.drops_events() {
            daemon.say(
                Level::Warning,
                "SETTLED_TEST_DROP: events are dropped on purpose".into(),
            );
        }
        // The journal's lock is held: nobody else of this state directory listens.
        if let Err(text) = daemon.listen(&socket, group) {
            daemon.say(Level::Warning, text);
        }
        let table = daemon.read_mounts().unwrap_or_default();
        daemon.core.start(now, table);
        Ok(daemon)
    }
}

/// Records between two looks at the clock.
const RECORDS_A_LOOK: u64 = 4096;
/// How often the manager is asked for more time, and for how much.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_FOR: Duration = Duration::from_secs(60);

/// Reading the journal comes before readiness, and how long it takes depends on its disk: as long as it gets on, the
/// service manager is asked to wait. Listings are not waited for.
struct Patience {
    manager: Manager,
    records: u64,
    asked: Mono,
    /// The manager cannot be told.
    untold: Option<String>,
}

impl Patience {
    fn begin(manager: Manager) -> Patience {
        let mut patience = Patience {
            manager,
            records: 0,
            asked: clock::boottime(),
            untold: None,
        };
        let said = patience.manager.status("reading the journal");
        patience.note(said);
        patience.ask();
        patience
    }

    /// Another record was read.
    fn another(&mut self) {
        self.records += 1;
        let now = clock_every(self.records);
        if now.is_some_and(|now| now.since(self.asked) >= ASK_EVERY) {
            self.ask();
        }
    }

    fn ask(&mut self) {
        self.asked = clock::boottime();
        let said = self.manager.extend_timeout(ASK_FOR);
        self.note(said);
    }

    fn note(&mut self, said: std::io::Result<()>) {
        if let Err(error) = said {
            self.untold = Some(format!("the service manager cannot be told: {error}"));
        }
    }

    fn over(self) -> (Manager, Option<String>) {
        (self.manager, self.untold)
    }
}

/// The time, now and then.
fn clock_every(records: u64) -> Option<Mono> {
    records.is_multiple_of(RECORDS_A_LOOK).then(clock::boottime)
}

/// What was found in the journal that a person should know.
fn say_report(log: &mut Log, report: &Report) {
    let mut say = |text: String| {
        log.line(
            Level::Warning,
            &LogLine {
                text,
                ..LogLine::default()
            },
        );
    };
    if report.cut_bytes > 0 {
        say(format!(
            "journal: {} bytes that had never been flushed were cut; nothing had been done because of them",
            report.cut_bytes
        ));
    }
    for damage in &report.damage {
        say(format!("journal: {damage}"));
    }
    for path in &report.kept {
        say(format!("journal: kept aside: {path}"));
    }
}

/// The sysexits(3) status that says what kind of trouble the journal has.
fn exit_status(error: &JournalError) -> u8 {
    match error {
        JournalError::Held { .. } => 75,
        JournalError::NoRoom(_) => 73,
        JournalError::Directory(_, BadDirectory::NotADirectory) => 73,
        JournalError::Directory(..) => 77,
        JournalError::OldKernel => 71,
        JournalError::Newer { .. }
        | JournalError::UnknownKind { .. }
        | JournalError::Damaged(_)
        | JournalError::NotAJournal(_) => 65,
        JournalError::Storage(fault) => match fault.errno {
            libc::ENOSPC | libc::EDQUOT | libc::EROFS | libc::EFBIG => 73,
            libc::EACCES | libc::EPERM => 77,
            _ => 74,
        },
        JournalError::Final(_) | JournalError::TooLong { .. } | JournalError::NotCompacting(_) => {
            74
        }
    }
}
