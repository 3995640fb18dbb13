//! Bytes under TLS: all of them, in order, in few records, and an end that is known to be one.

#![expect(clippy::expect_used, reason = "a failed test panics")]

mod support;

use std::io::IoSlice;
use std::time::Duration;

use support::*;
use synego_identity::{Admit, Authority, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

async fn both_ends() -> (Stream, Stream) {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let (users, orders) = (own(&authority, service("users")), own(&authority, service("orders")));
    let door = Door::of(&users, Admit::Services).await;
    let (out, (within, _)) = pair(&orders, &door, role("users")).await;
    (out, within)
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[tokio::test]
async fn all_bytes_arrive_in_order_whatever_the_sizes_of_writes_and_reads() {
    for (total, write, read) in
        [(1, 1, 1), (100_000, 1000, 7), (3_000_000, 200_000, 16_384), (2_000_000, 17_000, 1 << 20)]
    {
        let (mut out, mut within) = both_ends().await;
        let sent = bytes(total);
        let (wrote, got) = tokio::join!(
            async {
                for part in sent.chunks(write) {
                    out.write_all(part).await?;
                }
                out.shutdown().await
            },
            async {
                let (mut got, mut buffer) = (Vec::new(), vec![0; read]);
                loop {
                    match within.read(&mut buffer).await.expect("read") {
                        0 => return got,
                        some => got.extend_from_slice(&buffer[..some]),
                    }
                }
            }
        );
        wrote.expect("written");
        assert!(got == sent, "{total} bytes written by {write} and read by {read}: {} came", got.len());
    }
}

#[tokio::test]
async fn both_directions_go_on_at_once() {
    let (mut one, mut other) = both_ends().await;
    let sent = bytes(4_000_000);
    let swap = async |stream: &mut Stream| {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let (wrote, heard) = tokio::join!(
            async {
                write.write_all(&sent).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut got)
        );
        wrote.expect("written");
        heard.expect("read");
        got == sent
    };
    assert_eq!(tokio::join!(swap(&mut one), swap(&mut other)), (true, true));
}

#[tokio::test]
async fn a_writer_that_has_to_wait_loses_nothing_and_repeats_nothing() {
    let (mut out, mut within) = both_ends().await;
    let sent = bytes(8_000_000);
    let (wrote, got) = tokio::join!(
        async {
            out.write_all(&sent).await?;
            out.shutdown().await
        },
        async {
            let (mut got, mut buffer) = (Vec::new(), vec![0; 300_000]);
            loop {
                // Long enough for the kernel to be full.
                tokio::time::sleep(Duration::from_millis(2)).await;
                match within.read(&mut buffer).await.expect("read") {
                    0 => return got,
                    some => got.extend_from_slice(&buffer[..some]),
                }
            }
        }
    );
    wrote.expect("written");
    assert!(got == sent, "{} came", got.len());
}

#[tokio::test]
async fn the_parts_of_one_write_leave_in_one_record() {
    let (mut out, mut within) = both_ends().await;
    let parts: [&[u8]; 4] = [b"a head", b"", b", and ", b"a body"];
    let slices = parts.map(IoSlice::new);
    let written = out.write_vectored(&slices).await.expect("written");
    assert_eq!(written, parts.concat().len());
    let mut buffer = [0; 100];
    // One record comes whole or not at all.
    let read = within.read(&mut buffer).await.expect("read");
    assert_eq!(&buffer[..read], b"a head, and a body");
}

#[tokio::test]
async fn an_end_that_nobody_announced_is_an_error() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let (users, orders) = (own(&authority, service("users")), own(&authority, service("orders")));
    let door = Door::of(&users, Admit::Services).await;
    // Somebody between both cuts the connection short.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let between = listener.local_addr().expect("an address");
    let inner = door.address;
    let relay = synego_runtime::tasks::spawn("between", synego_runtime::tasks::Kind::Connection, async move {
        let (mut near, _) = listener.accept().await.expect("a connection");
        let mut far = TcpStream::connect(inner).await.expect("connected");
        let (mut from_near, mut from_far, mut passed) = ([0; 4096], [0; 4096], 0);
        while passed < 100_000 {
            tokio::select! {
                read = near.read(&mut from_near) => far.write_all(&from_near[..read.expect("read")]).await.expect("passed"),
                read = far.read(&mut from_far) => {
                    let read = read.expect("read");
                    near.write_all(&from_far[..read]).await.expect("passed");
                    passed += read;
                }
            }
        }
    });
    let (made, taken) = tokio::join!(connect(&orders, between, role("users")), door.next());
    let (mut out, (mut within, _)) = (made.expect("connected"), taken.expect("taken"));
    let _broken = within.write_all(&bytes(400_000)).await;
    let mut got = Vec::new();
    let read = out.read_to_end(&mut got).await;
    assert!(read.is_err(), "{} bytes, and nobody noticed", got.len());
    relay.await.expect("ended");
}

#[tokio::test]
async fn a_changed_record_ends_the_connection() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let (users, orders) = (own(&authority, service("users")), own(&authority, service("orders")));
    let door = Door::of(&users, Admit::Services).await;
    // Somebody between both changes one bit.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let between = listener.local_addr().expect("an address");
    let inner = door.address;
    let relay = synego_runtime::tasks::spawn("between", synego_runtime::tasks::Kind::Connection, async move {
        let (mut near, _) = listener.accept().await.expect("a connection");
        let mut far = TcpStream::connect(inner).await.expect("connected");
        let (mut from_near, mut from_far) = ([0; 65536], [0; 65536]);
        loop {
            tokio::select! {
                read = near.read(&mut from_near) => {
                    let read = read.unwrap_or(0);
                    // The one write of the test: header, six bytes, type, tag.
                    if read == 5 + 6 + 1 + 16 {
                        from_near[read - 1] ^= 1;
                    }
                    if read == 0 || far.write_all(&from_near[..read]).await.is_err() { return }
                }
                read = far.read(&mut from_far) => {
                    let read = read.unwrap_or(0);
                    if read == 0 || near.write_all(&from_far[..read]).await.is_err() { return }
                }
            }
        }
    });
    let (made, taken) = tokio::join!(connect(&orders, between, role("users")), door.next());
    let (mut out, mut within) = (made.expect("connected"), taken.expect("taken").0);
    out.write_all(b"secret").await.expect("written");
    let read = within.read(&mut [0; 16]).await.expect_err("it was changed");
    assert_eq!(read.kind(), std::io::ErrorKind::InvalidData);
    // And the other side is told.
    assert!(out.read(&mut [0; 16]).await.is_err());
    drop(out);
    relay.await.expect("ended");
}

/// Passes bytes on both ways, and changes the one at `at` of those that come from this side.
async fn meddle(near: TcpStream, far: TcpStream, from_near: bool, at: usize) {
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let pass =
        async |mut from: tokio::net::tcp::OwnedReadHalf, mut to: tokio::net::tcp::OwnedWriteHalf, at: Option<usize>| {
            let (mut buffer, mut passed) = ([0; 16_384], 0);
            while let Ok(read @ 1..) = from.read(&mut buffer).await {
                if let Some(byte) = at.and_then(|at| buffer[..read].get_mut(at.checked_sub(passed)?)) {
                    *byte ^= 0x21;
                }
                passed += read;
                if to.write_all(&buffer[..read]).await.is_err() {
                    return;
                }
            }
        };
    tokio::join!(
        pass(near_in, far_out, Some(at).filter(|_| from_near)),
        pass(far_in, near_out, Some(at).filter(|_| !from_near))
    );
}

#[tokio::test]
async fn whatever_is_changed_on_the_way_is_noticed_and_nobody_panics() {
    let authority = Authority::create(mesh(), now()).expect("an authority");
    let (users, orders) = (own(&authority, service("users")), own(&authority, service("orders")));
    let door = Door::of(&users, Admit::Services).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let between = listener.local_addr().expect("an address");
    let mut waited = 0;
    for (from_near, at) in (0..1600).step_by(3).flat_map(|at| [(true, at), (false, at)]) {
        let relay = async {
            let (near, _) = listener.accept().await.expect("a connection");
            let far = TcpStream::connect(door.address).await.expect("connected");
            Box::pin(meddle(near, far, from_near, at)).await;
        };
        let caller = async {
            let mut stream = connect(&orders, between, role("users")).await.ok()?;
            stream.write_all(b"a question").await.ok()?;
            let mut answer = [0; 9];
            stream.read_exact(&mut answer).await.ok()?;
            Some(answer)
        };
        let answerer = async {
            let (mut stream, peer) = door.next().await.ok()?;
            let mut question = [0; 10];
            stream.read_exact(&mut question).await.ok()?;
            stream.write_all(b"an answer").await.ok()?;
            Some((question, peer.id))
        };
        let all = Box::pin(async { tokio::join!(caller, answerer, relay) });
        // A length that grew makes one side wait: for that there are limits of time elsewhere.
        let Ok((heard, asked, ())) = tokio::time::timeout(Duration::from_millis(500), all).await else {
            waited += 1;
            continue;
        };
        // What got through is what was said; a byte behind the end changed nothing.
        assert!(heard.is_none_or(|answer| &answer == b"an answer"), "byte {at}");
        assert!(
            asked.is_none_or(|(question, id)| &question == b"a question" && id == Some(service("orders"))),
            "byte {at}"
        );
    }
    assert!(waited < 30, "{waited} connections waited");
}
