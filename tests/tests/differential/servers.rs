//! The servers that are compared: Synego's ingress, real nginx and HAProxy, each before a recorder, and Node's own server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use synego_testkit::{Mesh, Program, ports, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::corpus::{End, Request, View};
use crate::recorder::{Recorder, short};

/// Follows each message, on the same connection: whoever has read the message to its end reads this next.
const AFTER: &[u8] = b"GET /after HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// A server that is silent for so long waits for more of the message.
const SILENCE: Duration = Duration::from_millis(1500);

/// A server, as one connection sees it.
#[derive(Clone)]
pub struct Server {
    pub name: &'static str,
    port: u16,
    seen: Seen,
}

/// Where it is told what a server has read.
#[derive(Clone)]
enum Seen {
    By(Recorder),
    /// A line for each request.
    In(PathBuf),
}

/// Keeps the programs until the end of the test.
pub struct Running {
    pub servers: Vec<Server>,
    _mesh: Mesh,
    _programs: Vec<Program>,
    _folder: tempfile::TempDir,
}

impl Running {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let recorders = [Recorder::start().await, Recorder::start().await, Recorder::start().await];
        let [ours, nginxs, haproxys] = recorders;
        let mesh = Mesh::of(&format!(
            "mesh: differential\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: \"${{SHOP_INGRESS}}\", mesh: 0, \
             admin: 0 }}\nservices:\n  recorder: {{ address: 127.0.0.1:{}, routes: [/] }}\n",
            ours.port
        ))
        .await;
        let ingress = mesh.variable("SHOP_INGRESS").parse().expect("a port");
        let (nginx, haproxy, node) = (ports::free(), ports::free(), ports::free());
        let log = folder.path().join("seen");
        let programs = vec![
            start_nginx(folder.path(), nginx, nginxs.port),
            start_haproxy(folder.path(), haproxy, haproxys.port),
            start_node(folder.path(), node, &log),
        ];
        let servers = vec![
            Server { name: "synego", port: ingress, seen: Seen::By(ours) },
            Server { name: "nginx", port: nginx, seen: Seen::By(nginxs) },
            Server { name: "haproxy", port: haproxy, seen: Seen::By(haproxys) },
            Server { name: "node", port: node, seen: Seen::In(log.clone()) },
        ];
        for server in &servers {
            wait::until(server.name, Duration::from_secs(20), || async {
                let view = server.view(b"").await.map_err(|error| error.to_string())?;
                wait::that(view.end == End::GoesOn, view.to_string())
            })
            .await;
        }
        Self { servers, _mesh: mesh, _programs: programs, _folder: folder }
    }
}

impl Server {
    /// What it makes of a message, on a connection of its own.
    ///
    /// # Errors
    /// When it takes no connection.
    pub async fn view(&self, message: &[u8]) -> std::io::Result<View> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        // It may close before it has read all.
        let _ = stream.write_all(&[message, AFTER].concat()).await;
        let mut said = Vec::new();
        let closed = loop {
            match tokio::time::timeout(SILENCE, stream.read_buf(&mut said)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => break true,
                Err(_) => break false,
            }
        };
        drop(stream);
        let answers = answers(&said);
        let answered = answers.iter().filter(|status| **status == 200).count();
        if self.seen.count() != answered {
            // One without an answer may still be on its way.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut requests = self.seen.take();
        let after = Request { method: "GET".to_owned(), target: "/after".to_owned(), body: Vec::new() };
        let end = match answers.last().copied() {
            _ if requests.last() == Some(&after) => {
                requests.pop();
                End::GoesOn
            }
            _ if !closed => End::Waits,
            Some(status @ 400..) => End::Refuses(status),
            _ => End::Closes,
        };
        Ok(View { requests, end })
    }
}

impl Seen {
    /// What it has read since the last time.
    fn take(&self) -> Vec<Request> {
        match self {
            Self::By(recorder) => recorder.take(),
            Self::In(path) => {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                let _ = std::fs::remove_file(path);
                text.lines().map(|line| seen(line).unwrap_or_else(|| panic!("no request: {line}"))).collect()
            }
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::By(recorder) => recorder.count(),
            Self::In(path) => std::fs::read_to_string(path).unwrap_or_default().lines().count(),
        }
    }
}

/// The statuses of the answers on a connection, without those that announce another.
fn answers(mut said: &[u8]) -> Vec<u16> {
    let mut answers = Vec::new();
    while let Some(end) = said.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&said[..end]).to_ascii_lowercase();
        said = &said[end + 4..];
        let Some(status) = head.strip_prefix("http/1.").and_then(|rest| rest.get(2..5)?.parse().ok()) else { break };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        said = said.get(length.unwrap_or(0)..).unwrap_or_default();
        if status >= 200 {
            answers.push(status);
        }
    }
    answers
}

/// Method, target and body, in hexadecimal digits, with dashes between them.
fn seen(text: &str) -> Option<Request> {
    let parts: Option<Vec<Vec<u8>>> = text.split('-').map(unhex).collect();
    let [method, target, body] = <[Vec<u8>; 3]>::try_from(parts?).ok()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Some(Request { method: text(method), target: short(&text(target)), body })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn fixture(name: &str) -> PathBuf {
    synego_testkit::program::root().join("tests/fixtures/differential").join(name)
}

/// A program of the system, also where the path of a user does not lead.
fn program(name: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"].map(Path::new);
    let found = places.iter().map(|place| place.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run `scripts/setup --test`"))
}

fn start(folder: &Path, name: &str, program: &Path, args: &[&str], env: &[(&str, String)]) -> Program {
    let env: BTreeMap<String, String> = env.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    Program::start(name, program, args, folder, &env, folder)
}

/// The configuration in the fixtures, with its places filled in, as a file of this test.
fn configure(folder: &Path, name: &str, port: u16, upstream: u16) -> String {
    let text = std::fs::read_to_string(fixture(name)).expect("a configuration");
    let filled = text
        .replace("{folder}", &folder.display().to_string())
        .replace("{port}", &port.to_string())
        .replace("{upstream}", &upstream.to_string());
    let path = folder.join(name);
    std::fs::write(&path, filled).expect("a file");
    path.display().to_string()
}

fn start_nginx(folder: &Path, port: u16, upstream: u16) -> Program {
    let conf = configure(folder, "nginx.conf", port, upstream);
    let prefix = folder.display().to_string();
    start(folder, "nginx", &program("nginx"), &["-e", "stderr", "-p", &prefix, "-c", &conf], &[])
}

fn start_haproxy(folder: &Path, port: u16, upstream: u16) -> Program {
    let conf = configure(folder, "haproxy.cfg", port, upstream);
    start(folder, "haproxy", &program("haproxy"), &["-db", "-f", &conf], &[])
}

fn start_node(folder: &Path, port: u16, log: &Path) -> Program {
    let script = fixture("server.js").display().to_string();
    start(
        folder,
        "node",
        Path::new("node"),
        &[&script],
        &[("PORT", port.to_string()), ("SEEN", log.display().to_string())],
    )
}
