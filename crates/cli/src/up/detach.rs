//! `up -d`: the same in a process of its own; this one returns when all is ready, or tells what is not.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::StreamExt as _;
use synego_manifest::Manifest;
use synego_wire::pb;

use super::board::{self, Progress};
use super::gateway;
use super::ready::{GATEWAY, Judge, Late, Verdict};
use crate::client::Mesh;
use crate::context::Context;
use crate::failure::{DONE, FAILED, Failure};
use crate::mesh::{Address, SOCKET, Target};
use crate::output::line::Level;
use crate::output::{Tone, harmless};
use crate::view::{json, rows};

/// The hidden flag of the process in the background.
pub(crate) const FLAG: &str = "--in-background";
/// Time until the background process takes calls; building and starting services comes later.
const COMING: Duration = Duration::from_secs(20);
/// Time in which a background process that broke a call off has ended.
const GOING: Duration = Duration::from_secs(3);
/// Last lines of a service that are shown when it did not become ready.
const LAST: usize = 10;

/// Starts `up` in the background and waits until all is ready.
pub(crate) fn run(context: &Context, manifest: &Manifest, only: &[String], joins: bool) -> Result<u8, Failure> {
    let mesh = manifest.declaration.mesh.as_str();
    let dir = synego_runtime::config::runtime_dir(mesh)
        .map_err(|error| Failure::new("cannot make the runtime folder").cause(error.to_string()))?;
    let state = synego_runtime::config::state_dir(mesh)
        .map_err(|error| Failure::new("cannot make the state folder").cause(error.to_string()))?;
    let output = state.join("up.out");
    let mut child =
        start(&output).map_err(|error| Failure::new("cannot start in the background").cause(error.to_string()))?;
    let target = Target { mesh: Some(mesh.to_owned()), address: Address::Unix(dir.join(SOCKET)), others: Vec::new() };
    let begun = context.now();
    context.block_on(async {
        let mut mesh = coming(context, &target, &mut child, &output).await?;
        let judge = Judge::new(manifest, only, !joins && gateway::is_wanted(manifest));
        wait(context, judge, &mut mesh, &mut child, &output, begun).await
    })
}

fn start(output: &Path) -> io::Result<Child> {
    let mut options = OpenOptions::new();
    let file = options.create(true).write(true).truncate(true).mode(0o600).open(output)?;
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "-d" && argument != "--detach");
    Command::new(std::env::current_exe()?)
        .args(arguments)
        .arg(FLAG)
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
}

/// Waits until the background process takes calls.
async fn coming<'a>(
    context: &'a Context,
    target: &Target,
    child: &mut Child,
    output: &Path,
) -> Result<Mesh<'a>, Failure> {
    let pid = child.id();
    let waited = tokio::time::timeout(COMING, async {
        loop {
            ended(child, output)?;
            // Another `up` may still hold the socket: only our own process counts.
            let note = match &target.address {
                Address::Unix(path) => path.parent().and_then(crate::mesh::note),
                Address::Tcp(_) => None,
            };
            if note.is_some_and(|note| note.pid == pid)
                && let Ok(mesh) = Mesh::connect(context, target.clone()).await
            {
                return Ok(mesh);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    });
    waited.await.unwrap_or_else(|_| {
        Err(Failure::new(format!("the background process {pid} does not answer"))
            .cause(format!("no call was taken in {} s", COMING.as_secs()))
            .help(format!("what it said: {}", output.display())))
    })
}

/// # Errors
/// When the background process has ended: with what it said.
fn ended(child: &mut Child, output: &Path) -> Result<(), Failure> {
    match child.try_wait() {
        Ok(None) => Ok(()),
        Ok(Some(status)) => {
            let said = std::fs::read_to_string(output).unwrap_or_default();
            let (what, rest) = told(&said);
            let code =
                status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != DONE).unwrap_or(FAILED);
            Err(rest.into_iter().fold(Failure { code, ..Failure::new(what) }, |failure, line| match line {
                Told::Cause(line) => failure.cause(line),
                Told::Help(line) => failure.help(line),
            }))
        }
        Err(error) => Err(Failure::new("cannot watch the background process").cause(error.to_string())),
    }
}

/// Why a call to the background process broke off: what it said at its end, if it ends now, else the call's own failure.
async fn why(child: &mut Child, output: &Path, otherwise: Failure) -> Failure {
    let said = tokio::time::timeout(GOING, async {
        loop {
            if let Err(failure) = ended(child, output) {
                return failure;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    said.await.unwrap_or(otherwise)
}

enum Told {
    Cause(String),
    Help(String),
}

/// The failure that the background process wrote, read back; what is none is shown as its cause.
fn told(said: &str) -> (String, Vec<Told>) {
    let mut what = None;
    let mut rest = Vec::new();
    // Warnings may stand before it; they have been told already.
    let failure = said.find("error: ").filter(|at| *at == 0 || said.as_bytes().get(at - 1) == Some(&b'\n'));
    for line in said[failure.unwrap_or(0)..].lines() {
        if let Some(text) = line.strip_prefix("error: ") {
            what = Some(text.to_owned());
        } else if let Some(text) = line.strip_prefix("help:  ") {
            rest.push(Told::Help(text.to_owned()));
        } else {
            rest.push(Told::Cause(line.strip_prefix("cause: ").unwrap_or(line).trim_start().to_owned()));
        }
    }
    (what.unwrap_or_else(|| "the background process ended".to_owned()), rest)
}

async fn wait(
    context: &Context,
    mut judge: Judge,
    mesh: &mut Mesh<'_>,
    child: &mut Child,
    output: &Path,
    begun: u64,
) -> Result<u8, Failure> {
    let mut views = match mesh.watch(&[], Duration::from_millis(100)).await {
        Ok(views) => views,
        Err(failure) => return Err(why(child, output, failure).await),
    };
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    let mut last: Option<pb::MeshView> = None;
    let mut said: Vec<String> = Vec::new();
    let mut is_told = tokio::time::interval(Duration::from_secs(3));
    loop {
        tokio::select! {
            view = views.next() => match view {
                Some(Ok(view)) => last = Some(view),
                Some(Err(status)) => return Err(why(child, output, mesh.failed(&status)).await),
                None => return Err(why(child, output, Failure::new("the background process went away")).await),
            },
            _ = tick.tick() => ended(child, output)?,
            _ = is_told.tick() => {
                if let Some(words) = waiting(&judge, &said, context.now().saturating_sub(begun) / 1000) {
                    context.screen.note(&words);
                }
            }
        }
        let Some(view) = &last else { continue };
        match judge.look(view, synego_runtime::clock::now()) {
            Verdict::Waiting(names) => said = names,
            Verdict::Ready => {
                let took = Duration::from_millis(context.now().saturating_sub(begun));
                finish(context, view, Progress { begun_unix_ms: begun, took: Some(took) });
                return Ok(DONE);
            }
            Verdict::Late(late) => {
                let view = view.clone();
                finish(context, &view, Progress { begun_unix_ms: begun, took: None });
                for late in &late {
                    let lines = last_lines(mesh, late).await;
                    let failure = failure(late, judge.count(), late_count(&view, judge.count()), &lines);
                    context.screen.complain(&failure.render(context.screen.err));
                }
                return Ok(FAILED);
            }
        }
    }
}

/// What is waited for and how long; after ten seconds also until when.
fn waiting(judge: &Judge, names: &[String], seconds: u64) -> Option<String> {
    match (names.is_empty(), seconds) {
        (true, _) | (_, 0) => None,
        (_, 1..10) => Some(format!("waiting for {}, {seconds} s", names.join(", "))),
        _ => {
            let until = judge.longest(names).map(|until| format!("; each has {} s once it is built", until.as_secs()));
            Some(format!("waiting for {}, {seconds} s{}", names.join(", "), until.unwrap_or_default()))
        }
    }
}

/// How many services are ready.
fn late_count(view: &pb::MeshView, all: usize) -> usize {
    view.service.iter().filter(|service| board::is_ready(service)).count().min(all)
}

fn finish(context: &Context, view: &pb::MeshView, progress: Progress) {
    context.answer(json::status(view, view.service.iter()), || {
        let table = rows::services(view);
        let body = if table.is_empty() { String::new() } else { format!("\n{}", context.table(table)) };
        format!("{}\n{body}", board::summary(view, progress))
    });
    for warning in &view.warning {
        context.screen.note(&format!("{} {}", context.screen.err.tone(Tone::Warn, "warning:"), warning.message));
    }
}

async fn last_lines(mesh: &mut Mesh<'_>, late: &Late) -> Vec<String> {
    let instance = if late.instance.is_empty() { Vec::new() } else { vec![late.instance.clone()] };
    let request = pb::LogsRequest {
        service: vec![late.service.clone()],
        instance,
        recent: LAST as u32,
        follow: false,
        ..pb::LogsRequest::default()
    };
    let Ok(mut batches) = mesh.logs(request).await else { return Vec::new() };
    let mut lines: Vec<pb::OutputLine> = Vec::new();
    while let Some(Ok(batch)) = batches.next().await {
        lines.extend(batch.line.into_iter().filter_map(|line| line.line));
        if batch.recent_complete {
            break;
        }
    }
    lines.sort_by_key(|line| line.unix_us);
    let from = lines.len().saturating_sub(LAST);
    lines[from..]
        .iter()
        .map(|line| format!("{:<5}  {}", Level::of(line.level()).word(), harmless(&line.message)))
        .collect()
}

/// What is told of a service that is not ready.
fn failure(late: &Late, all: usize, ready: usize, lines: &[String]) -> Failure {
    let given_up = !late.cause.is_empty() && !late.cause.starts_with("starting");
    let when = if given_up { String::new() } else { format!(" after {}", synego_model::text::duration(late.within)) };
    let rest = if all > 1 { format!("; {ready} of {all} services run on") } else { String::new() };
    let mut failure = Failure::new(format!("{} is not ready{when}{rest}", late.service));
    let who = if late.instance.is_empty() { String::new() } else { format!("{}: ", late.instance) };
    failure = failure.cause(if late.cause.is_empty() { String::new() } else { format!("{who}{}", late.cause) });
    for line in lines {
        failure = failure.cause(format!("| {line}"));
    }
    let all_lines = lines.join("\n").to_lowercase();
    if all_lines.contains("eaddrinuse") || all_lines.contains("address already in use") {
        failure = failure.help("it listens on a port of its own; let it read PORT, or say which: `port: 9000`");
    }
    let explain = late.cause.split(':').next().filter(|word| synego_model::Reason::from_word(word).is_some());
    failure = match late.service.as_str() {
        GATEWAY => failure.help("see what Nginx gets with `synego nginx show`, and what it said in the log folder"),
        service => failure.help(format!("`synego logs {service}` shows all it printed")),
    };
    match explain {
        Some(word) => failure.help(format!("`synego explain {word}`")),
        None => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::paint::Paint;

    #[test]
    fn a_late_service_is_told_with_its_last_lines_and_a_help_that_fits() {
        let late = Late {
            service: "orders".into(),
            instance: "orders-1@vm1".into(),
            within: Duration::from_secs(30),
            cause: "crash_loop: exited with code 1, 3 times".into(),
        };
        let text = failure(&late, 4, 3, &["error  bind: address already in use".into()]).render(Paint::plain());
        assert_eq!(
            text,
            "error: orders is not ready; 3 of 4 services run on\n\
             cause: orders-1@vm1: crash_loop: exited with code 1, 3 times\n       | error  bind: address already in use\n\
             help:  it listens on a port of its own; let it read PORT, or say which: `port: 9000`\n       `synego logs orders` shows all it printed\n       `synego explain crash_loop`\n"
        );
    }

    #[test]
    fn the_failure_of_the_background_process_is_told_as_its_own() {
        let (what, rest) = told(
            "x.json:1:2: warning[older_form]: old\nerror: the port is taken\ncause: by 911\n       twice\nhelp:  stop it\n",
        );
        assert_eq!(what, "the port is taken");
        assert_eq!(rest.len(), 3);
    }
}
