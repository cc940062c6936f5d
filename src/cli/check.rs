//! What `settled check` prints: how a plan is understood, and what looks wrong on this machine.
//! The only place outside a scout that looks at users' paths, and never part of the daemon.

mod exported;
mod unit;
mod work;

pub(super) use unit::Unit;

use crate::config::{
    below, fixed_dir, limit_is_above_own, show_duration, show_ionice, show_limit, show_size,
};
use crate::core::QUIET_EXPORTED;
use crate::core::expect_words;
use crate::core::select::Pattern;
use crate::core::template::Template;
use crate::exports::{self, Tables};
use crate::plan::{Action, Disposition, Existing, Observe, OnChange, OnCtime, Plan, WatchPlan};
use exported::Exported;
use nix::unistd::{AccessFlags, access, geteuid};
use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the mount table says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// Filesystem type.
    pub fstype: String,
    /// It may have writers that inotify cannot see.
    pub remote_writers: bool,
    /// For how long it may show old attributes, in seconds.
    pub attribute_cache_s: u32,
}

/// The whole report, one line for each fact; warnings begin with `warning:`.
pub(super) fn describe(
    plan: &Plan,
    filesystem: &dyn Fn(&[u8]) -> Option<Filesystem>,
    tables: &Tables,
    unit: Option<&Unit>,
) -> String {
    let mut out = String::new();
    let daemon = &plan.daemon;
    line(
        &mut out,
        "state",
        format!(
            "{}; socket {}; log {:?} at {:?}; {} at once; gone files remembered {}; drain {}",
            daemon.state.display(),
            daemon.socket.display(),
            daemon.log,
            daemon.log_level,
            daemon.concurrency,
            show_duration(daemon.remember),
            show_duration(daemon.drain)
        ),
    );
    if let Some(alert) = &plan.alert {
        let words = alert.run.iter().map(|word| String::from_utf8_lossy(word));
        let text = words.collect::<Vec<_>>().join(" ");
        let again = show_duration(alert.every);
        line(&mut out, "alert", format!("{text}; again after {again}"));
    }
    for warning in unit.iter().flat_map(|unit| unit.daemon_warnings(plan)) {
        line(&mut out, "warning", warning);
    }
    let exports = exports::survey(tables).trees;
    for watch in &plan.watches {
        let _ = writeln!(out, "watch {}", watch.name);
        let root = real(Path::new(OsStr::from_bytes(&watch.path)));
        let exported = exported::find(watch, root.as_os_str().as_bytes(), &exports);
        describe_watch(&mut out, watch, filesystem(&watch.path).as_ref(), &exported);
        exported::warn(&mut out, watch, &exported);
        let sandbox = unit.iter().flat_map(|unit| unit.warnings(watch));
        for warning in warnings(plan, watch).into_iter().chain(sandbox) {
            line(&mut out, "warning", warning);
        }
    }
    out
}

/// One fact, escaped: paths are anybody's text.
fn line(out: &mut String, what: &str, text: impl AsRef<str>) {
    let indent = if what == "state" || what == "alert" {
        ""
    } else {
        "  "
    };
    let mut escaped = String::new();
    for c in text.as_ref().chars() {
        if c.is_control() {
            escaped.extend(c.escape_debug());
        } else {
            escaped.push(c);
        }
    }
    let what = format!("{what}:");
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{indent}{what:<10} {escaped}");
}

fn describe_watch(
    out: &mut String,
    watch: &WatchPlan,
    filesystem: Option<&Filesystem>,
    exported: &Exported,
) {
    let depth = if watch.recursive {
        "and all directories below"
    } else {
        "without the directories below"
    };
    line(out, "path", format!("{} {depth}", shown(&watch.path)));
    line(out, "observe", observed(watch, filesystem));
    line(out, "select", selected(watch));
    line(out, "settle", settled(watch, filesystem, exported));
    exported::describe(out, exported);
    for rel in &watch.excluded {
        let mut path = watch.path.clone();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(rel);
        line(out, "left out", format!("{} (settled's own)", shown(&path)));
    }
    work::describe(out, watch);
    if let Some(expect) = &watch.expect {
        line(out, "expect", expect_words(expect));
    }
    line(out, "done", disposition(&watch.done));
    line(out, "dead", disposition(&watch.dead));
}

fn observed(watch: &WatchPlan, filesystem: Option<&Filesystem>) -> String {
    let poll = show_duration(watch.poll);
    let how = match (watch.observe, filesystem) {
        (Observe::Inotify, _) => "inotify".into(),
        (Observe::Poll, _) => format!("listed every {poll}"),
        (Observe::Both, _) => format!("inotify, and listed every {poll}"),
        (Observe::Auto, Some(fs)) if fs.remote_writers => {
            format!("auto: inotify, and listed every {poll}")
        }
        (Observe::Auto, Some(_)) => "auto: inotify".into(),
        (Observe::Auto, None) => {
            format!(
                "auto: inotify, and listed every {poll} where a filesystem has writers that inotify cannot see"
            )
        }
    };
    let on = filesystem.map_or_else(String::new, |fs| format!(" (on {})", fs.fstype));
    let existing = match watch.existing {
        Existing::Run => "",
        Existing::Skip => "; files there at the first start are left",
    };
    format!("{how}{on}{existing}")
}

fn selected(watch: &WatchPlan) -> String {
    let select = &watch.select;
    let list = |patterns: &[Pattern]| {
        let texts: Vec<&str> = patterns.iter().map(Pattern::text).collect();
        texts.join(" ")
    };
    let mut text = if select.include().is_empty() {
        "every name".into()
    } else {
        list(select.include())
    };
    if !select.exclude().is_empty() {
        let _ = write!(text, ", not {}", list(select.exclude()));
    }
    text.push_str(if select.built_in() {
        ", not names used while writing"
    } else {
        ", names used while writing too"
    });
    for (limit, words) in [(select.min_size, "at least"), (select.max_size, "at most")] {
        if let Some(bytes) = limit {
            let _ = write!(text, ", {words} {}", show_size(bytes));
        }
    }
    for (limit, words) in [
        (select.min_age, "changed at least"),
        (select.ignore_older, "changed at most"),
    ] {
        if let Some(age) = limit {
            let _ = write!(text, ", {words} {} ago", show_duration(age));
        }
    }
    text
}

fn settled(watch: &WatchPlan, filesystem: Option<&Filesystem>, exported: &Exported) -> String {
    let cache = filesystem.map_or(0, |fs| fs.attribute_cache_s);
    let cache = Duration::from_secs(cache.into());
    let mut text = match watch.settle {
        Some(quiet) if quiet.is_zero() => "at once when no writer has the file open".into(),
        Some(quiet) => format!("{} without a change, and no writer", show_duration(quiet)),
        None if exported.is_exported() => format!(
            "{} without a change after no writer was seen",
            show_duration(QUIET_EXPORTED)
        ),
        None => "1s without a change where the kernel tells of writers (at once after a rename or link); where it cannot, 5s or the mount's attribute cache time".to_owned(),
    };
    if watch.settle.is_some_and(|quiet| quiet < cache) {
        let _ = write!(
            text,
            "; raised to {}, for which the mount may show old attributes",
            show_duration(cache)
        );
    }
    if watch.flock {
        text.push_str("; flock asked too");
    }
    if watch.on_ctime == OnCtime::Run {
        text.push_str("; a moved ctime is a new arrival");
    }
    if watch.on_change == OnChange::Accept {
        text.push_str("; its own job may change it");
    }
    text
}

fn disposition(disposition: &Disposition) -> String {
    match disposition {
        Disposition::Keep => "keep".into(),
        Disposition::Delete => "delete".into(),
        Disposition::Move { to, flatten: false } => {
            format!("move to {}, with the path below the root", to.text())
        }
        Disposition::Move { to, flatten: true } => format!("move to {}, name only", to.text()),
    }
}

/// An argument so that its limits can be seen.
fn argument(template: &Template) -> String {
    let text = template.text();
    let plain = |c: char| c.is_alphanumeric() || "-_./{}|=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// What will not work on this machine as it is now.
fn warnings(plan: &Plan, watch: &WatchPlan) -> Vec<String> {
    let mut warnings = Vec::new();
    let root = Path::new(OsStr::from_bytes(&watch.path));
    match root.metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => warnings.push(format!("path: {} is not a directory", root.display())),
        Err(error) => warnings.push(format!("path: {}: {error}; it is awaited", root.display())),
    }
    if let Some(cwd) = &watch.cwd {
        let cwd = Path::new(OsStr::from_bytes(cwd));
        if !cwd.is_dir() {
            warnings.push(format!("cwd: {} is not a directory", cwd.display()));
        }
    }
    if let Some(what) = watch.argv().first().and_then(program_missing) {
        let key = match watch.action {
            Action::Worker(_) => "worker",
            _ => "run",
        };
        warnings.push(format!("{key}: {what}"));
    }
    if let Some(dir) = watch.output.as_deref().and_then(directory_missing) {
        warnings.push(format!("output: {dir}"));
    }
    warnings.extend(claims_fail(watch));
    privileges(watch, &mut warnings);
    let real_root = real(root);
    for other in &plan.watches {
        for to in work::targets(other) {
            let fixed = fixed_dir(to);
            let real_target = real(Path::new(OsStr::from_bytes(&fixed)));
            let seen = below(
                real_target.as_os_str().as_bytes(),
                real_root.as_os_str().as_bytes(),
            );
            let known = below(&fixed, &watch.path).is_some();
            if to.fixed_prefix().len() > 1 && seen.is_some() && !known && watch.recursive {
                warnings.push(format!(
                    "{} leads into this watch through a symbolic link, and is not left out; write paths without links",
                    shown(&fixed)
                ));
            }
        }
        let Some(file) = &other.output else {
            continue;
        };
        let real_file = real(Path::new(OsStr::from_bytes(file)));
        let real_file = real_file.as_os_str().as_bytes();
        let seen = below(real_file, real_root.as_os_str().as_bytes()).is_some();
        if seen && below(file, &watch.path).is_none() {
            warnings.push(format!(
                "output: {} is in this watch behind a symbolic link, and is not left out; write paths without links",
                shown(file)
            ));
        }
    }
    warnings
}

/// Why no file of the watch could be claimed, as far as can be seen from here.
fn claims_fail(watch: &WatchPlan) -> Option<String> {
    let claim = watch.claim.as_ref()?;
    let (key, dir) = match claim.marks {
        true => ("claim_done", &claim.dir),
        false => ("claim", &watch.path),
    };
    let path = Path::new(OsStr::from_bytes(dir));
    let why = match path.metadata() {
        Ok(meta) if meta.is_dir() => {
            crate::mounts::local_locks_at(real(path).as_os_str().as_bytes())?
        }
        Ok(_) => "it is not a directory".into(),
        // Of the root that is said already.
        Err(_) if !claim.marks => return None,
        Err(error) => error.to_string(),
    };
    Some(format!("{key}: {}: {why}; nothing is run", path.display()))
}

/// What only a privileged daemon can do, if this one, asked as this user, is none.
fn privileges(watch: &WatchPlan, warnings: &mut Vec<String>) {
    if geteuid().is_root() {
        return;
    }
    let process = &watch.process;
    if process.nice.is_some_and(|nice| nice < 0) {
        warnings
            .push("nice: below 0 needs root, CAP_SYS_NICE or an RLIMIT_NICE that allows it".into());
    }
    if process
        .ionice
        .is_some_and(|io| show_ionice(io).starts_with("realtime"))
    {
        warnings.push("ionice: realtime needs root or CAP_SYS_NICE".into());
    }
    for limit in &process.limits {
        if limit_is_above_own(*limit) {
            warnings.push(format!(
                "limits: {} is above the hard limit of this process, and needs root or CAP_SYS_RESOURCE",
                show_limit(*limit)
            ));
        }
    }
    if let Action::Deliver(deliver) = &watch.action
        && deliver.owner.0.is_some_and(|uid| uid != geteuid().as_raw())
    {
        warnings.push("deliver.owner: to give files away needs root or CAP_CHOWN".into());
    }
}

/// Why no file can be made there, as far as can be seen from here.
fn directory_missing(file: &[u8]) -> Option<String> {
    let file = Path::new(OsStr::from_bytes(file));
    if file.is_dir() {
        return Some(format!("{} is a directory", file.display()));
    }
    let dir = file.parent()?;
    match dir.metadata() {
        Ok(meta) if meta.is_dir() => None,
        Ok(_) => Some(format!("{} is not a directory", dir.display())),
        Err(error) => Some(format!("{}: {error}", dir.display())),
    }
}

/// Why the program cannot be started, as far as can be seen from here.
fn program_missing(template: &Template) -> Option<String> {
    if !template.is_fixed() {
        return None;
    }
    let program = template.fixed_prefix();
    let runs = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK).is_ok();
    if program.contains('/') {
        let path = Path::new(program);
        if runs(path) {
            return None;
        }
        return Some(match path.metadata() {
            Ok(_) => format!("{program} cannot be executed"),
            Err(error) => format!("{program}: {error}"),
        });
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search).any(|dir| runs(&dir.join(program)));
    (!found).then(|| format!("{program} is not found in PATH"))
}

/// The path with its symbolic links resolved, as far as it exists.
fn real(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|there| {
            let rest = path.strip_prefix(there).ok()?;
            // Component by component: joining an empty rest would add a slash.
            Some(
                there
                    .canonicalize()
                    .ok()?
                    .components()
                    .chain(rest.components())
                    .collect(),
            )
        })
        .unwrap_or_else(|| path.to_path_buf())
}
