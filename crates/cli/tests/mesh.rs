//! A mesh in the background and every command that speaks to it, with real processes.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod support;

use support::{Place, Up, wait_for};

const SERVER: &str = "require('http').createServer((q, r) => { console.log('asked for ' + q.url); r.end(process.env.SYNEGO_INSTANCE) }).listen(process.env.PORT, '127.0.0.1')\n";

/// A manifest on free ports, served by the master itself.
fn shop(services: &str) -> String {
    format!(
        "mesh: shop\nmasters: {{ ingress: 0, mesh: 0, admin: 0 }}\ngateway: {{ engine: master, listen: 0 }}\nservices:\n{services}"
    )
}

const TWO: &str = "  users:\n    run: node server.js\n    instances: 2\n    routes: [/users]\n  orders:\n    run: node server.js\n    routes: [/orders]\n    uses: [users]\n    after: [users]\n";

fn get(url: &str) -> String {
    use std::io::{Read as _, Write as _};
    let rest = url.strip_prefix("http://").expect("a URL");
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, path.to_owned()));
    let mut stream = std::net::TcpStream::connect(host.replace("localhost", "127.0.0.1")).expect("a connection");
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    // A connection that was cut off leaves what came before.
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn up_in_the_background_returns_when_all_is_ready_and_every_command_sees_it() {
    let text = shop(TWO).replace("listen: 0", &format!("listen: {}", support::three_ports()));
    let place = Place::new(&[("synego.yaml", &text), ("server.js", SERVER)]);
    let up = Up::of(&place);
    let said = place.run(&["up", "-d"]).expect_code(0);
    assert!(said.out.starts_with("shop · 2 services, 3 instances · all ready in "), "{}", said.out);

    let status = place.run(&["status", "-o", "json"]).expect_code(0).json();
    assert_eq!((&status["kind"], &status["mesh"]), (&"status".into(), &"shop".into()));
    let users =
        &status["items"].as_array().expect("items").iter().find(|item| item["service"] == "users").expect("users");
    assert_eq!((users["ready"].as_u64(), users["wanted"].as_u64()), (Some(2), Some(2)));
    let url = status["gateway"]["url"].as_str().expect("a URL").to_owned();
    assert!(get(&format!("{url}/orders")).ends_with("orders-1"));
    let lost = get(&format!("{url}/nowhere"));
    assert!(lost.starts_with("HTTP/1.1 404") && lost.contains("\"reason\":\"no_route\""), "{lost}");

    let names = place.run(&["get", "instances", "-o", "name"]).expect_code(0).out;
    assert_eq!(names.lines().count(), 3, "{names}");
    assert!(names.contains("users-2@"), "{names}");
    assert!(place.run(&["status", "nothing"]).expect_code(1).err.contains("has no service `nothing`"));
    assert!(place.run(&["get", "routes", "/nothing"]).expect_code(1).err.contains("has no route `/nothing`"));
    assert!(place.run(&["get", "routes"]).expect_code(0).out.contains("/users"));
    for kind in ["services", "instances", "endpoints", "routes", "policies", "nodes", "masters"] {
        let value = place.run(&["get", kind, "-o", "json"]).expect_code(0).json();
        assert_eq!(value["kind"], kind);
        assert!(!value["items"].as_array().expect("items").is_empty(), "no {kind}");
    }

    let lines = wait_for("the line of the request", || {
        let said = place.run(&["logs", "orders", "-o", "json"]).expect_code(0).json();
        let lines = said["items"].as_array().expect("items").clone();
        lines.iter().any(|line| line["message"] == "asked for /orders").then_some(lines)
    });
    assert!(lines.iter().all(|line| line["service"] == "orders"));
    assert!(place.run(&["logs", "--grep", "never said"]).expect_code(0).out.is_empty());
    assert_eq!(place.run(&["version", "-o", "json"]).expect_code(0).json()["items"].as_array().map(Vec::len), Some(2));

    place.write("synego.yaml", &text.replace("run: node", "runs: node"));
    let refused = place.run(&["check"]).expect_code(1).out;
    assert!(refused.trim_end().ends_with("stays in force") && refused.contains("is refused, epoch "), "{refused}");
    place.run(&["status"]).expect_code(0);
    place.write("synego.yaml", &text);

    let again = place.run(&["up", "-d"]).expect_code(1);
    assert!(
        again.err.starts_with("error: the mesh `shop` runs already on this machine\ncause: process "),
        "{}",
        again.err
    );
    drop(up);
    assert!(place.run(&["status"]).expect_code(1).err.contains("nothing listens"));
}

#[test]
fn plan_shows_what_apply_changes_and_a_broken_manifest_changes_nothing() {
    let place = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    assert!(place.run(&["plan", "--exit-code"]).expect_code(0).out.starts_with("no change"));

    place.write("synego.yaml", &shop(&TWO.replace("[/orders]", "[/orders, /more]")));
    let plan = place.run(&["plan", "--exit-code", "-o", "json"]).expect_code(3).json();
    assert_eq!(
        (&plan["items"][0]["path"], &plan["items"][0]["effect"]),
        (&"services.orders.routes".into(), &"live".into())
    );
    assert!(place.run(&["get", "routes", "/more"]).expect_code(1).out.is_empty(), "a plan changes nothing");
    place.run(&["apply"]).expect_code(0);
    wait_for("the new route", || (place.run(&["get", "routes", "/more"]).code == Some(0)).then_some(()));

    place.write("synego.yaml", &shop(&TWO.replace("[/orders]", "[orders]")));
    let said = place.run(&["apply"]).expect_code(1);
    assert!(
        said.err.contains("error[bad_place]") && said.err.contains("is refused, nothing was changed"),
        "{}",
        said.err
    );
    place.run(&["get", "routes", "/more"]).expect_code(0);

    place.write("synego.yaml", &shop(&TWO.replace("instances: 2", "instances: 2\n    version: 2.0.0")));
    let said = place.run(&["apply", "-y"]).expect_code(1);
    assert!(said.err.contains("cause: not_live: "), "{}", said.err);
    place.run(&["get", "routes", "/more"]).expect_code(0);
}

#[test]
fn apply_does_not_remove_a_service_unasked() {
    let place = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let fewer = TWO.split("  orders:").next().expect("users");
    place.write("synego.yaml", &shop(fewer));
    let said = place.run(&["apply"]).expect_code(2);
    assert!(said.err.contains("unasked") && said.err.contains("agree beforehand with `--yes`"), "{}", said.err);
}

#[test]
fn a_service_that_does_not_start_is_named_with_its_cause_and_last_lines_and_the_rest_runs_on() {
    let broken = format!(
        "{TWO}  broken:\n    run: [node, -e, \"console.error('no database');process.exit(3)\"]\n    routes: []\n"
    );
    let place = Place::new(&[("synego.yaml", &shop(&broken)), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    let said = place.run(&["up", "-d"]).expect_code(1);
    assert!(said.err.contains("error: broken is not ready; 2 of 3 services run on\n"), "{}", said.err);
    assert!(said.err.contains("exited with code 3") && said.err.contains("no database"), "{}", said.err);
    assert!(said.err.contains("`synego logs broken`"), "{}", said.err);
    assert_eq!(place.run(&["status", "users", "--strict"]).code, Some(0));
    assert_eq!(place.run(&["status", "--strict"]).code, Some(1));
}

#[test]
fn only_some_services_can_be_started() {
    let place = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    let said = place.run(&["up", "-d", "--only", "user"]).expect_code(2);
    assert!(said.err.contains("nearest: `users`"), "{}", said.err);
    place.run(&["up", "-d", "--only", "users"]).expect_code(0);
    assert_eq!(place.run(&["get", "instances", "-o", "name"]).expect_code(0).out.lines().count(), 2);
}

#[test]
fn the_older_file_alone_gives_a_master_that_answers_no_route() {
    let port = support::three_ports();
    let text = format!(r#"{{"nodes":[{{"type":"master","host":"localhost","port":{port}}}]}}"#);
    let place = Place::new(&[("synego.config.json", &text)]);
    let _up = Up::of(&place);
    place.run(&["start", "-d"]).expect_code(0);
    let answer = get(&format!("http://127.0.0.1:{port}/x"));
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("x-synego-reason: no_route"), "{answer}");
    assert!(answer.contains("{\"code\":404,"), "{answer}");
}

#[test]
fn a_second_machine_joins_the_mesh_of_the_first() {
    let place = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    place.run(&["up", "-d", "--only", "users"]).expect_code(0);
    let masters = place.run(&["get", "masters", "-o", "json"]).expect_code(0).json();
    let address = masters["items"][0]["mesh"].as_str().expect("the mesh API").to_owned();
    let other = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let joined = Up::of(&other);
    let join = ["up", "-d", "--only", "orders", "--node", "vm2", "--join", &address];
    let stranger = other.run(&join).expect_code(1);
    assert!(stranger.err.contains("synego token create"), "{}", stranger.err);
    let token = other.path().join("token").display().to_string();
    place.run(&["token", "create", "--out", &token]).expect_code(0);
    other.run(&[&join[..], &["--token-file", &token]].concat()).expect_code(0);
    let names = place.run(&["get", "instances", "-o", "name"]).expect_code(0).out;
    assert!(names.contains("orders-1@vm2"), "{names}");
    assert!(other.run(&["logs"]).expect_code(0).err.is_empty());
    let down = other.run(&["down"]).expect_code(0);
    assert!(down.out.contains("orders-1@vm2"), "{}", down.out);
    drop(joined);
    wait_for("the end of the joined instance", || {
        (!place.run(&["get", "instances", "-o", "name"]).out.contains("orders-1@vm2")).then_some(())
    });
}

#[test]
fn watch_tells_changes_line_by_line_where_there_is_no_terminal() {
    use std::io::{BufRead as _, BufReader};
    let place = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let mut command = place.command(&["status", "--watch=100ms", "-o", "json"]);
    let mut child = support::Killed(command.stdout(std::process::Stdio::piped()).spawn().expect("synego runs"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("stdout")).lines();
    let first: serde_json::Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
    assert_eq!(first["kind"], "status");
    let pid =
        place.run(&["get", "instances", "users-1", "-o", "json"]).expect_code(0).json()["items"][0]["pid"].clone();
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let told = lines.take(200).map_while(Result::ok).any(|line| {
        let view: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        view["items"].as_array().expect("items").iter().any(|item| item["service"] == "users" && item["ready"] == 1)
    });
    assert!(told, "the killed instance was never missing");
}

#[test]
fn in_the_foreground_output_goes_to_stdout_words_to_stderr_and_term_drains() {
    let place = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let mut command = place.command(&["up"]);
    let (out, err) = (place.path().join("out.txt"), place.path().join("err.txt"));
    let file = |path: &std::path::Path| std::fs::File::create(path).expect("a file");
    let mut child = support::Killed(command.stdout(file(&out)).stderr(file(&err)).spawn().expect("synego runs"));
    let text = |path: &std::path::Path| std::fs::read_to_string(path).expect("a file");
    let ready = wait_for("all ready", || {
        let words = text(&err);
        words.lines().find(|line| line.contains("all ready in")).map(str::to_owned)
    });
    let url = ready.rsplit(' ').next().expect("a URL").to_owned();
    assert!(get(&format!("{url}/orders")).ends_with("orders-1"));
    wait_for("the line of the request", || text(&out).contains("orders-1  info   asked for /orders").then_some(()));
    assert!(text(&err).contains("users-1@") && text(&err).contains("starting → ready"), "{}", text(&err));
    let pid = child.0.id().to_string();
    assert!(std::process::Command::new("kill").arg(&pid).status().expect("kill runs").success());
    assert_eq!(child.0.wait().expect("it ends").code(), Some(0));
    assert!(text(&err).trim_end().ends_with("ended"), "{}", text(&err));
    assert!(!text(&out).contains("draining"), "{}", text(&out));
}

#[test]
fn logs_go_on_with_new_lines_as_objects_of_their_own() {
    use std::io::{BufRead as _, BufReader};
    let place = Place::new(&[("synego.yaml", &shop(TWO)), ("server.js", SERVER)]);
    let _up = Up::of(&place);
    let up = place.run(&["up", "-d", "-o", "json"]).expect_code(0).json();
    let url = up["gateway"]["url"].as_str().expect("a URL").to_owned();
    let mut command = place.command(&["logs", "-f", "-o", "json"]);
    let mut child = support::Killed(command.stdout(std::process::Stdio::piped()).spawn().expect("synego runs"));
    let mut lines = BufReader::new(child.0.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    let first: serde_json::Value = serde_json::from_str(&lines.next().expect("the recent lines")).expect("JSON");
    assert_eq!(first["kind"], "logs");
    assert!(get(&format!("{url}/users")).contains("users-"));
    let told = lines.take(50).any(|line| {
        let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        object["items"].as_array().expect("items").iter().any(|item| item["message"] == "asked for /users")
    });
    assert!(told, "the line never came");
}

#[test]
fn what_does_not_finish_in_time_is_told_as_cut_off() {
    let slow = "require('http').createServer((q, r) => { console.log('begun'); setTimeout(() => r.end('late'), 60000) }).listen(process.env.PORT)\nprocess.on('SIGTERM', () => {})\n";
    let place = Place::new(&[("synego.yaml", &shop("  slow:\n    run: node slow.js\n")), ("slow.js", slow)]);
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let url = url(&place);
    let asking = std::thread::Builder::new().spawn(move || get(&url)).expect("a thread");
    wait_for("the request", || place.run(&["logs"]).out.contains("begun").then_some(()));
    let down = place.run(&["down", "--within", "1s", "-o", "json"]).expect_code(1).json();
    let items = down["items"].as_array().expect("items");
    let slow = items.iter().find(|item| item["instance"].as_str().is_some_and(|id| id.starts_with("slow-1@")));
    assert_eq!(slow.expect("the instance")["outcome"], "cut_off", "{down}");
    assert!(!asking.join().expect("an answer of some kind").ends_with("late"));
}

/// The URL of the gateway of a running mesh.
fn url(place: &Place) -> String {
    let status = place.run(&["status", "-o", "json"]).expect_code(0).json();
    status["gateway"]["url"].as_str().expect("a URL").to_owned()
}

#[test]
fn nginx_serves_files_and_passes_the_rest_on() {
    let text = shop(TWO).replace("engine: master, listen: 0", "engine: nginx, listen: 0, static: { /files: ./public }");
    let place = Place::new(&[("synego.yaml", &text), ("server.js", SERVER), ("public/a.txt", "a file\n")]);
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let url = url(&place);
    assert!(get(&format!("{url}/files/a.txt")).ends_with("a file\n"));
    assert!(get(&format!("{url}/orders")).ends_with("orders-1"));
    assert!(get(&format!("{url}/nowhere")).contains("\"reason\":\"no_route\""));
}

#[test]
fn without_nginx_the_master_serves_the_routes_and_says_what_is_missing() {
    let text = shop(TWO).replace("engine: master, listen: 0", "listen: 0, static: { /files: ./public }");
    let place = Place::new(&[("synego.yaml", &text), ("server.js", SERVER), ("public/a.txt", "a file\n")]);
    let _up = Up::of(&place);
    let output = place.command(&["up", "-d"]).env("SYNEGO_NGINX", "/nowhere/nginx").output().expect("synego runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(err.contains("no Nginx is installed") && err.contains("static files are not served"), "{err}");
    assert!(get(&format!("{}/orders", url(&place))).ends_with("orders-1"));
}
