//! What the journal says became of each job, held against what was run and against the log.

use super::Campaign;
use super::bed::Run;
use super::oracle::Deeds;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// A job, as the journal has it.
#[derive(Clone, Debug, Default)]
struct Job {
    name: String,
    /// Attempts that began.
    started: Vec<u64>,
    /// How attempts ended that were not the last.
    ended: BTreeMap<u64, String>,
    /// Outcomes, with the time of their records.
    concluded: Vec<(String, i64)>,
}

/// All jobs of a journal that is never compacted; of one that is, those that are still owed.
#[derive(Debug, Default)]
pub struct Owed {
    jobs: BTreeMap<u64, Job>,
    /// The times of all records.
    times: Vec<i64>,
}

impl Owed {
    /// Reads the journal, beside a daemon or after its end. `None`: a compaction has come between.
    pub fn read(state: &Path) -> Option<Owed> {
        let dump = Command::new(env!("CARGO_BIN_EXE_settled"))
            .args(["journal", "dump", "--json", "--state"])
            .arg(state)
            .output()
            .expect("the built program");
        if !dump.status.success() {
            return None;
        }
        let mut owed = Owed::default();
        for line in dump.stdout.split(|byte| *byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let row: serde_json::Value = serde_json::from_slice(line).expect("JSON");
            let number = |key: &str| row[key].as_u64().unwrap_or_default();
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let wall = row["wall_ns"].as_i64().expect("a time");
            owed.times.push(wall);
            let kind = text("kind");
            if !matches!(
                kind.as_str(),
                "settled" | "started" | "started-slot" | "ended" | "concluded"
            ) || (kind == "settled" && number("dir") == 0)
            {
                continue;
            }
            let job = owed.jobs.entry(number("job")).or_default();
            match kind.as_str() {
                "settled" => job.name = text("name"),
                "ended" => drop(job.ended.insert(number("attempt"), text("end"))),
                "concluded" => job.concluded.push((text("outcome"), wall)),
                _ => job.started.push(number("attempt")),
            }
        }
        Some(owed)
    }

    /// Jobs, and how many of them are not concluded.
    pub fn count(&self) -> (usize, usize) {
        let open = |job: &&Job| job.concluded.is_empty();
        (self.jobs.len(), self.jobs.values().filter(open).count())
    }

    /// Names of files whose jobs are held.
    pub fn held(&self) -> Vec<String> {
        let held = self.jobs.values().filter(|job| job.is("held"));
        held.map(|job| job.name.clone()).collect()
    }

    /// `done 17, held 3 (1 of those held not named)`
    pub fn figures(&self, log: &str) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for job in self.jobs.values() {
            let outcome = job.concluded.first().map_or("owed", |(outcome, _)| outcome);
            *counts.entry(outcome).or_default() += 1;
        }
        let counts: Vec<_> = counts
            .iter()
            .map(|(what, n)| format!("{what} {n}"))
            .collect();
        let unnamed = self
            .jobs
            .iter()
            .filter(|(id, job)| job.is("held") && times_named(log, **id) == 0)
            .count();
        format!("{} ({unnamed} of those held not named)", counts.join(", "))
    }

    /// Everything that is not as promised. `kills`: when a life of the daemon was over.
    pub fn judge(
        &self,
        campaign: &Campaign,
        deeds: &Deeds,
        kills: &[i64],
        log: &str,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut by_name: BTreeMap<&str, usize> = BTreeMap::new();
        for (id, job) in &self.jobs {
            *by_name.entry(&job.name).or_default() += 1;
            let poisoned = job.name.starts_with('p') && campaign.poison();
            let [(outcome, at)] = &job.concluded[..] else {
                wrong.push(format!("job {id} was not concluded once: {job:?}"));
                continue;
            };
            let fits = match outcome.as_str() {
                "done" => !poisoned,
                "dead" => poisoned,
                // Taken away, or written over, by somebody who had seen it run.
                "superseded" | "gone" => !campaign.unique,
                "held" => campaign.once(),
                _ => false,
            };
            if !fits {
                wrong.push(format!("job {id} should not have ended so: {job:?}"));
            }
            let named = times_named(log, *id);
            // A line that was never written because the daemon was killed between the record and the line: there is
            // no later record of that life.
            let end = kills
                .iter()
                .copied()
                .find(|kill| kill > at)
                .unwrap_or(i64::MAX);
            let cut_off = !self.times.iter().any(|time| time > at && *time < end);
            match (outcome.as_str(), named) {
                ("held", 1) => {}
                ("held", 0) if cut_off => {}
                ("held", _) | (_, 1..) => {
                    wrong.push(format!("job {id} was named as held {named} times: {job:?}"));
                }
                _ => {}
            }
            if campaign.once() && outcome == "done" && deeds.of(*id).len() != 1 {
                wrong.push(format!("job {id} is done, and was not run: {job:?}"));
            }
        }
        if campaign.unique {
            let twice = by_name.iter().filter(|(_, count)| **count > 1);
            wrong.extend(twice.map(|(name, count)| format!("{name} has {count} jobs")));
        }
        for run in &deeds.runs {
            wrong.extend(self.judge_run(campaign, run));
        }
        wrong
    }

    /// Whether a run says of itself what is so.
    fn judge_run(&self, campaign: &Campaign, run: &Run) -> Option<String> {
        let Some(job) = self.jobs.get(&number_of(&run.job)) else {
            return Some(format!("the journal has no such job: {run:?}"));
        };
        let attempt = u64::from(run.attempt);
        if !job.started.contains(&attempt) {
            return Some(format!("no such attempt was recorded: {run:?} {job:?}"));
        }
        // The one before that may have done something.
        let before = (1..attempt).rev().find_map(|before| {
            let how = job.ended.get(&before).map(String::as_str);
            let began = !how.is_some_and(|how| {
                how.starts_with("not started") || matches!(how, "not the file" | "still written")
            });
            began.then_some(how)
        });
        let expected = matches!(
            before,
            Some(None | Some("cut short" | "failed together with others"))
        );
        // A batch says so of all its files, if it is so of one.
        if expected == run.recovered || (campaign.batch() && run.recovered) {
            return None;
        }
        Some(format!(
            "should it say that it repeats what was cut short? {expected}: {run:?} {job:?}"
        ))
    }
}

impl Job {
    fn is(&self, outcome: &str) -> bool {
        self.concluded.iter().any(|(own, _)| own == outcome)
    }
}

/// The journal's number of a job that has this name.
pub fn number_of(job: &str) -> u64 {
    let digits = job.rsplit('-').next().expect("a number");
    digits.parse().expect("a number")
}

/// How often the log says that a job is held.
fn times_named(log: &str, id: u64) -> usize {
    log.lines()
        .filter(|line| line.contains(" held: ") && names_job(line, id))
        .count()
}

fn names_job(line: &str, id: u64) -> bool {
    line.split(' ')
        .find_map(|word| word.strip_prefix("job="))
        .is_some_and(|job| number_of(job) == id)
}
