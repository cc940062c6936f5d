//! Faults in batches, workers, keys, rates, halts and orphans.

use super::Mutant;

/// See [`Mutant`].
pub const ALL: &[Mutant] = &[
    Mutant {
        name: "feed before the record",
        file: "tests/sim/effects.rs",
        old: r##"        if crash && self.rng.chance(1, 2) {
            self.store.soon_off(&mut self.rng, 4);"##,
        new: r##"        for effect in effects.iter().filter(|_| MUTANT) {
            if let Effect::Feed(run, lines) = effect {
                self.feed(*run, lines);
            }
        }
        if crash && self.rng.chance(1, 2) {
            self.store.soon_off(&mut self.rng, 4);"##,
    },
    Mutant {
        name: "count a lost window",
        file: "src/core/workers.rs",
        old: r##"            _ if unanswered > 1 => AttemptEnd::Together,"##,
        new: r##"            _ if unanswered > 1 && !MUTANT => AttemptEnd::Together,"##,
    },
    Mutant {
        name: "forget who is to be alone",
        file: "src/core/ends.rs",
        old: r##"job.alone |= end == AttemptEnd::Together;"##,
        new: r##"job.alone |= end == AttemptEnd::Together && !MUTANT;"##,
    },
    Mutant {
        name: "alone beside others",
        file: "src/core/workers.rs",
        old: r##"                true => worker.load() == 0,"##,
        new: r##"                true => MUTANT && worker.load() < window || worker.load() == 0,"##,
    },
    Mutant {
        name: "a window too wide by one",
        file: "src/core/workers.rs",
        old: r##"                false => worker.load() < window,"##,
        new: r##"                false => worker.load() < window + usize::from(MUTANT),"##,
    },
    Mutant {
        name: "a dead job holds nobody up",
        file: "src/core/watch.rs",
        old: r##"        !self.plan.serial && !self.halted.is_empty()"##,
        new: r##"        !MUTANT && !self.plan.serial && !self.halted.is_empty()"##,
    },
    Mutant {
        name: "a dead job lets its serial key go",
        file: "src/core/halt.rs",
        old: r##"            watch.queue.hold(id, &key);
"##,
        new: r##"            if MUTANT {
                watch.queue.remove(&super::queue::Rank::new(false, Box::default(), id), &key);
            } else {
                watch.queue.hold(id, &key);
            }
"##,
    },
    Mutant {
        name: "a halted job whose file has gone",
        file: "src/core/halt.rs",
        old: r##"        self.ask_look(id);
        self.log_job(Level::Error"##,
        new: r##"        if !MUTANT {
            self.ask_look(id);
        }
        self.log_job(Level::Error"##,
    },
    Mutant {
        name: "a halted job whose file another watch disposes of",
        file: "src/core/observe.rs",
        old: r##"                    self.look_if_halted(from);"##,
        new: r##"                    if !MUTANT {
                        self.look_if_halted(from);
                    }"##,
    },
    Mutant {
        name: "at most once, and again",
        file: "src/core/ends.rs",
        old: r##"        let once = plan.delivery == Delivery::AtMostOnce;"##,
        new: r##"        let once = plan.delivery == Delivery::AtMostOnce && !MUTANT;"##,
    },
    Mutant {
        name: "compaction forgets slots",
        file: "src/core/runs.rs",
        old: r##"            Phase::Running { run } => self.runs.get(run).map_or(0, |run| run.slot),"##,
        new: r##"            Phase::Running { run } => {
                self.runs.get(run).map_or(0, |run| if MUTANT { 0 } else { run.slot })
            }"##,
    },
    Mutant {
        name: "a new life does not ask for the old one's slots",
        file: "src/core/orphans.rs",
        old: r##"job.cut_short && job.slot != 0 && matches!"##,
        new: r##"!MUTANT && job.cut_short && job.slot != 0 && matches!"##,
    },
    Mutant {
        name: "that a slot was found free is not recorded",
        file: "src/core/orphans.rs",
        old: r##"            if slot != 0 {
                self.append"##,
        new: r##"            if slot != 0 && !MUTANT {
                self.append"##,
    },
    Mutant {
        name: "orphans that do not heed are left",
        file: "src/core/orphans.rs",
        old: r##"                    Some(at) if at <= now => {"##,
        new: r##"                    Some(at) if !MUTANT && at <= now => {"##,
    },
    Mutant {
        name: "a batch's failure counts for each that is to be split off",
        file: "src/core/runs.rs",
        old: r##"                _ if blurred && end != AttemptEnd::CutShort => AttemptEnd::Together,"##,
        new: r##"                _ if blurred && !MUTANT && end != AttemptEnd::CutShort => AttemptEnd::Together,"##,
    },
    Mutant {
        name: "a batch that never ran has failed together",
        file: "src/core/runs.rs",
        old: r##"            && !matches!(end, AttemptEnd::NotStarted { .. })
"##,
        new: r##"            && (MUTANT || !matches!(end, AttemptEnd::NotStarted { .. }))
"##,
    },
    Mutant {
        name: "what one file lacks counts for its batch",
        file: "src/core/runs.rs",
        old: r##"                Some(file) if many && file as usize != number =>"##,
        new: r##"                Some(file) if !MUTANT && many && file as usize != number =>"##,
    },
    Mutant {
        name: "a batch over its measure",
        file: "src/core/attempt.rs",
        old: r##"            while ids.len() < batch.max as usize {"##,
        new: r##"            while ids.len() < batch.max as usize + usize::from(MUTANT) {"##,
    },
    Mutant {
        name: "a batch of several keys",
        file: "src/core/queue.rs",
        old: r##"        if self.places != Some(1) {"##,
        new: r##"        if MUTANT || self.places != Some(1) {"##,
    },
    Mutant {
        name: "no rate",
        file: "src/core/attempt.rs",
        old: r##"        if watch.plan.rate.is_none() ||"##,
        new: r##"        if MUTANT || watch.plan.rate.is_none() ||"##,
    },
    Mutant {
        name: "a batch costs the rate one start",
        file: "src/core/attempt.rs",
        old: r##"        self.spend_rate(index, ids.len());"##,
        new: r##"        self.spend_rate(index, if MUTANT { 1 } else { ids.len() });"##,
    },
    Mutant {
        name: "a place of a key is never given back",
        file: "src/core/queue.rs",
        old: r##"        line.holders.remove(&rank.job());
        line.offer(places, &mut self.offered);
        if line.holders"##,
        new: r##"        if !MUTANT {
            line.holders.remove(&rank.job());
        }
        line.offer(places, &mut self.offered);
        if line.holders"##,
    },
    Mutant {
        name: "one place too many for a key",
        file: "src/core/queue.rs",
        old: r##"places: per_key.map(|places| places.max(1) as usize),"##,
        new: r##"places: per_key.map(|places| places.max(1) as usize + usize::from(MUTANT && places > 1)),"##,
    },
    Mutant {
        name: "who waits for its retry lets its key go",
        file: "src/core/ends.rs",
        old: r##"        let level = match counts || could_not_start {"##,
        new: r##"        if MUTANT {
            self.dequeue(id);
            self.timers.set(Timer::Retry(id), self.now.mono.after(wait));
        }
        let level = match counts || could_not_start {"##,
    },
    Mutant {
        name: "a worker answers for another's job",
        file: "src/core/workers.rs",
        old: r##"            let (Some(id), Some(position)) = (id, position) else {"##,
        new: r##"            if MUTANT
                && position.is_none()
                && let Some(id) = id
            {
                for worker in self.workers.values_mut() {
                    worker.jobs.retain(|job| *job != id);
                }
                self.attempt_over(id, AttemptEnd::SaidDone, Vec::new(), None);
                continue;
            }
            let (Some(id), Some(position)) = (id, position) else {"##,
    },
    Mutant {
        name: "nonsense is overlooked",
        file: "src/core/workers.rs",
        old: r##"            Err(why) => {
                self.log_worker("##,
        new: r##"            Err(_) if MUTANT => {}
            Err(why) => {
                self.log_worker("##,
    },
    Mutant {
        name: "a worker that hangs is left alone",
        file: "src/core/workers.rs",
        old: r##"            && let Some(timeout) = timeout
        {"##,
        new: r##"            && !MUTANT
            && let Some(timeout) = timeout
        {"##,
    },
    Mutant {
        name: "a worker is fed before it is ready",
        file: "src/core/workers.rs",
        old: r##"worker.is_some_and(|worker| !worker.starting && !worker.ending)"##,
        new: r##"worker.is_some_and(|worker| (MUTANT || !worker.starting) && !worker.ending)"##,
    },
    Mutant {
        name: "a worker that was told to end is fed",
        file: "src/core/workers.rs",
        old: r##"            && self.runs.get(&run).is_some_and(|run| run.sent == 0)
    }"##,
        new: r##"            && self.runs.get(&run).is_some_and(|run| MUTANT || run.sent == 0)
    }"##,
    },
    Mutant {
        name: "handed over without another look",
        file: "src/core/workers.rs",
        old: r##"        if seen {
            self.hand_over(id, run);"##,
        new: r##"        if seen || MUTANT {
            self.hand_over(id, run);"##,
    },
    Mutant {
        name: "handed over though somebody writes",
        file: "src/core/looks.rs",
        old: r##"(Some(Phase::Handing { run }), Some(_)) if same && !written => {"##,
        new: r##"(Some(Phase::Handing { run }), Some(_)) if same && (MUTANT || !written) => {"##,
    },
    Mutant {
        name: "the look for a worker asks for no lease",
        file: "src/core/looks.rs",
        old: r##"                let lease = when.handing && self.lease_can_be_trusted(lane);"##,
        new: r##"                let lease = when.handing && !MUTANT && self.lease_can_be_trusted(lane);"##,
    },
    Mutant {
        name: "a worker is told the path of before a rename",
        file: "src/core/workers.rs",
        old: r##"            if self.renamed == Some(self.now.mono) {"##,
        new: r##"            if !MUTANT && self.renamed == Some(self.now.mono) {"##,
    },
    Mutant {
        name: "a worker is not told that an attempt was cut short",
        file: "src/core/workers.rs",
        old: r##"                members.push((*id, recovered));"##,
        new: r##"                members.push((*id, recovered && !MUTANT));"##,
    },
    Mutant {
        name: "restart a worker at once",
        file: "src/core/workers.rs",
        old: r##"            post.not_before = self.now.mono.after(wait);"##,
        new: r##"            post.not_before = self.now.mono.after(if MUTANT { Duration::ZERO } else { wait });"##,
    },
    Mutant {
        name: "no limit of age",
        file: "src/core/ends.rs",
        old: r##"            let too_old = watch.plan.max_age"##,
        new: r##"            let too_old = !MUTANT && watch.plan.max_age"##,
    },
    Mutant {
        name: "compaction makes jobs young",
        file: "src/core/replay.rs",
        old: r##"                Record::Settled { job, .. } => self.jobs.get(job).map(|job| job.settled),"##,
        new: r##"                Record::Settled { job, .. } if !MUTANT => {
                    self.jobs.get(job).map(|job| job.settled)
                }"##,
    },
    Mutant {
        name: "`permanent` is forgotten",
        file: "src/core/ends.rs",
        old: r##"            AttemptEnd::Exit(status) if plan.permanent.contains(&status) => Verdict::Dead,"##,
        new: r##"            AttemptEnd::Exit(status) if !MUTANT && plan.permanent.contains(&status) => Verdict::Dead,"##,
    },
    Mutant {
        name: "`temporary` is forgotten",
        file: "src/core/ends.rs",
        old: r##"            AttemptEnd::Exit(status) if plan.temporary.contains(&status) => Verdict::Failed,"##,
        new: r##"            AttemptEnd::Exit(status) if !MUTANT && plan.temporary.contains(&status) => Verdict::Failed,"##,
    },
    Mutant {
        name: "a retry comes before its worker wanted it",
        file: "src/core/ends.rs",
        old: r##"                after.unwrap_or_else(|| jittered(doubled, id, job.counted))"##,
        new: r##"                let after = if MUTANT { Some(Duration::ZERO) } else { after };
                after.unwrap_or_else(|| jittered(doubled, id, job.counted))"##,
    },
];
