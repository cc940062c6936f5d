//! Every so often the metrics go to a file, for those who collect files. Its disk may hang, so a process of its own writes
//! it; as long as one has not ended there is no other. Without the file in the plan there is nothing to wake up for.

use super::{Daemon, Fatal};
use crate::child::OWN_RUNS;
use crate::core::counts::Census;
use crate::core::ids::RunId;
use crate::core::time::Mono;
use crate::core::{ChildEnd, Program, SpawnOrder, Stdin};
use crate::metrics::{Dialect, Reader, Readings, file, metrics_text};
use crate::plan::{DaemonPlan, Level};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::Duration;

/// Candidates and jobs that are counted in one turn.
const VISITS_A_TURN: usize = 4096;

/// The file, and how far the next one is.
#[derive(Debug, Default)]
pub(super) struct Textfile {
    path: Option<Vec<u8>>,
    every: Duration,
    next: Mono,
    census: Option<Census>,
    writer: Option<RunId>,
    /// How many were asked for.
    asked: u64,
    /// The last one failed, which was said.
    failed: bool,
}

impl Textfile {
    /// As the plan says; the first one is due at once.
    pub(super) fn new(plan: &DaemonPlan) -> Textfile {
        let mut new = Textfile::default();
        new.replan(plan, Mono(0));
        new
    }

    /// The plan is another one, or the same.
    pub(super) fn replan(&mut self, plan: &DaemonPlan, now: Mono) {
        let path = plan.metrics_textfile.as_ref();
        let path = path.map(|path| path.as_os_str().as_bytes().to_vec());
        if self.path != path {
            self.census = None;
            self.failed = false;
            self.path = path;
        }
        self.every = plan.metrics_every;
        self.next = now;
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.path.as_ref()?;
        match self.census {
            Some(_) => Some(Mono(0)),
            None => Some(self.next),
        }
    }

    /// Whether this run is a writer of the file.
    pub(super) fn owns(run: RunId) -> bool {
        run >= OWN_RUNS
    }

    /// A writer ended. What the log is to say, if anything.
    pub(super) fn ended(&mut self, end: ChildEnd, output: &[u8]) -> Option<(Level, String)> {
        self.writer = None;
        let said = String::from_utf8_lossy(output);
        let said = said.trim_end();
        let why = match end {
            ChildEnd::Exit(0) => {
                let again = std::mem::take(&mut self.failed);
                return again.then(|| (Level::Info, "metrics_textfile: written again".into()));
            }
            ChildEnd::Exit(_) if !said.is_empty() => said.to_owned(),
            ChildEnd::Exit(status) => format!("exit status {status}"),
            ChildEnd::Signal(signal) => format!("ended by signal {signal}"),
            ChildEnd::NotStarted(why, _) => format!("{why:?}"),
        };
        let first = !std::mem::replace(&mut self.failed, true);
        first.then(|| {
            let text = format!("metrics_textfile: it cannot be written: {why}; tried again");
            (Level::Warning, text)
        })
    }
}

impl Daemon {
    /// Goes on with the next file, if it is time for it.
    pub(super) fn tend_textfile(&mut self) -> Result<(), Fatal> {
        let textfile = &mut self.textfile;
        if textfile.path.is_none() {
            return Ok(());
        }
        if textfile.next <= self.now.mono {
            textfile.next = self.now.mono.after(textfile.every);
            // While one hangs, the numbers of now would only wait behind it.
            if textfile.writer.is_none() && textfile.census.is_none() {
                textfile.census = Some(Census::default());
            }
        }
        let Some(mut census) = textfile.census.take() else {
            return Ok(());
        };
        self.core.count_on(&mut census, VISITS_A_TURN);
        if !census.is_whole() {
            self.textfile.census = Some(census);
            return Ok(());
        }
        let text = metrics_text(
            &self.core,
            &census,
            &self.meter.counts,
            &Readings::take(&self.journal, self.log.dropped()),
            Dialect::Prometheus,
            Reader::Textfile,
        );
        self.write_textfile(text)
    }

    fn write_textfile(&mut self, text: String) -> Result<(), Fatal> {
        let Some(path) = self.textfile.path.clone() else {
            return Ok(());
        };
        let run = RunId(OWN_RUNS.0 + self.textfile.asked);
        self.textfile.asked += 1;
        self.textfile.writer = Some(run);
        let order = SpawnOrder {
            run,
            jobs: Vec::new(),
            program: Program::Own,
            argv: vec![b"settled".to_vec(), file::WRITE.to_vec(), path],
            env: Vec::new(),
            cwd: b"/".to_vec(),
            files: Vec::new(),
            stdin: Stdin::Bytes(text.into_bytes()),
            process: Rc::default(),
            slot: 0,
            output: None,
            watch: String::new(),
            job_name: String::new(),
            attempt: 0,
        };
        self.children
            .spawn(order)
            .map_err(|error| Fatal::new(70, format!("the spawner: {error}")))
    }
}
