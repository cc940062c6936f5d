//! What the kernel says about files, as far as the design leans on it, and that the probes ask it right. On a kernel where
//! one of these is otherwise, the test that fails names the fact.
#![allow(unsafe_code, clippy::unwrap_used)]

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, SFlag, mknod};
use settled::core::ask::{Answer, Bound, Entry, Fault, Held, Kind, Place, Version};
use settled::core::ids::MountId;
use settled::core::{NotStarted, StartStep, mask};
use settled::probe::{Prober, Wanted, open_expected, resolve};
use settled::sys::file;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

const ALL: Wanted = Wanted {
    lock: true,
    flock: true,
    lease: true,
};

const STAT_ONLY: Wanted = Wanted {
    lock: false,
    flock: false,
    lease: false,
};

/// On the disk that the project is built on, which has leases and birth times, unlike some /tmp.
fn temp() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn place(base: &Path, rel: &[u8]) -> Place {
    let resolved = resolve(base.as_os_str().as_bytes()).unwrap();
    Place {
        base: resolved.path,
        mount: resolved.mount,
        rel: rel.to_vec(),
    }
}

fn lease(place: &Place) -> Held {
    Prober::new().probe(place, ALL).unwrap().lease
}

fn version(place: &Place) -> Version {
    Prober::new().probe(place, ALL).unwrap().stat.version
}

#[test]
fn a_lease_sees_writers_and_nobody_else() {
    let _alone = alone();
    let dir = temp();
    let path = dir.path().join("f");
    let mut writer = File::create(&path).unwrap();
    let place = place(dir.path(), b"f");
    assert_eq!(lease(&place), Held::By(0), "open for writing");
    writer.write_all(b"abc").unwrap();
    let copy = writer.try_clone().unwrap();
    drop(writer);
    assert_eq!(
        lease(&place),
        Held::By(0),
        "a copy of the descriptor is still open"
    );
    drop(copy);
    assert_eq!(lease(&place), Held::Free, "closed");
    let _reader = File::open(&path).unwrap();
    assert_eq!(lease(&place), Held::Free, "a reader is no writer");
    let idle = File::options().write(true).open(&path).unwrap();
    assert_eq!(
        lease(&place),
        Held::By(0),
        "open for writing, nothing written"
    );
    drop(idle);
    // Given back at once: a writer is not held up by a lease that a probe left behind.
    assert_eq!(lease(&place), Held::Free);
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK;
    nix::fcntl::open(&path, flags, Mode::empty()).expect("no lease is left");
}

#[test]
fn a_lease_sees_a_shared_mapping_whose_descriptor_is_closed() {
    let _alone = alone();
    let dir = temp();
    let path = dir.path().join("f");
    fs::write(&path, [0u8; 4096]).unwrap();
    let place = place(dir.path(), b"f");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of 4096 bytes of an open file; nothing is read or written through it.
    let map = unsafe {
        let fd = file.as_raw_fd();
        libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_SHARED, fd, 0)
    };
    assert_ne!(map, libc::MAP_FAILED);
    drop(file);
    assert_eq!(lease(&place), Held::By(0));
    // SAFETY: the mapping made above, which nothing refers to.
    assert_eq!(unsafe { libc::munmap(map, 4096) }, 0);
    assert_eq!(lease(&place), Held::Free);
}

#[test]
fn a_lease_follows_an_unnamed_file_to_its_name() {
    let _alone = alone();
    let dir = temp();
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY;
    let unnamed = nix::fcntl::open(dir.path(), flags, Mode::from_bits_truncate(0o600)).unwrap();
    let own = format!("/proc/self/fd/{}", unnamed.as_raw_fd());
    nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        own.as_str(),
        nix::fcntl::AT_FDCWD,
        &dir.path().join("named"),
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    )
    .unwrap();
    let place = place(dir.path(), b"named");
    assert_eq!(lease(&place), Held::By(0));
    drop(unnamed);
    assert_eq!(lease(&place), Held::Free);
}

#[test]
fn whoever_holds_a_write_lease_counts_as_a_writer() {
    let _alone = alone();
    let dir = temp();
    let path = dir.path().join("f");
    fs::write(&path, b"x").unwrap();
    let place = place(dir.path(), b"f");
    // SAFETY: an int command with an int argument; SIGIO, which its break sends, is ignored in this process.
    unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    let holder = File::options().read(true).write(true).open(&path).unwrap();
    // SAFETY: as above.
    let leased = unsafe { libc::fcntl(holder.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) };
    assert_eq!(leased, 0);
    let facts = Prober::new().probe(&place, ALL).unwrap();
    assert_eq!(facts.lease, Held::By(0));
    assert_eq!(facts.lock, Held::CannotAsk(libc::EAGAIN));
    assert_eq!(facts.stat.version.size, 1);
    let expect = facts.stat.version;
    assert_eq!(
        open_expected(&place, &expect, true).unwrap_err(),
        NotStarted::StillWritten
    );
}

/// One at a time: a process that one test starts has, until it executes its program, a copy of every other test's
/// descriptors, and a lease would see it as a writer.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the test of this name again as nobody, who can then be told by the variable.
fn as_nobody(test: &str, path: &Path) {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env("AS_NOBODY", path)
        .uid(65534)
        .gid(65534)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_stranger_cannot_ask_for_a_lease_and_is_told_so() {
    let _alone = alone();
    if let Some(dir) = std::env::var_os("AS_NOBODY") {
        let place = place(Path::new(&dir), b"readable");
        let facts = Prober::new().probe(&place, ALL).unwrap();
        assert_eq!(facts.lease, Held::CannotAsk(libc::EACCES));
        assert_eq!((facts.lock, facts.flock), (Held::Free, Held::Free));
        let secret = Place {
            rel: b"secret".to_vec(),
            ..place
        };
        let facts = Prober::new().probe(&secret, ALL).unwrap();
        let cannot = Held::CannotAsk(libc::EACCES);
        assert_eq!(
            (facts.lock, facts.flock, facts.lease),
            (cannot, cannot, cannot)
        );
        assert_eq!((facts.stat.kind, facts.stat.version.size), (Kind::File, 6));
        let look = open_expected(&secret, &facts.stat.version, true);
        assert_eq!(
            look.unwrap_err(),
            NotStarted::Failed(StartStep::OpenFile, libc::EACCES)
        );
    } else if nix::unistd::geteuid().is_root() {
        let dir = temp();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, mode) in [("readable", 0o644), ("secret", 0o600)] {
            let path = dir.path().join(name);
            fs::write(&path, b"secret").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        as_nobody(
            "a_stranger_cannot_ask_for_a_lease_and_is_told_so",
            dir.path(),
        );
    } else {
        let place = place(Path::new("/etc"), b"passwd");
        assert_eq!(lease(&place), Held::CannotAsk(libc::EACCES));
    }
}

fn lock_of(kind: i16) -> libc::flock {
    libc::flock {
        l_type: kind,
        l_whence: libc::SEEK_SET as i16,
        l_start: 100,
        l_len: 1,
        l_pid: 0,
    }
}

#[test]
fn locks_of_every_kind_are_seen_in_their_own_probe() {
    let _alone = alone();
    let dir = temp();
    let path = dir.path().join("f");
    fs::write(&path, b"x").unwrap();
    let place = place(dir.path(), b"f");
    let ask = || Prober::new().probe(&place, ALL).unwrap();
    assert_eq!((ask().lock, ask().flock), (Held::Free, Held::Free));

    let holder = File::options().read(true).write(true).open(&path).unwrap();
    let lock = lock_of(libc::F_WRLCK as i16);
    fcntl(&holder, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    assert_eq!(ask().lock, Held::By(0), "OFD, one byte beyond the end");
    let shared = lock_of(libc::F_RDLCK as i16);
    fcntl(&holder, FcntlArg::F_OFD_SETLK(&shared)).unwrap();
    assert_eq!(
        ask().lock,
        Held::By(0),
        "a read lock conflicts with a write lock"
    );
    drop(holder);
    assert_eq!(ask().lock, Held::Free);

    let holder = File::options().read(true).write(true).open(&path).unwrap();
    file::flock(holder.as_fd(), libc::LOCK_EX).unwrap();
    assert_eq!(
        (ask().lock, ask().flock),
        (Held::Free, Held::By(0)),
        "flock is a world of its own"
    );
    drop(holder);
    assert_eq!(ask().flock, Held::Free);
}

#[test]
fn a_posix_lock_of_the_same_process_is_seen_with_its_pid() {
    let dir = temp();
    let path = dir.path().join("f");
    fs::write(&path, b"x").unwrap();
    let place = place(dir.path(), b"f");
    let holder = File::options().read(true).write(true).open(&path).unwrap();
    fcntl(&holder, FcntlArg::F_SETLK(&lock_of(libc::F_WRLCK as i16))).unwrap();
    // Once only: closing any descriptor of the file, the probe's own too, ends a process's POSIX locks.
    let pid = std::process::id() as i32;
    let lock_only = Wanted {
        lock: true,
        ..STAT_ONLY
    };
    assert_eq!(
        Prober::new().probe(&place, lock_only).unwrap().lock,
        Held::By(pid)
    );
}

#[test]
fn only_regular_files_are_opened_and_only_for_a_probe() {
    let dir = temp();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), b"x").unwrap();
    fs::create_dir(at("dir")).unwrap();
    symlink("file", at("link")).unwrap();
    nix::unistd::mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let mut expected = vec![
        ("dir", Kind::Dir),
        ("link", Kind::Symlink),
        ("fifo", Kind::Other),
        ("socket", Kind::Other),
    ];
    let device = libc::makedev(1, 3);
    if mknod(&at("device"), SFlag::S_IFCHR, Mode::S_IRWXU, device).is_ok() {
        assert!(
            fs::metadata(at("device"))
                .unwrap()
                .file_type()
                .is_char_device()
        );
        expected.push(("device", Kind::Other));
    }
    let mut inotify = inotify::Inotify::init().unwrap();
    inotify
        .watches()
        .add(dir.path(), inotify::WatchMask::OPEN)
        .unwrap();
    let mut prober = Prober::new();
    for (name, kind) in expected {
        let facts = prober
            .probe(&place(dir.path(), name.as_bytes()), ALL)
            .unwrap();
        assert_eq!(facts.stat.kind, kind, "{name}");
        assert_eq!(
            (facts.lock, facts.lease),
            (Held::NotAsked, Held::NotAsked),
            "{name}"
        );
        let look = open_expected(
            &place(dir.path(), name.as_bytes()),
            &facts.stat.version,
            true,
        );
        let refused = look.unwrap_err();
        let no_file = matches!(refused, NotStarted::NotTheFile);
        assert!(no_file, "{name}: {refused:?}");
    }
    let file = place(dir.path(), b"file");
    prober.probe(&file, STAT_ONLY).unwrap();
    let mut opened = Vec::new();
    let mut collect = |inotify: &mut inotify::Inotify| {
        let mut buffer = [0; 4096];
        match inotify.read_events(&mut buffer) {
            Ok(events) => {
                // `resolve` in this test opens the directory itself with O_PATH, which is no event either.
                opened.extend(events.filter_map(|event| event.name.map(OsStr::to_os_string)));
            }
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        opened.len()
    };
    assert_eq!(collect(&mut inotify), 0, "nothing was opened");
    prober.probe(&file, ALL).unwrap();
    assert_eq!(collect(&mut inotify), 1, "and this would have seen it");
}

#[test]
fn ways_that_are_not_gone() {
    let dir = temp();
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("real/f"), b"x").unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    let ask = |place: &Place| Prober::new().probe(place, ALL).map(|facts| facts.stat.kind);
    let below = |rel: &[u8]| place(dir.path(), rel);
    assert_eq!(ask(&below(b"real/f")), Ok(Kind::File));
    assert_eq!(ask(&below(b"link/f")), Err(Fault::Crossed(libc::ELOOP)));
    assert_eq!(
        ask(&below(b"real/../../../x")),
        Err(Fault::Crossed(libc::EXDEV))
    );
    assert_eq!(ask(&below(b"absent")), Err(Fault::Here(libc::ENOENT)));
    assert_eq!(ask(&below(b"real/f/g")), Err(Fault::Here(libc::ENOTDIR)));
    assert_eq!(
        ask(&place(Path::new("/"), b"proc/version")),
        Err(Fault::Crossed(libc::EXDEV))
    );
    let elsewhere = Place {
        mount: MountId(u64::MAX),
        ..below(b"real/f")
    };
    assert_eq!(ask(&elsewhere), Err(Fault::Base(0)));
    let mut gone = below(b"f");
    gone.base.extend_from_slice(b"/absent");
    assert_eq!(ask(&gone), Err(Fault::Base(libc::ENOENT)));
    let mut linked = below(b"f");
    linked.base.extend_from_slice(b"/link");
    assert_eq!(ask(&linked), Err(Fault::Base(libc::ELOOP)));
}

#[test]
fn a_resting_prober_holds_nothing() {
    let dir = temp();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let place = place(dir.path(), b"f");
    let held = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap();
        let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links.filter(|link| link.starts_with(dir.path())).count()
    };
    let mut prober = Prober::new();
    prober.probe(&place, ALL).unwrap();
    assert_eq!(held(), 1, "the base, while questions come in a row");
    prober.rest();
    assert_eq!(held(), 0);
}

#[test]
fn a_version_tells_two_files_apart() {
    let dir = temp();
    let place = place(dir.path(), b"f");
    let path = dir.path().join("f");
    fs::write(&path, b"one").unwrap();
    let first = version(&place);
    assert_eq!(version(&place), first);
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();
    let (named, temporary) = (&path, dir.path().join("t"));
    fs::write(&temporary, b"two").unwrap();
    File::options()
        .write(true)
        .open(&temporary)
        .unwrap()
        .set_modified(mtime)
        .unwrap();
    fs::rename(&temporary, named).unwrap();
    let second = version(&place);
    assert_eq!((second.size, second.mtime_ns), (first.size, first.mtime_ns));
    assert_ne!(second, first, "same size and mtime, another file");
    assert!(
        second.btime_ns != 0 || second.generation != 0,
        "no witness against a reused inode here"
    );
}

#[test]
fn ext4_tells_generations() {
    let dir = temp();
    let file = File::create(dir.path().join("f")).unwrap();
    match file::generation(file.as_fd()) {
        Ok(generation) => assert_eq!(file::generation(file.as_fd()), Ok(generation)),
        Err(errno) => assert!(
            matches!(errno, Errno::ENOTTY | Errno::EOPNOTSUPP),
            "{errno}"
        ),
    }
}

#[test]
fn the_look_before_an_attempt() {
    let _alone = alone();
    let dir = temp();
    let path = dir.path().join("f");
    fs::write(&path, b"content").unwrap();
    let place = place(dir.path(), b"f");
    let expect = version(&place);
    let opened = open_expected(&place, &expect, true).unwrap();
    let mut text = String::new();
    File::from(opened).read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");

    let writer = File::options().append(true).open(&path).unwrap();
    assert_eq!(
        open_expected(&place, &expect, true).unwrap_err(),
        NotStarted::StillWritten
    );
    assert!(
        open_expected(&place, &expect, false).is_ok(),
        "not asked for"
    );
    (&writer).write_all(b"more").unwrap();
    drop(writer);
    assert_eq!(
        open_expected(&place, &expect, true).unwrap_err(),
        NotStarted::NotTheFile
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(
        open_expected(&place, &expect, true).unwrap_err(),
        NotStarted::NotTheFile
    );

    // That the root is missing says nothing about the file.
    let missing = |errno| NotStarted::Failed(StartStep::OpenFile, errno);
    let mut gone = place.clone();
    gone.base.extend_from_slice(b"/absent");
    assert_eq!(
        open_expected(&gone, &expect, true).unwrap_err(),
        missing(libc::ENOENT)
    );
    let elsewhere = Place {
        mount: MountId(u64::MAX),
        ..place
    };
    assert_eq!(
        open_expected(&elsewhere, &expect, true).unwrap_err(),
        missing(libc::ENODEV)
    );
}

#[test]
fn links_are_followed_only_when_resolving() {
    let dir = temp();
    fs::create_dir(dir.path().join("real")).unwrap();
    symlink("real", dir.path().join("link")).unwrap();
    fs::write(dir.path().join("f"), b"x").unwrap();
    let path = |name: &str| dir.path().join(name).into_os_string().into_vec();
    let (real, link) = (
        resolve(&path("real")).unwrap(),
        resolve(&path("link")).unwrap(),
    );
    assert_eq!(real, link);
    assert_eq!(
        link.path,
        fs::canonicalize(dir.path().join("real"))
            .unwrap()
            .into_os_string()
            .into_vec()
    );
    assert_eq!(resolve(&path("f")), Err(libc::ENOTDIR));
    assert_eq!(resolve(&path("absent")), Err(libc::ENOENT));
}

/// What a bind answers: the directory, its entries sorted by name, how it ended.
type Listing = (Result<Bound, Fault>, Vec<Entry>, Option<Result<(), Fault>>);

fn bind(place: &Place, inotify: Option<&inotify::Inotify>, on_bound: impl Fn()) -> Listing {
    let (mut bound, mut entries, mut listed) = (Err(Fault::Base(-1)), Vec::new(), None);
    let mut watches = inotify.map(inotify::Inotify::watches);
    Prober::new().bind(place, watches.as_mut(), &mut |answer| match answer {
        Answer::Bound(result) => {
            bound = result;
            on_bound();
        }
        Answer::Entries(more) => entries.extend(more),
        Answer::Listed(result) => listed = Some(result),
        other => panic!("{other:?}"),
    });
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    (bound, entries, listed)
}

#[test]
fn a_listing_has_every_name_as_it_is() {
    let dir = temp();
    let mut names: Vec<Vec<u8>> = [
        b"-rf".as_slice(),
        b"new\nline",
        b"\"quoted\" $(name)",
        b"\xff\xfe not UTF-8",
        b" ",
        b".hidden",
        &[b'n'; 255],
    ]
    .iter()
    .map(|name| name.to_vec())
    .collect();
    for n in 0..3000 {
        names.push(format!("file number {n}").into_bytes());
    }
    for name in &names {
        fs::write(dir.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink("nowhere", dir.path().join("dangling")).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    let place = place(dir.path(), b"");
    let (bound, entries, listed) = bind(&place, None, || {});
    assert_eq!((bound.unwrap().wd, listed), (None, Some(Ok(()))));
    let kind = |name: &[u8]| {
        let at = entries
            .binary_search_by(|entry| entry.name.as_slice().cmp(name))
            .unwrap();
        entries[at].stat.unwrap().kind
    };
    assert_eq!(
        (kind(b"dangling"), kind(b"sub")),
        (Kind::Symlink, Kind::Dir)
    );
    assert_eq!(entries.len(), names.len() + 2);
    for name in &names {
        assert_eq!(kind(name), Kind::File);
        let at = Place {
            rel: name.clone(),
            ..place.clone()
        };
        let facts = Prober::new().probe(&at, STAT_ONLY).unwrap();
        let listed = entries.iter().find(|entry| &entry.name == name).unwrap();
        assert_eq!(listed.stat, Ok(facts.stat));
        assert_eq!(facts.stat.version.size, name.len() as u64);
    }
}

#[test]
fn what_comes_after_the_watch_gives_an_event() {
    let dir = temp();
    fs::create_dir(dir.path().join("d")).unwrap();
    let place = place(dir.path(), b"d");
    let mut inotify = inotify::Inotify::init().unwrap();
    let (bound, _, listed) = bind(&place, Some(&inotify), || {
        fs::write(dir.path().join("d/new"), b"x").unwrap();
    });
    assert_eq!(listed, Some(Ok(())));
    let wd = bound.unwrap().wd.unwrap().unwrap();
    let mut buffer = [0; 4096];
    let events: Vec<_> = inotify
        .read_events(&mut buffer)
        .unwrap()
        .map(|event| event.to_owned())
        .collect();
    assert!(
        events
            .iter()
            .all(|event| event.wd.get_watch_descriptor_id() == wd)
    );
    let bits: Vec<u32> = events.iter().map(|event| event.mask.bits()).collect();
    assert_eq!(bits, [mask::CREATE, mask::CLOSE_WRITE]);
    // Twice is the same watch.
    let (again, _, _) = bind(&place, Some(&inotify), || {});
    assert_eq!(again.unwrap().wd, Some(Ok(wd)));
}

#[test]
fn a_listing_that_lost_its_directory_is_not_complete() {
    let dir = temp();
    let (d, aside) = (dir.path().join("d"), dir.path().join("aside"));
    fs::create_dir(&d).unwrap();
    fs::write(d.join("f"), b"x").unwrap();
    let place = place(dir.path(), b"d");
    let (_, _, listed) = bind(&place, None, || fs::rename(&d, &aside).unwrap());
    assert_eq!(listed, Some(Err(Fault::Here(libc::ENOENT))));
    fs::rename(&aside, &d).unwrap();
    let (_, _, listed) = bind(&place, None, || {
        fs::rename(&d, &aside).unwrap();
        fs::create_dir(&d).unwrap();
    });
    assert_eq!(listed, Some(Err(Fault::Here(libc::ESTALE))));
    let (bound, _, listed) = bind(
        &Place {
            rel: b"aside/f".to_vec(),
            ..place
        },
        None,
        || {},
    );
    assert_eq!((bound, listed), (Err(Fault::Here(libc::ENOTDIR)), None));
}

#[test]
fn mount_points_are_named_but_not_touched() {
    let (_, entries, listed) = bind(&place(Path::new("/"), b""), None, || {});
    assert_eq!(listed, Some(Ok(())));
    let proc = entries.iter().find(|entry| entry.name == b"proc").unwrap();
    let stat = proc.stat.unwrap();
    assert_eq!((stat.kind, stat.version), (Kind::Dir, Version::default()));
    let etc = entries.iter().find(|entry| entry.name == b"etc").unwrap();
    assert_ne!(etc.stat.unwrap().version.ino, 0);
}
