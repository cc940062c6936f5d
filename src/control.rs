//! The control socket, both ends: what a person asks of a running daemon.
//!
//! A request is one JSON object on one line, [`Request`]; its answer is a line for each row, [`Line`], of which the last
//! is `{"end":true}` or `{"error":{...}}`. Then the next request may come. Whoever connects is known by credentials.
//! The socket is the daemon's own and bounded in every direction: see [`server`].

pub mod client;
pub mod server;

use crate::core::view::{DaemonRow, FileRow, Finding, MountRow, Nearest, WatchRow};
use serde::{Deserialize, Serialize};

/// In the state directory: a symbolic link to the socket that its daemon listens at, for those whose configuration names
/// another one by now.
pub const LINK: &str = "socket";
/// Longest request, in bytes, with its newline.
pub const REQUEST_MAX: usize = 64 * 1024;
/// Longest path that is asked about: no path that the kernel takes is longer (path_resolution(7)).
pub const PATH_MAX: usize = 4096;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// The daemon, its watches and mounts.
    Status {},
    /// Files that something is to happen to.
    List {
        /// Of these watches; of all where empty.
        #[serde(default)]
        watches: Vec<String>,
        /// In these states; in all where empty.
        #[serde(default)]
        states: Vec<String>,
        /// Whose name this pattern matches: text and `*` only.
        #[serde(default)]
        name: Option<String>,
        /// That came before, nanoseconds since 1970.
        #[serde(default)]
        before_ns: Option<i64>,
        /// That came after.
        #[serde(default)]
        after_ns: Option<i64>,
    },
    /// What is known of one path.
    Explain {
        /// Absolute.
        path: String,
        /// The same, if that is not UTF-8.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        path_hex: String,
    },
    /// All metrics, as OpenMetrics text.
    Metrics {},
    /// Run a job again, or now.
    Retry(Named),
    /// Make no more attempts of it.
    Forget(Named),
    /// Start nothing of a watch.
    Pause {
        /// Its name.
        watch: String,
    },
    /// Go on with it.
    Resume {
        /// Its name.
        watch: String,
    },
    /// List again.
    Rescan {
        /// This watch; all where there is none.
        #[serde(default)]
        watch: Option<String>,
    },
    /// Read the configuration again.
    Reload {},
}

/// A job by its name, or by the path of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Named {
    /// The job; empty where the path tells.
    pub job: String,
    /// Absolute.
    pub path: String,
    /// The same, if that is not UTF-8.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path_hex: String,
    /// The watch that is meant, where several have the file; empty where that is not said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub watch: String,
}

/// A part of a text: whole lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextRow {
    /// The lines.
    pub text: String,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DoneRow {
    /// A sentence.
    pub text: String,
}

impl Request {
    /// Whether it changes something: that is for root and the daemon's user.
    pub fn is_command(&self) -> bool {
        match self {
            Request::Status {}
            | Request::List { .. }
            | Request::Explain { .. }
            | Request::Metrics {} => false,
            Request::Retry(_)
            | Request::Forget(_)
            | Request::Pause { .. }
            | Request::Resume { .. }
            | Request::Rescan { .. }
            | Request::Reload {} => true,
        }
    }
}

/// Why a request is not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refusal {
    /// One word: `busy`, `denied`, `bad-request`, `too-long`, `not-found`, `conflict`, `configuration`.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// What to do about it; may be empty.
    pub remedy: String,
}

impl Refusal {
    /// A refusal with all its parts.
    pub fn new(code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        Refusal {
            code: code.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// A line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Line {
    Daemon(Box<DaemonRow>),
    Watch(WatchRow),
    Mount(MountRow),
    File(Box<FileRow>),
    Finding(Box<Finding>),
    Nearest(Nearest),
    Done(DoneRow),
    Text(TextRow),
    /// The answer is complete.
    End(bool),
    /// There is none, or no more of it.
    Error(Refusal),
}
