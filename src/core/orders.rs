//! What a person asks to be changed: run again, give up, pause, list again. Each is answered with a sentence, and what
//! is to outlive a restart is a record before that.

use super::files::FileKey;
use super::ids::{DirId, JobId};
use super::job::Phase;
use super::observe::PRIVATE_PREFIX;
use super::record::{Outcome, Record};
use super::time::Wall;
use super::timers::Timer;
use super::watch::{Root, Watch};
use super::{Core, Effect};
use crate::plan::{Level, Plan};

/// A job, or a path that may have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Absolute.
    Path(Vec<u8>),
    /// As users see it.
    Job(String),
}

/// What an order is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Which {
    /// See [`Name`].
    pub name: Name,
    /// The watch that is meant, where several have the file.
    pub watch: Option<String>,
}

/// What is asked to be done.
#[derive(Clone, Debug)]
pub enum Order {
    /// Run it again, or now.
    Retry(Which),
    /// Make no more attempts.
    Forget(Which),
    /// Start nothing of a watch.
    Pause(String),
    /// Go on with it.
    Resume(String),
    /// List a watch again, or all.
    Rescan(Option<String>),
    /// Take a configuration that was read and checked.
    Reload(Box<Plan>),
}

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// `not-found` or `conflict`.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

/// What was done, a sentence for each thing; or why nothing was.
pub type Answered = Result<Vec<String>, Declined>;

fn not_found(message: impl Into<String>, remedy: &str) -> Declined {
    Declined {
        code: "not-found",
        message: message.into(),
        remedy: remedy.into(),
    }
}

fn conflict(message: impl Into<String>, remedy: &str) -> Declined {
    Declined {
        code: "conflict",
        message: message.into(),
        remedy: remedy.into(),
    }
}

/// What an order names: a job, and else a place where a file may be.
enum Found {
    Job(JobId),
    Place(u32, DirId, Vec<u8>),
}

impl Core {
    /// Carries an order out and answers it.
    pub(super) fn order_of(&mut self, client: u64, order: Order) {
        let answered = match order {
            Order::Retry(which) => self.retry(&which),
            Order::Forget(which) => self.give_up(&which),
            Order::Pause(watch) => self.pause(&watch, true),
            Order::Resume(watch) => self.pause(&watch, false),
            Order::Rescan(watch) => self.list_again(watch.as_deref()),
            Order::Reload(plan) => Ok(self.reload(*plan)),
        };
        self.out.push(Effect::Answer(client, answered));
    }

    // ---- pause ----

    fn watch_named(&self, name: &str) -> Result<usize, Declined> {
        let mut watches = self.watches.iter();
        let found = watches.position(|watch| watch.plan.name == name && watch.active);
        found.ok_or_else(|| {
            let text = format!("there is no watch of the name {name:?}");
            not_found(text, "'settled status' names them")
        })
    }

    fn pause(&mut self, name: &str, pause: bool) -> Answered {
        let index = self.watch_named(name)?;
        if self.watches[index].paused == pause {
            let text = match pause {
                true => "paused already",
                false => "not paused",
            };
            return Ok(vec![format!("watch {name} is {text}")]);
        }
        self.watches[index].paused = pause;
        let watch = self.watches[index].id;
        self.append(Record::Paused {
            watch,
            paused: pause,
        });
        let (running, ready) = (self.jobs_running_in(index as u32), self.ready_in(index));
        let text = match pause {
            true => format!(
                "paused: nothing of it is started until it is resumed; {running} running go on, {ready} ready wait"
            ),
            false => format!("resumed: {ready} ready"),
        };
        let said = format!("watch {name} {text}");
        let name = name.to_owned();
        self.log(Level::Info, |line| {
            line.text = text;
            line.watch = name;
        });
        Ok(vec![said])
    }

    // ---- rescan ----

    fn list_again(&mut self, name: Option<&str>) -> Answered {
        let watches: Vec<u32> = match name {
            Some(name) => vec![self.watch_named(name)? as u32],
            None => (0..self.watches.len() as u32)
                .filter(|index| self.watches[*index as usize].active)
                .collect(),
        };
        for watch in &watches {
            // A link on the way to a root may lead elsewhere by now: no event tells.
            self.resolve_root(*watch);
            let Some(state) = self.watches.get_mut(*watch as usize) else {
                continue;
            };
            state.history = true;
            let name = state.plan.name.clone();
            if state.root != DirId(0) && self.is_bound_ever(*watch) {
                self.start_scan(*watch);
            }
            self.log(Level::Info, |line| {
                line.text = "asked to list: listing everything again".into();
                line.watch = name;
            });
        }
        Ok(vec![format!(
            "{} listed again; 'settled status' tells when that is over",
            match watches.len() {
                1 => "one watch is".to_owned(),
                n => format!("{n} watches are"),
            }
        )])
    }

    /// Its root was there; while it is looked for again, what is below it can be listed.
    fn is_bound_ever(&self, watch: u32) -> bool {
        let state = self.watches.get(watch as usize);
        state.is_some_and(|state| {
            state.state != Root::Missing && self.tree.mount(state.root).is_some()
        })
    }

    // ---- retry, forget ----

    fn find_job(&self, name: &str, watch: Option<&str>) -> Result<Found, Declined> {
        let number = name.strip_prefix(&format!("{:08x}-", self.journal));
        let id = number.and_then(|number| Some(JobId(number.parse().ok()?)));
        let id = id.filter(|id| self.jobs.contains_key(id)).ok_or_else(|| {
            let remedy = "name its file's path instead";
            not_found(format!("no job {name} is owed"), remedy)
        })?;
        let of = self.jobs.get(&id).map(|job| self.watch_name(job.watch));
        match (watch, of) {
            (Some(watch), Some(of)) if of != watch => {
                let text = format!("job {name} is one of watch {of}");
                Err(not_found(text, "leave --watch out"))
            }
            _ => Ok(Found::Job(id)),
        }
    }

    /// What an order is about: of all watches that have the file, the one for which there is something to be done.
    /// `concluded`: a file that is over will do.
    fn find(&self, which: &Which, concluded: bool) -> Result<Found, Declined> {
        let wanted = which.watch.as_deref();
        let path = match &which.name {
            Name::Job(name) => return self.find_job(name, wanted),
            Name::Path(path) => path,
        };
        let is_wanted = |watch: &Watch| wanted.is_none_or(|name| watch.plan.name == name);
        if !self.watches.iter().any(is_wanted) {
            let text = format!("there is no watch of the name {:?}", wanted.unwrap_or(""));
            return Err(not_found(text, "'settled status' names them"));
        }
        // What has something, each with its watch in words; and what else has the path, the best to tell of last.
        let mut found: Vec<(String, Found)> = Vec::new();
        let mut others = Vec::new();
        for (index, watch) in self.watches.iter().enumerate() {
            let Some((dir, name)) = self.place_of(watch, path).filter(|_| is_wanted(watch)) else {
                continue;
            };
            let (index, key) = (index as u32, FileKey::new(dir, name));
            let of = &watch.plan.name;
            if let Some(id) = self.job_of.get(&key) {
                let text = format!("{of} (job {})", self.job_name(*id));
                found.push((text, Found::Job(*id)));
            } else if watch.active {
                let place = Found::Place(index, dir, name.to_vec());
                let selected = self.selects(index, dir, name);
                let known = self.files.get(key).is_some_and(|known| !known.gone);
                match concluded && selected && known {
                    true => found.push((format!("{of} (concluded)"), place)),
                    false => {
                        let settles = self.candidates.contains_key(&key);
                        others.push(((settles, selected), place));
                    }
                }
            }
        }
        if found.len() > 1 {
            let of: Vec<&str> = found.iter().map(|(of, _)| of.as_str()).collect();
            let text = format!("several watches have this file: {}", of.join(", "));
            return Err(conflict(text, "name one of them with --watch NAME"));
        }
        let other = || Some(others.into_iter().max_by_key(|(rank, _)| *rank)?.1);
        let place = found.pop().map(|(_, place)| place).or_else(other);
        place.ok_or_else(|| {
            let remedy = "'settled explain PATH' says why";
            not_found("no watch has a file of this path", remedy)
        })
    }

    /// Runs it again, or now.
    fn retry(&mut self, which: &Which) -> Answered {
        let (watch, dir, name) = match self.find(which, true)? {
            Found::Job(id) => return self.retry_job(id),
            Found::Place(watch, dir, name) => (watch, dir, name),
        };
        let key = FileKey::new(dir, &name);
        if let Some(candidate) = self.candidates.get(&key) {
            let text = format!("it has not settled yet: {}", candidate.waits);
            return Err(conflict(text, ""));
        }
        if name.starts_with(PRIVATE_PREFIX) || !self.selects(watch, dir, &name) {
            let remedy = "'settled explain PATH' says by which rule";
            return Err(not_found("its watch does not select it", remedy));
        }
        if self.files.get(key).is_none_or(|known| known.gone) {
            let remedy =
                "'settled explain PATH' says where its file went; put it back to have it run again";
            return Err(not_found("no file of this path was concluded", remedy));
        }
        // What is there now is an arrival like any other, and is looked at like one.
        self.want(key);
        let text = "asked to be run again: taken for a new arrival";
        self.log_path(Level::Info, watch, dir, &name, text.into());
        self.hint_unheard(watch, dir, &name);
        Ok(vec![
            "it is taken for a new arrival, and run when it has settled".into(),
        ])
    }

    fn retry_job(&mut self, id: JobId) -> Answered {
        let name = self.job_name(id);
        let Some(job) = self.jobs.get_mut(&id) else {
            return Err(not_found(format!("no job {name} is owed"), ""));
        };
        match &job.phase {
            Phase::Backoff | Phase::Halted => {}
            Phase::Ready => {
                return Ok(vec![format!("job {name} is ready, and waits for its turn")]);
            }
            Phase::Orphaned { .. } => {
                let text = format!(
                    "job {name} waits for a process of its attempt {}, which is still there",
                    job.begun
                );
                return Err(conflict(
                    text,
                    "end that process, or write orphans = \"kill\"",
                ));
            }
            Phase::Handing { .. } | Phase::Running { .. } => {
                let text = format!("attempt {} of job {name} is running", job.begun);
                return Err(conflict(text, ""));
            }
            Phase::Looking | Phase::PostLook { .. } | Phase::Disposing { .. } => {
                let text = format!("job {name} is being concluded");
                return Err(conflict(text, "ask again when it is"));
            }
        }
        job.counted = 0;
        job.not_before = Wall(0);
        job.asked = std::time::Duration::ZERO;
        job.phase = Phase::Backoff;
        let (watch, attempt) = (job.watch, job.begun + 1);
        if let Some(state) = self.watches.get_mut(watch as usize) {
            state.halted.remove(&id);
        }
        self.append(Record::Retried { job: id });
        self.log_job(Level::Info, id, || {
            "asked to be run again: its attempts are counted anew".into()
        });
        self.timers.clear(Timer::Retry(id));
        self.retry_due(id);
        Ok(vec![format!("job {name} is ready for attempt {attempt}")])
    }

    /// Nothing more is tried; the file stays, and is not run again as it is.
    fn give_up(&mut self, which: &Which) -> Answered {
        let id = match self.find(which, false)? {
            Found::Job(id) => id,
            Found::Place(..) => {
                let remedy = "'settled explain PATH' says what is known of it";
                return Err(not_found("nothing is owed for it", remedy));
            }
        };
        let name = self.job_name(id);
        let Some(job) = self.jobs.get(&id) else {
            return Err(not_found(format!("no job {name} is owed"), ""));
        };
        let waits = match &job.phase {
            Phase::Ready | Phase::Backoff | Phase::Halted => !self.is_being_claimed(id),
            _ => false,
        };
        if !waits {
            let (text, _) = self.job_words(job);
            let text = format!("job {name} does not just wait: {text}");
            return Err(conflict(text, "ask again when that is over"));
        }
        self.log_job(Level::Info, id, || {
            "asked to be given up: held, and its file stays".into()
        });
        self.conclude_untold(id, Outcome::Held, None, Vec::new());
        Ok(vec![format!(
            "job {name} is given up; its file stays, and is not run again unless it changes or 'settled retry' asks for it"
        )])
    }
}
