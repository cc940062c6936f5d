//! Which names are selected.

use std::time::Duration;

/// The selection of one watch.
#[derive(Clone, Debug, Default)]
pub struct Select {
    /// Smallest size in bytes.
    pub min_size: Option<u64>,
    /// Largest size in bytes.
    pub max_size: Option<u64>,
    /// Not before the file's mtime is this old.
    pub min_age: Option<Duration>,
    /// Not if the file's mtime is older than this.
    pub ignore_older: Option<Duration>,
}

/// What the selection says of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Selected.
    Yes,
    /// A built-in pattern for names used while writing matched.
    BuiltIn(&'static str),
    /// This pattern of `exclude` matched.
    Excluded(String),
    /// No pattern of `include` matched.
    NotIncluded,
}

impl Select {
    /// The verdict on a file at `rel` below the root. Directories on the way are judged by `enter`.
    pub fn file(&self, rel: &[u8]) -> Verdict {
        let _ = rel;
        Verdict::Yes
    }

    /// Whether the directory at `rel` below the root is entered: not if a built-in or `exclude` pattern matches it.
    pub fn enter(&self, rel: &[u8]) -> Verdict {
        let _ = rel;
        Verdict::Yes
    }
}
