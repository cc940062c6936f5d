//! Directories that this machine exports over NFS: which they are, and what that means for their files.
//!
//! An NFSv3 server knows no opens. It opens a file for some writes and closes it seconds after the last, while the client
//! may keep more of them back for half a minute: neither a close nor a lease says that the writer is done. Even the
//! question for a lease makes the server close what it holds, and an event of that. So there the lease is asked first, and
//! the whole quiet time has to pass once it was granted.

use super::ask::{ExportedTree, Exports, Question};
use super::ids::{AskId, DirId};
use super::observe::is_below;
use super::settle::Waits;
use super::timers::Timer;
use super::watch::Watch;
use super::{Asked, Core, Effect, ScoutId, mask};
use crate::plan::Level;
use std::collections::BTreeSet;
use std::time::Duration;

/// Quiet time where NFS clients write: they may flush 30 seconds apart without fsync(2).
pub const QUIET_EXPORTED: Duration = Duration::from_secs(40);
/// How long nothing is looked at because it is not known yet what is exported.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often tables that cannot be read are read again.
const AGAIN: Duration = Duration::from_secs(60);

/// What is known of the export tables.
#[derive(Debug, Default)]
pub(super) struct Exported {
    trees: Vec<ExportedTree>,
    /// Some table was read. Until then every directory may be exported.
    known: bool,
    /// Everything waits for the first answer.
    waits: bool,
    asked: Option<AskId>,
    /// Something changed since it was asked.
    again: bool,
    /// Where a change of the tables is heard.
    wds: BTreeSet<i32>,
    /// The trouble that was told of last.
    said: Option<String>,
}

impl Core {
    /// At start: nothing is looked at before it is known what is exported, as long as that does not take too long.
    pub(super) fn await_exports(&mut self) {
        self.ask_exports();
        if self.exported.asked.is_some() {
            self.exported.waits = true;
            self.timers
                .set(Timer::Exports, self.now.mono.after(PATIENCE));
        }
    }

    /// Reads the tables, if any watch depends on them.
    pub(super) fn ask_exports(&mut self) {
        let depends = |watch: &Watch| watch.active && watch.plan.exported.is_none();
        if !self.watches.iter().any(depends) {
            return;
        }
        if self.exported.asked.is_some() {
            self.exported.again = true;
            return;
        }
        let ask = self.ask(ScoutId::Exports, Question::Exports, Asked::Exports);
        self.exported.asked = Some(ask);
    }

    /// A mount came or went: what is exported may be seen under it, too.
    pub(super) fn exports_elsewhere(&mut self) {
        if !self.exported.known || !self.exported.trees.is_empty() {
            self.ask_exports();
        }
    }

    /// Something happened in a directory; it may be one where the tables are.
    pub(super) fn exports_event(&mut self, wd: i32, bits: u32, name: &[u8]) {
        if !self.exported.wds.contains(&wd) {
            return;
        }
        if bits & mask::IGNORED != 0 {
            self.exported.wds.remove(&wd);
        }
        let names: [&[u8]; 3] = [b"etab", b"exports", b"exports.d"];
        if name.is_empty() || names.contains(&name) || name.ends_with(b".exports") {
            self.ask_exports();
        }
    }

    /// An inotify watch has lost its last user among the directories; the tables may be one.
    pub(super) fn keeps_watch(&self, effect: &Effect) -> bool {
        matches!(effect, Effect::Unwatch(wd) if self.exported.wds.contains(wd))
    }

    pub(super) fn exports_answered(&mut self, exports: Exports) {
        self.exported.asked = None;
        self.exported.wds.extend(exports.wds);
        match exports.trees {
            Ok(trees) => {
                self.timers.clear(Timer::Exports);
                self.exported.said = None;
                let first = !std::mem::replace(&mut self.exported.known, true);
                let was = std::mem::replace(&mut self.exported.trees, trees);
                let waited = std::mem::take(&mut self.exported.waits);
                if was != self.exported.trees || first && !waited {
                    self.judge_quiet_again();
                }
                for watch in 0..self.watches.len() as u32 {
                    self.say_exported(watch);
                }
            }
            Err(why) => {
                self.exported.waits = false;
                self.timers.set(Timer::Exports, self.now.mono.after(AGAIN));
                self.say_unknown(why);
            }
        }
        if std::mem::take(&mut self.exported.again) {
            self.ask_exports();
        }
    }

    /// [`Timer::Exports`].
    pub(super) fn exports_due(&mut self) {
        if self.exported.asked.is_some() {
            self.exported.waits = false;
            self.say_unknown("no answer from where they lie".into());
        } else {
            self.ask_exports();
        }
    }

    fn say_unknown(&mut self, why: String) {
        if self.exported.said.as_ref() == Some(&why) {
            return;
        }
        let what = if self.exported.known {
            "what was known before holds"
        } else {
            "every directory is taken for one that NFS clients write to, which takes long to settle; \
             exported = false says that one is not"
        };
        let text = format!("the NFS export tables cannot be read: {why}; {what}");
        self.exported.said = Some(why);
        self.log(Level::Warning, |line| line.text = text);
    }

    /// Whether nothing is to be looked at yet.
    pub(super) fn awaits_exports(&self) -> bool {
        self.exported.waits
    }

    /// Whether NFS clients may write to the directory.
    pub(super) fn is_exported(&self, dir: DirId) -> bool {
        let watch = self.tree.get(dir).map(|node| node.watch);
        let Some(watch) = watch.and_then(|watch| self.watches.get(watch as usize)) else {
            return false;
        };
        match watch.plan.exported {
            Some(exported) => exported,
            None if !self.exported.known => true,
            None if self.exported.trees.is_empty() => false,
            None => self.tree.place(dir, b"").is_some_and(|place| {
                let path = place.path();
                let mut trees = self.exported.trees.iter();
                trees.any(|tree| tree.mount == place.mount && is_below(&path, &tree.path))
            }),
        }
    }

    /// What a person is told of a watch that NFS clients write to, or to a part of it.
    pub(super) fn exported_text(&self, watch: u32) -> Option<String> {
        let state = self.watches.get(watch as usize)?;
        match state.plan.exported {
            Some(true) => return Some("exported over NFS (exported = true)".into()),
            Some(false) => return None,
            None if !self.exported.known => {
                return Some("perhaps exported over NFS (the export tables cannot be read)".into());
            }
            None => {}
        }
        let base = self.tree.place(state.root, b"")?;
        let root = base.path();
        let part = |tree: &&ExportedTree| {
            tree.mount == base.mount && is_below(&root, &tree.path)
                || state.plan.recursive && is_below(&tree.path, &root)
        };
        let tree = self.exported.trees.iter().find(part)?;
        let path = String::from_utf8_lossy(&tree.export).into_owned();
        Some(format!("exported over NFS ({path} to {})", tree.why))
    }

    /// Says that a watch is exported, once.
    pub(super) fn say_exported(&mut self, watch: u32) {
        if self.exported.waits {
            return;
        }
        let text = self.exported_text(watch);
        let Some(state) = self.watches.get_mut(watch as usize) else {
            return;
        };
        if !state.active || state.said_exported == text {
            return;
        }
        let dir = state.root;
        let settle = state.plan.settle.unwrap_or(QUIET_EXPORTED);
        let was = std::mem::replace(&mut state.said_exported, text.clone());
        let line = match (text, was) {
            (Some(text), _) => format!(
                "{text}: its files settle when they have been quiet for {} s after no writer was seen",
                settle.as_secs_f64()
            ),
            (None, Some(_)) => "not exported over NFS any more".into(),
            (None, None) => return,
        };
        self.log_path(Level::Info, watch, dir, b"", line);
    }

    /// What is exported is known now, or something else is: quiet times are others.
    pub(super) fn judge_quiet_again(&mut self) {
        let waiting: Vec<_> = self
            .candidates
            .iter()
            .filter(|(_, candidate)| candidate.waits == Waits::Quiet)
            .map(|(key, _)| *key)
            .collect();
        for key in waiting {
            self.timers.clear(Timer::Candidate(key));
            self.ask_when_due(key);
        }
    }
}
