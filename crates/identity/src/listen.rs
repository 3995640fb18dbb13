//! Listening: one socket, or one of several on the same port.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use synego_runtime::clock;

/// Connections that the kernel keeps for us until they are taken.
const BACKLOG: i32 = 1024;

/// Time for whoever has a port and is about to end.
const LETS_GO: Duration = Duration::from_millis(300);

/// Takes a port for oneself; 0 takes a free one. The socket does not block, ready for an asynchronous runtime.
///
/// # Errors
/// When the port is taken or may not be taken.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bound_once_free(address)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes a port with so many sockets, over which the kernel spreads connections; 0 takes a free one.
///
/// No other process gets a share of the port, not even one that would give us a share of its own.
///
/// # Errors
/// When the port is taken or may not be taken; none of the sockets is left then.
pub fn listen_shared(address: SocketAddr, sockets: usize) -> io::Result<Vec<TcpListener>> {
    // The first takes the port alone, and gives shares of it only when it has it.
    let first = bound_once_free(address)?;
    first.set_reuse_port(true)?;
    let taken = first.local_addr()?.as_socket().unwrap_or(address);
    let others = (1..sockets).map(|_| bound(taken, true));
    let all: Vec<Socket> = std::iter::once(Ok(first)).chain(others).collect::<io::Result<_>>()?;
    all.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok(all.into_iter().map(Into::into).collect())
}

/// Takes a port for oneself, and waits a moment for one that is taken: the part of a program whose keeper was just killed
/// is on its way out.
fn bound_once_free(address: SocketAddr) -> io::Result<Socket> {
    let until = clock::now() + LETS_GO;
    loop {
        match bound(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && clock::now() < until => {
                std::thread::sleep(LETS_GO / 30);
            }
            outcome => return outcome,
        }
    }
}

fn bound(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn a_port_is_shared_by_the_sockets_that_were_made_together_and_by_no_other() {
        let all = listen_shared(ANY, 3).expect("a port");
        let ports: Vec<SocketAddr> = all.iter().filter_map(|socket| socket.local_addr().ok()).collect();
        assert!(ports.len() == 3 && ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        assert!(listen_shared(ports[0], 2).is_err() && listen(ports[0]).is_err());
        let one = listen(ANY).and_then(|socket| Ok((socket.local_addr()?, socket))).expect("a port");
        assert!(listen_shared(one.0, 2).is_err());
    }

    #[test]
    fn connections_are_spread_over_the_sockets() {
        let all = listen_shared(ANY, 2).expect("a port");
        let address = all[0].local_addr().expect("an address");
        let clients: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(address).expect("it listens")).collect();
        let taken: Vec<usize> = all.iter().map(|socket| std::iter::from_fn(|| socket.accept().ok()).count()).collect();
        assert_eq!(taken.iter().sum::<usize>(), clients.len());
        assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
    }
}
