//! Every so often the metrics go to a file, for those who collect files. Its disk may hang, so a process of its own writes
//! it; as long as one has not ended there is no other. Without the file in the plan there is nothing to wake up for.

use super::{Daemon, Fatal};
use crate::child::OWN_RUNS;
use crate::core::counts::Census;
use crate::core::ids::RunId;
use crate::core::time::Mono;
use crate::core::{ChildEnd, Program, SpawnOrder, Stdin};
use crate::metrics::{Dialect, Page, Reader, Readings, file};
use crate::plan::{DaemonPlan, Level};
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;
use std::time::Duration;

/// Candidates and jobs that are counted in one turn.
const VISITS_A_TURN: usize = 4096;
/// Watches whose numbers of one kind are written down in one turn: a histogram has nineteen lines.
const WATCHES_A_TURN: usize = 64;

/// The file, and how far the next one is.
#[derive(Debug, Default)]
pub(super) struct Textfile {
    path: Option<Vec<u8>>,
    every: Duration,
    next: Mono,
    census: Option<Census>,
    /// What is counted is being written down: what is left of it, and its text so far.
    page: Option<(Page, String)>,
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
            self.page = None;
            self.failed = false;
            self.path = path;
        }
        self.every = plan.metrics_every;
        self.next = now;
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.path.as_ref()?;
        match self.census.is_some() || self.page.is_some() {
            true => Some(Mono(0)),
            false => Some(self.next),
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
            if textfile.writer.is_none() && textfile.census.is_none() && textfile.page.is_none() {
                textfile.census = Some(Census::default());
            }
        }
        if let Some(mut census) = textfile.census.take() {
            self.core.count_on(&mut census, VISITS_A_TURN);
            if census.is_whole() {
                let readings = Readings::take(&self.journal, self.log.dropped());
                let page = Page::new(census, readings, Dialect::Prometheus, Reader::Textfile);
                textfile.page = Some((page, String::new()));
            } else {
                textfile.census = Some(census);
            }
            return Ok(());
        }
        let Some((mut page, mut text)) = textfile.page.take() else {
            return Ok(());
        };
        text.push_str(&page.go_on(&self.core, &self.meter.counts, WATCHES_A_TURN));
        if page.is_over() {
            return self.write_textfile(text);
        }
        textfile.page = Some((page, text));
        Ok(())
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
