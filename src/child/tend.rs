//! What a child gets and leaves besides its pipes: standard input, a slot, variables, and lines for a file; and the questions
//! and processes that belong to those.

use super::sink::Sinks;
use super::{Children, Happening, LOGGERS};
use crate::core::ids::RunId;
use crate::core::time::Mono;
use crate::core::{ChildEnd, NotStarted, Program, SpawnOrder, StartStep, Stdin};
use crate::slots::Asked;
use crate::spawner::Refused;
use crate::sys::packet;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// Where a child's lines go.
#[derive(Clone, Copy, Debug)]
pub(super) enum Voice {
    /// To the log.
    Log,
    /// To this sink.
    Sink(usize),
    /// To the log, as trouble with this sink: the child is its logger.
    Logger(usize),
}

impl Voice {
    /// What tells of happenings, with this child's lines led to where they belong.
    pub(super) fn lead(
        self,
        sinks: &mut Sinks,
        tell: &mut dyn FnMut(Happening<'_>),
    ) -> impl FnMut(Happening<'_>) {
        move |happening| match (self, happening) {
            (Voice::Sink(number), Happening::Line(line)) => sinks.take(number, line.text),
            (Voice::Logger(number), Happening::Line(line)) => {
                let text = String::from_utf8_lossy(line.text);
                tell(Happening::Trouble(format!(
                    "{}: {text}",
                    sinks.name(number)
                )));
            }
            (_, happening) => tell(happening),
        }
    }
}

/// What goes with an order besides pipes for its output.
#[derive(Debug)]
pub(super) struct Given {
    /// Standard input.
    pub(super) stdin: Option<Rc<OwnedFd>>,
    /// The lock on its slot.
    pub(super) slot: Option<OwnedFd>,
    /// The sink that it is the logger of.
    pub(super) logger: Option<usize>,
}

/// Variables that say who a child is, where the order does not.
pub(super) fn variables_of(order: &SpawnOrder) -> impl Iterator<Item = (&[u8], &[u8])> {
    let who = order.process.identity.as_ref();
    who.filter(|who| !who.name.is_empty())
        .into_iter()
        .flat_map(|who| {
            [
                (b"HOME".as_slice(), who.home.as_bytes()),
                (b"USER", who.name.as_bytes()),
                (b"LOGNAME", who.name.as_bytes()),
            ]
        })
        .filter(|(name, _)| !order.env.iter().any(|(given, _)| given == name))
}

/// The process that writes output to a file.
fn logger_order(run: RunId, path: Vec<u8>) -> SpawnOrder {
    SpawnOrder {
        run,
        jobs: Vec::new(),
        program: Program::Own,
        argv: vec![b"settled".to_vec(), b"append-output".to_vec(), path],
        env: Vec::new(),
        cwd: b"/".to_vec(),
        files: Vec::new(),
        stdin: Stdin::Nothing,
        process: Rc::default(),
        slot: 0,
        output: None,
        watch: String::new(),
        job_name: String::new(),
        attempt: 0,
    }
}

impl Children {
    /// What goes with an order besides pipes for its output.
    pub(super) fn prepare(&mut self, order: &SpawnOrder) -> Result<Given, Refused> {
        let stdin = match &order.stdin {
            Stdin::Bytes(bytes) => Some(Rc::new(packet::file_of(bytes).map_err(Refused::ThisOne)?)),
            Stdin::Nothing | Stdin::Worker => None,
        };
        let slot = match order.slot {
            0 => None,
            slot => Some(self.slots.take(slot).map_err(Refused::ThisOne)?),
        };
        Ok(Given {
            stdin,
            slot,
            logger: None,
        })
    }

    /// Starts loggers that are due. To be called in every turn, after [`Children::turn`].
    ///
    /// # Errors
    /// As [`Children::ready`].
    pub fn tick(&mut self, now: Mono) -> io::Result<()> {
        self.now = now;
        for (sink, path, reader) in self.sinks.due(&self.registry, now) {
            let run = RunId(LOGGERS | self.loggers);
            self.loggers += 1;
            self.sinks.started(sink, run, now);
            let given = reader.map_err(Refused::ThisOne).map(|reader| Given {
                stdin: Some(reader),
                slot: None,
                logger: Some(sink),
            });
            match given.and_then(|given| self.try_spawn(logger_order(run, path), given)) {
                Ok(()) => {}
                Err(Refused::Fatal(error)) => return Err(error),
                Err(Refused::ThisOne(error)) => {
                    let errno = error.raw_os_error().unwrap_or(libc::EIO);
                    let why = NotStarted::Failed(StartStep::Setup, errno);
                    let end = ChildEnd::NotStarted(why, 0);
                    self.troubles.extend(self.sinks.ended(sink, end, now));
                }
            }
        }
        self.flush_sinks();
        Ok(())
    }

    /// When [`Children::tick`] is due though nothing happens.
    pub fn deadline(&self) -> Option<Mono> {
        self.sinks.deadline()
    }

    /// Files that output goes to are opened anew; those that are not needed now are closed.
    pub fn reopen_outputs(&mut self) {
        for logger in self.sinks.reopen() {
            self.kill(logger, libc::SIGHUP);
        }
    }

    /// No more output will come: those who write it to files get the rest, and then their end.
    pub fn close_outputs(&mut self) {
        self.sinks.close(self.now);
    }

    /// How many processes write output to files, and how many bytes they have not taken yet.
    pub fn open_outputs(&self) -> (usize, usize) {
        self.sinks.open()
    }

    /// Asks whether a process holds this slot, after having sent the signal to those who do: see [`Slots::ask`].
    pub fn ask_slot(&mut self, slot: u32, signal: Option<i32>) {
        self.questions.push((slot, signal));
    }

    /// The answers to what was asked since this was called last.
    pub fn asked(&mut self) -> Vec<Asked> {
        let questions = std::mem::take(&mut self.questions);
        self.slots.ask(&questions)
    }

    pub(super) fn flush_sinks(&mut self) {
        let mut unparked = Vec::new();
        self.sinks.flush(&mut unparked);
        for place in unparked {
            self.mark(place);
        }
    }
}
