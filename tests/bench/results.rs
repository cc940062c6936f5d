//! Reading what the handlers wrote: who was handled, when, and how large it was then.

use crate::Res;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

const RECORD: usize = 128;

/// One run of the handler; the layout is `struct record` of handler.c.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// CLOCK_MONOTONIC, read by the handler's first instruction.
    pub(crate) at_ns: u64,
    /// Size of the file just after; -1 if it was not there.
    pub(crate) size: i64,
    /// The peer said that it repeats an attempt cut short.
    pub(crate) recovered: bool,
}

/// The file of results, read as it grows.
pub(crate) struct Results {
    path: PathBuf,
    file: File,
    partial: Vec<u8>,
    /// Runs for the load's files, by their names.
    pub(crate) files: HashMap<String, Vec<Seen>>,
    /// Probe files handled, by name.
    pub(crate) probes: HashMap<String, Seen>,
    /// Runs for anything else: temporary names, directories.
    pub(crate) stray: u64,
    /// All runs.
    pub(crate) records: u64,
    /// The latest run of a load's file.
    pub(crate) last_ns: u64,
}

impl Results {
    /// Makes an empty one.
    pub(crate) fn create(path: &Path) -> Res<Results> {
        fs::write(path, b"")?;
        Ok(Results {
            path: path.to_path_buf(),
            file: File::open(path)?,
            partial: Vec::new(),
            files: HashMap::new(),
            probes: HashMap::new(),
            stray: 0,
            records: 0,
            last_ns: 0,
        })
    }

    /// Where handlers append.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes in what was appended since; returns how many records.
    pub(crate) fn poll(&mut self) -> Res<u64> {
        self.file.read_to_end(&mut self.partial)?;
        let whole = self.partial.len() / RECORD * RECORD;
        let rest = self.partial.split_off(whole);
        let records = std::mem::replace(&mut self.partial, rest);
        for record in records.chunks_exact(RECORD) {
            self.take(record);
        }
        Ok((records.len() / RECORD) as u64)
    }

    fn take(&mut self, record: &[u8]) {
        let (Some((at, rest)), Some(name)) = (record.split_first_chunk::<8>(), record.get(24..))
        else {
            return;
        };
        let Some((size, rest)) = rest.split_first_chunk::<8>() else {
            return;
        };
        let recovered = rest.get(4) == Some(&1);
        let seen = Seen {
            at_ns: u64::from_ne_bytes(*at),
            size: i64::from_ne_bytes(*size),
            recovered,
        };
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        self.records += 1;
        if name.starts_with("probe-") {
            self.probes.insert(name, seen);
        } else if name.len() == 7 && name.starts_with('f') {
            self.last_ns = self.last_ns.max(seen.at_ns);
            self.files.entry(name).or_default().push(seen);
        } else {
            self.stray += 1;
        }
    }

    /// Runs beyond the first for each file: all, and those that said they repeat an attempt cut short.
    pub(crate) fn duplicates(&self) -> (u64, u64) {
        let again = || self.files.values().flat_map(|runs| runs.iter().skip(1));
        (
            again().count() as u64,
            again().filter(|seen| seen.recovered).count() as u64,
        )
    }

    /// Files of which some run saw another size than the whole.
    pub(crate) fn partial(&self, whole: i64) -> u64 {
        self.files
            .values()
            .filter(|runs| runs.iter().any(|seen| seen.size != whole))
            .count() as u64
    }
}
