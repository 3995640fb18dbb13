//! A master and sidecars as programs of their own, with certificates: each sidecar joins by a token.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::http::HttpClient;
use crate::mesh::Home;
use crate::program::{self, Program, binary};
use crate::{fault, ports, wait};

/// A master and sidecars.
#[derive(Debug)]
pub struct Daemons {
    // In this order they end: the folder goes last, when nobody writes into it any more.
    /// The sidecars that run, in the order of their start.
    pub sidecars: Vec<Program>,
    master: Option<Program>,
    ports: [u16; 3],
    life: String,
    args: Vec<String>,
    /// Where they keep things.
    pub home: Home,
}

/// Where one sidecar listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// For its peers.
    pub inbound: u16,
    /// For its own process.
    pub outbound: u16,
    /// For people: metrics and health.
    pub admin: u16,
}

impl Daemons {
    /// A master whose certificates live so long, such as `60s`.
    #[must_use]
    pub fn start(life: &str) -> Self {
        Self::start_with(life, &[], &[])
    }

    /// The same with further arguments of the master. `files` are laid into the folder before: name and text.
    #[must_use]
    pub fn start_with(life: &str, args: &[&str], files: &[(&str, &str)]) -> Self {
        let ports = [ports::free(), ports::free(), ports::free()];
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let home = Home::default();
        for (name, text) in files {
            std::fs::write(home.path().join(name), text).expect("a file of the test");
        }
        let mut daemons = Self { sidecars: Vec::new(), master: None, ports, life: life.to_owned(), args, home };
        daemons.start_master();
        daemons
    }

    /// Starts the master, which must not run.
    pub fn start_master(&mut self) {
        let [ingress, mesh, admin] = self.ports.map(|port| port.to_string());
        let mut args = ["--ingress", &ingress, "--mesh", &mesh].map(str::to_owned).to_vec();
        if !self.args.iter().any(|arg| arg == "--admin") {
            args.extend(["--admin".to_owned(), admin]);
        }
        args.extend(self.args.iter().cloned());
        let logs = self.home.path().join("logs");
        let program = binary("synego-master");
        self.master = Some(Program::start("master", &program, args, self.home.path(), &self.variables(), &logs));
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = self.home.variables();
        variables.insert("SYNEGO_CERTIFICATE_LIFE".into(), self.life.clone());
        variables
    }

    /// The master that runs.
    ///
    /// # Panics
    /// When none does.
    pub fn master(&mut self) -> &mut Program {
        self.master.as_mut().expect("a master")
    }

    /// Ends the master at once.
    ///
    /// # Panics
    /// When it does not end.
    pub fn kill_master(&mut self) {
        let mut master = self.master.take().expect("a master");
        fault::kill(master.pid());
        assert!(!master.wait(Duration::from_secs(5)).success(), "the fault took place");
    }

    /// Ends the master as its user would.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop_master(&mut self) {
        let mut master = self.master.take().expect("a master");
        let status = master.stop(Duration::from_secs(30));
        assert!(status.success(), "{status}: {}", master.output());
    }

    /// A sidecar with a service of Node.js, which may call `users`.
    pub fn start_sidecar(&mut self, instance: &str, token: Option<&Path>) -> Ports {
        let (sidecar, ports) = self.sidecar(instance, token);
        self.sidecars.push(sidecar);
        ports
    }

    /// The same for whoever ends it before the mesh ends.
    #[must_use]
    pub fn sidecar(&self, instance: &str, token: Option<&Path>) -> (Program, Ports) {
        self.sidecar_with(instance, token, &[])
    }

    /// The same with further arguments.
    ///
    /// # Panics
    /// When the name is none such as `users-1`.
    #[must_use]
    pub fn sidecar_with(&self, instance: &str, token: Option<&Path>, more: &[&str]) -> (Program, Ports) {
        let at = Ports { inbound: ports::free(), outbound: ports::free(), admin: ports::free() };
        let (service, _) = instance.split_once('-').expect("name-number");
        let mut args: Vec<String> =
            ["--service", service, "--instance", instance, "--uses", "users"].map(str::to_owned).to_vec();
        args.extend(["--route".into(), format!("/{service}"), "--master".into(), self.mesh_address()]);
        for (flag, port) in [("--inbound", at.inbound), ("--outbound", at.outbound), ("--admin", at.admin)] {
            args.extend([flag.to_owned(), port.to_string()]);
        }
        if let Some(token) = token {
            args.extend(["--token-file".into(), token.display().to_string()]);
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let server = program::root().join("examples/hello/server.js");
        args.extend(["--".into(), "node".into(), server.display().to_string()]);
        let logs = self.home.path().join("logs");
        let sidecar =
            Program::start(instance, &binary("synego-sidecar"), &args, self.home.path(), &self.home.variables(), &logs);
        (sidecar, at)
    }

    /// A join token in a file of its own.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        self.home.token()
    }

    /// What `synego … -o json` prints, also where it ends with 1.
    ///
    /// # Errors
    /// What it wrote to stderr, when it printed nothing.
    pub fn json(&self, args: &[&str]) -> Result<Value, String> {
        let all: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().copied()).collect();
        let output = self.home.synego(&all);
        serde_json::from_slice(&output.stdout).map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What `synego identity` says of one instance.
    ///
    /// # Errors
    /// What it said instead.
    pub fn identity(&self, instance: &str) -> Result<Value, String> {
        let answer = self.json(&["identity", instance])?;
        wait::that(answer["items"][0]["id"].is_string(), format!("{answer}"))?;
        Ok(answer["items"][0].clone())
    }

    /// The same, once it is known.
    pub async fn enrolled(&self, instance: &str) -> Value {
        wait::until("its identity", Duration::from_secs(20), || async { self.identity(instance) }).await
    }

    /// The end of a rotation, at most `within` away.
    pub async fn rotated(&self, within: Duration) -> Value {
        wait::until("the end of the rotation", within, || async {
            let status = self.json(&["ca", "status"])?["items"][0].clone();
            wait::that(status["step"] == "idle", format!("{status}"))?;
            Ok(status)
        })
        .await
    }

    /// Where sidecars reach the master.
    #[must_use]
    pub fn mesh_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[1])
    }

    /// The port of the master's admin API, unless its arguments say another.
    #[must_use]
    pub fn admin_port(&self) -> u16 {
        self.ports[2]
    }

    /// The URL of a path at the master's ingress.
    #[must_use]
    pub fn ingress(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[0])
    }

    /// Waits until the ingress answers at this path.
    pub async fn answers(&self, path: &str) {
        until_answered(&self.ingress(path), &[]).await;
    }
}

/// Waits until a GET of this URL succeeds.
pub async fn until_answered(url: &str, headers: &[(&str, &str)]) {
    let client = HttpClient::default();
    wait::until(&format!("an answer of {url}"), Duration::from_secs(20), || async {
        let answer = client.request("GET", url, headers, "").await?;
        wait::that(answer.status.is_success(), answer.text())
    })
    .await;
}

/// The samples of a metric of a process whose admin port this is: its labels as they stand, and its value.
///
/// # Errors
/// When it does not answer.
pub async fn metric(admin: u16, name: &str) -> Result<Vec<(String, f64)>, String> {
    let text = HttpClient::default().get(&format!("http://127.0.0.1:{admin}/metrics")).await?.text();
    let sample = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        (labels.is_empty() || labels.starts_with('{')).then_some(())?;
        Some((labels.to_owned(), value.parse().ok()?))
    };
    Ok(text.lines().filter_map(sample).collect())
}

/// Waits until answers came from the processes of all of these, each of which tells its id.
///
/// # Panics
/// When one has not answered within 10 s.
pub async fn all_answer(url: &str, of: &[&Program]) {
    let client = HttpClient::default();
    for program in of {
        wait::until("its answer", Duration::from_secs(10), || async {
            let text = client.request("GET", url, &[], "").await?.text();
            let found = fault::services(program.pid()).iter().any(|(pid, _)| text.contains(&pid.to_string()));
            wait::that(found, text)
        })
        .await;
    }
}
