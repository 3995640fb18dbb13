//! Commands that need no mesh: what they print where, and their exit codes.
#![expect(clippy::expect_used, reason = "a failed test panics")]

mod support;

use support::Place;

const SHOP: &str = "mesh: offline\nservices:\n  users:\n    run: node users.js\n    routes: [/users]\n    env: { DB_PASSWORD: hunter2, MODE: fast }\n    uses: [orders]\n  orders:\n    run: node orders.js\n    routes: []\n";

#[test]
fn check_of_a_good_manifest_is_one_line_on_stdout_and_code_0() {
    let place = Place::new(&[("synego.yaml", SHOP)]);
    let said = place.run(&["check"]).expect_code(0);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("synego.yaml: 2 services, 1 route, no problem\n", ""));
}

#[test]
fn check_prints_every_mistake_on_stdout_and_ends_with_1() {
    let place = Place::new(&[(
        "synego.yaml",
        "mesh: shop\nservices:\n  users:\n    run: node users.js\n    replicas: 2\n    gzip: yes\n",
    )]);
    let said = place.run(&["check"]).expect_code(1);
    assert!(
        said.out.contains("synego.yaml:5:5: error[unknown_key]: service `users` has no key `replicas`\n"),
        "{}",
        said.out
    );
    assert!(said.out.contains("nearest: `instances`"), "{}", said.out);
    assert!(said.out.ends_with("2 errors; synego.yaml is refused\n"), "{}", said.out);
    assert_eq!(said.err, "");
}

#[test]
fn check_as_json_is_one_object_with_every_field() {
    let place = Place::new(&[("synego.yaml", "services:\n  users:\n    run: node users.js\n    replicas: 2\n")]);
    let value = place.run(&["check", "-o", "json"]).expect_code(1).json();
    assert_eq!((&value["kind"], &value["ok"]), (&"check".into(), &false.into()));
    let item = &value["items"][0];
    for (field, wanted) in
        [("file", "synego.yaml"), ("code", "unknown_key"), ("severity", "error"), ("nearest", "instances")]
    {
        assert_eq!(item[field], wanted, "{item}");
    }
    assert_eq!((item["line"].as_u64(), item["column"].as_u64()), (Some(4), Some(5)));
}

#[test]
fn check_without_a_manifest_says_where_it_looked() {
    let said = Place::new(&[]).run(&["check"]).expect_code(1);
    assert_eq!(said.out, "");
    assert!(
        said.err.starts_with("error: no manifest in this folder or above it\ncause: looked for synego.yaml"),
        "{}",
        said.err
    );
}

#[test]
fn the_manifest_is_found_from_a_folder_below_it() {
    let place = Place::new(&[("synego.yaml", SHOP), ("deep/down/file", "")]);
    let said = place.run_in(&place.path().join("deep/down"), &["check"]).expect_code(0);
    assert!(said.out.contains("2 services"), "{}", said.out);
}

#[test]
fn show_names_the_origin_of_each_value() {
    let place = Place::new(&[("synego.yaml", SHOP)]);
    let said = place.run(&["show", "-o", "json"]).expect_code(0).json();
    let origin = |key: &str| {
        let items = said["items"].as_array().expect("items");
        items.iter().find(|item| item["key"] == key).map(|item| item["origin"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(origin("mesh").as_deref(), Some("synego.yaml:1"));
    assert_eq!(origin("services.users.run").as_deref(), Some("synego.yaml:4"));
    assert_eq!(origin("services.users.policy.timeout"), None, "a default is not said");
    let all = place.run(&["show", "services.users.policy", "--effective"]).expect_code(0);
    assert!(all.out.contains("services.users.policy.timeout") && all.out.contains("default"), "{}", all.out);
}

#[test]
fn show_env_lists_the_variables_of_a_service_and_masks_secrets() {
    let place = Place::new(&[
        ("synego.yaml", &SHOP.replace("    uses:", "    env_file: [.env]\n    uses:")),
        (".env", "FROM_FILE=yes\n"),
    ]);
    let said = place.run(&["show", "env", "users"]).expect_code(0);
    for line in
        ["DB_PASSWORD        ***", "FROM_FILE          yes", "MODE               fast", "SYNEGO_URL_ORDERS", "PORT"]
    {
        assert!(said.out.contains(line), "{line} in {}", said.out);
    }
    assert!(!said.out.contains("hunter2"));
    let said = place.run(&["show", "env", "user"]).expect_code(1);
    assert!(said.err.contains("nearest: `users`"), "{}", said.err);
}

#[test]
fn the_schema_is_json() {
    let value = Place::new(&[]).run(&["schema"]).expect_code(0).json();
    assert!(value["$schema"].as_str().is_some_and(|text| text.contains("2020-12")), "{}", value["$schema"]);
}

#[test]
fn every_reason_is_explained_in_every_form() {
    let place = Place::new(&[]);
    for reason in synego_model::Reason::ALL {
        let said = place.run(&["explain", reason.word(), "-o", "json"]).expect_code(0).json();
        let item = &said["items"][0];
        assert_eq!(item["status"], reason.status(), "{reason}");
        for field in ["meaning", "cause", "remedy"] {
            assert!(item[field].as_str().is_some_and(|text| !text.is_empty()), "{reason} has no {field}");
        }
    }
    let said = place.run(&["explain", "no_ready_endpoint"]).expect_code(0);
    assert!(
        said.out.starts_with("no_ready_endpoint  503 · grpc 14 · retry later · blame upstream\n  meaning "),
        "{}",
        said.out
    );
    let said = place.run(&["explain", "503"]).expect_code(0);
    assert!(said.out.contains("no_ready_endpoint") && said.out.contains("overloaded"), "{}", said.out);
    assert!(place.run(&["explain", "unknown_key"]).expect_code(0).out.contains("meaning"));
    assert!(place.run(&["explain", "services.users.policy.timeout"]).expect_code(0).out.contains("30s"));
}

#[test]
fn what_is_unknown_is_met_with_the_nearest_word() {
    let place = Place::new(&[]);
    let said = place.run(&["explain", "no_ready_endpont"]).expect_code(1);
    assert_eq!(said.out, "");
    assert!(
        said.err.contains("error: nothing is known of `no_ready_endpont`\ncause: nearest: `no_ready_endpoint`"),
        "{}",
        said.err
    );
    assert!(place.run(&["explain", "200"]).expect_code(1).err.contains("the mesh itself never answers 200"));
}

#[test]
fn wrong_use_is_an_error_with_cause_and_help_and_code_2() {
    let place = Place::new(&[]);
    let cases: &[(&[&str], &str)] = &[
        (&["statu"], "error: no command `statu`\ncause: nearest: `status`\n"),
        (&["status", "--limti", "3"], "error: no flag or argument `--limti` here\ncause: nearest: `--limit`\n"),
        (&["get", "pods"], "error: `pods` is no value of `<KIND>`\ncause: expected one of services, instances"),
        (
            &["status", "--timeout", "30"],
            "error: `30` is no value of `--timeout <TIME>`\ncause: `30` is not a duration",
        ),
        (&["logs", "--admin", "nowhere"], "error: `nowhere` is not the address of an admin API\n"),
        (&[], ""),
    ];
    for (arguments, expected) in cases {
        let said = place.run(arguments).expect_code(2);
        assert!(said.err.starts_with(expected) && said.out.is_empty(), "{arguments:?}: {} {}", said.err, said.out);
    }
}

#[test]
fn a_mesh_that_is_not_there_is_named_with_its_socket_and_what_to_do() {
    let place = Place::new(&[("synego.yaml", SHOP)]);
    for command in ["status", "down", "logs", "plan", "apply"] {
        let said = place.run(&[command]).expect_code(1);
        assert!(
            said.err.starts_with("error: cannot reach the mesh `offline`\ncause: nothing listens at unix:"),
            "{}",
            said.err
        );
        assert!(said.err.contains("\nhelp:  start it with `synego up`"), "{}", said.err);
        assert_eq!(said.out, "");
    }
    let said = Place::new(&[]).run(&["status"]).expect_code(1);
    assert!(
        said.err.starts_with("error: no mesh runs here, and no manifest is in this folder or above it\n"),
        "{}",
        said.err
    );
}

#[test]
fn a_flag_wins_over_its_variable() {
    let place = Place::new(&[]);
    let with = |arguments: &[&str]| {
        let output = place.command(arguments).env("SYNEGO_OUTPUT", "json").output().expect("synego runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(with(&["version"]).starts_with("{\"kind\":\"version\""));
    assert!(with(&["version", "-o", "yaml"]).starts_with("kind: version"));
}

#[test]
fn version_tells_what_it_was_built_of() {
    let place = Place::new(&[]);
    let said = place.run(&["--version"]).expect_code(0);
    assert!(said.out.starts_with(&format!("synego {}", env!("CARGO_PKG_VERSION"))), "{}", said.out);
    let value = place.run(&["version", "-o", "json"]).expect_code(0).json();
    assert_eq!(value["items"][0]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn completions_know_commands_flags_and_words() {
    let place = Place::new(&[]);
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let said = place.run(&["completions", shell]).expect_code(0);
        assert!(said.out.contains("synego") && said.err.is_empty(), "{shell}: {}", said.out);
    }
    let completed = |words: &[&str]| {
        let mut command = place.command(&["--"]);
        command.args(words).env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        let output = command.env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_IFS", "\n").output().expect("synego runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(completed(&["synego", "sta"]).lines().any(|word| word == "status"));
    assert!(completed(&["synego", "explain", "no_r"]).lines().any(|word| word == "no_ready_endpoint"));
}

#[test]
fn man_pages_are_written_for_every_command() {
    let place = Place::new(&[]);
    assert!(place.run(&["man"]).expect_code(0).out.contains(".TH synego 1"));
    place.run(&["man", "--out", "pages"]).expect_code(0);
    for page in ["synego.1", "synego-up.1", "synego-nginx-check.1", "synego-explain.1"] {
        assert!(place.path().join("pages").join(page).is_file(), "{page}");
    }
}

#[test]
fn the_reference_page_equals_the_program() {
    let said = Place::new(&[]).run(&["man", "--markdown"]).expect_code(0);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).expect("docs/cli.md");
    assert!(said.out == page, "write it anew: cargo run --bin synego -- man --markdown > docs/cli.md");
}

#[test]
fn init_writes_a_manifest_that_check_takes_and_never_overwrites_one() {
    let place = Place::new(&[
        ("package.json", r#"{"name":"api","scripts":{"start":"node src/server.js"}}"#),
        ("src/server.js", "require('http').createServer().listen(process.env.PORT)\n"),
        ("worker/go.mod", "module example.com/worker\n"),
        ("worker/main.go", "package main\nfunc main() {}\n"),
    ]);
    let said = place.run(&["init"]).expect_code(0);
    assert!(said.out.starts_with("wrote synego.yaml: 2 services ("), "{}", said.out);
    assert!(said.out.contains("it reads PORT (src/server.js:1)"), "{}", said.out);
    assert_eq!(said.err, "next: synego check, then synego up\n");
    place.run(&["check", "--strict"]).expect_code(0);
    let before = std::fs::read_to_string(place.path().join("synego.yaml")).expect("the manifest");
    let said = place.run(&["init"]).expect_code(1);
    assert!(said.err.starts_with("error: synego.yaml exists, and `init` never overwrites\n"), "{}", said.err);
    assert_eq!(std::fs::read_to_string(place.path().join("synego.yaml")).expect("the manifest"), before);
}

#[test]
fn init_finds_nothing_in_an_empty_folder() {
    let said = Place::new(&[("notes.txt", "")]).run(&["init"]).expect_code(1);
    assert!(
        said.err.starts_with("error: nothing found that could be started\n") && said.out.is_empty(),
        "{}",
        said.err
    );
}

#[test]
fn init_rewrites_the_older_form() {
    let place =
        Place::new(&[("synego.config.json", r#"{"nodes":[{"type":"master","host":"localhost","port":3000}]}"#)]);
    place.run(&["init", "--from", "synego.config.json"]).expect_code(0);
    std::fs::remove_file(place.path().join("synego.config.json")).expect("removed");
    assert_eq!(place.run(&["check"]).expect_code(0).err, "");
    let said = place.run(&["show", "masters.ingress", "-o", "json"]).expect_code(0).json();
    assert!(said["items"][0]["value"].as_str().is_some_and(|value| value.ends_with(":3000")), "{said}");
}

#[test]
fn without_a_terminal_there_is_no_colour_unless_it_is_asked_for() {
    let place = Place::new(&[("synego.yaml", "services: { a: { run: a, nope: 1 } }\n")]);
    assert!(!place.run(&["check"]).out.contains('\u{1b}'));
    assert!(place.run(&["check", "--color", "always"]).out.contains('\u{1b}'));
}

#[test]
fn without_utf8_the_output_is_ascii() {
    let place = Place::new(&[]);
    let output = place.command(&["explain", "no_route"]).env("LANG", "C").output().expect("synego runs");
    assert!(output.stdout.is_ascii(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::new(&[]);
    let mut child = place.command(&["schema"]).stdout(std::process::Stdio::piped()).spawn().expect("synego runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn nginx_takes_the_configuration_that_is_shown() {
    let place = Place::new(&[
        ("synego.yaml", &format!("{SHOP}gateway: {{ static: {{ /static: ./public }} }}\n")),
        ("public/a.txt", ""),
    ]);
    let said = place.run(&["nginx", "show"]).expect_code(0);
    assert!(said.out.contains("upstream masters") && said.out.contains("gateway.static"), "{}", said.out);
    assert!(place.run(&["nginx", "check"]).expect_code(0).out.contains("takes the configuration"));
    place.run(&["check", "--nginx"]).expect_code(0);
}
