//! Overlays, includes, `defaults` and variables: what holds in the end, and where it was said.

mod common;

use common::Case;
use synego_manifest::{EffectiveValue, Manifest};
use synego_model::process::Target;
use synego_model::{Probe, ServiceName};

fn load(text: &str) -> Manifest {
    let outcome = Case::read(text).load();
    let told: String = outcome.diagnostics.iter().map(|diagnostic| diagnostic.render() + "\n").collect();
    outcome.manifest.unwrap_or_else(|| panic!("{told}"))
}

fn value(manifest: &Manifest, key: &str) -> Option<(String, String)> {
    let found: Option<&EffectiveValue> = manifest.effective().iter().find(|value| value.key == key);
    found.map(|value| (value.value.clone(), value.origin.clone()))
}

/// An overlay, a key, and its value and origin afterwards.
type Row = (&'static str, &'static str, Option<(&'static str, &'static str)>);

#[test]
fn mappings_merge_and_all_else_replaces() {
    let base = "services:\n  users:\n    run: node users.js\n    env: { A: a, B: b }\n    routes: [/a, /b]\n    health: { http: /healthz, every: 2s }\n    \
                policy: { timeout: 5s, balance: least }\n    labels: { team: shop }\n    uses: [users]\n    version: 1\n";
    let table: &[Row] = &[
        // Mappings merge on long forms: the probe stays.
        ("health: { every: 5s }", "services.users.health.http", Some(("/healthz", "synego.yaml:6"))),
        ("health: { every: 5s }", "services.users.health.every", Some(("5s", "synego.dev.yaml:1"))),
        // A short form replaces: what stood beside the probe is gone.
        ("health: /ping", "services.users.health.http", Some(("/ping", "synego.dev.yaml:1"))),
        ("health: /ping", "services.users.health.every", Some(("1s", "default"))),
        // Of alternatives the later takes the other's place.
        ("health: { tcp: true }", "services.users.health.http", None),
        ("health: { tcp: true }", "services.users.health.every", Some(("2s", "synego.yaml:6"))),
        ("address: 10.0.0.1:80, env: null", "services.users.run", None),
        ("policy: { balance: { hash: { header: x-user } } }", "services.users.policy.balance.by", None),
        // A list replaces.
        ("routes: [/c]", "services.users.routes", Some(("[{ path: /c }]", "synego.dev.yaml:1"))),
        ("routes: []", "services.users.routes", Some(("[]", "synego.dev.yaml:1"))),
        ("uses: []", "services.users.uses.users", None),
        // Free mappings merge by key, and `null` takes one out.
        ("env: { B: c, C: d }", "services.users.env.A", Some(("a", "synego.yaml:4"))),
        ("env: { B: c, C: d }", "services.users.env.B", Some(("c", "synego.dev.yaml:1"))),
        ("env: { A: null }", "services.users.env.A", None),
        // `null` returns to the default.
        ("policy: { timeout: null }", "services.users.policy.timeout", Some(("30s", "default"))),
        ("policy: null", "services.users.policy.timeout", Some(("30s", "default"))),
        ("version: null", "services.users.version", None),
        ("policy: { eject: false }", "services.users.policy.eject", Some(("false", "synego.dev.yaml:1"))),
    ];
    for (over, key, expected) in table {
        let manifest =
            load(&format!("{base}# profile: dev\n# file: synego.dev.yaml\nservices: {{ users: {{ {over} }} }}\n"));
        let found = value(&manifest, key);
        assert_eq!(found.as_ref().map(|(value, origin)| (value.as_str(), origin.as_str())), *expected, "{over}: {key}");
    }
}

#[test]
fn an_overlay_removes_a_service() {
    let manifest = load(
        "services:\n  a: { run: ./a }\n  b: { run: ./b, routes: [/b] }\n# profile: dev\n# file: synego.dev.yaml\nservices: { b: null }\n",
    );
    assert_eq!(manifest.declaration.services.len(), 1);
    assert_eq!(manifest.title, "synego.yaml + synego.dev.yaml");
}

#[test]
fn what_an_overlay_replaces_need_not_be_set() {
    let text = "services:\n  a: { run: ./a, version: \"${RELEASE}\", env: { X: \"${Y}\" } }\n";
    assert_eq!(Case::read(text).load().errors(), 2);
    let over = "# profile: dev\n# file: synego.dev.yaml\nservices: { a: { version: null, env: { X: y } } }\n";
    assert!(Case::read(&format!("{text}{over}")).load().manifest.is_some());
}

#[test]
fn defaults_hold_where_a_service_says_nothing() {
    let manifest = load(
        "defaults:\n  env: { A: a, B: b }\n  policy: { timeout: 5s, balance: least }\n  instances: 3\n  health: { http: /h, every: 5s }\n\
         services:\n  one: { run: ./one, routes: [/1] }\n  two: { run: ./two, routes: [/2], instances: 1, env: { B: c }, policy: { timeout: 2s }, health: null }\n  \
         out: { address: 10.0.0.1:80, routes: [/3] }\n",
    );
    let get = |key: &str| value(&manifest, key).map(|(value, origin)| format!("{value} {origin}"));
    assert_eq!(get("services.one.instances").as_deref(), Some("3 defaults:4"));
    assert_eq!(get("services.two.instances").as_deref(), Some("1 synego.yaml:8"));
    assert_eq!(get("services.two.env.A").as_deref(), Some("a defaults:2"));
    assert_eq!(get("services.two.env.B").as_deref(), Some("c synego.yaml:8"));
    assert_eq!(get("services.two.policy.balance.by").as_deref(), Some("least defaults:3"));
    assert_eq!(get("services.two.policy.timeout").as_deref(), Some("2s synego.yaml:8"));
    assert_eq!(get("services.two.policy.try_timeout").as_deref(), Some("2s default"));
    assert_eq!(get("services.two.health.http"), None);
    assert_eq!(get("services.out.env.A"), None, "a service that is found has no process of ours");
    assert_eq!(manifest.declaration.services["out"].policy.timeout.as_secs(), 5);
    assert_eq!(manifest.declaration.services["one"].health.as_ref().unwrap().probe, Probe::Http("/h".into()));
}

#[test]
fn values_stay_as_they_are_written() {
    let manifest = load(
        "services:\n  a:\n    run: ./a\n    version: 1.10\n    env: { NO: no, TIME: 22:22, OCT: 0777, EXP: 1e3, YES: true, NULL_TEXT: \"null\", HEX: 0x1F }\n",
    );
    let local = &manifest.local[0];
    assert_eq!(local.version, "1.10");
    for (name, value) in [
        ("NO", "no"),
        ("TIME", "22:22"),
        ("OCT", "0777"),
        ("EXP", "1e3"),
        ("YES", "true"),
        ("NULL_TEXT", "null"),
        ("HEX", "0x1F"),
    ] {
        assert_eq!(local.env[name], value, "{name}");
    }
}

#[test]
fn only_a_dollar_with_a_brace_is_special() {
    let manifest = load(
        "services:\n  a:\n    run: ./a\n    env:\n      A: ${SET}\n      B: \"${UNSET:-x:y}\"\n      C: $${SET}\n      D: 5$\n      E: a${SET}b${SET}c\n      F: \"${EMPTY:-d}\"\n      G: \"${EMPTY}\"\n      \
         H: ${TRICK}\n# set: SET=s\n# set: EMPTY=\n# set: TRICK=${SET}\n",
    );
    let env = &manifest.local[0].env;
    for (name, value) in
        [("A", "s"), ("B", "x:y"), ("C", "${SET}"), ("D", "5$"), ("E", "asbsc"), ("F", "d"), ("G", ""), ("H", "${SET}")]
    {
        assert_eq!(env[name], value, "{name}");
    }
}

#[test]
fn variables_fill_numbers_and_booleans_too() {
    let manifest = load(
        "gateway: { static: { /s: { dir: ./s, list: \"${LIST}\" } } }\nservices:\n  a: { run: ./a, instances: \"${N}\" }\n# set: N=3\n# set: LIST=true\n",
    );
    assert_eq!(manifest.declaration.services["a"].instances, 3);
}

#[test]
fn a_path_is_relative_to_the_file_that_says_it() {
    let manifest = load(
        "include: [teams/*.yaml]\nservices:\n  a: { run: ./a, routes: [/a], cwd: ./x/../y, env_file: [.env] }\n\
         # file: teams/b.yaml\nservices:\n  b: { run: ./b, routes: [/b], env_file: [b.env, /etc/b.env] }\n  c: { run: ./c, routes: [/c], cwd: ../c }\n\
         # profile: dev\n# file: synego.dev.yaml\nservices: { b: { instances: 2 } }\n",
    );
    let local = |name: &str| manifest.local.iter().find(|local| local.spec.name.as_str() == name).unwrap();
    let root = Case::FOLDER;
    assert_eq!(local("a").cwd.display().to_string(), format!("{root}/y"));
    assert_eq!(local("a").env_files[0].display().to_string(), format!("{root}/.env"));
    assert_eq!(local("b").cwd.display().to_string(), format!("{root}/teams"));
    assert_eq!(local("b").env_files[0].display().to_string(), format!("{root}/teams/b.env"));
    assert_eq!(local("b").env_files[1].display().to_string(), "/etc/b.env");
    assert_eq!(local("c").cwd.display().to_string(), format!("{root}/c"));
    assert_eq!(local("b").spec.instances, 2);
    assert_eq!(value(&manifest, "services.b.env_file").unwrap().1, "teams/b.yaml:2");
}

#[test]
fn a_manifest_is_found_in_a_folder_above() {
    let mut case = Case::default();
    case.disk
        .0
        .insert("/home/me/synego.yaml".into(), b"mesh: up\nservices: { a: { run: ./a, replicas: 1 } }\n".to_vec());
    let outcome = case.load();
    assert_eq!(outcome.diagnostics[0].file, "../synego.yaml");
    case.disk.0.insert("/home/me/synego.yaml".into(), b"services: { a: { run: ./a } }\n".to_vec());
    let manifest = case.load().manifest.unwrap();
    assert_eq!(manifest.declaration.mesh.as_str(), "me", "the mesh has the name of its folder");
    assert_eq!(manifest.root.display().to_string(), "/home/me");
}

#[test]
fn without_any_file_nothing_is_wrong() {
    let outcome = Case::default().load();
    assert!(!outcome.found && outcome.manifest.is_none() && outcome.diagnostics.is_empty());
    let manifest = Manifest::defaults(std::path::Path::new("/home/me/My Shop"));
    assert_eq!(manifest.declaration.mesh.as_str(), "my-shop");
    assert_eq!(manifest.gateway.listen[0].address.to_string(), "0.0.0.0:8080");
    assert_eq!(manifest.masters.admin.to_string(), "127.0.0.1:3002");
    let empty = load("mesh: my-shop\n");
    let keys = |manifest: &Manifest| {
        manifest.effective().iter().map(|value| (value.key.clone(), value.value.clone())).collect::<Vec<_>>()
    };
    assert_eq!(keys(&manifest), keys(&empty));
}

#[test]
fn an_empty_file_is_a_mesh_without_services() {
    for text in ["# nothing yet\n", "services:\n", "services: {}\ngateway:\n"] {
        assert!(load(text).declaration.services.is_empty(), "{text}");
    }
}

#[test]
fn json_is_read_like_yaml() {
    let yaml = load("mesh: shop\nservices:\n  a: { run: [node, \"a b.js\"], routes: [/a], instances: 2 }\n");
    let json = load(
        "# file: synego.json\n{\n\t\"mesh\": \"shop\",\n\t\"services\": { \"a\": { \"run\": [\"node\", \"a b.js\"], \"routes\": [\"/a\"], \"instances\": 2 } }\n}\n",
    );
    assert_eq!(yaml.declaration.services["a"].instances, json.declaration.services["a"].instances);
    assert_eq!(yaml.local[0].target, json.local[0].target);
    let smile = load(
        "# file: synego.json\n{ \"services\": { \"a\": { \"run\": \"./a\", \"env\": { \"S\": \"\\ud83d\\ude00\\/\" } } } }\n",
    );
    assert_eq!(smile.local[0].env["S"], "😀/");
}

#[test]
fn a_warning_refuses_only_when_asked() {
    let text = "services:\n  a: { run: ./a, env: { DB: \"mysql://u:secret@h/x\" } }\n";
    let mut case = Case::read(text);
    let outcome = case.load();
    assert!(outcome.manifest.is_some());
    assert_eq!(outcome.counts(), "1 warning");
    assert_eq!(outcome.summary(), "synego.yaml: 1 service, 1 route, 1 warning");
    let told = format!("{:?}", outcome.diagnostics);
    assert!(!told.contains("secret@"), "{told}");
    case.strict = true;
    assert!(case.load().manifest.is_none());
}

#[test]
fn secrets_are_masked_but_their_change_is_seen() {
    let with = |password: &str| {
        load(&format!(
            "services:\n  a: {{ run: ./a, env: {{ DB_PASSWORD: {password}, URL: \"redis://:{password}@h\" }} }}\n"
        ))
    };
    let (one, two) = (with("hunter2"), with("hunter3"));
    let shown = serde_json::to_string(one.effective()).unwrap() + &format!("{:?}", one.effective());
    assert!(!shown.contains("hunter"), "{shown}");
    let changes = synego_manifest::plan(&one, &two);
    assert_eq!(changes.len(), 2);
    assert!(changes.iter().all(|change| change.before.as_deref().unwrap().contains("***")));
    assert!(!serde_json::to_string(&changes).unwrap().contains("hunter"));
}

#[test]
fn commands_are_split_without_a_shell() {
    let manifest =
        load("services:\n  a: { run: node \"my app.js\" --name='x y', build: [make, a && b] , port: 9000 }\n");
    let Target::Run { command, build, listens } = &manifest.local[0].target else { panic!("it runs") };
    assert_eq!(command.program, "node");
    assert_eq!(command.args, ["my app.js", "--name=x y"]);
    assert_eq!(build.as_ref().unwrap().args, ["a && b"]);
    assert_eq!(listens.fixed().map(ToString::to_string).as_deref(), Some("127.0.0.1:9000"));
}

#[test]
fn the_same_comes_of_texts_that_were_read_elsewhere() {
    let case = Case::read(
        "include: [teams/*.yaml]\nservices:\n  a: { run: ./a, routes: [/a] }\n# file: teams/b.yaml\nservices:\n  b: { run: ./b, routes: [/b] }\n\
         # profile: dev\n# file: synego.dev.yaml\nservices: { a: { instances: cores } }\n",
    );
    let outcome = case.load();
    let again = synego_manifest::load_files(&outcome.files, &case.environment, 4);
    let (first, second) = (outcome.manifest.unwrap(), again.manifest.unwrap());
    assert_eq!(first.effective(), second.effective());
    assert_eq!(first.declaration, second.declaration);
    assert_eq!(second.declaration.services["a"].instances, 4);
    let a: ServiceName = "a".parse().unwrap();
    assert_eq!(second.declaration.services[&a].routes.as_ref().unwrap()[0].origin, "synego.yaml:3");
}
