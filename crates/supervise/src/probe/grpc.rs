//! A probe by `grpc.health.v1.Health/Check`, written by hand: one field in each of the two messages.

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Connection;

const SERVING: u64 = 1;
/// An answer is a few bytes long.
const MAX_ANSWER: usize = 4 * 1024;

pub(super) async fn check(connection: Connection, service: &str, name: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("grpc.health.v1.Health/Check failed: {error}");
    let (mut sender, driver) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await.map_err(|error| failed(&error))?;
    let request = Request::post(format!("http://{service}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, "synego-probe")
        .body(Full::new(request_of(name)))
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            return Err(failed(&format!("HTTP status {}", head.status.as_u16())));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| failed(&error))?;
        let trailers = body.trailers().cloned().unwrap_or(head.headers);
        verdict(&trailers, &body.to_bytes(), name)
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        ended = driver => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(failed(&error)),
        },
    }
}

/// `HealthCheckRequest { service = 1 }` in its frame.
fn request_of(name: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !name.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, name.len() as u64);
        message.put_slice(name.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put(message);
    frame.freeze()
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn verdict(trailers: &HeaderMap, body: &[u8], name: &str) -> Result<(), String> {
    let text = |key: &str| trailers.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let server = || if name.is_empty() { "the server".to_owned() } else { format!("`{name}`") };
    match text("grpc-status") {
        "0" => {}
        "5" => return Err(format!("grpc.health.v1 does not know {}", server())),
        "12" => return Err("the server has no grpc.health.v1.Health".to_owned()),
        code => return Err(format!("grpc.health.v1.Health/Check answered status {code}: {}", text("grpc-message"))),
    }
    match status_of(body) {
        Some(SERVING) => Ok(()),
        Some(0) => Err(format!("{} is UNKNOWN", server())),
        Some(2) => Err(format!("{} is NOT_SERVING", server())),
        Some(3) => Err(format!("{} is SERVICE_UNKNOWN", server())),
        _ => Err("the answer to grpc.health.v1.Health/Check cannot be read".to_owned()),
    }
}

/// `HealthCheckResponse { status = 1 }`: a frame of 5 bytes before it; an empty message is `UNKNOWN`.
fn status_of(body: &[u8]) -> Option<u64> {
    match body.get(5..)? {
        [] => Some(0),
        [0x08, status] if *status < 0x80 => Some(u64::from(*status)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_framed_and_names_the_service() {
        assert_eq!(&request_of("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&request_of("a.B")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        assert_eq!(&request_of(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn only_serving_is_well() {
        let trailers = |status: &str| HeaderMap::from_iter([("grpc-status".parse().unwrap(), status.parse().unwrap())]);
        assert_eq!(verdict(&trailers("0"), &[0, 0, 0, 0, 2, 8, 1], ""), Ok(()));
        assert_eq!(verdict(&trailers("0"), &[0, 0, 0, 0, 2, 8, 2], ""), Err("the server is NOT_SERVING".into()));
        assert_eq!(verdict(&trailers("0"), &[0, 0, 0, 0, 0], "a.B"), Err("`a.B` is UNKNOWN".into()));
        assert_eq!(verdict(&trailers("5"), &[], "a.B"), Err("grpc.health.v1 does not know `a.B`".into()));
        assert_eq!(verdict(&trailers("12"), &[], ""), Err("the server has no grpc.health.v1.Health".into()));
        assert!(verdict(&trailers("0"), b"xx", "").is_err());
    }
}
