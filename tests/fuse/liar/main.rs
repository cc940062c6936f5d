//! A filesystem for the tests that hangs, errs and lies when it is told to: it shows a backing directory through
//! `/dev/fuse`, speaking the kernel's protocol by itself (fuse(4), linux/fuse.h).
//!
//! `liar BACKING POINT` mounts, says `mounted` and takes orders, a line each, on standard input. The answer is a line:
//! `ok`, or a number. At the end of its input it detaches its mount and ends, which ends every request as well.
//!
//! | order | |
//! | --- | --- |
//! | `hang OPS` | requests of these kinds are taken and not answered: not even SIGKILL ends who waits |
//! | `deaf` | no request is taken at all: SIGKILL ends who waits, as on a hard NFS mount |
//! | `fail ERRNO OPS` | they are answered with this errno |
//! | `half end`, `half once`, `half eio` | a listing ends in the middle: quietly, quietly once for each directory, with an error |
//! | `stale` | sizes and times are those first seen, until the file or directory is opened (nfs(5), close-to-open) |
//! | `cached` | files that are opened from now on are cached by the kernel, and can be mapped |
//! | `grow NAME N` | the file gets another line at each of the next N looks at it, before the look is answered |
//! | `back` | all that is over; what was held is answered |
//! | `held`, `failed`, `count OP`, `grows` | how many requests wait, were failed, came of a kind; lines still to come |
//!
//! OPS: names from [`OPS`] joined by commas, or `all`, or `list` or `look`.

mod protocol;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::{Attr, Reply, Request, put_entry};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, DirEntryExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Opcodes and their names here.
const OPS: &[(u32, &str)] = &[
    (1, "lookup"),
    (2, "forget"),
    (3, "getattr"),
    (4, "setattr"),
    (9, "mkdir"),
    (10, "unlink"),
    (11, "rmdir"),
    (12, "rename"),
    (13, "link"),
    (14, "open"),
    (15, "read"),
    (16, "write"),
    (17, "statfs"),
    (18, "release"),
    (20, "fsync"),
    (26, "init"),
    (27, "opendir"),
    (28, "readdir"),
    (29, "releasedir"),
    (30, "fsyncdir"),
    (35, "create"),
    (36, "interrupt"),
    (38, "destroy"),
    (42, "batch-forget"),
];

/// Nobody waits for an answer to these, or nothing goes on without them.
const NEVER_HELD: &[&str] = &[
    "forget",
    "release",
    "releasedir",
    "init",
    "interrupt",
    "destroy",
    "batch-forget",
];

fn name_of(opcode: u32) -> &'static str {
    let known = OPS.iter().find(|(code, _)| *code == opcode);
    known.map_or("other", |(_, name)| name)
}

/// Something of the backing directory that the kernel has a number for: its inode number; 1 is the root.
struct Node {
    /// `O_PATH`: stays whatever it is renamed to.
    held: File,
    name: Vec<u8>,
    lookups: u64,
}

enum Open {
    File(File),
    /// A listing as it was when its first part was asked for.
    Dir {
        node: u64,
        entries: Vec<(u64, u32, Vec<u8>)>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    End,
    Once,
    Eio,
}

#[derive(Default)]
struct Rules {
    hang: BTreeSet<&'static str>,
    deaf: bool,
    fail: BTreeMap<&'static str, i32>,
    half: Option<Half>,
    stale: bool,
}

struct Server {
    device: File,
    nodes: BTreeMap<u64, Node>,
    open: BTreeMap<u64, Open>,
    last_open: u64,
    rules: Rules,
    held: Vec<Vec<u8>>,
    failed: u64,
    counts: BTreeMap<&'static str, u64>,
    /// Attributes that are told while they are stale.
    old: BTreeMap<u64, Attr>,
    /// Directories that were listed by half.
    halved: BTreeSet<u64>,
    cached: bool,
    grow: Option<(Vec<u8>, u64)>,
}

type Answer = Result<Reply, i32>;

fn errno(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// The path of what a descriptor holds, or of a name in it.
fn at(held: &File, name: &[u8]) -> PathBuf {
    let own = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    match name {
        b"" => own,
        name => own.join(OsStr::from_bytes(name)),
    }
}

fn hold(path: &Path) -> Result<File, i32> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)
        .map_err(errno)
}

impl Server {
    fn node(&self, id: u64) -> Result<&Node, i32> {
        self.nodes.get(&id).ok_or(libc::ESTALE)
    }

    /// Answers one request, or keeps it.
    fn take(&mut self, raw: Vec<u8>) {
        let request = Request::new(&raw);
        let op = name_of(request.opcode);
        *self.counts.entry(op).or_default() += 1;
        if self.rules.hang.contains(op) {
            self.held.push(raw);
            return;
        }
        self.serve(&raw);
    }

    fn serve(&mut self, raw: &[u8]) {
        let request = Request::new(raw);
        let op = name_of(request.opcode);
        if matches!(op, "forget" | "batch-forget" | "interrupt") {
            self.forget(op, &request);
            return;
        }
        let answer = match self.rules.fail.get(op) {
            Some(&errno) => {
                self.failed += 1;
                Err(errno)
            }
            None => self.answer(op, &request),
        };
        let bytes = protocol::framed(request.unique, answer);
        // ENOENT: who asked was killed. ENODEV: the mount is gone.
        let _nobody_waits = (&self.device).write(&bytes);
    }

    fn answer(&mut self, op: &str, request: &Request) -> Answer {
        let node = request.node;
        match op {
            "init" => Ok(Reply::init(request)),
            "lookup" => self.entry(node, request.name(0)),
            "getattr" => {
                self.looked_at(node);
                let attr = self.attr(node)?;
                Ok(Reply::attr(&attr))
            }
            "setattr" => self.set_attr(node, request),
            "mkdir" => {
                let path = at(&self.node(node)?.held, request.name(8));
                let made = fs::DirBuilder::new().mode(request.u32(0)).create(path);
                made.map_err(errno)?;
                self.entry(node, request.name(8))
            }
            "unlink" => fs::remove_file(at(&self.node(node)?.held, request.name(0)))
                .map(|()| Reply::empty())
                .map_err(errno),
            "rmdir" => fs::remove_dir(at(&self.node(node)?.held, request.name(0)))
                .map(|()| Reply::empty())
                .map_err(errno),
            "rename" => {
                let (from, to) = request.two_names(8);
                let to = at(&self.node(request.u64(0))?.held, to);
                fs::rename(at(&self.node(node)?.held, from), to).map_err(errno)?;
                Ok(Reply::empty())
            }
            "link" => {
                let to = at(&self.node(node)?.held, request.name(8));
                let from = at(&self.node(request.u64(0))?.held, b"");
                let follow = AtFlags::AT_SYMLINK_FOLLOW;
                nix::unistd::linkat(AT_FDCWD, &from, AT_FDCWD, &to, follow)
                    .map_err(|e| e as i32)?;
                self.entry(node, request.name(8))
            }
            "open" | "create" => self.open(op, node, request),
            "opendir" => {
                self.old.remove(&node);
                let entries = Vec::new();
                Ok(Reply::opened(self.keep(Open::Dir { node, entries })))
            }
            "readdir" => self.list(request.u64(0), request.u64(8), request.u32(16) as usize),
            "read" => {
                let mut bytes = vec![0; request.u32(16) as usize];
                let file = self.file(request.u64(0))?;
                let read = file.read_at(&mut bytes, request.u64(8)).map_err(errno)?;
                bytes.truncate(read);
                Ok(Reply(bytes))
            }
            "write" => {
                let file = self.file(request.u64(0))?;
                let written = file.write_at(request.rest(40), request.u64(8));
                Ok(Reply::written(written.map_err(errno)?))
            }
            "fsync" => self
                .file(request.u64(0))?
                .sync_all()
                .map(|()| Reply::empty())
                .map_err(errno),
            "release" | "releasedir" => {
                self.open.remove(&request.u64(0));
                Ok(Reply::empty())
            }
            "fsyncdir" | "destroy" => Ok(Reply::empty()),
            "statfs" => Ok(Reply::statfs()),
            _ => Err(libc::ENOSYS),
        }
    }

    fn forget(&mut self, op: &str, request: &Request) {
        let pairs: Vec<(u64, u64)> = match op {
            "forget" => vec![(request.node, request.u64(0))],
            "batch-forget" => (0..request.u32(0) as usize)
                .map(|n| (request.u64(8 + 16 * n), request.u64(16 + 16 * n)))
                .collect(),
            _ => Vec::new(),
        };
        for (id, times) in pairs {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.lookups = node.lookups.saturating_sub(times);
                if node.lookups == 0 && id != 1 {
                    self.nodes.remove(&id);
                }
            }
        }
    }

    /// Finds a name, and counts that the kernel knows of it.
    fn entry(&mut self, parent: u64, name: &[u8]) -> Answer {
        let held = hold(&at(&self.node(parent)?.held, name))?;
        let id = held.metadata().map_err(errno)?.ino();
        let node = self.nodes.entry(id).or_insert(Node {
            held,
            name: Vec::new(),
            lookups: 0,
        });
        node.lookups += 1;
        node.name = name.to_vec();
        self.looked_at(id);
        let attr = self.attr(id)?;
        Ok(Reply::entry(id, &attr))
    }

    /// Whoever looks at a growing file sees it growing. While what is told is old, only who opens it looks.
    fn looked_at(&mut self, id: u64) {
        if !self.rules.stale {
            self.grow(id);
        }
    }

    fn grow(&mut self, id: u64) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        if let Some((name, left)) = self.grow.as_mut().filter(|(_, left)| *left > 0)
            && *name == node.name
        {
            *left -= 1;
            let file = OpenOptions::new().append(true).open(at(&node.held, b""));
            file.and_then(|mut file| file.write_all(format!("{left} more\n").as_bytes()))
                .expect("the backing file takes a line");
        }
    }

    fn attr(&mut self, id: u64) -> Result<Attr, i32> {
        let meta = self.node(id)?.held.metadata().map_err(errno)?;
        let now = Attr::new(&meta);
        if self.rules.stale {
            return Ok(*self.old.entry(id).or_insert(now));
        }
        Ok(now)
    }

    fn set_attr(&mut self, node: u64, request: &Request) -> Answer {
        const SIZE: u32 = 1 << 3;
        const TIMES: u32 = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8;
        let path = at(&self.node(node)?.held, b"");
        let valid = request.u32(0);
        if valid & SIZE != 0 {
            let file = OpenOptions::new().write(true).open(&path);
            let set = file.and_then(|file| file.set_len(request.u64(16)));
            set.map_err(errno)?;
        }
        if valid & TIMES != 0 {
            let file = File::open(&path).map_err(errno)?;
            file.set_times(request.times()).map_err(errno)?;
        }
        self.old.remove(&node);
        Ok(Reply::attr(&self.attr(node)?))
    }

    fn open(&mut self, op: &str, node: u64, request: &Request) -> Answer {
        // The kernel has checked the rights and made the name; appending is its affair as well.
        let flags = OFlag::from_bits_truncate(request.u32(0) as i32);
        let writes = flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR);
        let mut options = OpenOptions::new();
        options.read(true).write(writes);
        options.truncate(writes && flags.contains(OFlag::O_TRUNC));
        if op == "open" {
            self.old.remove(&node);
            if self.rules.stale {
                self.grow(node);
            }
            let file = options.open(at(&self.node(node)?.held, b""));
            return Ok(self.opened(file.map_err(errno)?));
        }
        let name = request.name(16);
        options.write(true).create(true).mode(request.u32(4));
        options.create_new(flags.contains(OFlag::O_EXCL));
        let file = options.open(at(&self.node(node)?.held, name));
        let file = file.map_err(errno)?;
        let mut reply = self.entry(node, name)?;
        let opened = self.opened(file);
        reply.0.extend_from_slice(&opened.0);
        Ok(reply)
    }

    fn opened(&mut self, file: File) -> Reply {
        let handle = self.keep(Open::File(file));
        match self.cached {
            true => Reply::opened_cached(handle),
            false => Reply::opened(handle),
        }
    }

    fn keep(&mut self, open: Open) -> u64 {
        self.last_open += 1;
        self.open.insert(self.last_open, open);
        self.last_open
    }

    fn file(&self, handle: u64) -> Result<&File, i32> {
        match self.open.get(&handle) {
            Some(Open::File(file)) => Ok(file),
            _ => Err(libc::EBADF),
        }
    }

    fn list(&mut self, handle: u64, offset: u64, room: usize) -> Answer {
        let Some(Open::Dir { node, entries }) = self.open.get_mut(&handle) else {
            return Err(libc::EBADF);
        };
        let node = *node;
        if offset == 0 {
            let held = &self.nodes.get(&node).ok_or(libc::ESTALE)?.held;
            *entries = vec![(node, 4, b".".to_vec()), (node, 4, b"..".to_vec())];
            for entry in fs::read_dir(at(held, b"")).map_err(errno)? {
                let entry = entry.map_err(errno)?;
                let dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                let kind = if dir { 4 } else { 8 };
                entries.push((entry.ino(), kind, entry.file_name().into_vec()));
            }
        }
        let half = match self.rules.half {
            Some(Half::Once) if offset == 0 && !self.halved.insert(node) => None,
            half => half,
        };
        let end = match half {
            Some(_) => entries.len() / 2,
            None => entries.len(),
        };
        if half == Some(Half::Eio) && offset as usize >= end {
            self.failed += 1;
            return Err(libc::EIO);
        }
        if half.is_some() && offset as usize >= end {
            self.failed += 1;
        }
        let mut bytes = Vec::new();
        for (n, (ino, kind, name)) in entries.iter().enumerate().take(end).skip(offset as usize) {
            if !put_entry(&mut bytes, room, *ino, n as u64 + 1, *kind, name) {
                break;
            }
        }
        Ok(Reply(bytes))
    }

    // ---- orders ----

    fn order(&mut self, line: &str) -> Result<String, String> {
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let mut word = || {
            words
                .next()
                .ok_or_else(|| format!("{line}: a word is missing"))
        };
        match verb {
            "hang" => self.rules.hang = ops(word()?)?,
            "deaf" => self.rules.deaf = true,
            "fail" => {
                let errno: i32 = word()?.parse().map_err(|_| format!("{line}: no errno"))?;
                self.rules.fail = ops(word()?)?.into_iter().map(|op| (op, errno)).collect();
            }
            "half" => {
                self.halved.clear();
                self.rules.half = match word()? {
                    "end" => Some(Half::End),
                    "once" => Some(Half::Once),
                    "eio" => Some(Half::Eio),
                    other => return Err(format!("half {other}?")),
                }
            }
            "stale" => self.rules.stale = true,
            "cached" => self.cached = true,
            "grow" => {
                let name = word()?.as_bytes().to_vec();
                let times = word()?.parse().map_err(|_| format!("{line}: no number"))?;
                self.grow = Some((name, times));
            }
            "back" => {
                self.rules = Rules::default();
                self.old.clear();
                for raw in std::mem::take(&mut self.held) {
                    self.serve(&raw);
                }
            }
            "held" => return Ok(self.held.len().to_string()),
            "failed" => return Ok(self.failed.to_string()),
            "grows" => return Ok(self.grow.as_ref().map_or(0, |(_, left)| *left).to_string()),
            "count" => return Ok(self.counts.get(word()?).copied().unwrap_or(0).to_string()),
            _ => return Err(format!("{line}?")),
        }
        Ok("ok".into())
    }

    /// Until its input ends or the mount is gone.
    fn run(&mut self) -> io::Result<()> {
        let stdin = io::stdin();
        let (mut said, mut room) = (Vec::new(), vec![0; 256 * 1024]);
        loop {
            let mut fds = vec![PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            if !self.rules.deaf {
                fds.push(PollFd::new(self.device.as_fd(), PollFlags::POLLIN));
            }
            poll(&mut fds, PollTimeout::NONE)?;
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(true)).collect();
            if ready[0] {
                let filled = stdin.lock().read(&mut room)?;
                if filled == 0 {
                    return Ok(());
                }
                said.extend_from_slice(&room[..filled]);
                while let Some(end) = said.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = said.drain(..=end).collect();
                    let answer = self.order(String::from_utf8_lossy(&line).trim_end());
                    println!(
                        "{}",
                        answer.unwrap_or_else(|error| format!("error: {error}"))
                    );
                }
            }
            if ready.get(1) == Some(&true) {
                match self.device.read(&mut room) {
                    Ok(filled) => self.take(room[..filled].to_vec()),
                    Err(error) => match error.raw_os_error() {
                        // Interrupted before it was taken, or taken by nobody else: the next.
                        Some(libc::ENOENT | libc::EINTR | libc::EAGAIN) => {}
                        Some(libc::ENODEV) => return Ok(()),
                        _ => return Err(error),
                    },
                }
            }
        }
    }
}

fn ops(words: &str) -> Result<BTreeSet<&'static str>, String> {
    let mut all = BTreeSet::new();
    for word in words.split(',') {
        let some: Vec<&str> = match word {
            "all" => OPS.iter().map(|(_, name)| *name).collect(),
            "list" => vec!["opendir", "readdir"],
            "look" => vec!["lookup", "getattr", "open"],
            word => vec![word],
        };
        for name in some {
            let known = OPS.iter().find(|(_, known)| *known == name);
            let (_, known) = known.ok_or_else(|| format!("no operation {name}"))?;
            if !NEVER_HELD.contains(known) {
                all.insert(*known);
            }
        }
    }
    Ok(all)
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    let [_, backing, point] = args.as_slice() else {
        eprintln!("liar BACKING POINT");
        return ExitCode::from(64);
    };
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/fuse");
    let mounted = device.and_then(|device| {
        let options = format!(
            "fd={},rootmode=40000,user_id={},group_id={},allow_other,default_permissions",
            device.as_raw_fd(),
            nix::unistd::geteuid(),
            nix::unistd::getegid(),
        );
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("liar"),
            point.as_os_str(),
            Some("fuse.liar"),
            flags,
            Some(options.as_str()),
        )?;
        Ok(device)
    });
    let device = match mounted {
        Ok(device) => device,
        Err(error) => {
            println!("refused: {error}");
            return ExitCode::from(77);
        }
    };
    let root = Node {
        held: hold(Path::new(backing)).expect("the backing directory"),
        name: Vec::new(),
        lookups: 1,
    };
    let mut server = Server {
        device,
        nodes: BTreeMap::from([(1, root)]),
        open: BTreeMap::new(),
        last_open: 0,
        rules: Rules::default(),
        held: Vec::new(),
        failed: 0,
        counts: BTreeMap::new(),
        old: BTreeMap::new(),
        halved: BTreeSet::new(),
        cached: false,
        grow: None,
    };
    println!("mounted");
    let ran = server.run();
    // Somebody may have unmounted or moved it.
    let _gone_already = umount2(point.as_os_str(), MntFlags::MNT_DETACH);
    ran.expect("the protocol goes on");
    ExitCode::SUCCESS
}
