//! Reading one file: a window over it, the record at an offset, the search for the next readable one.

use super::format::{self, BadFrame, FRAME_BYTES, Seed, Stamp};
use super::storage::{Fault, File, Storage, errno};
use std::ops::Range;

/// One file, read through a window. `pread`, not a mapping: a read error is then an errno.
pub(super) struct Reader<'a, S> {
    pub(super) storage: &'a mut S,
    file: File,
    size: u64,
    seed: Seed,
    window: Vec<u8>,
    start: u64,
    filled: usize,
    /// Where the window ends because the disk cannot read on.
    unreadable: Option<u64>,
}

const PAGE_BYTES: u64 = 4096;
/// Holds the largest record several times over.
const WINDOW_BYTES: usize = 1024 * 1024;

impl<'a, S: Storage> Reader<'a, S> {
    pub(super) fn new(storage: &'a mut S, file: File, size: u64, seed: Seed) -> Reader<'a, S> {
        Reader {
            storage,
            file,
            size,
            seed,
            window: Vec::new(),
            start: 0,
            filled: 0,
            unreadable: None,
        }
    }

    /// Drops what was read, so that the next look is at the file as it is then.
    pub(super) fn refresh(&mut self) {
        self.filled = 0;
    }

    /// The bytes at `offset`: `want` of them, fewer at the end of the file. A place that the disk
    /// cannot read has none.
    fn bytes(&mut self, offset: u64, want: usize) -> Result<&[u8], Fault> {
        let here = self.window_at(offset, want)?;
        Ok(self.window.get(here).unwrap_or_default())
    }

    /// Where in the window those bytes are.
    fn window_at(&mut self, offset: u64, want: usize) -> Result<Range<usize>, Fault> {
        let inside = |start: u64, filled: usize| {
            let skip = usize::try_from(offset.checked_sub(start)?).ok()?;
            (skip.checked_add(want)? <= filled).then_some(skip)
        };
        let skip = match inside(self.start, self.filled) {
            Some(skip) => skip,
            None => {
                let left = self.size.saturating_sub(offset);
                let most = WINDOW_BYTES.min(usize::try_from(left).unwrap_or(WINDOW_BYTES));
                self.window.resize(most.max(want), 0);
                self.start = offset;
                self.filled = 0;
                self.unreadable = None;
                while self.filled < self.window.len() {
                    let at = offset.saturating_add(self.filled as u64);
                    let into = self.window.get_mut(self.filled..).unwrap_or_default();
                    match self.storage.read_at(self.file, at, into) {
                        Ok(0) => break,
                        Ok(got) => self.filled += got,
                        // What could be read before is judged first; the bad place itself has no bytes.
                        Err(fault) if fault.errno == errno::EIO => {
                            self.unreadable = Some(at);
                            break;
                        }
                        Err(fault) => return Err(fault),
                    }
                }
                0
            }
        };
        let end = skip.saturating_add(want).min(self.filled);
        Ok(skip.min(end)..end)
    }

    /// The frame at `offset`.
    pub(super) fn frame(
        &mut self,
        offset: u64,
    ) -> Result<Result<format::Frame<'_>, BadFrame>, Fault> {
        let head = self.window_at(offset, FRAME_BYTES as usize)?;
        if self.is_cut_short(offset, &head, FRAME_BYTES as usize) {
            return Ok(Err(BadFrame::Unreadable));
        }
        let whole = match format::claimed(self.window.get(head).unwrap_or_default()) {
            Ok(whole) => whole as usize,
            Err(bad) => return Ok(Err(bad)),
        };
        let all = self.window_at(offset, whole)?;
        if self.is_cut_short(offset, &all, whole) {
            return Ok(Err(BadFrame::Unreadable));
        }
        let bytes = self.window.get(all).unwrap_or_default();
        Ok(format::frame(bytes, self.seed))
    }

    /// Whether what was got for `want` bytes at `offset` is less because the disk cannot read on.
    fn is_cut_short(&self, offset: u64, got: &Range<usize>, want: usize) -> bool {
        got.len() < want && self.unreadable == Some(offset.saturating_add(got.len() as u64))
    }

    /// The first record at or behind `from` whose checksum matches and whose sequence number is in
    /// `seqs`: offset, stamp, bytes.
    pub(super) fn next_valid(
        &mut self,
        from: u64,
        seqs: Range<u64>,
    ) -> Result<Option<(u64, Stamp, u32)>, Fault> {
        let mut at = from;
        while at.saturating_add(u64::from(FRAME_BYTES)) <= self.size {
            let bytes = self.bytes(at, FRAME_BYTES as usize)?;
            if bytes.len() < FRAME_BYTES as usize {
                // The disk cannot read this page; each try may take it seconds.
                at = (at | (PAGE_BYTES - 1)) + 1;
                continue;
            }
            let plausible = format::claimed(bytes).is_ok()
                && format::claimed_seq(bytes).is_some_and(|seq| seqs.contains(&seq));
            if plausible && let Ok(frame) = self.frame(at)? {
                let bytes = FRAME_BYTES as usize + frame.body.len();
                let bytes = format::padded(u32::try_from(bytes).unwrap_or(u32::MAX));
                return Ok(Some((at, frame.stamp, bytes)));
            }
            at += 8;
        }
        Ok(None)
    }

    /// The highest offset that any record at or behind `from` knows flushed.
    pub(super) fn highest_flushed(
        &mut self,
        from: u64,
        seqs: Range<u64>,
    ) -> Result<Option<u64>, Fault> {
        let (mut at, mut highest) = (from, None);
        while let Some((found, stamp, bytes)) = self.next_valid(at, seqs.clone())? {
            highest = highest.max(Some(u64::from(stamp.flushed)));
            at = found.saturating_add(u64::from(bytes));
        }
        Ok(highest)
    }

    /// Behind the last byte at or behind `from` that is not zero.
    pub(super) fn written_end(&mut self, from: u64) -> Result<u64, Fault> {
        let (mut at, mut end) = (from, from);
        while at < self.size {
            let bytes = self.bytes(at, 64 * 1024)?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = bytes.iter().rposition(|&b| b != 0) {
                end = at + last as u64 + 1;
            }
            at += bytes.len() as u64;
        }
        Ok(end)
    }
}
