//! What the loop does for those who ask: the socket, what only the edge knows, and how long its own turns take.

use super::{Daemon, Source};
use crate::child::Children;
use crate::control::Refusal;
use crate::control::server::{Knows, Ordered, Server};
use crate::core::counts::Census;
use crate::core::ids::RunId;
use crate::core::orders::{Answered, Order};
use crate::core::time::{Mono, Now, Wall};
use crate::core::view::DaemonRow;
use crate::core::{Command, Core, Input};
use crate::journal::Journal;
use crate::journal::segment::Disk;
use crate::metrics::{Dialect, EdgeCounts, Page, Reader, Readings};
use crate::plan::Level;
use std::path::Path;
use std::time::Duration;

/// The longest turn and the longest flush since the start.
#[derive(Debug)]
pub(super) struct Meter {
    started: Wall,
    loaded: Wall,
    /// Without its flush, and when.
    turn: (Duration, Wall),
    flush: Duration,
    /// That of the turn under way.
    flushing: Duration,
    /// The same in numbers.
    pub(super) counts: EdgeCounts,
}

impl Meter {
    pub(super) fn new(now: Now) -> Meter {
        Meter {
            started: now.wall,
            loaded: now.wall,
            turn: (Duration::ZERO, now.wall),
            flush: Duration::ZERO,
            flushing: Duration::ZERO,
            counts: EdgeCounts::new(now.wall),
        }
    }

    /// What a turn decided is durable.
    pub(super) fn flushed(&mut self, from: Mono, to: Mono) {
        self.flushing = to.since(from);
        self.flush = self.flush.max(self.flushing);
    }

    /// A turn that began at `from` is over.
    pub(super) fn turned(&mut self, from: Now, to: Mono) {
        let took = to.since(from.mono).saturating_sub(self.flushing);
        self.counts.turned(took);
        if took > self.turn.0 {
            self.turn = (took, from.wall);
        }
    }

    /// A configuration was read and taken.
    pub(super) fn loaded(&mut self, now: Now) {
        self.loaded = now.wall;
    }

    pub(super) fn words(&self) -> String {
        format!(
            "state: the longest turn of the loop took {:.1} ms, the longest flush of the journal {:.1} ms",
            self.turn.0.as_secs_f64() * 1e3,
            self.flush.as_secs_f64() * 1e3
        )
    }
}

/// What only the edge knows.
struct Edge<'a> {
    children: &'a Children,
    meter: &'a Meter,
    source: &'a Source,
    journal: &'a Journal<Disk>,
    dropped: u64,
}

impl Knows for Edge<'_> {
    fn complete(&self, row: &mut DaemonRow) {
        let us = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        row.version = env!("CARGO_PKG_VERSION").into();
        row.pid = std::process::id();
        row.config = match self.source {
            Source::File(path) => path.display().to_string(),
            Source::Arguments => String::new(),
        };
        row.started_ns = self.meter.started.0;
        row.loaded_ns = self.meter.loaded.0;
        // Where it cannot be read, which the state in the log says, there is none to tell.
        row.memory_kib = crate::memory::resident_kib().unwrap_or(0);
        row.longest_turn_us = us(self.meter.turn.0);
        row.longest_turn_ns = self.meter.turn.1.0;
        row.longest_flush_us = us(self.meter.flush);
        row.dropped_log_lines = self.dropped;
    }

    fn pid(&self, run: RunId) -> Option<i32> {
        self.children.pid(run)
    }

    fn page(&self, census: Census) -> Page {
        let readings = Readings::take(self.journal, self.dropped);
        Page::new(census, readings, Dialect::OpenMetrics, Reader::Socket)
    }

    fn metrics(&self, core: &Core, page: &mut Page, most: usize) -> String {
        page.go_on(core, &self.meter.counts, most)
    }
}

impl Daemon {
    /// Listens at `path`, if it does not. Where it does not listen at all afterwards, that is no reason to leave files
    /// lying: it is said. Where it listens elsewhere it goes on with that.
    ///
    /// # Errors
    /// Why it stays where it is: a sentence.
    pub(super) fn listen(&mut self, path: &Path, group: Option<u32>) -> Result<(), String> {
        if let Some(control) = &mut self.control
            && control.path() == path
        {
            control.set_group(group);
            return Ok(());
        }
        let opened = match self.poll.registry().try_clone() {
            Ok(registry) => Server::open(path, group, registry),
            Err(error) => Err(error.to_string()),
        };
        match (opened, self.control.take()) {
            (Ok(mut control), old) => {
                if let Err(text) = control.link_from(self.core.state()) {
                    self.say(Level::Warning, text);
                }
                if let Some(old) = old {
                    control.adopt(old, self.now.mono);
                }
                self.control = Some(control);
            }
            (Err(error), Some(old)) => {
                let stays = old.path().display().to_string();
                self.control = Some(old);
                return Err(format!(
                    "[daemon] socket: {error}; the daemon listens at {stays} as before"
                ));
            }
            (Err(error), None) => {
                let text = format!(
                    "the control socket cannot be had: {error}; nothing can be asked of this daemon until a reload"
                );
                self.say(Level::Warning, text);
            }
        }
        Ok(())
    }

    /// Takes up what clients want to be done.
    pub(super) fn take_orders(&mut self, inputs: &mut Vec<Input>) {
        let orders = self.control.as_mut().map(Server::orders);
        for (client, order) in orders.into_iter().flatten() {
            let order = match order {
                Ordered::Core(order) => order,
                Ordered::Reload => match self.reload() {
                    Ok(plan) => Order::Reload(Box::new(plan)),
                    Err(why) => {
                        let refusal = Refusal::new("configuration", why, "nothing has changed");
                        if let Some(control) = &mut self.control {
                            control.answer(client, Err(refusal));
                        }
                        continue;
                    }
                },
            };
            inputs.push(Input::Command(Command::Asked(client, order)));
        }
    }

    /// Tells a client what came of its order: after that is durable.
    pub(super) fn answer_order(&mut self, client: u64, answer: Answered) {
        let answer = answer.map_err(|why| Refusal::new(why.code, why.message, why.remedy));
        if let Some(control) = &mut self.control {
            control.answer(client, answer);
        }
    }

    /// Reads what clients ask and answers some of it.
    pub(super) fn answer_clients(&mut self) {
        let Some(control) = &mut self.control else {
            return;
        };
        let edge = Edge {
            children: &self.children,
            meter: &self.meter,
            source: &self.source,
            journal: &self.journal,
            dropped: self.log.dropped(),
        };
        control.turn(self.now.mono, &self.core, &edge);
    }
}
