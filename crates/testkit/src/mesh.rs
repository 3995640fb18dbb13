//! `synego up` on a folder: a whole mesh in the foreground of a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::ports;
use crate::program::{Program, binary};
use crate::wait;

/// A folder for what a test's programs keep: sockets, snapshots, logs. Removed at the end.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        // Short, since the paths of Unix sockets end at 107 bytes.
        let folder = tempfile::Builder::new().prefix("synego-t").tempdir().expect("a temporary folder");
        for name in ["run", "state", "logs"] {
            fs::create_dir(folder.path().join(name)).expect("a folder in it");
        }
        Self { folder }
    }
}

impl Home {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The variables that make our programs keep everything in it.
    #[must_use]
    pub fn variables(&self) -> BTreeMap<String, String> {
        let path = |name: &str| self.path().join(name).display().to_string();
        BTreeMap::from([
            ("SYNEGO_RUNTIME_DIR".into(), path("run")),
            ("SYNEGO_STATE_DIR".into(), path("state")),
            ("ORDERS_DATA".into(), path("state/orders")),
            ("SHOP_LOGS".into(), path("logs")),
            ("SYNEGO_NODE".into(), "vm1".into()),
            ("NO_COLOR".into(), "1".into()),
        ])
    }

    /// Runs `synego` with these arguments, to its end.
    #[must_use]
    pub fn synego(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("synego"));
        command.args(args).current_dir(self.path()).envs(self.variables()).stdin(Stdio::null());
        command.output().expect("synego runs")
    }

    /// What `synego` prints once it succeeds: a master may still be on its way.
    ///
    /// # Panics
    /// When it has not succeeded within 20 s, with what it said last.
    #[must_use]
    pub fn ask(&self, args: &[&str]) -> String {
        let begun = Instant::now();
        loop {
            let output = self.synego(args);
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(begun.elapsed() < Duration::from_secs(20), "synego {args:?}: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A join token of the master that runs here and has the socket, in a file of its own.
    #[must_use]
    pub fn token(&self) -> PathBuf {
        let file = self.path().join(format!("state/token-{}", ports::free()));
        let out = file.display().to_string();
        let _said = self.ask(&["token", "create", "--out", &out]);
        file
    }

    /// Starts one of our programs.
    pub fn start(&self, program: &str, args: &[&str]) -> Program {
        let logs = self.path().join("logs");
        Program::start(program, &binary(program), args, self.path(), &self.variables(), &logs)
    }
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    /// `synego up` itself.
    pub up: Program,
    /// Where its programs keep things.
    pub home: Home,
    folder: PathBuf,
    variables: BTreeMap<String, String>,
    port: u16,
}

impl Mesh {
    /// Starts `synego up` in `folder` and waits until every service is ready. `variables` are set besides those of the
    /// home; `SHOP_HTTP` and its like are free ports.
    pub async fn start(folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mesh = Self::begin(folder, variables, &[]);
        mesh.ready().await;
        mesh
    }

    /// A manifest of the test's own, in a folder of its own, and `synego up` on it. `{port}` in the text becomes the
    /// gateway's port, `{ingress}`, `{mesh}` and `{admin}` those of the master.
    pub async fn of(manifest: &str) -> Self {
        let mesh = Self::begin_with(manifest);
        mesh.ready().await;
        mesh
    }

    /// The same without waiting.
    #[must_use]
    pub fn begin_with(manifest: &str) -> Self {
        let home = Home::default();
        let folder = home.path().join("manifest");
        fs::create_dir(&folder).expect("a folder for the manifest");
        fs::write(folder.join("synego.yaml"), manifest).expect("the manifest");
        Self::begin_in(home, &folder, &[], &[])
    }

    /// Starts `synego up` once more, on the same ports, after the one before has ended.
    pub fn begin_again(&mut self) {
        let logs = self.home.path().join("logs");
        self.up = Program::start("up", &binary("synego"), ["up"], &self.folder, &self.variables, &logs);
    }

    /// Starts `synego up` with further arguments, without waiting.
    #[must_use]
    pub fn begin(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Self {
        Self::begin_in(Home::default(), folder, variables, args)
    }

    fn begin_in(home: Home, folder: &Path, more: &[(&str, &str)], args: &[&str]) -> Self {
        let port = ports::free();
        let mut variables = home.variables();
        variables.insert("SHOP_HTTP".into(), port.to_string());
        for name in ["SHOP_GRPC", "SHOP_INGRESS", "SHOP_MESH", "SHOP_ADMIN"] {
            variables.insert(name.into(), ports::free().to_string());
        }
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let all = ["up"].into_iter().chain(args.iter().copied());
        let up = Program::start("up", &binary("synego"), all, folder, &variables, &home.path().join("logs"));
        Self { up, home, folder: folder.to_path_buf(), variables, port }
    }

    /// Waits until every service is ready.
    pub async fn ready(&self) {
        wait::until("every service is ready", Duration::from_secs(90), || async {
            let status = self.try_json(&["status"])?;
            let items = status["items"].as_array().cloned().unwrap_or_default();
            wait::that(!items.is_empty(), "no service yet")?;
            let late: Vec<String> = items
                .iter()
                .filter(|item| item["ready"] != item["wanted"])
                .map(|item| format!("{} {} {}", item["service"], item["state"], item["cause"]))
                .collect();
            wait::that(late.is_empty(), late.join(", "))
        })
        .await;
    }

    /// A variable that the mesh was started with, such as `SHOP_GRPC`.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// The URL of a path at the gateway.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The same for WebSockets.
    #[must_use]
    pub fn socket_url(&self, path: &str) -> String {
        format!("ws://127.0.0.1:{}{path}", self.port)
    }

    /// Runs `synego` with these arguments in the folder of the manifest, to its end.
    #[must_use]
    pub fn synego(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("synego"));
        command.args(args).current_dir(&self.folder).envs(&self.variables).stdin(Stdio::null());
        command.output().expect("synego runs")
    }

    /// What `synego … -o json` prints.
    ///
    /// # Errors
    /// What it wrote to stderr, when it failed.
    pub fn try_json(&self, args: &[&str]) -> Result<Value, String> {
        let output = self.synego(&[args, &["-o", "json"]].concat());
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
    }

    /// The instances of a service as `synego get instances` shows them.
    #[must_use]
    pub fn instances(&self, service: &str) -> Vec<Value> {
        let status = self.try_json(&["status", service]).unwrap_or_default();
        status["items"][0]["instances"].as_array().cloned().unwrap_or_default()
    }

    /// Process ids of the instances of a service, by instance.
    #[must_use]
    pub fn pids(&self, service: &str) -> Vec<(String, u32)> {
        let pair = |item: &Value| {
            let pid = item["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())?;
            Some((item["instance"].as_str()?.to_owned(), pid))
        };
        self.instances(service).iter().filter_map(pair).filter(|(_, pid)| *pid > 0).collect()
    }

    /// The lines that every hop wrote down, with their fields among their other members.
    #[must_use]
    pub fn access_lines(&self) -> Vec<Value> {
        let mut lines = Vec::new();
        let mut open = vec![self.home.path().to_path_buf()];
        let own = self.folder.join("logs");
        open.extend(Some(own).filter(|own| !own.starts_with(self.home.path())));
        while let Some(folder) = open.pop() {
            for path in fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if path.is_dir() {
                    open.push(path);
                } else if name.ends_with(".info.log") || name.ends_with(".warn.log") {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    let read = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                    lines.extend(read.filter(|line| line["kind"] == "access").map(flat));
                }
            }
        }
        lines
    }
}

fn flat(mut line: Value) -> Value {
    let fields = line["fields"].as_object().cloned().unwrap_or_default();
    if let Some(members) = line.as_object_mut() {
        members.remove("fields");
        members.extend(fields);
    }
    line
}
