//! Which files count: the newest base and the segments behind it, each with its header.

use super::error::{JournalError, Why};
use super::format::{BadHeader, HEADER_BYTES, Header};
use super::storage::{File, Storage, errno};

/// One file that counts.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) header: Result<Header, Why>,
}

/// What is in the directory.
#[derive(Clone, Debug, Default)]
pub(super) struct Survey {
    /// The newest base.
    pub(super) base: Option<Entry>,
    /// The segments behind it, in order.
    pub(super) logs: Vec<Entry>,
    /// Older bases and segments, and a base that was never finished: compaction's leftovers.
    pub(super) stale: Vec<File>,
    /// A spare segment is there.
    pub(super) spare: bool,
    /// See [`Storage::noted`].
    pub(super) noted: Option<u32>,
    /// The records of the segment with this number are not read: only where the one before it ends is learned from it.
    pub(super) before: Option<u32>,
    /// Id and salt, from the first header that is readable.
    pub(super) identity: Option<(u32, u64)>,
}

impl Survey {
    /// Bytes of all files that count.
    pub(super) fn bytes(&self) -> u64 {
        self.files().map(|entry| entry.size).sum()
    }

    pub(super) fn files(&self) -> impl Iterator<Item = &Entry> {
        self.base.iter().chain(&self.logs)
    }
}

/// Lists the directory and reads the headers.
pub(super) fn survey<S: Storage>(storage: &mut S) -> Result<Survey, JournalError> {
    // Before the listing: a daemon that runs meanwhile makes new ones.
    let noted = storage.noted()?;
    let mut files = storage.list()?;
    files.sort_unstable();
    let newest = files
        .iter()
        .filter_map(|(file, _)| match file {
            File::Base(number) => Some(*number),
            _ => None,
        })
        .max();
    let mut survey = Survey {
        noted,
        ..Survey::default()
    };
    for (file, size) in files {
        match file {
            File::Spare => survey.spare = true,
            File::Log(number) if newest.is_none_or(|base| number >= base) => {
                let header = read_header(storage, file)?;
                survey.logs.push(Entry { file, size, header });
            }
            File::Base(number) if Some(number) == newest => {
                let header = read_header(storage, file)?;
                survey.base = Some(Entry { file, size, header });
            }
            File::NewBase | File::Log(_) | File::Base(_) => survey.stale.push(file),
        }
    }
    let identity = survey
        .files()
        .find_map(|entry| entry.header.as_ref().ok())
        .map(|header| (header.id, header.salt));
    survey.identity = identity;
    for entry in survey.base.iter_mut().chain(&mut survey.logs) {
        if let Ok(header) = &entry.header
            && (Some((header.id, header.salt)) != identity
                || Some(header.number) != entry.file.number()
                || header.role != entry.file.role())
        {
            entry.header = Err(Why::Foreign);
        }
    }
    Ok(survey)
}

fn read_header<S: Storage>(
    storage: &mut S,
    file: File,
) -> Result<Result<Header, Why>, JournalError> {
    let mut bytes = [0; HEADER_BYTES as usize];
    let got = match storage.read_at(file, 0, &mut bytes) {
        Ok(got) => got,
        // A disk that cannot read the header is damage like any other, and has an address.
        Err(fault) if fault.errno == errno::EIO => {
            return Ok(Err(Why::Header(BadHeader::Unreadable)));
        }
        Err(fault) => return Err(fault.into()),
    };
    storage.release(file);
    match Header::decode(bytes.get(..got).unwrap_or_default()) {
        Ok(header) => Ok(Ok(header)),
        Err(BadHeader::Version(version)) => Err(JournalError::Newer {
            path: storage.path(file),
            version,
        }),
        Err(bad) => Ok(Err(Why::Header(bad))),
    }
}
