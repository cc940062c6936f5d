//! The bytes of the FUSE protocol, version 7.31, as in linux/fuse.h.

use std::fs::{FileTimes, Metadata};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;
const MAX_WRITE: u32 = 64 * 1024;

/// One request as it was read.
pub struct Request<'a> {
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    body: &'a [u8],
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let part = bytes
        .get(at..at + N)
        .expect("a request as long as its kind");
    part.try_into().expect("as many bytes")
}

impl<'a> Request<'a> {
    pub fn new(raw: &'a [u8]) -> Request<'a> {
        Request {
            opcode: u32::from_ne_bytes(number(raw, 4)),
            unique: u64::from_ne_bytes(number(raw, 8)),
            node: u64::from_ne_bytes(number(raw, 16)),
            body: &raw[HEADER..],
        }
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(number(self.body, at))
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(number(self.body, at))
    }

    pub fn rest(&self, at: usize) -> &'a [u8] {
        self.body.get(at..).unwrap_or_default()
    }

    /// The name that begins there.
    pub fn name(&self, at: usize) -> &'a [u8] {
        self.two_names(at).0
    }

    pub fn two_names(&self, at: usize) -> (&'a [u8], &'a [u8]) {
        let mut names = self.rest(at).split(|byte| *byte == 0);
        (
            names.next().unwrap_or_default(),
            names.next().unwrap_or_default(),
        )
    }

    /// The times of `struct fuse_setattr_in` that are to be set.
    pub fn times(&self) -> FileTimes {
        let valid = self.u32(0);
        let time = |bit: u32, now: u32, seconds: usize, nanos: usize| {
            let told = Duration::new(self.u64(seconds), self.u32(nanos));
            match () {
                () if valid & 1 << now != 0 => Some(SystemTime::now()),
                () if valid & 1 << bit != 0 => Some(UNIX_EPOCH + told),
                () => None,
            }
        };
        let mut times = FileTimes::new();
        if let Some(accessed) = time(4, 7, 32, 56) {
            times = times.set_accessed(accessed);
        }
        if let Some(modified) = time(5, 8, 40, 60) {
            times = times.set_modified(modified);
        }
        times
    }
}

/// `struct fuse_attr`.
#[derive(Clone, Copy)]
pub struct Attr {
    words: [u64; 6],
    halves: [u32; 10],
}

impl Attr {
    pub fn new(meta: &Metadata) -> Attr {
        let nanos = |n: i64| u32::try_from(n).expect("less than a second");
        Attr {
            words: [
                meta.ino(),
                meta.size(),
                meta.blocks(),
                meta.atime().cast_unsigned(),
                meta.mtime().cast_unsigned(),
                meta.ctime().cast_unsigned(),
            ],
            halves: [
                nanos(meta.atime_nsec()),
                nanos(meta.mtime_nsec()),
                nanos(meta.ctime_nsec()),
                meta.mode(),
                u32::try_from(meta.nlink()).expect("few links"),
                meta.uid(),
                meta.gid(),
                0,
                4096,
                0,
            ],
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        self.words.iter().for_each(|word| put64(out, *word));
        self.halves.iter().for_each(|half| put32(out, *half));
    }
}

fn put64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_ne_bytes());
}

fn put32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_ne_bytes());
}

/// What follows the header of an answer.
pub struct Reply(pub Vec<u8>);

impl Reply {
    pub fn empty() -> Reply {
        Reply(Vec::new())
    }

    /// No feature is taken: every name, attribute and byte is asked for each time.
    pub fn init(request: &Request) -> Reply {
        let mut out = Vec::new();
        let (major, minor) = (7, request.u32(4).min(31));
        // Read-ahead and flags: none. Background requests and when there are many: the kernel's own.
        for number in [major, minor, 0, 0, 0, MAX_WRITE, 1] {
            put32(&mut out, number);
        }
        out.resize(64, 0);
        Reply(out)
    }

    /// Nothing of it may be kept for any time.
    pub fn entry(id: u64, attr: &Attr) -> Reply {
        let mut out = Vec::new();
        for number in [id, 0, 0, 0, 0] {
            put64(&mut out, number);
        }
        attr.put(&mut out);
        Reply(out)
    }

    pub fn attr(attr: &Attr) -> Reply {
        let mut out = vec![0; 16];
        attr.put(&mut out);
        Reply(out)
    }

    /// Reads and writes do not go through the page cache.
    pub fn opened(handle: u64) -> Reply {
        const FOPEN_DIRECT_IO: u32 = 1;
        let mut out = Vec::new();
        put64(&mut out, handle);
        put32(&mut out, FOPEN_DIRECT_IO);
        put32(&mut out, 0);
        Reply(out)
    }

    /// They do, and the file can be mapped for writing by several.
    pub fn opened_cached(handle: u64) -> Reply {
        let mut out = Vec::new();
        put64(&mut out, handle);
        put64(&mut out, 0);
        Reply(out)
    }

    pub fn written(bytes: usize) -> Reply {
        let mut out = Vec::new();
        put32(
            &mut out,
            u32::try_from(bytes).expect("at most what was given"),
        );
        put32(&mut out, 0);
        Reply(out)
    }

    /// Much room.
    pub fn statfs() -> Reply {
        let mut out = Vec::new();
        for number in [1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19] {
            put64(&mut out, number);
        }
        for number in [4096, 255, 4096, 0, 0, 0, 0, 0, 0, 0] {
            put32(&mut out, number);
        }
        Reply(out)
    }
}

/// An answer with its header.
pub fn framed(unique: u64, answer: Result<Reply, i32>) -> Vec<u8> {
    let (error, body) = match answer {
        Ok(Reply(body)) => (0, body),
        Err(errno) => (-errno, Vec::new()),
    };
    let mut out = Vec::new();
    put32(
        &mut out,
        u32::try_from(16 + body.len()).expect("a small answer"),
    );
    put32(&mut out, error.cast_unsigned());
    put64(&mut out, unique);
    out.extend_from_slice(&body);
    out
}

/// Appends a `struct fuse_dirent`; false if `room` bytes would not do. A listing goes on from `next`.
pub fn put_entry(
    out: &mut Vec<u8>,
    room: usize,
    ino: u64,
    next: u64,
    kind: u32,
    name: &[u8],
) -> bool {
    let padded = (24 + name.len()).next_multiple_of(8);
    if out.len() + padded > room {
        return false;
    }
    put64(out, ino);
    put64(out, next);
    put32(out, u32::try_from(name.len()).expect("a name"));
    put32(out, kind);
    out.extend_from_slice(name);
    out.resize(out.len().next_multiple_of(8), 0);
    true
}
