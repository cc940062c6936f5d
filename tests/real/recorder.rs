//! A job for the tests: writes down what it was given, and behaves as it is told.
//!
//! `recorder RESULTS [WORD...] PATH`; words, in order: `exit=N`, `until=FILE` (waits for it to exist),
//! `touch=FILE` (makes it), `append=TEXT` (to the file itself), `signal=N` (to itself), `ignore-term`,
//! `exit-first=N` (only at the first attempt), `nap=MS` (takes up to so many milliseconds), `sync` (RESULTS reach the disk).
//! Before them one line goes to RESULTS with a single append: the fields of `Run` in the harness.

#![allow(unsafe_code)]

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::FromRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn env_bytes(name: &str) -> Vec<u8> {
    env::var_os(name)
        .map(OsStringExt::into_vec)
        .unwrap_or_default()
}

fn main() {
    let args: Vec<_> = env::args_os().collect();
    let results = Path::new(&args[1]);
    let path = &args[args.len() - 1];
    let words = &args[2..args.len() - 1];

    // FNV-1a: enough to tell one content from another.
    let (mut size, mut hash) = (0u64, 0xcbf2_9ce4_8422_2325u64);
    // SAFETY: the daemon passes the file as descriptor 3 and nothing here owns it yet.
    let mut file = unsafe { File::from_raw_fd(3) };
    let fd_ok = file.seek(SeekFrom::Start(0)).is_ok();
    if fd_ok {
        let mut buffer = [0; 65536];
        while let Ok(n @ 1..) = file.read(&mut buffer) {
            size += n as u64;
            for byte in &buffer[..n] {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
    }
    let line = format!(
        "{} {} {} {} {} {} {} {} {} {}\n",
        String::from_utf8_lossy(&env_bytes("SETTLED_WATCH")),
        String::from_utf8_lossy(&env_bytes("SETTLED_JOB")),
        String::from_utf8_lossy(&env_bytes("SETTLED_ATTEMPT")),
        u8::from(env::var_os("SETTLED_RECOVERED").is_some()),
        hex(path.as_bytes()),
        hex(&env_bytes("SETTLED_PATH")),
        if fd_ok { size.to_string() } else { "-".into() },
        hash,
        std::process::id(),
        env::var("RECORDER_LIFE").unwrap_or_else(|_| "0".into()),
    );
    OpenOptions::new()
        .append(true)
        .create(true)
        .open(results)
        .and_then(|mut out| out.write_all(line.as_bytes()))
        .expect("the results file takes a line");

    let first = env_bytes("SETTLED_ATTEMPT") == b"1";
    for word in words {
        let word = word.to_str().expect("words are text");
        let (verb, value) = word.split_once('=').unwrap_or((word, ""));
        match verb {
            "exit" => std::process::exit(value.parse().expect("a number")),
            "exit-first" if first => std::process::exit(value.parse().expect("a number")),
            "exit-first" => {}
            "until" => {
                while !Path::new(value).exists() {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
            "touch" => drop(File::create(value).expect("a file to touch")),
            "append" => OpenOptions::new()
                .append(true)
                .open(path)
                .and_then(|mut own| own.write_all(value.as_bytes()))
                .expect("the file itself takes text"),
            "sync" => File::open(results)
                .and_then(|file| file.sync_all())
                .expect("the results reach the disk"),
            "nap" => {
                let most: u64 = value.parse().expect("a number");
                let id = u64::from(std::process::id());
                std::thread::sleep(std::time::Duration::from_millis(id % (most + 1)));
            }
            "print" => println!("{value}"),
            "signal" => {
                let pid = std::process::id().to_string();
                let _ = std::process::Command::new("kill")
                    .args([&format!("-{value}"), &pid])
                    .status();
            }
            "ignore-term" => {
                // SAFETY: sets a disposition; no handler runs.
                unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            }
            _ => panic!("unknown word {word}"),
        }
    }
}
