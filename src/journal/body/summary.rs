//! The body of a summary. What is not there yet has a zero, and no time behind it.

use super::{
    Cursor, bytes, how_number, how_of, i64, outcome_number, outcome_of, put_disposal, put_end, u32,
    u64,
};
use crate::core::ids::{DirId, JobId, WatchId};
use crate::core::record::{Attempt, Disposal, DisposedHow, Outcome, Record, Summary};
use crate::core::time::Wall;

/// A disposal whose mark other machines see: elsewhere the kind tells it from one without.
const MARK: u8 = 4;

pub(super) fn encode(out: &mut Vec<u8>, of: &Summary) {
    u64(out, of.job.0);
    u32(out, of.watch.0);
    u32(out, of.dir.0);
    u64(out, of.version);
    u64(out, of.size);
    i64(out, of.mtime_ns);
    put_timed(
        out,
        of.concluded
            .map(|(outcome, at)| (outcome_number(outcome), at)),
    );
    put_timed(out, of.disposed.map(|(how, at)| (how_number(how), at)));
    match &of.disposal {
        Disposal::Mark => out.push(MARK),
        other => put_disposal(out, other),
    }
    count(out, of.attempts.len());
    for made in &of.attempts {
        u32(out, made.number);
        i64(out, made.started.0);
        put_end(out, made.end.as_ref().map(|(end, _)| end));
        if let Some((_, at)) = made.end {
            i64(out, at.0);
        }
        bytes(out, &made.output);
    }
    count(out, of.before.len());
    for (name, until) in &of.before {
        i64(out, until.0);
        bytes(out, name);
    }
    bytes(out, &of.rel);
}

/// What is longer than `u32` can say is longer than any record may be.
fn count(out: &mut Vec<u8>, count: usize) {
    u32(out, u32::try_from(count).unwrap_or(u32::MAX));
}

fn put_timed(out: &mut Vec<u8>, what: Option<(u8, Wall)>) {
    match what {
        None => out.push(0),
        Some((number, at)) => {
            out.push(number);
            i64(out, at.0);
        }
    }
}

impl Cursor<'_> {
    pub(super) fn summary(&mut self) -> Option<Record> {
        Some(Record::Summary(Box::new(Summary {
            job: JobId(self.u64()?),
            watch: WatchId(self.u32()?),
            dir: DirId(self.u32()?),
            version: self.u64()?,
            size: self.u64()?,
            mtime_ns: self.i64()?,
            concluded: self.timed::<Outcome>(outcome_of)?,
            disposed: self.timed::<DisposedHow>(how_of)?,
            disposal: match self.u8()? {
                1 => Disposal::Keep,
                2 => Disposal::Delete,
                3 => Disposal::Move {
                    dir: self.bytes()?,
                    rel: self.bytes()?,
                },
                MARK => Disposal::Mark,
                _ => return None,
            },
            attempts: self.many(Cursor::attempt)?,
            before: self.many(|from| {
                let until = Wall(from.i64()?);
                Some((from.bytes()?, until))
            })?,
            rel: self.bytes()?,
        })))
    }

    fn timed<T>(&mut self, of: fn(u8) -> Option<T>) -> Option<Option<(T, Wall)>> {
        Some(match self.u8()? {
            0 => None,
            number => Some((of(number)?, Wall(self.i64()?))),
        })
    }

    /// Each takes bytes: a count that is too high ends with them.
    fn many<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(one(self)?);
        }
        Some(all)
    }

    fn attempt(&mut self) -> Option<Attempt> {
        Some(Attempt {
            number: self.u32()?,
            started: Wall(self.i64()?),
            end: match self.end()? {
                None => None,
                Some(end) => Some((end, Wall(self.i64()?))),
            },
            output: self.bytes()?,
        })
    }
}
