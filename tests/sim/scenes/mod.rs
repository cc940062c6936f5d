//! Scenes: situations that users meet and that chance alone brings about too seldom. Each is a short choreography of
//! writers and of what befalls the daemon, with times of its own in every world, and is played in a share of the dense
//! worlds beside all that happens there anyway.

mod acting;
mod observing;

use crate::rng::Rng;
use crate::setup::Setup;
use crate::story;
use crate::world::{Tick, World};
use crate::writers::{Doing, Op, Stage, Writer};
use settled::core::ChildEnd;
use settled::plan::WatchPlan;

/// What befalls the daemon at a set time, as far as it has not calmed down by then.
#[derive(Clone, Copy, Debug)]
pub enum Cue {
    /// It is killed.
    Crash,
    /// Its workers are.
    KillWorkers,
    /// Its machine's clock is set.
    Clock(i64),
    /// Its journal is compacted; or what was compacted takes its place.
    Compact,
    /// It is compacted, on a disk that is bad where that is written.
    CompactOnBadDisk,
    /// What was compacted takes the journal's place, and the machine goes off within so many calls.
    CompactAndOff(u64),
}

/// What befalls the daemon waits so long for its start.
const LATER: u64 = 100_000_000;

/// Adds its scenes to a dense world.
pub fn play(seed: u64, stage: &Stage, setup: &mut Setup) {
    acting::play(seed, stage, setup);
    observing::play(seed, stage, setup);
}

impl Setup {
    /// Another writer on this machine.
    fn enters(&mut self, ops: Vec<Op>) {
        self.writers.push(Writer::new(ops, false));
    }

    /// The plan of a watch is another one.
    fn replan(&mut self, watch: usize, change: impl FnOnce(&mut WatchPlan)) {
        let plan = &mut self.plan.watches[watch];
        change(plan);
        self.covers[watch].plan = plan.clone();
    }
}

impl World {
    pub fn cue(&mut self, cue: Cue) {
        if self.calm {
            return;
        }
        story!(self.now, "cue: {cue:?}");
        match cue {
            Cue::Clock(by) => self.setup.disk.wall += by,
            // Not while it is down.
            cue if self.core.is_none() => self.at(LATER, Tick::Cue(cue)),
            Cue::Crash => {
                story!(self.now, "!!!! killed");
                self.crash();
            }
            Cue::KillWorkers => {
                for id in 0..self.workers.len() {
                    if self.workers[id].life == self.life {
                        self.worker_ends(id, ChildEnd::Signal(9));
                    }
                }
            }
            Cue::Compact => self.compact(),
            Cue::CompactOnBadDisk => {
                if self.store.compacting() {
                    self.compact();
                }
                if self.core.is_some() {
                    self.store.is_bad();
                    self.compact();
                }
            }
            Cue::CompactAndOff(calls) => {
                if !self.store.compacting() {
                    self.compact();
                }
                if self.core.is_some() {
                    self.store.soon_off(&mut self.more, calls);
                    self.compact();
                }
            }
        }
    }

    pub fn cues(&mut self) {
        for (at, cue) in std::mem::take(&mut self.setup.cues) {
            self.at(at, Tick::Cue(cue));
        }
    }

    /// The daemon does something that writers may have waited for: they go on.
    pub fn does(&mut self, doing: &Doing) {
        for id in 0..self.setup.writers.len() {
            if self.setup.writers[id].until.as_ref() != Some(doing) {
                continue;
            }
            self.setup.writers[id].until = None;
            self.heap
                .retain(|_, tick| !matches!(tick, Tick::Writer(other) if *other == id));
            self.at(0, Tick::Writer(id));
        }
    }
}

/// A file in `dir`.
fn within(dir: &[u8], name: &str) -> Vec<u8> {
    [dir, b"/", name.as_bytes()].concat()
}

/// A file is written and closed. The oracle counts what was there at each pause.
fn arrives(rng: &mut Rng, ops: &mut Vec<Op>, path: &[u8]) {
    ops.push(Op::Create(path.to_vec()));
    ops.push(Op::Pause(1_000));
    ops.push(Op::Write(rng.range(1, 9)));
    ops.push(Op::Close);
}
