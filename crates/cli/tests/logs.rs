//! What `synego logs` shows of a mesh that was started anew, and of the mesh itself.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod support;

use support::{Place, Up, wait_for};

const SERVER: &str = "require('http').createServer((q, r) => { console.log(JSON.stringify({ level: 'info', msg: 'asked for ' + q.url, request_id: q.headers['x-request-id'], thread: 'main' })); r.end('ok') }).listen(process.env.PORT, '127.0.0.1')\n";
const SHOP: &str = "mesh: shop\nmasters: { ingress: 0, mesh: 0, admin: 0 }\ngateway: { engine: master, listen: 0 }\nservices:\n  users:\n    run: node server.js\n    routes: [/users]\n";

fn shop() -> Place {
    let text = SHOP.replace("listen: 0", &format!("listen: {}", support::three_ports()));
    Place::new(&[("synego.yaml", &text), ("server.js", SERVER)])
}

/// Asks for `path`; gives the id of the request, which the border makes.
fn ask(place: &Place, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let status = place.run(&["status", "-o", "json"]).expect_code(0).json();
    let url = status["gateway"]["url"].as_str().expect("a URL").replace("localhost", "127.0.0.1");
    let host = url.strip_prefix("http://").expect("a URL");
    let mut stream = std::net::TcpStream::connect(host).expect("a connection");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("its id").to_owned()
}

fn messages(place: &Place, arguments: &[&str]) -> Vec<String> {
    let said = place.run(&[&["logs", "-o", "json"], arguments].concat()).expect_code(0).json();
    let items = said["items"].as_array().expect("items").iter();
    items
        .filter(|line| line["kind"] == "output")
        .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn since_goes_back_into_files_beyond_what_is_at_hand() {
    let place = shop();
    let up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let id = ask(&place, "/users/first");
    wait_for("the first line", || {
        messages(&place, &["users"]).contains(&"asked for /users/first".to_owned()).then_some(())
    });
    drop(up);
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    ask(&place, "/users/second");
    wait_for("the second line", || {
        messages(&place, &["users"]).contains(&"asked for /users/second".to_owned()).then_some(())
    });
    assert!(!messages(&place, &["users"]).contains(&"asked for /users/first".to_owned()), "it is not at hand");
    let both = ["asked for /users/first", "asked for /users/second"];
    assert_eq!(messages(&place, &["users", "--since", "10m", "--grep", "asked"]), both);
    assert_eq!(messages(&place, &["--service", "users", "--since", "10m", "--grep", "asked", "-n", "1"]), both[1..]);
    let none = messages(&place, &["users", "--since", "10m", "--until", "9m"]);
    assert!(none.is_empty(), "{none:?}");

    // One request of the run before, with its exchanges, in order.
    let said = place.run(&["logs", "--request", &id, "-o", "json"]).expect_code(0).json();
    let lines = said["items"].as_array().expect("items");
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["access", "access", "output"], "{lines:#?}");
    assert_eq!((&lines[0]["fields"]["hop"], &lines[1]["fields"]["hop"]), (&"ingress".into(), &"inbound".into()));
    assert_eq!((&lines[2]["thread"], &lines[2]["service"]), (&"main".into(), &"users".into()));
    let said = place.run(&["logs", "--request", "never-seen"]).expect_code(0);
    assert!(
        said.out.is_empty() && said.err.contains("no line of a request `never-seen` in the last hour"),
        "{}",
        said.err
    );
}

#[test]
fn what_the_mesh_says_and_each_exchange_are_shown_when_they_are_asked_for() {
    let place = shop();
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    ask(&place, "/users/one");
    let kinds = |arguments: &[&str]| {
        let said = place.run(&[&["logs", "-n", "1000", "-o", "json"], arguments].concat()).expect_code(0).json();
        let items = said["items"].as_array().expect("items").clone();
        let mut kinds: Vec<String> =
            items.iter().filter(|line| line["level"] == "info").map(|line| line["kind"].to_string()).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    };
    wait_for("every line", || (kinds(&["--access", "--mesh"]).len() == 3).then_some(()));
    assert_eq!(kinds(&[]), ["\"output\""]);
    assert_eq!(kinds(&["--access"]), ["\"access\"", "\"output\""]);
    assert_eq!(kinds(&["mesh"]), ["\"mesh\""]);
    let people = place.run(&["logs", "--access", "users", "--utc"]).expect_code(0).out;
    let line = people.lines().find(|line| line.contains("hop=inbound")).expect("an exchange");
    assert!(line.contains("users-1@") && line.contains("GET /users/one 200"), "{line}");
}

#[test]
fn followed_lines_are_one_object_each() {
    use std::io::{BufRead as _, BufReader};
    let place = shop();
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let mut command = place.command(&["logs", "-f", "--access", "-n", "0", "-o", "json"]);
    let mut child = support::Killed(command.stdout(std::process::Stdio::piped()).spawn().expect("synego runs"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let first: serde_json::Value = serde_json::from_str(&lines.next().expect("what is at hand")).expect("JSON");
    assert_eq!(first["kind"], "logs");
    let id = ask(&place, "/users/now");
    let mut kinds = Vec::new();
    while kinds.len() < 3 {
        let object: serde_json::Value = serde_json::from_str(&lines.next().expect("a line")).expect("JSON");
        for item in object["items"].as_array().expect("items") {
            assert_eq!(item["request_id"], id);
            kinds.push(item["kind"].to_string());
        }
    }
    kinds.sort();
    assert_eq!(kinds, ["\"access\"", "\"access\"", "\"output\""]);
}
