//! The admin API where other machines reach it, with curl and OpenSSL as the peers: TLS alone, and nobody unknown.
//!
//! The master binds every interface, and is called by way of the loopback: to it that is a port like any other.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use synego_testkit::forge::{Forge, GOOD, Made};
use synego_testkit::program::binary;
use synego_testkit::{Daemons, ports, wait};

/// A master whose admin API is open to other machines, and such a machine.
struct Far {
    mesh: Daemons,
    port: u16,
    /// Where the other machine keeps things.
    elsewhere: PathBuf,
}

impl Far {
    fn start() -> Self {
        let port = ports::free();
        let files = [("synego.yaml", "mesh: shop\nservices: {}\n")];
        let mesh = Daemons::start_with("3600s", &["--admin", &format!("0.0.0.0:{port}")], &files);
        let elsewhere = mesh.home.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("a folder");
        let far = Self { mesh, port, elsewhere };
        let _up = far.mesh.home.ask(&["ca", "status"]);
        far
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A new token or certificate of the machine of the master: its file.
    fn made(&self, name: &str, args: &[&str]) -> String {
        let file = self.mesh.home.path().join("state").join(name).display().to_string();
        let _said = self.mesh.home.ask(&[args, &["--out", &file]].concat());
        file
    }

    /// `synego` on the other machine.
    fn synego(&self, args: &[&str]) -> Output {
        let mut command = Command::new(binary("synego"));
        command.args(["--admin", &self.address(), "-o", "json"]).args(args).current_dir(&self.elsewhere);
        command.envs(self.mesh.home.variables()).env("SYNEGO_STATE_DIR", &self.elsewhere);
        command.env("SYNEGO_RUNTIME_DIR", &self.elsewhere).stdin(Stdio::null()).output().expect("synego runs")
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.synego(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "synego {args:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    /// `curl` at a path, without a look at the name of the server: status (0: no answer), head and body.
    fn curl(&self, path: &str, args: &[&str]) -> (u16, String) {
        let url = format!("https://{}{path}", self.address());
        let output = Command::new("curl")
            // By HTTP/2 this curl takes an early answer for a fault of the stream.
            .args([
                "--http1.1",
                "--silent",
                "--show-error",
                "--insecure",
                "--include",
                "--output",
                "-",
                "--max-time",
                "10",
            ])
            .args(["--write-out", "\nstatus %{http_code}"])
            .args(args)
            .arg(url)
            .stdin(Stdio::null())
            .output()
            .expect("curl is on the machine");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let status = said.rsplit("\nstatus ").next().and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        (status.unwrap_or(0), said)
    }

    /// A call of the admin API by curl.
    fn call(&self, method: &str, args: &[&str]) -> (u16, String) {
        let empty = self.elsewhere.join("empty");
        fs::write(&empty, [0; 5]).expect("the frame of an empty message");
        let body = format!("@{}", empty.display());
        let form = ["--data-binary", &body, "-H", "content-type: application/grpc", "-H", "te: trailers"];
        self.curl(&format!("/synego.v1.Admin/{method}"), &[&form[..], args].concat())
    }
}

fn bearer(file: &str) -> String {
    format!("authorization: Bearer {}", fs::read_to_string(file).expect("a token").trim())
}

fn openssl(args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).stdin(Stdio::null()).output().expect("openssl is on the machine");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_loopback_the_admin_api_speaks_tls_1_3_alone_and_to_nobody_unknown() {
    let far = Far::start();
    let plain = Command::new("curl")
        .args(["--silent", "--max-time", "10", &format!("http://{}/livez", far.address())])
        .output()
        .expect("curl is on the machine");
    assert!(!plain.status.success() && plain.stdout.is_empty(), "{plain:?}");
    let old = openssl(&["s_client", "-connect", &far.address(), "-tls1_2"]);
    assert!(old.contains("no peer certificate") || old.contains("alert"), "{old}");
    let shown = openssl(&["s_client", "-connect", &far.address(), "-tls1_3"]);
    assert!(shown.contains("TLSv1.3") && shown.contains("CN = master"), "{shown}");

    assert_eq!(far.curl("/livez", &[]).0, 200, "whether it is there, everybody may know");
    for (status, said) in [far.curl("/metrics", &[]), far.call("Get", &[]), far.call("WhoAmI", &[])] {
        assert_eq!(status, 401, "{said}");
        assert!(!said.contains("synego_build_info"), "{said}");
    }
    let token = bearer(&far.made("reader", &["login", "--role", "read", "--name", "reader"]));
    assert_eq!(far.curl("/metrics", &["-H", &token]).0, 200);
    assert_eq!(far.curl("/metrics", &["-H", &token, "-H", "host: vm1.example:3002"]).0, 200, "under any name");
    assert_eq!(far.curl("/metrics", &["-H", &token, "-H", "origin: https://evil.example"]).0, 403);
    let (status, said) = far.call("WhoAmI", &["-H", &token]);
    assert!(status == 200 && said.contains("reader"), "{status}: {said}");
    let (status, said) = far.call("TokenCreate", &["-H", &token]);
    assert!(status == 403 && said.contains("denied"), "one who may read changes nothing: {status}: {said}");
    let wrong = format!("{}0", &token[..token.len() - 1]);
    let wrong = if wrong == token { format!("{}1", &token[..token.len() - 1]) } else { wrong };
    assert_eq!(far.call("Get", &["-H", &wrong]).0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_change_without_token_from_another_origin_by_get_or_without_its_type_is_refused_under_tls_too() {
    let far = Far::start();
    let token = bearer(&far.made("writer", &["login", "--name", "writer"]));
    let good = ["-H", token.as_str()];
    assert_eq!(far.call("TokenCreate", &good).0, 200);
    assert_eq!(far.call("TokenCreate", &[]).0, 401);
    assert_eq!(far.call("TokenCreate", &[&good[..], &["-H", "origin: https://evil.example"]].concat()).0, 403);
    assert_eq!(far.call("TokenCreate", &[&good[..], &["-H", "host: evil.example"]].concat()).0, 403);
    assert_eq!(far.curl("/synego.v1.Admin/TokenCreate", &good).0, 405);
    let form = [&good[..], &["--data-binary", "{}", "-H", "content-type: text/plain"]].concat();
    assert_eq!(far.curl("/synego.v1.Admin/TokenCreate", &form).0, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_certificate_opens_the_admin_api_and_no_other_part_of_the_mesh_does() {
    let far = Far::start();
    let forge = Forge::with_root(far.mesh.home.path(), |file| {
        let _said = far.mesh.home.ask(&["ca", "export", "--out", file]);
    });
    let alice = far.made("alice.pem", &["ca", "operator", "alice", "--role", "write"]);
    assert!(fs::read_to_string(&alice).expect("readable").contains("BEGIN PRIVATE KEY"));
    let (status, said) = far.call("WhoAmI", &["--cert", &alice]);
    assert!(status == 200 && said.contains("operator/alice"), "{status}: {said}");
    let purpose = openssl(&["x509", "-in", &alice, "-noout", "-text"]);
    assert!(purpose.contains("URI:spiffe://shop/operator/alice") && purpose.contains("CA:FALSE"), "{purpose}");

    for (what, name) in [("a service", "spiffe://shop/svc/orders"), ("a master", "spiffe://shop/master")] {
        let names: &'static str = if what == "a service" { GOOD.names } else { "URI:spiffe://shop/master" };
        let [certificate, key] =
            forge.make(if what == "a service" { "svc" } else { "master" }, &Made { names, ..GOOD });
        let (status, said) = far.call("WhoAmI", &["--cert", &certificate, "--key", &key]);
        assert_eq!(status, 0, "{what} ({name}): {said}");
    }
    // Issued by the root, and yet nobody whom the mesh made an operator.
    let eve = Made { names: "URI:spiffe://shop/operator/eve", ..GOOD };
    let [certificate, key] = forge.make("eve", &eve);
    let (status, said) = far.call("WhoAmI", &["--cert", &certificate, "--key", &key]);
    assert!(status == 401 && said.contains("operator"), "{status}: {said}");
    let other = Forge::of_its_own(far.mesh.home.path());
    let [certificate, key] = other.make("alice", &Made { names: "URI:spiffe://shop/operator/alice", ..GOOD });
    assert_eq!(far.call("WhoAmI", &["--cert", &certificate, "--key", &key]).0, 0, "of another root");

    let listed = far.mesh.json(&["login", "--list"]).expect("a list");
    assert_eq!(listed["items"][0]["kind"], "certificate", "{listed}");
    let _said = far.mesh.home.ask(&["login", "--revoke", "operator/alice"]);
    assert_eq!(far.call("WhoAmI", &["--cert", &alice]).0, 401, "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_logged_in_from_another_machine_works_there_also_after_the_root_was_rotated() {
    let far = Far::start();
    let before = far.synego(&["status"]);
    assert!(!before.status.success(), "nobody is known yet");
    let token = far.made("token", &["login", "--name", "bob"]);
    let known = far.json(&["login", "--token-file", &token]);
    assert_eq!((known["items"][0]["login"].as_str(), known["items"][0]["role"].as_str()), (Some("bob"), Some("write")));
    let kept = far.elsewhere.join("logins.json");
    assert!(fs::read_to_string(&kept).expect("kept").contains("roots"));
    assert_eq!(far.json(&["status"])["mesh"], "shop");

    let _begun = far.json(&["ca", "rotate", "--fast", "-y"]);
    wait::until("the end of the rotation, as seen from elsewhere", Duration::from_secs(30), || async {
        let output = far.synego(&["ca", "status"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        wait::that(output.status.success(), said)?;
        let status: Value = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        let roots = status["items"][0]["roots"].as_array().map_or(0, Vec::len);
        wait::that(status["items"][0]["step"] == "idle" && roots == 1, status.to_string())
    })
    .await;
    assert_eq!(far.json(&["status"])["mesh"], "shop", "the pin followed the root");

    let alice = far.made("alice.pem", &["ca", "operator", "alice", "--role", "read"]);
    let known = far.json(&["login", "--certificate", &alice]);
    assert_eq!(known["items"][0]["login"], "operator/alice");
    assert_eq!(far.json(&["identity"])["mesh"], "shop");
    let refused = far.synego(&["token", "create"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("denied"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_to_no_master_but_those_of_its_mesh() {
    let (one, other) = (Far::start(), Far::start());
    let token = one.made("token", &["login", "--name", "bob"]);
    let refused = other.synego(&["login", "--token-file", &token]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("unknown_authority"), "{said}");
    assert!(!Path::new(&other.elsewhere).join("logins.json").exists(), "nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_of_admin_tokens_is_locked_out() {
    let far = Far::start();
    let good = bearer(&far.made("token", &["login", "--name", "bob"]));
    let mut wrong = good.clone();
    wrong.replace_range(wrong.len() - 8.., "00000000");
    for guess in 0..10 {
        assert_eq!(far.call("Get", &["-H", &wrong]).0, 401, "guess {guess}");
    }
    let (status, said) = far.call("Get", &["-H", &good]);
    assert!(status == 429 && said.to_ascii_lowercase().contains("retry-after"), "{status}: {said}");
    let _unharmed = far.mesh.home.ask(&["status"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_certificates_the_admin_api_stays_on_this_machine() {
    let files = [("synego.yaml", "mesh: shop\nidentity: { mtls: off }\nservices: {}\n")];
    let mut mesh = Daemons::start_with("3600s", &["--admin", &format!("0.0.0.0:{}", ports::free())], &files);
    let master = mesh.master();
    assert!(!master.wait(Duration::from_secs(20)).success());
    let said = master.output();
    assert!(said.contains("without TLS") && said.contains("ssh -L"), "{said}");
}
