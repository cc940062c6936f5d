//! How processes are set up: as whom, with which limits.

use super::Notes;
use crate::config::error::{At, Spot};
use crate::config::read::{Reader, Value, is_a};
use crate::config::units;
use crate::plan::Identity;
use nix::sys::resource::Resource;
use nix::unistd::{Gid, Group, Uid, User, geteuid, getgrouplist};
use std::ffi::CString;
use std::time::Duration;
use toml::de::DeValue;

/// `user` as it was found.
#[derive(Clone, Debug)]
pub(crate) struct RawUser {
    pub(super) uid: u32,
    /// Its group; `None` for a number that the user database does not have.
    gid: Option<u32>,
    name: String,
    home: String,
}

/// Largest id: the one above it means "leave as it is" to chown(2) and setresuid(2).
const LARGEST_ID: u32 = u32::MAX - 1;

pub(super) fn user(reader: &mut Reader, key: &str, value: &Value) -> Option<At<RawUser>> {
    let parsed = match who(reader, key, value)? {
        Who::Name(name) => found_user(name),
        Who::Number(uid) => match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => known(user),
            Ok(None) => Ok(RawUser {
                uid,
                gid: None,
                name: String::new(),
                home: String::new(),
            }),
            Err(error) => Err(unanswered("user", &error)),
        },
    };
    reader.checked(key, value, parsed)
}

pub(in crate::config) fn group(reader: &mut Reader, key: &str, value: &Value) -> Option<At<u32>> {
    let parsed = match who(reader, key, value)? {
        Who::Name(name) => found_group(name),
        Who::Number(gid) => Ok(gid),
    };
    reader.checked(key, value, parsed)
}

enum Who<'v> {
    Name(&'v str),
    Number(u32),
}

/// Only root can become others. A command that runs as another than the one asked for is worse than none.
fn who<'v>(reader: &mut Reader, key: &str, value: &'v Value) -> Option<Who<'v>> {
    let who = match value.get_ref() {
        DeValue::String(name) => Who::Name(name),
        DeValue::Integer(_) => Who::Number(reader.number(key, value, 0, LARGEST_ID)?.value),
        other => {
            let what = format!("{}; write a name in quotes, or a number", is_a(other));
            reader.wrong(key, value, what);
            return None;
        }
    };
    if !geteuid().is_root() {
        let what = "only root can run commands as others; start settled as root, or start it as that user and remove the key";
        reader.wrong(key, value, what);
        return None;
    }
    Some(who)
}

fn found_user(name: &str) -> Result<RawUser, String> {
    match User::from_name(name) {
        Ok(Some(user)) => known(user),
        Ok(None) => Err(nobody("user", name)),
        Err(error) => Err(unanswered("user", &error)),
    }
}

fn known(user: User) -> Result<RawUser, String> {
    let home = user.dir.into_os_string().into_string();
    Ok(RawUser {
        uid: user.uid.as_raw(),
        gid: Some(user.gid.as_raw()),
        home: home.map_err(|home| {
            format!(
                "the home directory {home:?} of user {} is not UTF-8; give the user another",
                user.name
            )
        })?,
        name: user.name,
    })
}

fn found_group(name: &str) -> Result<u32, String> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(nobody("group", name)),
        Err(error) => Err(unanswered("group", &error)),
    }
}

fn nobody(what: &str, name: &str) -> String {
    let number = if name.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() {
        "; a number is written without quotes"
    } else {
        "; name one that `getent` finds"
    };
    format!("there is no {what} {name:?}{number}")
}

fn unanswered(what: &str, error: &nix::Error) -> String {
    format!("the {what} database cannot be asked: {error}; see nsswitch.conf(5)")
}

/// A name, or a number in its place, as chown(1) takes them.
pub(super) fn user_id(text: &str) -> Result<u32, String> {
    number_or(text, || found_user(text).map(|user| user.uid))
}

/// The same for a group.
pub(super) fn group_id(text: &str) -> Result<u32, String> {
    number_or(text, || found_group(text))
}

fn number_or(text: &str, find: impl Fn() -> Result<u32, String>) -> Result<u32, String> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return find();
    }
    // chown(1): a name of digits is a name first.
    find().or_else(|_| {
        text.parse()
            .ok()
            .filter(|id| *id <= LARGEST_ID)
            .ok_or_else(|| format!("{text:?} is out of range; write a number up to {LARGEST_ID}"))
    })
}

/// As whom the processes of a watch run; `None` as the daemon.
pub(super) fn identity(
    user: Option<&At<RawUser>>,
    group: Option<&At<u32>>,
    notes: &mut Notes,
) -> Option<Identity> {
    let Some(user) = user else {
        let gid = group?.value;
        return Some(Identity {
            uid: geteuid().as_raw(),
            gid,
            groups: vec![gid],
            name: String::new(),
            home: String::new(),
        });
    };
    let Some(gid) = group.map(|g| g.value).or(user.value.gid) else {
        let what = "is not in the user database, so that its group is not known; add group";
        notes.add(&user.spot, "user", what);
        return None;
    };
    let groups = match groups_of(&user.value.name, gid) {
        Ok(groups) => groups,
        Err(what) => {
            notes.add(&user.spot, "user", &what);
            return None;
        }
    };
    Some(Identity {
        uid: user.value.uid,
        gid,
        groups,
        name: user.value.name.clone(),
        home: user.value.home.clone(),
    })
}

/// The groups that a login of this user has; only its own where there is no name to look for.
fn groups_of(name: &str, gid: u32) -> Result<Vec<u32>, String> {
    if name.is_empty() {
        return Ok(vec![gid]);
    }
    let text = CString::new(name).map_err(|_| "no name has a NUL byte".to_owned())?;
    let list = getgrouplist(&text, Gid::from_raw(gid)).map_err(|e| unanswered("group", &e))?;
    let mut groups: Vec<u32> = list.into_iter().map(Gid::as_raw).collect();
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// A deliverer that is not root can give its copy only to its own groups.
pub(super) fn can_give(
    owner: (Option<u32>, Option<u32>),
    identity: Option<&Identity>,
    spot: &Spot,
    notes: &mut Notes,
) {
    let Some(identity) = identity.filter(|i| i.uid != 0) else {
        return;
    };
    let user = owner.0.is_none_or(|uid| uid == identity.uid);
    let group = owner
        .1
        .is_none_or(|gid| gid == identity.gid || identity.groups.contains(&gid));
    if !user || !group {
        let what = format!(
            "the copy is made as user {}, who cannot give it to others; remove owner, or user",
            identity.uid
        );
        notes.add(spot, "deliver.owner", &what);
    }
}

/// Permission bits as an octal number in a string.
pub(super) fn octal(
    reader: &mut Reader,
    key: &str,
    value: &Value,
    example: &str,
) -> Option<At<u32>> {
    let parsed = match value.get_ref() {
        DeValue::String(text) => Some(text.as_ref())
            .filter(|t| !t.is_empty() && t.len() <= 4)
            .filter(|t| t.bytes().all(|b| (b'0'..=b'7').contains(&b)))
            .and_then(|t| u32::from_str_radix(t, 8).ok())
            .filter(|bits| *bits <= 0o777)
            .ok_or_else(|| {
                format!("{text:?} is not a set of permission bits; write three octal digits, as in {example}")
            }),
        other => Err(format!(
            "{}; write octal digits in quotes, as in {example}",
            is_a(other)
        )),
    };
    reader.checked(key, value, parsed)
}

/// ioprio_set(2): the class goes above these bits.
const CLASS_SHIFT: u16 = 13;
const IDLE: u16 = 3;
/// Classes that have levels.
const CLASSES: [(&str, u16); 2] = [("realtime", 1), ("best-effort", 2)];

pub(super) fn ionice(reader: &mut Reader, key: &str, value: &Value) -> Option<At<u16>> {
    let text = reader.text(key, value)?;
    reader.checked(key, value, parse_ionice(text))
}

fn parse_ionice(text: &str) -> Result<u16, String> {
    if text == "idle" {
        return Ok(IDLE << CLASS_SHIFT);
    }
    let parsed = text.split_once(':').and_then(|(class, level)| {
        let (_, class) = CLASSES.iter().find(|(name, _)| *name == class)?;
        let level = match level.as_bytes() {
            [digit @ b'0'..=b'7'] => u16::from(digit - b'0'),
            _ => return None,
        };
        Some(class << CLASS_SHIFT | level)
    });
    parsed.ok_or_else(|| {
        format!(
            "{text:?} is no I/O class; write \"idle\", \"best-effort:N\" or \"realtime:N\", with N from 0 (first) to 7 (last)"
        )
    })
}

/// An I/O class as a user would write it.
pub(crate) fn show_ionice(number: u16) -> String {
    let (class, level) = (number >> CLASS_SHIFT, number & 7);
    CLASSES
        .iter()
        .find(|(_, known)| *known == class)
        .map_or_else(|| "idle".into(), |(name, _)| format!("{name}:{level}"))
}

/// What a limit counts.
#[derive(Clone, Copy)]
enum Unit {
    /// Things, at least so many.
    Count(u32),
    Bytes,
    Time,
}

/// The names of `limits`. Fewer descriptors than here and the start itself fails.
const LIMITS: [(&str, Resource, Unit); 10] = [
    ("as", Resource::RLIMIT_AS, Unit::Bytes),
    ("core", Resource::RLIMIT_CORE, Unit::Bytes),
    ("cpu", Resource::RLIMIT_CPU, Unit::Time),
    ("data", Resource::RLIMIT_DATA, Unit::Bytes),
    ("fsize", Resource::RLIMIT_FSIZE, Unit::Bytes),
    ("memlock", Resource::RLIMIT_MEMLOCK, Unit::Bytes),
    ("nofile", Resource::RLIMIT_NOFILE, Unit::Count(16)),
    ("nproc", Resource::RLIMIT_NPROC, Unit::Count(1)),
    ("rss", Resource::RLIMIT_RSS, Unit::Bytes),
    ("stack", Resource::RLIMIT_STACK, Unit::Bytes),
];
/// setrlimit(2): `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

pub(super) fn limits(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Vec<(u32, u64)>>> {
    let mut limits = Vec::new();
    let mut whole = true;
    for (name, value) in reader.table(key, value, "limits = { nofile = 1024, as = \"2GiB\" }")? {
        let text: &str = name.get_ref();
        let Some((_, resource, unit)) = LIMITS.iter().find(|(known, ..)| *known == text) else {
            let names: Vec<&str> = LIMITS.iter().map(|(known, ..)| *known).collect();
            reader.unknown_in(key, name, &names, &[]);
            whole = false;
            continue;
        };
        match limit(reader, &format!("{key}.{text}"), value, *resource, *unit) {
            Some(limit) => limits.push((*resource as u32, limit.value)),
            None => whole = false,
        }
    }
    if whole {
        reader.checked(key, value, Ok(limits))
    } else {
        None
    }
}

fn limit(
    reader: &mut Reader,
    key: &str,
    value: &Value,
    resource: Resource,
    unit: Unit,
) -> Option<At<u64>> {
    if matches!(value.get_ref(), DeValue::String(text) if text == "unlimited") {
        let parsed = if matches!(resource, Resource::RLIMIT_NOFILE) {
            Err("the kernel has no more than sysctl fs.nr_open; write a number".into())
        } else {
            Ok(UNLIMITED)
        };
        return reader.checked(key, value, parsed);
    }
    match unit {
        Unit::Count(least) => reader.number(key, value, u64::from(least), 1 << 30),
        Unit::Bytes => reader.size(key, value),
        Unit::Time => {
            let span = reader.duration(key, value, Duration::from_secs(1))?.value;
            let parsed = if span.subsec_nanos() == 0 {
                Ok(span.as_secs())
            } else {
                Err("processor time is limited in whole seconds; write it so".into())
            };
            reader.checked(key, value, parsed)
        }
    }
}

/// A limit as a user would write it.
pub(crate) fn show_limit(limit: (u32, u64)) -> String {
    let found = LIMITS.iter().find(|(_, known, _)| *known as u32 == limit.0);
    let Some((name, _, unit)) = found else {
        return format!("{} {}", limit.0, limit.1);
    };
    let value = match unit {
        _ if limit.1 == UNLIMITED => "unlimited".into(),
        Unit::Count(_) => limit.1.to_string(),
        Unit::Bytes => units::show_size(limit.1),
        Unit::Time => units::show_duration(Duration::from_secs(limit.1)),
    };
    format!("{name} {value}")
}

/// Whether a limit is above what this process may set without privilege.
pub(crate) fn limit_is_above_own(limit: (u32, u64)) -> bool {
    let found = LIMITS.iter().find(|(_, known, _)| *known as u32 == limit.0);
    found.is_some_and(|(_, resource, _)| {
        nix::sys::resource::getrlimit(*resource).is_ok_and(|(_, hard)| limit.1 > hard)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn io_classes_both_ways() {
        // ioprio_set(2): IOPRIO_CLASS_RT 1, IOPRIO_CLASS_BE 2, IOPRIO_CLASS_IDLE 3, shifted by 13.
        for (text, number) in [
            ("realtime:0", 0x2000),
            ("best-effort:7", 0x4007),
            ("idle", 0x6000),
        ] {
            assert_eq!(parse_ionice(text), Ok(number), "{text}");
            assert_eq!(show_ionice(number), text);
        }
        for wrong in [
            "",
            "idle:1",
            "best-effort",
            "best-effort:8",
            "realtime:-1",
            "rt:1",
        ] {
            assert!(parse_ionice(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn groups_are_those_of_a_login() {
        assert_eq!(groups_of("", 7), Ok(vec![7]));
        assert!(groups_of("root", 4242).unwrap().contains(&4242));
    }
}
