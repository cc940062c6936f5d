//! The real thing: the built daemon over real files, with real children. One module for each promise.
//! `cargo test --test real`.

mod bed;
mod kit;

mod alerts;
mod arrivals;
mod batches;
mod bounds;
mod broken;
mod burst;
mod children;
mod claims;
mod crash;
mod deliver;
mod dispatch_breaks;
mod exported;
mod hung;
mod keys;
mod ladder;
mod metrics;
mod operate;
mod orphans;
mod outcomes;
mod poisoned;
mod replace;
mod setup;
mod telling;
mod triggers;
mod unheard;
mod worker_lives;
mod workers;
