//! Any bytes as blocks of HPACK, or as fields for them.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synego_data_plane::probe::fuzz::hpack(bytes));
