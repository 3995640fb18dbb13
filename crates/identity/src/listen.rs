//! Listening: one socket, or one of several on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps for us until they are taken.
const BACKLOG: i32 = 1024;

/// Takes a port; 0 takes a free one.
///
/// - `reuse_port`: several sockets of this user may take the same port; the kernel spreads connections over them.
/// - The socket does not block, ready for an asynchronous runtime.
///
/// # Errors
/// When the port is taken or may not be taken.
pub fn listen(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_shared_only_when_both_sides_say_so() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let first = listen(any, true).and_then(|socket| Ok((socket.local_addr()?, socket))).expect("a port");
        assert!(listen(first.0, true).is_ok());
        assert!(listen(first.0, false).is_err());
    }
}
