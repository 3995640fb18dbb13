//! What callers see: handlers, extractors, errors, time limits and health, over real connections.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use synego_sdk::testing::{Mesh, TestMesh};
use synego_sdk::{Code, Ctx, Error, Json, Need, Options, Path, Query, Retry, Service, ServiceAddress, StatusCode};

#[derive(Debug, Serialize, Deserialize, PartialEq)]
struct User {
    id: u64,
    name: String,
}

#[derive(Deserialize)]
struct Page {
    from: u64,
}

async fn mesh(service: Service) -> Mesh {
    TestMesh::new().service(service).start().await.unwrap()
}

/// Status, headers of interest and JSON body of a raw answer, as a foreign client sees it.
async fn raw(mesh: &Mesh, method: &str, path: &str, body: Option<&str>) -> (u16, Value, Value) {
    let mut call =
        mesh.client().request(method.parse().unwrap(), format!("http://users{path}")).header("x-request-id", "r-1");
    if let Some(body) = body {
        call = call.header("content-type", "application/json").body(body.to_owned());
    }
    let answer = call.await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let told = ["x-synego-reason", "allow", "retry-after"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), Value::from(headers.get(name)?.to_str().unwrap()))));
    let told = Value::Object(told.collect());
    let body = answer.bytes().await.unwrap();
    (status, told, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_handler_gets_its_parameters_and_answers_json() {
    let users = Service::new("users")
        .handle("GET /users/{id}", async |Path(id): Path<u64>| Json(User { id, name: "Ada".to_owned() }))
        .handle("GET /users", async |Query(page): Query<Page>| Json(page.from))
        .handle("POST /users", async |Json(user): Json<User>| (StatusCode::CREATED, Json(user)));
    let mesh = mesh(users).await;
    let user: User = mesh.get("http://users/users/42").await.unwrap().json().await.unwrap();
    assert_eq!(user, User { id: 42, name: "Ada".to_owned() });
    assert_eq!(mesh.get("http://users/users?from=7").await.unwrap().json::<u64>().await.unwrap(), 7);
    let created = mesh.post("http://users/users").json(&user).await.unwrap();
    assert_eq!(created.status(), StatusCode::CREATED);
    assert_eq!(created.json::<User>().await.unwrap(), user);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_refused_in_the_json_form_with_the_requests_id() {
    let users = Service::new("users")
        .handle("GET /users/{id}", async |Path(id): Path<u64>| Json(id))
        .handle("GET /users", async |Query(page): Query<Page>| Json(page.from))
        .handle("POST /users", async |Json(user): Json<User>| Json(user));
    let mesh = mesh(users).await;
    let (status, told, body) = raw(&mesh, "POST", "/users", Some(r#"{"id":"x"}"#)).await;
    assert_eq!((status, &told), (400, &json!({ "x-synego-reason": "invalid_body" })));
    assert_eq!(
        (&body["code"], &body["reason"], &body["request_id"]),
        (&400.into(), &"invalid_body".into(), &"r-1".into())
    );
    assert!(body["msg"].as_str().unwrap().starts_with("id: invalid type"), "{body}");
    let (status, _, body) = raw(&mesh, "GET", "/users/ada", None).await;
    assert_eq!((status, &body["reason"]), (400, &"invalid_path".into()));
    let (status, _, body) = raw(&mesh, "GET", "/users?from=ada", None).await;
    assert_eq!((status, &body["reason"]), (400, &"invalid_query".into()));
    let large = format!(r#"{{"id":1,"name":"{}"}}"#, "a".repeat(11 * 1024 * 1024));
    let (status, _, body) = raw(&mesh, "POST", "/users", Some(&large)).await;
    assert_eq!((status, &body["reason"]), (413, &"body_too_large".into()));
    let (status, _, body) = raw(&mesh, "GET", "/nothing", None).await;
    assert_eq!((status, &body["reason"]), (404, &"no_handler".into()));
    let (status, told, body) = raw(&mesh, "DELETE", "/users", None).await;
    assert_eq!(
        (status, &told["allow"], &body["reason"]),
        (405, &"GET, HEAD, POST".into(), &"method_not_allowed".into())
    );
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_failure_tells_its_reason_and_a_foreign_one_or_a_panic_tells_nothing() {
    let users = Service::new("users")
        .handle("GET /taken", async || {
            let busy = Error::new(Code::AlreadyExists, "name in use").reason("name_taken");
            Err::<(), _>(busy.with_retry_after(Duration::from_millis(1500)))
        })
        .handle("GET /foreign", async || Err::<(), _>(Error::foreign("password is hunter2")))
        .handle("GET /panic", async || -> Json<u64> { panic!("password is hunter2") });
    let mesh = mesh(users).await;
    let (status, told, body) = raw(&mesh, "GET", "/taken", None).await;
    assert_eq!((status, told), (409, json!({ "retry-after": "2" })));
    assert_eq!(body, json!({ "code": 409, "msg": "name in use", "reason": "name_taken", "request_id": "r-1" }));
    for path in ["/foreign", "/panic"] {
        let (status, told, body) = raw(&mesh, "GET", path, None).await;
        assert_eq!((status, told), (500, json!({})));
        assert_eq!(body, json!({ "code": 500, "msg": "internal error", "reason": "internal", "request_id": "r-1" }));
    }
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_run_that_lasts_too_long_is_dropped_and_counted() {
    let dropped = std::sync::Arc::new(tokio::sync::Notify::new());
    let told = dropped.clone();
    let slow = async move || {
        struct Tell(std::sync::Arc<tokio::sync::Notify>);
        impl Drop for Tell {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }
        let _tell = Tell(told.clone());
        std::future::pending::<()>().await;
    };
    let options = Options::inline().timeout(Duration::from_millis(20));
    let mesh = mesh(Service::new("users").handle_with("GET /slow", options, slow)).await;
    let (status, told, body) = raw(&mesh, "GET", "/slow", None).await;
    assert_eq!((status, &told["x-synego-reason"]), (504, &"handler_timeout".into()));
    assert_eq!(body["msg"], "no answer within 20 ms");
    dropped.notified().await;
    let load = mesh.until_load("users", |load| load.handler.iter().any(|handler| handler.timed_out_total == 1)).await;
    assert_eq!(load.unwrap().handler[0].running, 0);
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn a_requests_own_deadline_ends_a_handler_but_not_a_streaming_one() {
    let wait = async || tokio::time::sleep(Duration::from_millis(100)).await;
    let users = Service::new("users").handle("GET /plain", wait).handle_with(
        "GET /stream",
        Options::inline().streaming(),
        wait,
    );
    let mesh = mesh(users).await;
    let address = mesh.address("users").unwrap();
    for (path, status) in [("/plain", 504), ("/stream", 200)] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: users\r\nx-synego-timeout: 20\r\nconnection: close\r\n\r\n");
        let answer = exchange(address, &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    mesh.stop().await.unwrap();
}

async fn exchange(address: &ServiceAddress, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address.to_string()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_the_context() {
    let (sender, mut cancelled) = tokio::sync::mpsc::channel(1);
    let handler = async move |ctx: Ctx| {
        let sender = sender.clone();
        tokio::spawn(async move {
            ctx.cancelled().await;
            sender.send(()).await
        });
        std::future::pending::<()>().await;
    };
    let mesh = mesh(Service::new("users").handle("GET /wait", handler)).await;
    let address = mesh.address("users").unwrap();
    let stream = tokio::net::TcpStream::connect(address.to_string()).await.unwrap();
    stream.writable().await.unwrap();
    assert!(stream.try_write(b"GET /wait HTTP/1.1\r\nhost: users\r\n\r\n").unwrap() > 0);
    mesh.until_load("users", |load| load.handler.iter().any(|handler| handler.running == 1)).await.unwrap();
    drop(stream);
    cancelled.recv().await.unwrap();
    mesh.stop().await.unwrap();
}

#[tokio::test]
async fn health_tells_the_checks_over_http_and_on_the_link() {
    let ledger = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = ledger.clone();
    let check = move |_| {
        let is_up = asked.load(std::sync::atomic::Ordering::SeqCst);
        async move { if is_up { Ok(()) } else { Err("no ledger") } }
    };
    let users =
        Service::new("users").check("ledger", check, Need::Optional).check("disk", async |_| (), Need::Required);
    let running = users.listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
    let answer = exchange(running.address(), "GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with(r#"{"phase":"degraded","failing":["ledger"]}"#), "{answer}");
    running.stop();
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_failed_required_check_makes_the_service_not_ready_but_alive() {
    let users = Service::new("users").check("ledger", async |_| Err::<(), _>("no ledger"), Need::Required);
    let running = users.listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
    for (path, status) in [("/readyz", 503), ("/livez", 200)] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = exchange(running.address(), &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    running.stop();
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn all_mistakes_of_a_declaration_are_told_at_once() {
    let service = Service::new("Users")
        .version("v".repeat(65))
        .route("no slash")
        .handle("users", async || ())
        .handle("GET /a/{x}", async || ())
        .handle("GET /a/{y}", async || ());
    let error = service.start().await.unwrap_err();
    for part in [
        "service: `Users` is not a name",
        "version: has 65 bytes",
        "`users` is not a pattern",
        "take the same requests",
        "handlers.route[0]: ",
    ] {
        assert!(error.message().contains(part), "{part}: {error}");
    }
    assert_eq!((error.code(), error.retry()), (Code::InvalidArgument, Retry::Never));
}

#[tokio::test]
async fn a_start_hook_that_fails_ends_the_start_with_its_cause() {
    let service = Service::new("users").listen(([127, 0, 0, 1], 0).into());
    let error = service.on_start(async || Err::<(), _>("cache is cold")).start().await.unwrap_err();
    assert_eq!(error.to_string(), "a start hook failed: cache is cold");
}

#[tokio::test]
async fn a_web_socket_is_a_handler_like_any_other() {
    use futures_util::{SinkExt, StreamExt};
    use synego_sdk::axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
    let echo = async |mut socket: WebSocket| {
        while let Some(Ok(Message::Text(text))) = socket.recv().await {
            socket.send(Message::Text(text)).await.unwrap();
        }
    };
    let rooms = async move |Path(room): Path<String>, upgrade: WebSocketUpgrade| {
        assert_eq!(room, "tea");
        upgrade.on_upgrade(echo)
    };
    let running = Service::new("chat")
        .listen(([127, 0, 0, 1], 0).into())
        .handle("GET /rooms/{room}", rooms)
        .start()
        .await
        .unwrap();
    let url = format!("ws://{}/rooms/tea", running.address());
    let stream = tokio::net::TcpStream::connect(running.address().to_string()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    for text in ["one", "two"] {
        socket.send(text.into()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), text);
    }
    drop(socket);
    running.stop();
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_streamed_answer_arrives_piece_by_piece() {
    use futures_util::StreamExt;
    use synego_sdk::axum::body::{Body, Bytes};
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::convert::Infallible>>(1);
    let receiver = std::sync::Mutex::new(Some(receiver));
    let receiver = std::sync::Arc::new(receiver);
    let feed = async move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(receiver))
    };
    let mesh = mesh(Service::new("users").handle_with("GET /feed", Options::inline().streaming(), feed)).await;
    let mut body = mesh.get("http://users/feed").await.unwrap().into_body().into_data_stream();
    for piece in ["one", "two"] {
        // The second piece is made only after the first has arrived.
        sender.send(Ok(Bytes::from(piece))).await.unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), piece);
        let load = mesh.until_load("users", |load| load.open_streams == 1).await.unwrap();
        assert_eq!(load.handler[0].running, 1, "the answer is still on its way");
    }
    drop(sender);
    assert!(body.next().await.is_none());
    mesh.until_load("users", |load| load.open_streams == 0).await.unwrap();
    mesh.stop().await.unwrap();
}
