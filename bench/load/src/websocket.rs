//! A WebSocket client: opens by the handshake, then sends a frame, waits for its echo, and sends the next.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::frames::{self, ACCEPT, KEY};
use crate::tally::Tally;
use crate::{Load, Outcome};

/// Time for a handshake or an echo.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs all connections at once.
pub(crate) async fn run(load: &Load, size: usize) -> Outcome<Tally> {
    let mut open = JoinSet::new();
    let began = Instant::now();
    for _ in 0..load.connections {
        open.spawn(connection(load.clone(), size, began + Duration::from_secs_f64(load.seconds)));
    }
    let mut tally = Tally::default();
    while let Some(done) = open.join_next().await {
        tally.merge(done?);
    }
    Ok(tally.over(began))
}

async fn connection(load: Load, size: usize, end: Instant) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = echoes(&load, size, end, &mut tally).await {
        tally.failed(error);
    }
    tally
}

async fn echoes(load: &Load, size: usize, end: Instant, tally: &mut Tally) -> Outcome<()> {
    let mut stream = timeout(PATIENCE, handshake(load)).await??;
    let payload = vec![b'w'; size];
    let (sent, expected) = (frames::frame(&payload, true), frames::frame(&payload, false));
    let mut got = vec![0; expected.len()];
    while Instant::now() < end {
        let began = Instant::now();
        stream.write_all(&sent).await?;
        timeout(PATIENCE, stream.read_exact(&mut got)).await??;
        if got != expected {
            return Err("the echo differs".into());
        }
        tally.answered(began.elapsed());
    }
    Ok(())
}

async fn handshake(load: &Load) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, load.port)).await?;
    stream.set_nodelay(true)?;
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\n\r\n",
        load.host
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    // Byte by byte, so that nothing behind the head is taken.
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16 * 1024 {
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head);
    if !text.starts_with("HTTP/1.1 101") || !text.contains(ACCEPT) {
        return Err(format!("no upgrade: {}", text.lines().next().unwrap_or_default()).into());
    }
    Ok(stream)
}
