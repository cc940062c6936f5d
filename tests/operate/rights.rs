//! Who may ask. The daemon knows its peers by the kernel's word.

use crate::bed::{Bed, Daemon};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Nobody's user and group on Debian; a group that nobody is in.
const NOBODY: u32 = 65534;
const NOGROUP: u32 = 65534;
const GROUP: u32 = 54321;

/// A bed whose socket and program others can reach.
struct Open {
    bed: Bed,
    program: PathBuf,
    socket: PathBuf,
}

impl Open {
    fn new(keys: &str) -> Open {
        let bed = Bed::in_dir(&std::env::temp_dir());
        let open = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its own directory");
        };
        open(bed.root(), 0o755);
        let run = bed.path("run");
        fs::create_dir(&run).expect("a directory");
        open(&run, 0o755);
        let program = bed.path("settled");
        fs::copy(env!("CARGO_BIN_EXE_settled"), &program).expect("the built program");
        open(&program, 0o755);
        let socket = run.join("control.sock");
        bed.configure_text(&format!(
            "[daemon]\nstate = {:?}\nsocket = {socket:?}\nlog = \"stderr\"\n{keys}\n\
             [watch.w]\npath = {:?}\nrun = [\"true\"]\n",
            bed.path("state"),
            bed.path("in"),
        ));
        Open {
            bed,
            program,
            socket,
        }
    }

    fn start(&self) -> Daemon {
        self.bed.start()
    }

    /// What a user of this group hears.
    fn asks(&self, uid: u32, gid: u32, words: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--socket").arg(&self.socket);
        if nix::unistd::geteuid().is_root() {
            command.uid(uid).gid(gid);
        }
        command.output().expect("the built program")
    }
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("left out: only root can ask as somebody else");
    }
    root
}

#[test]
fn a_user_of_no_group_is_told_that_he_may_not_ask() {
    if !is_root() {
        return;
    }
    let open = Open::new("");
    let _daemon = open.start();
    assert!(open.asks(0, 0, &["status"]).status.success());
    for words in [&["status"][..], &["list"], &["explain", "/etc/passwd"]] {
        let said = open.asks(NOBODY, NOGROUP, words);
        assert_eq!(said.status.code(), Some(77), "{said:?}");
        let why = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            why.contains("may not ask") && why.contains("socket_group"),
            "{why}"
        );
        assert!(said.stdout.is_empty());
    }
}

#[test]
fn members_of_the_socket_group_may_ask() {
    if !is_root() {
        return;
    }
    let open = Open::new(&format!("socket_group = {GROUP}"));
    let _daemon = open.start();
    // By the group that the process has, and by one of its others.
    let said = open.asks(NOBODY, GROUP, &["status"]);
    assert!(said.status.success(), "{said:?}");
    // But not change anything.
    for words in [
        &["pause", "w"][..],
        &["resume", "w"],
        &["rescan"],
        &["reload"],
        &["retry", "/a"],
        &["forget", "/a"],
    ] {
        let said = open.asks(NOBODY, GROUP, words);
        assert_eq!(said.status.code(), Some(77), "{said:?}");
        let why = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(why.contains("only root and the daemon's user"), "{why}");
    }
    assert!(open.asks(0, 0, &["pause", "w"]).status.success());
    let said = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534"])
        .args(["--groups", &format!("7,{GROUP},9")])
        .arg(&open.program)
        .args(["status", "--socket"])
        .arg(&open.socket)
        .output()
        .expect("setpriv, of util-linux");
    assert!(said.status.success(), "{said:?}");
    let said = open.asks(NOBODY, NOGROUP, &["status"]);
    assert_eq!(said.status.code(), Some(77), "{said:?}");
}

#[test]
fn the_group_that_the_state_directory_lets_in_may_ask_what_was_done() {
    if !is_root() {
        return;
    }
    let open = Open::new(&format!("socket_group = {GROUP}"));
    let state = open.bed.path("state");
    fs::create_dir(&state).expect("a directory");
    let group = nix::unistd::Gid::from_raw(GROUP);
    nix::unistd::chown(&state, None, Some(group)).expect("root may");
    // What is made there belongs to its group.
    fs::set_permissions(&state, fs::Permissions::from_mode(0o2750)).expect("its own directory");
    let _daemon = open.start();
    let path = open.bed.inside("a");
    fs::write(&path, "x").expect("a file");
    let lists = |uid: u32, gid: u32| open.asks(uid, gid, &["list", "--state", "done"]);
    crate::bed::until("a job that is done, as a member sees it", || {
        let said = lists(NOBODY, GROUP);
        assert!(said.status.success(), "{said:?}");
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        text.contains(&format!("{}: done", path.display()))
    });
    let said = open.asks(NOBODY, GROUP, &["explain", &path.display().to_string()]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.status.success() && text.contains("exit status 0"),
        "{said:?}"
    );
    // Nobody of it can hold the lock that keeps a second daemon out.
    let lock = fs::metadata(state.join("lock")).expect("a lock");
    assert_eq!(lock.permissions().mode() & 0o077, 0);
}

#[test]
fn a_name_that_is_taken_is_said_and_files_are_served_all_the_same() {
    let open = Open::new("");
    fs::write(&open.socket, "not a socket").expect("a file");
    let mut daemon = open.start();
    daemon.wait_log("the control socket cannot be had");
    // A reload finds the place free.
    fs::remove_file(&open.socket).expect("the file");
    daemon.signal(libc::SIGHUP);
    daemon.wait_log("reloaded");
    let said = open.asks(nix::unistd::geteuid().as_raw(), 0, &["status"]);
    assert!(said.status.success(), "{said:?}");
    assert_eq!(daemon.stop(), Some(0));
}
