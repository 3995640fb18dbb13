//! `synego token`: what lets another machine into the mesh, once.

use std::path::PathBuf;
use std::time::Duration;

use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use synego_wire::pb;

use crate::client::Mesh;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::time::{age, parse_duration, rfc3339};
use crate::output::{Answer, Cell, Column, Table, Tone};
use crate::secret_file;

const EXAMPLES: &str = "\
Examples:
  synego token create --out t          then, on the other machine: synego up --join HOST:3001 --token-file t
  synego token create --service users  for the sidecars of one service alone
  synego token list
  synego token revoke 8f2c41d0a9e3";

/// Make, list or revoke join tokens: each lets one machine into the mesh, once
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Make a token: its text is shown this once, alone on stdout
    Create(Create),
    /// List the tokens that can be used, and those of the last day; their text is not known any more
    List,
    /// End a token
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Only for this service [default: any]
    #[arg(long, value_name = "SERVICE", add = ArgValueCompleter::new(complete::services))]
    service: Option<String>,
    /// For how long it can be used; 1m to 24h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    ttl: Duration,
    /// Write it to this new file (0600) instead of stdout
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: Option<PathBuf>,
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        match &args.act {
            Act::Create(create) => self::create(create, context, &mut mesh).await,
            Act::List => list(context, &mut mesh).await,
            Act::Revoke { id } => revoke(id, context, &mut mesh).await,
        }
    })
}

async fn create(args: &Create, context: &Context, mesh: &mut Mesh<'_>) -> Result<u8, Failure> {
    if let Some(file) = &args.out {
        secret_file::is_free(file)?;
    }
    let ttl_ms = u32::try_from(args.ttl.as_millis()).unwrap_or(u32::MAX);
    let service = args.service.clone().unwrap_or_default();
    let made = mesh.token_create(pb::TokenCreateRequest { service, ttl_ms }).await?;
    let view = made.view.unwrap_or_default();
    let mut item = item(&view);
    match &args.out {
        Some(file) => {
            secret_file::write(file, format!("{}\n", made.token).as_bytes())?;
            item["file"] = file.display().to_string().into();
        }
        None => item["token"] = made.token.clone().into(),
    }
    let left = Duration::from_millis(view.expires_unix_ms.saturating_sub(context.now()));
    let of = if view.service.is_empty() { "any service".to_owned() } else { format!("the service {}", view.service) };
    context.screen.note(&format!("token {} for {of}: works once, ends in {}", view.id, age(left)));
    let answer = Answer::new("token", "id").items(vec![item]);
    context.answer(answer, || match &args.out {
        Some(file) => format!("{}\n", file.display()),
        None => format!("{}\n", made.token),
    });
    Ok(DONE)
}

async fn list(context: &Context, mesh: &mut Mesh<'_>) -> Result<u8, Failure> {
    let tokens = mesh.token_list().await?;
    let answer = Answer::new("tokens", "id").items(tokens.iter().map(item).collect());
    context.answer(answer, || {
        if tokens.is_empty() {
            context.screen.note("no join tokens: make one with `synego token create`");
            return String::new();
        }
        context.table(table(context, &tokens))
    });
    Ok(DONE)
}

async fn revoke(id: &str, context: &Context, mesh: &mut Mesh<'_>) -> Result<u8, Failure> {
    let view = mesh.token_revoke(id).await?;
    let answer = Answer::new("token", "id").items(vec![item(&view)]);
    context.answer(answer, || match state(&view, context.now()) {
        State::Used => format!("{} is forgotten; it had been used by {} already\n", view.id, view.used_by.join(", ")),
        State::Open | State::Expired => format!("{} works no more\n", view.id),
    });
    Ok(DONE)
}

enum State {
    Open,
    Used,
    Expired,
}

fn state(view: &pb::TokenView, now: u64) -> State {
    match (view.used_unix_ms, view.expires_unix_ms) {
        (0, ends) if ends > now => State::Open,
        (0, _) => State::Expired,
        _ => State::Used,
    }
}

fn item(view: &pb::TokenView) -> Value {
    let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    let time = |unix_ms: u64| if unix_ms == 0 { Value::Null } else { rfc3339(unix_ms).into() };
    json!({
        "id": view.id,
        "service": text(&view.service),
        "created_at": time(view.created_unix_ms),
        "expires_at": time(view.expires_unix_ms),
        "used_at": time(view.used_unix_ms),
        "used_by": view.used_by,
    })
}

fn table(context: &Context, tokens: &[pb::TokenView]) -> Table {
    let mut table = Table::new(&[
        Column::name("TOKEN"),
        Column::stays("STATE"),
        Column::text("SERVICE"),
        Column::text("ENDS"),
        Column::sentence("USED BY"),
    ]);
    let now = context.now();
    for view in tokens {
        let (state, ends) = match state(view, now) {
            State::Open => {
                let left = age(Duration::from_millis(view.expires_unix_ms.saturating_sub(now)));
                (Cell::toned("open", Tone::Good), format!("in {left}"))
            }
            State::Used => (Cell::new("used"), context.clock.at(view.used_unix_ms, now)),
            State::Expired => (Cell::new("expired"), context.clock.at(view.expires_unix_ms, now)),
        };
        let service = if view.service.is_empty() { "any" } else { &view.service };
        table.row(vec![
            Cell::new(&view.id),
            state,
            Cell::new(service),
            Cell::new(ends),
            Cell::new(view.used_by.join(", ")),
        ]);
    }
    table
}
