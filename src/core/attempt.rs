//! Attempts: which job starts now, and what its child is told.

use super::ids::{JobId, RunId};
use super::job::{Job, Phase};
use super::operate::Mode;
use super::record::{Outcome, Record};
use super::runs::Kind;
use super::template::{Template, Values};
use super::timers::Timer;
use super::tree::Tree;
use super::watch::Root;
use super::{Core, Effect, Program, SpawnFile, SpawnOrder, Stdin};
use crate::plan::{Action, WatchPlan};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// Most bytes of one batch's arguments: a program's arguments and environment may have 2 MiB with the usual limit on
/// the stack (execve(2)).
const BATCH_BYTES: usize = 256 * 1024;
/// What an argument takes besides its bytes: its end, and the pointer to it.
const ARGUMENT_BYTES: usize = 9;
/// No field but a path or a key is longer.
const FIELD_BYTES: usize = 32;
/// A bound in starts for less than this is made up for: the loop does not wake for each.
const RATE_SLACK: Duration = Duration::from_millis(10);

impl Core {
    // ---- dispatch ----

    /// Starts what may be started: watches in turn, one job or batch each.
    pub(super) fn dispatch(&mut self) {
        self.ask_for_claims();
        self.start_jobs();
        if self.feed_workers() {
            // What one worker did not get another may, and nothing else may happen for long.
            self.start_jobs();
            self.feed_workers();
        }
        self.just_seen.clear();
    }

    fn start_jobs(&mut self) {
        if self.room && self.mode == Mode::Running && !self.watches.is_empty() {
            let mut idle = 0;
            while idle < self.watches.len() {
                let index = self.turn % self.watches.len();
                self.turn = (index + 1) % self.watches.len();
                if self.dispatch_one(index) {
                    idle = 0;
                } else {
                    idle += 1;
                }
            }
        }
    }

    fn dispatch_one(&mut self, index: usize) -> bool {
        if self.watches[index].startable().is_empty() {
            // What was waiting for others is not any more, for whatever reason.
            self.watches[index].batch_since = None;
            return false;
        }
        let watch = &self.watches[index];
        if !watch.active || watch.paused || watch.state != Root::Bound || watch.is_halted() {
            return false;
        }
        let is_worker = matches!(watch.plan.action, Action::Worker(_));
        if !is_worker
            && (watch.running >= watch.plan.concurrency
                || self.children_running() >= self.daemon.concurrency as usize)
        {
            return false;
        }
        let silent = self
            .tree
            .mount(watch.root)
            .is_none_or(|mount| self.does_not_answer(mount));
        if silent || !self.rate_allows(index) || !self.batch_is_due(index) {
            return false;
        }
        if is_worker {
            return self.dispatch_to_worker(index);
        }
        let ids = self.pop_batch(index);
        self.spend_rate(index, ids.len());
        self.begin(index, ids);
        true
    }

    /// Takes the next job, or batch, out of the queue.
    fn pop_batch(&mut self, index: usize) -> Vec<JobId> {
        let batch = self.watches[index].plan.batch;
        let mut ids: Vec<JobId> = self.pop_one(index).into_iter().collect();
        let alone = |core: &Core, id: &JobId| core.jobs.get(id).is_none_or(|job| job.alone);
        if let (Some(batch), Some(first)) = (batch, ids.first())
            && !alone(self, first)
        {
            let mut last = *first;
            // What a file adds to the command line at most: so many fields, and bytes beside them.
            let (fields, fixed) = file_arguments(&self.watches[index].plan);
            let cost = |jobs: &BTreeMap<JobId, Box<Job>>, tree: &Tree, id: JobId| {
                jobs.get(&id).map_or(0, |job| {
                    let path = tree.path(job.dir, &job.name);
                    let path = path.map_or(0, |path| path.len());
                    fixed + fields * path.max(job.key.len()).max(FIELD_BYTES)
                })
            };
            let mut bytes = cost(&self.jobs, &self.tree, last);
            while ids.len() < batch.max as usize {
                let (jobs, tree) = (&self.jobs, &self.tree);
                let mut more = 0;
                let next =
                    self.watches[index]
                        .startable_mut()
                        .pop_after(last, key_of(jobs), |id| {
                            if jobs.get(&id).is_none_or(|job| job.alone) {
                                return false;
                            }
                            more = cost(jobs, tree, id);
                            batch.stdin || bytes + more <= BATCH_BYTES
                        });
                let Some(next) = next else { break };
                bytes += more;
                last = next;
                ids.push(next);
            }
        }
        if self.watches[index].startable().is_empty() {
            self.watches[index].batch_since = None;
        }
        ids
    }

    pub(super) fn pop_one(&mut self, index: usize) -> Option<JobId> {
        let jobs = &self.jobs;
        self.watches[index].startable_mut().pop(key_of(jobs))
    }

    /// Whether the jobs that are ready need not wait for others.
    fn batch_is_due(&mut self, index: usize) -> bool {
        let now = self.now.mono;
        let watch = &mut self.watches[index];
        let Some(batch) = watch.plan.batch else {
            return true;
        };
        let since = *watch.batch_since.get_or_insert(now);
        let due = since.after(batch.wait);
        // One that is to be alone waits for nobody.
        let first = watch.startable().first();
        let alone = first.is_some_and(|id| self.jobs.get(&id).is_some_and(|job| job.alone));
        if alone || watch.startable().len() >= batch.max as usize || due <= now {
            return true;
        }
        self.timers.set(Timer::Dispatch(index as u32), due);
        false
    }

    /// Whether `rate` lets a job start now.
    fn rate_allows(&mut self, index: usize) -> bool {
        let watch = &self.watches[index];
        if watch.plan.rate.is_none() || watch.next_start.since(self.now.mono) <= RATE_SLACK {
            return true;
        }
        // The slack keeps the average; a job waits until its own time has come.
        let at = watch.next_start;
        self.timers.set(Timer::Dispatch(index as u32), at);
        false
    }

    pub(super) fn spend_rate(&mut self, index: usize, jobs: usize) {
        let now = self.now.mono;
        let watch = &mut self.watches[index];
        if let Some(rate) = watch.plan.rate {
            let jobs = u128::try_from(jobs).unwrap_or(1);
            let cost = rate.per.as_nanos() * jobs / u128::from(rate.count.max(1));
            let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
            watch.next_start = watch.next_start.max(now).after(cost);
        }
    }

    /// Makes the attempt that comes next of jobs that were taken out of the queue.
    fn begin(&mut self, index: usize, mut ids: Vec<JobId>) {
        ids.retain(|id| {
            let there = self
                .jobs
                .get(id)
                .is_some_and(|job| self.tree.mount(job.dir).is_some());
            if !there {
                // Its directory is gone; where it went was looked for by the scan.
                self.conclude(*id, Outcome::Gone, None, Vec::new());
            }
            there
        });
        if ids.is_empty() {
            return;
        }
        let (run, slot) = self.add_run(Kind::Child, index as u32, ids.clone());
        let mut recovered = false;
        for id in &ids {
            recovered |= self.begin_attempt(*id, run, slot);
        }
        let state = &mut self.watches[index];
        state.running += 1;
        if let Some(timeout) = state.plan.timeout {
            self.timers
                .set(Timer::Kill(run), self.now.mono.after(timeout));
        }
        self.say_slot(slot, &ids);
        if let Some(order) = self.order(index, run, slot, &ids, recovered) {
            self.out.push(Effect::Spawn(Box::new(order)));
        }
    }

    /// Writes down that an attempt begins. Says whether it repeats one that was cut short.
    pub(super) fn begin_attempt(&mut self, id: JobId, run: RunId, slot: u32) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        job.begun += 1;
        let recovered = std::mem::take(&mut job.cut_short);
        job.repeats = recovered;
        job.phase = Phase::Running { run };
        let (attempt, watch, settled) = (job.begun, job.watch, job.settled);
        let keyed = self
            .watches
            .get(watch as usize)
            .is_some_and(|state| state.queue.is_keyed());
        if keyed && !std::mem::replace(&mut job.pinned, true) {
            let key = job.key.to_vec();
            self.append(Record::Key { job: id, key });
        }
        self.append(Record::Started {
            job: id,
            attempt,
            slot,
        });
        self.count_start(watch, settled, attempt == 1);
        recovered
    }

    fn order(
        &self,
        index: usize,
        run: RunId,
        slot: u32,
        ids: &[JobId],
        recovered: bool,
    ) -> Option<SpawnOrder> {
        let plan = &self.watches.get(index)?.plan;
        let first = *ids.first()?;
        let mut files = Vec::with_capacity(ids.len());
        let mut paths = Vec::new();
        for id in ids {
            let job = self.jobs.get(id)?;
            let place = self.tree.place(job.dir, &job.name)?;
            let lease = self.lease_can_be_trusted(place.mount);
            if plan.batch.is_some_and(|batch| batch.stdin) {
                paths.extend(place.path());
                paths.push(0);
            }
            files.push(SpawnFile {
                place,
                expect: job.version,
                lease,
            });
        }
        let (program, argv) = match &plan.action {
            Action::Deliver(deliver) => (Program::Own, self.delivery_arguments(first, deliver)),
            _ => (Program::Command, self.arguments(plan, ids)),
        };
        let many = plan.batch.map(|_| ids.len());
        let env = self.of_job(first, |values, plan| {
            environment(values, &plan.env, recovered, many)
        })?;
        Some(SpawnOrder {
            run,
            jobs: ids.to_vec(),
            program,
            argv,
            env,
            cwd: plan.cwd.clone().unwrap_or_else(|| b"/".to_vec()),
            files,
            stdin: match plan.batch {
                Some(batch) if batch.stdin => Stdin::Bytes(paths),
                _ => Stdin::Nothing,
            },
            process: Rc::clone(&plan.process),
            slot,
            output: plan.output.clone(),
            watch: plan.name.clone(),
            job_name: self.job_name(first),
            attempt: self.jobs.get(&first)?.begun,
        })
    }

    /// The command line. In a batch an argument that says something of a file is said of each.
    fn arguments(&self, plan: &WatchPlan, ids: &[JobId]) -> Vec<Vec<u8>> {
        let of = |id: &JobId, arg: &Template| self.of_job(*id, |values, _| arg.expand(values));
        let mut argv = Vec::with_capacity(plan.argv().len() + ids.len());
        for arg in plan.argv() {
            let each = if arg.is_of_file() { ids } else { &ids[..1] };
            argv.extend(each.iter().filter_map(|id| of(id, arg)));
        }
        argv
    }
}

/// The arguments that are repeated for every file of a batch: how many fields they have, and how many bytes beside them.
fn file_arguments(plan: &WatchPlan) -> (usize, usize) {
    let of_file = plan.argv().iter().filter(|arg| arg.is_of_file());
    of_file
        .map(Template::extent)
        .fold((0, 0), |(fields, fixed), (more, text)| {
            (fields + more, fixed + text + ARGUMENT_BYTES)
        })
}

/// Finds the key of a job, for the queue.
fn key_of(jobs: &BTreeMap<JobId, Box<Job>>) -> impl Fn(JobId) -> Box<[u8]> {
    |id| {
        jobs.get(&id)
            .map_or_else(Box::default, |job| job.key.clone())
    }
}

/// `SETTLED_*`, and the watch's own.
fn environment(
    values: &Values,
    own: &[(String, Template)],
    recovered: bool,
    batch: Option<usize>,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let slash = values.path.iter().rposition(|&b| b == b'/').unwrap_or(0);
    let name = values.path.get(slash + 1..).unwrap_or_default();
    let dot = name.iter().rposition(|&b| b == b'.').filter(|&at| at > 0);
    let (stem, ext) = match dot {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, &b""[..]),
    };
    let mut env: Vec<(Vec<u8>, Vec<u8>)> = Vec::with_capacity(14 + own.len());
    let mut put = |key: &str, value: &[u8]| env.push((key.as_bytes().to_vec(), value.to_vec()));
    put("SETTLED_PATH", values.path);
    put("SETTLED_NAME", name);
    put("SETTLED_STEM", stem);
    put("SETTLED_EXT", ext);
    put(
        "SETTLED_DIR",
        if slash == 0 {
            b"/"
        } else {
            &values.path[..slash]
        },
    );
    put("SETTLED_REL", values.rel);
    put("SETTLED_KEY", values.key);
    put("SETTLED_WATCH", values.watch.as_bytes());
    put("SETTLED_JOB", values.job.as_bytes());
    put("SETTLED_DATE", values.date.as_bytes());
    put("SETTLED_SIZE", values.size.to_string().as_bytes());
    put(
        "SETTLED_MTIME",
        values
            .mtime
            .0
            .div_euclid(1_000_000_000)
            .to_string()
            .as_bytes(),
    );
    put("SETTLED_ATTEMPT", values.attempt.to_string().as_bytes());
    if recovered {
        put("SETTLED_RECOVERED", b"1");
    }
    if let Some(files) = batch {
        put("SETTLED_BATCH", files.to_string().as_bytes());
    }
    for (key, template) in own {
        env.push((key.clone().into_bytes(), template.expand(values)));
    }
    env
}
