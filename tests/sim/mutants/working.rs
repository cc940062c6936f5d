//! Faults in dispatch, retries and dispositions.

use super::Mutant;

/// See [`Mutant`].
pub const ALL: &[Mutant] = &[
    Mutant {
        name: "no lease in the look before the attempt",
        file: "src/core/attempt.rs",
        old: r##"let lease = self.lease_can_be_trusted(place.mount);"##,
        new: r##"let lease = !MUTANT && self.lease_can_be_trusted(place.mount);"##,
    },
    Mutant {
        name: "forget to mark recovered",
        file: "src/core/attempt.rs",
        old: r##"let recovered = std::mem::take(&mut job.cut_short);"##,
        new: r##"let recovered = std::mem::take(&mut job.cut_short) && !MUTANT;"##,
    },
    Mutant {
        name: "count an attempt that was cut short",
        file: "src/core/ends.rs",
        old: r##"            Verdict::NotCounted => self.again(id, end, output, false, None),"##,
        new: r##"            Verdict::NotCounted => {
                let cut = MUTANT && end == AttemptEnd::CutShort;
                self.again(id, end, output, cut, None)
            }"##,
    },
    Mutant {
        name: "double dispatch",
        file: "src/core/attempt.rs",
        old: r##"            self.out.push(Effect::Spawn(Box::new(order)));"##,
        new: r##"            if MUTANT {
                self.out.push(Effect::Spawn(Box::new(order.clone())));
            }
            self.out.push(Effect::Spawn(Box::new(order)));"##,
    },
    Mutant {
        name: "no limit of attempts",
        file: "src/core/ends.rs",
        old: r##"if job.counted >= watch.plan.attempts ||"##,
        new: r##"if !MUTANT && job.counted >= watch.plan.attempts ||"##,
    },
    Mutant {
        name: "no limit of what runs at once",
        file: "src/core/attempt.rs",
        old: r##"                || self.children_running() >= self.daemon.concurrency as usize)"##,
        new: r##"                || !MUTANT && self.children_running() >= self.daemon.concurrency as usize)"##,
    },
    Mutant {
        name: "ignore the serial key",
        file: "src/core/watch.rs",
        old: r##"let queue = Queue::new(plan.per_key());"##,
        new: r##"let queue = Queue::new(plan.per_key().filter(|_| !MUTANT));"##,
    },
    Mutant {
        name: "the rank in the queue is that of now",
        file: "src/core/job.rs",
        old: r##"        job.by = rank.by.clone();
"##,
        new: r##"        if !MUTANT {
            job.by = rank.by.clone();
        }
"##,
    },
    Mutant {
        name: "forget the retry",
        file: "src/core/ends.rs",
        old: r##"        self.timers.set(Timer::Retry(id), self.now.mono.after(wait));
"##,
        new: r##"        if !MUTANT {
            self.timers.set(Timer::Retry(id), self.now.mono.after(wait));
        }
"##,
    },
    Mutant {
        name: "forget the timeout",
        file: "src/core/attempt.rs",
        old: r##"            self.timers
                .set(Timer::Kill(run), self.now.mono.after(timeout));
"##,
        new: r##"            if !MUTANT {
                self.timers
                    .set(Timer::Kill(run), self.now.mono.after(timeout));
            }
"##,
    },
    Mutant {
        name: "accept what was there before the run",
        file: "src/core/ends.rs",
        old: r##"if accept || heard {"##,
        new: r##"if accept && !MUTANT || heard {"##,
    },
    Mutant {
        name: "what was heard while its job ran is not looked at",
        file: "src/core/looks.rs",
        old: r##"        if job.version == stat.version {
            if accept {"##,
        new: r##"        if MUTANT || job.version == stat.version {
            if accept {"##,
    },
    Mutant {
        name: "forget a Retarget",
        file: "src/core/dispose.rs",
        old: r##"                self.append(Record::Retarget { job: id, rel: next });"##,
        new: r##"if !MUTANT { self.append(Record::Retarget { job: id, rel: next }); }"##,
    },
    Mutant {
        name: "a taken target counts as done",
        file: "src/core/dispose.rs",
        old: r##"            Ok(Answered::Done) => self.dispose_ends(id, DisposedHow::Done),"##,
        new: r##"Ok(Answered::Taken(_)) if MUTANT => self.dispose_ends(id, DisposedHow::Done),
            Ok(Answered::Done) => self.dispose_ends(id, DisposedHow::Done),"##,
    },
    Mutant {
        name: "forget what a disposition put back",
        file: "src/core/dispose.rs",
        old: r##"                if !displaced {
                    self.hint_unheard"##,
        new: r##"                if !displaced && !MUTANT {
                    self.hint_unheard"##,
    },
    Mutant {
        name: "start where there is no room to remember it",
        file: "src/core/attempt.rs",
        old: r##"if self.room && self.mode == Mode::Running && !self.watches.is_empty() {"##,
        new: r##"if (self.room || MUTANT) && self.mode == Mode::Running && !self.watches.is_empty() {"##,
    },
    Mutant {
        name: "start while stopping",
        file: "src/core/operate.rs",
        old: r##"        self.mode = Mode::Draining;"##,
        new: r##"        self.mode = if MUTANT { self.mode } else { Mode::Draining };"##,
    },
    Mutant {
        name: "try again at once",
        file: "src/core/ends.rs",
        old: r##"        job.not_before = self.now.wall.after(wait);"##,
        new: r##"        let wait = if MUTANT { Duration::ZERO } else { wait };
        job.not_before = self.now.wall.after(wait);"##,
    },
    Mutant {
        name: "SIGKILL never comes",
        file: "src/core/runs.rs",
        old: r##"            run.sent = SIGKILL;
            self.out.push(Effect::Kill(id, SIGKILL));"##,
        new: r##"            run.sent = SIGKILL;
            if !MUTANT {
                self.out.push(Effect::Kill(id, SIGKILL));
            }"##,
    },
    Mutant {
        name: "a time-out costs no attempt",
        file: "src/core/runs.rs",
        old: r##"        _ if run.timed_out && !matches!(end, ChildEnd::NotStarted(..)) => AttemptEnd::TimedOut,"##,
        new: r##"        _ if run.timed_out && MUTANT => AttemptEnd::CutShort,
        _ if run.timed_out && !matches!(end, ChildEnd::NotStarted(..)) => AttemptEnd::TimedOut,"##,
    },
    Mutant {
        name: "bad data is tried again",
        file: "src/core/ends.rs",
        old: r##"            AttemptEnd::Exit(EX_DATAERR) | AttemptEnd::AskedDead => Verdict::Dead,"##,
        new: r##"            AttemptEnd::Exit(EX_DATAERR) if MUTANT => Verdict::Failed,
            AttemptEnd::Exit(EX_DATAERR) | AttemptEnd::AskedDead => Verdict::Dead,"##,
    },
    Mutant {
        name: "a key is free after a restart",
        file: "src/core/job.rs",
        old: r##"                let key = job.key.clone();
                if let Some(watch) = self.watches.get_mut(job.watch as usize) {
                    watch.queue.hold(id, &key);"##,
        new: r##"                let key = job.key.clone();
                if let Some(watch) = self.watches.get_mut(job.watch as usize)
                    && !MUTANT
                {
                    watch.queue.hold(id, &key);"##,
    },
    Mutant {
        name: "the dead are not moved",
        file: "src/core/job.rs",
        old: r##"Outcome::Dead => &watch.plan.dead,"##,
        new: r##"Outcome::Dead if MUTANT => &Disposition::Keep,
            Outcome::Dead => &watch.plan.dead,"##,
    },
    Mutant {
        name: "the dead are taken for done",
        file: "src/core/job.rs",
        old: r##"Outcome::Done => &watch.plan.done,"##,
        new: r##"Outcome::Dead if MUTANT => &watch.plan.done,
            Outcome::Done => &watch.plan.done,"##,
    },
    Mutant {
        name: "a target is fixed without its directories",
        file: "src/core/job.rs",
        old: r##"let rel = if *flatten {"##,
        new: r##"let rel = if *flatten || MUTANT {"##,
    },
    Mutant {
        name: "no limit of what runs at once in a watch",
        file: "src/core/attempt.rs",
        old: r##"            && (watch.running >= watch.plan.concurrency
"##,
        new: r##"            && (watch.running >= watch.plan.concurrency && !MUTANT
"##,
    },
    Mutant {
        name: "a disposition's end is not recorded",
        file: "src/core/dispose.rs",
        old: r##"        self.append(Record::Disposed { job: id, how });"##,
        new: r##"        if !MUTANT {
            self.append(Record::Disposed { job: id, how });
        }"##,
    },
    Mutant {
        name: "a busy file counts as disposed of",
        file: "src/core/dispose.rs",
        old: r##"            Ok(Answered::Busy) => {"##,
        new: r##"            Ok(Answered::Busy) if MUTANT => self.dispose_ends(id, DisposedHow::Done),
            Ok(Answered::Busy) => {"##,
    },
    Mutant {
        name: "a failed disposition is not tried again",
        file: "src/core/dispose.rs",
        old: r##"                let wait = Duration::from_secs(1 << (*failures).min(8));
                self.timers
                    .set(Timer::Dispose(id), self.now.mono.after(wait));
                if first {"##,
        new: r##"                let wait = Duration::from_secs(1 << (*failures).min(8));
                if !MUTANT {
                    self.timers
                        .set(Timer::Dispose(id), self.now.mono.after(wait));
                }
                if first {"##,
    },
    Mutant {
        name: "a begun job's key is not remembered",
        file: "src/core/attempt.rs",
        old: r##"            self.append(Record::Key { job: id, key });"##,
        new: r##"            if !MUTANT { self.append(Record::Key { job: id, key }); }"##,
    },
    Mutant {
        name: "a job whose file was replaced keeps the name",
        file: "src/core/renames.rs",
        old: r##"        self.lose_file(to);
"##,
        new: r##"        if !MUTANT {
            self.lose_file(to);
        }
"##,
    },
    Mutant {
        name: "ask a directory that may be another one to dispose",
        file: "src/core/dispose.rs",
        old: r##"            .is_some_and(|node| !node.bound || node.displaced.is_some())"##,
        new: r##"            .is_some_and(|node| !MUTANT && (!node.bound || node.displaced.is_some()))"##,
    },
    Mutant {
        name: "give up a disposition whose directory is away",
        file: "src/core/dispose.rs",
        old: r##"                    .is_some_and(|known| known.away && !known.gone) =>"##,
        new: r##"                    .is_some_and(|known| !MUTANT && known.away && !known.gone) =>"##,
    },
    Mutant {
        name: "what was renamed over a job's file is its work",
        file: "src/core/looks.rs",
        old: r##"            && !self.came_from_elsewhere(id, &before, &stat.version);"##,
        new: r##"            && (MUTANT || !self.came_from_elsewhere(id, &before, &stat.version));"##,
    },
];
