//! Faults in observing and settling.

use super::Mutant;

/// See [`Mutant`].
pub const ALL: &[Mutant] = &[
    Mutant {
        name: "drop the overflow",
        file: "src/core/mod.rs",
        old: r##"Input::Overflow => self.overflow(),"##,
        new: r##"Input::Overflow if MUTANT => {}
            Input::Overflow => self.overflow(),"##,
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
            } else if !MUTANT {
                self.start_scan(watch);
            }
        }
    }

    // ---- selection ----"##,
    },
    Mutant {
        name: "forget the quiet timer",
        file: "src/core/quiet.rs",
        old: r##"        if at <= now {
            self.queue_probe(key);
        } else {
            self.timers.set(Timer::Candidate(key), at);
        }"##,
        new: r##"        if at <= now {
            self.queue_probe(key);
        } else if !MUTANT {
            self.timers.set(Timer::Candidate(key), at);
        }"##,
    },
    Mutant {
        name: "no quiet time",
        file: "src/core/settle.rs",
        old: r##"if !patience.quiet.is_zero() && until > candidate.asked_at {"##,
        new: r##"if !MUTANT && !patience.quiet.is_zero() && until > candidate.asked_at {"##,
    },
    Mutant {
        name: "ignore the lease's answer",
        file: "src/core/settle.rs",
        old: r##"    if let Held::By(_) = facts.lease {
        return Some(Waits::Writer);
    }
"##,
        new: r##"    if let Held::By(_) = facts.lease
        && !MUTANT
    {
        return Some(Waits::Writer);
    }
"##,
    },
    Mutant {
        name: "ignore the lock's answer",
        file: "src/core/settle.rs",
        old: r##"    if let Held::By(pid) = facts.lock {
        return Some(Waits::Lock(pid));
    }
"##,
        new: r##"    if let Held::By(pid) = facts.lock
        && !MUTANT
    {
        return Some(Waits::Lock(pid));
    }
"##,
    },
    Mutant {
        name: "trust a lease on a remote mount",
        file: "src/core/roots.rs",
        old: r##".is_some_and(|mount| !mount.remote_writers)"##,
        new: r##".is_some_and(|mount| MUTANT || !mount.remote_writers)"##,
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
        new: r##"        if !MUTANT {
            self.append(Record::Baseline {
                dir,
                name: name.to_vec(),
                version: stat.version,
                ctime_ns: stat.ctime_ns,
            });
        }
"##,
    },
    Mutant {
        name: "a baseline for ever",
        file: "src/core/compare.rs",
        old: r##"            self.append(Record::Scanned { watch: id });"##,
        new: r##"if !MUTANT { self.append(Record::Scanned { watch: id }); }"##,
    },
    Mutant {
        name: "drop a Gone",
        file: "src/core/observe.rs",
        old: r##"            self.append(Record::Gone {
                dir: key.dir(),
                name_hash: key.hash(),
            });
"##,
        new: r##"            if !MUTANT {
                self.append(Record::Gone {
                    dir: key.dir(),
                    name_hash: key.hash(),
                });
            }
"##,
    },
    Mutant {
        name: "lose a Renamed",
        file: "src/core/renames.rs",
        old: r##"        self.append(Record::Renamed {
            dir: from.dir(),
            name_hash: from.hash(),
            to_dir,
            to_name: to_name.to_vec(),
        });
"##,
        new: r##"        if !MUTANT {
            self.append(Record::Renamed {
                dir: from.dir(),
                name_hash: from.hash(),
                to_dir,
                to_name: to_name.to_vec(),
            });
        }
"##,
    },
    Mutant {
        name: "lose a DirGone",
        file: "src/core/observe.rs",
        old: r##"                self.append(Record::DirGone { dir: id });"##,
        new: r##"if !MUTANT { self.append(Record::DirGone { dir: id }); }"##,
    },
    Mutant {
        name: "lose a directory's new name",
        file: "src/core/observe.rs",
        old: r##"                self.record_dir_again(moved);"##,
        new: r##"if !MUTANT { self.record_dir_again(moved); }"##,
    },
    Mutant {
        name: "do not wait for the end of a scan",
        file: "src/core/settle.rs",
        old: r##"        if (unheard || self.tree.any_deaf(watch) || state.history && scans)"##,
        new: r##"        if !MUTANT
            && (unheard || self.tree.any_deaf(watch) || state.history && scans)"##,
    },
    Mutant {
        name: "a scan that waits for its root compares nothing",
        file: "src/core/watch.rs",
        old: r##"        self.scan.is_some() || self.scan_again"##,
        new: r##"        self.scan.is_some() || !MUTANT && self.scan_again"##,
    },
    Mutant {
        name: "what went from a directory that is gone is not waited for",
        file: "src/core/renames.rs",
        old: r##"        let halves = self.any_half_below(dir);"##,
        new: r##"        let halves = !MUTANT && self.any_half_below(dir);"##,
    },
    Mutant {
        name: "no second half in a listing",
        file: "src/core/scan.rs",
        old: r##"        self.find_half(watch, dir, name, &stat.version);
"##,
        new: r##"        if !MUTANT {
            self.find_half(watch, dir, name, &stat.version);
        }
"##,
    },
    Mutant {
        name: "a file that went away is still remembered",
        file: "src/core/observe.rs",
        old: r##"        }
        self.known_gone(key);
        self.job_gone(key);"##,
        new: r##"        }
        if !MUTANT {
            self.known_gone(key);
        }
        self.job_gone(key);"##,
    },
    Mutant {
        name: "what is deleted while a scan is under way takes another file's memory along",
        file: "src/core/observe.rs",
        old: "            self.deleted_while_listed(watch, FileKey::new(dir, name));\n",
        new: "            if !MUTANT {\n                self.deleted_while_listed(watch, FileKey::new(dir, name));\n            }\n",
    },
    Mutant {
        name: "a directory that goes while a scan is under way takes along what went from it",
        file: "src/core/renames.rs",
        old: "|| unseen && self.holds_any(dir);",
        new: "|| !MUTANT && unseen && self.holds_any(dir);",
    },
    Mutant {
        name: "a file that was seen is unseen once it is renamed",
        file: "src/core/renames.rs",
        old: "        candidate.seen_at = self.now.mono;\n        self.see(to, seen);",
        new: "        if MUTANT {\n            return;\n        }\n        candidate.seen_at = self.now.mono;\n        self.see(to, seen);",
    },
    Mutant {
        name: "new directories are not listed",
        file: "src/core/observe.rs",
        old: r##"        for id in self.entered(watch, child) {
            self.queue_bind(id);"##,
        new: r##"        for id in self.entered(watch, child) {
            if MUTANT {
                continue;
            }
            self.queue_bind(id);"##,
    },
    Mutant {
        name: "a probe from before the last event is believed",
        file: "src/core/settle.rs",
        old: r##"        if stale {
            // What was asked"##,
        new: r##"        if stale && !MUTANT {
            // What was asked"##,
    },
    Mutant {
        name: "the mount's attribute cache is forgotten",
        file: "src/core/quiet.rs",
        old: r##"quiet.max(Duration::from_secs(cache.into()))"##,
        new: r##"quiet.max(Duration::from_secs(if MUTANT { 0 } else { cache.into() }))"##,
    },
    Mutant {
        name: "what NFS clients write to settles as quickly as anything else",
        file: "src/core/quiet.rs",
        old: r##"            (None, ..) if exported => QUIET_EXPORTED,"##,
        new: r##"            (None, ..) if exported && !MUTANT => QUIET_EXPORTED,"##,
    },
    Mutant {
        name: "ignore the flock's answer",
        file: "src/core/settle.rs",
        old: r##"    if let Held::By(_) = facts.flock {"##,
        new: r##"    if let Held::By(_) = facts.flock
        && !MUTANT
    {"##,
    },
    Mutant {
        name: "settle where there is no room to remember it",
        file: "src/core/settle.rs",
        old: r##"if !self.room || self.mode != Mode::Running {"##,
        new: r##"if !self.room && !MUTANT || self.mode != Mode::Running {"##,
    },
    Mutant {
        name: "a directory that cannot be read counts as empty",
        file: "src/core/scan.rs",
        old: r##"            Fault::Here(errno) | Fault::Crossed(errno) => {
                if failures == 1 && !early {"##,
        new: r##"            Fault::Here(_) if MUTANT => return self.listed(dir),
            Fault::Here(errno) | Fault::Crossed(errno) => {
                if failures == 1 && !early {"##,
    },
    Mutant {
        name: "a listing cut short counts as whole",
        file: "src/core/mod.rs",
        old: r##"                    Err(fault) => self.bind_failed(dir, fault),
                }
            }
            (Asked::Moved"##,
        new: r##"                    Err(_) if MUTANT => self.listed(dir),
                    Err(fault) => self.bind_failed(dir, fault),
                }
            }
            (Asked::Moved"##,
    },
    Mutant {
        name: "a directory that is gone stays watched",
        file: "src/core/observe.rs",
        old: r##"            if let Some(wd) = self.tree.remove(id, !recorded) {"##,
        new: r##"            if let Some(wd) = self.tree.remove(id, !recorded)
                && !MUTANT
            {"##,
    },
    Mutant {
        name: "a name that left by a rename is never given up",
        file: "src/core/mod.rs",
        old: r##"Timer::Rename { cookie, watch } => self.rename_due(cookie, watch),"##,
        new: r##"Timer::Rename { .. } if MUTANT => {}
                Timer::Rename { cookie, watch } => self.rename_due(cookie, watch),"##,
    },
    Mutant {
        name: "no limit of listings in flight",
        file: "src/core/lane.rs",
        old: r##"        self.binds_asked < BINDS_MAX ||"##,
        new: r##"        MUTANT || self.binds_asked < BINDS_MAX ||"##,
    },
    Mutant {
        name: "no limit of probes in flight",
        file: "src/core/lane.rs",
        old: r##"        self.probes_asked < PROBES_MAX && self.looks_asked"##,
        new: r##"        MUTANT || self.probes_asked < PROBES_MAX && self.looks_asked"##,
    },
    Mutant {
        name: "every turn looks at every candidate",
        file: "src/core/mod.rs",
        old: r##"        self.pump();
        self.dispatch();"##,
        new: r##"        if MUTANT {
            let keys: Vec<FileKey> = self.candidates.keys().copied().collect();
            for key in keys {
                self.queue_probe(key);
            }
        }
        self.pump();
        self.dispatch();"##,
    },
    Mutant {
        name: "every event says everything that is known again",
        file: "src/core/observe.rs",
        old: r##"        self.last_event += 1;
        for dir in dirs {"##,
        new: r##"        self.last_event += 1;
        if MUTANT && mask::CREATE & bits != 0 {
            let again: Vec<Record> = self.snapshot().collect();
            for _ in 0..4 {
                self.out.extend(again.iter().filter_map(|record| match record {
                    Record::Watch { .. } => Some(super::Effect::Append(record.clone())),
                    Record::Remembered { .. } => Some(super::Effect::Append(record.clone())),
                    _ => None,
                }));
            }
        }
        for dir in dirs {"##,
    },
    Mutant {
        name: "the end of a scan waits for no probe",
        file: "src/core/awaits.rs",
        old: r##"if candidate.is_some_and(|candidate| !candidate.fresh) {"##,
        new: r##"if !MUTANT && candidate.is_some_and(|candidate| !candidate.fresh) {"##,
    },
    Mutant {
        name: "a scan that is repeated decides",
        file: "src/core/compare.rs",
        old: r##"        let again = std::mem::take(&mut state.scan_again);
        if !again {"##,
        new: r##"        let again = std::mem::take(&mut state.scan_again);
        if !again || MUTANT {"##,
    },
    Mutant {
        name: "gone when one listing missed it",
        file: "src/core/compare.rs",
        old: r##"if !deaf && (told || missed.contains(&(key, digest))) {"##,
        new: r##"if !deaf && (told || MUTANT || missed.contains(&(key, digest))) {"##,
    },
    Mutant {
        name: "a name is taken before it is left",
        file: "src/core/moves.rs",
        old: r##"taken.filter(|to| from.contains_key(to)).collect();"##,
        new: r##"taken.filter(|to| !MUTANT && from.contains_key(to)).collect();"##,
    },
    Mutant {
        name: "in a ring the first is lost",
        file: "src/core/moves.rs",
        old: r##"waits.retain(|to| !spares.contains_key(to));"##,
        new: r##"waits.retain(|to| !MUTANT && !spares.contains_key(to));"##,
    },
    Mutant {
        name: "a watch descriptor that has ended is taken",
        file: "src/core/scan.rs",
        old: r##"            Some(Ok(wd)) if self.dead_wds.contains(&wd) => {"##,
        new: r##"            Some(Ok(wd)) if !MUTANT && self.dead_wds.contains(&wd) => {"##,
    },
    Mutant {
        name: "an answer from before a rename counts",
        file: "src/core/renames.rs",
        old: r##"        let seen = seen.and_then(|candidate| candidate.seen());
        self.see(key, None);"##,
        new: r##"        let seen = seen.and_then(|candidate| candidate.seen());
        if MUTANT {
            return seen;
        }
        self.see(key, None);"##,
    },
    Mutant {
        name: "a listing from before an event counts",
        file: "src/core/scan.rs",
        old: r##"        if self.told.contains(&key) {"##,
        new: r##"        if !MUTANT && self.told.contains(&key) {"##,
    },
    Mutant {
        name: "a close counts for what is renamed there",
        file: "src/core/observe.rs",
        old: r##"                candidate.closed = false;
                // A file that a disposition"##,
        new: r##"                candidate.closed &= MUTANT;
                // A file that a disposition"##,
    },
    Mutant {
        name: "what a disposition gives back is complete",
        file: "src/core/observe.rs",
        old: r##"                if self.from_private == Some(cookie) {"##,
        new: r##"                if !MUTANT && self.from_private == Some(cookie) {"##,
    },
    Mutant {
        name: "forget what a replaced name stood for",
        file: "src/core/compare.rs",
        old: r##"        if !state.is_to_scan() && (state.scanned || !state.active) && !unseen {"##,
        new: r##"        if MUTANT || !state.is_to_scan() && (state.scanned || !state.active) && !unseen {"##,
    },
    Mutant {
        name: "a root that moves while it is looked for is believed",
        file: "src/core/roots.rs",
        old: r##"        if std::mem::take(&mut state.resolve_again) {"##,
        new: r##"        if std::mem::take(&mut state.resolve_again) && !MUTANT {"##,
    },
    Mutant {
        name: "the first half of a rename takes whatever has the name",
        file: "src/core/renames.rs",
        old: r##"            if !later && self.version_at(key) == half.version {"##,
        new: r##"            if MUTANT || !later && self.version_at(key) == half.version {"##,
    },
    Mutant {
        name: "of two names the last in order is taken",
        file: "src/core/compare.rs",
        old: r##"Some(self.candidates.get(key)?.sighted);"##,
        new: r##"Some(self.candidates.get(key)?.sighted).filter(|_| !MUTANT);"##,
    },
    Mutant {
        name: "what went where nobody can look is gone",
        file: "src/core/renames.rs",
        old: r##"        let deaf = self.tree.any_deaf(watch);"##,
        new: r##"        let deaf = self.tree.any_deaf(watch) && !MUTANT;"##,
    },
    Mutant {
        name: "a name's new file is what went from there",
        file: "src/core/renames.rs",
        old: r##"!half.is_dir && half.version == Some(before) && half.heard > heard"##,
        new: r##"!half.is_dir && (MUTANT || half.version == Some(before) && half.heard > heard)"##,
    },
];
