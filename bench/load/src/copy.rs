//! The floor for one hop through user space: bytes are copied both ways, one upstream connection for each client.

use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;

/// Copies until it is ended.
pub(crate) async fn run(listen: u16, upstream: u16) -> Outcome<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, listen)).await?;
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            // A side that breaks off ends the copy, which is all there is to do.
            let _ = both_ways(client, upstream).await;
        });
    }
}

async fn both_ways(mut client: TcpStream, upstream: u16) -> std::io::Result<()> {
    let mut upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}
