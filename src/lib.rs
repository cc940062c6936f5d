//! settled: acts on files once they have settled. Linux only.
//!
//! The map; read it first.
//!
//! ```text
//! observe ─► settle ─► admit ─► queue ─► dispatch ─► conclude
//!    │          │         │        │         │           │
//!    └──────────┴─────────┴── journal ───────┴───────────┘
//! ```
//!
//! **The core decides** ([`core`]): a pure state machine. Facts and the time go in ([`core::Input`]), wishes
//! come out ([`core::Effect`]). It has no descriptor, no clock, no system call.
//!
//! **The edge acts.** [`daemon`] is the loop: poll, drain, decide, make durable, do. Each thing outside has
//! a room:
//!
//! | room | what it is for |
//! | --- | --- |
//! | [`cli`], [`config`], [`plan`] | from arguments and TOML text to a checked plan |
//! | [`watch`] | inotify: events in |
//! | [`mounts`], [`exports`] | which filesystem a path is on, from `/proc/self/mountinfo`; which directories NFS clients write to |
//! | [`scout`], [`probe`], [`mover`] | every path call on users' files, in a process per mount |
//! | [`deliver`] | copies into other directories, each in a process of its own |
//! | [`spawner`], [`child`] | every process is cloned from a small one; children, their output, their end |
//! | [`journal`] | what was decided, durable before it is done |
//! | [`claim`] | claims on a share that several machines work on, in a process for each watch |
//! | [`slots`] | locks that outlive the daemon: whether a process of an earlier attempt is still there |
//! | [`control`] | the control socket, both ends: what a person asks of a running daemon |
//! | [`service`], [`log`] | signals and the service manager; lines out, never waiting |
//! | [`metrics`] | what the daemon does in numbers, as text, and the process that writes it to a file |
//! | [`memory`] | what the daemon itself takes, from `/proc/self/status` |
//! | [`sys`] | the only `unsafe` |
//!
//! Invariants worth knowing before changing anything:
//! * a record is flushed before the effect that it announces is performed (`daemon::Daemon::turn`);
//! * the main process makes no path call on a user's file;
//! * events are hints: what is on disk decides;
//! * an answer of a scout reaches the core after every event that came before it.
#![cfg(target_os = "linux")]

pub mod child;
pub mod claim;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod daemon;
pub mod deliver;
pub mod exports;
pub mod journal;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod mounts;
pub mod mover;
pub mod plan;
pub mod probe;
pub mod scout;
pub mod service;
pub mod slots;
pub mod spawner;
pub mod sys;
pub mod watch;
