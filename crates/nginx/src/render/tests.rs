//! Tests of the configuration as text, against the golden files.

use std::path::Path;

use synego_model::gateway::{Listen, ListenProtocol, SpaPlace, StaticPlace};

use super::*;

fn listen(name: &str, protocol: ListenProtocol, address: &str) -> Listen {
    Listen { name: name.into(), protocol, address: address.parse().unwrap(), proxy_protocol: Vec::new() }
}

fn files(place: &str, dir: &str) -> StaticPlace {
    StaticPlace {
        place: place.parse().unwrap(),
        dir: dir.into(),
        index: "index.html".into(),
        cache: Duration::from_secs(3_600),
        list: false,
    }
}

fn spa(place: &str, dir: &str) -> SpaPlace {
    SpaPlace { place: place.parse().unwrap(), dir: dir.into(), index: "index.html".into() }
}

fn gateway() -> GatewaySpec {
    GatewaySpec {
        engine: None,
        listen: vec![listen("http", ListenProtocol::Http, "0.0.0.0:8080")],
        hosts: Vec::new(),
        static_places: Vec::new(),
        spa_places: Vec::new(),
    }
}

fn config(gateway: GatewaySpec) -> NginxConfig {
    let masters = vec!["127.0.0.1:3000".parse().unwrap()];
    // Whoever runs the tests.
    let user = None;
    NginxConfig { unreachable: "127.0.0.1:3999".parse().unwrap(), user, ..NginxConfig::new(gateway, masters) }
}

/// Compares with `nginx/golden/NAME.conf`; with `SYNEGO_WRITE_GOLDEN=1` writes it instead.
fn golden(name: &str, config: &NginxConfig) {
    let text = render(config).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nginx/golden").join(format!("{name}.conf"));
    if synego_runtime::config::env("SYNEGO_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    for (number, (have, want)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(have, want, "{name}.conf differs in line {}", number + 1);
    }
    assert_eq!(text.len(), expected.len(), "{name}.conf differs in length");
}

#[test]
fn dynamic_routes_alone_are_as_in_the_golden_file() {
    golden("dynamic", &config(gateway()));
}

#[test]
fn a_spa_at_the_root_with_two_masters_and_grpc_is_as_in_the_golden_file() {
    let mut wanted = config(GatewaySpec {
        listen: vec![
            listen("http", ListenProtocol::Http, "0.0.0.0:8080"),
            listen("grpc", ListenProtocol::Grpc, "[::]:8081"),
        ],
        spa_places: vec![spa("/", "/srv/shop/web")],
        static_places: vec![StaticPlace { list: true, index: String::new(), ..files("/files", "/srv/my files") }],
        ..gateway()
    });
    wanted.masters.push("[::1]:3000".parse().unwrap());
    wanted.access = AccessTo::Dir("/var/log/shop".into());
    (wanted.file_limit, wanted.workers, wanted.user) = (65_536, 4, Some("shop".into()));
    wanted.body_limit = Some(10 << 20);
    golden("shop", &wanted);
}

#[test]
fn hosts_with_places_of_their_own_are_as_in_the_golden_file() {
    let wanted = config(GatewaySpec {
        listen: vec![
            listen("http", ListenProtocol::Http, "127.0.0.1:8080"),
            listen("grpc", ListenProtocol::Grpc, "127.0.0.1:8081"),
        ],
        hosts: ["example.com", "*.example.com"].map(|host| host.parse().unwrap()).into(),
        static_places: vec![
            files("/static", "/srv/public"),
            files("admin.example.com/static", "/srv/admin"),
            files("other.org/", "/srv/never-served"),
        ],
        spa_places: vec![spa("admin.example.com/app", "/srv/admin/app")],
        ..gateway()
    });
    golden("hosts", &wanted);
}

#[test]
fn load_balancers_are_believed_at_the_listeners_that_list_them() {
    let mut wanted = config(gateway());
    wanted.gateway.listen.push(listen("inside", ListenProtocol::Http, "127.0.0.1:8081"));
    let ranges = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap());
    wanted.gateway.listen[0].proxy_protocol = ranges.into();
    let text = render(&wanted).unwrap();
    for line in [
        "        listen 0.0.0.0:8080 proxy_protocol default_server backlog=1024;\n",
        "        listen 127.0.0.1:8081 default_server backlog=1024;\n",
        "        # gateway.listen.*.proxy_protocol\n        set_real_ip_from 10.0.0.0/8;\n        \
         set_real_ip_from fd00::/8;\n        real_ip_header proxy_protocol;\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!render(&config(gateway())).unwrap().contains("real_ip"));
}

#[test]
fn every_part_names_the_key_it_came_from() {
    let mut wanted = config(gateway());
    wanted.gateway.static_places.push(files("/static", "/srv/public"));
    let text = render(&wanted).unwrap();
    for key in
        ["# gateway.listen", "# gateway.static \"/static\"", "# services.*.routes", "# masters.ingress", "# limits"]
    {
        assert!(text.contains(key), "{key}");
    }
}

#[test]
fn hostile_values_are_refused_all_at_once() {
    let mut wanted = config(gateway());
    let hostile = ["/srv/a;b", "/srv/a}\n}", "/srv/$uri", "/srv/a\"b", "relative"];
    wanted.gateway.static_places = hostile.iter().map(|dir| files("/static", dir)).collect();
    wanted.gateway.spa_places = vec![SpaPlace { index: "a;b".into(), ..spa("/app", "/srv/app") }];
    wanted.gateway.static_places.push(files("/users/:id", "/srv/users"));
    wanted.user = Some("root; daemon on".into());
    wanted.access = AccessTo::Dir("/var/log/{x}".into());
    wanted.gateway.listen[0].address.set_port(0);
    let problems = render(&wanted).unwrap_err().problems;
    assert_eq!(problems.len(), 10, "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.contains("gateway.static /users/:id: `:id` is a parameter")));
    assert!(problems.iter().any(|problem| problem.contains("gateway.spa /app: \"a;b\" has ';'")));
}

#[test]
fn without_a_master_there_is_nothing_to_render() {
    let wanted = NginxConfig { masters: Vec::new(), ..config(gateway()) };
    assert_eq!(render(&wanted).unwrap_err().to_string(), "masters: Nginx needs at least one address of an ingress");
}
