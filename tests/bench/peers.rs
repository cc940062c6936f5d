//! The peers, and how each is started. All get the same handler, and at most four of them at once where the peer
//! can do that: `inotifywait | while read` runs one at a time, incron has no limit.

use crate::Res;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who takes part; what `--peers` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// The program.
    Settled,
    /// The bare loop.
    RawSpawn,
    /// `inotifywait | while read`.
    InotifywaitSh,
    /// `inotifywait | xargs -P 4`.
    InotifywaitXargs,
    /// incrond with private tables.
    Incron,
}

/// In the order of the tables.
pub(crate) const FAMILIES: [Family; 5] = [
    Family::RawSpawn,
    Family::Settled,
    Family::InotifywaitSh,
    Family::InotifywaitXargs,
    Family::Incron,
];

impl Family {
    /// As in `--peers` and in the tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Settled => "settled",
            Family::RawSpawn => "raw-spawn",
            Family::InotifywaitSh => "inotifywait-sh",
            Family::InotifywaitXargs => "inotifywait-xargs",
            Family::Incron => "incron",
        }
    }

    /// The program it needs and the Debian package that has it.
    fn needs(self) -> Option<(&'static str, &'static str)> {
        match self {
            Family::Settled | Family::RawSpawn => None,
            Family::InotifywaitSh | Family::InotifywaitXargs => {
                Some(("inotifywait", "inotify-tools"))
            }
            Family::Incron => Some(("incrond", "incron")),
        }
    }
}

/// A peer as one load runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The row's name.
    pub(crate) name: &'static str,
    /// Whose way of starting.
    pub(crate) family: Family,
    /// `--settle`; `None` leaves the program its default.
    pub(crate) settle: Option<&'static str>,
    /// State on /dev/shm instead of the disk.
    pub(crate) state_in_memory: bool,
}

impl Peer {
    /// The plain one of a family: the program with `--settle 0` and its state on disk.
    pub(crate) fn plain(family: Family) -> Peer {
        Peer {
            name: family.name(),
            family,
            settle: Some("0"),
            state_in_memory: false,
        }
    }
}

/// What a peer is to do.
pub(crate) struct Task<'a> {
    /// The tree to watch.
    pub(crate) root: &'a Path,
    /// Directories below it too.
    pub(crate) recursive: bool,
    /// Directories that come later too.
    pub(crate) follow: bool,
    /// Where the peer may keep configuration.
    pub(crate) work: &'a Path,
    /// The program's state directory.
    pub(crate) state: &'a Path,
    /// The handler.
    pub(crate) handler: &'a Path,
    /// Its first argument.
    pub(crate) results: &'a Path,
    /// The program under test.
    pub(crate) settled: &'a Path,
}

/// The command line that runs the peer in the foreground.
pub(crate) fn command(peer: &Peer, task: &Task<'_>) -> Res<Vec<OsString>> {
    let mut line: Vec<OsString> = Vec::new();
    let mut add = |words: &[&dyn AsRef<OsStr>]| {
        line.extend(words.iter().map(|word| word.as_ref().to_os_string()))
    };
    match peer.family {
        Family::RawSpawn => {
            add(&[
                &std::env::current_exe()?,
                &"__raw-spawn",
                &task.root,
                &task.handler,
                &task.results,
            ]);
        }
        Family::Settled => {
            add(&[&task.settled, &"watch", &task.root]);
            if task.recursive {
                add(&[&"-r"]);
            }
            if let Some(settle) = peer.settle {
                add(&[&"--settle", &settle]);
            }
            add(&[
                &"--state",
                &task.state,
                &"--concurrency",
                &"4",
                &"--existing",
                &"run",
            ]);
            add(&[&"--", &task.handler, &task.results, &"{path}"]);
        }
        Family::InotifywaitSh | Family::InotifywaitXargs => {
            // Names with a newline would break both pipelines; the loads have none.
            let recursive = if task.recursive { "-r" } else { "" };
            let wait = format!(
                "inotifywait -m -q {recursive} -e close_write -e moved_to --exclude '/\\.[^/]*$' --format '%w%f' \"$1\""
            );
            let consume = match peer.family {
                Family::InotifywaitSh => "while IFS= read -r f; do \"$2\" \"$3\" \"$f\"; done",
                _ => "xargs -d '\\n' -n 1 -P 4 \"$2\" \"$3\"",
            };
            let script = format!("{wait} | {consume}");
            add(&[
                &"/bin/sh",
                &"-c",
                &script,
                &"sh",
                &task.root,
                &task.handler,
                &task.results,
            ]);
        }
        Family::Incron => {
            let config = incron_files(task)?;
            add(&[&find("incrond").ok_or("no incrond")?, &"-n", &"-f", &config]);
        }
    }
    Ok(line)
}

/// A configuration under which incrond reads and writes nothing of the system's.
fn incron_files(task: &Task<'_>) -> Res<PathBuf> {
    let at = |name: &str| task.work.join(name);
    for directory in ["incron.d", "incron.users", "incron.run"] {
        fs::create_dir_all(at(directory))?;
    }
    // After SIGKILL it would take its own old lock for another instance.
    match fs::remove_file(at("incron.run/incrond.pid")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    fs::write(at("incron.allow"), b"")?;
    fs::write(at("incron.deny"), b"")?;
    // It follows new directories only with IN_CREATE in the mask.
    let mask = match (task.follow, task.recursive) {
        (true, _) => "IN_CLOSE_WRITE,IN_MOVED_TO,IN_CREATE",
        (false, true) => "IN_CLOSE_WRITE,IN_MOVED_TO",
        (false, false) => "IN_CLOSE_WRITE,IN_MOVED_TO,recursive=false",
    };
    let mut table = Vec::new();
    for part in [
        task.root.as_os_str(),
        mask.as_ref(),
        task.handler.as_os_str(),
        task.results.as_os_str(),
    ] {
        if part
            .as_bytes()
            .iter()
            .any(|byte| byte.is_ascii_whitespace())
        {
            return Err("incron cannot have white space in the directory's name".into());
        }
        table.extend_from_slice(part.as_bytes());
        table.push(b' ');
    }
    table.extend_from_slice(b"$@/$#\n");
    fs::write(at("incron.d/bench"), table)?;
    let config = at("incron.conf");
    let mut text = String::new();
    for (key, file) in [
        ("system_table_dir", "incron.d"),
        ("user_table_dir", "incron.users"),
        ("allowed_users", "incron.allow"),
        ("denied_users", "incron.deny"),
        ("lockfile_dir", "incron.run"),
    ] {
        text.push_str(&format!("{key} = {}\n", at(file).display()));
    }
    text.push_str("lockfile_name = incrond\n");
    fs::write(&config, text)?;
    Ok(config)
}

/// Whether the family can take part: its program is there, or was installed now. The error is the reason.
pub(crate) fn provide(family: Family, install: bool) -> Result<(), String> {
    let Some((program, package)) = family.needs() else {
        return Ok(());
    };
    if family == Family::Incron && !nix::unistd::geteuid().is_root() {
        return Err("incrond takes a private configuration from root only".into());
    }
    if find(program).is_some() {
        return Ok(());
    }
    if !install {
        return Err(format!(
            "{program} is not installed, and --no-install was given"
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(format!(
            "{program} is not installed (package {package}); only root can install it"
        ));
    }
    eprintln!("installing {package}");
    let apt = |words: &[&str]| {
        Command::new("apt-get")
            .args(words)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .output()
            .is_ok_and(|it| it.status.success())
    };
    let install = ["install", "-y", "--no-install-recommends", package];
    let installed = apt(&install) || (apt(&["update"]) && apt(&install));
    if !installed {
        return Err(format!("apt-get could not install {package}"));
    }
    find(program)
        .map(|_| ())
        .ok_or_else(|| format!("{package} was installed but has no {program}"))
}

/// The installed version, for the head of the report.
pub(crate) fn version(family: Family) -> Option<String> {
    let (_, package) = family.needs()?;
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Package} ${Version}", package])
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places =
        std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    places
        .map(|place| place.join(program))
        .find(|file| file.is_file())
}
