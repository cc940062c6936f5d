//! The process that keeps the claims of one watch: `settled keep-claims`.
//!
//! All of its work is on the share, and may hang: then it alone does. It is told what to claim by lines on its standard
//! input and answers on its standard output ([`crate::core::claim`]). Its claims are locks of its own on bytes of one file
//! (fcntl(2), `F_SETLK`), which the kernel, or the server, lets go of when it ends; and POSIX locks are let go of with
//! *any* closed descriptor of their file, so that there is one of it and no other.
//!
//! When the daemon is gone, what it started may still be at work: a claim is then kept until the slot of its job is free.

mod share;

use crate::cli::exit;
use crate::core::claim::{Ask, How, KeeperOrder, Note, Said, Seen, Standing, Take, line, read};
use crate::sys::{self, file};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use share::Share;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

/// What one read takes at most.
const READ_BYTES: usize = 64 * 1024;

/// How often slots are looked at once the daemon is gone, at first and at last.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LAST: Duration = Duration::from_secs(1);

/// `settled keep-claims`; `arguments` are what follows that. Runs until standard input ends, and then as long as what the
/// daemon started is at work.
pub fn keep_claims(arguments: &[OsString]) -> u8 {
    let arguments: Vec<&[u8]> = arguments.iter().map(|arg| arg.as_bytes()).collect();
    let order = match KeeperOrder::parse(&arguments) {
        Ok(order) => order,
        Err(why) => return said(exit::USAGE, &why),
    };
    match Keeper::new(order).and_then(Keeper::run) {
        Ok(()) => exit::OK,
        Err(error) => said(exit::OSERR, &error.to_string()),
    }
}

/// Says something, and ends with this code, which speaks alone if nobody reads.
fn said(code: u8, why: &str) -> u8 {
    let _nobody_reads = writeln!(io::stderr(), "settled keep-claims: {why}");
    code
}

/// A claim that is had.
#[derive(Debug)]
struct Held {
    /// Locked bytes.
    bytes: Vec<u64>,
    /// Of its files in the claim directory.
    name: String,
    job: String,
    path: String,
    /// What works on it holds this slot.
    slot: u32,
    /// Its note says what is to stay.
    stays: bool,
}

struct Keeper {
    order: KeeperOrder,
    host: String,
    /// Nothing is open while nothing is claimed, so that the share can be unmounted.
    share: Option<Share>,
    held: BTreeMap<u64, Held>,
    /// How many claims a byte is locked for.
    bytes: BTreeMap<u64, u32>,
    /// Answers that are true once the directory is on the disk.
    answers: Vec<Said>,
}

impl Keeper {
    fn new(order: KeeperOrder) -> io::Result<Keeper> {
        sys::process::set_name(c"settled-claims");
        // The service manager may tell the whole service to stop; this has to outlast the children, and the end of
        // standard input is the word for it.
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
            sys::signal::ignore(signal)?;
        }
        // It ends when nobody reads; that is found when something is said.
        sys::signal::ignore(Signal::SIGPIPE)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
        if let Some(who) = &order.identity {
            sys::setup::act_as(who.uid, who.gid, &who.groups)?;
        }
        Ok(Keeper {
            host: host.trim_end().to_owned(),
            order,
            share: None,
            held: BTreeMap::new(),
            bytes: BTreeMap::new(),
            answers: Vec::new(),
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        let mut text: Vec<u8> = Vec::new();
        loop {
            let read = match nix::unistd::read(io::stdin(), &mut buffer) {
                Err(Errno::EINTR) => continue,
                read => read?,
            };
            if read == 0 {
                break;
            }
            text.extend_from_slice(buffer.get(..read).unwrap_or_default());
            let whole = text.iter().rposition(|byte| *byte == b'\n');
            let rest = text.split_off(whole.map_or(0, |at| at + 1));
            for line in text.split(|byte| *byte == b'\n').filter(|l| !l.is_empty()) {
                self.told(line)?;
            }
            text = rest;
            self.answer();
            if self.held.is_empty() {
                self.share = None;
            }
        }
        self.outlast()
    }

    fn told(&mut self, text: &[u8]) -> io::Result<()> {
        match read::<Ask>(text).map_err(io::Error::other)? {
            Ask::Take(take) => {
                let claim = take.claim;
                let (is, by) = match self.take(take) {
                    Ok(answer) => answer,
                    Err(why) => (Standing::Failed, why),
                };
                self.answers.push(Said::Took { claim, is, by });
            }
            Ask::Slot { slot, of } => {
                for claim in of {
                    if let Some(held) = self.held.get_mut(&claim) {
                        held.slot = slot;
                    }
                }
            }
            Ask::Conclude { claim, how, seen } => {
                let why = self.conclude(claim, how, &seen).err().unwrap_or_default();
                self.answers.push(Said::Concluded { claim, why });
            }
            Ask::Drop { claim, left } => {
                if let Some(held) = self.held.get(&claim)
                    && !left
                    && !held.stays
                    && let Some(share) = &self.share
                    && let Err(why) = share.remove_begun(&held.name)
                {
                    said(0, &why);
                }
                self.let_go(claim);
            }
        }
        Ok(())
    }

    /// Sends the answers; those that promise something only if the directory is on the disk.
    fn answer(&mut self) {
        let synced = match &mut self.share {
            Some(share) => share.sync(),
            None => Ok(()),
        };
        let mut lines = Vec::new();
        for mut answer in std::mem::take(&mut self.answers) {
            if let Err(why) = &synced {
                match &mut answer {
                    Said::Took { claim, is, by } => {
                        self.let_go(*claim);
                        *is = Standing::Failed;
                        by.clone_from(why);
                    }
                    Said::Concluded { why: to, .. } => to.clone_from(why),
                }
            }
            lines.extend(line(&answer));
        }
        // Without a reader the daemon is gone, and standard input says so.
        let _nobody_reads = io::stdout()
            .write_all(&lines)
            .and_then(|()| io::stdout().flush());
    }

    // ---- claims ----

    fn take(&mut self, take: Take) -> Result<(Standing, String), String> {
        if self.share.is_none() {
            self.share = Some(Share::open(&self.order)?);
        }
        let Some(share) = &mut self.share else {
            return Err("the claim directory is not open".into());
        };
        share.is_still_the_one()?;
        let wanted = share::offsets(&self.order.watch, &take);
        let mut had = Vec::new();
        for byte in wanted {
            let ours = self.bytes.contains_key(&byte);
            let locked = if ours { Ok(true) } else { share.lock(byte) };
            match locked {
                Ok(true) => {
                    *self.bytes.entry(byte).or_insert(0) += 1;
                    had.push(byte);
                }
                not => {
                    self.unlock(&had);
                    return not.map(|_| (Standing::Busy, String::new()));
                }
            }
        }
        match self.look(&take) {
            Ok((is, by, stays)) if is.is_had() => {
                let held = Held {
                    bytes: had,
                    name: take.seen.name(&self.order.watch),
                    path: String::from_utf8_lossy(&take.path).into_owned(),
                    job: take.job,
                    slot: 0,
                    stays,
                };
                self.held.insert(take.claim, held);
                Ok((is, by))
            }
            Ok((is, by, _)) => {
                self.unlock(&had);
                Ok((is, by))
            }
            Err(why) => {
                self.unlock(&had);
                Err(why)
            }
        }
    }

    /// The locks are had: what is known of the file. Says whether the note that is there is to stay.
    fn look(&self, take: &Take) -> Result<(Standing, String, bool), String> {
        let Some(share) = &self.share else {
            return Err("the claim directory is not open".into());
        };
        let name = take.seen.name(&self.order.watch);
        if take.look && !share.is_there(&take.path, &take.seen)? {
            return Ok((Standing::Gone, String::new(), false));
        }
        if self.order.marks
            && !take.again
            && let Some(found) = share.read_mark(&name)?
        {
            let is = match found.as_ref().map(|note| note.how) {
                Some(How::Dead) => Standing::Dead,
                Some(How::Held) => Standing::Held,
                _ => Standing::Done,
            };
            return Ok((is, by_whom(found.as_ref()), false));
        }
        let mut found = share.read_begun(&name)?;
        let held = |note: &Option<Note>| note.as_ref().is_some_and(|note| note.how == How::Held);
        if take.again {
            // The person for whom it is held has spoken.
            found = found.filter(|note| !held(note));
        }
        let mut again = false;
        if let Some(found) = &found {
            let note = found.as_ref();
            if held(found) {
                return Ok((Standing::Held, by_whom(note), true));
            }
            let own = note.filter(|note| note.host == self.host && note.job == take.job);
            match own {
                // An earlier life of the daemon wrote it, which remembers by itself how far it came.
                Some(own) => {
                    let is = match own.again {
                        true => Standing::CutShort,
                        false => Standing::Had,
                    };
                    return Ok((is, String::new(), false));
                }
                None if !take.over => return Ok((Standing::Left, by_whom(note), false)),
                None => again = true,
            }
        }
        let note = self.note(How::Begun, &take.job, &take.path, again);
        share.write_begun(&name, &note)?;
        let is = match again {
            true => Standing::CutShort,
            false => Standing::Had,
        };
        let by = found.as_ref().map(|note| by_whom(note.as_ref()));
        Ok((is, by.unwrap_or_default(), false))
    }

    fn note(&self, how: How, job: &str, path: &[u8], again: bool) -> Note {
        let time = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Note {
            how,
            host: self.host.clone(),
            job: job.to_owned(),
            time,
            path: String::from_utf8_lossy(path).into_owned(),
            again,
        }
    }

    fn conclude(&mut self, claim: u64, how: How, seen: &Seen) -> Result<(), String> {
        let Some(held) = self.held.get(&claim) else {
            return Err("the claim is not had".into());
        };
        let Some(share) = &mut self.share else {
            return Err("the claim directory is not open".into());
        };
        share.is_still_the_one()?;
        let note = self.note(how, &held.job, held.path.as_bytes(), false);
        let Some(share) = &self.share else {
            return Ok(());
        };
        if !self.order.marks && how != How::Held {
            return Ok(());
        }
        if self.order.marks {
            return share.write_mark(&seen.name(&self.order.watch), &note);
        }
        share.write_begun(&held.name, &note)?;
        if let Some(held) = self.held.get_mut(&claim) {
            held.stays = true;
        }
        Ok(())
    }

    fn let_go(&mut self, claim: u64) {
        if let Some(held) = self.held.remove(&claim) {
            self.unlock(&held.bytes);
        }
    }

    fn unlock(&mut self, bytes: &[u64]) {
        for byte in bytes {
            let Some(count) = self.bytes.get_mut(byte) else {
                continue;
            };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            self.bytes.remove(byte);
            if let Some(share) = &self.share
                && let Err(why) = share.unlock(*byte)
            {
                said(0, &why);
            }
        }
    }

    // ---- the end ----

    /// The daemon is gone. What it started may still be at work: as long as that holds the lock of a slot, the claim is
    /// kept. What was begun stays written down.
    fn outlast(mut self) -> io::Result<()> {
        if self.order.identity.is_some() {
            sys::setup::act_as_before()?;
        }
        let mut wait = LOOK_FIRST;
        loop {
            let over: Vec<u64> = self
                .held
                .iter()
                .filter(|(_, held)| held.slot == 0 || self.is_free(held.slot))
                .map(|(claim, _)| *claim)
                .collect();
            for claim in over {
                self.let_go(claim);
            }
            if self.held.is_empty() {
                return Ok(());
            }
            std::thread::sleep(wait);
            wait = (wait * 2).min(LOOK_LAST);
        }
    }

    /// Whether no process holds this slot. What cannot be found out counts as held.
    fn is_free(&self, slot: u32) -> bool {
        let path = PathBuf::from(OsStr::from_bytes(&self.order.slots)).join(slot.to_string());
        match std::fs::File::open(path) {
            Ok(lock) => file::flock(lock.as_fd(), libc::LOCK_SH | libc::LOCK_NB).is_ok(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

fn by_whom(note: Option<&Note>) -> String {
    match note {
        Some(note) => format!("{} (job {})", note.host, note.job),
        None => "a machine whose note cannot be read".into(),
    }
}
