//! Faults in replay and in what compaction writes down.

use super::Mutant;

/// See [`Mutant`].
pub const ALL: &[Mutant] = &[
    Mutant {
        name: "a crash is no attempt cut short",
        file: "src/core/replay.rs",
        old: r##"job.cut_short = true;"##,
        new: r##"job.cut_short = !MUTANT;"##,
    },
    Mutant {
        name: "compaction forgets failed attempts",
        file: "src/core/replay.rs",
        old: r##"            counted: job.counted,
            not_before: job.not_before,
            output: Vec::new(),"##,
        new: r##"            counted: if MUTANT { 0 } else { job.counted },
            not_before: job.not_before,
            output: Vec::new(),"##,
    },
    Mutant {
        name: "what is owed is not told of after a compaction",
        file: "src/core/replay.rs",
        old: r##"            return self.jobs.contains_key(&summary.job);"##,
        new: r##"            return !MUTANT && self.jobs.contains_key(&summary.job);"##,
    },
    Mutant {
        name: "what ended is told of as long as its file is there only",
        file: "src/core/replay.rs",
        old: r##"        remembered || over >= since"##,
        new: r##"        remembered || !MUTANT && over >= since"##,
    },
    Mutant {
        name: "a second compaction forgets what the first carried over",
        file: "src/journal/history.rs",
        old: r##"            return over(past);"##,
        new: r##"            if MUTANT {
                return;
            }
            return over(past);"##,
    },
    Mutant {
        name: "what was renamed when all was over is told of twice",
        file: "src/journal/history.rs",
        old: r##"            self.open.insert(job, past);
            return;"##,
        new: r##"            self.open.insert(job, past.clone());
            if MUTANT {
                over(past);
            }
            return;"##,
    },
    Mutant {
        name: "what waits to be renamed goes with whoever has its name",
        file: "src/journal/history.rs",
        old: r##"            && let Some(past) = self.open.remove(&old)
        {"##,
        new: r##"            && let Some(past) = self.open.remove(&old)
            && !MUTANT
        {"##,
    },
    Mutant {
        name: "compaction forgets the last number",
        file: "src/core/replay.rs",
        old: r##"let jobs = jobs.chain(number);"##,
        new: r##"let jobs = jobs.chain(number.filter(|_| !MUTANT));"##,
    },
    Mutant {
        name: "a clock that was set back prolongs a wait",
        file: "src/core/replay.rs",
        old: r##".min((longest + longest / 4).max(job.asked))"##,
        new: r##".min(if MUTANT { Duration::MAX } else { (longest + longest / 4).max(job.asked) })"##,
    },
    Mutant {
        name: "compaction forgets when a wait began",
        file: "src/core/replay.rs",
        old: r##"                    end: AttemptEnd::AskedRetry,
                    not_before,
                    ..
                } => self"##,
        new: r##"                    end: AttemptEnd::AskedRetry,
                    not_before,
                    ..
                } if !MUTANT => self"##,
    },
    Mutant {
        name: "attempts are counted anew after a crash",
        file: "src/core/replay.rs",
        old: r##"job.counted = counted;"##,
        new: r##"job.counted = if MUTANT { 0 } else { counted };"##,
    },
    Mutant {
        name: "replay forgets when to try again",
        file: "src/core/replay.rs",
        old: r##"job.not_before = not_before;"##,
        new: r##"job.not_before = if MUTANT { Wall(0) } else { not_before };"##,
    },
    Mutant {
        name: "replay forgets a retarget",
        file: "src/core/replay.rs",
        old: r##"                    *target = rel;"##,
        new: r##"                    if !MUTANT {
                        *target = rel;
                    }"##,
    },
    Mutant {
        name: "replay forgets what went away",
        file: "src/core/replay.rs",
        old: r##"            Record::Gone { dir, name_hash } => {"##,
        new: r##"            Record::Gone { .. } if MUTANT => {}
            Record::Gone { dir, name_hash } => {"##,
    },
    Mutant {
        name: "replay forgets which files are only away",
        file: "src/core/replay.rs",
        old: r##"away: state & STATE_AWAY != 0,"##,
        new: r##"away: state & STATE_AWAY != 0 && !MUTANT,"##,
    },
    Mutant {
        name: "replay forgets where a job's file went",
        file: "src/core/replay.rs",
        old: r##"if let Some(id) = self.job_of.remove(&from) {
                    self.job_of.insert(to, id);"##,
        new: r##"if let Some(id) = self.job_of.get(&from).copied().filter(|_| !MUTANT) {
                    self.job_of.remove(&from);
                    self.job_of.insert(to, id);"##,
    },
    Mutant {
        name: "replay forgets an end",
        file: "src/core/replay.rs",
        old: r##"                if let Some(job) = self.jobs.get_mut(&job) {
                    job.cut_short = matches!(end"##,
        new: r##"                if let Some(job) = self.jobs.get_mut(&job).filter(|_| !MUTANT) {
                    job.cut_short = matches!(end"##,
    },
    Mutant {
        name: "replay gives a number twice",
        file: "src/core/replay.rs",
        old: r##"        self.last_job = self.last_job.max(id.0);"##,
        new: r##"        self.last_job = if MUTANT { self.jobs.len() as u64 + 1 } else { self.last_job.max(id.0) };"##,
    },
    Mutant {
        name: "compaction drops a remembered file",
        file: "src/core/replay.rs",
        old: r##"let files = self.files.iter().map("##,
        new: r##"let files = self.files.iter().skip(usize::from(MUTANT)).map("##,
    },
    Mutant {
        name: "compaction drops a disposition",
        file: "src/core/replay.rs",
        old: r##"if let (Phase::Disposing { disposal, .. }, Some(outcome)) = (&job.phase, job.outcome) {"##,
        new: r##"if let (Phase::Disposing { disposal, .. }, Some(outcome)) = (&job.phase, job.outcome)
        && !MUTANT
    {"##,
    },
];
