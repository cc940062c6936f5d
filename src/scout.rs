//! A process for each mount that does the path work there: `process` is its life, `listings` the directories it lists,
//! `wire` the frames between it and the daemon, `lane` what the daemon knows about one; here is the daemon's side of them
//! all.
//!
//! Invariants:
//! * Every question is answered once, whatever happens to the process it went to: one that died is replaced and its
//!   questions are asked again; one that is silent for long is killed and replaced, with growing waits; a
//!   question that its scout died of three times is answered with EIO.
//! * Nothing here waits. What has to be done later is in [`Scouts::next_deadline`], and with nothing unanswered there is
//!   no deadline.
//!
//! A scout is started with the first question for its mount. A resolver ends with its answer.

mod lane;
mod listings;
mod process;
mod wire;

pub use process::run;

use crate::core::ask::{Fault, Question};
use crate::core::ids::{AskId, MountId};
use crate::core::time::Mono;
use crate::core::{Input, ScoutId};
use lane::{Lane, Life, Limits};
use mio::{Registry, Token};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Who can start a process that calls [`run`]: the spawner's room.
pub trait Launcher {
    /// Asks for one, without waiting. What came of it is told to [`Scouts::started`] with the same number.
    ///
    /// # Errors
    /// It could not even be asked; it is asked again a little later.
    fn launch(&mut self, number: u64, socket: OwnedFd) -> io::Result<()>;
}

/// How often ended processes are looked for at first; the wait doubles up to [`REAP_MAX`], for one that waits in the
/// kernel may stay.
const REAP_FIRST: Duration = Duration::from_millis(20);
const REAP_MAX: Duration = Duration::from_secs(60);

/// What owes an answer for this long and says nothing is slow: long before it is silent.
const SLOW_AFTER: Duration = Duration::from_secs(2);

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 * 1024;

/// All scouts, as the daemon sees them.
#[derive(Debug)]
pub struct Scouts {
    registry: Registry,
    limits: Limits,
    lanes: BTreeMap<ScoutId, Lane>,
    /// Whose socket a token is about.
    numbers: BTreeMap<u64, ScoutId>,
    last_number: u64,
    /// Those that have something to be written, or to be started.
    dirty: BTreeSet<ScoutId>,
    /// Processes that have ended or will, to be reaped.
    departed: BTreeSet<i32>,
    /// Asked for, but given up before their pid was known; and what they may have died of.
    unborn: BTreeMap<u64, Option<(ScoutId, AskId)>>,
    reap_at: Mono,
    reap_wait: Duration,
    scratch: Vec<u8>,
}

impl Scouts {
    /// No scouts yet. One that owes an answer and says nothing for `silent_after` is said to be silent.
    ///
    /// # Errors
    /// What dup(2) of the poll's descriptor gives.
    pub fn new(registry: &Registry, silent_after: Duration) -> io::Result<Scouts> {
        Ok(Scouts {
            registry: registry.try_clone()?,
            limits: Limits {
                slow: SLOW_AFTER,
                silent: silent_after,
            },
            lanes: BTreeMap::new(),
            numbers: BTreeMap::new(),
            last_number: 0,
            dirty: BTreeSet::new(),
            departed: BTreeSet::new(),
            unborn: BTreeMap::new(),
            reap_at: Mono(0),
            reap_wait: REAP_FIRST,
            scratch: Vec::new(),
        })
    }

    /// The token of the socket of scout `number`.
    fn token(number: u64) -> Token {
        Token(1 << 32 | number as usize)
    }

    /// Whether a token is one of ours.
    pub fn owns(token: Token) -> bool {
        token.0 >> 32 == 1
    }

    /// Changes how long a scout may be silent, from the next time something is waited for.
    pub fn set_silent_after(&mut self, silent_after: Duration) {
        self.limits.silent = silent_after;
    }

    /// Changes how long a scout may owe an answer before it is said to be slow; 2 seconds at first.
    pub fn set_slow_after(&mut self, slow_after: Duration) {
        self.limits.slow = slow_after;
    }

    /// Takes a question. It is on its way after [`Scouts::flush`].
    pub fn ask(&mut self, now: Mono, id: AskId, to: ScoutId, question: &Question) {
        let lane = self.lanes.entry(to).or_insert_with(|| Lane::new(to));
        lane.ask(now, id, question);
        self.dirty.insert(to);
    }

    /// Starts the scouts that are wanted and sends what was asked. To be called once a turn, after the last
    /// [`Scouts::ask`]; answers that had to be made up are appended to `out`.
    pub fn flush(&mut self, now: Mono, launcher: &mut dyn Launcher, out: &mut Vec<Input>) {
        for id in std::mem::take(&mut self.dirty) {
            self.push(id, now, launcher, out);
        }
    }

    /// Starts or writes, as far as possible now.
    fn push(&mut self, id: ScoutId, now: Mono, launcher: &mut dyn Launcher, out: &mut Vec<Input>) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        if lane.wants_start(now) {
            self.last_number += 1;
            let number = self.last_number;
            match lane.start(number, Scouts::token(number), &self.registry, launcher) {
                Ok(()) => {
                    self.numbers.insert(number, id);
                }
                Err(_) => lane.start_later(now),
            }
        }
        if lane.write(&self.registry).is_err() {
            self.lost(id, now, out);
        }
    }

    /// A scout's socket is ready, and will be read later: it is not the scout that is slow.
    pub fn has_answered(&mut self, now: Mono, token: Token) {
        let number = (token.0 & 0xffff_ffff) as u64;
        let lane = (self.numbers.get(&number)).and_then(|id| self.lanes.get_mut(id));
        if let Some(lane) = lane {
            lane.has_answered(now);
        }
    }

    /// A scout's socket is ready: appends what was answered to `out`, about as much as `budget` probes are, of which a name
    /// in a listing counts as one. True if there is more, and this is to be called again with the same token without waiting for the poll.
    pub fn ready(&mut self, now: Mono, token: Token, budget: usize, out: &mut Vec<Input>) -> bool {
        let number = (token.0 & 0xffff_ffff) as u64;
        let Some(&id) = self.numbers.get(&number) else {
            return false;
        };
        let Some(lane) = self.lanes.get_mut(&id) else {
            return false;
        };
        self.scratch.resize(READ_BYTES, 0);
        let written = lane.write(&self.registry);
        let read = written.and_then(|()| lane.read(now, budget, &mut self.scratch, out));
        match read {
            Ok(more) => {
                if lane.is_served() {
                    // It has answered, and belongs to no mount: it ends when its socket does.
                    self.close(id);
                } else if lane.has_output() {
                    self.dirty.insert(id);
                }
                more
            }
            Err(_) => {
                self.lost(id, now, out);
                false
            }
        }
    }

    /// The scout's process has ended, or is not worth waiting for.
    fn lost(&mut self, id: ScoutId, now: Mono, out: &mut Vec<Input>) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return;
        };
        let life = lane.lost(now, out);
        let wanted = lane.waits();
        self.bury(id, life, now);
        if wanted {
            self.dirty.insert(id);
        } else if !matches!(id, ScoutId::Mount(_)) {
            self.lanes.remove(&id);
        }
    }

    /// Forgets a scout that has nothing left to answer.
    fn close(&mut self, id: ScoutId) {
        if let Some(mut lane) = self.lanes.remove(&id) {
            let life = lane.end();
            self.bury(id, life, Mono(0));
        }
    }

    /// Kills and later reaps what is left of a process.
    fn bury(&mut self, id: ScoutId, life: Option<Life>, now: Mono) {
        let Some(life) = life else { return };
        self.numbers.remove(&life.number);
        match life.pid {
            Some(pid) => self.kill(pid, now),
            None => {
                let suspect = life.suspect.map(|ask| (id, ask));
                self.unborn.insert(life.number, suspect);
            }
        }
    }

    fn kill(&mut self, pid: i32, now: Mono) {
        // Not reaped yet, so the number is still this process's. It may have ended: there is nothing to be done then.
        let _ended = kill(Pid::from_raw(pid), Signal::SIGKILL);
        self.departed.insert(pid);
        self.reap_wait = REAP_FIRST;
        self.reap_at = now.after(self.reap_wait);
    }

    /// What came of a [`Launcher::launch`]: the pid, or an errno.
    pub fn started(
        &mut self,
        now: Mono,
        number: u64,
        made: Result<i32, i32>,
        out: &mut Vec<Input>,
    ) {
        let unborn = self.unborn.remove(&number);
        match (made, self.numbers.get(&number)) {
            (Ok(pid), Some(id)) => {
                if let Some(lane) = self.lanes.get_mut(id) {
                    lane.born(pid);
                }
            }
            (Ok(pid), None) => {
                self.kill(pid, now);
                if let Some((id, ask)) = unborn.flatten()
                    && let Some(lane) = self.lanes.get_mut(&id)
                {
                    lane.blame_late(ask, out);
                }
            }
            (Err(_), Some(&id)) => {
                if let Some(lane) = self.lanes.get_mut(&id) {
                    lane.stillborn();
                }
                self.lost(id, now, out);
                self.unborn.remove(&number);
            }
            // Its socket has told already.
            (Err(_), None) => {}
        }
    }

    /// Does what is due: starts, gives up, says who is silent, reaps. To be called every turn.
    pub fn tick(&mut self, now: Mono, launcher: &mut dyn Launcher, out: &mut Vec<Input>) {
        self.reap(now);
        let due: Vec<ScoutId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.deadline(self.limits).is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(lane) = self.lanes.get_mut(&id) else {
                continue;
            };
            if lane.overdue(now, self.limits, out) {
                let life = lane.give_up(now, self.limits.silent, out);
                self.bury(id, life, now);
            }
            self.dirty.insert(id);
        }
        self.flush(now, launcher, out);
    }

    /// When [`Scouts::tick`] has to be called at the latest; `None` while nothing is waited for.
    pub fn next_deadline(&self) -> Option<Mono> {
        let lanes = self.lanes.values();
        let reap = (!self.departed.is_empty()).then_some(self.reap_at);
        lanes
            .filter_map(|lane| lane.deadline(self.limits))
            .chain(reap)
            .min()
    }

    /// How long the scout has owed an answer without saying anything; `None` if it owes none.
    pub fn oldest_unanswered(&self, scout: ScoutId, now: Mono) -> Option<Duration> {
        self.lanes.get(&scout)?.silence(now)
    }

    /// The mount is gone: its scout is killed and what it owed is answered with [`Fault::Base`] (ENODEV).
    pub fn forget_mount(&mut self, mount: MountId, now: Mono, out: &mut Vec<Input>) {
        let Some(mut lane) = self.lanes.remove(&ScoutId::Mount(mount)) else {
            return;
        };
        lane.answer_all(Fault::Base(libc::ENODEV), out);
        let life = lane.end();
        self.bury(ScoutId::Mount(mount), life, now);
    }

    /// Forgets the mounts that are not among these.
    pub fn keep_mounts(&mut self, mounts: &BTreeSet<MountId>, now: Mono, out: &mut Vec<Input>) {
        let gone: Vec<MountId> = self
            .lanes
            .keys()
            .filter_map(|id| match id {
                ScoutId::Mount(mount) if !mounts.contains(mount) => Some(*mount),
                _ => None,
            })
            .collect();
        for mount in gone {
            self.forget_mount(mount, now, out);
        }
    }

    /// Ends all scouts: their sockets close.
    pub fn stop(&mut self) {
        let ids: Vec<ScoutId> = self.lanes.keys().copied().collect();
        for id in ids {
            self.close(id);
        }
    }

    /// Reaps processes that were given up or ended by themselves. [`Scouts::tick`] does that too; earlier after
    /// SIGCHLD it is more prompt.
    pub fn reap(&mut self, now: Mono) {
        if self.departed.is_empty() {
            return;
        }
        self.departed.retain(|&pid| {
            let state = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            matches!(state, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
        });
        for lane in self.lanes.values_mut() {
            lane.abandoned.retain(|pid| self.departed.contains(pid));
        }
        if self.reap_at <= now {
            self.reap_wait = (self.reap_wait * 2).min(REAP_MAX);
            self.reap_at = now.after(self.reap_wait);
        }
    }

    /// Somebody else reaped this pid; true if it was one of ours.
    pub fn exited(&mut self, pid: i32) -> bool {
        let was_departed = self.departed.remove(&pid);
        let mut was_alive = false;
        for lane in self.lanes.values_mut() {
            lane.abandoned.retain(|known| *known != pid);
            was_alive |= lane.reaped(pid);
        }
        was_departed || was_alive
    }

    /// The processes that are alive, as far as is known.
    pub fn pids(&self) -> impl Iterator<Item = i32> + '_ {
        self.lanes.values().filter_map(Lane::pid)
    }
}
