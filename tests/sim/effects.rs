//! What a turn of the loop has decided is done: the records, then the rest; and now and then everything of the daemon is
//! gone in the midst of it.

use crate::children::{Fate, Phase};
use crate::oracle::Rule;
use crate::roots::Roots;
use crate::scouts::Scouts;
use crate::story;
use crate::story::{question_words, show};
use crate::world::{SECOND, Tick, World};
use settled::core::time::Wall;
use settled::core::{ChildEnd, Effect};
use settled::journal::JournalError;

impl World {
    /// One flush, then the other effects; a crash at any point of it.
    pub(super) fn perform(&mut self, fed: &[()]) {
        let Some(core) = self.core.as_mut() else {
            return;
        };
        let effects = core.effects();
        let crash = !self.calm && self.rng.chance(self.setup.faults.crash, 10_000);
        // Each name that ever was may be remembered still.
        let known = self.setup.disk.names.len();
        if effects.len() > 60 + 10 * fed.len() + 4 * known {
            self.oracle.broken(
                Rule::Bounded,
                format!(
                    "{} effects in one turn of {} inputs",
                    effects.len(),
                    fed.len()
                ),
            );
        }
        for effect in &effects {
            match effect {
                Effect::Append(record) => story!(self.now, "  record {record:?}"),
                Effect::Log(level, line) => {
                    story!(
                        self.now,
                        "  log {level:?}: {} {} {}",
                        show(&line.path),
                        line.job,
                        line.text
                    );
                }
                Effect::Ask(ask, scout, question) => {
                    story!(
                        self.now,
                        "  ask {} {scout:?} {}",
                        ask.0,
                        question_words(question)
                    );
                }
                Effect::Spawn(order) => {
                    let key = order.env.iter().find(|(name, _)| name == b"SETTLED_KEY");
                    let key = key.map_or(String::new(), |(_, key)| show(key));
                    story!(
                        self.now,
                        "  spawn run {} of {:?}, key {key:?}",
                        order.run.0,
                        order.jobs
                    );
                }
                other => story!(self.now, "  {other:?}"),
            }
        }
        if crash && self.rng.chance(1, 2) {
            self.store.soon_off(&mut self.rng, 4);
        }
        if !self.calm && self.setup.faults.fails > 0 {
            if self.more.chance(self.setup.faults.fails, 10_000) {
                self.store.soon_fails(&mut self.more, 4);
            } else if !crash {
                self.store.stays_on();
            }
        }
        let wall = Wall(self.setup.disk.wall);
        let mut records = Vec::new();
        let mut others = Vec::new();
        for effect in effects {
            match effect {
                Effect::Append(record) => records.push((wall, record)),
                // How much is said must not move the point of a crash: a story is told with more.
                Effect::Log(..) => {}
                other => others.push(other),
            }
        }
        let durable = records.clone();
        if let Err(error) = self.store.write(records) {
            story!(self.now, "!!!! crash while the journal is written: {error}");
            if matches!(error, JournalError::NoRoom(_)) && self.room {
                self.oracle
                    .broken(Rule::Pause, "a record has no room, and nobody was told");
            }
            self.crash();
            return;
        }
        for (_, record) in &durable {
            self.active = self.now;
            self.oracle.record(record, wall.0, &self.setup.disk);
            self.tally.records += 1;
        }
        let performed = if crash {
            self.rng.below(others.len() as u64 + 1) as usize
        } else {
            others.len()
        };
        let mut stop = false;
        for effect in others.into_iter().take(performed) {
            match effect {
                Effect::Ask(ask, scout, question) => self.ask(ask, scout, question),
                Effect::Unwatch(wd) => {
                    self.roots.unwatched(wd);
                    self.setup.disk.rm_watch(wd);
                }
                Effect::Spawn(order) => self.spawn(*order),
                Effect::Kill(run, signal) => self.kill(run, signal),
                Effect::Stop(_) => stop = true,
                Effect::Append(_) | Effect::Log(..) | Effect::Answer(..) | Effect::Ready => {}
                Effect::AskSlot(slot, signal) => self.ask_slot(slot, signal),
                Effect::Feed(run, lines) | Effect::FeedFirst(run, lines) => self.feed(run, &lines),
                Effect::CloseInput(run) => self.close_input(run),
            }
        }
        if stop || crash {
            story!(self.now, "!!!! {}", if crash { "crash" } else { "stopped" });
            self.crash();
            return;
        }
        self.roots_are_looked_for();
        if self.rng.chance(1, 50) {
            self.compare();
        } else if self.rng.chance(1, 40) {
            self.compact();
        }
    }

    /// The state as records takes the journal's place: all of it is taken in one turn, and counts some turns
    /// later.
    pub fn compact(&mut self) {
        let Some(core) = self.core.as_ref() else {
            return;
        };
        if !self.calm && self.setup.faults.crash > 0 && self.rng.chance(1, 6) {
            self.store.soon_off(&mut self.rng, 12);
        } else if !self.calm && self.setup.faults.fails > 0 && self.more.chance(1, 4) {
            self.store.soon_fails(&mut self.more, 8);
        }
        let result = if self.store.compacting() {
            story!(self.now, "the compacted journal counts");
            self.store.switch()
        } else {
            story!(self.now, "the journal is compacted");
            let wall = Wall(self.setup.disk.wall);
            let state = core.snapshot_with_times().collect();
            let remember = self.setup.plan.daemon.remember;
            let written = self
                .store
                .compact(wall, state, remember, |summary| core.carries(summary));
            written.map(|untold| {
                if let Some(text) = untold {
                    self.oracle.broken(Rule::Explained, text);
                }
            })
        };
        if let Err(error) = result {
            if self.store.abort(&error) {
                story!(self.now, "it could not be compacted: {error}");
            } else {
                story!(self.now, "!!!! crash while it is compacted: {error}");
                self.crash();
            }
        }
        self.store.stays_on();
    }

    pub fn crash(&mut self) {
        self.core = None;
        self.store.crash(&mut self.rng);
        self.tally.crashes += 1;
        self.inbox.clear();
        self.inbox_ask.clear();
        self.bound.clear();
        self.roots = Roots::default();
        self.looks.clear();
        self.notify_since = None;
        self.room_again = None;
        self.setup.disk.close_notify();
        // A scout may end what it is at, or not; nobody hears of it.
        for scout in self.scouts.values_mut() {
            if self.rng.chance(1, 2) {
                scout.tasks.clear();
            } else {
                scout.tasks.truncate(1);
            }
        }
        let old: Scouts = std::mem::take(&mut self.scouts);
        for (id, mut scout) in old {
            if let Some(task) = scout.tasks.front_mut() {
                loop {
                    let step = self.one_step(task);
                    if step.done || self.rng.chance(1, 3) {
                        break;
                    }
                }
                story!(self.now, "the old scout {id:?} went on for a while");
            }
        }
        self.setup.disk.close_notify();
        // Children are ended, or end by themselves before the next life.
        let last = self.rng.below(3 * SECOND);
        self.orphan_workers();
        for id in 0..self.children.len() {
            if self.children[id].worker.is_some() {
                continue;
            }
            let kills = self.oracle.watches[self.children[id].watch].plan.orphans
                == settled::plan::Orphans::Kill;
            match self.children[id].phase {
                Phase::Starting | Phase::Running => {
                    let hangs = matches!(self.children[id].fate, Fate::Hang { .. });
                    if self.rng.chance(1, 2) {
                        story!(self.now, "child {id} dies with the daemon");
                        self.children[id].phase = Phase::Ended(ChildEnd::Signal(9));
                    } else if hangs && !kills {
                        // Somebody ends it in the end.
                        let wait = self.more.below(40 * SECOND);
                        self.at(wait, Tick::ChildEnds(id, ChildEnd::Signal(9)));
                    }
                }
                Phase::Ended(_) | Phase::Reaped => {}
            }
        }
        self.at(last, Tick::Restart);
    }
}
