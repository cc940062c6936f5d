//! `deliver`.

use super::process::{group_id, octal, user_id};
use crate::config::error::At;
use crate::config::read::{Reader, Value, is_a};
use crate::config::values::{fill, target};
use crate::core::template::{Field, Template};
use crate::plan::{DeliverCheck, DeliverPlan, OnConflict};
use toml::de::DeValue;

const KEYS: [&str; 7] = [
    "to",
    "verify",
    "mode",
    "owner",
    "keep_times",
    "on_conflict",
    "flatten",
];
const EXAMPLE: &str = "deliver = { to = \"/mnt/other/incoming\" }";
/// The words of `on_conflict`.
const ON_CONFLICT: [(&str, OnConflict); 4] = [
    ("rename", OnConflict::Rename),
    ("replace", OnConflict::Replace),
    ("skip", OnConflict::Skip),
    ("fail", OnConflict::Fail),
];
const CHECKS: [(&str, DeliverCheck); 2] = [
    ("sha256", DeliverCheck::Sha256),
    ("size", DeliverCheck::Size),
];

pub(super) fn deliver(reader: &mut Reader, key: &str, value: &Value) -> Option<At<DeliverPlan>> {
    let mut whole = true;
    let (mut to, mut verify, mut mode, mut owner) = (None, None, None, None);
    let (mut keep_times, mut on_conflict, mut flatten) = (None, None, None);
    for (name, value) in reader.table(key, value, EXAMPLE)? {
        let inner = format!("{key}.{}", name.get_ref());
        let inner = inner.as_str();
        whole &= match name.get_ref().as_ref() {
            "to" => {
                let parsed = reader.text(inner, value).map(destination);
                fill(
                    &mut to,
                    parsed.and_then(|p| reader.checked(inner, value, p)),
                )
            }
            "verify" => fill(&mut verify, check(reader, inner, value)),
            "mode" => fill(&mut mode, octal(reader, inner, value, "\"0640\"")),
            "owner" => {
                let parsed = reader.text(inner, value).map(ids);
                fill(
                    &mut owner,
                    parsed.and_then(|p| reader.checked(inner, value, p)),
                )
            }
            "keep_times" => fill(&mut keep_times, reader.flag(inner, value)),
            "on_conflict" => fill(&mut on_conflict, reader.choice(inner, value, &ON_CONFLICT)),
            "flatten" => fill(&mut flatten, reader.flag(inner, value)),
            _ => {
                reader.unknown_in(key, name, &KEYS, &[]);
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
            format!("does not say where to; write {EXAMPLE}"),
        );
        return None;
    };
    let plan = DeliverPlan {
        to: to.value,
        flatten: flatten.is_some_and(|f| f.value),
        verify: verify.map_or(DeliverCheck::Sha256, |v| v.value),
        mode: mode.map(|m| m.value),
        owner: owner.map_or((None, None), |o| o.value),
        keep_times: keep_times.is_none_or(|k| k.value),
        on_conflict: on_conflict.map_or(OnConflict::Rename, |o| o.value),
    };
    reader.checked(key, value, Ok(plan))
}

/// Where to: what a move takes, but the same for every attempt, or one that was cut short would leave its
/// copy elsewhere.
fn destination(text: &str) -> Result<Template, String> {
    let to = target(text)?;
    if to.uses(Field::Attempt) {
        return Err(
            "cannot use {attempt}: every attempt must deliver to the same place; remove it".into(),
        );
    }
    Ok(to)
}

fn check(reader: &mut Reader, key: &str, value: &Value) -> Option<At<DeliverCheck>> {
    let parsed = match value.get_ref() {
        DeValue::Boolean(true) => Ok(DeliverCheck::Sha256),
        DeValue::Boolean(false) => {
            Err("the size is compared in any case; write \"size\" to compare no more".into())
        }
        DeValue::String(_) => return reader.choice(key, value, &CHECKS),
        other => Err(format!(
            "{}; write true, \"sha256\" or \"size\"",
            is_a(other)
        )),
    };
    reader.checked(key, value, parsed)
}

/// `USER`, `USER:GROUP` or `:GROUP`, as chown(1) has them.
fn ids(text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && group.is_empty() {
        return Err(format!(
            "{text:?} names nobody; write \"user:group\", \"user\" or \":group\""
        ));
    }
    let named = |name: &str, find: fn(&str) -> Result<u32, String>| {
        (!name.is_empty()).then(|| find(name)).transpose()
    };
    Ok((named(user, user_id)?, named(group, group_id)?))
}
