//! `synego ca`: the certificate authority of the mesh, the rotation of its root, and certificates of operators.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use synego_identity::PrivateKey;
use synego_model::text;
use synego_wire::pb;

use crate::client::Mesh;
use crate::context::Context;
use crate::credentials;
use crate::failure::{DONE, FAILED, Failure};
use crate::output::live::Live;
use crate::output::time::{age, parse_duration, rfc3339};
use crate::output::{Answer, Tone, amount};
use crate::secret_file;

/// How often a rotation is looked at while a person watches.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much later than a certificate's life a step may be done before it counts as stuck.
const LATE: Duration = Duration::from_secs(3600);
/// Most that are named in a line.
const NAMED: usize = 4;

const EXAMPLES: &str = "\
Examples:
  synego ca status
  synego ca rotate              a new root, within two lives of a certificate; nothing fails meanwhile
  synego ca rotate --fast       renews every certificate at once: done within seconds while all are linked
  synego ca rotate --abort      back to the old root
  synego ca export --out ca.pem a backup: certificate and key
  synego ca import ca.pem       goes over to that root
  synego ca operator alice --role read --out alice.pem   a certificate for a person, for `synego login --certificate`";

/// Show or change the certificate authority: status, rotate, export, import, operator
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// Show the roots, the step of a rotation and what it waits for; exits with 1 when it is stuck
    Status,
    /// Go over to a new root, with no failed handshake; goes on by itself, also after an interruption
    Rotate {
        /// Renew every certificate at once instead of waiting for their lives to end
        #[arg(long)]
        fast: bool,
        /// Go back to the old root
        #[arg(long, conflicts_with = "fast")]
        abort: bool,
    },
    /// Write certificate and key of the root that issues, as PEM
    Export {
        /// Write them to this new file (0600) instead of stdout
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        out: Option<PathBuf>,
    },
    /// Go over to the root of a file: a backup, or an intermediate of your own
    Import {
        /// Certificate and key, PEM, readable by you alone
        #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        pem: PathBuf,
    },
    /// Make a certificate by which a person or tool is known to the admin API from other machines
    Operator {
        /// For whom; another certificate of the same name may from then on what this one may
        #[arg(value_name = "NAME")]
        name: String,
        /// What it is for: read, or write
        #[arg(long, value_name = "ROLE", default_value = "write", value_parser = ["read", "write"])]
        role: String,
        /// How long it is good: 10m to 30d
        #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_duration)]
        ttl: Duration,
        /// The new file (0600) of certificate, key and roots, PEM
        #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
        out: PathBuf,
    },
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    if let Act::Export { out: None } = &args.act
        && context.screen.out_is_terminal
    {
        return Err(Failure::misuse("refused to show the key of the authority on a terminal")
            .help("write it to a file with `--out FILE`, or pass it on to another program"));
    }
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        match &args.act {
            Act::Status => {
                let view = mesh.ca_status().await?;
                show(context, &view);
                Ok(if is_stuck(&view) { FAILED } else { DONE })
            }
            Act::Rotate { fast, abort } => rotate(context, &mut mesh, *fast, *abort).await,
            Act::Export { out } => export(context, &mut mesh, out.as_deref()).await,
            Act::Import { pem } => import(context, &mut mesh, pem).await,
            Act::Operator { name, role, ttl, out } => operator(context, &mut mesh, name, role, *ttl, out).await,
        }
    })
}

async fn rotate(context: &Context, mesh: &mut Mesh<'_>, fast: bool, abort: bool) -> Result<u8, Failure> {
    let before = mesh.ca_status().await?;
    let holders = amount::count(before.of as usize, "certificate");
    let (touches, question) = if abort {
        (format!("{holders} of the mesh go back to the old root"), "give up the rotation")
    } else if fast {
        (format!("{holders} of the mesh are renewed at once, by a new root"), "rotate the root fast")
    } else {
        let life = text::duration(Duration::from_millis(before.life_ms));
        (format!("{holders} of the mesh go over to a new root, within two lives ({life} each)"), "rotate the root")
    };
    context.ask(&touches, &format!("{question} of the mesh `{}`", before.mesh))?;
    let view = mesh.ca_rotate(pb::CaRotateRequest { fast, abort }).await?;
    follow(context, mesh, view).await
}

/// Shows how a rotation goes on: redrawn to its end on a terminal, else once.
async fn follow(context: &Context, mesh: &mut Mesh<'_>, mut view: pb::CaView) -> Result<u8, Failure> {
    let watches = context.screen.out_is_terminal && context.globals.output.is_human();
    let mut live = Live::default();
    while watches && view.step_number != 0 {
        live.redraw(&context.screen, &drawn(context, &view));
        tokio::time::sleep(LOOK_EVERY).await;
        view = mesh.ca_status().await?;
    }
    if view.step_number != 0 {
        context.screen.note("it goes on by itself: `synego ca status` shows how far it is");
    }
    if watches {
        live.redraw(&context.screen, "");
    }
    show(context, &view);
    Ok(DONE)
}

async fn export(context: &Context, mesh: &mut Mesh<'_>, out: Option<&Path>) -> Result<u8, Failure> {
    if let Some(file) = out {
        secret_file::is_free(file)?;
    }
    let pem = mesh.ca_export().await?;
    let both = format!("{}{}", pem.certificate, pem.key);
    let item = match out {
        Some(file) => {
            secret_file::write(file, both.as_bytes())?;
            json!({"file": file.display().to_string(), "certificate": pem.certificate})
        }
        None => json!({"certificate": pem.certificate, "key": pem.key}),
    };
    context
        .screen
        .note("whoever has this key can be anybody in the mesh: keep it as you keep the keys of the machines");
    context.answer(Answer::new("ca_export", "file").items(vec![item]), || match out {
        Some(file) => format!("{}\n", file.display()),
        None => both,
    });
    Ok(DONE)
}

async fn import(context: &Context, mesh: &mut Mesh<'_>, file: &Path) -> Result<u8, Failure> {
    let text = secret_file::read(file)?;
    let before = mesh.ca_status().await?;
    let touches = format!(
        "{} of the mesh go over to the root of {}",
        amount::count(before.of as usize, "certificate"),
        file.display()
    );
    context.ask(&touches, &format!("import a root into the mesh `{}`", before.mesh))?;
    let view = mesh.ca_import(pb::CaPem { certificate: text.clone(), key: text }).await?;
    follow(context, mesh, view).await
}

/// The key is made here, and nothing but its public half leaves this program.
async fn operator(
    context: &Context,
    mesh: &mut Mesh<'_>,
    name: &str,
    role: &str,
    ttl: Duration,
    out: &Path,
) -> Result<u8, Failure> {
    secret_file::is_free(out)?;
    let made = |error: synego_identity::KeyError| Failure::new("cannot make a key").cause(error.to_string());
    let key = PrivateKey::generate().map_err(made)?;
    let request = key.request().map_err(made)?;
    let admin_role = if role == "read" { pb::AdminRole::Read } else { pb::AdminRole::Write };
    let ttl_s = u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1);
    let asked = pb::IssueOperatorRequest { name: name.to_owned(), role: admin_role.into(), ttl_s, request };
    let issued = mesh.issue_operator(asked).await?;
    let login = issued.login.unwrap_or_default();
    secret_file::write(out, credentials::operator_pem(&issued.certificate, &key, &issued.root).as_bytes())?;
    let until = context.clock.at(login.expires_unix_ms, context.now());
    context.screen.note(&format!(
        "{role} of {} until {until}; keep it: `synego login --admin HOST:PORT --certificate {}`",
        login.name,
        out.display()
    ));
    let item = json!({
        "operator": name,
        "role": role,
        "id": login.id,
        "expires_at": rfc3339(login.expires_unix_ms),
        "file": out.display().to_string(),
    });
    context.answer(Answer::new("ca_operator", "operator").items(vec![item]), || format!("{}\n", out.display()));
    Ok(DONE)
}

fn is_stuck(view: &pb::CaView) -> bool {
    let took = view.unix_ms.saturating_sub(view.since_unix_ms);
    view.step_number != 0 && took > view.life_ms + u64::try_from(LATE.as_millis()).unwrap_or(u64::MAX)
}

fn show(context: &Context, view: &pb::CaView) {
    let time = |unix_ms: u64| if unix_ms == 0 { Value::Null } else { rfc3339(unix_ms).into() };
    let roots: Vec<Value> = view
        .root
        .iter()
        .map(|root| {
            json!({
                "fingerprint": root.fingerprint,
                "serial": root.serial,
                "issues": root.issues,
                "added_at": time(root.added_unix_ms),
                "expires_at": time(root.not_after_unix_ms),
            })
        })
        .collect();
    let waiting_for: Vec<Value> = view
        .waiting
        .iter()
        .map(|one| json!({"holder": one.holder, "cause": one.cause, "expires_at": time(one.not_after_unix_ms)}))
        .collect();
    let item = json!({
        "step": view.step,
        "step_number": view.step_number,
        "steps": view.steps,
        "since": time(view.since_unix_ms),
        "until": time(view.until_unix_ms),
        "done": view.done,
        "of": view.of,
        "fast": view.fast,
        "aborting": view.aborting,
        "stuck": is_stuck(view),
        "life_seconds": view.life_ms / 1000,
        "waiting_for": waiting_for,
        "roots": roots,
    });
    context.answer(Answer::new("ca", "step").of_mesh(&view.mesh, None).items(vec![item]), || drawn(context, view));
}

fn drawn(context: &Context, view: &pb::CaView) -> String {
    let paint = context.screen.out;
    let certificates = amount::count(view.of as usize, "certificate");
    let life = text::duration(Duration::from_millis(view.life_ms));
    let mut text = format!("{} · {certificates} of {life} each\n", paint.tone(Tone::Strong, &view.mesh));
    let all = view.root.len();
    for (index, root) in view.root.iter().enumerate() {
        let ends = age(Duration::from_millis(root.not_after_unix_ms.saturating_sub(view.unix_ms)));
        let issues = if root.issues { "  issues" } else { "" };
        let short: String = root.fingerprint.chars().take(16).collect();
        text.push_str(&format!("root {} of {all}  {short}  ends in {ends}{issues}\n", index + 1));
    }
    if view.step_number != 0 {
        text.push_str(&format!("{}\n", progress(view)));
        text.extend(waiting(view).map(|line| format!("{line}\n")));
    }
    if is_stuck(view) {
        let word = paint.tone(Tone::Warn, "warning:");
        text.push_str(&format!("{word} this step takes longer than a certificate lives: see who is waited for\n"));
    }
    text
}

/// `step 2 of 5: waiting until all trust the new root    212 of 214    41 s    ≤ 25h0m in all`
fn progress(view: &pb::CaView) -> String {
    let what = match (view.step.as_str(), view.aborting) {
        ("trust", _) => "waiting until all trust the new root",
        ("expire", true) => "going back: waiting until no certificate of the new root is left",
        ("expire", false) if view.fast => "renewing every certificate by the new root",
        _ => "waiting until the last certificate of the old root is renewed",
    };
    let took = age(Duration::from_millis(view.unix_ms.saturating_sub(view.since_unix_ms)));
    let most = age(Duration::from_millis(view.until_unix_ms.saturating_sub(view.since_unix_ms)));
    let bound = if view.fast { String::new() } else { format!("    ≤ {most} in all") };
    format!("step {} of {}: {what}    {} of {}    {took}{bound}", view.step_number, view.steps, view.done, view.of)
}

fn waiting(view: &pb::CaView) -> Option<String> {
    let named: Vec<String> =
        view.waiting.iter().take(NAMED).map(|one| format!("{} ({})", one.holder, one.cause)).collect();
    let more = (view.of - view.done).saturating_sub(u32::try_from(named.len()).unwrap_or(u32::MAX));
    let more = if more == 0 { String::new() } else { format!(", {more} more") };
    (!named.is_empty()).then(|| format!("  not yet: {}{more}", named.join(", ")))
}
