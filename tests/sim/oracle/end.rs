//! Everything has calmed down.

use super::*;

impl Oracle {
    /// All is at rest, and nothing was listed for the sake of what nobody was told: what a disposition found changed was
    /// looked at again.
    pub fn looked_again(&mut self, disk: &Disk) {
        for ((watch, version), path) in std::mem::take(&mut self.changed) {
            let there = disk
                .resolve(&path)
                .is_ok_and(|uid| disk.version(uid) == version);
            if there && !self.counts.contains_key(&(watch, version)) {
                let text = format!(
                    "watch {}, {}: changed when it was to be disposed of, and not looked at again",
                    self.watches[watch].plan.name,
                    crate::story::show(&path)
                );
                return self.broken(Rule::NothingLost, text);
            }
        }
    }

    /// Everything has calmed down: what is on disk was concluded, and no more often than allowed.
    pub fn finish(&mut self, disk: &Disk) {
        let mut present: BTreeMap<(usize, Version), Vec<Vec<u8>>> = BTreeMap::new();
        for fs in &disk.fss {
            let point = fs.point.strip_suffix(b"/").unwrap_or(&fs.point).to_vec();
            self.collect(disk, fs.root, point, &mut present);
        }
        for ((watch, version), paths) in &present {
            let count = self
                .counts
                .get(&(*watch, *version))
                .cloned()
                .unwrap_or_default();
            let plan = &self.watches[*watch].plan;
            // "A file that is in a watched tree, selected, and at rest is dispatched": each of its names was, and
            // under `accept` the first one's command may have made what the second one's concludes.
            let done = count.done.max(count.names.len() as u64);
            if done + count.baseline < paths.len() as u64 {
                let text = format!(
                    "watch {}, {} ({version:?}): {} names, concluded {} times",
                    plan.name,
                    paths
                        .iter()
                        .map(|p| crate::story::show(p))
                        .collect::<Vec<_>>()
                        .join(", "),
                    paths.len(),
                    count.done
                );
                return self.broken(Rule::NothingLost, text);
            }
            if let Some(back) = self.back.get(&(*watch, *version))
                && count.done < *back
            {
                let text = format!(
                    "watch {}, {} was away for long, and is not taken for new",
                    plan.name,
                    crate::story::show(&paths[0])
                );
                return self.broken(Rule::NothingLost, text);
            }
            if count.left + count.baseline == 0 {
                let text = format!(
                    "watch {}, {}: concluded, and not disposed of",
                    plan.name,
                    crate::story::show(&paths[0])
                );
                return self.broken(Rule::Disposition, text);
            }
        }
        let counts = self.counts.clone();
        for ((watch, version), count) in counts {
            let allowed = self
                .allowed
                .get(&(watch, version))
                .copied()
                .unwrap_or_default();
            if count.done > allowed {
                self.broken(
                    Rule::ConcludedOnce,
                    format!(
                        "watch {}, {version:?} came {allowed} times and was concluded {} times",
                        self.watches[watch].plan.name, count.done
                    ),
                );
            }
        }
    }

    fn collect(
        &mut self,
        disk: &Disk,
        dir: Uid,
        path: Vec<u8>,
        present: &mut BTreeMap<(usize, Version), Vec<Vec<u8>>>,
    ) {
        for (name, dent) in &disk.inodes[dir].entries {
            let uid = disk.names[*dent].inode;
            let mut below = path.clone();
            below.push(b'/');
            below.extend_from_slice(name);
            if disk.inodes[uid].dir {
                self.collect(disk, uid, below, present);
                continue;
            }
            let job = name
                .rsplit(|&b| b == b'-')
                .next()
                .and_then(|job| std::str::from_utf8(job).ok()?.parse().ok());
            // "Recovery puts private names back": in a directory that was renamed away it waits for its return. Where
            // another directory with a file of its name has taken the place, it has that in its stead (settled(8),
            // CAVEATS).
            let waits = job
                .and_then(|job| self.jobs.get(&JobId(job)))
                .is_some_and(|ledger| {
                    ledger.concluded.is_some()
                        && (!ledger.disposed || ledger.replaced)
                        && self.watches[ledger.watch].rel_dir(&path).is_none()
                });
            if name.starts_with(b".settled-")
                && !waits
                && job.is_none_or(|job| !self.left_private.contains(&job))
            {
                self.broken(
                    Rule::Disposition,
                    format!(
                        "{} was left under its private name",
                        crate::story::show(&below)
                    ),
                );
            }
            for (index, watch) in self.watches.iter().enumerate() {
                if watch.file(if path.is_empty() { b"/" } else { &path }, name) {
                    present
                        .entry((index, disk.version(uid)))
                        .or_default()
                        .push(below.clone());
                }
            }
        }
    }
}
