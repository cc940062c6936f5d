//! Listings that are spared: of a poll, where the directory's names have not moved since the last one.
//!
//! Only where that is safe. The change time of a directory moves with every name that comes or goes, and nobody can set
//! it; but a file that is rewritten in place does not move it, so a listing is spared for no longer than the mount may show
//! old attributes anyway. Two changes within the grain of the server's clock have one time, so a time tells only what came
//! after it was known for longer than any grain.

use super::ask::{Bound, DirTimes, Fault};
use super::ids::{AskId, DirId, MountId};
use super::tree::{Bind, Names};
use super::{Asked, Core, ScoutId};
use crate::core::ask::Question;
use std::time::Duration;

/// The coarsest grain of a filesystem's clock, FAT's.
const GRAIN: Duration = Duration::from_secs(2);

impl Core {
    /// For how long listings of a directory may be spared; zero: never.
    fn spares_for(&self, dir: DirId) -> Duration {
        let mount = self.tree.mount(dir);
        let mount = mount.and_then(|mount| self.mounts.get(&mount));
        match mount {
            Some(mount) if matches!(mount.fstype.as_str(), "nfs" | "nfs4") => {
                Duration::from_secs(mount.attribute_cache_s.into())
            }
            _ => Duration::ZERO,
        }
    }

    /// Asks whether the names have moved, where that may spare the listing.
    pub(super) fn ask_moved(&mut self, lane: MountId, dir: DirId) -> bool {
        let spared = self.spares_for(dir);
        let now = self.now.mono;
        let place = self.tree.place(dir, b"");
        let Some((node, place)) = self.tree.get_mut(dir).zip(place) else {
            return false;
        };
        let listed = node.names_at.and_then(|names| names.listed);
        let over = listed.is_some_and(|listed| now.since(listed) >= spared);
        node.sparing = false;
        if spared.is_zero() || !node.bound || over {
            return false;
        }
        node.bind = Bind::Asked;
        let watch = node.watch;
        self.bind_goes(lane, watch);
        let ask = self.ask(
            ScoutId::Mount(place.mount),
            Question::Moved { place },
            Asked::Moved { dir, lane, watch },
        );
        if let Some(node) = self.tree.get_mut(dir) {
            node.asked = ask;
        }
        true
    }

    /// A directory is about to be listed, which moved at these times.
    pub(super) fn times_are(&mut self, dir: DirId, bound: &Bound) {
        if self.spares_for(dir).is_zero() {
            return;
        }
        let since = self.now.mono;
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        let times = DirTimes {
            ino: bound.ident.ino,
            btime_ns: bound.ident.btime_ns,
            ctime_ns: bound.ctime_ns,
        };
        if node.names_at.is_none_or(|names| names.times != times) {
            node.names_at = Some(Names {
                times,
                since,
                listed: None,
            });
        }
    }

    /// The names moved then, or the directory cannot be asked.
    pub(super) fn names_moved(
        &mut self,
        ask: AskId,
        lane: MountId,
        dir: DirId,
        result: Result<DirTimes, Fault>,
    ) {
        let now = self.now.mono;
        let Some(node) = self.tree.get_mut(dir).filter(|node| node.asked == ask) else {
            return;
        };
        let times = result.ok();
        let known = node.names_at.filter(|names| Some(names.times) == times);
        let certain = node.bind == Bind::Asked && node.displaced.is_none();
        if known.is_some_and(|names| names.listed.is_some()) && certain {
            self.bind_ended(dir);
            return;
        }
        node.names_at = known.or(times.map(|times| Names {
            times,
            since: now,
            listed: None,
        }));
        // Whatever was wrong with it, its listing says.
        node.bind = Bind::Queued;
        self.ask_bind(lane, dir);
    }

    /// A listing was complete, and showed everything that was known and nothing that it could not tell.
    pub(super) fn listed_clean(&mut self, dir: DirId, clean: bool) {
        let Some(node) = self.tree.get_mut(dir) else {
            return;
        };
        let clean = clean && !node.flawed;
        let bound_at = node.bound_at;
        if let Some(names) = &mut node.names_at {
            let told_apart = bound_at.since(names.since) >= GRAIN;
            names.listed = (clean && told_apart).then_some(bound_at);
        }
    }
}
