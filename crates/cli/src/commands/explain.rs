//! `synego explain`: a reason, a problem of the manifest, a status, or a key of the manifest.

use std::time::Duration;

use clap_complete::ArgValueCompleter;
use serde_json::{Value, json};
use synego_model::{Reason, text};
use synego_wire::pb;

use crate::client::Mesh;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::{Answer, Tone, harmless};
use crate::view::cause_word;

/// Longest wait for the mesh, which only adds where the reason holds now.
const PATIENCE: Duration = Duration::from_millis(300);

const EXAMPLES: &str = "\
Examples:
  synego explain no_ready_endpoint                  a reason, as in x-synego-reason
  synego explain 503                                a status: every reason that gives it
  synego explain unknown_key                        a problem that `check` names
  synego explain services.users.policy.timeout      a key of the manifest";

/// Explain a reason, a status, a problem of the manifest or one of its keys
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The word, number or key
    #[arg(add = ArgValueCompleter::new(complete::explainable))]
    what: String,
}

/// One thing that is explained.
enum Page {
    Reason(Reason),
    Problem(String, &'static str),
    Key(String, String),
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let what = args.what.trim();
    let pages = pages(what);
    if pages.is_empty() {
        return Err(unknown(what));
    }
    let view = if pages.iter().any(|page| matches!(page, Page::Reason(_))) { mesh(context) } else { None };
    let answer = Answer::new("explain", "name").items(pages.iter().map(|page| item(page, view.as_ref())).collect());
    let answer = match &view {
        Some(view) => answer.of_mesh(&view.mesh, Some(view.epoch)),
        None => answer,
    };
    context.answer(answer, || {
        // Of a status that several reasons give, the list comes first.
        if pages.len() > 1 {
            let rows: String = pages.iter().map(|page| line(page, context)).collect();
            return format!("{rows}\n{}: `synego explain REASON`\n", "each has a page");
        }
        pages.iter().map(|page| drawn(page, view.as_ref(), context)).collect()
    });
    Ok(DONE)
}

fn pages(what: &str) -> Vec<Page> {
    if let Some(reason) = Reason::from_word(what) {
        return vec![Page::Reason(reason)];
    }
    if let Some(page) = synego_manifest::diagnostic_page(what) {
        return vec![Page::Problem(what.to_owned(), page)];
    }
    if let Ok(status) = what.parse::<u16>() {
        return Reason::ALL
            .iter()
            .filter(|reason| reason.status() == status)
            .map(|reason| Page::Reason(*reason))
            .collect();
    }
    synego_manifest::key_page(what).map(|page| Page::Key(what.to_owned(), page)).into_iter().collect()
}

fn unknown(what: &str) -> Failure {
    let keys = synego_manifest::key_paths();
    let mut words: Vec<&str> = keys.iter().map(String::as_str).collect();
    Reason::ALL.iter().for_each(|reason| words.push(reason.word()));
    synego_manifest::diagnostic_codes().for_each(|code| words.push(code));
    let near = text::nearest(what, words).map(|word| format!("nearest: `{word}`"));
    let what = harmless(what);
    let failure = match what.parse::<u16>() {
        Ok(_) => Failure::new(format!("the mesh itself never answers {what}"))
            .cause("a status without the header x-synego-reason comes from the service behind it"),
        Err(_) => Failure::new(format!("nothing is known of `{what}`")).cause(near.unwrap_or_default()),
    };
    failure.help("a reason, a status, a problem that `check` names, or a key such as `services.NAME.policy.timeout`")
}

fn mesh(context: &Context) -> Option<pb::MeshView> {
    let asked = context.block_on(async {
        let asked = async { Mesh::find(context).await?.view(&[]).await };
        Ok(tokio::time::timeout(PATIENCE, asked).await.ok().and_then(Result::ok))
    });
    asked.ok().flatten()
}

/// Calls that access refused, or would have, of late.
fn denials(reason: Reason, view: Option<&pb::MeshView>) -> Vec<&str> {
    let warnings = view.map(|view| view.warning.as_slice()).unwrap_or_default();
    let of_access = |warning: &&pb::Warning| matches!(warning.code.as_str(), "denied" | "would_be_denied");
    let shown = warnings.iter().filter(|warning| reason == Reason::Denied && of_access(warning));
    shown.map(|warning| warning.message.as_str()).collect()
}

/// The instances that are as they are because of `reason`, now.
fn here(reason: Reason, view: Option<&pb::MeshView>) -> Vec<(&pb::InstanceView, &pb::StateCause)> {
    let services = view.map(|view| view.service.as_slice()).unwrap_or_default();
    let all = services.iter().flat_map(|service| &service.instance);
    all.filter_map(|instance| Some((instance, instance.cause.as_ref()?)))
        .filter(|(_, cause)| cause_word(Some(cause)) == Some(reason.word()))
        .collect()
}

fn item(page: &Page, view: Option<&pb::MeshView>) -> Value {
    match page {
        Page::Reason(reason) => {
            let part =
                |name| sections(reason.page()).into_iter().find(|(title, _)| title == name).map(|(_, text)| text);
            json!({
                "name": reason.word(),
                "kind": "reason",
                "status": reason.status(),
                "grpc_code": reason.code() as u8,
                "blame": reason.blame().word(),
                "retry": reason.retry().word(),
                "meaning": part("meaning"),
                "cause": part("cause"),
                "remedy": part("remedy"),
                "here": here(*reason, view).iter().map(|(instance, _)| instance.id.as_str()).collect::<Vec<_>>(),
                "calls": denials(*reason, view),
            })
        }
        Page::Problem(code, page) => json!({"name": code, "kind": "diagnostic", "page": page}),
        Page::Key(key, page) => json!({"name": key, "kind": "key", "page": page}),
    }
}

fn title(reason: Reason) -> String {
    let retry = reason.retry().word().replace('_', " ");
    format!("{} · grpc {} · retry {retry} · blame {}", reason.status(), reason.code() as u8, reason.blame().word())
}

fn line(page: &Page, context: &Context) -> String {
    match page {
        Page::Reason(reason) => {
            let word = format!("{:<20}", reason.word());
            format!("{}  {}\n", context.screen.out.tone(Tone::Strong, &word), reason.meaning())
        }
        Page::Problem(name, _) | Page::Key(name, _) => format!("{name}\n"),
    }
}

fn drawn(page: &Page, view: Option<&pb::MeshView>, context: &Context) -> String {
    let width = context.screen.columns();
    let paint = context.screen.out;
    match page {
        Page::Reason(reason) => {
            let mut parts = sections(reason.page());
            let now = here(*reason, view).into_iter().map(|(instance, cause)| {
                format!(
                    "{} since {}: {}",
                    instance.id,
                    context.clock.at(cause.since_unix_ms, context.now()),
                    harmless(&cause.message)
                )
            });
            let denials = denials(*reason, view).into_iter().map(harmless);
            let now: Vec<String> = now.chain(denials).collect();
            if !now.is_empty() {
                parts.insert(parts.len().min(1), ("here".to_owned(), now.join("\n")));
            }
            let mut text = format!("{}  {}\n", paint.tone(Tone::Strong, reason.word()), title(*reason));
            for (name, body) in parts {
                text.push_str(&labelled(&paint.tone(Tone::Dim, &format!("  {name:<8}")), &body, width));
            }
            text
        }
        Page::Problem(name, page) => markdown(name, page, context),
        Page::Key(name, page) => markdown(name, page, context),
    }
}

/// `label` and beside it `body` in lines of at most `width` columns; what stands between code fences stays as it is.
fn labelled(label: &str, body: &str, width: usize) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut code = false;
    for line in body.lines() {
        match (line.starts_with("```"), code) {
            (true, _) => code = !code,
            (false, true) => lines.push(line.to_owned()),
            (false, false) => lines.extend(wrap(line, width.saturating_sub(11))),
        }
    }
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let before = if index == 0 { label } else { "          " };
        text.push_str(format!("{before} {line}").trim_end());
        text.push('\n');
    }
    text
}

fn wrap(line: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

/// The sections of a page: their titles in lower case, and their text.
fn sections(page: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push((title.trim().to_lowercase(), String::new()));
        } else if let (Some((_, body)), false) = (sections.last_mut(), line.trim().is_empty()) {
            if !body.is_empty() {
                body.push('\n');
            }
            body.push_str(line.trim_end());
        }
    }
    sections
}

/// A page by its sections; one without sections as it was written.
fn markdown(name: &str, page: &str, context: &Context) -> String {
    let paint = context.screen.out;
    let width = context.screen.columns();
    let parts = sections(page);
    if parts.is_empty() {
        return format!("{}\n", page.trim_end());
    }
    let mut text = format!("{}\n", paint.tone(Tone::Strong, name));
    for (title, body) in parts {
        text.push_str(&labelled(&paint.tone(Tone::Dim, &format!("  {title:<8}")), &body, width));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_parted_by_its_titles() {
        assert_eq!(
            sections("# x\n\n## Meaning\n\nOne\nline.\n\n## Remedy\nDo it.\n"),
            [("meaning".to_owned(), "One\nline.".to_owned()), ("remedy".to_owned(), "Do it.".to_owned())]
        );
    }

    #[test]
    fn long_lines_are_wrapped_under_their_label() {
        assert_eq!(
            labelled("  meaning ", "one two three four", 20),
            "  meaning  one two\n           three\n           four\n"
        );
    }

    #[test]
    fn every_reason_is_explained_by_its_status_too() {
        for reason in Reason::ALL {
            assert!(
                pages(&reason.status().to_string())
                    .iter()
                    .any(|page| matches!(page, Page::Reason(found) if found == reason))
            );
        }
    }
}
