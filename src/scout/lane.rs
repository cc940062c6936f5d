//! What the daemon knows about one scout: its process, what it owes, what is on its way to it.

use super::Launcher;
use super::wire;
use crate::core::ask::{Answer, Disposal, Exports, Fault, Question};
use crate::core::ids::AskId;
use crate::core::time::Mono;
use crate::core::{Input, ScoutId};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A question is not asked a fourth time if its scout ended over it this often.
const DEATHS_MAX: u8 = 3;

/// Scouts of one mount that were killed and are not dead yet: the one that came after them is kept then.
const ABANDONED_MAX: usize = 2;

/// Wait before a scout is started after its second death in a row; doubles up to [`RESTART_MAX`].
const RESTART_FIRST: Duration = Duration::from_millis(100);
const RESTART_MAX: Duration = Duration::from_secs(60);

/// Longest wait between two replacements of a silent scout.
const REPLACE_MAX: Duration = Duration::from_secs(600);

/// Buffers above this are given back when they are empty.
const KEPT_BYTES: usize = 16 * 1024;

/// How long a scout may owe an answer and say nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Then it is slow.
    pub(super) slow: Duration,
    /// Then it is silent; after as long again it is replaced.
    pub(super) silent: Duration,
}

/// A process, or one that is being made.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) number: u64,
    pub(super) pid: Option<i32>,
    /// What it seems to have died of, if it is not known yet whether it ever lived.
    pub(super) suspect: Option<AskId>,
}

#[derive(Debug)]
struct Link {
    life: Life,
    stream: UnixStream,
    token: Token,
    /// Written when the socket has room.
    out: Vec<u8>,
    written: usize,
    wants_room: bool,
    /// Less than a frame, or what was over the budget.
    inbox: Vec<u8>,
    answered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Not given to the present process.
    Here,
    /// Given to it.
    Scout,
    /// It gave it to a process of its own, which may take long.
    Away,
}

/// What kind of answer a question wants.
#[derive(Clone, Copy, Debug)]
enum Wants {
    Resolved,
    Exports,
    Moved,
    Bound,
    /// The directory is bound: its listing.
    Listed,
    Probed,
    Disposed,
}

#[derive(Debug)]
struct Asked {
    frame: Box<[u8]>,
    wants: Wants,
    at: At,
    deaths: u8,
}

/// How often a scout was given up over the question, and the question.
type Key = (u8, AskId);

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Lane {
    id: ScoutId,
    link: Option<Link>,
    /// By order of asking; those that a scout was given up over come last.
    asked: BTreeMap<Key, Asked>,
    /// Those that the present process has not been given, in order.
    unsent: VecDeque<Key>,
    /// While careful: the one that it works on.
    in_hand: Option<Key>,
    /// How many are not [`At::Away`].
    waiting: usize,
    /// Questions that are asked one at a time, so that it is known which one a scout dies of.
    careful: usize,
    heard: Mono,
    slow: bool,
    silent: bool,
    replace_at: Mono,
    replace_wait: Duration,
    deaths: u32,
    start_at: Option<Mono>,
    pub(super) abandoned: Vec<i32>,
}

impl Lane {
    pub(super) fn new(id: ScoutId) -> Lane {
        Lane {
            id,
            link: None,
            asked: BTreeMap::new(),
            unsent: VecDeque::new(),
            in_hand: None,
            waiting: 0,
            careful: 0,
            heard: Mono(0),
            slow: false,
            silent: false,
            replace_at: Mono(0),
            replace_wait: Duration::ZERO,
            deaths: 0,
            start_at: None,
            abandoned: Vec::new(),
        }
    }

    pub(super) fn ask(&mut self, now: Mono, id: AskId, question: &Question) {
        // Longer than nearly all of them: what is kept is as long as it is.
        let mut frame = Vec::with_capacity(512);
        let wants = match question {
            Question::Resolve { .. } => Wants::Resolved,
            Question::Exports => Wants::Exports,
            Question::Moved { .. } => Wants::Moved,
            Question::Bind { .. } => Wants::Bound,
            Question::Probe { .. } => Wants::Probed,
            Question::Dispose { .. } => Wants::Disposed,
        };
        // What cannot be written, which no path of at most 4096 bytes is, would stay empty and be given up as silent.
        let _too_long = wire::put(&mut frame, &(id, question));
        if self.waiting == 0 {
            self.heard = now;
        }
        self.waiting += 1;
        let asked = Asked {
            frame: frame.into(),
            wants,
            at: At::Here,
            deaths: 0,
        };
        self.asked.insert((0, id), asked);
        self.unsent.push_back((0, id));
    }

    pub(super) fn waits(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.link.as_ref()?.life.pid
    }

    /// One that lives for its answers, with nothing left to answer.
    pub(super) fn is_served(&self) -> bool {
        !matches!(self.id, ScoutId::Mount(_)) && self.asked.is_empty()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.unsent.is_empty()
    }

    pub(super) fn wants_start(&self, now: Mono) -> bool {
        self.link.is_none() && self.waits() && self.start_at.is_none_or(|at| at <= now)
    }

    pub(super) fn start(
        &mut self,
        number: u64,
        token: Token,
        registry: &Registry,
        launcher: &mut dyn Launcher,
    ) -> io::Result<()> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        registry.register(
            &mut SourceFd(&stream.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        launcher.launch(number, OwnedFd::from(theirs))?;
        self.start_at = None;
        self.link = Some(Link {
            life: Life {
                number,
                pid: None,
                suspect: None,
            },
            stream,
            token,
            out: Vec::new(),
            written: 0,
            wants_room: false,
            inbox: Vec::new(),
            answered: false,
        });
        Ok(())
    }

    /// It could not be started now.
    pub(super) fn start_later(&mut self, now: Mono) {
        self.deaths = self.deaths.saturating_add(1);
        self.start_at = Some(now.after(self.restart_wait()));
    }

    fn restart_wait(&self) -> Duration {
        match self.deaths {
            0 | 1 => Duration::ZERO,
            deaths => (RESTART_FIRST * (1 << (deaths - 2).min(12))).min(RESTART_MAX),
        }
    }

    pub(super) fn born(&mut self, pid: i32) {
        if let Some(link) = &mut self.link {
            link.life.pid = Some(pid);
        }
    }

    /// There will be no process.
    pub(super) fn stillborn(&mut self) {
        // No wait would be none at all after the first refusal.
        self.deaths = self.deaths.max(1);
    }

    /// Gives the process what it may be given, as far as its socket takes it.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn write(&mut self, registry: &Registry) -> io::Result<()> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        while self.careful == 0 || self.in_hand.is_none() {
            let Some(key) = self.unsent.pop_front() else {
                break;
            };
            if let Some(asked) = self.asked.get_mut(&key) {
                asked.at = At::Scout;
                link.out.extend_from_slice(&asked.frame);
                self.in_hand = Some(key).filter(|_| self.careful > 0);
            }
        }
        link.write(registry)
    }

    /// There is something to be taken.
    pub(super) fn has_answered(&mut self, now: Mono) {
        self.heard = now;
    }

    /// Takes answers that weigh about `budget` together ([`weight`]). True: it was used up, and there may be more.
    ///
    /// # Errors
    /// The process is gone, or does not talk sense.
    pub(super) fn read(
        &mut self,
        now: Mono,
        budget: usize,
        scratch: &mut [u8],
        out: &mut Vec<Input>,
    ) -> io::Result<bool> {
        let mut budget = budget;
        loop {
            let Some(link) = &mut self.link else {
                return Ok(false);
            };
            let inbox = std::mem::take(&mut link.inbox);
            let taken = self.take_frames(now, &inbox, &mut budget, out)?;
            let Some(link) = &mut self.link else {
                return Ok(false);
            };
            link.inbox = inbox;
            link.inbox.drain(..taken);
            if budget == 0 {
                return Ok(true);
            }
            let filled = match link.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(filled) => filled,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if link.inbox.is_empty() {
                        link.inbox.shrink_to(KEPT_BYTES);
                    }
                    return Ok(false);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            link.inbox
                .extend_from_slice(scratch.get(..filled).unwrap_or_default());
        }
    }

    /// How many bytes of `inbox` were understood.
    fn take_frames(
        &mut self,
        now: Mono,
        inbox: &[u8],
        budget: &mut usize,
        out: &mut Vec<Input>,
    ) -> io::Result<usize> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut rest = inbox;
        while *budget > 0 {
            let Some(frame) = wire::take(&mut rest).map_err(|_| malformed())? else {
                break;
            };
            let (id, answer) = postcard::from_bytes(frame).map_err(|_| malformed())?;
            *budget = budget.saturating_sub(weight(&answer));
            self.heard_of(now, id, answer, out);
        }
        Ok(inbox.len() - rest.len())
    }

    fn heard_of(&mut self, now: Mono, id: AskId, answer: Option<Answer>, out: &mut Vec<Input>) {
        self.heard = now;
        self.deaths = 0;
        if let Some(link) = &mut self.link {
            link.answered = true;
        }
        self.speaks(out);
        let Some(key) = self.key(id) else { return };
        let Some(asked) = self.asked.get_mut(&key) else {
            return;
        };
        let Some(answer) = answer else {
            if asked.at == At::Scout {
                asked.at = At::Away;
                self.waiting = self.waiting.saturating_sub(1);
                self.in_hand.take_if(|in_hand| *in_hand == key);
            }
            return;
        };
        if matches!(answer, Answer::Bound(Ok(_))) {
            asked.wants = Wants::Listed;
        }
        if answer.is_last() {
            self.forget(key);
        }
        out.push(Input::Answer(id, answer));
    }

    fn key(&self, id: AskId) -> Option<Key> {
        (0..=DEATHS_MAX)
            .map(|hung| (hung, id))
            .find(|key| self.asked.contains_key(key))
    }

    fn forget(&mut self, key: Key) {
        if let Some(asked) = self.asked.remove(&key) {
            if asked.at != At::Away {
                self.waiting = self.waiting.saturating_sub(1);
            }
            self.careful = self.careful.saturating_sub(1);
            self.in_hand.take_if(|in_hand| *in_hand == key);
        }
    }

    fn speaks(&mut self, out: &mut Vec<Input>) {
        let slow = std::mem::take(&mut self.slow);
        let silent = std::mem::take(&mut self.silent);
        match self.id {
            ScoutId::Mount(mount) => {
                out.extend(slow.then_some(Input::MountSlow(mount, false)));
                out.extend(silent.then_some(Input::MountSilent(mount, false)));
            }
            ScoutId::Resolver(watch) => {
                out.extend(silent.then_some(Input::RootSilent(watch, false)));
            }
            ScoutId::Exports => {}
        }
    }

    /// The process ended by itself.
    pub(super) fn lost(&mut self, now: Mono, out: &mut Vec<Input>) -> Option<Life> {
        let suspect = self.in_hand;
        let was_born = self.pid().is_some();
        if was_born && let Some(key) = suspect {
            self.blame(key, false, out);
        }
        self.deaths = self.deaths.saturating_add(1);
        self.start_at = Some(now.after(self.restart_wait()));
        let mut life = self.end();
        if let Some(life) = life.as_mut().filter(|_| !was_born) {
            life.suspect = suspect.map(|(_, id)| id);
        }
        self.take_back(now);
        life
    }

    /// The process that was lost had lived: it may have died of this.
    pub(super) fn blame_late(&mut self, id: AskId, out: &mut Vec<Input>) {
        if let Some(key) = self.key(id) {
            self.blame(key, false, out);
        }
    }

    /// The question that the process seems to work on: it lists while it has no other.
    fn first_sent(&self) -> Option<Key> {
        let sent = || self.asked.iter().filter(|(_, asked)| asked.at == At::Scout);
        let lists = |asked: &Asked| matches!(asked.wants, Wants::Bound | Wants::Listed);
        let other = sent().find(|(_, asked)| !lists(asked));
        let first = other.or_else(|| sent().next());
        self.in_hand.or_else(|| first.map(|(key, _)| *key))
    }

    fn blame(&mut self, key: Key, last: bool, out: &mut Vec<Input>) {
        let Some(mut asked) = self.asked.remove(&key) else {
            return;
        };
        asked.deaths += 1;
        if asked.deaths >= DEATHS_MAX {
            let fault = Fault::Here(libc::EIO);
            out.push(Input::Answer(key.1, asked.wants.failed(fault)));
            if asked.at != At::Away {
                self.waiting = self.waiting.saturating_sub(1);
            }
            self.careful = self.careful.saturating_sub(1);
            self.in_hand.take_if(|in_hand| *in_hand == key);
            if self.asked.is_empty() {
                // Nothing is left that the mount could answer: only a new question can tell how it is.
                self.speaks(out);
            }
            return;
        }
        let place = if last { key.0 + 1 } else { key.0 };
        self.asked.insert((place, key.1), asked);
    }

    /// What the last process did not answer is for the next one, one by one.
    fn take_back(&mut self, now: Mono) {
        for asked in self.asked.values_mut() {
            asked.at = At::Here;
        }
        self.unsent = self.asked.keys().copied().collect();
        self.in_hand = None;
        self.waiting = self.asked.len();
        self.careful = self.asked.len();
        self.heard = now;
    }

    /// Lets go of the process; its end of the socket says so to it.
    pub(super) fn end(&mut self) -> Option<Life> {
        self.link.take().map(|link| link.life)
    }

    /// When something is due.
    pub(super) fn deadline(&self, limits: Limits) -> Option<Mono> {
        if self.link.is_none() {
            return self.waits().then(|| self.start_at.unwrap_or(Mono(0)));
        }
        if self.waiting == 0 {
            return None;
        }
        if !self.slow {
            return Some(self.heard.after(limits.slow.min(limits.silent)));
        }
        if !self.silent {
            return Some(self.heard.after(limits.silent));
        }
        (self.abandoned.len() < ABANDONED_MAX).then_some(self.replace_at)
    }

    /// Something is due: says that the scout is slow, or silent. True if it is to be given up.
    pub(super) fn overdue(&mut self, now: Mono, limits: Limits, out: &mut Vec<Input>) -> bool {
        let Some(silence) = self.silence(now).filter(|_| self.link.is_some()) else {
            return false;
        };
        if silence >= limits.slow.min(limits.silent)
            && !std::mem::replace(&mut self.slow, true)
            && let ScoutId::Mount(mount) = self.id
        {
            out.push(Input::MountSlow(mount, true));
        }
        if silence < limits.silent {
            return false;
        }
        if !self.silent {
            self.silent = true;
            self.replace_wait = limits.silent;
            self.replace_at = now.after(self.replace_wait);
            match self.id {
                ScoutId::Mount(mount) => out.push(Input::MountSilent(mount, true)),
                ScoutId::Resolver(watch) => out.push(Input::RootSilent(watch, true)),
                ScoutId::Exports => {}
            }
            return false;
        }
        self.replace_at <= now
    }

    /// Replaces a silent process. It is killed; a new one is asked the same.
    pub(super) fn give_up(
        &mut self,
        now: Mono,
        silent_after: Duration,
        out: &mut Vec<Input>,
    ) -> Option<Life> {
        // If it answered others, it is this question that hangs and not the mount.
        let answered = self.link.as_ref().is_some_and(|link| link.answered);
        if answered && let Some(key) = self.first_sent() {
            self.blame(key, true, out);
        }
        let life = self.end();
        self.abandoned
            .extend(life.as_ref().and_then(|life| life.pid));
        let heard = self.heard;
        self.take_back(now);
        self.heard = heard;
        self.start_at = None;
        self.replace_wait = (self.replace_wait * 2).min(REPLACE_MAX.max(silent_after));
        self.replace_at = now.after(self.replace_wait);
        life
    }

    /// How long it has said nothing although it owes something.
    pub(super) fn silence(&self, now: Mono) -> Option<Duration> {
        (self.waiting > 0).then(|| now.since(self.heard))
    }

    /// Answers everything that is owed.
    pub(super) fn answer_all(&mut self, fault: Fault, out: &mut Vec<Input>) {
        self.speaks(out);
        for ((_, id), asked) in std::mem::take(&mut self.asked) {
            out.push(Input::Answer(id, asked.wants.failed(fault)));
        }
        self.unsent.clear();
        self.in_hand = None;
        self.waiting = 0;
        self.careful = 0;
    }

    /// Somebody reaped this pid: it must not be signalled any more.
    pub(super) fn reaped(&mut self, pid: i32) -> bool {
        match &mut self.link {
            Some(link) if link.life.pid == Some(pid) => {
                link.life.pid = None;
                true
            }
            _ => false,
        }
    }
}

impl Link {
    fn write(&mut self, registry: &Registry) -> io::Result<()> {
        let mut full = false;
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    full = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if !full {
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES);
            self.written = 0;
        }
        // Only while there is something to write: else every question that the scout takes would wake the daemon.
        if full != self.wants_room {
            let interest = match full {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            registry.reregister(
                &mut SourceFd(&self.stream.as_raw_fd()),
                self.token,
                interest,
            )?;
            self.wants_room = full;
        }
        Ok(())
    }
}

/// How much an answer is for the core to work on, in probes: each name of a listing is about one.
fn weight(answer: &Option<Answer>) -> usize {
    match answer {
        Some(Answer::Entries(entries)) => entries.len().max(1),
        _ => 1,
    }
}

impl Wants {
    /// The answer when there will be none.
    fn failed(self, fault: Fault) -> Answer {
        let (Fault::Base(errno) | Fault::Here(errno) | Fault::Crossed(errno)) = fault;
        match self {
            Wants::Resolved => Answer::Resolved(Err(errno)),
            Wants::Exports => Answer::Exports(Exports {
                trees: Err(Errno::from_raw(errno).desc().to_owned()),
                wds: Vec::new(),
            }),
            Wants::Moved => Answer::Moved(Err(fault)),
            Wants::Bound => Answer::Bound(Err(fault)),
            Wants::Listed => Answer::Listed(Err(fault)),
            Wants::Probed => Answer::Probed(Err(fault)),
            Wants::Disposed if matches!(fault, Fault::Base(_)) => Answer::Disposed(Err(fault)),
            Wants::Disposed => Answer::Disposed(Ok(Disposal::Failed {
                errno,
                step: "scout".into(),
            })),
        }
    }
}
