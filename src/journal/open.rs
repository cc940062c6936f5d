//! From a directory to an open journal: what is there is read, what is not proven to be on the disk is written again.

use super::format::{self, HEADER_BYTES, Header, Role, Seed, Stamp};
use super::read::Reader;
use super::recover::{self, Walked};
use super::storage::{self, Fault, File, Storage};
use super::survey::{self, Survey};
use super::{
    Active, Journal, JournalError, OnDamage, Options, Report, Spare, next_number, no_room, too_long,
};
use crate::core::record::Record;
use crate::core::time::Wall;

/// A journal whose files are known and not yet read.
#[derive(Debug)]
pub struct Opened<S> {
    storage: S,
    survey: Survey,
    options: Options,
    id: u32,
    salt: u64,
}

impl<S: Storage> Opened<S> {
    /// Looks at what is there. Nothing is changed before [`Opened::replay`].
    pub fn new(mut storage: S, options: Options) -> Result<Opened<S>, JournalError> {
        let survey = survey::survey(&mut storage)?;
        let (id, salt) = survey
            .identity
            .unwrap_or((options.random_id, options.random_salt));
        Ok(Opened {
            storage,
            survey,
            options,
            id,
            salt,
        })
    }

    /// See [`Journal::id`].
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Hands every record with its time to `each`, in order, then makes the journal ready: what is not
    /// proven to be on the disk is written again and flushed, in a new segment. When this has returned,
    /// every record that was handed out is durable. On error, what was handed out is void.
    pub fn replay(
        mut self,
        mut each: impl FnMut(Wall, Record),
    ) -> Result<(Journal<S>, Report), JournalError> {
        // The process before this one may have ended between a rename and making it durable: the names that
        // are seen are made durable before anything is built on them.
        self.storage.sync_dir()?;
        let walked = recover::walk(&mut self.storage, &self.survey, &mut |_, stamp, record| {
            each(stamp.wall, record);
        })?;
        if self.options.on_damage == OnDamage::Stop && !walked.damage.is_empty() {
            return Err(JournalError::Damaged(walked.damage));
        }
        let mut kept = Vec::new();
        let mut files: Vec<File> = walked.damage.iter().map(|damage| damage.file).collect();
        files.dedup();
        files.retain(|file| self.survey.files().any(|entry| entry.file == *file));
        for file in files {
            kept.push(self.storage.keep_aside(file)?);
        }
        let report = Report {
            records: walked.records,
            bytes: self.survey.bytes(),
            cut_bytes: walked.cut_bytes,
            rewritten: walked.tail.len() as u64,
            damage: walked.damage.clone(),
            kept,
        };
        Ok((self.take_over(walked)?, report))
    }

    /// Makes the segment that this process writes, and gives it the unproven records of the last one.
    fn take_over(mut self, walked: Walked) -> Result<Journal<S>, JournalError> {
        let numbers = self.survey.files().filter_map(|entry| entry.file.number());
        let number = numbers.chain(self.survey.noted).max().unwrap_or(0);
        let number = next_number(&self.storage, number)?;
        let segment_bytes = self.options.segment_bytes.clamp(64 * 1024, 1 << 30);
        let segment_bytes = segment_bytes.next_multiple_of(4096);
        let seed = Seed::new(Role::Log, self.salt, number);
        let mut bytes = vec![0; HEADER_BYTES as usize];
        let mut first_seq = walked.next_seq;
        if let (Some(entry), Some(first)) = (self.survey.logs.last(), walked.tail.first()) {
            let old_seed = Seed::new(Role::Log, self.salt, entry.file.number().unwrap_or(0));
            let mut reader = Reader::new(&mut self.storage, entry.file, entry.size, old_seed);
            for offset in &walked.tail {
                let Ok(frame) = reader.frame(*offset)? else {
                    let path = self.storage.path(entry.file);
                    return Err(JournalError::Storage(Fault {
                        act: "read again what was just read from",
                        path,
                        errno: storage::errno::EIO,
                    }));
                };
                if offset == first {
                    first_seq = frame.stamp.seq;
                }
                let stamp = Stamp {
                    flushed: HEADER_BYTES,
                    ..frame.stamp
                };
                format::encode_raw(&mut bytes, seed, stamp, frame.kind, frame.body)
                    .map_err(too_long)?;
            }
        }
        let end = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let size = segment_bytes.max(end.next_multiple_of(4096));
        let header = Header {
            role: Role::Log,
            id: self.id,
            salt: self.salt,
            number,
            flushed: end,
            first_seq,
            created: self.options.now,
        };
        if let Some(place) = bytes.get_mut(..HEADER_BYTES as usize) {
            place.copy_from_slice(&header.encode());
        }
        let storage = &mut self.storage;
        // A spare that is there already is used: on a full disk it is what lets the daemon start.
        storage
            .allocate(File::Spare, 0, size.into())
            .map_err(no_room)?;
        storage.flush(File::Spare).map_err(no_room)?;
        storage.write(File::Spare, 0, &bytes)?;
        storage.flush(File::Spare)?;
        storage.rename(File::Spare, File::Log(number))?;
        storage.sync_dir()?;
        // From here on the last segment's records end where the new one's begin. What lies behind is
        // given back, and the whole segment where nothing is left; damage is kept for whoever looks into it.
        let mut log_bytes = u64::from(end);
        let mut stale = std::mem::take(&mut self.survey.stale);
        for (at, entry) in self.survey.logs.iter().enumerate() {
            let last = at + 1 == self.survey.logs.len();
            let read = walked.files.iter().find(|read| read.file == entry.file);
            let damaged = walked.damage.iter().any(|damage| damage.file == entry.file);
            match read {
                Some(read) if last && !damaged => {
                    let keep = read
                        .end
                        .min(walked.tail.first().copied().unwrap_or(read.end));
                    if keep <= u64::from(HEADER_BYTES) {
                        stale.push(entry.file);
                    } else {
                        storage.truncate(entry.file, keep)?;
                        log_bytes += keep;
                    }
                }
                _ => log_bytes += entry.size,
            }
            storage.release(entry.file);
        }
        let mut journal = Journal {
            storage: self.storage,
            id: self.id,
            salt: self.salt,
            segment_bytes,
            reserve_bytes: self.options.reserve_bytes.min(segment_bytes / 2),
            active: Active {
                number,
                size,
                seed,
                end,
                staged: Vec::new(),
                staged_records: 0,
            },
            next_seq: walked.next_seq,
            spare: Spare::Growing(0),
            batch_bytes: 0,
            compaction: None,
            stale,
            base_bytes: self.survey.base.as_ref().map_or(0, |entry| entry.size),
            log_bytes,
            failed: None,
        };
        journal.remove_stale(usize::MAX)?;
        Ok(journal)
    }
}
