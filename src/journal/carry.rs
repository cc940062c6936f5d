//! What compaction carries over of what is over: a summary of each job, read from the files that the new base takes
//! the place of, and written as it is read. In memory are the jobs that are not over, the directories' names and the
//! names that files have lost since the last compaction, never the summaries.

use super::error::{Damage, JournalError};
use super::history::{Jobs, Past};
use super::storage::{File, Storage};
use super::survey::{self, Survey};
use super::{Journal, recover};
use crate::core::record::{Record, Summary};
use crate::core::time::Wall;

/// Whether a summary is carried over, of a file that settled then; it may be changed.
pub type Keep<'a> = &'a mut dyn FnMut(Wall, &mut Summary) -> bool;

impl<S: Storage> Journal<S> {
    /// Adds to the base a summary of each job in the files that it takes the place of and that `keep` wants: behind the
    /// state, before [`Journal::compact_end`]. `old` is the same place once more, for reading. Two passes over these
    /// files. What cannot be read there: the records around it are told of.
    ///
    /// # Errors
    /// Those of [`Journal::compact_push`]; a call on the old files failed.
    pub fn compact_past<R: Storage>(
        &mut self,
        old: &mut R,
        keep: Keep,
    ) -> Result<Vec<Damage>, JournalError> {
        let Some(number) = self.compacting_before() else {
            return Err(JournalError::NotCompacting(false));
        };
        let survey = before(survey::survey(old)?, number);
        let mut jobs = Jobs::default();
        // A base has no names that were lost since.
        let logs = Survey {
            base: None,
            ..survey.clone()
        };
        recover::walk(old, &logs, &mut |_, _, record| {
            jobs.leaving.note(&record);
        })?;
        let mut pushed = Ok(());
        let mut push = |past: Past| {
            let settled = past.settled;
            let mut summary = Box::new(past.summary());
            if pushed.is_ok() && keep(settled, &mut summary) {
                pushed = self.compact_push_at(Some(settled), &Record::Summary(summary));
            }
        };
        let walked = recover::walk(old, &survey, &mut |_, stamp, record| {
            jobs.note(stamp.wall, &record, &mut push);
        })?;
        jobs.rest().for_each(push);
        pushed.map(|()| walked.damage)
    }

    /// Keeps files in which damage was found: they are about to be removed. Where they are.
    ///
    /// # Errors
    /// One cannot be kept.
    pub fn keep_damaged(&mut self, damage: &[Damage]) -> Result<Vec<String>, JournalError> {
        let number = self.compacting_before();
        let mut files: Vec<File> = damage.iter().map(|damage| damage.file).collect();
        files.dedup();
        // The first that stays is named where records before it are missing.
        files.retain(|file| !matches!(file, File::Log(log) if Some(*log) >= number));
        let kept = files.into_iter().map(|file| self.storage.keep_aside(file));
        Ok(kept.collect::<Result<_, _>>()?)
    }
}

/// The files before segment `number`: what is appended to that one meanwhile is not part of the base.
fn before(mut survey: Survey, number: u32) -> Survey {
    survey
        .logs
        .retain(|entry| entry.file.number() <= Some(number));
    survey.before = Some(number);
    survey.noted = None;
    survey
}
