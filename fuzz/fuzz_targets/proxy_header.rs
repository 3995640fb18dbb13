//! Any bytes as the first of a connection from a listed load balancer.
#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| synego_data_plane::probe::fuzz::proxy_header(bytes));
