//! `synego get`: lists of what the mesh knows.

use clap_complete::ArgValueCompleter;
use serde_json::Value;
use synego_wire::pb;

use crate::client::Mesh;
use crate::commands::watching;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::table::Layout;
use crate::output::{Answer, Table};
use crate::view::{json, rows};

const EXAMPLES: &str = "\
Examples:
  synego get instances
  synego get routes -o wide
  synego get policies users -o yaml";

/// List services, instances, endpoints, routes, policies, nodes or masters
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// What to list
    kind: Kind,
    /// One of them
    #[arg(add = ArgValueCompleter::new(complete::anything))]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Services
    #[value(alias = "service")]
    Services,
    /// Instances
    #[value(alias = "instance")]
    Instances,
    /// Endpoints
    #[value(alias = "endpoint")]
    Endpoints,
    /// Routes, in the order in which they win
    #[value(alias = "route")]
    Routes,
    /// Policies of services and of routes
    #[value(alias = "policy")]
    Policies,
    /// Machines
    #[value(alias = "node")]
    Nodes,
    /// Masters
    #[value(alias = "master")]
    Masters,
}

impl Kind {
    /// Its word, one and many; the one is the field that names an item.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Services => ("service", "services"),
            Self::Instances => ("instance", "instances"),
            Self::Endpoints => ("endpoint", "endpoints"),
            Self::Routes => ("route", "routes"),
            Self::Policies => ("policy", "policies"),
            Self::Nodes => ("node", "nodes"),
            Self::Masters => ("master", "masters"),
        }
    }
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        if context.globals.watch.is_some() {
            let mut layout = Layout::default();
            return watching::run(context, &mut mesh, &[], |view| {
                let view = only(args, view);
                watching::Frame {
                    answer: answer(args.kind, &view),
                    rows: table(args.kind, &view).steady_lines(context.screen.out),
                    human: human(args.kind, context, &view, &mut layout),
                }
            })
            .await;
        }
        let view = only(args, &mesh.view(&[]).await?);
        let answer = answer(args.kind, &view);
        if let (Some(name), true) = (&args.name, items(args.kind, &view).is_empty()) {
            let (one, many) = args.kind.words();
            return Err(Failure::new(format!("the mesh `{}` has no {one} `{name}`", view.mesh))
                .help(format!("`synego get {many}` lists them")));
        }
        context.answer(answer, || human(args.kind, context, &view, &mut Layout::default()));
        Ok(DONE)
    })
}

/// The view with nothing in it but what is asked for.
fn only(args: &Args, view: &pb::MeshView) -> pb::MeshView {
    let mut view = view.clone();
    let Some(name) = &args.name else { return view };
    match args.kind {
        Kind::Services => view.service.retain(|service| service.name == *name),
        Kind::Instances | Kind::Endpoints => view.service.iter_mut().for_each(|service| {
            service.instance.retain(|instance| {
                instance.id == *name || instance.id.split('@').next() == Some(name) || service.name == *name
            });
        }),
        Kind::Routes => view.route.retain(|route| route.place == *name || route.service == *name),
        Kind::Policies => {
            view.service.retain(|service| service.name == *name);
            view.route.retain(|route| route.place == *name || route.service == *name);
        }
        Kind::Nodes => view.node.retain(|node| node.name == *name),
        Kind::Masters => view.master.retain(|master| master.name == *name),
    }
    view
}

fn policies(view: &pb::MeshView) -> Vec<(String, pb::Policy)> {
    let of_services = view.service.iter().filter_map(|service| Some((service.name.clone(), service.policy.clone()?)));
    let of_routes = view.route.iter().filter_map(|route| Some((route.place.clone(), route.policy.clone()?)));
    of_services.chain(of_routes).collect()
}

fn items(kind: Kind, view: &pb::MeshView) -> Vec<Value> {
    let of_instances = |item: fn(&pb::InstanceView, &str) -> Value| {
        let all = view.service.iter().flat_map(|service| service.instance.iter().map(|one| (one, &service.name)));
        all.map(|(instance, service)| item(instance, service)).collect()
    };
    match kind {
        Kind::Services => view.service.iter().map(json::service).collect(),
        Kind::Instances => of_instances(json::instance),
        Kind::Endpoints => of_instances(json::endpoint),
        Kind::Routes => view.route.iter().map(json::route).collect(),
        Kind::Policies => policies(view)
            .iter()
            .map(|(of, policy)| json::policy(of, if of.contains('/') { "route" } else { "service" }, policy))
            .collect(),
        Kind::Nodes => view.node.iter().map(json::node).collect(),
        Kind::Masters => view.master.iter().map(json::master).collect(),
    }
}

fn answer(kind: Kind, view: &pb::MeshView) -> Answer {
    let (one, many) = kind.words();
    json::answer(many, one, view).items(items(kind, view))
}

fn table(kind: Kind, view: &pb::MeshView) -> Table {
    match kind {
        Kind::Services => rows::services(view),
        Kind::Instances => rows::instances(&view.service, view.unix_ms, true),
        Kind::Endpoints => rows::endpoints(view),
        Kind::Routes => rows::routes(view),
        Kind::Policies => rows::policies(&policies(view)),
        Kind::Nodes => rows::nodes(view),
        Kind::Masters => rows::masters(view, view.unix_ms),
    }
}

fn human(kind: Kind, context: &Context, view: &pb::MeshView, layout: &mut Layout) -> String {
    let table = table(kind, view);
    if table.is_empty() {
        context.screen.note(&format!("no {} in the mesh `{}`", kind.words().1, view.mesh));
        return String::new();
    }
    context.table_with(table, layout)
}
