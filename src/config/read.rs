//! TOML values to plain ones, each with its line.

use super::error::{At, Problems, Spot};
use super::{paths, units};
use crate::core::template::{Template, nearest};
use std::fmt::Display;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A parsed value.
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// A file and where its lines begin.
pub(super) struct Source {
    file: Rc<Path>,
    /// Offsets of the first byte of each line but the first.
    starts: Vec<usize>,
}

impl Source {
    /// Of this text.
    pub(super) fn new(file: &Path, text: &[u8]) -> Source {
        let newlines = text.iter().enumerate().filter(|(_, b)| **b == b'\n');
        Source {
            file: file.into(),
            starts: newlines.map(|(at, _)| at + 1).collect(),
        }
    }

    /// The line of a byte.
    pub(super) fn spot(&self, offset: usize) -> Spot {
        Spot {
            file: Some(self.file.clone()),
            line: 1 + self.starts.partition_point(|&start| start <= offset),
        }
    }
}

/// Reads the values of one block, and notes what is wrong.
pub(super) struct Reader<'p> {
    pub(super) source: &'p Source,
    pub(super) problems: &'p mut Problems,
    /// The block, as in `watch.NAME`.
    pub(super) section: String,
}

impl Reader<'_> {
    /// Notes a problem with a value.
    pub(super) fn wrong(&mut self, key: &str, value: &Value, what: impl Into<String>) {
        let spot = self.spot(value);
        self.problems.add(&spot, &self.section, key, what);
    }

    /// Where a value begins.
    pub(super) fn spot(&self, value: &Value) -> Spot {
        self.source.spot(value.span().start)
    }

    /// The value with its place, if there is one; the error is noted.
    pub(super) fn checked<T>(
        &mut self,
        key: &str,
        value: &Value,
        parsed: Result<T, String>,
    ) -> Option<At<T>> {
        match parsed {
            Ok(parsed) => Some(At {
                value: parsed,
                spot: self.spot(value),
            }),
            Err(what) => {
                self.wrong(key, value, what);
                None
            }
        }
    }

    pub(super) fn text<'v>(&mut self, key: &str, value: &'v Value) -> Option<&'v str> {
        match value.get_ref() {
            DeValue::String(text) => Some(text),
            other => {
                self.wrong(key, value, format!("{}; write it in quotes", is_a(other)));
                None
            }
        }
    }

    pub(super) fn string(&mut self, key: &str, value: &Value) -> Option<At<String>> {
        let text = self.text(key, value)?.to_owned();
        self.checked(key, value, Ok(text))
    }

    pub(super) fn flag(&mut self, key: &str, value: &Value) -> Option<At<bool>> {
        let parsed = match value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            other => Err(format!("{}; write true or false", is_a(other))),
        };
        self.checked(key, value, parsed)
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&mut self, key: &str, value: &Value, most: u32) -> Option<At<u32>> {
        self.number(key, value, 1, most)
    }

    /// A whole number from `least` to `most`.
    pub(super) fn number<N>(&mut self, key: &str, value: &Value, least: N, most: N) -> Option<At<N>>
    where
        N: TryFrom<i128> + PartialOrd + Display + Copy,
    {
        let remedy = format!("write a number from {least} to {most}");
        let parsed = match value.get_ref() {
            DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
                .ok()
                .and_then(|n| N::try_from(n).ok())
                .filter(|n| (least..=most).contains(n))
                .ok_or_else(|| format!("{number} is out of range; {remedy}")),
            other => Err(format!("{}; {remedy}", is_a(other))),
        };
        self.checked(key, value, parsed)
    }

    /// A duration of at least `least`.
    pub(super) fn duration(
        &mut self,
        key: &str,
        value: &Value,
        least: Duration,
    ) -> Option<At<Duration>> {
        let parsed = match value.get_ref() {
            DeValue::String(text) => units::duration(text).and_then(|span| {
                if span < least {
                    return Err(format!(
                        "{text:?} is too short; at least {:?}",
                        units::show_duration(least)
                    ));
                }
                Ok(span)
            }),
            other => Err(format!(
                "{}; write a duration in quotes, as in \"2s\"",
                is_a(other)
            )),
        };
        self.checked(key, value, parsed)
    }

    pub(super) fn size(&mut self, key: &str, value: &Value) -> Option<At<u64>> {
        let parsed = match value.get_ref() {
            DeValue::String(text) => units::size(text),
            DeValue::Integer(number) if number.radix() == 10 => units::size(number.as_str()),
            DeValue::Table(_) => Err(
                "a size for each kind of content is not built in this version; write one size"
                    .into(),
            ),
            other => Err(format!(
                "{}; write a size in quotes, as in \"10KiB\"",
                is_a(other)
            )),
        };
        self.checked(key, value, parsed)
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &str,
        value: &Value,
        from: &[(&str, T)],
    ) -> Option<At<T>> {
        let text = self.text(key, value)?;
        self.checked(key, value, choice(text, from))
    }

    /// An absolute path without templates.
    pub(super) fn path(&mut self, key: &str, value: &Value) -> Option<At<Vec<u8>>> {
        let text = self.text(key, value)?;
        self.checked(key, value, paths::normal(text.as_bytes()))
    }

    pub(super) fn template(&mut self, key: &str, value: &Value) -> Option<At<Template>> {
        let text = self.text(key, value)?;
        self.checked(key, value, template(text))
    }

    /// The elements of an array.
    pub(super) fn array<'v, 'i>(
        &mut self,
        key: &str,
        value: &'v Value<'i>,
        example: &str,
    ) -> Option<&'v [Value<'i>]> {
        match value.get_ref() {
            DeValue::Array(array) => Some(array),
            other => {
                let what = format!("{}; write an array, as in {example}", is_a(other));
                self.wrong(key, value, what);
                None
            }
        }
    }

    /// An array of strings, each with its place.
    pub(super) fn strings(
        &mut self,
        key: &str,
        value: &Value,
        example: &str,
    ) -> Option<At<Vec<At<String>>>> {
        let mut strings = Vec::new();
        let mut whole = true;
        for (n, element) in self.array(key, value, example)?.iter().enumerate() {
            match self.string(&format!("{key}[{n}]"), element) {
                Some(string) => strings.push(string),
                None => whole = false,
            }
        }
        if whole {
            self.checked(key, value, Ok(strings))
        } else {
            None
        }
    }

    /// The entries of a table.
    pub(super) fn table<'v, 'i>(
        &mut self,
        key: &str,
        value: &'v Value<'i>,
        example: &str,
    ) -> Option<&'v DeTable<'i>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            other => {
                let what = format!("{}; write a table, as in {example}", is_a(other));
                self.wrong(key, value, what);
                None
            }
        }
    }

    /// Notes a key that this version does not take: one that is to come, or one nobody knows.
    pub(super) fn unknown(
        &mut self,
        key: &Spanned<impl AsRef<str>>,
        known: &[&str],
        to_come: &[&str],
    ) {
        self.unknown_in("", key, known, to_come);
    }

    /// The same for a key inside the table `outer`.
    pub(super) fn unknown_in(
        &mut self,
        outer: &str,
        key: &Spanned<impl AsRef<str>>,
        known: &[&str],
        to_come: &[&str],
    ) {
        let spot = self.source.spot(key.span().start);
        let name = key.get_ref().as_ref();
        let what = if to_come.contains(&name) {
            "not built in this version; remove it".to_owned()
        } else {
            let near = nearest(name, known.iter().chain(to_come).copied());
            let later = if to_come.contains(&near) {
                ", which is not built in this version"
            } else {
                ""
            };
            format!("unknown key (nearest known key '{near}'{later})")
        };
        let shown = if outer.is_empty() {
            name.to_owned()
        } else {
            format!("{outer}.{name}")
        };
        self.problems.add(&spot, &self.section, &shown, what);
    }
}

/// One of several words.
pub(crate) fn choice<T: Copy>(text: &str, from: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, value)) = from.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = from.iter().map(|(word, _)| *word).collect();
    Err(format!(
        "{text:?} is none of {} (nearest known value '{}')",
        words.join(", "),
        nearest(text, words.iter().copied())
    ))
}

/// A template that can be an argument: no NUL byte.
pub(crate) fn template(text: &str) -> Result<Template, String> {
    if text.contains('\0') {
        return Err("a NUL byte cannot be passed to a command".into());
    }
    Template::parse(text)
}

/// What a value of the wrong type is.
pub(super) fn is_a(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "is a string",
        DeValue::Integer(_) => "is a number",
        DeValue::Float(_) => "is a fraction",
        DeValue::Boolean(_) => "is a boolean",
        DeValue::Datetime(_) => "is a date",
        DeValue::Array(_) => "is an array",
        DeValue::Table(_) => "is a table",
    }
}
