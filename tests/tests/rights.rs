//! Where a process listens, and whose rights it has: Unix sockets, users, limits, and what is inherited.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use synego_testkit::http::get;
use synego_testkit::load::Load;
use synego_testkit::mesh::Home;
use synego_testkit::{Mesh, fault, program, wait};

const SOON: Duration = Duration::from_secs(10);
/// `nobody` and its group, whom every Debian has.
const NOBODY: u32 = 65_534;
const NOGROUP: u32 = 65_534;

/// The server, in a folder that every user can enter.
struct Open {
    folder: tempfile::TempDir,
}

impl Open {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("synego-o").tempdir().expect("a folder");
        let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        open(folder.path(), 0o755).expect("opened");
        let server = folder.path().join("server.py");
        std::fs::copy(program::root().join("tests/fixtures/rights/server.py"), &server).expect("copied");
        open(&server, 0o644).expect("opened");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A mesh of one service with these further keys, whose sockets every user can get at, as in `/run`.
    async fn mesh(&self, keys: &str, more: &[(&str, &str)]) -> Mesh {
        let mesh = self.begin(keys, more);
        mesh.ready().await;
        mesh
    }

    fn begin(&self, keys: &str, more: &[(&str, &str)]) -> Mesh {
        self.write(keys);
        let run = self.run().display().to_string();
        let more = [&[("SYNEGO_RUNTIME_DIR", run.as_str())], more].concat();
        Mesh::begin(self.path(), &more, &[])
    }

    fn write(&self, keys: &str) {
        let manifest = format!(
            "mesh: rights\ngateway: {{ listen: \"${{SHOP_HTTP}}\" }}\nmasters: {{ ingress: \"${{SHOP_INGRESS}}\", mesh: \
             \"${{SHOP_MESH}}\", admin: \"${{SHOP_ADMIN}}\" }}\nservices:\n  subject: {{ run: [/usr/bin/python3, {}/server.py], \
             routes: [/], {keys} }}\n",
            self.path().display()
        );
        std::fs::write(self.path().join("synego.yaml"), manifest).expect("the manifest");
    }

    fn run(&self) -> PathBuf {
        self.path().join("run")
    }
}

fn is_root() -> bool {
    let own = std::fs::metadata("/proc/self").map(|found| found.uid());
    let is_root = own.is_ok_and(|uid| uid == 0);
    if !is_root {
        eprintln!("not tested here: only root gives a process another user");
    }
    is_root
}

async fn said(mesh: &Mesh, path: &str) -> Value {
    get(&mesh.url(path)).await.expect("an answer").json()
}

fn socket_of(said: &Value) -> PathBuf {
    said["env"]["SOCKET"].as_str().expect("it was told a socket").into()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_has_a_socket_of_its_own_and_a_reload_loses_nothing() {
    let open = Open::new();
    let mesh = open.mesh("socket: auto, instances: 2", &[("PORT", "3000")]).await;
    let before = said(&mesh, "/").await;
    assert_eq!(before["env"]["PORT"], Value::Null, "what is inherited would lead it elsewhere");
    let mode = std::fs::metadata(socket_of(&before).parent().expect("a folder")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "nobody else gets at it");
    let listens: Vec<Value> = mesh.instances("subject").iter().map(|one| one["listens"].clone()).collect();
    assert!(listens.contains(&Value::String(format!("unix:{}", socket_of(&before).display()))), "{listens:?}");

    let load = Load::gets(150, &mesh.url("/work"));
    for _ in 0..2 {
        load.more(30).await;
        let output = mesh.synego(&["reload", "subject"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    load.more(30).await;
    let report = load.stop().await;
    assert_eq!(report.failures, [], "of {} requests", report.sent);
    let after = socket_of(&said(&mesh, "/").await);
    assert_ne!(after, socket_of(&before), "each generation has its own");
    assert!(after.exists() && !socket_of(&before).exists(), "what is over leaves no file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_leaves_a_file_that_does_not_keep_its_successor_from_a_socket_with_a_path() {
    let open = Open::new();
    let path = open.path().join("app.sock");
    let mesh = open.mesh("socket: ./app.sock", &[]).await;
    assert_eq!(socket_of(&said(&mesh, "/").await), path);
    let (_, pid) = mesh.pids("subject").into_iter().next().expect("a process");
    let load = Load::gets(100, &mesh.url("/work"));
    load.more(20).await;
    fault::kill(pid);
    wait::until("another process", SOON, || async {
        let now = mesh.pids("subject");
        wait::that(now.iter().any(|(_, now)| *now != pid), format!("{now:?}"))
    })
    .await;
    load.more(50).await;
    let output = mesh.synego(&["reload", "subject"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    load.more(50).await;
    let report = load.stop().await;
    // What the killed process had accepted is lost with it; nothing else is.
    assert!(report.failures.len() <= 8, "{:?} of {}", report.failures, report.sent);
    assert_eq!(socket_of(&said(&mesh, "/").await), path);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_place_of_a_socket_is_left_alone_and_named() {
    let open = Open::new();
    std::fs::write(open.path().join("app.sock"), "precious").expect("a file");
    let mesh = open.begin("socket: ./app.sock", &[]);
    wait::until("the cause", SOON, || async {
        let found = mesh.try_json(&["status", "subject"])?;
        let cause = found["items"][0]["cause"].to_string();
        wait::that(cause.contains("app.sock: it is no socket: remove it, or name another path"), cause)
    })
    .await;
    assert_eq!(std::fs::read_to_string(open.path().join("app.sock")).ok().as_deref(), Some("precious"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_the_rights_of_its_user_and_reaches_its_sidecar() {
    if !is_root() {
        return;
    }
    let open = Open::new();
    let mesh = open.mesh("user: nobody, files: 512, socket: auto, build: \"touch /tmp\"", &[]).await;
    let said = said(&mesh, "/protocol").await;
    assert_eq!(said["ids"], serde_json::json!([NOBODY, NOGROUP]));
    assert_eq!(said["groups"], serde_json::json!([]), "root's are not kept");
    assert_eq!(said["files"], serde_json::json!([512, 512]));
    assert_eq!((&said["env"]["USER"], &said["env"]["HOME"]), (&"nobody".into(), &"/nonexistent".into()));
    assert!(said["protocol"].as_u64().is_some_and(|bytes| bytes > 0), "{}", said["protocol"]);
    let (_, pid) = mesh.pids("subject").into_iter().next().expect("a process");
    fault::kill(pid);
    wait::until("it is back", SOON, || async {
        let now = mesh.pids("subject");
        wait::that(now.iter().any(|(_, now)| *now != pid), format!("{now:?}"))
    })
    .await;
    assert_eq!(fault::owner(mesh.pids("subject")[0].1), Some(NOBODY));

    // Whoever is neither that user nor root stays out.
    let socket = said["env"]["SYNEGO_SIDECAR"].as_str().unwrap_or_default().trim_start_matches("unix:").to_owned();
    let script = "import os,socket,sys; os.setgid(1); os.setuid(1); socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let other = std::process::Command::new("python3").args(["-c", script, &socket]).output().expect("it runs");
    let why = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(why.contains("PermissionError"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_of_another_user_ends_with_a_killed_parent() {
    if !is_root() {
        return;
    }
    let open = Open::new();
    let mesh = open.mesh("user: nobody", &[("SYNEGO_KEEPER", "off")]).await;
    let (_, pid) = mesh.pids("subject").into_iter().next().expect("a process");
    fault::kill(mesh.up.pid());
    wait::until("it is gone", SOON, || async { wait::that(!fault::is_alive(pid), "it lives on") }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_user_takes_effect_by_a_reload() {
    if !is_root() {
        return;
    }
    let open = Open::new();
    let mesh = open.mesh("instances: 1", &[]).await;
    assert_eq!(said(&mesh, "/").await["ids"], serde_json::json!([0, 0]));
    let load = Load::gets(100, &mesh.url("/work"));
    open.write("user: nobody");
    let output = mesh.synego(&["apply", "--yes"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait::until("it is somebody else", SOON, || async {
        let ids = said(&mesh, "/protocol").await;
        wait::that(ids["ids"][0] == NOBODY, ids["ids"].to_string())
    })
    .await;
    assert!(said(&mesh, "/protocol").await["protocol"].is_u64());
    let report = load.stop().await;
    assert_eq!(report.failures, [], "of {} requests", report.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_not_there_is_named_by_status_and_doctor() {
    if !is_root() {
        return;
    }
    let open = Open::new();
    let mesh = open.begin("user: shopp", &[]);
    let problem = "there is no user `shopp` in /etc/passwd: make it (useradd), or name another";
    wait::until("the cause", SOON, || async {
        let found = mesh.try_json(&["status", "subject"])?;
        let cause = found["items"][0]["cause"].to_string();
        wait::that(cause.contains(problem), cause)
    })
    .await;
    let doctor = mesh.synego(&["doctor", "--failed"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains(&format!("subject: {problem}")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_passed_is_inherited() {
    let open = Open::new();
    let more = [("SHOP_SECRET", "hush"), ("LC_ALL", "C.UTF-8")];
    let mesh = open.mesh("pass_env: [PATH, \"LC_*\"], env: { OWN: x }", &more).await;
    let env = said(&mesh, "/").await["env"].clone();
    assert_eq!((&env["SHOP_SECRET"], &env["HOME"]), (&Value::Null, &Value::Null));
    assert_eq!((&env["LC_ALL"], &env["OWN"]), (&"C.UTF-8".into(), &"x".into()));
    assert!(env["PATH"].is_string() && env["PORT"].is_string(), "{env}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_of_its_own_names_the_socket_of_its_command() {
    let home = Home::default();
    let refused = home.start("synego-sidecar", &["--service", "users", "--socket", "auto", "--master", "127.0.0.1:1"]);
    wait::until("it says why", SOON, || async {
        let said = refused.output();
        wait::that(said.contains("--socket auto: name the one on which it listens"), said)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_its_user_may_not_execute_is_told_as_that() {
    if !is_root() {
        return;
    }
    let open = Open::new();
    let closed = open.path().join("closed");
    std::fs::create_dir(&closed).expect("a folder");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("closed");
    std::fs::copy("/bin/true", closed.join("program")).expect("a program");
    open.write("user: nobody");
    let manifest = open.path().join("synego.yaml");
    let text = std::fs::read_to_string(&manifest).expect("the manifest");
    let run = format!("run: [{}/program]", closed.display());
    let own = format!("run: [/usr/bin/python3, {}/server.py]", open.path().display());
    std::fs::write(&manifest, text.replace(&own, &run)).expect("another program");
    let mesh = Mesh::begin(open.path(), &[("SYNEGO_RUNTIME_DIR", &open.run().display().to_string())], &[]);
    wait::until("the cause", SOON, || async {
        let found = mesh.try_json(&["status", "subject"])?;
        let cause = found["items"][0]["cause"].to_string();
        wait::that(cause.contains("the user 65534 may not execute it, or not enter its folder"), cause)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_place_is_taken_up_by_a_successor_before_the_former_process_ends() {
    let open = Open::new();
    let (first, second) = (synego_testkit::ports::free(), synego_testkit::ports::free());
    let mesh = open.mesh(&format!("port: {first}"), &[]).await;
    let load = Load::gets(100, &mesh.url("/work"));
    for (keys, listens) in [
        (format!("port: {second}"), format!("127.0.0.1:{second}")),
        ("socket: ./app.sock".to_owned(), format!("unix:{}/app.sock", open.path().display())),
    ] {
        load.more(20).await;
        open.write(&keys);
        let output = mesh.synego(&["apply", "--yes"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        wait::until("it listens there", SOON, || async {
            let now = mesh.instances("subject");
            wait::that(now.len() == 1 && now[0]["listens"] == listens, format!("{now:?}"))
        })
        .await;
    }
    load.more(20).await;
    let report = load.stop().await;
    assert_eq!(report.failures, [], "of {} requests", report.sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_of_a_process_with_a_fixed_place_is_taken_up_in_its_place() {
    let open = Open::new();
    let port = synego_testkit::ports::free();
    let mesh = open.mesh(&format!("port: {port}, env: {{ SIZE: small }}"), &[]).await;
    assert_eq!(said(&mesh, "/").await["env"]["SIZE"], "small");
    open.write(&format!("port: {port}, env: {{ SIZE: large }}"));
    let output = mesh.synego(&["apply", "--yes"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    wait::until("it is told", SOON, || async {
        let size = said(&mesh, "/").await["env"]["SIZE"].clone();
        wait::that(size == "large", size.to_string())
    })
    .await;
}
