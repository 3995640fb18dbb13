//! Any bytes as the head of an answer of HTTP/1.1.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synego_data_plane::probe::fuzz::answer_head(bytes));
