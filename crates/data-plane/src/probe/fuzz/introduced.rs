//! PROXY headers: the same in whatever pieces they come, never more of them taken than there is, and what is named can be
//! written again as the same.

use std::net::SocketAddr;

use crate::hop::introduced::{Read, read};

/// Any bytes as the first of a connection from a listed peer.
pub fn proxy_header(bytes: &[u8]) {
    let all = read(bytes);
    // Byte by byte: what is asked for grows, and is never more than the header turns out to have.
    let mut asked = 0;
    for count in 0..=bytes.len() {
        match read(&bytes[..count]) {
            Ok(Read::AtLeast(least)) => {
                assert!(least > count && least >= asked, "{least} after {asked} with {count}");
                asked = least;
            }
            Ok(Read::Whole { length, client }) => {
                assert_eq!(length, count, "a header is seen with its last byte");
                assert!(asked <= length, "{asked} bytes were waited for, {length} there are");
                assert_eq!(all, Ok(Read::Whole { length, client }), "what follows changes nothing");
                client.iter().for_each(is_written_back);
                return;
            }
            Err(fault) => return assert_eq!(all, Err(fault), "what follows changes nothing"),
        }
    }
    assert_eq!(all, Ok(Read::AtLeast(asked)));
}

fn is_written_back(client: &SocketAddr) {
    let (family, here) = if client.is_ipv4() { ("TCP4", "10.0.0.1") } else { ("TCP6", "::1") };
    let line = format!("PROXY {family} {} {here} {} 80\r\n", client.ip(), client.port());
    assert_eq!(read(line.as_bytes()), Ok(Read::Whole { length: line.len(), client: Some(*client) }), "{line:?}");
}
