//! The values of a watch that are more than a word, a number or a path.

use super::error::At;
use super::read::{Reader, Value, template};
use super::{paths, units};
use crate::core::template::{Field, Template, Values};
use crate::core::time::Wall;
use crate::plan::{Backoff, Disposition};
use std::time::Duration;

/// Variables and what they are set to.
pub(crate) type Environment = Vec<(String, At<Template>)>;

/// Waits between attempts without being told.
pub(super) const BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    max: Duration::from_secs(600),
};

/// Shortest first wait: less would be a busy loop.
pub(crate) const SHORTEST_BACKOFF: Duration = Duration::from_millis(1);

/// Stores what was read; whether there was something.
pub(super) fn fill<T>(slot: &mut Option<T>, read: Option<T>) -> bool {
    *slot = read;
    slot.is_some()
}

pub(super) fn span(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Duration>> {
    reader.duration(key, value, Duration::ZERO)
}

pub(super) fn globs(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Vec<At<String>>>> {
    let list = reader.strings(key, value, "[\"*.csv\"]")?;
    if list.value.is_empty() && key == "include" {
        reader.wrong(
            key,
            value,
            "selects nothing; name patterns, or remove the key to select every name",
        );
        return None;
    }
    Some(list)
}

pub(super) fn former(reader: &mut Reader, key: &str, value: &Value) -> Option<At<String>> {
    let text = reader.text(key, value)?;
    reader.checked(key, value, watch_name(text).map(str::to_owned))
}

/// The name of a watch, if it can be one.
pub(super) fn watch_name(text: &str) -> Result<&str, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.is_empty() || text.len() > 100 || !text.chars().all(good) {
        return Err(format!(
            "{text:?} cannot name a watch; use 1 to 100 letters, digits, '_', '.' and '-'"
        ));
    }
    Ok(text)
}

pub(super) fn command(
    reader: &mut Reader,
    key: &str,
    value: &Value,
) -> Option<At<Vec<At<Template>>>> {
    let example = if key == "worker" {
        "worker = [\"/usr/local/bin/loader\"]; there is no shell in between"
    } else {
        "run = [\"/usr/local/bin/load\", \"{path}\"]; there is no shell in between"
    };
    let list = reader.array(key, value, example)?;
    if list.is_empty() {
        let what = format!("is empty; name a program, as in {example}");
        reader.wrong(key, value, what);
        return None;
    }
    let mut arguments = Vec::with_capacity(list.len());
    let mut whole = true;
    for (n, element) in list.iter().enumerate() {
        let place = format!("{key}[{n}]");
        let argument = reader.template(&place, element).filter(|t| {
            let checked = if n == 0 { program(&t.value) } else { Ok(()) };
            checked
                .map_err(|what| reader.wrong(&place, element, what))
                .is_ok()
        });
        match argument {
            Some(argument) => arguments.push(argument),
            None => whole = false,
        }
    }
    if whole {
        reader.checked(key, value, Ok(arguments))
    } else {
        None
    }
}

/// The file that output goes to.
pub(super) fn output(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Vec<u8>>> {
    let path = reader.path(key, value)?;
    let text = reader.text(key, value)?;
    let parsed = output_file(text.as_bytes()).map(|()| path.value);
    reader.checked(key, value, parsed)
}

/// Whether this can be a file's name.
pub(crate) fn output_file(text: &[u8]) -> Result<(), String> {
    if text.is_empty() || text.ends_with(b"/") || text.ends_with(b"/.") {
        return Err("names no file; write one, as in \"/var/log/settled/loads.log\"".into());
    }
    Ok(())
}

/// Whether the first argument can name a program.
fn program(template: &Template) -> Result<(), String> {
    let text = template.text();
    if text.is_empty() {
        return Err("is empty; name a program".into());
    }
    let absolute = text.starts_with('/') || !template.fixed_prefix().contains('/');
    if !absolute {
        return Err(format!(
            "{text:?} is relative; write an absolute path, or a bare name to be found in PATH"
        ));
    }
    Ok(())
}

pub(super) fn key_template(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Template>> {
    let text = reader.text(key, value)?;
    reader.checked(key, value, parse_key(text))
}

/// `key`: it must be known when a job is made, and stay the same.
pub(crate) fn parse_key(text: &str) -> Result<Template, String> {
    let parsed = template(text)?;
    for (field, name) in [
        (Field::Key, "key"),
        (Field::Attempt, "attempt"),
        (Field::Date, "date"),
    ] {
        if parsed.uses(field) {
            return Err(format!(
                "a key cannot use {{{name}}}: it is made before that is known; use another field, as in \"{{dir1}}\""
            ));
        }
    }
    Ok(parsed)
}

pub(super) fn environment(
    reader: &mut Reader,
    key: &str,
    value: &Value,
) -> Option<At<Environment>> {
    let mut variables = Vec::new();
    let mut whole = true;
    for (name, value) in reader.table(key, value, "env = { LANG = \"C\" }")? {
        let place = format!("{key}.{}", name.get_ref());
        if let Err(what) = variable_name(name.get_ref()) {
            reader.wrong(&place, value, what);
            whole = false;
        }
        match reader.template(&place, value) {
            Some(template) => variables.push((name.get_ref().to_string(), template)),
            None => whole = false,
        }
    }
    if whole {
        reader.checked(key, value, Ok(variables))
    } else {
        None
    }
}

/// Whether this can be the name of a variable.
pub(crate) fn variable_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(format!(
            "{name:?} cannot name a variable; use letters, digits and '_'"
        ));
    }
    if name.starts_with("SETTLED_") {
        return Err(
            "variables that begin with SETTLED_ are set for each job; use another name".into(),
        );
    }
    Ok(())
}

pub(super) fn backoff(reader: &mut Reader, key: &str, value: &Value) -> Option<At<Backoff>> {
    let table = reader.table(key, value, "backoff = { first = \"1s\", max = \"10m\" }")?;
    let mut whole = true;
    let (mut first, mut max) = (None, None);
    for (name, value) in table {
        let inner = format!("{key}.{}", name.get_ref());
        whole &= match name.get_ref().as_ref() {
            "first" => fill(&mut first, reader.duration(&inner, value, SHORTEST_BACKOFF)),
            "max" => fill(&mut max, reader.duration(&inner, value, SHORTEST_BACKOFF)),
            _ => {
                reader.unknown_in(key, name, &["first", "max"], &[]);
                false
            }
        };
    }
    if !whole {
        return None;
    }
    let parsed = backoff_of(first.map(|f| f.value), max.map(|m| m.value));
    reader.checked(key, value, parsed)
}

/// Both waits, with the default of what was not given.
pub(crate) fn backoff_of(
    first: Option<Duration>,
    max: Option<Duration>,
) -> Result<Backoff, String> {
    let first = first.unwrap_or(BACKOFF.first);
    let max = max.unwrap_or(BACKOFF.max);
    if max < first {
        return Err(format!(
            "the longest wait ({}) is shorter than the first ({}); raise max",
            units::show_duration(max),
            units::show_duration(first)
        ));
    }
    Ok(Backoff { first, max })
}

pub(super) fn disposition(
    reader: &mut Reader,
    key: &str,
    value: &Value,
) -> Option<At<Disposition>> {
    const EXAMPLE: &str = "\"keep\", \"delete\" or { move = \"/srv/archive\" }";
    if let toml::de::DeValue::String(text) = value.get_ref() {
        let parsed = match text.as_ref() {
            "keep" => Ok(Disposition::Keep),
            "delete" => Ok(Disposition::Delete),
            _ => Err(format!("{text:?} is none of {EXAMPLE}")),
        };
        return reader.checked(key, value, parsed);
    }
    let mut whole = true;
    let (mut to, mut flatten) = (None, None);
    for (name, value) in reader.table(key, value, EXAMPLE)? {
        let inner = format!("{key}.{}", name.get_ref());
        whole &= match name.get_ref().as_ref() {
            "move" => {
                let parsed = reader.text(&inner, value).map(target);
                fill(
                    &mut to,
                    parsed.and_then(|p| reader.checked(&inner, value, p)),
                )
            }
            "flatten" => fill(&mut flatten, reader.flag(&inner, value)),
            _ => {
                reader.unknown_in(key, name, &["move", "flatten"], &[]);
                false
            }
        };
    }
    if !whole {
        return None;
    }
    let Some(to) = to else {
        reader.wrong(
            key,
            value,
            format!("does not say where to move; write {EXAMPLE}"),
        );
        return None;
    };
    let flatten = flatten.is_some_and(|f| f.value);
    reader.checked(
        key,
        value,
        Ok(Disposition::Move {
            to: to.value,
            flatten,
        }),
    )
}

/// The target of a move: absolute for every file, and no `..` in its own text.
pub(crate) fn target(text: &str) -> Result<Template, String> {
    let to = template(text)?;
    let absolute = to.fixed_prefix().starts_with('/')
        || to.starts_with(Field::Dir)
        || to.starts_with(Field::Path);
    if !absolute {
        return Err(format!("{text:?} is not absolute; begin it with '/'"));
    }
    let plain = to.expand(&Values {
        path: b"/x/x",
        rel: b"x/x/x",
        watch: "x",
        key: b"x",
        size: 0,
        mtime: Wall(0),
        date: "x",
        job: "x",
        attempt: 1,
    });
    if plain
        .split(|&b| b == b'/')
        .any(|component| component == b"..")
    {
        return Err(format!(
            "{text:?} has '..' in it; write the path it stands for"
        ));
    }
    Ok(to)
}

/// `keep`, `delete` or `move=DIR`, as the command line has it; `DIR` relative to `cwd`.
pub(crate) fn disposition_argument(text: &str, cwd: &[u8]) -> Result<Disposition, String> {
    if let Some(dir) = text.strip_prefix("move=") {
        if dir.is_empty() {
            return Err("does not say where to move; write move=DIR".into());
        }
        let whole = if dir.starts_with('/') || dir.starts_with("{dir}") || dir.starts_with("{path}")
        {
            dir.to_owned()
        } else {
            let cwd = std::str::from_utf8(cwd).map_err(
                |_| "the working directory is not UTF-8; write move= with an absolute path",
            )?;
            let literal = cwd.replace('{', "{{").replace('}', "}}");
            format!("{literal}/{dir}")
        };
        return Ok(Disposition::Move {
            to: target(&whole)?,
            flatten: false,
        });
    }
    match text {
        "keep" => Ok(Disposition::Keep),
        "delete" => Ok(Disposition::Delete),
        _ => Err(format!("{text:?} is none of keep, delete, move=DIR")),
    }
}

/// An absolute path for the command line.
pub(crate) fn root_argument(cwd: &[u8], dir: &[u8]) -> Result<Vec<u8>, String> {
    if dir.is_empty() {
        return Err("the directory's name is empty".into());
    }
    paths::normal(&paths::absolute(cwd, dir))
}
