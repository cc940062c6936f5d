//! settled: acts on files once they have settled. Linux only.
//!
//! The map; read it first.
//!
//! ```text
//! observe ─► settle ─► admit ─► queue ─► dispatch ─► conclude
//!    │          │         │        │         │           │
//!    └──────────┴─────────┴── journal ───────┴───────────┘
//! ```
#![cfg(target_os = "linux")]

pub mod core;
pub mod log;
pub mod mounts;
pub mod plan;
pub mod service;
pub mod sys;
pub mod watch;
/// The command line.
pub mod cli {
    /// Runs the program.
    pub fn main(_: impl Iterator<Item = std::ffi::OsString>) -> std::process::ExitCode {
        std::process::ExitCode::FAILURE
    }
}
