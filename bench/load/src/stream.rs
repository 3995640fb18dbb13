//! gRPC calls that stay open over cleartext HTTP/2: each sends a message, waits for its echo, and sends the next; the
//! last one closes its side, and must be followed by status 0.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::tally::Tally;
use crate::{Load, Outcome};

/// Time for an echo or the end of a call.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `streams` calls on each connection.
pub(crate) async fn run(load: &Load, streams: u32, size: usize) -> Outcome<Tally> {
    // A gRPC message: no compression, its length, and the bytes themselves.
    let mut message = vec![0];
    message.extend(u32::try_from(size)?.to_be_bytes());
    message.extend(vec![b'm'; size]);
    let message = Bytes::from(message);
    let began = Instant::now();
    let end = began + Duration::from_secs_f64(load.seconds);
    let mut calls = JoinSet::new();
    for _ in 0..load.connections {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, load.port)).await?;
        tcp.set_nodelay(true)?;
        let (client, connection) = h2::client::handshake(tcp).await?;
        tokio::spawn(connection);
        for _ in 0..streams {
            calls.spawn(call(client.clone(), load.host.clone(), message.clone(), end));
        }
    }
    let mut tally = Tally::default();
    while let Some(done) = calls.join_next().await {
        tally.merge(done?);
    }
    Ok(tally.over(began))
}

async fn call(client: SendRequest<Bytes>, host: String, message: Bytes, end: Instant) -> Tally {
    let mut tally = Tally::default();
    if let Err(error) = echoes(client, &host, &message, end, &mut tally).await {
        tally.failed(error);
    }
    tally
}

async fn echoes(
    client: SendRequest<Bytes>,
    host: &str,
    message: &Bytes,
    end: Instant,
    tally: &mut Tally,
) -> Outcome<()> {
    let request = Request::post(format!("http://{host}/bench.Echo/Stream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut upward) = timeout(PATIENCE, client.ready()).await??.send_request(request, false)?;
    let mut began = Instant::now();
    upward.send_data(message.clone(), false)?;
    let mut downward = timeout(PATIENCE, answer).await??.into_body();
    let mut is_last = false;
    loop {
        timeout(PATIENCE, take(&mut downward, message.len())).await??;
        tally.answered(began.elapsed());
        if is_last {
            break;
        }
        began = Instant::now();
        // The last message closes our side: an empty frame of its own for that would be echoed, and h2 counts those.
        is_last = began >= end;
        upward.send_data(message.clone(), is_last)?;
    }
    let trailers = timeout(PATIENCE, downward.trailers()).await??.ok_or("a call ended without trailers")?;
    match trailers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        status => Err(format!("a call ended with status {status:?}").into()),
    }
}

/// Reads one echo of this length.
async fn take(downward: &mut RecvStream, length: usize) -> Outcome<()> {
    let mut got = 0;
    while got < length {
        let data = downward.data().await.ok_or("a call ended before its echo")??;
        got += data.len();
        downward.flow_control().release_capacity(data.len())?;
    }
    if got == length { Ok(()) } else { Err("an echo is too long".into()) }
}
