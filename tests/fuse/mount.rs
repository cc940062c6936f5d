//! A mount of the filesystem that hangs, errs and lies; `liar/main.rs` has its orders.

use crate::bed::{Bed, example, until};
use nix::mount::{MntFlags, umount2};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

/// Where this cannot be done, and why.
pub struct Refused(pub String);

struct Line {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Shows `backing` at `point`. Dropped, it is detached and everything that waits for it is ended. A process that is
/// killed takes its mounts along: their servers see the end of their input.
pub struct Liar {
    server: Child,
    /// `None`: closed.
    line: Mutex<Option<Line>>,
    pub point: PathBuf,
    pub backing: PathBuf,
}

impl Liar {
    /// Makes `backing` if it is not there, and `point`.
    pub fn try_mount(backing: &Path, point: &Path) -> Result<Liar, Refused> {
        fs::create_dir_all(backing).expect("a backing directory");
        fs::create_dir_all(point).expect("a mount point");
        let mut server = Command::new(example("liar", "tests/fuse/liar/main.rs"))
            .args([backing, point])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server");
        let mut line = Line {
            orders: server.stdin.take().expect("a pipe"),
            answers: BufReader::new(server.stdout.take().expect("a pipe")),
        };
        let said = line.heard();
        if said != "mounted" {
            server.wait().expect("a child");
            return Err(Refused(said.trim_start_matches("refused: ").to_owned()));
        }
        Ok(Liar {
            server,
            line: Mutex::new(Some(line)),
            point: point.to_owned(),
            backing: backing.to_owned(),
        })
    }

    /// Over the bed's watched directory, or another one in the bed; `backing` is a directory beside.
    pub fn mount(bed: &Bed, backing: &str, point: &str) -> Liar {
        match Liar::try_mount(&bed.path(backing), &bed.path(point)) {
            Ok(liar) => liar,
            Err(Refused(why)) => panic!("it was possible a moment ago: {why}"),
        }
    }

    fn ask(&self, order: &str) -> String {
        let mut line = self.line.lock().expect("no panic elsewhere");
        let line = line.as_mut().expect("a mount");
        writeln!(line.orders, "{order}").expect("the server takes orders");
        line.heard()
    }

    pub fn tell(&self, order: &str) {
        assert_eq!(self.ask(order), "ok", "{order}");
    }

    /// `held`, `failed`, `grows` or `count OP`.
    pub fn number(&self, of: &str) -> u64 {
        self.ask(of).parse().expect("a number")
    }

    /// Waits until so many more requests came of a kind.
    pub fn wait_more(&self, of: &str, more: u64) {
        let before = self.number(of);
        until(&format!("{more} more of {of:?}"), || {
            self.number(of) >= before + more
        });
    }

    /// What another party, of which this machine's kernel hears nothing, writes.
    pub fn put(&self, name: &str, content: &str) {
        fs::write(self.backing.join(name), content).expect("a file behind the mount");
    }

    pub fn device(&self) -> u64 {
        fs::symlink_metadata(&self.point)
            .expect("the mount point")
            .dev()
    }

    /// As an administrator unmounts it: nobody may be using it.
    pub fn unmount(mut self) {
        until("the unmount", || {
            umount2(&self.point, MntFlags::empty()).is_ok()
        });
        self.end();
    }

    fn end(&mut self) {
        *self
            .line
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = None;
        let start = std::time::Instant::now();
        while start.elapsed() < crate::bed::DEADLINE {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        // Its end is the end of every request; the mount is taken away for it.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = umount2(&self.point, MntFlags::MNT_DETACH);
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.end();
    }
}

impl Line {
    /// Empty at the server's end.
    fn heard(&mut self) -> String {
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the server answers");
        line.trim_end().to_owned()
    }
}
