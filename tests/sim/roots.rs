//! "Moves of a watch's root are survived": one that is heard to move while it is being looked for is looked for again, as
//! nobody knows which of the two came first. Else it is taken for missing where it is there, until the next poll.

use crate::oracle::Rule;
use crate::world::World;
use settled::core::ask::{Answer, Question};
use settled::core::ids::AskId;
use settled::core::mask;
use std::collections::BTreeSet;

/// What the daemon was told of its root, and asks; of a daemon that has one watch.
#[derive(Debug, Default)]
pub struct Roots {
    /// Those questions that get the root a watch descriptor.
    binds: BTreeSet<AskId>,
    wd: Option<i32>,
    /// It is being looked for.
    resolving: Option<AskId>,
    /// It was heard to move meanwhile.
    moved: bool,
    /// It has to be looked for again.
    owed: bool,
}

impl Roots {
    pub fn asked(&mut self, ask: AskId, question: &Question) {
        match question {
            Question::Resolve { .. } => {
                self.resolving = Some(ask);
                (self.moved, self.owed) = (false, false);
            }
            Question::Bind { place, .. } if place.rel.is_empty() => {
                self.binds.insert(ask);
            }
            _ => {}
        }
    }

    pub fn unwatched(&mut self, wd: i32) {
        self.wd = self.wd.filter(|root| *root != wd);
    }

    pub fn heard(&mut self, wd: i32, bits: u32) {
        let moves = self.wd == Some(wd) && bits & mask::MOVE_SELF != 0;
        self.moved |= moves && self.resolving.is_some();
    }

    pub fn told(&mut self, ask: AskId, answer: &Answer) {
        match answer {
            Answer::Bound(Ok(bound)) if self.binds.remove(&ask) => {
                self.wd = bound.wd.and_then(Result::ok);
            }
            Answer::Resolved(_) if self.resolving == Some(ask) => {
                self.resolving = None;
                self.owed = self.moved;
            }
            _ => {}
        }
    }
}

impl World {
    /// The turn's effects were performed, all of them.
    pub fn roots_are_looked_for(&mut self) {
        if self.roots.owed && self.oracle.watches.len() == 1 && !self.oracle.moment.stopping {
            self.oracle.broken(
                Rule::Watched,
                "the root moved while it was being looked for, and is not looked for again",
            );
        }
    }
}
