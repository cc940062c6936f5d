//! What can happen to files: bits turn, pages go missing or move, ends are cut off, files swap places; and
//! checksums are made right again, so that what lies behind them is reached.

use super::input::Input;
use super::naive;
use crate::journal_support::Memory;
use settled::journal::storage::File;
use std::collections::BTreeMap;

/// A directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub files: BTreeMap<File, Vec<u8>>,
    /// A page that the disk cannot read, by an offset in it.
    pub unreadable: Option<(File, u64)>,
}

impl Image {
    pub fn of(memory: &Memory) -> Image {
        let files = memory.files();
        Image {
            files: files
                .into_iter()
                .map(|file| (file, memory.bytes(file)))
                .collect(),
            unreadable: None,
        }
    }

    /// A storage with these files, durable.
    pub fn memory(&self, seed: u64) -> Memory {
        let memory = Memory::new(seed);
        for (file, bytes) in &self.files {
            memory.put(*file, bytes.clone());
        }
        memory.0.borrow_mut().unreadable = self.unreadable;
        memory
    }

    /// The files that count, in the order of reading: the newest base and the segments behind it.
    pub fn counted(&self) -> Vec<File> {
        let bases = self.files.keys().filter(|f| matches!(f, File::Base(_)));
        let base = bases.max().copied();
        let from = base.and_then(File::number).unwrap_or(0);
        let logs = self.files.keys().filter(|file| match file {
            File::Log(number) => *number >= from,
            _ => false,
        });
        base.into_iter().chain(logs.copied()).collect()
    }

    /// Whether these bytes can be read and are what they are in `before`.
    pub fn as_in(&self, before: &Image, file: File, from: usize, to: usize) -> bool {
        let unreadable = self.unreadable.is_some_and(|(bad, at)| {
            let page = at as usize & !4095;
            bad == file && from < page + 4096 && page < to
        });
        let bytes = |image: &Image| {
            let bytes = image.files.get(&file)?;
            Some(bytes.get(from..to)?.to_vec())
        };
        !unreadable && bytes(self).is_some() && bytes(self) == bytes(before)
    }

    /// Some changes, as many as the input asks for. `salt` is the journal's.
    pub fn damage(&mut self, input: &mut Input, salt: u64) {
        let changes = input.below(6);
        for _ in 0..changes {
            self.change(input, salt);
        }
        self.unreadable = self
            .unreadable
            .filter(|(file, _)| self.files.contains_key(file));
    }

    fn pick(&self, input: &mut Input) -> Option<File> {
        let named: Vec<File> = self
            .files
            .keys()
            .copied()
            .filter(|file| file.number().is_some())
            .collect();
        (!named.is_empty()).then(|| named[input.below(named.len())])
    }

    /// An offset: in a record, in the header, anywhere.
    fn place(&self, input: &mut Input, file: File, salt: u64) -> usize {
        let bytes = &self.files[&file];
        let how = input.u8();
        let frames = if how < 170 {
            naive::frames(bytes, naive::start(file, salt))
        } else {
            Vec::new()
        };
        let at = match how {
            0..170 if !frames.is_empty() => {
                let frame = frames[input.below(frames.len())];
                match how % 3 {
                    0 => frame.at,
                    1 => frame.at + input.below(naive::FRAME),
                    _ => frame.at + input.below(frame.end - frame.at),
                }
            }
            0..190 => input.below(naive::HEADER),
            190..210 => bytes.len().saturating_sub(input.below(64)),
            _ => input.u32() as usize,
        };
        if bytes.is_empty() {
            0
        } else {
            at % bytes.len()
        }
    }

    fn length(input: &mut Input) -> usize {
        match input.below(5) {
            0 => 8,
            1 => 512,
            2 => 4096,
            3 => input.below(64),
            _ => usize::from(input.u16()),
        }
    }

    fn change(&mut self, input: &mut Input, salt: u64) {
        let Some(file) = self.pick(input) else { return };
        let at = self.place(input, file, salt);
        let change = input.below(14);
        let length = match change {
            2..=6 => Self::length(input),
            _ => 0,
        };
        let from_file = match change {
            4 | 6 => self.pick(input).unwrap_or(file),
            _ => file,
        };
        let from = match change {
            3..=6 => self.place(input, from_file, salt),
            _ => 0,
        };
        let source = self.files[&from_file].clone();
        let bytes = self.files.get_mut(&file).expect("a file that was picked");
        let end = (at + length).min(bytes.len());
        match change {
            0 | 1 if at < bytes.len() => bytes[at] ^= input.u8().max(1),
            2 => {
                let with = if input.flag() { 0 } else { input.u8() };
                bytes[at..end].fill(with);
            }
            // Swap, copy, insert.
            3 => {
                let length = (end - at).min(bytes.len() - from);
                for n in 0..length {
                    bytes.swap(at + n, from + n);
                }
            }
            4 | 5 => {
                let length = (end - at).min(source.len() - from);
                bytes[at..at + length].copy_from_slice(&source[from..from + length]);
            }
            6 => {
                let more = source[from..(from + length).min(source.len())].to_vec();
                bytes.splice(at..at, more);
            }
            7 => bytes.truncate(at),
            8 => {
                self.files.remove(&file);
            }
            9 => self.unreadable = Some((file, at as u64)),
            10 => {
                let value = input.u32().to_le_bytes();
                for (place, value) in bytes[at..].iter_mut().zip(value) {
                    *place = value;
                }
            }
            11 => seal_all(bytes, file, salt),
            // A field of a record or of the header, with a checksum that says so.
            12 => {
                let field = [4, 8, 16, 24, 28][input.below(5)];
                let value = u32::from(input.u8()).to_le_bytes();
                let to = (at + field + 4).min(bytes.len());
                let field = (at + field).min(to);
                for (place, value) in bytes[field..to].iter_mut().zip(value) {
                    *place = value;
                }
                naive::seal(bytes, at, naive::start(file, salt));
            }
            13 => {
                let field = [8, 10, 12, 16, 24, 28, 32, 40][input.below(8)];
                if bytes.len() >= naive::HEADER {
                    bytes[field] = input.u8();
                    naive::seal_head(bytes);
                }
            }
            _ => {}
        }
    }
}

/// Every checksum from the header on is made right, as far as lengths lead.
pub fn seal_all(bytes: &mut [u8], file: File, salt: u64) {
    naive::seal_head(bytes);
    let start = naive::start(file, salt);
    let mut at = naive::HEADER;
    while let Some(next) = naive::seal(bytes, at, start) {
        at = next;
    }
}
