//! Any bytes as a request and the routes that might take it.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synego_data_plane::probe::fuzz::routes(bytes));
