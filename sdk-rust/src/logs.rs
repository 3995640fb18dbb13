//! Logs: one JSON line on standard output for each event, with the id of the request it belongs to.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};

use serde_json::{Map, Value};
use synego_wire::pb;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Longest text of one field, in bytes; longer ones are cut.
const MAX_TEXT: usize = 4096;

/// Libraries that log each frame: at most their warnings are of use here.
const NOISY: [&str; 4] = ["h2", "hyper", "tonic", "tower"];

/// The level in force: the parent's or the mesh's word, for the whole process.
static LEVEL: AtomicU8 = AtomicU8::new(3);

static INSTANCE: RwLock<String> = RwLock::new(String::new());

/// Writes events as JSON lines; the service's own subscriber, unless the program has set one.
pub(crate) struct JsonLines<W> {
    service: String,
    write: W,
}

/// Fields of a span, kept beside it.
struct Fields(Map<String, Value>);

/// Installs the JSON lines as the program's subscriber; one that is there already stays.
pub(crate) fn install(service: &str, instance: &str) {
    set_instance(instance);
    let lines = JsonLines::new(service, |line: &[u8]| {
        // A closed standard output is no reason to fail.
        let _ = std::io::stdout().lock().write_all(line);
    });
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines));
}

/// Sets the level that the mesh wants; nothing said leaves it.
pub(crate) fn set_level(level: pb::LogLevel) {
    let level = match level {
        pb::LogLevel::Unspecified => return,
        pb::LogLevel::Error => 1,
        pb::LogLevel::Warn => 2,
        pb::LogLevel::Info => 3,
        pb::LogLevel::Debug => 4,
        pb::LogLevel::Trace => 5,
    };
    if LEVEL.swap(level, Relaxed) != level {
        tracing::callsite::rebuild_interest_cache();
    }
}

/// Takes the name that the sidecar gave to this instance.
pub(crate) fn set_instance(instance: &str) {
    if !instance.is_empty() {
        instance.clone_into(&mut INSTANCE.write().unwrap_or_else(PoisonError::into_inner));
    }
}

fn rank(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    let is_noisy = NOISY.iter().any(|noisy| library == *noisy || library == "hyper_util");
    let most = LEVEL.load(Relaxed);
    rank(metadata.level()) <= if is_noisy { most.min(2) } else { most }
}

impl<W: Fn(&[u8])> JsonLines<W> {
    pub(crate) fn new(service: &str, write: W) -> Self {
        Self { service: service.to_owned(), write }
    }
}

impl<S, W> Layer<S> for JsonLines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + Send + Sync + 'static,
{
    /// The cache is built anew when the level changes.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        is_wanted(metadata)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Map::new();
        attributes.record(&mut Visitor(&mut fields));
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(Fields(fields));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(Fields(fields)) = span.extensions_mut().get_mut()
        {
            values.record(&mut Visitor(fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut own = Map::new();
        event.record(&mut Visitor(&mut own));
        let mut line = Map::new();
        line.insert("ts".to_owned(), format!("{:.3}", jiff::Timestamp::now()).into());
        line.insert("level".to_owned(), event.metadata().level().as_str().to_lowercase().into());
        line.insert("msg".to_owned(), own.remove("message").unwrap_or_default());
        line.insert("service".to_owned(), self.service.as_str().into());
        line.insert("instance".to_owned(), INSTANCE.read().unwrap_or_else(PoisonError::into_inner).as_str().into());
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(Fields(fields)) = span.extensions().get() {
                line.extend(fields.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        // What the line says of itself is not for a caller's field to change.
        line.extend(
            own.into_iter().filter(|(name, _)| !["ts", "level", "msg", "service", "instance"].contains(&name.as_str())),
        );
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        (self.write)(text.as_bytes());
    }
}

struct Visitor<'a>(&'a mut Map<String, Value>);

impl Visitor<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().trim_start_matches("r#").to_owned(), value.into());
    }
}

impl Visit for Visitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, &value[..value.floor_char_boundary(MAX_TEXT)]);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        self.record_str(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn lines_of(run: impl FnOnce()) -> Vec<Value> {
        let written: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = written.clone();
        let lines = JsonLines::new("orders", move |line: &[u8]| sink.lock().unwrap().extend_from_slice(line));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), run);
        let bytes = written.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_fields_of_its_event_and_its_request() {
        let lines = lines_of(|| {
            let span = tracing::error_span!("request", request_id = "r-1", trace_id = "t-1", handler = "GET /a");
            let _within = span.enter();
            tracing::info!(order = 7, msg = "not this", "paid");
        });
        assert_eq!(lines.len(), 1);
        let line = &lines[0];
        assert_eq!(
            (&line["level"], &line["msg"], &line["service"]),
            (&"info".into(), &"paid".into(), &"orders".into())
        );
        assert_eq!(
            (&line["request_id"], &line["trace_id"], &line["handler"]),
            (&"r-1".into(), &"t-1".into(), &"GET /a".into())
        );
        assert_eq!(line["order"], 7);
        let stamp = line["ts"].as_str().unwrap();
        assert_eq!((stamp.len(), &stamp[19..20], &stamp[23..]), (24, ".", "Z"), "{stamp}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let lines = lines_of(|| tracing::info!(text = "ë".repeat(4000), "long"));
        assert_eq!(lines[0]["text"].as_str().unwrap().len(), MAX_TEXT);
    }

    #[test]
    fn libraries_that_log_each_frame_are_heard_from_warnings_on() {
        let lines = lines_of(|| {
            tracing::info!(target: "h2::proto", "a frame");
            tracing::warn!(target: "h2::proto", "a flood");
            tracing::info!(target: "h2o", "another library");
        });
        let heard: Vec<_> = lines.iter().map(|line| line["msg"].as_str().unwrap()).collect();
        assert_eq!(heard, ["a flood", "another library"]);
    }
}
