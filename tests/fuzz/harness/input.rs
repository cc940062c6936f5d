//! A fuzzer's bytes read as choices. Input that is used up gives zeros for ever, so that every input has an end.

use settled::core::ask::Version;
use settled::core::ids::{DirId, JobId, WatchId};
use settled::core::record::{
    Attempt, AttemptEnd, Disposal, DisposedHow, Outcome, Record, Summary, Told,
};
use settled::core::time::Wall;

#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.u8(), self.u8(), self.u8(), self.u8()])
    }

    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        let drawn = if n <= 256 {
            usize::from(self.u8())
        } else {
            self.u32() as usize
        };
        drawn % n
    }

    pub fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Up to 15 bytes as they are.
    fn name(&mut self) -> Vec<u8> {
        let length = self.below(16);
        self.take(length).to_vec()
    }

    /// Mostly short, now and then so long that a few of them fill a segment.
    fn output(&mut self) -> Vec<u8> {
        match self.u8() {
            0..200 => self.name(),
            class => vec![class; 300 * usize::from(class - 199)],
        }
    }

    fn end(&mut self) -> AttemptEnd {
        match self.below(7) {
            0 => AttemptEnd::Exit(i32::from(self.u8())),
            1 => AttemptEnd::Signal(i32::from(self.u8())),
            2 => AttemptEnd::TimedOut,
            3 => AttemptEnd::NotStarted {
                step: self.u8(),
                errno: i32::from(self.u8()),
            },
            4 => AttemptEnd::NotTheFile,
            5 => AttemptEnd::StillWritten,
            _ => AttemptEnd::CutShort,
        }
    }

    fn version(&mut self, serial: u64) -> Version {
        Version {
            ino: u64::from(self.u8()),
            btime_ns: i64::from(self.u8()),
            generation: 0,
            size: serial,
            mtime_ns: i64::from(self.u8()),
        }
    }

    /// Few directories, watches and jobs, so that records meet each other; `serial` makes most of them unlike
    /// any other.
    pub fn record(&mut self, serial: u64) -> Record {
        let kind = self.below(20);
        let job = JobId(1 + self.below(8) as u64);
        let dir = DirId(1 + self.below(6) as u32);
        let watch = WatchId(1 + self.below(3) as u32);
        let name_hash = settled::core::files::name_hash(b"a");
        match kind {
            0 => Record::Watch {
                watch,
                name: format!("w{}", watch.0),
            },
            1 => Record::Dir {
                dir,
                watch,
                parent: DirId(self.below(7) as u32),
                name: self.name(),
                ino: serial,
                btime_ns: i64::from(self.u8()),
            },
            2 => Record::DirGone { dir },
            3 => Record::Settled {
                job,
                dir: DirId(self.below(7) as u32),
                name: self.name(),
                version: self.version(serial),
                ctime_ns: i64::from(self.u8()),
                reruns: self.u8(),
            },
            4 => Record::Baseline {
                dir,
                name: self.name(),
                version: self.version(serial),
                ctime_ns: i64::from(self.u8()),
            },
            5 => Record::Started {
                job,
                attempt: serial as u32,
                slot: serial as u32 % 3,
            },
            6 => Record::Ended {
                job,
                attempt: serial as u32,
                end: self.end(),
                counted: u32::from(self.u8()),
                not_before: Wall(i64::from(self.u8())),
                output: self.output(),
            },
            7 => Record::Concluded {
                job,
                outcome: [
                    Outcome::Done,
                    Outcome::Dead,
                    Outcome::Superseded,
                    Outcome::Gone,
                    Outcome::Held,
                ][self.below(5)],
                end: self.flag().then(|| self.end()),
                disposal: match self.below(4) {
                    0 => Disposal::Keep,
                    1 => Disposal::Delete,
                    2 => Disposal::Mark,
                    _ => Disposal::Move {
                        dir: self.name(),
                        rel: self.name(),
                    },
                },
                version: self.version(serial),
                ctime_ns: i64::from(self.u8()),
                output: self.output(),
            },
            8 => Record::Retarget {
                job,
                rel: [&serial.to_le_bytes(), self.name().as_slice()].concat(),
            },
            9 => Record::Disposed {
                job,
                how: [DisposedHow::Done, DisposedHow::Gone, DisposedHow::Changed][self.below(3)],
            },
            10 => Record::Renamed {
                dir,
                name_hash,
                to_dir: DirId(1 + self.below(6) as u32),
                to_name: self.name(),
            },
            11 => Record::Gone { dir, name_hash },
            12 => Record::Remembered {
                dir,
                name_hash,
                version: serial,
                ctime: u32::from(self.u8()),
                state: self.u8() & 3,
                at: Wall(i64::from(self.u8())),
            },
            13 => Record::Scanned { watch },
            14 => Record::Paused {
                watch,
                paused: self.flag(),
            },
            15 => Record::Retried { job },
            16 => Record::Forgotten { dir, name_hash },
            17 => Record::Expected {
                watch,
                opens: Wall(i64::from(self.u8())),
                day: i32::from(self.u8()),
                count: u32::from(self.u8()),
                told: [Told::Not, Told::Owed, Told::Told][self.below(3)],
            },
            18 => Record::Key {
                job,
                key: self.name(),
            },
            _ => self.summary(job, dir, serial),
        }
    }

    fn summary(&mut self, job: JobId, dir: DirId, serial: u64) -> Record {
        let at = Wall(serial.cast_signed());
        let outcome = [Outcome::Done, Outcome::Dead, Outcome::Gone][self.below(3)];
        let how = [DisposedHow::Done, DisposedHow::Gone, DisposedHow::Changed][self.below(3)];
        let attempts = (0..self.below(3)).map(|_| Attempt {
            number: u32::from(self.u8()),
            started: at,
            end: self.flag().then(|| (self.end(), at)),
            output: self.output(),
        });
        let attempts = attempts.collect();
        let before = (0..self.below(3)).map(|_| (self.name(), at));
        let before = before.collect();
        Record::Summary(Box::new(Summary {
            job,
            watch: WatchId(1 + self.below(3) as u32),
            dir,
            rel: self.name(),
            version: serial,
            size: serial,
            mtime_ns: i64::from(self.u8()),
            concluded: self.flag().then_some((outcome, at)),
            disposal: match self.below(4) {
                0 => Disposal::Keep,
                1 => Disposal::Delete,
                2 => Disposal::Mark,
                _ => Disposal::Move {
                    dir: self.name(),
                    rel: self.name(),
                },
            },
            disposed: self.flag().then_some((how, at)),
            attempts,
            before,
        }))
    }
}
