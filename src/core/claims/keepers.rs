//! The processes that keep claims: started, ended, and what is lost with them.

use super::{Claim, Claims, Keeper, at_work};
use crate::core::claim::{self, Ask, KeeperOrder};
use crate::core::ends::describe;
use crate::core::ids::{JobId, RunId};
use crate::core::job::Phase;
use crate::core::operate::Mode;
use crate::core::queue::Queue;
use crate::core::runs::{Kind, Run, attempt_end};
use crate::core::timers::Timer;
use crate::core::{ChildEnd, Core, Effect, Program, SpawnOrder, Stdin};
use crate::plan::Level;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Wait before a keeper that ended is started again; the first is started at once.
const RESTART_FIRST: Duration = Duration::from_millis(500);
const RESTART_LAST: Duration = Duration::from_secs(60);
/// How long a keeper that was told to end may take.
const LEAVE: Duration = Duration::from_secs(30);

impl Core {
    // ---- keepers ----

    /// The keeper of a watch; started if there is none and one may be.
    pub(super) fn keeper_of(&mut self, index: usize) -> Option<RunId> {
        if self.mode >= Mode::Leaving {
            return None;
        }
        let now = self.now.mono;
        let claims = self.watches.get(index)?.claims.as_ref()?;
        if let Some(run) = claims.keeper {
            let runs = self.runs.get(&run).is_some_and(|run| run.sent == 0);
            return runs.then_some(run);
        }
        if claims.not_before > now {
            let at = claims.not_before;
            self.timers.set(Timer::Keeper(index as u32), at);
            return None;
        }
        self.start_keeper(index)
    }

    fn start_keeper(&mut self, index: usize) -> Option<RunId> {
        let plan = &self.watches.get(index)?.plan;
        let claim = plan.claim.clone()?;
        let argv = KeeperOrder {
            watch: plan.name.clone(),
            dir: claim.dir,
            marks: claim.marks,
            root: plan.path.clone(),
            slots: claim.slots,
            identity: plan.process.identity.clone(),
        }
        .argv();
        let watch = plan.name.clone();
        let run = self.add_run_without_slot(Kind::Keeper, index as u32);
        let keeper = Keeper {
            watch: index as u32,
            claims: BTreeMap::new(),
            leaving: false,
            proved: false,
            unanswered: 0,
            silent: false,
        };
        self.keepers.insert(run, keeper);
        if let Some(claims) = self.claims_mut(index as u32) {
            claims.keeper = Some(run);
        }
        self.out.push(Effect::Spawn(Box::new(SpawnOrder {
            run,
            jobs: Vec::new(),
            program: Program::Own,
            argv,
            env: Vec::new(),
            cwd: b"/".to_vec(),
            files: Vec::new(),
            stdin: Stdin::Worker,
            // Not as the watch's user: that one cannot look at slots.
            process: Rc::default(),
            slot: 0,
            output: None,
            watch,
            job_name: String::new(),
            attempt: 0,
        })));
        // What is at work, or concluded, has lost its claim with the one before.
        let ids: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                job.watch == index as u32
                    && job.standings.claim == Claim::None
                    && (at_work(&job.phase)
                        || matches!(job.phase, Phase::Disposing { .. } | Phase::Halted))
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            self.ask_claim(id, run);
        }
        Some(run)
    }

    pub(super) fn tell_keeper(&mut self, run: RunId, what: &Ask) {
        self.out.push(Effect::Feed(run, claim::line(what)));
        let is_question = matches!(what, Ask::Take(_) | Ask::Conclude { .. });
        if let Some(keeper) = self.keepers.get_mut(&run).filter(|_| is_question) {
            keeper.unanswered += 1;
            if keeper.unanswered == 1 {
                self.await_keeper(run);
            }
        }
    }

    fn await_keeper(&mut self, run: RunId) {
        let at = self.now.mono.after(self.daemon.mount_silent);
        self.timers.set(Timer::Unanswered(run), at);
    }

    pub(super) fn keeper_answered(&mut self, run: RunId) {
        let Some(keeper) = self.keepers.get_mut(&run) else {
            return;
        };
        keeper.unanswered = keeper.unanswered.saturating_sub(1);
        let none = keeper.unanswered == 0;
        if std::mem::take(&mut keeper.silent) {
            self.log_worker(Level::Info, run, || {
                "the claim directory answers again".into()
            });
        }
        match none {
            true => self.timers.clear(Timer::Unanswered(run)),
            false => self.await_keeper(run),
        }
    }

    /// Its share hangs, most likely.
    pub(in crate::core) fn keeper_is_silent(&mut self, run: RunId) {
        let Some(keeper) = self.keepers.get_mut(&run) else {
            return;
        };
        keeper.silent = true;
        self.log_worker(Level::Warning, run, || {
            "the claim directory does not answer: nothing of this watch is begun or disposed of until it does".into()
        });
    }

    /// A keeper that ended may be started again, or claims be asked for again: the rest is done by dispatch.
    pub(in crate::core) fn keeper_due(&mut self, watch: u32) {
        let lost = self.jobs.values().any(|job| {
            job.watch == watch
                && job.standings.claim == Claim::None
                && (at_work(&job.phase)
                    || matches!(job.phase, Phase::Disposing { .. } | Phase::Halted))
        });
        if lost && self.claims_of(watch).is_some() {
            self.keeper_of(watch as usize);
        }
    }

    /// A keeper ended, asked to or not.
    pub(in crate::core) fn keeper_ended(
        &mut self,
        id: RunId,
        run: &Run,
        end: ChildEnd,
        output: &[u8],
    ) {
        let Some(keeper) = self.keepers.remove(&id) else {
            return;
        };
        self.timers.clear(Timer::Unanswered(id));
        let mut wait = Duration::ZERO;
        let now = self.now.mono;
        if let Some(claims) = self
            .claims_mut(keeper.watch)
            .filter(|claims| claims.keeper == Some(id))
        {
            claims.keeper = None;
            if keeper.proved {
                claims.failures = 0;
            }
            if claims.failures > 0 {
                wait = RESTART_FIRST
                    .saturating_mul(1 << (claims.failures - 1).min(20))
                    .min(RESTART_LAST);
            }
            claims.failures = claims.failures.saturating_add(1);
            claims.not_before = now.after(wait);
            let at = claims.not_before;
            self.timers.set(Timer::Keeper(keeper.watch), at);
        }
        if !keeper.leaving {
            let (how, _) = attempt_end(run, end);
            let said = String::from_utf8_lossy(output).trim_end().to_owned();
            let name = self.watch_name(run.watch);
            let lost = keeper.claims.len();
            self.log(Level::Error, |line| {
                line.text = format!(
                    "the process that keeps the claims ended ({}){}{said}; {lost} claims are lost, and asked for again in \
                     {:.1} s",
                    describe(how),
                    if said.is_empty() { "" } else { ": " },
                    wait.as_secs_f64()
                );
                line.watch = name;
            });
        }
        for job in keeper.claims.into_values() {
            self.claim_is_lost(job);
        }
    }

    fn claim_is_lost(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.standings.claim = Claim::None;
        job.standings.marking = false;
        let (watch, phase) = (job.watch, job.phase.clone());
        if let Some(claims) = self.claims_mut(watch) {
            claims.asked.remove(&id);
        }
        match phase {
            Phase::Ready => {
                self.dequeue(id);
                self.enqueue(id);
            }
            // Not without a claim.
            Phase::Handing { run } => self.take_back(id, run),
            _ => {}
        }
    }

    /// The watch has another plan: whether claims are made, and where, may be otherwise.
    pub(in crate::core) fn replan_claims(&mut self, watch: u32, same: bool) {
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        let per_key = state.plan.per_key();
        let wanted = state.plan.claim.is_some() && state.active;
        if same && let Some(claims) = &mut state.claims {
            claims.ready = Queue::new(per_key);
            return;
        }
        let old = state.claims.take();
        if wanted {
            state.claims = Some(Claims::new(per_key));
        }
        let Some(run) = old.and_then(|claims| claims.keeper) else {
            return;
        };
        if let Some(keeper) = self.keepers.get_mut(&run) {
            keeper.leaving = true;
        }
        let ids: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| {
                job.watch == watch
                    && matches!(job.phase, Phase::Ready | Phase::Backoff | Phase::Halted)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let left = self.jobs.get(&id).is_some_and(|job| job.cut_short);
            self.release_claim(id, left);
        }
        self.dismiss_if_idle(run);
    }

    pub(super) fn dismiss_if_idle(&mut self, run: RunId) {
        let idle = self
            .keepers
            .get(&run)
            .is_some_and(|keeper| keeper.leaving && keeper.claims.is_empty());
        if idle && self.runs.get(&run).is_some_and(|run| run.sent == 0) {
            self.out.push(Effect::CloseInput(run));
            self.timers
                .set(Timer::Kill(run), self.now.mono.after(LEAVE));
        }
    }
}
