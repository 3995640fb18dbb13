//! The service behind each proxy: plain TCP, reads what arrives to the letter and keeps it.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::corpus::Request;

/// Says 200 to each request that it has read whole.
#[derive(Clone)]
pub struct Recorder {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let this = Self { port, requests: Arc::default() };
        let of = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(of.clone().serve(stream));
            }
        });
        this
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().expect("lock"))
    }

    /// How many came since then.
    pub fn count(&self) -> usize {
        self.requests.lock().expect("lock").len()
    }

    async fn serve(self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut held = Vec::new();
        while stream.read_buf(&mut held).await.is_ok_and(|read| read > 0) {
            loop {
                match parse(&held) {
                    Parsed::More => break,
                    Parsed::Whole(request, used) => {
                        held.drain(..used);
                        self.requests.lock().expect("lock").push(request);
                        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                            return;
                        }
                    }
                    // A proxy must not write such a thing; the row that made it do so shows it.
                    Parsed::Unreadable => {
                        let target = held.escape_ascii().to_string();
                        let request = Request { method: "UNREADABLE".to_owned(), target, body: Vec::new() };
                        self.requests.lock().expect("lock").push(request);
                        return;
                    }
                }
            }
        }
    }
}

enum Parsed {
    More,
    Whole(Request, usize),
    Unreadable,
}

fn parse(held: &[u8]) -> Parsed {
    let Some(end) = held.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Parsed::More };
    let head = String::from_utf8_lossy(&held[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let first: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = first[..] else { return Parsed::Unreadable };
    let (mut lengths, mut codings) = (Vec::new(), Vec::new());
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { return Parsed::Unreadable };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.trim().to_owned()),
            "transfer-encoding" => codings.push(value.trim().to_ascii_lowercase()),
            _ if line.contains(['\r', '\n', '\0']) => return Parsed::Unreadable,
            _ => {}
        }
    }
    let rest = &held[end + 4..];
    let body = match (&lengths[..], &codings[..]) {
        ([], []) => Some((Vec::new(), 0)),
        ([length], []) => {
            let Ok(length) = length.parse::<usize>() else { return Parsed::Unreadable };
            rest.get(..length).map(|body| (body.to_vec(), length))
        }
        ([], [coding]) if coding == "chunked" => match chunks(rest) {
            Ok(body) => body,
            Err(()) => return Parsed::Unreadable,
        },
        _ => return Parsed::Unreadable,
    };
    let Some((body, used)) = body else { return Parsed::More };
    Parsed::Whole(Request { method: method.to_owned(), target: short(target), body }, end + 4 + used)
}

/// A chunked body and the bytes that it takes; `None`: its end has not come yet.
fn chunks(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, ()> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = bytes[at..].windows(2).position(|end| end == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).map_err(|_| ())?;
        let size = usize::from_str_radix(size, 16).map_err(|_| ())?;
        at += line + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        if !chunk.ends_with(b"\r\n") {
            return Err(());
        }
        body.extend_from_slice(&chunk[..size]);
        at += size + 2;
    }
    loop {
        let Some(line) = bytes[at..].windows(2).position(|end| end == b"\r\n") else { return Ok(None) };
        let trailer = String::from_utf8_lossy(&bytes[at..at + line]).to_ascii_lowercase();
        // Such trailers could be taken for fields of the head.
        if ["content-length:", "transfer-encoding:", "host:"].iter().any(|name| trailer.starts_with(name)) {
            return Err(());
        }
        at += line + 2;
        if line == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// A target as it is written in the corpus: a long one by its length.
pub fn short(target: &str) -> String {
    if target.len() > 100 { format!("{}…{}", &target[..8], target.len()) } else { target.to_owned() }
}
