//! Logs: what the process says of itself ([`init`]), and the lines that others write through it ([`LineWriter`]):
//! access logs, the output of services. All have one form ([`Record`]) and go into one [`Journal`]. No writer ever waits
//! for a disk or a terminal.

mod event;
mod files;
mod journal;
mod level;
mod line;
mod read;
mod record;
mod upkeep;

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

pub use event::MAX_FIELD;
pub use journal::{Journal, JournalConfig, KEEP, MAX_SIZE, Told};
pub use level::Level;
pub use line::{LineWriter, QUEUE, To, count_dropped, dropped_lines, flush_all, reopen_all};
pub use read::Wanted;
pub use record::{Entry, Kind, Record};

/// One JSON line for each exchange; written by [`LineWriter`].
pub type AccessLog = LineWriter;

/// How a line of our own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One JSON object a line: see [`Record`].
    #[default]
    Json,
    /// For people: time of day, level, message, `field=value`.
    Text,
}

impl FromStr for Format {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(format!("`{text}` is not a log format: expected json or text")),
        }
    }
}

/// How the process logs.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// How a line looks.
    pub format: Format,
    /// `error`, `warn`, `info`, `debug`, `trace` or `off`, and directives such as `info,synego_data_plane=debug`.
    pub level: String,
    /// Where lines go.
    pub to: To,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: Format::Json, level: "info".to_owned(), to: To::Stderr }
    }
}

/// Changes the log of the process while it runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
    writer: LineWriter,
    level: Arc<Mutex<String>>,
    /// Goes up with each level that is set for a while.
    turn: Arc<AtomicU64>,
}

static HANDLE: OnceLock<LogHandle> = OnceLock::new();
static OWN: OnceLock<Own> = OnceLock::new();

/// Whose program this is, and where its lines go besides.
#[derive(Debug)]
struct Own {
    journal: LineWriter,
    service: String,
    instance: String,
}

fn own() -> Option<&'static Own> {
    OWN.get()
}

/// From now on what the process says of itself goes into this journal too, in the name of `instance`. Only the first call
/// of a process counts.
pub fn keep_in(journal: &Journal, service: &str, instance: &str) {
    let writer = journal.writer().for_the_process();
    // A second one would speak for somebody else.
    let _first = OWN.set(Own { journal: writer, service: service.to_owned(), instance: instance.to_owned() });
}

/// Begins to log. Only the first call of a process decides on format and place; a later one sets the level alone.
///
/// # Errors
/// When the level is none, or the folder cannot be written.
pub fn init(config: &LogConfig) -> Result<LogHandle, String> {
    let filter = filter_of(&config.level)?;
    if let Some(handle) = HANDLE.get() {
        handle.set_level(&config.level)?;
        return Ok(handle.clone());
    }
    let writer = LineWriter::open(config.to.clone()).map_err(|error| format!("cannot open the log: {error}"))?;
    let writer = writer.for_the_process();
    let (filter, reload) = reload::Layer::new(filter);
    let level = Arc::new(Mutex::new(config.level.clone()));
    let handle =
        HANDLE.get_or_init(|| LogHandle { filter: reload, writer: writer.clone(), level, turn: Arc::default() });
    let subscriber = Registry::default().with(filter).with(event::EventLayer::new(config.format, writer));
    // A test may have set its own subscriber before us: then that one stays.
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        log_panics();
    }
    Ok(handle.clone())
}

impl LogHandle {
    /// Sets the level (see [`LogConfig::level`]) from now on.
    ///
    /// # Errors
    /// When it is none; the one in force stays.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.filter.reload(filter_of(level)?).map_err(|error| format!("cannot set the log level: {error}"))?;
        level.clone_into(&mut self.level.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Sets a level for a while, then what was in force before, unless it was set again meanwhile; `None`: from now on.
    pub fn set_level_for(&self, level: Level, within: Option<Duration>) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) + 1;
        // A word for a level is one.
        let _set = self.filter.reload(Targets::new().with_default(level.as_tracing()));
        let Some(within) = within else {
            level.word().clone_into(&mut self.level.lock().unwrap_or_else(PoisonError::into_inner));
            return;
        };
        let handle = self.clone();
        crate::tasks::spawn("log-level", crate::tasks::Kind::Connection, async move {
            tokio::time::sleep(within).await;
            if handle.turn.load(Ordering::Relaxed) == turn {
                let before = handle.level();
                // It was in force already.
                let _back = handle.set_level(&before);
            }
        });
    }

    /// The level in force but for a while.
    #[must_use]
    pub fn level(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits, at most `within`, until everything said so far is written.
    pub fn flush(&self, within: Duration) {
        self.writer.flush(within);
    }
}

fn filter_of(level: &str) -> Result<Targets, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let refused = |part: &str| format!("`{part}` is not a log level: expected error, warn, info, debug, trace or off");
    // By itself the filter takes any word for the name of a module, so a misspelt level would silence the log.
    for part in level.split(',') {
        let word = part.rsplit('=').next().unwrap_or_default().trim();
        if !LEVELS.contains(&word.to_ascii_lowercase().as_str()) {
            return Err(refused(part));
        }
    }
    level.parse().map_err(|_| refused(level))
}

/// Panics become lines of the log, with their place, instead of text on stderr.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("?").to_owned();
        let cause = panic.payload_as_str().unwrap_or("?").to_owned();
        tracing::error!(place, thread, cause, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused_and_never_silences_the_log() {
        for good in ["info", "WARN", "off", "info,synego_data_plane=debug"] {
            assert!(filter_of(good).is_ok(), "{good}");
        }
        for bad in ["", "inof", "info,debg", "info,synego=loud", "synego"] {
            assert!(filter_of(bad).is_err_and(|error| error.contains("is not a log level")), "{bad}");
        }
    }
}
