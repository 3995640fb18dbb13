//! `synego logs`: lines of services, of hops and of the mesh itself, merged by time over all machines.

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
  synego logs --request 8f2c41d0a9e34b71
                                       one request through all services and hops, in order";

/// Lines of each instance that are shown where nothing else narrows them.
const USUAL: u32 = 50;
/// The most lines of each instance.
const MOST: u32 = 10_000;
/// How far back a request is looked for where nothing else is said; microseconds: an hour.
const REQUEST_WITHIN: u64 = 3_600_000_000;
/// Instead of a service: the programs of the mesh.
const MESH: &str = "mesh";

/// Show lines of the services' output and of the mesh, merged by time
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Services; `mesh` is the mesh itself [default: all]
    #[arg(add = ArgValueCompleter::new(complete::services))]
    services: Vec<String>,
    /// The same as naming it
    #[arg(long = "service", value_name = "SERVICE", add = ArgValueCompleter::new(complete::services))]
    service: Vec<String>,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// Recent lines of each instance, at most 10,000 [default: 50; all with --since, --until or --request]
    #[arg(short = 'n', long = "lines", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=10_000))]
    lines: Option<u32>,
    /// Only this instance
    #[arg(long, value_name = "ID", add = ArgValueCompleter::new(complete::instances))]
    instance: Vec<String>,
    /// Only lines of this level or worse
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    /// Only lines not older: a time such as 2026-11-22T14:00:00Z, or an age such as 5m; files are read where that goes
    /// back further than what is at hand
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines not newer
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only lines that hold this text in their message or a field, case ignored
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only lines of this request (the beginning of its id is enough), with its exchanges; looks back an hour
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Also one line for each exchange at each hop
    #[arg(long)]
    access: bool,
    /// Also all that the programs of the mesh say, not only their warnings
    #[arg(long)]
    mesh: bool,
}

/// Which lines are wanted, of those that come.
#[derive(Debug, Clone, Default)]
struct Filter {
    level: Option<Level>,
    since_us: Option<u64>,
    until_us: Option<u64>,
    grep: Option<String>,
    request: Option<String>,
    access: bool,
    /// Whether the mesh's lines below a warning are wanted.
    mesh: bool,
    /// Whether the services' lines are.
    output: bool,
    /// The most of each instance.
    most: u32,
}

impl Filter {
    fn new(args: &Args, services: &[String], now: u64) -> Result<Self, Failure> {
        let moment = |text: &Option<String>, flag: &str| match text {
            None => Ok(None),
            Some(text) => moment(text, now).map(Some).ok_or_else(|| {
                Failure::misuse(format!("`{text}` is no time for `{flag}`"))
                    .cause("expected an age such as 5m, or a time such as 2026-11-22T14:00:00Z")
            }),
        };
        let (since, until_us) = (moment(&args.since, "--since")?, moment(&args.until, "--until")?);
        let of_request = args.request.as_ref().map(|_| (now * 1_000).saturating_sub(REQUEST_WITHIN));
        let is_mesh = |name: &String| name == MESH;
        let narrowed = since.is_some() || until_us.is_some() || args.request.is_some();
        Ok(Self {
            level: args.level,
            since_us: since.or(of_request),
            until_us,
            grep: args.grep.as_ref().map(|text| text.to_lowercase()),
            request: args.request.clone(),
            access: args.access || args.request.is_some(),
            mesh: args.mesh || args.request.is_some() || services.iter().any(is_mesh),
            output: services.is_empty() || !services.iter().all(is_mesh),
            most: args.lines.unwrap_or(if narrowed { MOST } else { USUAL }),
        })
    }

    /// What is asked of the master. Masters of before know less of it: what comes is looked through once more.
    fn request(&self, args: &Args, services: &[String]) -> pb::LogsRequest {
        let narrowed = self.level.is_some() || self.grep.is_some() || self.request.is_some();
        pb::LogsRequest {
            service: services.iter().filter(|name| *name != MESH).cloned().collect(),
            instance: args.instance.clone(),
            recent: if narrowed || self.since_us.is_some() || self.until_us.is_some() { MOST } else { self.most },
            follow: args.follow,
            since_us: self.since_us.unwrap_or(0),
            until_us: self.until_us.unwrap_or(0),
            level: self.level.map_or(0, |level| level.told().into()),
            request_id: self.request.clone().unwrap_or_default(),
            grep: self.grep.clone().unwrap_or_default(),
            access: self.access,
            // Its warnings explain what the services' lines show.
            mesh: true,
        }
    }

    fn takes(&self, line: &pb::OutputLine) -> bool {
        let has_text = |text: &String| {
            line.message.to_lowercase().contains(text) || line.fields_json.to_lowercase().contains(text)
        };
        let level = Level::of(line.level());
        let kind = match line.kind() {
            pb::LineKind::Access => self.access && self.output,
            pb::LineKind::Mesh => self.mesh || level >= Level::Warn,
            pb::LineKind::Output | pb::LineKind::Unspecified => self.output,
        };
        kind && self.level.is_none_or(|least| level >= least)
            && self.since_us.is_none_or(|since| line.unix_us >= since)
            && self.until_us.is_none_or(|until| line.unix_us <= until)
            && self.request.as_ref().is_none_or(|id| !id.is_empty() && line.request_id.starts_with(id.as_str()))
            && self.grep.as_ref().is_none_or(has_text)
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
    let services: Vec<String> = args.services.iter().chain(&args.service).cloned().collect();
    let filter = Filter::new(args, &services, context.now())?;
    let request = filter.request(args, &services);
    context.block_on(async {
        let mut mesh = Mesh::find(context).await?;
        let view = mesh.view(&request.service).await?;
        for name in &request.service {
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
                writer.recent(recent.take().unwrap_or_default(), filter.most);
                if !args.follow {
                    break;
                }
            }
        }
        writer.recent(recent.unwrap_or_default(), filter.most);
        writer.end();
        if let (Some(id), false) = (&args.request, writer.has_written || args.follow) {
            let back = if args.since.is_some() { "" } else { " in the last hour: `--since 1d` looks back further" };
            context.screen.note(&format!("no line of a request `{id}`{back}"));
        }
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
    has_written: bool,
}

impl<'a> Writer<'a> {
    fn new(context: &'a Context, view: &pb::MeshView) -> Self {
        let ids = view.service.iter().flat_map(|service| service.instance.iter().map(|instance| instance.id.len()));
        let width = ids.max().unwrap_or(8).clamp(8, 28);
        let (mesh, epoch) = (view.mesh.clone(), view.epoch);
        Self { context, mesh, epoch, held: Vec::new(), width, follow_json: false, has_written: false }
    }

    /// Writes the recent lines of all instances, oldest first, at most `most` of each.
    fn recent(&mut self, mut lines: Vec<pb::LogsLine>, most: u32) {
        lines.sort_by_key(|line| line.line.as_ref().map_or(0, |line| line.unix_us));
        // Exchanges must not push out what the service printed.
        let mut left: std::collections::HashMap<(String, i32), u32> = std::collections::HashMap::new();
        let mut kept: Vec<pb::LogsLine> = Vec::new();
        for line in lines.into_iter().rev() {
            let kind = line.line.as_ref().map_or(0, |line| line.kind);
            let seen = left.entry((line.instance.clone(), kind)).or_default();
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
        self.has_written = true;
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
        "kind": kind(&output),
        "pid": (output.pid != 0).then_some(output.pid),
        "thread": text(&output.thread),
        "request_id": text(&output.request_id),
        "trace_id": text(&output.trace_id),
        "message": output.message,
        "fields": fields_of(&output.fields_json),
    })
}

/// The word for who a line is from.
fn kind(line: &pb::OutputLine) -> &'static str {
    match line.kind() {
        pb::LineKind::Unspecified | pb::LineKind::Output => "output",
        pb::LineKind::Access => "access",
        pb::LineKind::Mesh => "mesh",
    }
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
        let of = |filter: Filter| Filter { output: true, ..filter }.takes(&warn);
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
    fn exchanges_come_when_asked_for_and_of_the_mesh_its_warnings() {
        let of_kind =
            |kind: pb::LineKind, level: pb::LogLevel| pb::OutputLine { kind: kind.into(), ..line(level, 1, "m", "r") };
        let usual = Filter { output: true, ..Filter::default() };
        let all = Filter { access: true, mesh: true, ..usual.clone() };
        let mesh_alone = Filter { mesh: true, ..Filter::default() };
        for (kind, level, takes) in [
            (pb::LineKind::Output, pb::LogLevel::Info, [true, true, false]),
            (pb::LineKind::Access, pb::LogLevel::Error, [false, true, false]),
            (pb::LineKind::Mesh, pb::LogLevel::Info, [false, true, true]),
            (pb::LineKind::Mesh, pb::LogLevel::Warn, [true, true, true]),
        ] {
            let line = of_kind(kind, level);
            assert_eq!([usual.takes(&line), all.takes(&line), mesh_alone.takes(&line)], takes, "{kind:?} {level:?}");
        }
    }

    #[test]
    fn a_moment_is_an_age_or_a_time() {
        assert_eq!(moment("5s", 10_000), Some(5_000_000));
        assert_eq!(moment("1970-01-01T00:00:02Z", 0), Some(2_000_000));
        assert_eq!(moment("yesterday", 0), None);
    }
}
