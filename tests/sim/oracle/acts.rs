//! What the loop sets going.

use super::*;
use crate::children::Child;
use settled::core::Stdin;
use settled::core::ask::{Answer, Disposal as Disposed};

impl Oracle {
    /// A child is spawned. `alive` are the other attempts of this life whose ends were not told.
    pub fn spawned(&mut self, child: &Child, alive: &[&Child], concurrency: u32) {
        let order = &child.order;
        let env = |name: &str| {
            order
                .env
                .iter()
                .find(|(key, _)| key == name.as_bytes())
                .map(|(_, value)| value.clone())
        };
        let Some(first) = order.jobs.first().copied() else {
            return self.broken(Rule::RecordFirst, "a child is spawned for nothing");
        };
        let running: BTreeSet<JobId> = alive
            .iter()
            .flat_map(|child| child.order.jobs.iter().copied())
            .collect();
        for job in &order.jobs {
            let attempt = (*job == first).then_some(order.attempt);
            self.begun(*job, attempt, &order.watch, &order.jobs, &running);
            if let Some(ledger) = self.jobs.get_mut(job) {
                ledger.mates.extend(&order.jobs);
            }
        }
        self.spend(child.watch, order.jobs.len() as u64, 0);
        let plan = &self.watches[child.watch].plan;
        let Some(ledger) = self.jobs.get(&first) else {
            return;
        };
        let mut wrong = None;
        let attempt = env("SETTLED_ATTEMPT").unwrap_or_default();
        if attempt != ledger.started.to_string().as_bytes() {
            wrong = Some((Rule::RecordFirst, "another attempt was recorded".into()));
        }
        let recovered = env("SETTLED_RECOVERED").is_some();
        let ledgers = order.jobs.iter().filter_map(|job| self.jobs.get(job));
        let cut = ledgers.clone().any(|ledger| ledger.cut);
        if recovered != cut {
            wrong = Some((
                Rule::Repeated,
                format!(
                    "the attempt before was{} cut short, and SETTLED_RECOVERED is{} set",
                    if cut { "" } else { " not" },
                    if recovered { "" } else { " not" },
                ),
            ));
        }
        if plan.per_key().is_some() && ledger.key != env("SETTLED_KEY") {
            wrong = Some((Rule::Serial, "its command is told another key".into()));
        }
        let processes = || alive.iter().filter(|c| c.worker.is_none());
        let of_watch = processes().filter(|c| c.watch == child.watch).count();
        // "If a mount hangs ... keeps serving everything else": those that wait for it leave their places to others.
        let hangs = |child: &&&Child| {
            let mount = child.order.files.first().map(|file| file.place.mount);
            mount.is_some_and(|mount| self.silent.contains(&mount))
        };
        let in_all = processes().filter(|child| !hangs(child)).count();
        if in_all >= concurrency as usize || of_watch >= plan.concurrency as usize {
            wrong = Some((
                Rule::Limits,
                format!("{in_all} others run, {of_watch} of this watch"),
            ));
        }
        let many = order.jobs.len();
        let most = plan.batch.map_or(1, |batch| batch.max as usize);
        let alone = ledgers.clone().any(|ledger| ledger.alone);
        if many > most || many > 1 && alone || order.files.len() != many {
            wrong = Some((
                Rule::Limits,
                format!("{many} jobs together, alone: {alone}"),
            ));
        }
        if plan.serial && ledgers.clone().any(|other| other.key != ledger.key) {
            wrong = Some((Rule::Serial, "jobs of several keys in one batch".into()));
        }
        let size = env("SETTLED_BATCH").unwrap_or_default();
        let paths: Vec<Vec<u8>> = order.files.iter().map(|file| file.place.path()).collect();
        let told = match &order.stdin {
            Stdin::Bytes(bytes) => {
                let each = bytes.split_inclusive(|&b| b == 0);
                each.map(|path| path.strip_suffix(b"\0").unwrap_or(path).to_vec())
                    .collect()
            }
            _ => order.argv[1..].to_vec(),
        };
        let sized = match plan.batch {
            Some(_) => size == many.to_string().as_bytes(),
            None => size.is_empty(),
        };
        if told != paths || !sized {
            wrong = Some((
                Rule::Limits,
                format!("told of {} files, looks at {many}", told.len()),
            ));
        }
        if let Some((rule, wrong)) = wrong {
            self.broken(
                rule,
                format!("{:?} attempt {}: {wrong}", order.jobs, order.attempt),
            );
        }
    }

    /// An attempt begins. `mates` are begun with it, `running` are others' jobs whose ends were not told.
    pub(super) fn begun(
        &mut self,
        job: JobId,
        attempt: Option<u32>,
        watch: &str,
        mates: &[JobId],
        running: &BTreeSet<JobId>,
    ) {
        let Some(ledger) = self.jobs.get(&job) else {
            let text = format!("{job:?} is run and was never settled");
            return self.broken(Rule::RecordFirst, text);
        };
        let plan = &self.watches[ledger.watch].plan;
        let mut wrong = None;
        if watch != plan.name {
            wrong = Some((
                Rule::Limits,
                format!("job of {} is run by {watch}", plan.name),
            ));
        }
        if attempt.is_some_and(|attempt| ledger.started != attempt)
            || !ledger.open
            || ledger.concluded.is_some()
        {
            wrong = Some((Rule::RecordFirst, "its start was not recorded first".into()));
        }
        if ledger.failed_known >= plan.attempts {
            wrong = Some((
                Rule::Limits,
                format!("{} attempts failed before", ledger.failed_known),
            ));
        }
        if let Some((life, until)) = ledger.wait
            && life == self.moment.life
            && self.moment.now < until
        {
            wrong = Some((Rule::Limits, "it is tried again too soon".into()));
        }
        if self.moment.closed {
            wrong = Some((Rule::Pause, "nothing new is to be started".into()));
        }
        if let Some(places) = plan.per_key() {
            // A retry keeps its key. Those of one batch come back one after another.
            let holds = |(id, other): &(&JobId, &Ledger)| {
                **id != job
                    && other.watch == ledger.watch
                    && other.started > 0
                    && other.concluded.is_none()
                    && other.key == ledger.key
                    && (places > 1
                        || !mates.contains(*id)
                            && (!ledger.mates.contains(*id) || running.contains(*id)))
            };
            let holders: Vec<JobId> = self.jobs.iter().filter(holds).map(|(id, _)| *id).collect();
            if ledger.key.is_none() || holders.len() >= places as usize {
                wrong = Some((
                    Rule::Serial,
                    format!("{holders:?} have its key and are not over"),
                ));
            }
        }
        if let Some(by) = self.halted_by(job) {
            wrong = Some((Rule::Halt, format!("{by:?} is dead before it")));
        }
        if let Some((rule, wrong)) = wrong {
            self.broken(rule, format!("{job:?} attempt {attempt:?}: {wrong}"));
        }
    }

    /// A child's look has passed: it is going to read this file.
    pub fn dispatched(&mut self, watch: usize, job: JobId, truth: &Truth, disk: &Disk) {
        if let Some((rule, wrong)) = self.evident(watch, truth, disk) {
            self.broken(rule, format!("{job:?} is dispatched: {wrong}"));
        }
    }

    /// What was missing of the evidence when somebody looked.
    pub(super) fn evident(
        &self,
        watch: usize,
        truth: &Truth,
        disk: &Disk,
    ) -> Option<(Rule, String)> {
        let plan = &self.watches[watch].plan;
        let fs = &disk.fss[disk.inodes[truth.uid].fs];
        let lease = !fs.remote && fs.lease_errno == 0;
        if lease && truth.writers > 0 {
            let text = format!("{} writers have it open", truth.writers);
            return Some((Rule::NoWriter, text));
        }
        // Who writes over NFS is seen by no lease, and may be silent for half a minute.
        let exported = plan.exported != Some(false) && fs.exported.is_some();
        let cache = u64::from(fs.cache_s) * 1_000_000_000;
        let quiet = match plan.settle {
            Some(quiet) => (quiet.as_nanos() as u64).max(cache),
            None if exported => 40_000_000_000.max(cache),
            None if lease && (truth.unheard || truth.placed >= truth.changed) => 0,
            None if lease => 1_000_000_000,
            None => 5_000_000_000.max(cache),
        };
        let since = truth.at - truth.changed;
        if since < quiet && !truth.disguised {
            let text = format!("it changed {since} ns ago, quiet time is {quiet}");
            return Some((Rule::Quiet, text));
        }
        None
    }

    pub fn succeeded(&mut self, child: &Child) {
        for (job, (_, content, version)) in child.order.jobs.iter().zip(&child.got) {
            if let Some(ledger) = self.jobs.get_mut(job) {
                ledger.succeeded.push((*version, *content));
            }
        }
    }

    /// The job that a private name belongs to.
    pub fn job_of(private: &[u8]) -> Option<JobId> {
        let at = private.iter().rposition(|&b| b == b'-')?;
        let text = std::str::from_utf8(&private[at + 1..]).ok()?;
        text.parse().ok().map(JobId)
    }

    /// A scout is asked to dispose of a file.
    pub fn disposing(&mut self, private: &[u8], act: &Act) {
        let Some(job) = Self::job_of(private) else {
            return self.broken(Rule::Disposition, format!("odd private name {private:?}"));
        };
        let right = self.jobs.get(&job).is_some_and(|ledger| {
            !ledger.disposed
                && match (&ledger.disposal, act) {
                    (Some(Disposal::Delete), Act::Delete) => true,
                    (Some(Disposal::Move { dir, rel }), Act::Move { dir: d, rel: r }) => {
                        (dir, rel) == (d, r)
                    }
                    _ => false,
                }
        });
        if !right {
            self.broken(
                Rule::RecordFirst,
                format!("{job:?} is disposed of by {act:?} without its record"),
            );
        }
    }

    /// A child's end was told.
    pub fn child_ended(&mut self, child: &Child, disk: &Disk) {
        for (number, (uid, _, _)) in child.got.iter().enumerate() {
            let job = child.order.jobs[number];
            if let Some(ledger) = self.jobs.get_mut(&job) {
                ledger.ran = Some(Ran {
                    uid: *uid,
                    path: child.order.files[number].place.path(),
                    at: self.moment.now,
                    heard: child.heard.contains(&number),
                    version: disk.version(*uid),
                });
            }
        }
    }

    /// A step of the mover. `before` is what had a name before it, and `acted` on what it acted for good.
    pub fn moved(
        &mut self,
        job: Option<JobId>,
        before: &Contents,
        step: &Step,
        act: &Act,
        disk: &Disk,
    ) {
        let done = Answer::Disposed(Ok(Disposed::Done));
        if step.answers.contains(&done)
            && let Some(ledger) = job.and_then(|job| self.jobs.get_mut(&job))
        {
            ledger.moved = true;
        }
        if let Some(uid) = step.acted {
            let inode = &disk.inodes[uid];
            if !disk.blind(uid) && inode.writers > 0 {
                let text = format!("{act:?} of a file that {} have open", inode.writers);
                self.broken(Rule::NoWriter, text);
            }
        }
        let after = disk.contents();
        for (content, uid) in before {
            if after.contains_key(content) {
                continue;
            }
            // Who cannot be asked about may write to what was copied until its name is gone.
            if step.unlinked == Some(*uid) && (*act == Act::Delete || disk.blind(*uid)) {
                continue;
            }
            let text = format!("{act:?}: content {content} is nowhere any more");
            self.broken(Rule::Content, text);
        }
    }
}
