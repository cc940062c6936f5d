//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Where something was written.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    /// The file; `None` is the command line.
    pub(crate) file: Option<Rc<Path>>,
    /// The line, from 1.
    pub(crate) line: usize,
}

impl Spot {
    /// The command line.
    pub(crate) const ARGUMENT: Spot = Spot {
        file: None,
        line: 0,
    };
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) spot: Spot,
}

impl<T> At<T> {
    /// A value from the command line.
    pub(crate) fn argument(value: T) -> At<T> {
        At {
            value,
            spot: Spot::ARGUMENT,
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as it was named; empty for an argument of the command line.
    pub file: PathBuf,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// The block, as in `watch.NAME`, or empty.
    pub section: String,
    /// The key, as in `backoff.first`, or empty.
    pub key: String,
    /// What is wrong, and the remedy.
    pub what: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        if self.file.as_os_str().is_empty() {
            let (outer, _) = self.key.split_once(['.', '[']).unwrap_or((&self.key, ""));
            match outer {
                "" => {}
                "path" => line.push_str("DIR: "),
                "run" => line.push_str("CMD: "),
                option => line.push_str(&format!("--{}: ", option.replace('_', "-"))),
            }
        } else {
            line.push_str(&self.file.display().to_string());
            if self.line > 0 {
                line.push_str(&format!(":{}", self.line));
            }
            line.push_str(": ");
            if !self.section.is_empty() {
                line.push_str(&format!("[{}] ", self.section));
            }
            if !self.key.is_empty() {
                line.push_str(&format!("{}: ", self.key));
            }
        }
        line.push_str(&self.what);
        // Keys and paths are anybody's text: one error stays one line, and no terminal is steered.
        for c in line.chars() {
            if c.is_control() {
                write!(f, "{}", c.escape_debug())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    /// In the order of files and lines.
    pub list: Vec<ConfigError>,
    /// The first file itself could not be read.
    pub unreadable: bool,
}

impl ConfigErrors {
    /// sysexits.h: `EX_NOINPUT` (66) if the file could not be read, else `EX_CONFIG` (78).
    pub fn exit_code(&self) -> u8 {
        if self.unreadable { 66 } else { 78 }
    }
}

impl fmt::Display for ConfigErrors {
    /// One line each, without a newline after the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects what is wrong while reading goes on.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<ConfigError>,
}

impl Problems {
    /// Notes one.
    pub(crate) fn add(&mut self, spot: &Spot, section: &str, key: &str, what: impl Into<String>) {
        self.list.push(ConfigError {
            file: spot.file.as_deref().map(PathBuf::from).unwrap_or_default(),
            line: spot.line,
            section: section.into(),
            key: key.into(),
            what: what.into(),
        });
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All of them, those of one file in the order of its lines, each said once.
    pub(crate) fn into_errors(self, unreadable: bool) -> ConfigErrors {
        let mut files: Vec<PathBuf> = Vec::new();
        for error in &self.list {
            if !files.contains(&error.file) {
                files.push(error.file.clone());
            }
        }
        let mut list = self.list;
        list.sort_by_key(|e| (files.iter().position(|f| *f == e.file), e.line));
        list.dedup();
        ConfigErrors { list, unreadable }
    }
}
