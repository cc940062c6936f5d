//! The listings that a scout has been asked for. Those below different bases, which watches have, take turns, some names
//! at a time: a directory of a million files below one keeps neither the directories below another nor, as the scout
//! answers them between two pieces, any other question. What is below one base is listed in the order in which it was asked.

use crate::core::ask::{Answer, Place, Question};
use crate::core::ids::AskId;
use crate::probe::{Listing, Prober};
use inotify::Watches;
use std::collections::VecDeque;

/// Names that are looked at before the other questions' turn: a fraction of a millisecond on a disk, up to a quarter of a
/// second where each is a question to a server.
const NAMES_A_TURN: usize = 256;

/// Names of one directory that are looked at before another one's turn.
const NAMES_A_STEP: usize = 64;

/// What it takes to open and to end one, in names.
const OPEN_COSTS: usize = 16;

/// Directories that are open at the same time: each has a buffer of its own. More bases wait for one of them.
const OPEN_MAX: usize = 64;

#[derive(Debug)]
struct Open {
    ask: AskId,
    base: Vec<u8>,
    listing: Listing,
}

#[derive(Debug)]
struct Waiting {
    ask: AskId,
    place: Place,
    watch: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Listings {
    waiting: VecDeque<Waiting>,
    /// At most one for each base; the first is the one whose turn it is.
    open: VecDeque<Open>,
}

impl Listings {
    /// Takes a [`Question::Bind`]; any other is none of its business.
    pub(super) fn push(&mut self, ask: AskId, question: Question) {
        if let Question::Bind { place, watch } = question {
            self.waiting.push_back(Waiting { ask, place, watch });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }

    /// Goes on with what there is, for about [`NAMES_A_TURN`].
    pub(super) fn go_on(
        &mut self,
        prober: &mut Prober,
        watches: &mut Watches,
        say: &mut dyn FnMut(AskId, Answer),
    ) {
        let mut left = NAMES_A_TURN;
        while left > 0 {
            if let Some(waiting) = self.next() {
                left = left.saturating_sub(OPEN_COSTS);
                self.begin(waiting, prober, watches, say);
                continue;
            }
            let Some(mut open) = self.open.pop_front() else {
                break;
            };
            let (ask, mut names) = (open.ask, NAMES_A_STEP);
            let say = &mut |answer| say(ask, answer);
            if prober.list_on(&mut open.listing, &mut names, say) {
                self.open.push_back(open);
            }
            left = left.saturating_sub(NAMES_A_STEP - names);
        }
        // What was looked at is said before anything else is looked at.
        for open in &mut self.open {
            open.listing.say_all(&mut |answer| say(open.ask, answer));
        }
    }

    /// The first that may be opened now.
    fn next(&mut self) -> Option<Waiting> {
        if self.open.len() >= OPEN_MAX {
            return None;
        }
        let is_open = |base: &[u8]| self.open.iter().any(|open| open.base == base);
        let at = self
            .waiting
            .iter()
            .position(|waiting| !is_open(&waiting.place.base))?;
        self.waiting.remove(at)
    }

    fn begin(
        &mut self,
        waiting: Waiting,
        prober: &mut Prober,
        watches: &mut Watches,
        say: &mut dyn FnMut(AskId, Answer),
    ) {
        let Waiting { ask, place, watch } = waiting;
        let watches = watch.then_some(watches);
        let listing = prober.open_listing(&place, watches, &mut |answer| say(ask, answer));
        self.open.extend(listing.map(|listing| Open {
            ask,
            base: place.base,
            listing,
        }));
    }
}
