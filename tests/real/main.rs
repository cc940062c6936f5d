//! The real thing: the built daemon over real files, with real children. One module for each promise.
//! `cargo test --test real`.

mod bed;
mod kit;

mod arrivals;
mod batches;
mod broken;
mod burst;
mod children;
mod crash;
mod ladder;
mod operate;
mod replace;
mod workers;
