//! Older forms of the edge: the Nginx example and the kernel example.

use super::{Older, scalar};
use crate::tree::{Entry, Kind, Node, Span};

/// Keys that only the Nginx example has.
const NGINX: &[&str] =
    &["http_port", "server_name", "worker_connections", "static_serving", "spa_serving", "reverse_proxy"];

impl Older<'_> {
    /// The Nginx example.
    pub(super) fn edge(&mut self) {
        if !NGINX.iter().any(|key| self.tree().entry(key).is_some()) {
            return;
        }
        let keys: Vec<String> = self.tree().entries().iter().map(|entry| entry.key.clone()).collect();
        for key in keys {
            match key.as_str() {
                "http_port" => self.moved(&key, &["gateway", "listen"], "gateway: { listen: \0 }"),
                "server_name" => self.hosts(),
                "worker_connections" => {
                    self.moved(&key, &["gateway", "limits", "connections"], "gateway: { limits: { connections: \0 } }")
                }
                "logs" => self.logs(),
                "static_serving" => self.folders(&key, "static"),
                "spa_serving" => self.folders(&key, "spa"),
                "reverse_proxy" => self.proxies(),
                "upload" => self.upload(("url_path", "temp_path")),
                other if other.starts_with("comment") => {
                    self.take(other);
                }
                _ => {}
            }
        }
    }

    /// A value that only goes elsewhere.
    fn moved(&mut self, key: &str, path: &[&str], new: &str) {
        if let Some(entry) = self.take(key) {
            self.note(entry.span, key, &new.replace('\0', &entry.value.brief(40)));
            self.put(path, entry.value);
        }
    }

    fn hosts(&mut self) {
        let Some(entry) = self.take("server_name") else { return };
        let names = entry.value.text().unwrap_or_default().to_owned();
        let hosts: Vec<&str> = names.split_whitespace().filter(|name| !matches!(*name, "localhost" | "_")).collect();
        if hosts.is_empty() {
            self.dropped(entry.span, "server_name", "without `gateway.hosts` every host is served");
            return;
        }
        self.note(entry.span, "server_name", &format!("gateway: {{ hosts: [{}] }}", hosts.join(", ")));
        let items = hosts.iter().map(|host| scalar(entry.value.span, host)).collect();
        self.put(&["gateway", "hosts"], Node::new(entry.value.span, Kind::List(items)));
    }

    fn logs(&mut self) {
        let Some(entry) = self.take("logs") else { return };
        self.note(entry.span, "logs", "telemetry: { logs: { dir: ./logs } }");
        let kept: Vec<Entry> =
            entry.value.entries().iter().filter(|entry| !entry.key.starts_with("comment")).cloned().collect();
        self.put(&["telemetry", "logs"], Node::new(entry.value.span, Kind::Map(kept)));
    }

    /// A list of `{ url_path, root_path }`.
    fn folders(&mut self, key: &str, section: &str) {
        let Some(entry) = self.take(key) else { return };
        let mut shown = Vec::new();
        for item in entry.value.items() {
            let (Some(place), Some(folder)) = (item.get("url_path").and_then(Node::text), item.get("root_path")) else {
                self.put(&["gateway", section], Node::new(item.span, Kind::List(vec![item.clone()])));
                continue;
            };
            shown.push(format!("{place}: {}", folder.brief(40)));
            let place = place.to_owned();
            self.put(&["gateway", section, &place], folder.clone());
        }
        self.note(entry.span, key, &format!("gateway: {{ {section}: {{ {} }} }}", shown.join(", ")));
    }

    /// Reverse proxies: to the own master nothing, to others a service that is found running.
    fn proxies(&mut self) {
        let Some(entry) = self.take("reverse_proxy") else { return };
        let own = self.tree().at(&["masters", "ingress"]).and_then(Node::text).unwrap_or("3000");
        let own = own.rsplit(':').next().unwrap_or("3000").to_owned();
        let mut shown = Vec::new();
        for item in entry.value.items() {
            let text = |key: &str| item.get(key).and_then(Node::text).unwrap_or_default().to_owned();
            if text("enabled") == "false" {
                continue;
            }
            let (place, to) = (text("url_path"), text("pass_to"));
            let address =
                to.split_once("://").map_or(to.as_str(), |(_, rest)| rest).split('/').next().unwrap_or_default();
            let port = address.rsplit(':').next().unwrap_or_default();
            if port == own
                && address.split(':').next().is_some_and(|host| matches!(host, "127.0.0.1" | "localhost" | "["))
            {
                continue;
            }
            let name = self.free_name(&place);
            shown.push(format!("{name}: {{ address: {address}, routes: [{place}] }}"));
            let span = item.span;
            self.put(&["services", &name, "address"], scalar(span, address));
            let routes = Node::new(span, Kind::List(vec![scalar(span, &place)]));
            self.put(&["services", &name, "routes"], routes);
        }
        match shown.as_slice() {
            [] => self.dropped(entry.span, "reverse_proxy", "all routes go to the own master"),
            all => {
                let new = format!("services: {{ {} }}", all.join(", "));
                self.note(entry.span, "reverse_proxy", &new);
            }
        }
    }

    /// A name for what stands at `place`, that no service has yet.
    fn free_name(&self, place: &str) -> String {
        let base = synego_model::name::nearest_name(place).unwrap_or_else(|| "proxy".to_owned());
        let taken = |name: &str| self.tree().at(&["services", name]).is_some();
        let mut name = base.clone();
        let mut number = 2;
        while taken(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        name
    }

    fn upload(&mut self, (place_key, folder_key): (&str, &str)) {
        let Some(entry) = self.take("upload") else { return };
        let (Some(place), Some(folder)) =
            (entry.value.get(place_key).and_then(Node::text), entry.value.get(folder_key))
        else {
            self.put(&["gateway", "uploads"], entry.value);
            return;
        };
        let place = place.to_owned();
        self.note(
            entry.span,
            "upload",
            &format!("gateway: {{ uploads: {{ {place}: {{ dir: {} }} }} }}", folder.brief(40)),
        );
        let value = Node::new(
            entry.value.span,
            Kind::Map(vec![Entry { key: "dir".into(), span: entry.span, value: folder.clone() }]),
        );
        self.put(&["gateway", "uploads", &place], value);
    }

    /// The kernel example.
    pub(super) fn kernel(&mut self) {
        for key in ["http", "https", "grpc", "tcp", "udp"] {
            let is_old = self.tree().get(key).is_some_and(|node| node.get("port").is_some());
            if let Some(entry) = is_old.then(|| self.take(key)).flatten() {
                self.listener(key, &entry);
            }
        }
        let is_old = |node: Option<&Node>, keys: &[&str]| {
            node.is_some_and(|node| keys.iter().any(|key| node.get(key).is_some()))
        };
        if is_old(self.tree().get("ws"), &["port", "enabled", "path"])
            && let Some(entry) = self.take("ws")
        {
            self.dropped(entry.span, "ws", "WebSocket is part of `http`");
        }
        if is_old(self.tree().get("cli"), &["ipc_path"])
            && let Some(entry) = self.take("cli")
        {
            self.dropped(entry.span, "cli", "the admin socket has its place by itself");
        }
        if is_old(self.tree().get("upload"), &["urlpath"]) {
            self.upload(("urlpath", "filepath"));
        }
        if let Some(entry) = self.take("shakehand") {
            let port = entry.value.get("port").unwrap_or(&entry.value).clone();
            self.note(entry.span, "shakehand", &format!("masters: {{ mesh: {} }}", port.brief(40)));
            self.put(&["masters", "mesh"], port);
        }
        if is_old(self.tree().get("master"), &["host", "ws", "ipc"])
            && let Some(entry) = self.take("master")
        {
            let text = |key: &str| entry.value.get(key).and_then(Node::text);
            let address = format!("{}:{}", text("host").unwrap_or("127.0.0.1"), text("ws").unwrap_or("3001"));
            self.note(entry.span, "master", &format!("masters: [{address}]"));
            self.join(entry.value.span, &address);
        }
    }

    fn listener(&mut self, key: &str, entry: &Entry) {
        let span: Span = entry.value.span;
        let Some(port) = entry.value.get("port").cloned() else { return };
        self.note(entry.span, key, &format!("gateway: {{ listen: {{ {key}: {} }} }}", port.brief(20)));
        let protocol = matches!(key, "tcp" | "udp").then(|| Entry {
            key: "protocol".into(),
            span: entry.span,
            value: scalar(span, key),
        });
        let mut keys = vec![Entry { key: "address".into(), span, value: port }];
        keys.extend(protocol);
        self.put(&["gateway", "listen", key], Node::new(span, Kind::Map(keys)));
        if let (Some(cert), Some(secret)) = (entry.value.entry("cert"), entry.value.entry("key")) {
            let pair = Node::new(span, Kind::Map(vec![cert.clone(), secret.clone()]));
            self.put(&["gateway", "tls", "certificates"], Node::new(span, Kind::List(vec![pair])));
        }
    }
}
