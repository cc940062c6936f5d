//! What became durable.

use super::works::{Meaning, meaning};
use super::*;
use settled::plan::{Delivery, OnDead};

impl Ran {
    /// The file is where its child found it, and nothing has happened to it since the child's end, nor to a directory
    /// above it.
    fn rests(&self, disk: &Disk) -> bool {
        let dir = disk.parent(&self.path).ok().map(|(dir, _)| dir);
        let above = std::iter::successors(dir, |dir| disk.inodes[*dir].parent);
        let stayed = |uid: Uid| disk.inodes[uid].placed <= self.at;
        std::iter::once(self.uid).chain(above).all(stayed)
            && disk.resolve(&self.path) == Ok(self.uid)
            && disk.version(self.uid) == self.version
    }
}

impl Ledger {
    /// "A rename within one watch moves everything below it: concluded files carry their conclusion": its file lies in the
    /// watched tree, and nobody has given it a name since it settled, whatever was done to the directories above it.
    fn stays(&self, watch: &Covers, version: &Version, disk: &Disk) -> bool {
        let file = |uid: &Uid| {
            let inode = &disk.inodes[*uid];
            !inode.dir && inode.placed < self.settled_mono && disk.version(*uid) == *version
        };
        (0..disk.inodes.len())
            .filter(file)
            .flat_map(|uid| disk.paths_of(uid))
            .filter_map(|(parent, _)| disk.path_of_dir(parent))
            .any(|dir| watch.rel_dir(&dir).is_some())
    }
}

impl Oracle {
    /// A record is durable, or was found to be after a crash. It was written when the wall clock showed `at`.
    pub fn record(&mut self, record: &Record, at: i64, disk: &Disk) {
        match record {
            Record::Watch { watch, name } => {
                if let Some(index) = self.watches.iter().position(|w| &w.plan.name == name) {
                    self.watch_ids.insert(*watch, index);
                }
            }
            Record::Scanned { watch } => self.scanned.push(*watch),
            Record::Paused { .. } | Record::Retried { .. } | Record::Forgotten { .. } => {
                self.broken(
                    Rule::RecordFirst,
                    format!("{record:?}: nobody asked for it"),
                );
            }
            // Nothing is expected here, and what is carried over is looked at as it is written.
            Record::Expected { .. } | Record::Summary(_) => {}
            Record::Key { job, key } => {
                if let Some(ledger) = self.jobs.get_mut(job) {
                    if ledger.key.as_ref().is_some_and(|old| old != key) {
                        let text = format!("{record:?}: it had another");
                        return self.broken(Rule::Serial, text);
                    }
                    ledger.key = Some(key.clone());
                }
            }
            Record::Dir {
                dir,
                watch,
                parent,
                name,
                ino,
                btime_ns,
            } => {
                if *parent != DirId(0) && !self.dirs.contains_key(parent) {
                    self.broken(
                        Rule::RecordFirst,
                        format!("{record:?}: its parent was not recorded"),
                    );
                }
                self.names.insert(*dir, (*parent, name.clone()));
                let before = self.idents.insert(*dir, (*ino, *btime_ns));
                if before.is_some_and(|before| before != (*ino, *btime_ns)) {
                    for ledger in self.jobs.values_mut() {
                        let here = ledger.place.is_some_and(|(its, _)| its == *dir);
                        ledger.replaced |= here && ledger.concluded.is_some() && !ledger.disposed;
                    }
                }
                if self.dirs.insert(*dir, *watch).is_some() {
                    // Said again: it may have been renamed, and what lies below it with it.
                    for ledger in self.jobs.values_mut() {
                        ledger.place = None;
                    }
                }
            }
            Record::DirGone { dir } => {
                if self.dirs.remove(dir).is_none() {
                    self.broken(Rule::RecordFirst, format!("{record:?}: never recorded"));
                }
            }
            Record::Settled {
                job,
                dir,
                name,
                version,
                ..
            } => {
                let watch = self.watch_of(*dir, record);
                if !self.free.contains(version)
                    || self.watches[watch].plan.flock && !self.free_of_flock.contains(version)
                {
                    self.broken(
                        Rule::Evidence,
                        format!("{record:?}: never told that nobody holds it"),
                    );
                }
                if self.moment.paused {
                    self.broken(Rule::Pause, format!("{record:?}: intake is to pause"));
                }
                if job.0 <= self.last_job {
                    self.broken(
                        Rule::ConcludedOnce,
                        format!("{record:?}: the number was used before"),
                    );
                }
                self.last_job = job.0;
                let rel = self.rel(*dir, name);
                self.jobs.insert(
                    *job,
                    Ledger {
                        watch,
                        place: Some((*dir, name_hash(name))),
                        lies: Some((*dir, name_hash(name))),
                        rel,
                        settled: *version,
                        settled_at: at,
                        settled_mono: self.moment.now,
                        ..Ledger::default()
                    },
                );
            }
            Record::Baseline { dir, version, .. } => {
                let watch = self.watch_of(*dir, record);
                let id = self.dirs.get(dir).copied().unwrap_or_default();
                if self.watches[watch].plan.existing != Existing::Skip || self.scanned.contains(&id)
                {
                    self.broken(
                        Rule::NothingLost,
                        format!("{record:?}: no baseline here, or no longer"),
                    );
                }
                self.counts.entry((watch, *version)).or_default().baseline += 1;
            }
            Record::Started { job, attempt, slot } => {
                let Some(ledger) = self.jobs.get_mut(job) else {
                    return self.broken(Rule::RecordFirst, format!("{record:?}: no such job"));
                };
                let again = ledger.open && ledger.begun_life == self.moment.life;
                let wrong = match ledger.concluded {
                    Some(outcome) => Some((
                        Rule::ConcludedOnce,
                        format!("concluded before: {outcome:?}"),
                    )),
                    None if *attempt != ledger.started + 1 => {
                        Some((Rule::Limits, format!("after attempt {}", ledger.started)))
                    }
                    None if again && !ledger.cut_told => Some((
                        Rule::Repeated,
                        "the one before was not cut short".to_owned(),
                    )),
                    None if ledger.halted => Some((Rule::Halt, "it is dead".to_owned())),
                    None if ledger.open
                        && self.watches[ledger.watch].plan.delivery == Delivery::AtMostOnce =>
                    {
                        let text = "nobody knows how far the one before came".to_owned();
                        Some((Rule::Repeated, text))
                    }
                    None => None,
                };
                ledger.ends.clear();
                ledger.slot = *slot;
                ledger.begun_life = self.moment.life;
                ledger.cut_told = false;
                ledger.started = *attempt;
                // Whatever could not be begun in between: what was cut short is repeated now.
                ledger.cut = ledger.open || std::mem::take(&mut ledger.cut_before);
                ledger.open = true;
                if let Some((rule, text)) = wrong {
                    self.broken(rule, format!("{record:?}: {text}"));
                }
            }
            Record::Ended {
                job,
                end,
                counted,
                attempt,
                not_before,
                ..
            } => {
                let Some(ledger) = self.jobs.get_mut(job) else {
                    return self.broken(Rule::RecordFirst, format!("{record:?}: no such job"));
                };
                let plan = &self.watches[ledger.watch].plan;
                // "Only an attempt cut short by a crash is repeated": one of an earlier life was.
                let crashed = ledger.begun_life != self.moment.life;
                let told = ledger.ends.contains(end)
                    || *end == AttemptEnd::CutShort && (self.moment.stopping || crashed);
                if !told {
                    let text = format!("{record:?}: known is {:?}", ledger.ends);
                    return self.broken(Rule::Ends, text);
                }
                let meaning = meaning(plan, *end);
                let too_old = plan
                    .max_age
                    .is_some_and(|max_age| at - ledger.settled_at >= max_age.as_nanos() as i64);
                // "Only an attempt cut short is repeated; the job says so": this one was not made at all, so that the
                // next repeats the one before.
                let never_ran = matches!(
                    end,
                    AttemptEnd::NotStarted { .. }
                        | AttemptEnd::NotTheFile
                        | AttemptEnd::StillWritten
                );
                ledger.cut_before = never_ran && ledger.cut;
                if not_before.0 == i64::MAX {
                    let last = *counted >= plan.attempts;
                    let dead = meaning == Meaning::Dead
                        || meaning == Meaning::Failed
                            && (ledger.failed_known + 1 >= plan.attempts || too_old);
                    ledger.halted = true;
                    ledger.open = false;
                    ledger.cut_told = false;
                    if !dead || !last || plan.on_dead != OnDead::Halt {
                        let text = format!("{record:?}: it is not dead");
                        self.broken(Rule::Halt, text);
                    }
                    return;
                }
                let cut_short = *end == AttemptEnd::CutShort;
                let cut = cut_short || *end == AttemptEnd::Together;
                ledger.alone |= *end == AttemptEnd::Together;
                ledger.slot = 0;
                ledger.open = cut;
                ledger.cut_told = cut;
                if meaning != Meaning::Free {
                    ledger.failed_known += 1;
                    let backoff = self.watches[ledger.watch].plan.backoff;
                    let wait = backoff.first * (1 << (ledger.failed_known - 1).min(20));
                    // settled-worker(7): "not before so many seconds".
                    let wait = ledger.after.unwrap_or(wait.min(backoff.max)).as_nanos() as u64;
                    ledger.wait = Some((self.moment.life, self.moment.now + wait));
                }
                let text = if *counted != ledger.failed_known || *attempt != ledger.started {
                    Some(format!(
                        "{record:?}: {} failed, attempt {} was begun",
                        ledger.failed_known, ledger.started
                    ))
                } else if *counted >= self.watches[ledger.watch].plan.attempts {
                    Some(format!("{record:?}: no attempt is left"))
                } else if !matches!(meaning, Meaning::Free | Meaning::Failed)
                    || meaning == Meaning::Failed && too_old
                {
                    Some(format!("{record:?}: it is not to be tried again"))
                } else {
                    None
                };
                if let Some(text) = text {
                    self.broken(Rule::Limits, text);
                }
                if cut_short && !self.moment.stopping && !crashed {
                    self.broken(
                        Rule::Repeated,
                        format!("{record:?}: nothing has cut it short"),
                    );
                }
            }
            Record::Concluded {
                job,
                outcome,
                end,
                disposal,
                version,
                ..
            } => self.concluded(*job, *outcome, *end, disposal, version, record, at, disk),
            Record::Retarget { job, rel } => {
                if let Some(ledger) = self.jobs.get_mut(job)
                    && let Some(Disposal::Move { rel: old, .. }) = &mut ledger.disposal
                {
                    *old = rel.clone();
                }
            }
            Record::Disposed { job, how } => {
                let Some(ledger) = self.jobs.get_mut(job) else {
                    return self.broken(Rule::RecordFirst, format!("{record:?}: no such job"));
                };
                if *how != DisposedHow::Done
                    && let Some(version) = ledger.version
                    && !(self.hears && ledger.stays(&self.watches[ledger.watch], &version, disk))
                {
                    // Taken away before its disposition: wherever it turns up again, it is a new arrival.
                    *self.allowed.entry((ledger.watch, version)).or_default() += 1;
                }
                let known = ledger
                    .lies
                    .is_none_or(|(dir, _)| self.dirs.contains_key(&dir));
                let found = match (how, ledger.version) {
                    (DisposedHow::Changed, Some(version)) if ledger.place.is_some() => {
                        Some((ledger.watch, ledger.rel.clone(), version))
                    }
                    _ => None,
                };
                if *how == DisposedHow::Gone && !known {
                    // With its directory: should that come back, its name is a private one, and whose is unknown.
                    self.left_private.insert(job.0);
                }
                let untrue = *how == DisposedHow::Done && !ledger.moved;
                if ledger.concluded.is_none() || ledger.disposed || untrue {
                    self.broken(
                        Rule::Disposition,
                        format!("{record:?}: not concluded, disposed before, or not true: {how:?}"),
                    );
                } else {
                    ledger.disposed = true;
                }
                if let Some((watch, rel, was)) = found {
                    self.found_changed(watch, &rel, &was, disk);
                }
            }
            Record::Renamed {
                dir,
                name_hash,
                to_dir,
                to_name,
            } => {
                let to = (*to_dir, settled::core::files::name_hash(to_name));
                for ledger in self.jobs.values_mut() {
                    if ledger.lies == Some((*dir, *name_hash)) {
                        ledger.lies = Some(to);
                    }
                    if ledger.place == Some((*dir, *name_hash)) {
                        ledger.place = None;
                    }
                }
            }
            Record::Gone { .. } | Record::Remembered { .. } => {}
        }
    }

    /// "If it is not the concluded arrival it goes back (never over another) as a new candidate": whether an event tells of
    /// it or not, and whenever the next listing is made.
    fn found_changed(&mut self, watch: usize, rel: &[u8], was: &Version, disk: &Disk) {
        let path = [self.watches[watch].root.as_slice(), b"/", rel].concat();
        if let Ok(uid) = disk.resolve(&path) {
            let is = disk.version(uid);
            if (is.ino, is.btime_ns) == (was.ino, was.btime_ns) && is != *was {
                self.changed.insert((watch, is), path);
            }
        }
    }

    fn watch_of(&mut self, dir: DirId, record: &Record) -> usize {
        let found = self
            .dirs
            .get(&dir)
            .and_then(|id| self.watch_ids.get(id))
            .copied();
        match found {
            Some(watch) => watch,
            None => {
                self.broken(
                    Rule::RecordFirst,
                    format!("{record:?}: its directory was not recorded"),
                );
                0
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn concluded(
        &mut self,
        job: JobId,
        outcome: Outcome,
        end: Option<AttemptEnd>,
        disposal: &Disposal,
        version: &Version,
        record: &Record,
        at: i64,
        disk: &Disk,
    ) {
        let Some(ledger) = self.jobs.get_mut(&job) else {
            return self.broken(Rule::RecordFirst, format!("{record:?}: no such job"));
        };
        let plan = &self.watches[ledger.watch].plan;
        let mut wrong = None;
        let cut = end == Some(AttemptEnd::CutShort)
            && (self.moment.stopping || ledger.begun_life != self.moment.life);
        if let Some(end) = end
            && !cut
            && !ledger.ends.contains(&end)
        {
            let text = format!("{record:?}: known is {:?}", ledger.ends);
            return self.broken(Rule::Ends, text);
        }
        let meaning = end.map(|end| meaning(plan, end));
        let too_old = plan
            .max_age
            .is_some_and(|max_age| at - ledger.settled_at >= max_age.as_nanos() as i64);
        let mut other = None;
        let accepted =
            outcome == Outcome::Done && !ledger.succeeded.iter().any(|(ran, _)| ran == version);
        if let Some(before) = ledger.concluded {
            wrong = Some((Rule::ConcludedOnce, format!("concluded before: {before:?}")));
        }
        ledger.concluded = Some(outcome);
        ledger.version = Some(*version);
        ledger.open = false;
        ledger.disposal = Some(disposal.clone());
        match outcome {
            Outcome::Done => {
                if plan.on_change == OnChange::Run
                    && !ledger.succeeded.iter().any(|(ran, _)| ran == version)
                    || ledger.succeeded.is_empty()
                    || meaning != Some(Meaning::Done)
                {
                    wrong = Some((
                        Rule::Limits,
                        format!("no run of this version succeeded: {:?}", ledger.succeeded),
                    ));
                }
                // Where its directory was not lost sight of.
                let placed = ledger
                    .place
                    .is_some_and(|(dir, _)| self.dirs.contains_key(&dir));
                if let Some(ran) = ledger.ran.as_ref().filter(|ran| placed && ran.rests(disk)) {
                    let run = plan.on_change == OnChange::Run;
                    if !run && ran.version != *version {
                        other = Some(format!("its command left {:?} there", ran.version));
                    } else if run
                        && ran.heard
                        && plan.observe != Observe::Poll
                        && ran.version != *version
                    {
                        other = Some("it changed while its job ran, and was heard to".to_owned());
                    }
                }
            }
            Outcome::Dead => {
                let last = ledger.failed_known + 1 >= plan.attempts || too_old;
                let dead =
                    meaning == Some(Meaning::Dead) || meaning == Some(Meaning::Failed) && last;
                if !dead || plan.on_dead == OnDead::Halt {
                    wrong = Some((
                        Rule::Limits,
                        format!(
                            "it is not dead: {} of {} attempts failed",
                            ledger.failed_known + 1,
                            plan.attempts
                        ),
                    ));
                }
            }
            Outcome::Held => {
                if meaning.is_some_and(|meaning| meaning != Meaning::Held) {
                    wrong = Some((Rule::Repeated, "its end is known".to_owned()));
                }
            }
            Outcome::Superseded | Outcome::Gone => {}
        }
        if matches!(outcome, Outcome::Done | Outcome::Dead | Outcome::Held) {
            let count = self.counts.entry((ledger.watch, *version)).or_default();
            count.names.insert(ledger.rel.clone());
            // `accept` concludes what lies there without having run on it: no repetition.
            if !accepted || count.done == 0 {
                count.done += 1;
            }
            if *disposal == Disposal::Keep {
                count.left += 1;
            }
        }
        if let Some(text) = other {
            wrong = Some((Rule::ConcludedOnce, text));
        }
        if accepted && let Some(text) = self.is_of_another(job, version) {
            wrong = Some((Rule::ConcludedOnce, text));
        }
        if let Some((rule, text)) = wrong {
            self.broken(rule, format!("{record:?}: {text}"));
        }
        self.planned(job, outcome, disposal);
    }

    /// "`on_change = "accept"` is for jobs that edit their file in place", and a renamed file carries its queued job: another
    /// file, which has a job, is not what this one's command left.
    fn is_of_another(&self, job: JobId, version: &Version) -> Option<String> {
        let ledger = self.jobs.get(&job)?;
        if (ledger.settled.ino, ledger.settled.btime_ns) == (version.ino, version.btime_ns) {
            return None;
        }
        let (other, _) = self.jobs.iter().find(|(id, other)| {
            **id != job
                && other.watch == ledger.watch
                && other.concluded.is_none()
                && other.settled == *version
        })?;
        Some(format!("what it found is the file of {other:?}"))
    }

    /// What is going to happen to the file is what the plan says.
    fn planned(&mut self, job: JobId, outcome: Outcome, disposal: &Disposal) {
        let Some(ledger) = self.jobs.get(&job) else {
            return;
        };
        let plan = &self.watches[ledger.watch].plan;
        let want = match outcome {
            Outcome::Done => &plan.done,
            Outcome::Dead => &plan.dead,
            Outcome::Superseded | Outcome::Gone | Outcome::Held => &Disposition::Keep,
        };
        // Of a directory that is gone nobody knows where it was.
        let placed = ledger
            .place
            .is_some_and(|(dir, _)| self.dirs.contains_key(&dir));
        let right = match (want, disposal) {
            (Disposition::Keep, Disposal::Keep) | (Disposition::Delete, Disposal::Delete) => true,
            (Disposition::Move { to, flatten }, Disposal::Move { dir, rel }) => {
                let name = ledger.rel.rsplit(|&b| b == b'/').next();
                let want = if *flatten {
                    name.unwrap_or_default()
                } else {
                    ledger.rel.as_slice()
                };
                to.text().as_bytes() == dir.as_slice() && (!placed || want == rel)
            }
            _ => false,
        };
        if !right {
            let text =
                format!("{job:?} is {outcome:?}, planned is {want:?}, recorded {disposal:?}");
            self.broken(Rule::Disposition, text);
        }
    }

    /// A file's path below its root.
    fn rel(&self, dir: DirId, name: &[u8]) -> Vec<u8> {
        let mut rel = name.to_vec();
        let mut at = dir;
        for _ in 0..64 {
            match self.names.get(&at) {
                Some((parent, name)) if *parent != DirId(0) => {
                    rel = [name.as_slice(), b"/", &rel].concat();
                    at = *parent;
                }
                _ => break,
            }
        }
        rel
    }
}
