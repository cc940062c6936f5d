//! What became of each job, as its records said when they were written: what compaction carries over must say the same.

use settled::core::record::{AttemptEnd, Disposal, Outcome, Record, Summary};
use settled::core::time::Wall;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    settled: Wall,
    concluded: Option<(Outcome, Wall)>,
    over: Option<Wall>,
    attempt: u32,
    started: Wall,
    end: Option<(AttemptEnd, Wall)>,
    output: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Past {
    jobs: BTreeMap<u64, Told>,
}

impl Past {
    /// A record is durable: never one that compaction wrote.
    pub fn note(&mut self, at: Wall, record: &Record) {
        if let Record::Settled { job, dir, .. } = record
            && dir.0 != 0
        {
            let told = Told {
                settled: at,
                ..Told::default()
            };
            self.jobs.insert(job.0, told);
        }
        let (Record::Started { job, .. }
        | Record::Ended { job, .. }
        | Record::Concluded { job, .. }
        | Record::Disposed { job, .. }) = record
        else {
            return;
        };
        let Some(told) = self.jobs.get_mut(&job.0) else {
            return;
        };
        match record {
            Record::Started { attempt, .. } => {
                told.attempt = *attempt;
                told.started = at;
                told.end = None;
                told.output.clear();
            }
            Record::Ended {
                attempt,
                end,
                output,
                ..
            } if *attempt == told.attempt => {
                told.end = Some((*end, at));
                told.output.clone_from(output);
            }
            Record::Concluded {
                outcome,
                end,
                disposal,
                output,
                ..
            } => {
                told.concluded = Some((*outcome, at));
                if let (Some(end), None, true) = (end, &told.end, told.attempt > 0) {
                    told.end = Some((*end, at));
                    told.output.clone_from(output);
                }
                told.over = (*disposal == Disposal::Keep).then_some(at);
            }
            Record::Disposed { .. } => told.over = Some(at),
            _ => {}
        }
    }

    /// What these summaries, written at `now`, do not say or say otherwise.
    pub fn untold(
        &self,
        now: Wall,
        remember: Duration,
        written: &[(Wall, Record)],
    ) -> Option<String> {
        let mut found = BTreeMap::new();
        for (settled, record) in written {
            let Record::Summary(summary) = record else {
                continue;
            };
            if found
                .insert(summary.job.0, said(*settled, summary))
                .is_some()
            {
                return Some(format!("two summaries of one job: {summary:?}"));
            }
        }
        let since = now.before(remember);
        for (job, told) in &self.jobs {
            match found.remove(job) {
                Some(found) if found == *told => {}
                None if told.over.is_some_and(|at| at < since) => {}
                other => return Some(format!("job {job}: {told:?}, carried over as {other:?}")),
            }
        }
        let (job, _) = found.first_key_value()?;
        Some(format!("job {job}: there was none"))
    }
}

fn said(settled: Wall, of: &Summary) -> Told {
    let last = of.attempts.last();
    Told {
        settled,
        concluded: of.concluded,
        over: of.over(),
        attempt: last.map_or(0, |made| made.number),
        started: last.map_or(Wall(0), |made| made.started),
        end: last.and_then(|made| made.end),
        output: last.map_or(Vec::new(), |made| made.output.clone()),
    }
}
