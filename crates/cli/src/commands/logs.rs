//! `synego logs`: lines of the services' output, merged by time over all machines.

use clap_complete::ArgValueCompleter;
use futures_util::StreamExt as _;
use serde_json::{Map, Value, json};
use synego_wire::pb;

use crate::client::Mesh;
use crate::complete;
use crate::context::Context;
use crate::failure::{DONE, Failure};
use crate::output::answer::Format;
use crate::output::line::{self, Level};
use crate::output::time::{parse_duration, rfc3339};

const EXAMPLES: &str = "\
Examples:
  synego logs                          the last lines of everything
  synego logs users orders -f          and new ones as they come
  synego logs --level warn --since 5m
  synego logs --request 8f2c41d0a9e34b71";

/// Show lines of the services' output, merged by time
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Services [default: all]
    #[arg(add = ArgValueCompleter::new(complete::services))]
    services: Vec<String>,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Recent lines of each instance, at most 10,000
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    lines: u32,
    /// Only this instance
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(complete::instances))]
    instance: Vec<String>,
    /// Only lines of this level or worse
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    /// Only lines not older: a time such as 2026-11-22T14:00:00Z, or an age such as 5m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines not newer
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only lines that hold this text, case ignored
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only lines of this request
    #[arg(long, value_name = "ID")]
    request: Option<String>,
}

/// Which lines are wanted, of those that come.
#[derive(Debug, Clone, Default)]
struct Filter {
    level: Option<Level>,
    since_us: Option<u64>,
    until_us: Option<u64>,
    grep: Option<String>,
    request: Option<String>,
}

impl Filter {
    fn new(args: &Args, now: u64) -> Result<Self, Failure> {
        let moment = |text: &Option<String>, flag: &str| match text {
            None => Ok(None),
            Some(text) => moment(text, now).map(Some).ok_or_else(|| {
                Failure::misuse(format!("`{text}` is no time for `{flag}`"))
                    .cause("expected an age such as 5m, or a time such as 2026-11-22T14:00:00Z")
            }),
        };
        Ok(Self {
            level: args.level,
            since_us: moment(&args.since, "--since")?,
            until_us: moment(&args.until, "--until")?,
            grep: args.grep.as_ref().map(|text| text.to_lowercase()),
            request: args.request.clone(),
        })
    }

    fn takes(&self, line: &pb::OutputLine) -> bool {
        self.level.is_none_or(|level| Level::of(line.level()) >= level)
            && self.since_us.is_none_or(|since| line.unix_us >= since)
            && self.until_us.is_none_or(|until| line.unix_us <= until)
            && self.request.as_ref().is_none_or(|id| !id.is_empty() && line.request_id.starts_with(id.as_str()))
            && self.grep.as_ref().is_none_or(|text| line.message.to_lowercase().contains(text))
    }
}

/// Microseconds since 1970 of an age or an RFC 3339 time.
fn moment(text: &str, now_unix_ms: u64) -> Option<u64> {
    match parse_duration(text) {
        Ok(age) => Some(now_unix_ms.saturating_sub(u64::try_from(age.as_millis()).ok()?) * 1000),
        Err(_) => synego_runtime::clock::parse_rfc3339(text).map(|ms| ms * 1000),
    }
}

/// Runs it.
pub(crate) fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let filter = Filter::new(args, context.now())?;
    let narrowed = filter.level.is_some() || filter.grep.is_some() || filter.request.is_some();
    let request = pb::LogsRequest {
        service: args.services.clone(),
        instance: args.instance.clone(),
        // Lines are chosen here, so more than are shown have to be looked at.
        recent: if narrowed || filter.since_us.is_some() { 10_000 } else { args.lines },
        follow: args.follow,
    };
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let view = mesh.view(&args.services).await?;
        for name in &args.services {
            super::status::known(&view, Some(name))?;
        }
        let mut batches = mesh.logs(request).await?;
        let mut writer = Writer::new(context, &view);
        let mut recent = Some(Vec::new());
        while let Some(batch) = batches.next().await {
            let batch = batch.map_err(|status| mesh.failed(&status))?;
            let complete = batch.recent_complete;
            let lines = batch.line.into_iter().filter(|line| line.line.as_ref().is_some_and(|line| filter.takes(line)));
            match &mut recent {
                Some(held) => held.extend(lines),
                None => lines.for_each(|line| writer.write(line)),
            }
            if complete {
                writer.recent(recent.take().unwrap_or_default(), args.lines);
                if !args.follow {
                    break;
                }
            }
        }
        writer.recent(recent.unwrap_or_default(), args.lines);
        writer.end();
        Ok(DONE)
    })
}

/// Writes lines in the form that was asked for.
struct Writer<'a> {
    context: &'a Context,
    mesh: String,
    epoch: u64,
    held: Vec<Value>,
    width: usize,
    follow_json: bool,
}

impl<'a> Writer<'a> {
    fn new(context: &'a Context, view: &pb::MeshView) -> Self {
        let ids = view.service.iter().flat_map(|service| service.instance.iter().map(|instance| instance.id.len()));
        let width = ids.max().unwrap_or(8).clamp(8, 28);
        Self { context, mesh: view.mesh.clone(), epoch: view.epoch, held: Vec::new(), width, follow_json: false }
    }

    /// Writes the recent lines of all instances, oldest first, at most `most` of each.
    fn recent(&mut self, mut lines: Vec<pb::LogsLine>, most: u32) {
        lines.sort_by_key(|line| line.line.as_ref().map_or(0, |line| line.unix_us));
        let mut left: std::collections::HashMap<String, u32> = std::collections::HashMap::new();
        let mut kept: Vec<pb::LogsLine> = Vec::new();
        for line in lines.into_iter().rev() {
            let seen = left.entry(line.instance.clone()).or_default();
            *seen += 1;
            if *seen <= most {
                kept.push(line);
            }
        }
        kept.into_iter().rev().for_each(|line| self.write(line));
        if !self.context.globals.output.is_human() {
            self.end();
            self.follow_json = true;
        }
    }

    fn write(&mut self, line: pb::LogsLine) {
        match self.context.globals.output {
            Format::Table | Format::Wide => {
                let text = self.drawn(&line);
                self.context.screen.print(&text);
            }
            Format::Name => self.context.screen.print(&format!("{}\n", line.instance)),
            Format::Json | Format::Yaml => {
                self.held.push(item(&line));
                if self.follow_json {
                    self.end();
                }
            }
        }
    }

    /// Prints what is held as one object; with `--follow` each later line is one of its own.
    fn end(&mut self) {
        let human = self.context.globals.output.is_human() || self.context.globals.output == Format::Name;
        if human || (self.follow_json && self.held.is_empty()) {
            return;
        }
        let items = std::mem::take(&mut self.held);
        let answer = crate::output::Answer::new("logs", "instance").of_mesh(&self.mesh, Some(self.epoch)).items(items);
        if let Some(text) = answer.render(self.context.globals.output) {
            self.context.screen.print(&text);
        }
        self.follow_json = true;
    }

    fn drawn(&self, line: &pb::LogsLine) -> String {
        let style = line::Style { paint: self.context.screen.out, clock: &self.context.clock, width: self.width };
        line::draw(&style, self.context.now(), &line.instance, &line.line.clone().unwrap_or_default(), false)
    }
}

fn fields_of(json: &str) -> Map<String, Value> {
    serde_json::from_str(json).unwrap_or_default()
}

fn item(line: &pb::LogsLine) -> Value {
    let output = line.line.clone().unwrap_or_default();
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "time": rfc3339(output.unix_us / 1000),
        "level": Level::of(output.level()).word(),
        "service": text(&line.service),
        "instance": line.instance,
        "pid": (output.pid != 0).then_some(output.pid),
        "request_id": text(&output.request_id),
        "trace_id": text(&output.trace_id),
        "message": output.message,
        "fields": fields_of(&output.fields_json),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: pb::LogLevel, unix_us: u64, message: &str, request: &str) -> pb::OutputLine {
        pb::OutputLine {
            unix_us,
            level: level.into(),
            message: message.into(),
            request_id: request.into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_line_is_taken_when_every_condition_holds() {
        let warn = line(pb::LogLevel::Warn, 5_000_000, "users is Slow", "8f2c41d0");
        let of = |filter: Filter| filter.takes(&warn);
        assert!(of(Filter::default()));
        assert!(of(Filter { level: Some(Level::Warn), ..Filter::default() }));
        assert!(!of(Filter { level: Some(Level::Error), ..Filter::default() }));
        assert!(of(Filter { grep: Some("slow".into()), ..Filter::default() }));
        assert!(of(Filter { request: Some("8f2c".into()), ..Filter::default() }));
        assert!(!of(Filter { request: Some("77".into()), ..Filter::default() }));
        assert!(!of(Filter { since_us: Some(5_000_001), ..Filter::default() }));
        assert!(!of(Filter { until_us: Some(4_999_999), ..Filter::default() }));
    }

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        assert_eq!(moment("5s", 10_000), Some(5_000_000));
        assert_eq!(moment("1970-01-01T00:00:02Z", 0), Some(2_000_000));
        assert_eq!(moment("yesterday", 0), None);
    }
}
