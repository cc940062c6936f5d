//! `run`, `worker` or `deliver`: which one a watch has, and what fits to it.

use super::dispatch::RawBatch;
use super::{Notes, RawWatch};
use crate::config::error::{At, Spot};
use crate::config::values::Environment;
use crate::core::template::{FIELDS, Field, Template};
use crate::plan::{Action, BatchPlan, Delivery, WorkerPlan};

/// Which action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Run,
    Worker,
    Deliver,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Kind::Run => "run",
            Kind::Worker => "worker",
            Kind::Deliver => "deliver",
        }
    }
}

/// Which one this is; `None` if there is none, or several, or one that is wrong: that is noted.
pub(super) fn kind(
    own: &RawWatch,
    defaults: &RawWatch,
    block: &Spot,
    notes: &mut Notes,
) -> Option<Kind> {
    // What a watch does is its own word, whatever the others do.
    for raw in [own, defaults] {
        if ["run", "worker", "deliver"]
            .iter()
            .any(|key| raw.bad.contains(*key))
        {
            return None;
        }
        let mut there: Vec<(Kind, &Spot)> = [
            (Kind::Run, raw.run.as_ref().map(|at| &at.spot)),
            (Kind::Worker, raw.worker.as_ref().map(|at| &at.spot)),
            (Kind::Deliver, raw.deliver.as_ref().map(|at| &at.spot)),
        ]
        .into_iter()
        .filter_map(|(kind, spot)| Some((kind, spot?)))
        .collect();
        there.sort_by_key(|(_, spot)| spot.line);
        let mut there = there.into_iter();
        let Some((first, _)) = there.next() else {
            continue;
        };
        let mut one = true;
        for (kind, spot) in there {
            let what = format!(
                "there is {} already, and a watch does one thing; remove one of them",
                first.key()
            );
            notes.add(spot, kind.key(), &what);
            one = false;
        }
        return one.then_some(first);
    }
    notes.add(
        block,
        "run",
        "is missing; say what to do, as in run = [\"/usr/local/bin/load\", \"{path}\"], or with worker or deliver",
    );
    None
}

/// Notes the keys that a watch itself has, and that mean nothing to what it does. Those of `[defaults]` are
/// for the other watches.
pub(super) fn only_fitting(own: &RawWatch, kind: Kind, notes: &mut Notes) {
    macro_rules! unfit {
        ($what:expr; $($key:ident)*) => {{
            $(if let Some(at) = &own.$key {
                notes.add(&at.spot, stringify!($key), $what);
            })*
        }};
    }
    match kind {
        Kind::Run => {
            unfit!("is for worker, and this watch has run; remove it"; workers window ready);
        }
        Kind::Worker => {
            unfit!("is for run: a worker says what became of a job; remove it"; permanent temporary);
            unfit!("is for run and deliver: workers and window bound a worker's jobs; remove it"; concurrency);
        }
        Kind::Deliver => {
            unfit!("is for worker, and this watch has deliver; remove it"; workers window ready);
            unfit!("is for commands, and this watch has deliver; remove it";
                batch env cwd output permanent temporary);
        }
    }
}

/// The action with what belongs to it.
pub(super) fn action(
    own: &RawWatch,
    defaults: &RawWatch,
    kind: Kind,
    notes: &mut Notes,
) -> Option<Action> {
    macro_rules! said {
        ($key:ident) => {
            own.$key.as_ref().or(defaults.$key.as_ref())
        };
    }
    let arguments =
        |list: &At<Vec<At<Template>>>| list.value.iter().map(|t| t.value.clone()).collect();
    match kind {
        Kind::Run => Some(Action::Run(arguments(said!(run)?))),
        Kind::Worker => {
            let argv = said!(worker)?;
            for (n, argument) in argv.value.iter().enumerate() {
                of_no_job(argument, &format!("worker[{n}]"), notes);
            }
            for (name, value) in said!(env).iter().flat_map(|e| &e.value) {
                of_no_job(value, &format!("env.{name}"), notes);
            }
            Some(Action::Worker(WorkerPlan {
                argv: arguments(argv),
                workers: said!(workers).map_or(1, |w| w.value),
                window: said!(window).map_or(1, |w| w.value),
                ready: said!(ready).map(|r| r.value),
            }))
        }
        Kind::Deliver => Some(Action::Deliver(said!(deliver)?.value.clone())),
    }
}

/// A worker is started before it has a job.
fn of_no_job(text: &At<Template>, place: &str, notes: &mut Notes) {
    let used = FIELDS
        .iter()
        .find(|(_, field)| *field != Field::Watch && text.value.uses(*field));
    if let Some((name, _)) = used {
        let what = format!(
            "{{{name}}} is of a job, and a worker is started before it has one; use {{watch}} alone, the rest comes with each job"
        );
        notes.add(&text.spot, place, &what);
    }
}

/// The first field in a template that each file of a batch has for itself.
fn of_a_file(template: &Template) -> Option<&'static str> {
    FIELDS
        .iter()
        .find(|(_, field)| {
            !matches!(field, Field::Watch | Field::Date | Field::Key) && template.uses(*field)
        })
        .map(|(name, _)| *name)
}

/// The batch with all that must fit to it.
pub(super) struct Batch<'a> {
    pub(super) raw: &'a At<RawBatch>,
    /// The watch itself says it.
    pub(super) own: bool,
    pub(super) run: Option<&'a At<Vec<At<Template>>>>,
    pub(super) env: Option<&'a At<Environment>>,
    pub(super) serial: bool,
    pub(super) delivery: Delivery,
}

impl Batch<'_> {
    /// Of a watch that does this.
    pub(super) fn plan(&self, action: &Action, notes: &mut Notes) -> Option<BatchPlan> {
        let RawBatch {
            max,
            wait,
            mut split,
            mut stdin,
        } = self.raw.value;
        match action {
            Action::Deliver(_) => return None,
            Action::Worker(worker) => {
                for (key, set) in [("batch.stdin", &mut stdin), ("batch.split", &mut split)] {
                    if *set && self.own {
                        let what = "is for run: a worker is fed lines, and answers for each job; remove it";
                        notes.add(&self.raw.spot, key, what);
                    }
                    *set = false;
                }
                if max > worker.window {
                    let what = format!(
                        "is more than the window of a worker ({}), and never comes together; raise window, or lower max",
                        worker.window
                    );
                    notes.add(&self.raw.spot, "batch.max", &what);
                }
            }
            Action::Run(_) => self.fits_run(stdin, notes),
        }
        if split && self.delivery == Delivery::AtMostOnce {
            let what = "runs the files of a batch again, which delivery = \"at-most-once\" forbids; remove one of them";
            notes.add(&self.raw.spot, "batch.split", what);
        }
        Some(BatchPlan {
            max,
            wait,
            split,
            stdin,
        })
    }

    fn fits_run(&self, stdin: bool, notes: &mut Notes) {
        let arguments = self.run.map(|r| r.value.as_slice()).unwrap_or_default();
        let mut named = stdin;
        for (n, argument) in arguments.iter().enumerate() {
            let place = format!("run[{n}]");
            self.one_key(argument, &place, notes);
            let Some(field) = of_a_file(&argument.value) else {
                continue;
            };
            if n == 0 {
                let what = format!(
                    "{{{field}}} is of one file, and a batch has one program for all of them; name a program"
                );
                notes.add(&argument.spot, &place, &what);
            } else if stdin {
                let what = format!(
                    "{{{field}}} is of one file, and the batch's files go to standard input; remove it, or batch.stdin"
                );
                notes.add(&argument.spot, &place, &what);
            }
            named = true;
        }
        if !named {
            let what = "has no argument that names the files; add \"{path}\" to run, which is repeated for each, or set stdin = true";
            notes.add(&self.raw.spot, "batch", what);
        }
        for (name, value) in self.env.iter().flat_map(|e| &e.value) {
            let place = format!("env.{name}");
            self.one_key(value, &place, notes);
            if let Some(field) = of_a_file(&value.value) {
                let what = format!(
                    "{{{field}}} is of one file, and a batch has one environment for all of them; remove it"
                );
                notes.add(&value.spot, &place, &what);
            }
        }
    }

    /// Files of several keys come together, unless one key's jobs wait for each other.
    fn one_key(&self, text: &At<Template>, place: &str, notes: &mut Notes) {
        if text.value.uses(Field::Key) && !self.serial {
            let what = "{key} is the same for all files of a batch only with serial = true; add that, or remove {key}";
            notes.add(&text.spot, place, what);
        }
    }
}
