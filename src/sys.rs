//! The only `unsafe`: thin typed wrappers, one per call, no policy. Each block says why it is sound.
#![allow(unsafe_code)]

pub mod clock;
pub mod environ;
pub mod file;
pub mod map;
pub mod notify;
pub mod packet;
pub mod peer;
pub mod process;
pub mod setup;
pub mod signal;
pub mod terminal;
