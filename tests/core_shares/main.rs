//! What the core decides about files that other machines write, with a clock that a test moves: exported directories, and
//! mounts that show old attributes. `cargo test --test core_shares`.
#![allow(clippy::unwrap_used)]

mod expected;
mod exported;
mod house;
mod hung;
mod remote;
