//! What the loop sets going.

use super::*;
use crate::children::Child;
use settled::core::ask::{Answer, Disposal as Disposed};

impl Oracle {
    /// A child is spawned. `alive` are the others of this life that the core has not seen end.
    pub fn spawned(&mut self, child: &Child, alive: &[&Child], concurrency: u32) {
        let order = &child.order;
        let env = |name: &str| {
            order
                .env
                .iter()
                .find(|(key, _)| key == name.as_bytes())
                .map(|(_, value)| value.clone())
        };
        let recovered = env("SETTLED_RECOVERED").is_some();
        let attempt = env("SETTLED_ATTEMPT").unwrap_or_default();
        let Some(ledger) = self.jobs.get_mut(&order.jobs[0]) else {
            return self.broken(
                Rule::RecordFirst,
                format!("{:?} is run and was never settled", order.jobs[0]),
            );
        };
        let plan = &self.watches[ledger.watch].plan;
        let mut wrong = None;
        if order.watch != plan.name {
            wrong = Some((
                Rule::Limits,
                format!("job of {} is run by {}", plan.name, order.watch),
            ));
        }
        if ledger.started != order.attempt
            || attempt != ledger.started.to_string().as_bytes()
            || !ledger.open
            || ledger.concluded.is_some()
        {
            wrong = Some((Rule::RecordFirst, "its start was not recorded first".into()));
        }
        if recovered != ledger.cut {
            wrong = Some((
                Rule::Repeated,
                format!(
                    "the attempt before was{} cut short, and SETTLED_RECOVERED is{} set",
                    if ledger.cut { "" } else { " not" },
                    if recovered { "" } else { " not" },
                ),
            ));
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
        let of_watch = alive.iter().filter(|c| c.watch == ledger.watch).count();
        if alive.len() >= concurrency as usize || of_watch >= plan.concurrency as usize {
            wrong = Some((
                Rule::Limits,
                format!("{} others run, {of_watch} of this watch", alive.len()),
            ));
        }
        if plan.serial {
            let (watch, key) = (ledger.watch, env("SETTLED_KEY"));
            ledger.key = key.clone();
            let placed = ledger.place.is_some();
            let moment = self.moment;
            // A retry keeps its key; where a rename has made two keys one, one of them has to wait begun.
            let holder = self.jobs.iter().find(|(id, other)| {
                **id != order.jobs[0]
                    && other.watch == watch
                    && other.key == key
                    && other.started > 0
                    && other.concluded.is_none()
                    && (placed && other.place.is_some()
                        || other.begun_life == moment.life && !moment.reloaded
                        || alive
                            .iter()
                            .any(|child| child.order.jobs[0] == **id && child.life == moment.life))
            });
            if let Some((other, _)) = holder {
                wrong = Some((
                    Rule::Serial,
                    format!("{other:?} has its key and is not over"),
                ));
            }
        }
        if let Some((rule, wrong)) = wrong {
            self.broken(
                rule,
                format!("{:?} attempt {}: {wrong}", order.jobs[0], order.attempt),
            );
        }
    }

    /// A child's look has passed: it is going to read this file.
    pub fn dispatched(&mut self, child: &Child, uid: Uid, disk: &Disk) {
        let plan = &self.watches[child.watch].plan;
        let inode = &disk.inodes[uid];
        let fs = &disk.fss[inode.fs];
        let lease = !fs.remote && fs.lease_errno == 0;
        let mut wrong = None;
        if lease && inode.writers > 0 {
            wrong = Some((
                Rule::NoWriter,
                format!("{} writers have it open", inode.writers),
            ));
        }
        let quiet = match plan.settle {
            Some(quiet) => quiet.as_nanos() as u64,
            None if lease && (inode.unheard || inode.placed >= inode.changed) => 0,
            None if lease => 1_000_000_000,
            None => 5_000_000_000.max(u64::from(fs.cache_s) * 1_000_000_000),
        };
        let since = disk.mono - inode.changed;
        if since < quiet && !inode.disguised {
            wrong = Some((
                Rule::Quiet,
                format!("it changed {since} ns ago, quiet time is {quiet}"),
            ));
        }
        if let Some((rule, wrong)) = wrong {
            self.broken(
                rule,
                format!("{:?} is dispatched: {wrong}", child.order.jobs[0]),
            );
        }
    }

    pub fn succeeded(&mut self, child: &Child) {
        if let (Some(ledger), Some((_, content, version))) =
            (self.jobs.get_mut(&child.order.jobs[0]), child.got)
        {
            ledger.succeeded.push((version, content));
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
        let (Some((uid, _, _)), Some(ledger)) =
            (child.got, self.jobs.get_mut(&child.order.jobs[0]))
        else {
            return;
        };
        ledger.ran = Some(Ran {
            uid,
            path: child.order.files[0].place.path(),
            at: self.moment.now,
            heard: child.heard,
            version: disk.version(uid),
        });
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
