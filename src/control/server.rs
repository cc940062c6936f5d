//! The daemon's end. Nothing here waits, and nobody can make it take more than its share of a turn or of memory: so
//! many clients, so long a request, so much of an answer ahead of who reads it, so many rows looked at in a turn.
//! A client that sends half a request, or does not take its answer, is closed after a while.

mod client;
mod door;

use super::{Line, Refusal};
use crate::core::Core;
use crate::core::counts::Census;
use crate::core::ids::RunId;
use crate::core::orders::Order;
use crate::core::time::Mono;
use crate::core::view::DaemonRow;
use crate::metrics::Page;
use crate::sys::clock;
use client::{Budget, Client};
use door::{Allowed, make_room, rights};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The listener; clients are this with their number added.
const TOKENS: usize = 10 << 32;

/// Clients at once.
pub const CLIENTS_MAX: usize = 64;
/// So many of those places are for root and the daemon's user alone.
const PLACES_KEPT: usize = 8;
/// Clients accepted in one turn.
const ACCEPTS_A_TURN: usize = 16;
/// Bytes of requests that are read in one turn, over all clients.
const READ_A_TURN: usize = 256 * 1024;
/// Bytes of answers that are written in one turn, over all clients.
const WRITE_A_TURN: usize = 256 * 1024;
/// Files, watches and jobs that are looked at in one turn, over all clients.
const VISITS_A_TURN: usize = 1024;
/// How long all of that may take in one turn: what is begun then is finished, a step at most.
const TIME_A_TURN: Duration = Duration::from_millis(1);
/// Wait before connections are accepted again when there was no descriptor for one.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// What the edge knows and an answer needs.
pub trait Knows {
    /// Adds what the core does not know.
    fn complete(&self, row: &mut DaemonRow);
    /// The process of a run.
    fn pid(&self, run: RunId) -> Option<i32>;
    /// All metrics, of what was counted.
    fn page(&self, census: Census) -> Page;
    /// The next part of them: of up to so many watches.
    fn metrics(&self, core: &Core, page: &mut Page, most: usize) -> String;
}

/// What a client wants to be done.
#[derive(Debug)]
pub enum Ordered {
    /// By the core.
    Core(Order),
    /// The configuration is to be read again.
    Reload,
}

/// The listening socket and those who came.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's name.
    own: (u64, u64),
    allowed: Allowed,
    registry: Registry,
    clients: BTreeMap<usize, Client>,
    last: usize,
    /// Whose turn was last.
    served: usize,
    accept: bool,
    accept_at: Option<Mono>,
}

impl Server {
    /// Listens at `path`, where a socket that nobody listens on is taken away first. `group`: whose members may ask;
    /// the process's own where `None`.
    ///
    /// # Errors
    /// A sentence: somebody listens there, something else has the name, or the system's refusal.
    pub fn open(path: &Path, group: Option<u32>, registry: Registry) -> Result<Server, String> {
        let failed = |what: &str, error: &io::Error| format!("{}: {what}: {error}", path.display());
        make_room(path)?;
        let mut listener = UnixListener::bind(path).map_err(|error| failed("bind", &error))?;
        // Whoever connects is judged by credentials.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
            .map_err(|error| failed("chmod", &error))?;
        let metadata = fs::symlink_metadata(path).map_err(|error| failed("stat", &error))?;
        registry
            .register(&mut listener, Token(TOKENS), Interest::READABLE)
            .map_err(|error| failed("epoll", &error))?;
        Ok(Server {
            listener,
            path: path.to_owned(),
            own: (metadata.dev(), metadata.ino()),
            allowed: Allowed {
                uid: nix::unistd::geteuid().as_raw(),
                gid: group.unwrap_or_else(|| nix::unistd::getegid().as_raw()),
            },
            registry,
            clients: BTreeMap::new(),
            last: 0,
            served: 0,
            accept: true,
            accept_at: None,
        })
    }

    /// Makes [`super::LINK`] in the state directory lead here.
    ///
    /// # Errors
    /// The system's, as a sentence.
    pub fn link_from(&self, state: &Path) -> Result<(), String> {
        let link = state.join(super::LINK);
        let made = state.join(format!("{}.new", super::LINK));
        let linked = match fs::remove_file(&made) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => symlink(&self.path, &made).and_then(|()| fs::rename(&made, &link)),
        };
        linked.map_err(|error| format!("{}: {error}", link.display()))
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes over the clients of one that listened elsewhere, those included who were not let in yet.
    pub fn adopt(&mut self, mut other: Server, now: Mono) {
        other.accept = true;
        other.accept_at = None;
        for _ in 0..=CLIENTS_MAX / ACCEPTS_A_TURN {
            other.accept(now);
        }
        self.clients = std::mem::take(&mut other.clients);
        self.last = other.last;
    }

    /// Whose members may ask from now on.
    pub fn set_group(&mut self, group: Option<u32>) {
        self.allowed.gid = group.unwrap_or_else(|| nix::unistd::getegid().as_raw());
    }

    /// Whether a token is one of this room's.
    pub fn owns(token: Token) -> bool {
        token.0 >> 32 == TOKENS >> 32
    }

    /// Something has become ready.
    pub fn ready(&mut self, event: &Event) {
        let number = event.token().0 - TOKENS;
        if number == 0 {
            self.accept = true;
        } else if let Some(client) = self.clients.get_mut(&number) {
            client.has_become_ready(event);
        }
    }

    /// Whether something can be done at once.
    pub fn has_due(&self) -> bool {
        self.accept && self.accept_at.is_none() || self.clients.values().any(Client::is_due)
    }

    /// When somebody is not waited for any longer.
    pub fn deadline(&self) -> Option<Mono> {
        let clients = self.clients.values().map(Client::deadline);
        clients.chain(self.accept_at).min()
    }

    /// A turn: takes who has come, reads what was asked, answers some of it.
    pub fn turn(&mut self, now: Mono, core: &Core, knows: &dyn Knows) {
        self.accept(now);
        if self.clients.is_empty() {
            return;
        }
        let mut budget = Budget {
            read: READ_A_TURN,
            write: WRITE_A_TURN,
            visits: VISITS_A_TURN,
            until: clock::boottime().after(TIME_A_TURN),
            clients: self.clients.len(),
        };
        let after = self.served + 1;
        let later = self.clients.range(after..).map(|(number, _)| *number);
        let first = self.clients.range(..after).map(|(number, _)| *number);
        let order: Vec<usize> = later.chain(first).collect();
        for number in order {
            if budget.is_spent() {
                break;
            }
            self.served = number;
            if let Some(client) = self.clients.get_mut(&number) {
                client.tend(now, core, knows, &mut budget);
            }
        }
        let registry = &self.registry;
        self.clients.retain(|_, client| {
            let stays = !client.is_over(now);
            if !stays {
                // It is closed next, which takes it out of the poll as well.
                let _ = registry.deregister(&mut client.stream);
            }
            stays
        });
    }

    /// Takes the orders that were given since the last time. Each is to be answered.
    pub fn orders(&mut self) -> Vec<(u64, Ordered)> {
        let clients = self.clients.iter_mut();
        let given =
            clients.filter_map(|(number, client)| Some((*number as u64, client.take_order()?)));
        given.collect()
    }

    /// Answers an order. Who has gone away meanwhile is not told.
    pub fn answer(&mut self, client: u64, answer: Result<Vec<String>, Refusal>) {
        let number = usize::try_from(client).unwrap_or(0);
        if let Some(client) = self.clients.get_mut(&number) {
            client.order_answered(answer);
        }
    }

    fn accept(&mut self, now: Mono) {
        if self.accept_at.is_some_and(|at| at <= now) {
            self.accept_at = None;
            self.accept = true;
        }
        if !self.accept || self.accept_at.is_some() {
            return;
        }
        for _ in 0..ACCEPTS_A_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(now, stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.accept = false;
                    return;
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                // No descriptor, or no memory: not told of again.
                Err(_) => {
                    self.accept_at = Some(now.after(ACCEPT_AGAIN));
                    return;
                }
            }
        }
    }

    fn admit(&mut self, now: Mono, mut stream: UnixStream) {
        let (asks, commands) = rights(&stream, self.allowed);
        let most = match commands {
            true => CLIENTS_MAX,
            false => CLIENTS_MAX - PLACES_KEPT,
        };
        let refusal = if !asks {
            Refusal::new(
                "denied",
                "you may not ask this daemon",
                "ask as root, as the daemon's user or as a member of [daemon] socket_group",
            )
        } else if self.clients.len() >= most {
            let text = format!("{} clients are connected already", self.clients.len());
            Refusal::new("busy", text, "try again")
        } else {
            self.last += 1;
            let token = Token(TOKENS + self.last);
            let both = Interest::READABLE | Interest::WRITABLE;
            if self.registry.register(&mut stream, token, both).is_ok() {
                let client = Client::new(stream, commands, now);
                self.clients.insert(self.last, client);
            }
            return;
        };
        // The line fits into the buffer of a socket that nothing was written to; who has gone away needs none.
        if let Ok(mut line) = serde_json::to_vec(&Line::Error(refusal)) {
            line.push(b'\n');
            let _ = stream.write(&line);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only its own name: another daemon's may lie there by now.
        let own = fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.own);
        if own {
            // A name that stays is taken away by the next who listens there.
            let _ = fs::remove_file(&self.path);
        }
    }
}
