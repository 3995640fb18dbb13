//! Two machines, each a network namespace of its own: `synego up` in both, one joined by a token, serve one mesh.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use synego_testkit::mesh::Home;
use synego_testkit::program::{Program, binary};
use synego_testkit::wait;

const FIRST: &str = "10.213.77.1";
const SECOND: &str = "10.213.77.2";

/// Says who it is; `orders` asks `users` as well.
const SERVER: &str = r#"
const http = require("node:http");
const users = process.env.SYNEGO_URL_USERS;
const own = (answer) => answer.end(process.env.SYNEGO_INSTANCE);
http.createServer((_, answer) => {
  if (!users) return own(answer);
  http.get(users, (asked) => {
    let said = "";
    asked.on("data", (part) => (said += part));
    asked.on("end", () => answer.end(`${process.env.SYNEGO_INSTANCE} asked ${said}`));
  }).on("error", (error) => { answer.statusCode = 500; answer.end(String(error)); });
}).listen(process.env.PORT, "127.0.0.1");
"#;

fn manifest() -> String {
    format!(
        "mesh: shop\ngateway: {{ engine: master, listen: 8080 }}\n\
         masters: {{ mesh: \"{FIRST}:3001\", ingress: 3000, admin: 3002 }}\nservices:\n  \
         users: {{ run: node server.js, routes: [/users] }}\n  \
         orders: {{ run: node server.js, routes: [/orders], uses: [users] }}\n"
    )
}

/// Two namespaces with one cable between them; gone with the test.
struct Cable {
    names: [String; 2],
}

impl Cable {
    /// `None` where this user may not make namespaces, with the reason.
    fn lay() -> Result<Self, String> {
        let id = std::process::id();
        let cable = Self { names: [format!("synego-{id}-a"), format!("synego-{id}-b")] };
        for name in &cable.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        let [one, other] = cable.names.each_ref().map(String::as_str);
        ip(&["-n", one, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", other])?;
        for (name, address) in [(one, FIRST), (other, SECOND)] {
            ip(&["-n", name, "address", "add", &format!("{address}/30"), "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
        }
        Ok(cable)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.names {
            let _gone = ip(&["netns", "delete", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    wait::that(output.status.success(), format!("ip {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// One of them.
struct Machine {
    name: String,
    node: &'static str,
    home: Home,
    folder: PathBuf,
}

impl Machine {
    fn new(cable: &Cable, at: usize, node: &'static str) -> Self {
        let home = Home::default();
        let folder = home.path().join("manifest");
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("synego.yaml"), manifest()).expect("the manifest");
        fs::write(folder.join("server.js"), SERVER).expect("the service");
        Self { name: cable.names[at].clone(), node, home, folder }
    }

    fn variables(&self) -> std::collections::BTreeMap<String, String> {
        let mut variables = self.home.variables();
        variables.insert("SYNEGO_NODE".into(), self.node.into());
        variables
    }

    /// Starts `synego` with these arguments here.
    fn start(&self, args: &[&str]) -> Program {
        let synego = binary("synego").display().to_string();
        let all = [&["netns", "exec", self.name.as_str(), synego.as_str()][..], args].concat();
        let logs = self.home.path().join("logs");
        Program::start(self.node, &PathBuf::from("ip"), all, &self.folder, &self.variables(), &logs)
    }

    /// Runs a program here to its end.
    fn run(&self, program: &str, args: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(args).current_dir(&self.folder);
        command.envs(self.variables()).stdin(Stdio::null()).output().expect("ip runs")
    }

    async fn until_said(&self, what: &str, program: &str, args: &[&str], expected: &str) {
        wait::until(what, Duration::from_secs(30), || async {
            let output = self.run(program, args);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let problem = String::from_utf8_lossy(&output.stderr).into_owned();
            wait::that(said.contains(expected), format!("{said} {problem}"))
        })
        .await;
    }

    async fn answers(&self, url: &str, expected: &str) {
        self.until_said(&format!("{url} answers {expected}"), "curl", &["-s", "--max-time", "5", url], expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_serve_one_mesh_after_one_token_and_one_command() {
    let cable = match Cable::lay() {
        Ok(cable) => cable,
        Err(why) => {
            eprintln!("not tested here: network namespaces cannot be made ({why})");
            return;
        }
    };
    let (first, second) = (Machine::new(&cable, 0, "vm1"), Machine::new(&cable, 1, "vm2"));
    let synego = binary("synego").display().to_string();
    let _up = first.start(&["up", "--only", "users"]);
    first.answers("http://127.0.0.1:8080/users", "users-1").await;

    let token = second.home.path().join("state/token").display().to_string();
    let made = first.run(&synego, &["token", "create", "--out", &token]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let master = format!("{FIRST}:3001");
    let join = ["up", "--only", "orders", "--join", master.as_str()];
    let mut joined = second.start(&[&join[..], &["--token-file", &token]].concat());
    // In at the first machine, over to the second, and from there to the service of the first.
    first.answers("http://127.0.0.1:8080/orders", "orders-1 asked users-1").await;
    let known = first.run(&synego, &["get", "instances", "-o", "name"]);
    let known = String::from_utf8_lossy(&known.stdout).into_owned();
    assert!(known.contains("users-1@vm1") && known.contains("orders-1@vm2"), "{known}");

    // The second machine starts anew, without the token.
    fs::remove_file(&token).expect("the token is there");
    let ended = joined.stop(Duration::from_secs(30));
    assert!(ended.success(), "{ended}: {}", joined.output());
    let _again = second.start(&join);
    first.answers("http://127.0.0.1:8080/orders", "orders-1 asked users-1").await;
}
