//! `settled write-textfile`: standard input to a file, all of it or nothing. The daemon has a process of its own do that,
//! because the file's disk may hang.

use crate::cli::exit;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The subcommand.
pub const WRITE: &[u8] = b"write-textfile";

/// `arguments` are what follows the subcommand: the file's path. The exit status; why not is said on standard error.
pub fn write_textfile(arguments: &[OsString]) -> u8 {
    let [path] = arguments else {
        return exit::USAGE;
    };
    match write(Path::new(path)) {
        Ok(()) => exit::OK,
        Err(error) => {
            // Without a reader the exit status speaks alone.
            let _ = writeln!(io::stderr(), "{error}");
            exit::CANTCREAT
        }
    }
}

fn write(path: &Path) -> io::Result<()> {
    let other = beside(path);
    // What has this process's number now has it alone: what lies there is of one that was killed.
    match fs::remove_file(&other) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&other)
        .and_then(|mut file| io::copy(&mut io::stdin(), &mut file));
    // Not flushed: after a power cut the next one is written before anybody asks.
    let done = written.and_then(|_| fs::rename(&other, path));
    if done.is_err() {
        // The first error is the one to be told.
        let _ = fs::remove_file(&other);
    }
    done
}

/// A hidden name in the same directory, of which nobody takes the end for that of a file to be read.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().map_or(&b""[..], OsStr::as_bytes);
    let number = std::process::id().to_string();
    let name = [b".", name, b".", number.as_bytes()].concat();
    path.with_file_name(OsString::from_vec(name))
}
