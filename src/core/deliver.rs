//! Deliveries: what the built-in children are told.

use super::ids::JobId;
use super::runs::Kind;
use super::template::Values;
use super::time::civil_date;
use super::{Core, Effect, Program, SpawnOrder, Stdin, delivery};
use crate::plan::{Action, DeliverPlan};
use std::rc::Rc;

impl Core {
    /// At start: what deliveries of an earlier life left in their targets is taken away.
    pub(super) fn sweep_targets(&mut self) {
        for index in 0..self.watches.len() {
            let plan = &self.watches[index].plan;
            let Action::Deliver(deliver) = &plan.action else {
                continue;
            };
            if !deliver.to.is_fixed() || !self.watches[index].active {
                continue;
            }
            let to = deliver.to.text().as_bytes().to_vec();
            let process = Rc::clone(&plan.process);
            let watch = plan.name.clone();
            let (run, slot) = self.add_run(Kind::Sweep, index as u32, Vec::new());
            self.sweeps += 1;
            let argv = delivery::SweepOrder {
                dir: to,
                journal: format!("{:08x}", self.journal),
            }
            .argv();
            self.out.push(Effect::Spawn(Box::new(SpawnOrder {
                run,
                jobs: Vec::new(),
                program: Program::Own,
                argv,
                env: Vec::new(),
                cwd: b"/".to_vec(),
                files: Vec::new(),
                stdin: Stdin::Nothing,
                process,
                slot,
                output: None,
                watch,
                job_name: String::new(),
                attempt: 0,
            })));
        }
    }

    /// What the child that delivers a job's file is told.
    pub(super) fn delivery_arguments(&self, id: JobId, plan: &DeliverPlan) -> Vec<Vec<u8>> {
        let Some(job) = self.jobs.get(&id) else {
            return Vec::new();
        };
        // The day of settling, so that every attempt has the same target.
        let date = civil_date(job.settled, self.now.utc_offset_s);
        let argv = self.of_job(id, |values, _| {
            let to = plan.to.expand_dir(&Values {
                date: &date,
                ..*values
            });
            // Whatever another attempt may have brought to its end.
            let recovered = job.begun > 1 || job.repeats;
            delivery::argv(plan, &to, values.rel, &job.version, values.job, recovered)
        });
        argv.unwrap_or_default()
    }
}
