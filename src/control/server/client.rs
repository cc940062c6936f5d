//! One client: what it asks, how far its answer is, and what it has taken of that.

use super::{Knows, Ordered};
use crate::control::{DoneRow, Line, Named, PATH_MAX, REQUEST_MAX, Refusal, Request, TextRow};
use crate::core::Core;
use crate::core::counts::Census;
use crate::core::ids::MountId;
use crate::core::orders::{Name, Order, Which};
use crate::core::query::{Cursor, Explained, Wanted};
use crate::core::select::Pattern;
use crate::core::time::Mono;
use crate::core::view::bytes_of;
use crate::metrics::Page;
use crate::sys::clock;
use mio::event::Event;
use mio::net::UnixStream;
use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

/// Files, watches, mounts and numbers are looked at in steps of so many.
const STEP: usize = 8;
/// An answer is not made further than this ahead of its reader; one step goes beyond it, to 256 KiB at most.
const AHEAD: usize = 48 * 1024;
/// How long a client may leave a request half sent, or an answer lying.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may ask nothing.
const IDLE: Duration = Duration::from_secs(60);

/// What is being answered.
#[derive(Debug)]
enum Work {
    /// The mount before the next; none, or the first.
    Mounts(Option<MountId>),
    /// The next watch.
    Status(usize),
    List(Cursor, Box<Wanted>),
    /// The path, how far its answer has come, and whether any watch had something to say.
    Explain(Vec<u8>, Explained, bool),
    /// What there is is counted.
    Metrics(Census),
    /// The numbers are told.
    Page(Box<Page>),
    /// An order that was given, or is to be: its answer is awaited.
    Ordered(Option<Ordered>),
}

/// Somebody who is connected.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
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
    /// Who has just been let in. `commands`: whether he may change anything.
    pub(super) fn new(stream: UnixStream, commands: bool, now: Mono) -> Client {
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
        }
    }

    /// The poll says so.
    pub(super) fn has_become_ready(&mut self, event: &Event) {
        self.readable |= event.is_readable() || event.is_read_closed();
        self.writable |= event.is_writable();
        self.gone |= event.is_error();
    }

    /// Whether it is to be closed.
    pub(super) fn is_over(&self, now: Mono) -> bool {
        let over = (self.deaf || self.closing)
            && self.work.is_none()
            && self.owes() == 0
            && !self.input.contains(&b'\n');
        self.gone || over || now >= self.deadline()
    }

    /// The order that it gave, once.
    pub(super) fn take_order(&mut self) -> Option<Ordered> {
        match &mut self.work {
            Some(Work::Ordered(order)) => order.take(),
            _ => None,
        }
    }

    /// What came of it.
    pub(super) fn order_answered(&mut self, answer: Result<Vec<String>, Refusal>) {
        if !matches!(self.work, Some(Work::Ordered(None))) {
            return;
        }
        self.work = None;
        match answer {
            Ok(done) => {
                for text in done {
                    self.say(&Line::Done(DoneRow { text }));
                }
                self.say(&Line::End(true));
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

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

    /// When it is not waited for any longer.
    pub(super) fn deadline(&self) -> Mono {
        let idle = self.input.is_empty() && self.owes() == 0 && self.work.is_none();
        self.since.after(if idle { IDLE } else { PATIENCE })
    }

    /// Whether it can be gone on with without waiting for it.
    pub(super) fn is_due(&self) -> bool {
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

/// What may still be done in a turn.
pub(super) struct Budget {
    pub(super) read: usize,
    pub(super) write: usize,
    pub(super) visits: usize,
    pub(super) until: Mono,
    pub(super) clients: usize,
}

impl Budget {
    pub(super) fn is_spent(&self) -> bool {
        self.read == 0 || self.write == 0 || self.visits == 0 || clock::boottime() >= self.until
    }
}

impl Client {
    /// Reads, answers and writes, as far as the turn lets it.
    pub(super) fn tend(&mut self, now: Mono, core: &Core, knows: &dyn Knows, budget: &mut Budget) {
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
                self.work = Some(Work::Explain(path, Explained::default(), false));
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
        let name = if !named.job.is_empty() {
            Name::Job(named.job)
        } else if path.first() == Some(&b'/') && path.len() <= PATH_MAX {
            Name::Path(path)
        } else {
            let text = "a job, or an absolute path, is wanted";
            return self.refuse(Refusal::new("bad-request", text, ""));
        };
        let watch = Some(named.watch).filter(|watch| !watch.is_empty());
        self.order(order(Which { name, watch }));
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
                    let (found, more) = core.explain_on(path, next);
                    if let Some(mut finding) = found {
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
