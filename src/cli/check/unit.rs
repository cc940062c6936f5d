//! What a systemd unit's sandbox keeps from the daemon, as far as the unit's text says: systemd.exec(5), "Sandboxing" and
//! "Paths". What users and groups may do is not asked.

use super::{real, shown};
use crate::config::{below, fixed_dir};
use crate::core::template::Template;
use crate::plan::{Action, Disposition, Plan, WatchPlan};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where units are looked for, the first counts.
const PLACES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What may be done below a path, worst first: of two that are said of the same path the worse one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum May {
    /// It is not there.
    Nothing,
    /// Another directory is there, and empty.
    Other,
    Read,
    Write,
}

#[derive(Clone, Debug)]
struct Rule {
    path: Vec<u8>,
    may: May,
    /// The line that says so.
    by: String,
}

/// A unit's rules about paths.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    name: String,
    rules: Vec<Rule>,
}

impl Unit {
    /// Reads a unit: a file, if the name has a slash, with the drop-ins beside it, or what systemd would load.
    ///
    /// # Errors
    /// What reading the unit or a drop-in gives; NotFound where there is no such unit.
    pub(crate) fn load(name: &str) -> io::Result<Unit> {
        let (file, drop_ins) = match name.contains('/') {
            true => (
                PathBuf::from(name),
                drop_ins(&[PathBuf::from(format!("{name}.d"))])?,
            ),
            false => installed(name)?,
        };
        let mut settings = Settings::default();
        for path in std::iter::once(&file).chain(&drop_ins) {
            let text = fs::read(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            settings.read(&String::from_utf8_lossy(&text));
        }
        let short = Path::new(name).file_name().unwrap_or_default();
        Ok(Unit {
            name: short.to_string_lossy().into_owned(),
            rules: settings.rules(instance(Path::new(name))),
        })
    }

    /// What of a watch's paths the unit cannot reach or write, and what to do about it.
    pub(super) fn warnings(&self, watch: &WatchPlan) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut need = |key: &str, path: &[u8], may: May| {
            let warning = self.refuses(path, may).map(|why| format!("{key}: {why}"));
            warnings.extend(warning.filter(|warning| !warnings.contains(warning)));
        };
        let leaves = |disposition: &Disposition| *disposition != Disposition::Keep;
        let taken = leaves(&watch.done) || leaves(&watch.dead) || watch.claim.is_some();
        need(
            "path",
            &watch.path,
            if taken { May::Write } else { May::Read },
        );
        for (key, disposition) in [("done", &watch.done), ("dead", &watch.dead)] {
            if let Disposition::Move { to, .. } = disposition {
                need(key, &fixed_dir(to), May::Write);
            }
        }
        if let Action::Deliver(deliver) = &watch.action {
            need("deliver.to", &fixed_dir(&deliver.to), May::Write);
        }
        if let Some(claim) = watch.claim.as_ref().filter(|claim| claim.marks) {
            need("claim_done", &claim.dir, May::Write);
        }
        if let Some(output) = &watch.output {
            need("output", output, May::Write);
        }
        if let Some(cwd) = &watch.cwd {
            need("cwd", cwd, May::Read);
        }
        let program = watch.argv().first().filter(|program| program.is_fixed());
        if let Some(program) = program.map(Template::fixed_prefix)
            && program.starts_with('/')
        {
            let key = match watch.action {
                Action::Worker(_) => "worker",
                _ => "run",
            };
            need(key, program.as_bytes(), May::Read);
        }
        warnings
    }

    /// As [`Unit::warnings`], of what belongs to no watch.
    pub(super) fn daemon_warnings(&self, plan: &Plan) -> Vec<String> {
        // A file that is made beside its name, or bound to it, needs the directory.
        let dir = |path: &Path| path.parent().unwrap_or(Path::new("/")).to_owned();
        let daemon = &plan.daemon;
        let mut paths = vec![
            ("state", daemon.state.clone(), May::Write),
            ("socket", dir(&daemon.socket), May::Write),
        ];
        if let Some(file) = &daemon.metrics_textfile {
            paths.push(("metrics_textfile", dir(file), May::Write));
        }
        let program = plan.alert.as_ref().and_then(|alert| alert.run.first());
        if let Some(program) = program.filter(|program| program.first() == Some(&b'/')) {
            let program = PathBuf::from(OsStr::from_bytes(program));
            paths.push(("[alert] run", program, May::Read));
        }
        let refused = paths.into_iter().filter_map(|(key, path, may)| {
            let why = self.refuses(path.as_os_str().as_bytes(), may)?;
            Some(format!("{key}: {why}"))
        });
        refused.collect()
    }

    fn refuses(&self, path: &[u8], wanted: May) -> Option<String> {
        let real = real(Path::new(OsStr::from_bytes(path)));
        let real = real.as_os_str().as_bytes();
        let holding = |rule: &&Rule| below(real, &rule.path).is_some();
        // What hides a directory hides everything in it, whatever else is said of that.
        let mut all = self.rules.iter().filter(holding);
        let rule = all.rfind(|rule| rule.may == May::Nothing).or_else(|| {
            let nearest = |rule: &&Rule| (rule.path.len(), std::cmp::Reverse(rule.may));
            self.rules.iter().filter(holding).max_by_key(nearest)
        })?;
        if rule.may >= wanted {
            return None;
        }
        let (path, unit, by) = (shown(path), &self.name, &rule.by);
        Some(match rule.may {
            May::Nothing => format!("{path} is hidden from {unit} by {by}"),
            May::Other => format!("{path} is not what {unit} has there, because of {by}"),
            _ => format!(
                "{path} cannot be written by {unit} because of {by}; `systemctl edit {unit}`: ReadWritePaths={path}"
            ),
        })
    }
}

/// `alice` of `settled@alice.service`.
fn instance(name: &Path) -> Option<&str> {
    let (_, rest) = name.file_name()?.to_str()?.split_once('@')?;
    let (instance, _) = rest.rsplit_once('.')?;
    Some(instance).filter(|instance| !instance.is_empty())
}

/// The file of an installed unit, and its drop-ins in their order.
fn installed(name: &str) -> io::Result<(PathBuf, Vec<PathBuf>)> {
    let mut names = vec![name.to_owned()];
    if let Some((template, instance)) = name.split_once('@')
        && let Some((_, kind)) = instance.rsplit_once('.')
    {
        names.push(format!("{template}@.{kind}"));
    }
    let in_places = |name: &str| PLACES.map(|place| Path::new(place).join(name));
    let all: Vec<PathBuf> = names.iter().flat_map(|name| in_places(name)).collect();
    let file = all.into_iter().find(|path| path.is_file());
    let file = file.ok_or_else(|| {
        let text = format!("there is no unit {name} in {}", PLACES.join(", "));
        io::Error::new(io::ErrorKind::NotFound, text)
    })?;
    let dirs: Vec<PathBuf> = PLACES
        .iter()
        .flat_map(|place| names.iter().map(move |name| (place, name)))
        .map(|(place, name)| Path::new(place).join(format!("{name}.d")))
        .collect();
    Ok((file, drop_ins(&dirs)?))
}

/// By their names; of two with one name the one that is found first.
fn drop_ins(dirs: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    for dir in dirs {
        let entries = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|suffix| suffix == "conf")
                && let Some(name) = path.file_name().map(OsStr::to_owned)
            {
                found.entry(name).or_insert(path);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The lines that are about paths: the last one of a kind counts, or all of them where it is a list.
#[derive(Debug, Default)]
struct Settings {
    single: BTreeMap<&'static str, String>,
    lists: BTreeMap<&'static str, Vec<String>>,
}

const SINGLE: [&str; 3] = ["ProtectSystem", "ProtectHome", "PrivateTmp"];
const LISTS: [(&str, May, &str); 8] = [
    ("ReadWritePaths", May::Write, ""),
    ("BindPaths", May::Write, ""),
    ("ReadOnlyPaths", May::Read, ""),
    ("InaccessiblePaths", May::Nothing, ""),
    ("StateDirectory", May::Write, "/var/lib/"),
    ("RuntimeDirectory", May::Write, "/run/"),
    ("LogsDirectory", May::Write, "/var/log/"),
    ("CacheDirectory", May::Write, "/var/cache/"),
];

impl Settings {
    fn read(&mut self, text: &str) {
        let mut section = "";
        let joined = text.replace("\\\n", " ");
        for line in joined.lines().map(str::trim) {
            if line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
                continue;
            }
            let Some((key, value)) = line.split_once('=').filter(|_| section == "Service") else {
                continue;
            };
            let (key, value) = (key.trim(), value.trim());
            if let Some(key) = SINGLE.into_iter().find(|name| *name == key) {
                self.single.insert(key, value.to_owned());
            }
            if let Some((key, ..)) = LISTS.into_iter().find(|(name, ..)| *name == key) {
                let list = self.lists.entry(key).or_default();
                if value.is_empty() {
                    list.clear();
                }
                let words = value.split_whitespace().map(|word| word.trim_matches('"'));
                list.extend(words.map(str::to_owned));
            }
        }
    }

    /// `instance`: what `%i` stands for.
    fn rules(&self, instance: Option<&str>) -> Vec<Rule> {
        let mut rules = Vec::new();
        let mut add = |paths: &[&str], may: May, by: String| {
            rules.extend(paths.iter().map(|path| Rule {
                path: real(Path::new(path)).as_os_str().as_bytes().to_vec(),
                may,
                by: by.clone(),
            }));
        };
        for (key, value) in &self.single {
            let by = format!("{key}={value}");
            let on = matches!(value.as_str(), "yes" | "true" | "1" | "on");
            match (*key, value.as_str()) {
                ("ProtectSystem", "strict") => {
                    add(&["/"], May::Read, by.clone());
                    add(&["/dev", "/proc", "/sys"], May::Write, by);
                }
                ("ProtectSystem", "full") => add(&["/usr", "/boot", "/efi", "/etc"], May::Read, by),
                ("ProtectSystem", _) if on => add(&["/usr", "/boot", "/efi"], May::Read, by),
                ("ProtectHome", "read-only") => {
                    add(&["/home", "/root", "/run/user"], May::Read, by)
                }
                ("ProtectHome", "tmpfs") => add(&["/home", "/root", "/run/user"], May::Other, by),
                ("ProtectHome", _) if on => add(&["/home", "/root", "/run/user"], May::Nothing, by),
                ("PrivateTmp", _) if on => add(&["/tmp", "/var/tmp"], May::Other, by),
                _ => {}
            }
        }
        for (key, may, before) in LISTS {
            for word in self.lists.get(key).into_iter().flatten() {
                let word = match instance {
                    Some(instance) => &word.replace("%i", instance),
                    None => word,
                };
                let name = word.trim_start_matches(['-', '+']);
                // SOURCE:DESTINATION:OPTIONS of BindPaths=, PATH:LINK of directories.
                let part = match (key, name.split(':').nth(1)) {
                    ("BindPaths", Some(to)) => to,
                    _ => name.split(':').next().unwrap_or(name),
                };
                // Only the manager knows what another specifier stands for.
                if !part.contains('%') {
                    add(&[&format!("{before}{part}")], may, format!("{key}={word}"));
                }
            }
        }
        rules
    }
}
