//! What a person asks of the built daemon, over its real socket. `cargo test --test operate`.

#[allow(dead_code)]
#[path = "../real/bed.rs"]
mod bed;
#[allow(dead_code)]
#[path = "../real/kit.rs"]
mod kit;

mod answers;
mod ask;
mod carried;
mod clients;
mod explain;
mod metrics;
mod orders;
mod rights;
mod top;
