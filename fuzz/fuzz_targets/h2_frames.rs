//! Any bytes as frames of HTTP/2, and what is done with their streams.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synego_data_plane::probe::fuzz::h2_frames(bytes));
