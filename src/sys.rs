//! The only `unsafe`: thin typed wrappers, one per call, no policy. Each block says why it is sound.
#![allow(unsafe_code)]

pub mod file;
pub mod map;
pub mod process;
