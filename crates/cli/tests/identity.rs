//! Tokens, the authority and identities, as a person meets them: the commands against a running mesh.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod support;

use std::os::unix::fs::PermissionsExt as _;

use support::{Place, Up, wait_for};

const SERVER: &str = "require('http').createServer((q, r) => r.end(process.env.SYNEGO_INSTANCE)).listen(process.env.PORT, '127.0.0.1')\n";
const SHOP: &str = "mesh: shop\nmasters: { ingress: 0, mesh: 0, admin: 0 }\ngateway: { engine: master, listen: 0 }\nservices:\n  users:\n    run: node server.js\n    routes: [/users]\n  orders:\n    run: node server.js\n    uses: [users]\n";

fn place(more: &str) -> Place {
    Place::new(&[("synego.yaml", &format!("{SHOP}{more}")), ("server.js", SERVER)])
}

#[test]
fn a_mesh_has_certificates_with_nothing_to_do_for_it() {
    let place = place("");
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let answer = place.run(&["identity", "-o", "json"]).expect_code(0).json();
    assert_eq!((&answer["kind"], &answer["mesh"]), (&"identity".into(), &"shop".into()));
    let items = answer["items"].as_array().expect("items").clone();
    let ids: Vec<&str> = items.iter().filter_map(|item| item["id"].as_str()).collect();
    assert_eq!(ids, ["spiffe://shop/master", "spiffe://shop/svc/orders", "spiffe://shop/svc/users"], "{answer}");
    for item in &items {
        assert!(item["serial"].as_str().is_some_and(|serial| serial.len() > 20), "{item}");
        assert!(item["expires_at"].is_string() && item["renews_at"].is_string(), "{item}");
        assert_eq!((&item["expired"], &item["renewal_error"]), (&false.into(), &serde_json::Value::Null));
    }
    let one = place.run(&["identity", "users-1"]).expect_code(0).out;
    assert!(one.starts_with("spiffe://shop/svc/users   serial ") && one.contains("issued by root 1 of 1"), "{one}");
    assert!(one.contains("ends in 23h") || one.contains("ends in 24h") || one.contains("ends in 1d"), "{one}");
    assert!(place.run(&["identity", "nobody"]).expect_code(1).err.contains("has no instance `nobody`"));
    // What it is kept in is the owner's alone.
    let state = place.path().parent().expect("a parent").join("state/shop");
    for (name, mode) in [("", 0o700), ("store.redb", 0o600), ("ca.key", 0o600)] {
        let found = std::fs::metadata(state.join(name)).expect("there").permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
}

#[test]
fn a_token_is_shown_once_alone_on_stdout_or_kept_in_a_new_file() {
    let place = place("");
    let _up = Up::of(&place);
    place.run(&["up", "-d", "--only", "users"]).expect_code(0);
    let made = place.run(&["token", "create", "--service", "users", "--ttl", "2m"]).expect_code(0);
    let token = made.out.trim_end().to_owned();
    assert!(token.starts_with("synego-join-1.") && token.lines().count() == 1, "{}", made.out);
    assert!(made.err.contains("works once") && !made.err.contains(&token), "{}", made.err);
    let secret = token.rsplit('.').next().expect("a secret").to_owned();
    assert_eq!(secret.len(), 64, "256 bits");

    let file = place.path().join("t").display().to_string();
    let kept = place.run(&["token", "create", "--out", &file, "-o", "json"]).expect_code(0).json();
    let item = kept["items"][0].clone();
    assert!(item["token"].is_null() && item["service"].is_null() && item["expires_at"].is_string(), "{kept}");
    let mode = std::fs::metadata(&file).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert!(place.run(&["token", "create", "--out", &file]).expect_code(2).err.contains("exists already"));

    let listed = place.run(&["token", "list", "-o", "json"]).expect_code(0).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    let table = place.run(&["token", "list"]).expect_code(0).out;
    assert!(table.contains("TOKEN") && table.contains("open") && !table.contains(&secret), "{table}");
    let id = item["id"].as_str().expect("an id").to_owned();
    place.run(&["token", "revoke", &id]).expect_code(0);
    assert!(place.run(&["token", "revoke", &id]).expect_code(1).err.contains("no join token"));
    assert!(place.run(&["token", "create", "--ttl", "2d"]).expect_code(1).err.contains("expected 1m to 24h"));
    let loud = place.run(&["token", "create", "-vv"]).expect_code(0);
    let told = loud.out.trim_end().rsplit('.').next().expect("a secret").to_owned();
    assert!(!loud.err.contains(&told), "the wire is shown without the secret: {}", loud.err);
    // Neither logs nor the store know a secret.
    for folder in [place.path().join("logs"), place.path().parent().expect("a parent").join("state/shop")] {
        for entry in std::fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&text).contains(&secret), "{}", entry.path().display());
        }
    }
}

#[test]
fn the_root_rotates_while_the_mesh_runs_and_asks_first() {
    let place = place("");
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    let before = place.run(&["ca", "status", "-o", "json"]).expect_code(0).json()["items"][0].clone();
    assert_eq!((&before["step"], &before["steps"], &before["stuck"]), (&"idle".into(), &5.into(), &false.into()));
    let refused = place.run(&["ca", "rotate"]).expect_code(2).err;
    assert!(refused.contains("refused to rotate the root") && refused.contains("--yes"), "{refused}");
    place.run(&["ca", "rotate", "--fast", "-y"]).expect_code(0);
    let after = wait_for("the end of the rotation", || {
        let item = place.run(&["ca", "status", "-o", "json"]).expect_code(0).json()["items"][0].clone();
        (item["step"] == "idle").then_some(item)
    });
    assert_eq!(after["roots"].as_array().map(Vec::len), Some(1));
    assert_ne!(after["roots"][0]["fingerprint"], before["roots"][0]["fingerprint"]);
    wait_for("everybody has a certificate of the new root", || {
        let items = place.run(&["identity", "-o", "json"]).expect_code(0).json()["items"].clone();
        let all = items.as_array().expect("items").iter();
        all.into_iter().all(|item| item["issuer"] == after["roots"][0]["fingerprint"]).then_some(())
    });
    let words = place.run(&["ca", "status"]).expect_code(0).out;
    assert!(words.contains("root 1 of 1") && words.contains("issues"), "{words}");
    assert!(place.run(&["ca", "rotate", "--abort", "-y"]).expect_code(1).err.contains("no rotation"));
}

#[test]
fn the_authority_is_exported_into_a_file_of_its_owner_and_imported_by_who_agrees() {
    let place = place("");
    let _up = Up::of(&place);
    place.run(&["up", "-d", "--only", "users"]).expect_code(0);
    let file = place.path().join("ca.pem").display().to_string();
    place.run(&["ca", "export", "--out", &file]).expect_code(0);
    let text = std::fs::read_to_string(&file).expect("readable");
    assert!(text.contains("BEGIN CERTIFICATE") && text.contains("BEGIN PRIVATE KEY"));
    assert_eq!(std::fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    assert!(place.run(&["ca", "import", &file]).expect_code(2).err.contains("refused to import"));
    let known = place.run(&["ca", "import", &file, "-y"]).expect_code(1).err;
    assert!(known.contains("is one of the mesh already"), "{known}");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("opened");
    assert!(place.run(&["ca", "import", &file, "-y"]).expect_code(1).err.contains("chmod 600"));
}

#[test]
fn key_file_readable_by_others_refuses_to_start() {
    let place = place("");
    place.write("ca.key", &"a".repeat(64));
    let key = place.path().join("ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("opened");
    let output = place.command(&["up", "-d"]).env("SYNEGO_KEY_FILE", &key).output().expect("synego runs");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("0644") && err.contains("chmod 600"), "{err}");
}

#[test]
fn a_mesh_without_certificates_says_that_it_has_none() {
    let place = place("identity: { mtls: off }\n");
    let _up = Up::of(&place);
    place.run(&["up", "-d"]).expect_code(0);
    for command in [&["token", "create"][..], &["ca", "status"], &["identity"]] {
        let err = place.run(command).expect_code(1).err;
        assert!(err.contains("mtls: off"), "{command:?}: {err}");
    }
    let status = place.run(&["status"]).expect_code(0);
    assert!(format!("{}{}", status.out, status.err).contains("mtls: off"), "{} {}", status.out, status.err);
}
