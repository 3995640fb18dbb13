//! The PROXY header by tables.

use super::*;

fn whole(bytes: &[u8]) -> Result<Option<SocketAddr>, Fault> {
    match read(bytes)? {
        Read::Whole { length, client } => {
            assert_eq!(length, bytes.len());
            Ok(client)
        }
        Read::AtLeast(count) => panic!("at least {count} of {}", bytes.len()),
    }
}

/// Version 2 with this command, family and rest.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

const FOUR: &[u8] = &[203, 0, 113, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

#[test]
fn a_line_names_the_client() {
    for (line, client) in [
        ("PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n", Some("203.0.113.7:8080")),
        ("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", Some("0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::7 ::1 8080 80\r\n", Some("[2001:db8::7]:8080")),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN whatever it 7 is\r\n", None),
    ] {
        assert_eq!(whole(line.as_bytes()), Ok(client.map(|client| client.parse().expect("an address"))), "{line:?}");
    }
}

#[test]
fn a_line_that_could_be_read_in_two_ways_is_refused() {
    for line in [
        "PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\n",
        "PROXY TCP4  203.0.113.7 10.0.0.1 8080 80\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 8080 80 \r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 08080 80\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 +8080 80\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 65536 80\r\n",
        "PROXY TCP4 203.0.113.07 10.0.0.1 8080 80\r\n",
        "PROXY TCP4 203.0.113.7 10.0.0.1 8080\r\n",
        "PROXY TCP4 ::1 ::1 8080 80\r\n",
        "PROXY TCP6 203.0.113.7 10.0.0.1 8080 80\r\n",
        "PROXY UDP4 203.0.113.7 10.0.0.1 8080 80\r\n",
        "PROXY tcp4 203.0.113.7 10.0.0.1 8080 80\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN \r\r\n",
    ] {
        assert_eq!(whole(line.as_bytes()), Err(Fault::Line), "{line:?}");
    }
    let endless = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
    assert_eq!(read(&endless), Err(Fault::Line));
    for other in ["GET / HTTP/1.1\r\n", "Proxy TCP4", "PRI * HTTP/2.0\r\n", "\r\n\r\nX", "\0"] {
        assert_eq!(read(other.as_bytes()), Err(Fault::Missing), "{other:?}");
    }
}

#[test]
fn a_binary_header_names_the_client() {
    assert_eq!(whole(&binary(0x21, 0x11, FOUR)), Ok(Some(([203, 0, 113, 7], 8080).into())));
    let six = [[0x20; 16].as_slice(), &[0; 16], &[0x1f, 0x90, 0, 80]].concat();
    assert_eq!(whole(&binary(0x21, 0x21, &six)), Ok(Some(([0x2020; 8], 8080).into())));
    assert_eq!(whole(&binary(0x21, 0x31, &[0; 216])), Ok(None), "a Unix socket has no address for us");
    assert_eq!(whole(&binary(0x21, 0x00, &[])), Ok(None));
    assert_eq!(whole(&binary(0x20, 0x00, &[])), Ok(None), "the load balancer's own check");
    assert_eq!(whole(&binary(0x20, 0x11, b"anything")), Ok(None), "what a local header says is not looked at");
    let with_fields = [FOUR, &[0x04, 0, 2, 1, 2, 0xea, 0, 0]].concat();
    assert_eq!(whole(&binary(0x21, 0x11, &with_fields)), Ok(Some(([203, 0, 113, 7], 8080).into())));
}

#[test]
fn a_binary_header_that_breaks_the_rules_is_refused() {
    for (command, family, rest) in [
        (0x22, 0x11, FOUR),
        (0x11, 0x11, FOUR),
        (0x21, 0x12, FOUR),
        (0x21, 0x41, FOUR),
        (0x21, 0x21, FOUR),
        (0x21, 0x11, &FOUR[..11]),
        (0x21, 0x11, &[FOUR, &[4, 0, 9, 1]].concat()),
        (0x21, 0x11, &[FOUR, &[4, 0]].concat()),
        (0x21, 0x11, &[FOUR, &[0; 3000]].concat()),
    ] {
        assert_eq!(read(&binary(command, family, rest)), Err(Fault::Binary), "{command:x} {family:x} {rest:?}");
    }
}

#[test]
fn what_has_not_come_yet_is_waited_for_and_never_more() {
    let line = b"PROXY TCP4 203.0.113.7 10.0.0.1 8080 80\r\n".to_vec();
    for header in [line, binary(0x21, 0x11, FOUR), binary(0x20, 0, &[]), b"PROXY UNKNOWN\r\n".to_vec()] {
        for count in 0..header.len() {
            match read(&header[..count]) {
                Ok(Read::AtLeast(least)) => assert!(count < least && least <= header.len(), "{count} {least}"),
                other => panic!("{other:?} of {count} bytes of {header:?}"),
            }
        }
        let more = [header.as_slice(), b"GET / HTTP/1.1\r\n"].concat();
        assert!(matches!(read(&more), Ok(Read::Whole { length, .. }) if length == header.len()), "{header:?}");
    }
}
