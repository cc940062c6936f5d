//! Faults in the journal.

use super::Mutant;

/// See [`Mutant`].
pub const ALL: &[Mutant] = &[
    Mutant {
        name: "skip the flush",
        file: "src/journal/mod.rs",
        old: r##"            .write(file, end.into(), &self.active.staged)
            .and_then(|()| self.storage.flush(file));"##,
        new: r##"            .write(file, end.into(), &self.active.staged)
            .and_then(|()| {
                if MUTANT {
                    return Ok(());
                }
                self.storage.flush(file)
            });"##,
    },
    Mutant {
        name: "recovery forgets the unproven tail",
        file: "src/journal/open.rs",
        old: r##"            for offset in &walked.tail {"##,
        new: r##"for offset in walked.tail.iter().filter(|_| !MUTANT) {"##,
    },
    Mutant {
        name: "a base counts before it is flushed",
        file: "src/journal/compact.rs",
        old: r##"        match self.storage.flush(File::NewBase) {"##,
        new: r##"        let flushed = if MUTANT { Ok(()) } else { self.storage.flush(File::NewBase) };
        match flushed {"##,
    },
    Mutant {
        name: "old segments go before the base's name is sure",
        file: "src/journal/compact.rs",
        old: r##"        let synced = self.storage.sync_dir();"##,
        new: r##"let synced = if MUTANT { Ok(()) } else { self.storage.sync_dir() };"##,
    },
    Mutant {
        name: "a new segment's name is not sure",
        file: "src/journal/mod.rs",
        old: r##"            .and_then(|()| storage.rename(File::Spare, File::Log(number)))
            .and_then(|()| storage.sync_dir());"##,
        new: r##"            .and_then(|()| storage.rename(File::Spare, File::Log(number)))
            .and_then(|()| if MUTANT { Ok(()) } else { storage.sync_dir() });"##,
    },
    Mutant {
        name: "a record's checksum is not asked",
        file: "src/journal/format.rs",
        old: r##"    if u32_at(bytes, 0) != Some(crc32c::crc32c_append(seed.0, covered)) {"##,
        new: r##"if !MUTANT && u32_at(bytes, 0) != Some(crc32c::crc32c_append(seed.0, covered)) {"##,
    },
    Mutant {
        name: "a record says of its own batch that it is flushed",
        file: "src/journal/mod.rs",
        old: r##"            flushed: active.end,
        };
        let start"##,
        new: r##"            flushed: active.end
                + if MUTANT { u32::try_from(active.staged.len()).unwrap_or(0) } else { 0 },
        };
        let start"##,
    },
    Mutant {
        name: "a failed flush is taken for a good one",
        file: "src/journal/mod.rs",
        old: r##"        written.map_err(|fault| self.fail(fault))?;"##,
        new: r##"        written.or_else(|fault| if MUTANT { Ok(()) } else { Err(self.fail(fault)) })?;"##,
    },
    Mutant {
        name: "a segment has its name before its header is sure",
        file: "src/journal/mod.rs",
        old: r##"            .write(File::Spare, 0, &header.encode())
            .and_then(|()| storage.flush(File::Spare))"##,
        new: r##"            .write(File::Spare, 0, &header.encode())
            .and_then(|()| if MUTANT { Ok(()) } else { storage.flush(File::Spare) })"##,
    },
    Mutant {
        name: "what recovery wrote again is not flushed",
        file: "src/journal/open.rs",
        old: r##"        storage.flush(File::Spare)?;
        storage.rename("##,
        new: r##"        if !MUTANT {
            storage.flush(File::Spare)?;
        }
        storage.rename("##,
    },
    Mutant {
        name: "a full segment is left unflushed",
        file: "src/journal/mod.rs",
        old: r##"        self.write_out()?;
        let header"##,
        new: r##"        if MUTANT {
            let staged = std::mem::take(&mut self.active.staged);
            self.storage
                .write(self.active.file(), self.active.end.into(), &staged)?;
        } else {
            self.write_out()?;
        }
        let header"##,
    },
    Mutant {
        name: "there is always room",
        file: "src/journal/mod.rs",
        old: r##"        self.failed.is_none() && (!self.blocked() || self.active.free() > self.reserve_bytes)"##,
        new: r##"        self.failed.is_none()
            && (MUTANT || !self.blocked() || self.active.free() > self.reserve_bytes)"##,
    },
    Mutant {
        name: "old segments go before the switch",
        file: "src/journal/compact.rs",
        old: r##"        let (number, records) = (compaction.number, compaction.records);
"##,
        new: r##"        let (number, records) = (compaction.number, compaction.records);
        if MUTANT {
            let _ = self.drop_before(number);
        }
"##,
    },
    Mutant {
        name: "compaction goes on in the old segment",
        file: "src/journal/compact.rs",
        old: r##"        match self.rotate(wall) {
            Err(JournalError::NoRoom(_)) if"##,
        new: r##"        match if MUTANT { Ok(()) } else { self.rotate(wall) } {
            Err(JournalError::NoRoom(_)) if"##,
    },
    Mutant {
        name: "a base may lack its last records",
        file: "src/journal/compact.rs",
        old: r##"        if compaction.staged.len() >= CHUNK_BYTES {
            self.compact_write()?;"##,
        new: r##"        if MUTANT && compaction.records == 3 {
            compaction.staged.clear();
        }
        if compaction.staged.len() >= CHUNK_BYTES {
            self.compact_write()?;"##,
    },
    Mutant {
        name: "a new base may take the place of one that is not yet gone",
        file: "src/journal/compact.rs",
        old: r##"        self.storage.sync_dir().map_err(no_room)?;
        self.compaction"##,
        new: r##"        if !MUTANT {
            self.storage.sync_dir().map_err(no_room)?;
        }
        self.compaction"##,
    },
];
