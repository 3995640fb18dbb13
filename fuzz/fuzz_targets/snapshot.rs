//! Any bytes as a snapshot from a master, and a delta.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synego_fuzz::snapshot::snapshot(bytes));
