//! The daemon's end. Nothing here waits, and nobody can make it take more than its share of a turn or of memory: so
//! many clients, so long a request, so much of an answer ahead of who reads it, so many rows looked at in a turn.
//! A client that sends half a request, or does not take its answer, is closed after a while.

use super::{DoneRow, Line, Named, PATH_MAX, REQUEST_MAX, Refusal, Request, TextRow};
use crate::core::Core;
use crate::core::counts::Census;
use crate::core::ids::{MountId, RunId};
use crate::core::orders::{Order, Which};
use crate::core::query::{Cursor, Wanted};
use crate::core::select::Pattern;
use crate::core::time::Mono;
use crate::core::view::{DaemonRow, bytes_of};
use crate::metrics::Page;
use crate::sys::{clock, peer};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
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
/// They are looked at in steps of so many.
const STEP: usize = 8;
/// An answer is not made further than this ahead of its reader; one step goes beyond it, to 256 KiB at most.
const AHEAD: usize = 48 * 1024;
/// How long a client may leave a request half sent, or an answer lying.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may ask nothing.
const IDLE: Duration = Duration::from_secs(60);
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

/// Who may ask.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    uid: u32,
    gid: u32,
}

/// What is being answered.
#[derive(Debug)]
enum Work {
    /// The mount before the next; none, or the first.
    Mounts(Option<MountId>),
    /// The next watch.
    Status(usize),
    List(Cursor, Box<Wanted>),
    /// The path, the next watch, and whether any had something to say.
    Explain(Vec<u8>, usize, bool),
    /// What there is is counted.
    Metrics(Census),
    /// The numbers are told.
    Page(Box<Page>),
    /// An order that was given, or is to be: its answer is awaited.
    Ordered(Option<Ordered>),
}

/// What a client wants to be done.
#[derive(Debug)]
pub enum Ordered {
    /// By the core.
    Core(Order),
    /// The configuration is to be read again.
    Reload,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    commands: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    work: Option<Work>,
    /// There may be something to read; room to write.
    readable: bool,
    writable: bool,
    /// It sends no more.
    deaf: bool,
    /// It is closed once it has taken what there is.
    closing: bool,
    /// When it was last waited for in vain, or took something, or asked.
    since: Mono,
    gone: bool,
}

impl Client {
    fn owes(&self) -> usize {
        self.output.len() - self.sent
    }

    fn say(&mut self, line: &Line) {
        // Rows have no maps with other keys than text and no numbers that JSON has not: writing them cannot fail.
        if serde_json::to_writer(&mut self.output, line).is_ok() {
            self.output.push(b'\n');
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.work = None;
        self.say(&Line::Error(refusal));
    }

    fn deadline(&self) -> Mono {
        let idle = self.input.is_empty() && self.owes() == 0 && self.work.is_none();
        self.since.after(if idle { IDLE } else { PATIENCE })
    }

    /// Whether it can be gone on with without waiting for it.
    fn is_due(&self) -> bool {
        self.gone
            || self.readable && self.takes_requests()
            || self.writable && self.owes() > 0
            || self.goes_on() && self.owes() < AHEAD
            || self.work.is_none() && self.owes() < AHEAD && self.input.contains(&b'\n')
            || (self.deaf || self.closing) && self.work.is_none() && self.owes() == 0
    }

    fn is_being_answered(&self) -> bool {
        !matches!(self.work, None | Some(Work::Ordered(_)))
    }

    /// It has an answer that can be gone on with: here, or by taking its order up.
    fn goes_on(&self) -> bool {
        !matches!(self.work, None | Some(Work::Ordered(None)))
    }

    fn takes_requests(&self) -> bool {
        !self.deaf
            && !self.closing
            && self.work.is_none()
            && self.input.len() < REQUEST_MAX
            && !self.input.contains(&b'\n')
    }
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
            client.readable |= event.is_readable() || event.is_read_closed();
            client.writable |= event.is_writable();
            client.gone |= event.is_error();
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
            let over = (client.deaf || client.closing)
                && client.work.is_none()
                && client.owes() == 0
                && !client.input.contains(&b'\n');
            let stays = !client.gone && !over && now < client.deadline();
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
        let given = clients.filter_map(|(number, client)| match &mut client.work {
            Some(Work::Ordered(order)) => Some((*number as u64, order.take()?)),
            _ => None,
        });
        given.collect()
    }

    /// Answers an order. Who has gone away meanwhile is not told.
    pub fn answer(&mut self, client: u64, answer: Result<Vec<String>, Refusal>) {
        let number = usize::try_from(client).unwrap_or(0);
        let Some(client) = self.clients.get_mut(&number) else {
            return;
        };
        if !matches!(client.work, Some(Work::Ordered(None))) {
            return;
        }
        client.work = None;
        match answer {
            Ok(done) => {
                for text in done {
                    client.say(&Line::Done(DoneRow { text }));
                }
                client.say(&Line::End(true));
            }
            Err(refusal) => client.refuse(refusal),
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
                self.clients.insert(
                    self.last,
                    Client {
                        stream,
                        commands,
                        input: Vec::new(),
                        output: Vec::new(),
                        sent: 0,
                        work: None,
                        readable: true,
                        writable: true,
                        deaf: false,
                        closing: false,
                        since: now,
                        gone: false,
                    },
                );
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

/// Takes away a socket that nobody listens on.
fn make_room(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let Some(parent) = path.parent() else {
                return Ok(());
            };
            // What bind says of it is said then.
            match fs::create_dir(parent) {
                Err(_) | Ok(()) => Ok(()),
            }
        }
        Err(error) => Err(format!("{shown}: {error}")),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(format!("{shown} is there, and is no socket"))
        }
        // Not waited for: a daemon that hangs has it, too.
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(|error| format!("{shown}: {error}"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            _ => Err(format!("{shown}: another daemon listens there")),
        },
    }
}

/// Whether a peer may ask, and whether it may change something. Who is not known may neither.
fn rights(stream: &UnixStream, allowed: Allowed) -> (bool, bool) {
    let Ok(peer) = getsockopt(&stream.as_fd(), PeerCredentials) else {
        return (false, false);
    };
    let commands = peer.uid() == 0 || peer.uid() == allowed.uid;
    let member = || {
        peer.gid() == allowed.gid
            || peer::groups(stream.as_fd()).is_ok_and(|groups| groups.contains(&allowed.gid))
    };
    (commands || member(), commands)
}

/// What may still be done in a turn.
struct Budget {
    read: usize,
    write: usize,
    visits: usize,
    until: Mono,
    clients: usize,
}

impl Budget {
    fn is_spent(&self) -> bool {
        self.read == 0 || self.write == 0 || self.visits == 0 || clock::boottime() >= self.until
    }
}

impl Client {
    fn tend(&mut self, now: Mono, core: &Core, knows: &dyn Knows, budget: &mut Budget) {
        self.read(now, budget);
        while self.work.is_none() && !self.closing && !budget.is_spent() && self.owes() < AHEAD {
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
                break;
            };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.since = now;
            self.begin(&line, core, knows, budget);
            self.answer(core, knows, budget);
        }
        if self.work.is_none() && self.input.len() >= REQUEST_MAX && !self.closing {
            let text = format!("a request is one line of at most {REQUEST_MAX} bytes");
            self.refuse(Refusal::new("too-long", text, ""));
            self.input.clear();
            self.closing = true;
        }
        self.answer(core, knows, budget);
        self.write(now, budget);
    }

    fn read(&mut self, now: Mono, budget: &mut Budget) {
        let mut room = [0; 8 * 1024];
        while self.readable && budget.read > 0 && self.takes_requests() {
            let most = room
                .len()
                .min(REQUEST_MAX - self.input.len())
                .min(budget.read);
            let Some(room) = room.get_mut(..most) else {
                break;
            };
            match self.stream.read(room) {
                Ok(0) => self.deaf = true,
                Ok(read) => {
                    budget.read -= read;
                    // The first byte of a request begins its time.
                    if self.input.is_empty() {
                        self.since = now;
                    }
                    self.input
                        .extend_from_slice(room.get(..read).unwrap_or_default());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
            if self.gone || self.deaf || self.input.contains(&b'\n') {
                break;
            }
        }
    }

    fn write(&mut self, now: Mono, budget: &mut Budget) {
        while self.writable && budget.write > 0 && self.owes() > 0 {
            let waiting = self.output.get(self.sent..).unwrap_or_default();
            let part = waiting.get(..budget.write).unwrap_or(waiting);
            match self.stream.write(part) {
                Ok(written) => {
                    budget.write -= written;
                    self.sent += written;
                    self.since = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.gone = true;
                    return;
                }
            }
        }
        if self.owes() == 0 {
            self.output = Vec::new();
            self.sent = 0;
        } else if self.sent > AHEAD {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Takes a request up.
    fn begin(&mut self, line: &[u8], core: &Core, knows: &dyn Knows, budget: &mut Budget) {
        // Whatever it asks, it takes a part of the turn.
        budget.visits = budget.visits.saturating_sub(STEP);
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => {
                let text = format!("not a request: {error}");
                let remedy = "one JSON object on one line, see settled(1)";
                return self.refuse(Refusal::new("bad-request", text, remedy));
            }
        };
        if request.is_command() && !self.commands {
            let text = "only root and the daemon's user may change anything";
            return self.refuse(Refusal::new("denied", text, "use sudo"));
        }
        match request {
            Request::Status {} => {
                let mut row = core.daemon_row();
                knows.complete(&mut row);
                row.clients = budget.clients as u64;
                self.say(&Line::Daemon(Box::new(row)));
                self.work = Some(Work::Mounts(None));
            }
            Request::List {
                watches,
                states,
                name,
                before_ns,
                after_ns,
            } => {
                let name = match name.as_deref().map(simple_pattern).transpose() {
                    Ok(name) => name,
                    Err(text) => return self.refuse(Refusal::new("bad-request", text, "")),
                };
                let wanted = Wanted {
                    watches,
                    states,
                    name,
                    before_ns,
                    after_ns,
                };
                self.work = Some(Work::List(Cursor::Candidates(None), Box::new(wanted)));
            }
            Request::Explain { path, path_hex } => {
                let path = bytes_of(&path, &path_hex);
                if path.len() > PATH_MAX || path.first() != Some(&b'/') {
                    let text = format!("an absolute path of at most {PATH_MAX} bytes is wanted");
                    return self.refuse(Refusal::new("bad-request", text, ""));
                }
                self.work = Some(Work::Explain(path, 0, false));
            }
            Request::Metrics {} => self.work = Some(Work::Metrics(Census::default())),
            Request::Retry(named) => self.order_about(named, Order::Retry),
            Request::Forget(named) => self.order_about(named, Order::Forget),
            Request::Pause { watch } => self.order(Order::Pause(watch)),
            Request::Resume { watch } => self.order(Order::Resume(watch)),
            Request::Rescan { watch } => self.order(Order::Rescan(watch)),
            Request::Reload {} => self.work = Some(Work::Ordered(Some(Ordered::Reload))),
        }
    }

    fn order(&mut self, order: Order) {
        self.work = Some(Work::Ordered(Some(Ordered::Core(order))));
    }

    fn order_about(&mut self, named: Named, order: fn(Which) -> Order) {
        let path = bytes_of(&named.path, &named.path_hex);
        if !named.job.is_empty() {
            self.order(order(Which::Job(named.job)));
        } else if path.first() == Some(&b'/') && path.len() <= PATH_MAX {
            self.order(order(Which::Path(path)));
        } else {
            let text = "a job, or an absolute path, is wanted";
            self.refuse(Refusal::new("bad-request", text, ""));
        }
    }

    /// Goes on with an answer, as far as its reader and the turn let it.
    fn answer(&mut self, core: &Core, knows: &dyn Knows, budget: &mut Budget) {
        while !budget.is_spent() && self.owes() < AHEAD && self.is_being_answered() {
            let Some(mut work) = self.work.take() else {
                return;
            };
            budget.visits = budget.visits.saturating_sub(STEP);
            let over = match &mut work {
                // Taken up by the next turn, and answered when what it decides is durable.
                Work::Ordered(_) => false,
                Work::Metrics(census) => {
                    core.count_on(census, STEP);
                    if census.is_whole() {
                        work = Work::Page(Box::new(knows.page(std::mem::take(census))));
                    }
                    false
                }
                Work::Page(page) => {
                    let text = knows.metrics(core, page, STEP);
                    self.say(&Line::Text(TextRow { text }));
                    page.is_over()
                }
                Work::Mounts(after) => {
                    let (rows, last) = core.mount_rows(*after, STEP);
                    for row in rows {
                        self.say(&Line::Mount(row));
                    }
                    work = match last {
                        None => Work::Status(0),
                        more => Work::Mounts(more),
                    };
                    false
                }
                Work::Status(next) => {
                    let (rows, all) = core.watch_rows(*next, STEP);
                    *next += rows.len();
                    for row in rows {
                        self.say(&Line::Watch(row));
                    }
                    *next >= all
                }
                Work::List(cursor, wanted) => {
                    for mut row in core.file_rows(cursor, wanted, STEP) {
                        row.pid = row.run.and_then(|run| knows.pid(run)).unwrap_or(0);
                        self.say(&Line::File(Box::new(row)));
                    }
                    *cursor == Cursor::End
                }
                Work::Explain(path, next, any) => {
                    let (found, more) = core.findings(path, *next, 1);
                    *next += 1;
                    for mut finding in found {
                        *any = true;
                        if let Some(job) = &mut finding.job {
                            job.pid = job.run.and_then(|run| knows.pid(run)).unwrap_or(0);
                        }
                        self.say(&Line::Finding(Box::new(finding)));
                    }
                    if !more
                        && !*any
                        && let Some(nearest) = core.nearest(path)
                    {
                        self.say(&Line::Nearest(nearest));
                    }
                    !more
                }
            };
            if over {
                self.say(&Line::End(true));
            } else {
                self.work = Some(work);
            }
        }
    }
}

/// A pattern that is matched in no more time than its text and the name take.
fn simple_pattern(text: &str) -> Result<Pattern, String> {
    if text.len() > 128 || text.contains(['?', '[', ']', '{', '}', '\\', '/']) {
        return Err("a name's pattern has at most 128 bytes, of text and *".into());
    }
    Pattern::parse(text, false)
}
