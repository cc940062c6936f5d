//! Faults put into the core, the loop's contract and the journal on purpose. Each has to be caught.

use super::Mutant;

/// Name, file, the text there (once), the text in its place.
pub const ALL: &[Mutant] = &[
    Mutant {
        name: "skip the flush",
        file: "src/journal/mod.rs",
        old: r##"            .write(file, end.into(), &self.active.staged)
            .and_then(|()| self.storage.flush(file));"##,
        new: r##"            .write(file, end.into(), &self.active.staged);"##,
    },
    Mutant {
        name: "act before the record",
        file: "tests/sim/world.rs",
        old: r##"        let durable = records.clone();
"##,
        new: r##"        let durable = records.clone();
        for effect in &others {
            if let Effect::Spawn(order) = effect {
                self.spawn((**order).clone());
            }
        }
"##,
    },
    Mutant {
        name: "perform what a failed flush announced",
        file: "tests/sim/world.rs",
        old: r##"            story!(self.now, "!!!! crash while the journal is written: {error}");
"##,
        new: r##"            story!(self.now, "!!!! crash while the journal is written: {error}");
            for effect in others {
                if let Effect::Spawn(order) = effect {
                    self.spawn(*order);
                }
            }
"##,
    },
    Mutant {
        name: "drop the overflow",
        file: "src/core/mod.rs",
        old: r##"Input::Overflow => self.overflow(),"##,
        new: r##"Input::Overflow => {}"##,
    },
    Mutant {
        name: "never list after an overflow",
        file: "src/core/observe.rs",
        old: r##"                self.resolve_root(watch);
            } else {
                self.start_scan(watch);
            }
        }
    }

    // ---- selection ----"##,
        new: r##"                self.resolve_root(watch);
            }
        }
    }

    // ---- selection ----"##,
    },
    Mutant {
        name: "forget the quiet timer",
        file: "src/core/settle.rs",
        old: r##"        if at <= now {
            self.queue_probe(key);
        } else {
            self.timers.set(Timer::Candidate(key), at);
        }"##,
        new: r##"        if at <= now {
            self.queue_probe(key);
        }"##,
    },
    Mutant {
        name: "no quiet time",
        file: "src/core/settle.rs",
        old: r##"if !quiet.is_zero() && until > now {"##,
        new: r##"if quiet.is_zero() && until > now {"##,
    },
    Mutant {
        name: "ignore the lease's answer",
        file: "src/core/settle.rs",
        old: r##"    if let Held::By(_) = facts.lease {
        return Some(Waits::Writer);
    }
"##,
        new: r##""##,
    },
    Mutant {
        name: "ignore the lock's answer",
        file: "src/core/settle.rs",
        old: r##"    if let Held::By(pid) = facts.lock {
        return Some(Waits::Lock(pid));
    }
"##,
        new: r##""##,
    },
    Mutant {
        name: "no lease in the look before the attempt",
        file: "src/core/attempt.rs",
        old: r##"let lease = self.lease_can_be_trusted(place.mount);"##,
        new: r##"let lease = false;"##,
    },
    Mutant {
        name: "trust a lease on a remote mount",
        file: "src/core/observe.rs",
        old: r##".is_some_and(|mount| !mount.remote_writers)"##,
        new: r##".is_some()"##,
    },
    Mutant {
        name: "forget to mark recovered",
        file: "src/core/attempt.rs",
        old: r##"let recovered = std::mem::take(&mut job.cut_short);"##,
        new: r##"let recovered = std::mem::take(&mut job.cut_short) && false;"##,
    },
    Mutant {
        name: "count an attempt that was cut short",
        file: "src/core/attempt.rs",
        old: r##"AttemptEnd::StillWritten | AttemptEnd::CutShort => self.again(id, end, output, false),"##,
        new: r##"AttemptEnd::StillWritten | AttemptEnd::CutShort => self.again(id, end, output, true),"##,
    },
    Mutant {
        name: "a crash is no attempt cut short",
        file: "src/core/replay.rs",
        old: r##"job.cut_short = true;"##,
        new: r##"job.cut_short = false;"##,
    },
    Mutant {
        name: "double dispatch",
        file: "src/core/attempt.rs",
        old: r##"            self.out.push(Effect::Spawn(Box::new(order)));"##,
        new: r##"            self.out.push(Effect::Spawn(Box::new(order.clone())));
            self.out.push(Effect::Spawn(Box::new(order)));"##,
    },
    Mutant {
        name: "no limit of attempts",
        file: "src/core/attempt.rs",
        old: r##"if job.counted >= watch.plan.attempts {"##,
        new: r##"if job.counted == u32::MAX {"##,
    },
    Mutant {
        name: "no limit of what runs at once",
        file: "src/core/attempt.rs",
        old: r##"while idle < self.watches.len() && self.runs.len() < self.daemon.concurrency as usize {"##,
        new: r##"while idle < self.watches.len() {"##,
    },
    Mutant {
        name: "ignore the serial key",
        file: "src/core/watch.rs",
        old: r##"let queue = Queue::new(plan.serial);"##,
        new: r##"let queue = Queue::new(false);"##,
    },
    Mutant {
        name: "a retry lets its key go",
        file: "src/core/job.rs",
        old: r##"            if begun {
                watch.queue.hold(id, &key);
            }
"##,
        new: r##""##,
    },
    Mutant {
        name: "the rank in the queue is that of now",
        file: "src/core/job.rs",
        old: r##"        job.by = rank.by.clone();
"##,
        new: r##""##,
    },
    Mutant {
        name: "forget the retry",
        file: "src/core/attempt.rs",
        old: r##"        self.timers.set(Timer::Retry(id), self.now.mono.after(wait));
"##,
        new: r##""##,
    },
    Mutant {
        name: "forget the timeout",
        file: "src/core/attempt.rs",
        old: r##"            self.timers
                .set(Timer::Kill(id), self.now.mono.after(timeout));
"##,
        new: r##"            let _ = timeout;
"##,
    },
    Mutant {
        name: "do not look again after the run",
        file: "src/core/attempt.rs",
        old: r##"if accept || heard {"##,
        new: r##"if accept && heard {"##,
    },
    Mutant {
        name: "forget the baseline",
        file: "src/core/settle.rs",
        old: r##"        self.append(Record::Baseline {
            dir,
            name: name.to_vec(),
            version: stat.version,
            ctime_ns: stat.ctime_ns,
        });
"##,
        new: r##"        let _ = name;
"##,
    },
    Mutant {
        name: "a baseline for ever",
        file: "src/core/scan.rs",
        old: r##"            self.append(Record::Scanned { watch: id });"##,
        new: r##"            let _ = id;"##,
    },
    Mutant {
        name: "drop a Gone",
        file: "src/core/observe.rs",
        old: r##"            self.append(Record::Gone {
                dir: key.dir(),
                name_hash: key.hash(),
            });
"##,
        new: r##""##,
    },
    Mutant {
        name: "lose a Renamed",
        file: "src/core/observe.rs",
        old: r##"        self.append(Record::Renamed {
            dir: from.dir(),
            name_hash: from.hash(),
            to_dir,
            to_name: to_name.to_vec(),
        });
"##,
        new: r##""##,
    },
    Mutant {
        name: "lose a DirGone",
        file: "src/core/observe.rs",
        old: r##"                self.append(Record::DirGone { dir: id });"##,
        new: r##"                let _ = recorded;"##,
    },
    Mutant {
        name: "lose a directory's new name",
        file: "src/core/observe.rs",
        old: r##"                self.record_dir_again(moved);"##,
        new: r##"                let _ = moved;"##,
    },
    Mutant {
        name: "forget a Retarget",
        file: "src/core/dispose.rs",
        old: r##"                self.append(Record::Retarget { job: id, rel: next });"##,
        new: r##"                let _ = next;"##,
    },
    Mutant {
        name: "a taken target counts as done",
        file: "src/core/dispose.rs",
        old: r##"            Ok(Answered::Done) => self.dispose_ends(id, DisposedHow::Done),"##,
        new: r##"            Ok(Answered::Done | Answered::Taken(_)) => self.dispose_ends(id, DisposedHow::Done),"##,
    },
    Mutant {
        name: "forget what a disposition put back",
        file: "src/core/dispose.rs",
        old: r##"                // Nobody knows how it came about: quiet time is due, as after a close.
                self.hint(watch, dir, &name, Signal::Close, None);
"##,
        new: r##"                let _ = (watch, dir, &name);
"##,
    },
    Mutant {
        name: "the mover does not look",
        file: "tests/sim/scouts.rs",
        old: r##"            if !same(disk, uid, &expect) {
                put_back"##,
        new: r##"            if disk.inodes[uid].dir {
                put_back"##,
    },
    Mutant {
        name: "the mover replaces what is there",
        file: "tests/sim/scouts.rs",
        old: r##"if let Some(there) = disk.lookup(to, &to_name) {"##,
        new: r##"if let Some(there) = disk.lookup(to, &to_name).filter(|there| {
                        disk.inodes[*there].content == disk.inodes[uid].content
                    }) {"##,
    },
    Mutant {
        name: "the mover's look finds a writer and goes on",
        file: "tests/sim/scouts.rs",
        old: r##"if lease && let Held::By(_) = lease_of(disk, uid) {"##,
        new: r##"if !lease && let Held::By(_) = lease_of(disk, uid) {"##,
    },
    Mutant {
        name: "do not wait for the end of a scan",
        file: "src/core/settle.rs",
        old: r##"            && state.scan.is_some()
            && state.history
        {"##,
        new: r##"            && state.scan.is_none()
            && state.history
        {"##,
    },
    Mutant {
        name: "no second half in a listing",
        file: "src/core/scan.rs",
        old: r##"        self.find_half(watch, dir, name, &stat.version);
"##,
        new: r##""##,
    },
    Mutant {
        name: "a file that went away is still remembered",
        file: "src/core/observe.rs",
        old: r##"        self.drop_candidate(key);
        self.known_gone(key);
        self.job_gone(key);"##,
        new: r##"        self.drop_candidate(key);
        self.job_gone(key);"##,
    },
    Mutant {
        name: "new directories are not listed",
        file: "src/core/observe.rs",
        old: r##"        for id in self.tree.subtree(child) {
            self.queue_bind(id);
        }"##,
        new: r##"        let _ = child;"##,
    },
    Mutant {
        name: "compaction forgets failed attempts",
        file: "src/core/replay.rs",
        old: r##"            counted: job.counted,
            not_before: job.not_before,
            output: Vec::new(),"##,
        new: r##"            counted: 0,
            not_before: job.not_before,
            output: Vec::new(),"##,
    },
    Mutant {
        name: "compaction forgets the last number",
        file: "src/core/replay.rs",
        old: r##"let jobs = jobs.chain(number);"##,
        new: r##"let jobs = jobs.chain(number.filter(|_| false));"##,
    },
    Mutant {
        name: "recovery forgets the unproven tail",
        file: "src/journal/mod.rs",
        old: r##"            for offset in &walked.tail {"##,
        new: r##"            for offset in walked.tail.iter().take(0) {"##,
    },
    Mutant {
        name: "a base counts before it is flushed",
        file: "src/journal/compact.rs",
        old: r##"        match self.storage.flush(File::NewBase) {"##,
        new: r##"        match Ok::<(), Fault>(()) {"##,
    },
    Mutant {
        name: "old segments go before the base's name is sure",
        file: "src/journal/compact.rs",
        old: r##"        let synced = self.storage.sync_dir();"##,
        new: r##"        let synced = Ok::<(), Fault>(());"##,
    },
    Mutant {
        name: "a new segment's name is not sure",
        file: "src/journal/mod.rs",
        old: r##"            .and_then(|()| storage.rename(File::Spare, File::Log(number)))
            .and_then(|()| storage.sync_dir());"##,
        new: r##"            .and_then(|()| storage.rename(File::Spare, File::Log(number)));"##,
    },
    Mutant {
        name: "a record's checksum is not asked",
        file: "src/journal/format.rs",
        old: r##"    if u32_at(bytes, 0) != Some(crc32c::crc32c_append(seed.0, covered)) {"##,
        new: r##"    if u32_at(bytes, 0) == Some(crc32c::crc32c_append(seed.0, covered) ^ 1) {"##,
    },
];
