//! `synego status`: how the mesh is, or one service of it.

use clap_complete::ArgValueCompleter;
use synego_wire::pb;

use crate::client::Mesh;
use crate::commands::watching;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::output::table::Layout;
use crate::output::{Cell, Table, Tone, amount, time};
use crate::view::{self, json, rows};

const EXAMPLES: &str = "\
Examples:
  synego status                every service
  synego status users          one, with its instances
  synego status --watch=2s     again after each change
  synego status -o json | jq '.items[] | select(.state != \"ready\")'";

/// Show how the mesh is: each service, or one with its instances
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// One service
    #[arg(add = ArgValueCompleter::new(complete::services))]
    service: Option<String>,
    /// Exit with 1 unless all is ready
    #[arg(long)]
    strict: bool,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        if context.globals.watch.is_some() {
            let mut layouts = (Layout::default(), Layout::default());
            return watching::run(context, &mut mesh, &[], |view| watching::Frame {
                answer: answer(args, view),
                rows: table(args, view).steady_lines(context.screen.out),
                human: human(args, context, view, &mut layouts),
            })
            .await;
        }
        let view = mesh.view(&[]).await?;
        known(&view, args.service.as_deref())?;
        context
            .answer(answer(args, &view), || human(args, context, &view, &mut (Layout::default(), Layout::default())));
        let ready =
            chosen(args, &view).all(|service| service.state() == pb::InstanceState::Ready || view::is_done(service));
        Ok(if args.strict && !ready { FAILED } else { DONE })
    })
}

/// # Errors
/// When there is no service of this name.
pub(crate) fn known(view: &pb::MeshView, service: Option<&str>) -> Result<(), Failure> {
    match service {
        Some(name) if !view.service.iter().any(|service| service.name == name) => {
            Err(Failure::new(format!("the mesh `{}` has no service `{name}`", view.mesh))
                .help("`synego get services` lists them"))
        }
        _ => Ok(()),
    }
}

/// The services that are asked for; the others are needed to say who calls them.
fn chosen<'a>(args: &'a Args, view: &'a pb::MeshView) -> impl Iterator<Item = &'a pb::ServiceView> {
    view.service.iter().filter(|service| args.service.as_ref().is_none_or(|name| service.name == *name))
}

fn answer(args: &Args, view: &pb::MeshView) -> crate::output::Answer {
    json::status(view, chosen(args, view))
}

fn table(args: &Args, view: &pb::MeshView) -> Table {
    match args.service {
        Some(_) => rows::instances(chosen(args, view), view.unix_ms, false),
        None => rows::services(view),
    }
}

fn human(args: &Args, context: &Context, view: &pb::MeshView, layouts: &mut (Layout, Layout)) -> String {
    let mut text = match &args.service {
        None => mesh(context, view, &mut layouts.0),
        Some(_) => chosen(args, view).map(|service| one(context, service, view, &mut layouts.1)).collect(),
    };
    if context.globals.verbose > 0 {
        text.extend(chosen(args, view).filter_map(held));
    }
    let warnings: Vec<&str> = view.warning.iter().map(|warning| warning.message.as_str()).collect();
    if !warnings.is_empty() {
        let label = context.screen.out.tone(Tone::Warn, "warning:");
        text.push_str(&format!("{label} {}\n", warnings.join(" · ")));
    }
    text
}

fn mesh(context: &Context, view: &pb::MeshView, layout: &mut Layout) -> String {
    let names: Vec<&str> = view.master.iter().map(|master| master.name.as_str()).collect();
    let mut head = vec![
        context.screen.out.tone(Tone::Strong, &view.mesh),
        match names.as_slice() {
            [] => "masters elsewhere".to_owned(),
            [one] => format!("master {one}"),
            many => format!("masters {}", many.join(" ")),
        },
    ];
    if !view.master.is_empty() {
        head.insert(1, format!("epoch {}", view.epoch));
    }
    if !view.access.is_empty() {
        head.push(format!("access {}", view.access));
    }
    if let Some(gateway) = &view.gateway {
        head.push(gateway_words(gateway));
    }
    head.push(context.clock.at(view.unix_ms, view.unix_ms));
    let table = rows::services(view);
    let body = if table.is_empty() { "no service yet\n".to_owned() } else { context.table_with(table, layout) };
    format!("{}\n\n{body}", head.join(" · "))
}

/// How what each process of a service may take of its machine is held.
fn held(service: &pb::ServiceView) -> Option<String> {
    let ways = service.instance.iter().map(|instance| instance.caps.as_str()).filter(|caps| !caps.is_empty());
    let ways: std::collections::BTreeSet<&str> = ways.collect();
    (!ways.is_empty()).then(|| format!("each instance of {}: {}\n", service.name, Vec::from_iter(ways).join("; ")))
}

/// What faces the world, in a few words.
pub(crate) fn gateway_words(gateway: &pb::GatewayView) -> String {
    let engine = match gateway.nginx_version.as_str() {
        "" => gateway.engine.clone(),
        version => format!("{} {version}", gateway.engine),
    };
    let state = crate::output::paint::state_word(gateway.state());
    let cause = view::cause_line(gateway.cause.as_ref());
    let place = if gateway.url.is_empty() { gateway.listen.join(", ") } else { gateway.url.clone() };
    let words = if state == "ready" { format!("{engine} at {place}") } else { format!("{engine} {state} at {place}") };
    if cause.is_empty() { words } else { format!("{words} ({cause})") }
}

fn one(context: &Context, service: &pb::ServiceView, view: &pb::MeshView, layout: &mut Layout) -> String {
    let paint = context.screen.out;
    let state = Cell::state(service.state());
    let callers: Vec<&str> = view
        .service
        .iter()
        .filter(|caller| caller.uses.contains(&service.name))
        .map(|caller| caller.name.as_str())
        .chain((!service.route.is_empty()).then_some("ingress"))
        .collect();
    let mut head = vec![paint.tone(Tone::Strong, &service.name), state.words(paint, context.screen.out_is_terminal)];
    if !service.version.is_empty() {
        head.push(service.version.join(" "));
    }
    if service.requests_per_second > 0.0 {
        head.push(format!("{} requests/s", amount::rate(service.requests_per_second)));
    }
    for (label, names) in [("called by", callers), ("uses", service.uses.iter().map(String::as_str).collect())] {
        if !names.is_empty() {
            head.push(format!("{label} {}", names.join(", ")));
        }
    }
    let mut text = format!("{}\n", head.join(" · "));
    if !service.route.is_empty() {
        text.push_str(&format!("routes {}\n", service.route.join(" ")));
    }
    let table = rows::instances([service], view.unix_ms, false);
    text.push('\n');
    text.push_str(&if table.is_empty() { "no instance yet\n".to_owned() } else { context.table_with(table, layout) });
    if let Some(change) = last_change(context, service, view.unix_ms) {
        text.push_str(&format!("last change {change}\n"));
    }
    text
}

fn last_change(context: &Context, service: &pb::ServiceView, now: u64) -> Option<String> {
    let causes = service.instance.iter().filter_map(|instance| Some((instance, instance.cause.as_ref()?)));
    let (instance, cause) = causes.max_by_key(|(_, cause)| cause.since_unix_ms)?;
    let at = context.clock.at(cause.since_unix_ms, now);
    let ago = time::since(cause.since_unix_ms, now);
    Some(format!(
        "{at} {} {} ({}), {ago} ago",
        instance.id,
        crate::output::paint::state_word(instance.state()),
        view::cause_line(Some(cause))
    ))
}
