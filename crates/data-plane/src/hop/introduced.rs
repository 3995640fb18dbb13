//! The PROXY header, version 1 and 2: how a load balancer that only moves bytes tells whose connection it passes on.
//!
//! It is read from listed peers alone, and they must send it: whoever else sends one has sent no HTTP. What can be read in
//! two ways is refused. Whatever follows it stays in the connection, since TLS or HTTP begins with the very next byte.
//!
//! Source: W. Tarreau, The PROXY protocol, versions 1 & 2, 2020.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// How every header of version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest line of version 1, with its end.
const MAX_LINE: usize = 107;
/// The shortest one: `PROXY UNKNOWN` and its end.
const MIN_LINE: usize = 15;
/// Version 2 without addresses and what follows them.
const HEAD: usize = 16;
/// Most bytes of addresses and what follows them: load balancers send some hundred at most.
const MAX_REST: usize = 2048;

/// What is wrong with what a listed peer sent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// It is no PROXY header.
    #[error("no PROXY header, which this peer must send")]
    Missing,
    /// A line of version 1 that breaks the rules.
    #[error("a PROXY line that breaks the rules")]
    Line,
    /// A header of version 2 that breaks the rules.
    #[error("a PROXY header of version 2 that breaks the rules")]
    Binary,
    /// The peer went away.
    #[error("the peer went away before its PROXY header was there")]
    Gone,
}

/// What bytes come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// A header of so many bytes; `client`: `None` where it names none, as for the load balancer's own checks.
    Whole { length: usize, client: Option<SocketAddr> },
    /// A header that is not whole has at least so many.
    AtLeast(usize),
}

/// Reads the header from the beginning of `bytes`.
///
/// # Errors
/// [`Fault`], as soon as no bytes that follow could make it one.
pub(crate) fn read(bytes: &[u8]) -> Result<Read, Fault> {
    match bytes.first() {
        None => Ok(Read::AtLeast(MIN_LINE)),
        Some(b'P') => line(bytes),
        Some(_) => binary(bytes),
    }
}

fn line(bytes: &[u8]) -> Result<Read, Fault> {
    let word = b"PROXY ";
    if !bytes.iter().zip(word).all(|(have, want)| have == want) {
        return Err(Fault::Missing);
    }
    let within = bytes.get(..MAX_LINE).unwrap_or(bytes);
    let Some(end) = within.iter().position(|byte| *byte == b'\n') else {
        if within.len() == MAX_LINE {
            return Err(Fault::Line);
        }
        let ends = within.last() == Some(&b'\r');
        return Ok(Read::AtLeast((within.len() + if ends { 1 } else { 2 }).clamp(MIN_LINE, MAX_LINE)));
    };
    let text = within.get(word.len()..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(Fault::Line)?;
    let text = std::str::from_utf8(text).map_err(|_| Fault::Line)?;
    let length = end + 1;
    // Whatever follows this word is to be ignored.
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return if text.contains('\r') { Err(Fault::Line) } else { Ok(Read::Whole { length, client: None }) };
    }
    let mut parts = text.split(' ');
    let mut next = || parts.next().ok_or(Fault::Line);
    let (family, client, here) = (next()?, next()?, next()?);
    let client_port = port(next()?)?;
    port(next()?)?;
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (Some(client), Some(_), None) = (address(client), address(here), parts.next()) else { return Err(Fault::Line) };
    Ok(Read::Whole { length, client: Some(SocketAddr::new(client, client_port)) })
}

/// Digits alone, without a zero before others.
fn port(text: &str) -> Result<u16, Fault> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(Fault::Line)
}

fn binary(bytes: &[u8]) -> Result<Read, Fault> {
    if !bytes.iter().zip(SIGNATURE).all(|(have, want)| have == want) {
        return Err(Fault::Missing);
    }
    let Some(head) = bytes.get(SIGNATURE.len()..HEAD) else { return Ok(Read::AtLeast(HEAD)) };
    let [command, family, high, low] = *head else { return Err(Fault::Binary) };
    let rest = usize::from(u16::from_be_bytes([high, low]));
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Fault::Binary),
    };
    // Streams over IPv4, IPv6 and Unix sockets; others could not have come here.
    let addresses = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(Fault::Binary),
    };
    if rest > MAX_REST || (!is_local && rest < addresses) {
        return Err(Fault::Binary);
    }
    let length = HEAD + rest;
    let Some(rest) = bytes.get(HEAD..length) else { return Ok(Read::AtLeast(length)) };
    if is_local {
        return Ok(Read::Whole { length, client: None });
    }
    let (addresses, others) = rest.split_at(addresses);
    if !are_whole(others) {
        return Err(Fault::Binary);
    }
    Ok(Read::Whole { length, client: client(addresses) })
}

/// The first of the two addresses, with its port.
fn client(addresses: &[u8]) -> Option<SocketAddr> {
    match addresses.len() {
        12 => {
            let ip: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(ip).into(), u16::from_be_bytes(addresses.get(8..10)?.try_into().ok()?)))
        }
        36 => {
            let ip: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            Some(SocketAddr::new(
                Ipv6Addr::from(ip).into(),
                u16::from_be_bytes(addresses.get(32..34)?.try_into().ok()?),
            ))
        }
        _ => None,
    }
}

/// Whether the fields after the addresses, of which none is used here, fill their room: a type, a length, so many bytes.
fn are_whole(mut fields: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = fields {
        let Some(after) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        fields = after;
    }
    fields.is_empty()
}

/// Takes the header from a connection, and not a byte of what follows it.
///
/// # Errors
/// [`Fault`]: the connection is of no use.
pub(crate) async fn take(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Fault> {
    let mut bytes = Vec::with_capacity(MAX_LINE);
    loop {
        match read(&bytes)? {
            Read::Whole { client, .. } => return Ok(client),
            Read::AtLeast(count) => {
                let have = bytes.len();
                bytes.resize(count, 0);
                let missing = bytes.get_mut(have..).unwrap_or_default();
                stream.read_exact(missing).await.map_err(|_| Fault::Gone)?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
