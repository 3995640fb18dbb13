//! Tests with real processes: started, stopped, killed, probed.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod common;
mod jobs;
mod memory;
mod orphans;
mod output;
mod probes;
mod supervisor;
