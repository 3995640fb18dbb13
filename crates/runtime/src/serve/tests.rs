//! Tests of our own servers, over real sockets.

use std::os::unix::fs::PermissionsExt;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::*;
use crate::lifecycle::Stopper;

type Outcome = Result<(), Box<dyn std::error::Error>>;

async fn tcp() -> io::Result<(Listener, std::net::SocketAddr)> {
    let listener = bind(&BindAddr::Tcp(([127, 0, 0, 1], 0).into())).await?;
    match listener.address()? {
        BindAddr::Tcp(address) => Ok((listener, address)),
        BindAddr::Unix(_) => Err(io::Error::other("not tcp")),
    }
}

#[tokio::test]
async fn http2_settings_carry_every_guard() -> Outcome {
    let (listener, address) = tcp().await?;
    let (stopper, stop) = Stopper::new();
    let server =
        tasks::spawn("test", tasks::Kind::Connection, serve(vec![listener], Router::new(), Profile::mesh(), stop));
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    assert_eq!(head[3], 4, "the first frame is SETTINGS");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).await?;
    let value = |id: u16| {
        settings
            .chunks_exact(6)
            .find(|entry| u16::from_be_bytes([entry[0], entry[1]]) == id)
            .map(|entry| u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
    };
    assert_eq!(value(3), Some(250), "streams at once");
    assert_eq!(value(4), Some(256 * 1024), "window of a stream");
    assert_eq!(value(6), Some(64 * 1024), "size of headers");
    stopper.cut();
    server.await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_cut_off() -> Outcome {
    let (client, server) = tokio::io::duplex(1024);
    let (_stopper, stop) = Stopper::new();
    let began = crate::clock::now();
    let serving = tasks::spawn("test", tasks::Kind::Connection, async move {
        serve_connection(server, Router::new(), &Profile::admin(), stop).await;
    });
    let (mut read, mut write) = tokio::io::split(client);
    write.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await?;
    let mut answer = Vec::new();
    read.read_to_end(&mut answer).await?;
    serving.await?;
    assert_eq!(crate::clock::now().duration_since(began).as_secs(), 10);
    Ok(())
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() -> Outcome {
    let (client, server) = tokio::io::duplex(1 << 20);
    let (_stopper, stop) = Stopper::new();
    let serving = tasks::spawn("test", tasks::Kind::Connection, async move {
        serve_connection(server, Router::new(), &Profile::admin(), stop).await;
    });
    let (mut read, mut write) = tokio::io::split(client);
    write.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(80 * 1024)).as_bytes()).await?;
    let mut answer = String::new();
    read.read_to_string(&mut answer).await?;
    serving.await?;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_unix_socket_is_private_replaces_a_dead_one_and_is_removed() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    let address = BindAddr::Unix(path.clone());
    let listener = bind(&address).await?;
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    assert!(bind(&address).await.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse));
    let (stopper, stop) = Stopper::new();
    let router = Router::new().route("/", get(|| async { "here" }));
    let server = tasks::spawn("test", tasks::Kind::Connection, serve(vec![listener], router, Profile::admin(), stop));
    let mut stream = UnixStream::connect(&path).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.ends_with("here"), "{answer}");
    stopper.stop();
    server.await?;
    assert!(!path.exists());
    Ok(())
}

#[tokio::test]
async fn a_unix_socket_lets_no_other_user_in_even_where_its_file_is_open() -> Outcome {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tested here: only root can be another user");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("s.sock");
    let listener = bind(&BindAddr::Unix(path.clone())).await?;
    // As if somebody had opened both by mistake.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let (stopper, stop) = Stopper::new();
    let router = Router::new().route("/", get(|| async { "here" }));
    let server = tasks::spawn("test", tasks::Kind::Connection, serve(vec![listener], router, Profile::admin(), stop));
    let script = "import os,socket,sys; os.setuid(int(sys.argv[2])); s=socket.socket(socket.AF_UNIX); \
                  s.connect(sys.argv[1])\n\
                  try: s.sendall(b'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n'); print(s.recv(4096))\n\
                  except ConnectionError: print('closed')";
    let ask = |uid: &str| {
        let mut asking = std::process::Command::new("python3");
        asking.args(["-c", script, &path.display().to_string(), uid]);
        tasks::spawn_blocking("ask", move || asking.output())
    };
    let own = ask("0").await??;
    assert!(String::from_utf8_lossy(&own.stdout).contains("200 OK"), "{own:?}");
    let other = ask("65534").await??;
    let heard = String::from_utf8_lossy(&other.stdout).into_owned();
    assert!(!heard.contains("HTTP") && !heard.is_empty(), "{other:?}");
    crate::config::give(&path, Some(crate::config::Owner { uid: 65534, gid: 65534 }))?;
    let given = ask("65534").await??;
    assert!(String::from_utf8_lossy(&given.stdout).contains("200 OK"), "it was given to that user: {given:?}");
    stopper.stop();
    server.await?;
    Ok(())
}

#[tokio::test]
async fn a_request_in_flight_finishes_after_the_stop() -> Outcome {
    let (listener, address) = tcp().await?;
    let (stopper, stop) = Stopper::new();
    let (began, release) =
        (std::sync::Arc::new(tokio::sync::Notify::new()), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (at_begin, at_release) = (began.clone(), release.clone());
    let slow = move || {
        let (began, release) = (at_begin.clone(), at_release.clone());
        async move {
            began.notify_one();
            release.notified().await;
            "done"
        }
    };
    let router = Router::new().route("/", get(slow));
    let server = tasks::spawn("test", tasks::Kind::Connection, serve(vec![listener], router, Profile::admin(), stop));
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    began.notified().await;
    stopper.stop();
    release.notify_one();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.ends_with("done"), "{answer}");
    server.await?;
    Ok(())
}
