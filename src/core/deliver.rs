//! Deliveries: what the built-in children are told.

use super::ids::JobId;
use super::runs::Kind;
use super::{Core, Effect, Program, SpawnOrder, Stdin};
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
            let argv = vec![
                b"settled".to_vec(),
                b"sweep".to_vec(),
                to,
                format!("{:08x}", self.journal).into_bytes(),
            ];
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

    pub(super) fn delivery_arguments(
        &self,
        _id: JobId,
        _plan: &DeliverPlan,
        _recovered: bool,
    ) -> Vec<Vec<u8>> {
        Vec::new()
    }
}
