//! Any bytes as a chunked body.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synego_data_plane::probe::fuzz::chunked_body(bytes));
