//! The loop: one thread, five steps a turn. What decides is `core`, what acts is a room each; this
//! connects them in the one order that makes the promises hold.

mod burst;
mod compaction;
mod control;
mod late;
mod output;
mod room;
mod start;
mod textfile;

pub use start::{Source, run};

use crate::child::{Children, Happening};
use crate::control::server::Server;
use crate::core::time::{Mono, Now};
use crate::core::{Command, Core, Effect, Input, LogLine};
use crate::journal::Journal;
use crate::journal::segment::Disk;
use crate::log::Log;
use crate::plan::Level;
use crate::scout::{Launcher, Scouts};
use crate::service::{Manager, Signal, Signals};
use crate::sys::clock;
use crate::watch::Watcher;
use mio::{Events, Interest, Poll, Token};
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;
use textfile::Textfile;

/// Signals.
const SIGNALS: Token = Token(0);
/// The inotify descriptor.
const INOTIFY: Token = Token(1);
/// `/proc/self/mountinfo`.
const MOUNTS: Token = Token(2);

/// inotify events read in one turn; the rest is due at once in the next.
const EVENTS_A_TURN: usize = 4096;
/// Room for so many inputs and effects is kept from turn to turn.
const KEPT: usize = 2048;
/// A mount that owes an answer for this long while the daemon stops is not waited for.
const STOP_PATIENCE: Duration = Duration::from_millis(500);
/// What a stop may take on top of the core's own waits: flushes, and ends that are seen late on a busy machine.
const STOP_MARGIN: Duration = Duration::from_secs(10);
/// The core is told of flushes that take as long as this.
const SLOW_FLUSH: Duration = Duration::from_millis(100);
/// Answers taken from one scout in one turn, as much as so many probes are.
const ANSWERS_A_TURN: usize = 1024;

/// How a turn may fail: the exit status and the sentence that says why.
#[derive(Debug)]
struct Fatal {
    status: u8,
    text: String,
}

impl Fatal {
    fn new(status: u8, text: String) -> Fatal {
        Fatal { status, text }
    }
}

/// Which sources may have more than was taken from them: mio tells of each only once.
#[derive(Debug, Default)]
struct Due {
    signals: bool,
    inotify: bool,
    mounts: bool,
    compaction: bool,
    scouts: Vec<Token>,
}

impl Due {
    fn any(&self) -> bool {
        self.signals || self.inotify || self.mounts || !self.scouts.is_empty()
    }
}

/// The spawner makes scouts as it makes everything else.
impl Launcher for Children {
    fn launch(&mut self, number: u64, socket: OwnedFd) -> io::Result<()> {
        self.scout(number, socket)
    }
}

/// Everything the loop owns.
struct Daemon {
    core: Core,
    journal: Journal<Disk>,
    log: Log,
    poll: Poll,
    events: Events,
    signals: Signals,
    manager: Manager,
    watcher: Watcher,
    mounts: crate::mounts::Source,
    children: Children,
    scouts: Scouts,
    source: Source,
    due: Due,
    burst: burst::Burst,
    /// Signals not yet acted on.
    held: Vec<Signal>,
    /// Answers of scouts and ends of children, which wait until every event before them has been read.
    late: Vec<Input>,
    /// How far those may go.
    behind: late::Late,
    /// Room for a turn's inputs and effects; empty between turns.
    inputs: Vec<Input>,
    effects: Vec<Effect>,
    room: room::Room,
    compaction: compaction::Compaction,
    /// None where the socket cannot be had, which was said.
    control: Option<Server>,
    meter: control::Meter,
    textfile: textfile::Textfile,
    stops: u32,
    watchdog: Option<Mono>,
    stop: Option<u8>,
    now: Now,
}

impl Daemon {
    /// One turn. `Some` ends the process.
    fn turn(&mut self) -> Result<Option<ExitCode>, Fatal> {
        // 1. Sleep until something is ready or due; then read the clocks, once.
        self.sleep()?;
        self.log.gather();
        // 2. Drain what is ready, each source to its budget.
        let mut inputs = std::mem::take(&mut self.inputs);
        self.drain(&mut inputs)?;
        // 3. The core decides.
        for input in inputs.drain(..) {
            self.core.step(self.now, input);
        }
        self.inputs = kept(inputs);
        self.core.due(self.now);
        let mut effects = std::mem::take(&mut self.effects);
        self.core.swap_effects(&mut effects);
        // 4. What was decided becomes durable, with one flush.
        let before = clock::boottime();
        self.remember(&effects)?;
        self.meter.flushed(before, clock::boottime());
        // 5. Only then it is done.
        for effect in effects.drain(..) {
            self.perform(effect)?;
        }
        self.effects = kept(effects);
        self.flush_feeds()?;
        self.tend_textfile()?;
        self.tend_children()?;
        self.flush_rooms();
        self.compact()?;
        self.answer_clients();
        self.meter.turned(self.now, clock::boottime());
        Ok(self.stop.map(ExitCode::from))
    }

    // ---- 1 ----

    fn sleep(&mut self) -> Result<(), Fatal> {
        let more = self.due.any()
            || self.children.has_due()
            || !self.late.is_empty()
            || self.control.as_ref().is_some_and(Server::has_due);
        let timeout = if more {
            Some(Duration::ZERO)
        } else {
            self.deadline()
                .map(|at| round_up(at.since(clock::boottime())))
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Fatal::new(70, format!("epoll_wait: {error}")));
            }
            _ => {}
        }
        let wall = clock::wall();
        self.now = Now {
            mono: clock::boottime(),
            wall,
            utc_offset_s: clock::utc_offset(wall),
        };
        Ok(())
    }

    /// When something is to be done though nothing happens.
    fn deadline(&self) -> Option<Mono> {
        [
            self.core.deadline(),
            self.scouts.next_deadline(),
            self.children.deadline(),
            self.log.wants_wakeup(),
            self.room.deadline(),
            self.burst.deadline(),
            self.control.as_ref().and_then(Server::deadline),
            self.textfile.deadline(),
            self.watchdog,
            self.manager
                .wants_retry()
                .then(|| self.now.mono.after(Duration::from_millis(100))),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    // ---- 2 ----

    /// Remembers what has become ready: it is told of once.
    fn note_ready(&mut self) -> Result<(), Fatal> {
        let mut woken = false;
        for event in &self.events {
            match event.token() {
                SIGNALS => self.due.signals = true,
                INOTIFY => {
                    self.due.inotify = true;
                    woken = true;
                }
                MOUNTS => self.due.mounts = true,
                compaction::COMPACTION => self.due.compaction = true,
                token if Scouts::owns(token) => self.due.scouts.push(token),
                token if Server::owns(token) => {
                    if let Some(control) = &mut self.control {
                        control.ready(event);
                    }
                }
                token => {
                    self.children
                        .ready(token)
                        .map_err(|error| Fatal::new(70, format!("the spawner: {error}")))?;
                }
            }
        }
        if woken && self.burst.woken(self.now.mono) {
            self.poll
                .registry()
                .deregister(&mut self.watcher)
                .map_err(|error| Fatal::new(70, format!("epoll_ctl: {error}")))?;
        }
        self.due.inotify |= self.burst.is_due(self.now.mono);
        Ok(())
    }

    fn drain(&mut self, inputs: &mut Vec<Input>) -> Result<(), Fatal> {
        self.note_ready()?;
        self.drain_signals(inputs)?;
        self.take_orders(inputs);
        if std::mem::take(&mut self.due.mounts)
            && let Some(mounts) = self.read_mounts()
        {
            // What hung on a mount that is gone is not waited for.
            let there = mounts.iter().map(|mount| mount.id).collect();
            self.scouts
                .keep_mounts(&there, self.now.mono, &mut self.late);
            inputs.push(Input::Mounts(mounts));
        }
        // Answers and ends are taken before events are, and given to the core after them: whatever happened to
        // a file before a scout looked at it, or before its job ended, is known before that is.
        let mono = self.now.mono;
        let mut ready = std::mem::take(&mut self.due.scouts);
        ready.sort_unstable();
        ready.dedup();
        // What waits for events that are still to be read is enough for the turn that has read them.
        let enough = self.behind.is_behind();
        ready.retain(|token| match enough {
            true => {
                self.scouts.has_answered(mono, *token);
                true
            }
            false => self
                .scouts
                .ready(mono, *token, ANSWERS_A_TURN, &mut self.late),
        });
        self.due.scouts = ready;
        self.drain_children();
        self.scouts.tick(mono, &mut self.children, &mut self.late);
        let told = self.drain_inotify(inputs)?;
        inputs.extend(self.late.drain(..told));
        self.room.check(&mut self.journal, self.now.mono, inputs);
        Ok(())
    }

    /// How many of what waits for events may be told now.
    fn drain_inotify(&mut self, inputs: &mut Vec<Input>) -> Result<usize, Fatal> {
        // Not only when it is due: what was just taken may be younger than an event not yet told of.
        if !self.due.inotify && self.late.is_empty() {
            return Ok(0);
        }
        let failed = |error| Fatal::new(70, format!("read from inotify: {error}"));
        let before = inputs.len();
        let drained = self.watcher.drain(EVENTS_A_TURN, inputs).map_err(failed)?;
        self.due.inotify = !drained.empty;
        if self.burst.read(self.now.mono, inputs.len() > before) {
            // What has come meanwhile is told of at once (epoll(7)).
            self.poll
                .registry()
                .register(&mut self.watcher, INOTIFY, Interest::READABLE)
                .map_err(|error| Fatal::new(70, format!("epoll_ctl: {error}")))?;
        }
        let queued = || self.watcher.queued();
        self.behind
            .read(self.late.len(), drained, queued)
            .map_err(failed)
    }

    /// Signals are taken from the sockets that they come by.
    fn hold_signals(&mut self) -> Result<(), Fatal> {
        if std::mem::take(&mut self.due.signals) {
            self.signals
                .drain(&mut self.held)
                .map_err(|error| Fatal::new(70, format!("the signals' socket: {error}")))?;
        }
        Ok(())
    }

    fn drain_signals(&mut self, inputs: &mut Vec<Input>) -> Result<(), Fatal> {
        self.hold_signals()?;
        for signal in std::mem::take(&mut self.held) {
            match signal {
                Signal::Hup => {
                    if let Ok(plan) = self.reload() {
                        inputs.push(Input::Command(Command::Reload(Box::new(plan))));
                    }
                }
                Signal::Usr1 => {
                    self.say_memory();
                    inputs.push(Input::Command(Command::LogState));
                }
                Signal::Usr2 => inputs.push(Input::Command(Command::Rescan)),
                Signal::Term | Signal::Int => {
                    self.stops += 1;
                    if self.stops == 1 {
                        // Nobody waits for a mount that hangs to find out that it does.
                        self.scouts.set_slow_after(STOP_PATIENCE);
                        self.tell(|manager| manager.stopping());
                        // A `drain` that is longer than the unit's own patience is asked for; a unit that has
                        // more patience keeps it.
                        let takes = self.core.stop_takes() + STOP_MARGIN;
                        self.tell(|manager| manager.extend_timeout(takes));
                        inputs.push(Input::Command(Command::Drain));
                    } else {
                        inputs.push(Input::Command(Command::StopNow));
                    }
                }
            }
        }
        Ok(())
    }

    fn drain_children(&mut self) {
        let (log, scouts, late) = (&mut self.log, &mut self.scouts, &mut self.late);
        let now = self.now.mono;
        let textfile = &mut self.textfile;
        self.children.turn(&mut |happening| match happening {
            // Said when it ends.
            Happening::Line(line) if Textfile::owns(line.run) => {}
            Happening::Ended(Input::Ended { run, end, output }) if Textfile::owns(run) => {
                if let Some((level, text)) = textfile.ended(end, &output) {
                    log.line(
                        level,
                        &LogLine {
                            text,
                            ..LogLine::default()
                        },
                    );
                }
            }
            Happening::Line(line) if log.enabled(Level::Info) => log.line(
                Level::Info,
                &LogLine {
                    text: match String::from_utf8_lossy(line.text) {
                        // A worker's, which may be about any of its jobs.
                        text if line.job_name.is_empty() => text.into_owned(),
                        text => format!("attempt {}: {text}", line.attempt),
                    },
                    watch: line.watch.to_owned(),
                    path: Vec::new(),
                    job: line.job_name.to_owned(),
                },
            ),
            Happening::Line(_) => {}
            Happening::Worker(input) | Happening::Ended(input) => late.push(input),
            Happening::Scout(made) => scouts.started(now, made.number, made.pid, late),
            Happening::Trouble(text) => log.line(
                Level::Warning,
                &LogLine {
                    text,
                    ..LogLine::default()
                },
            ),
        });
    }

    // ---- 4 ----

    fn remember(&mut self, effects: &[Effect]) -> Result<(), Fatal> {
        let mut any = false;
        for effect in effects {
            if let Effect::Append(record) = effect {
                any = true;
                self.append(record)?;
            }
        }
        if any {
            let began = clock::boottime();
            let flushed = self
                .journal
                .flush()
                .map_err(|error| Fatal::new(74, format!("{error}")))?;
            let took = clock::boottime().since(began);
            self.meter.counts.flushed(took, &flushed);
            if took >= SLOW_FLUSH {
                self.late.push(Input::SlowFlush(took));
            }
            if let Some(fault) = flushed.trouble
                && let Some(text) = self.room.trouble(fault)
            {
                self.say(Level::Warning, text);
            }
            self.room
                .look(&self.journal, self.now.mono)
                .map_err(|error| {
                    let text = format!("{error}: the state was taken away from the running daemon");
                    Fatal::new(74, text)
                })?;
        }
        Ok(())
    }

    // ---- 5 ----

    fn perform(&mut self, effect: Effect) -> Result<(), Fatal> {
        match effect {
            Effect::Append(_) => {}
            Effect::Ask(ask, scout, question) => {
                self.scouts.ask(self.now.mono, ask, scout, &question);
            }
            Effect::Unwatch(wd) => {
                if let Err(error) = self.watcher.remove(wd) {
                    self.say(Level::Warning, format!("inotify_rm_watch: {error}"));
                }
            }
            Effect::Spawn(order) => self
                .children
                .spawn(*order)
                .map_err(|error| Fatal::new(70, format!("the spawner: {error}")))?,
            Effect::Kill(run, signal) => self.children.kill(run, signal),
            Effect::Feed(run, lines) => self.children.feed(run, &lines),
            Effect::FeedFirst(run, lines) => {
                self.children.feed(run, &lines);
                self.flush_feeds()?;
            }
            Effect::CloseInput(run) => self.children.close_input(run),
            Effect::AskSlot(slot, signal) => self.children.ask_slot(slot, signal),
            Effect::Answer(client, answer) => self.answer_order(client, answer),
            Effect::Log(level, line) => self.log.line(level, &line),
            Effect::Ready => {
                self.tell(|manager| manager.status("running"));
                self.tell(|manager| manager.ready());
                self.watchdog = self.manager.watchdog_interval().map(|_| self.now.mono);
            }
            Effect::Stop(status) => self.stop = Some(status),
        }
        Ok(())
    }

    fn flush_feeds(&mut self) -> Result<(), Fatal> {
        self.children
            .flush()
            .map_err(|error| Fatal::new(70, format!("a worker's pipe: {error}")))
    }

    /// What the rooms have gathered goes out in as few calls as possible.
    fn flush_rooms(&mut self) {
        self.scouts
            .flush(self.now.mono, &mut self.children, &mut self.late);
        self.log.flush(self.now.mono);
        self.feed_watchdog();
        if self.manager.wants_retry() {
            self.tell(|manager| manager.retry());
        }
    }

    fn feed_watchdog(&mut self) {
        if self.watchdog.is_some_and(|at| at <= self.now.mono) {
            self.tell(|manager| manager.watchdog());
            self.watchdog = self
                .manager
                .watchdog_interval()
                .map(|every| self.now.mono.after(every));
        }
    }

    /// Keeps what the next start has to read in bounds.
    fn compact(&mut self) -> Result<(), Fatal> {
        if self.due.compaction {
            return self.compaction_ended();
        }
        let trouble = self.compaction.begin_if_due(
            &mut self.journal,
            &self.core,
            self.now,
            self.poll.registry(),
        );
        if let Some(text) = trouble {
            self.say(Level::Warning, text);
        }
        Ok(())
    }

    fn compaction_ended(&mut self) -> Result<(), Fatal> {
        if std::mem::take(&mut self.due.compaction)
            && let Some(text) = self
                .compaction
                .ended(&mut self.journal, self.now.mono)
                .map_err(|error| Fatal::new(74, error.to_string()))?
        {
            self.say(Level::Warning, text);
        }
        Ok(())
    }

    /// Speaks to the service manager; that it does not listen is no reason to stop.
    fn tell(&mut self, speak: impl FnOnce(&mut Manager) -> io::Result<()>) {
        if let Err(error) = speak(&mut self.manager) {
            self.say(
                Level::Warning,
                format!("the service manager cannot be told: {error}"),
            );
        }
    }

    /// What a burst costs is seen here: every job that is owed takes some hundred bytes.
    fn say_memory(&mut self) {
        let text = match crate::memory::resident_kib() {
            Ok(kib) => format!("state: {:.1} MiB of memory", kib as f64 / 1024.0),
            Err(error) => format!("/proc/self/status: {error}"),
        };
        self.say(Level::Info, text);
        self.say(Level::Info, self.meter.words());
    }

    fn say(&mut self, level: Level, text: String) {
        self.log.line(
            level,
            &LogLine {
                text,
                ..LogLine::default()
            },
        );
    }

    /// The mount table; `None`, and said, if it cannot be read: what was known last holds.
    fn read_mounts(&mut self) -> Option<Vec<crate::core::Mount>> {
        match self.mounts.read() {
            Ok(table) => Some(table.mounts),
            Err(error) => {
                self.say(Level::Error, format!("/proc/self/mountinfo: {error}"));
                None
            }
        }
    }

    /// Reads the configuration again. A bad one changes nothing: the sentences that say why are logged and given.
    fn reload(&mut self) -> Result<crate::plan::Plan, String> {
        let Source::File(path) = &self.source else {
            let text = "reload: there is no configuration file to read again; nothing changes";
            self.say(Level::Warning, text.into());
            return Err(text.into());
        };
        let loaded = crate::config::load(path).map_err(|errors| errors.to_string());
        self.tell(|manager| manager.reloading());
        // First what can fail.
        let taken = loaded.and_then(|plan| {
            let log = self.log.elsewhere(plan.daemon.log);
            let log = log.map_err(|error| error.to_string())?;
            self.listen(&plan.daemon.socket, plan.daemon.socket_group)?;
            Ok((plan, log))
        });
        let plan = match taken {
            Ok((plan, log)) => {
                if let Some(log) = log {
                    let text = format!("reload: the log goes on in {}", plan.daemon.log);
                    self.say(Level::Info, text);
                    self.log.moves_to(log);
                }
                self.log.set_level(plan.daemon.log_level);
                self.scouts.set_silent_after(plan.daemon.mount_silent);
                self.textfile.replan(&plan.daemon, self.now.mono);
                self.children.reopen_outputs();
                self.meter.loaded(self.now);
                Ok(plan)
            }
            Err(errors) => {
                for line in errors.lines() {
                    self.say(Level::Error, line.to_owned());
                }
                self.say(Level::Error, "reload: nothing changes".into());
                Err(errors)
            }
        };
        self.tell(|manager| manager.ready());
        plan
    }
}

/// A list that was used up, for its room: unless that is more than it usually takes.
fn kept<T>(list: Vec<T>) -> Vec<T> {
    match list.capacity() > KEPT {
        true => Vec::new(),
        false => list,
    }
}

/// epoll_wait(2) counts in milliseconds: one nanosecond early would mean a turn for nothing.
fn round_up(wait: Duration) -> Duration {
    let millis = wait.as_nanos().div_ceil(1_000_000);
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}
