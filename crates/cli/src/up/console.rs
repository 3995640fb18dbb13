//! What a person sees and presses while `synego up` runs: output on stdout, the board or plain words on stderr.

mod asked;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use synego_runtime::Host;
use synego_wire::pb;
use tokio::sync::mpsc;

use self::asked::modified;
use super::board::{self, Progress};
use super::pen::{Pen, Stroke};
use super::ready::{Judge, Verdict};
use super::terminal::{Keys, Region, Restore};
use crate::client::Mesh;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Tone;
use crate::output::line::{self, Style};
use crate::output::paint::state_word;
use crate::output::table::Layout;
use crate::view;

/// How often ages on the board move on, and the files of the manifest are looked at.
const TICK: Duration = Duration::from_millis(500);
/// Lines that may wait to be shown.
pub(crate) const QUEUE: usize = 1024;
/// Bytes of lines that wait for a slow terminal; then the oldest are not shown.
const MOST_ABOVE: usize = 512 * 1024;
/// Time for the last words on a slow terminal.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One line of an instance's output.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Who printed it.
    pub(crate) instance: String,
    /// What.
    pub(crate) line: pb::OutputLine,
    /// Whether it was its build.
    pub(crate) build: bool,
}

/// Where the console is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On a terminal: a board that is redrawn.
    Live,
    /// On pipes or files: lines.
    Plain,
    /// In the background: the lines are in the files of the services, the words in our own log.
    Background,
}

/// What a person sees.
pub(crate) struct Console<'a> {
    context: &'a Context,
    judge: Judge,
    progress: Progress,
    view: pb::MeshView,
    states: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, Option<SystemTime>>,
    /// Whether the manifest on disk differs from the one in force, and can be taken.
    waiting: bool,
    region: Region,
    layout: Layout,
    /// Lines to print above the board.
    above: String,
    notes: Vec<String>,
    place: Place,
    pen: Option<Pen>,
    only_logs: bool,
    help: bool,
    filter: String,
    typing: bool,
    width: usize,
}

impl<'a> Console<'a> {
    /// For the mesh that begins now. `files`: those of the manifest, whose changes are announced; `width`: columns for the
    /// names of instances.
    pub(crate) fn new(context: &'a Context, judge: Judge, files: Vec<PathBuf>, width: usize, background: bool) -> Self {
        let place = match (background, context.screen.err_is_terminal && !context.screen.quiet) {
            (true, _) => Place::Background,
            (false, true) => Place::Live,
            (false, false) => Place::Plain,
        };
        Self {
            context,
            judge,
            progress: Progress { begun_unix_ms: context.now(), took: None },
            view: pb::MeshView::default(),
            states: BTreeMap::new(),
            files: files.into_iter().map(|file| (file.clone(), modified(&file))).collect(),
            waiting: false,
            region: Region::default(),
            layout: Layout::default(),
            above: String::new(),
            notes: Vec::new(),
            place,
            // Without a thread to spare nobody sees anything, and all runs on.
            pen: Pen::new().ok().filter(|_| place != Place::Background),
            only_logs: false,
            help: false,
            filter: String::new(),
            typing: false,
            width,
        }
    }

    /// Shows the mesh until `stop`; `q` stops it.
    pub(crate) async fn run(
        &mut self,
        mesh: &mut Mesh<'_>,
        lines: &mut mpsc::Receiver<Line>,
        host: &Host,
    ) -> Result<(), Failure> {
        let (stop, stopper, mut hangups) = (host.stop(), &host.stopper(), host.hangups());
        let (keys, mut pressed) = match Keys::take().filter(|_| self.place == Place::Live) {
            Some((keys, pressed)) => (Some(keys), Some(pressed)),
            None => (None, None),
        };
        let restore: Option<Restore> = keys.as_ref().map(Keys::restore);
        let mut views = mesh.watch(&[], Duration::from_millis(200)).await?;
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                Some(line) = lines.recv() => {
                    self.take_line(&line);
                    while let Ok(line) = lines.try_recv() {
                        self.take_line(&line);
                    }
                }
                Some(view) = views.next() => match view {
                    Ok(view) => self.take_view(view),
                    Err(status) if !stop.is_stopped() => return Err(mesh.failed(&status)),
                    Err(_) => {}
                },
                Some(key) = key(&mut pressed) => self.take_key(key, mesh, stopper).await,
                _ = tick.tick() => self.look_at_files(mesh).await,
                // The terminal was closed.
                Ok(()) = hangups.changed(), if self.place == Place::Live => stopper.stop(),
                () = stop.stopped() => break,
            }
            self.show();
            if self.pen.as_ref().is_some_and(Pen::is_deserted) {
                stopper.stop();
            }
        }
        if let Some(restore) = restore {
            restore.now();
        }
        if self.place == Place::Live {
            self.place = Place::Plain;
            let strokes = self.region.draw("", "");
            self.write(strokes);
        }
        Ok(())
    }

    /// Shows what comes while all is being ended.
    pub(crate) async fn drain(&mut self, lines: &mut mpsc::Receiver<Line>, steps: &mut mpsc::Receiver<String>) {
        loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => self.take_line(&line),
                step = steps.recv() => match step {
                    Some(step) => self.notes.push(step),
                    None => break,
                },
            }
            self.show();
        }
        while let Ok(line) = lines.try_recv() {
            self.take_line(&line);
        }
        if let Some(pen) = &self.pen {
            pen.settle(LAST_WORDS).await;
        }
        self.show();
        if let Some(pen) = &self.pen {
            pen.settle(LAST_WORDS).await;
        }
    }

    fn write(&self, strokes: Vec<Stroke>) {
        if let (Some(pen), false) = (&self.pen, strokes.is_empty()) {
            pen.write(strokes);
        }
    }

    fn take_line(&mut self, line: &Line) {
        if self.place == Place::Background {
            return;
        }
        let style = Style { paint: self.context.screen.out, clock: &self.context.clock, width: self.width };
        let drawn = line::draw(&style, self.context.now(), &line.instance, &line.line, line.build);
        if self.filter.is_empty() || drawn.to_lowercase().contains(&self.filter.to_lowercase()) {
            self.above.push_str(&drawn);
        }
        if self.above.len() > MOST_ABOVE {
            // The terminal is slower than the services: what is not shown is in the files.
            let keep = self.above.len() - MOST_ABOVE / 2;
            let at = self
                .above
                .bytes()
                .skip(keep)
                .position(|byte| byte == b'\n')
                .map_or(self.above.len(), |at| keep + at + 1);
            self.above.drain(..at);
        }
    }

    fn take_view(&mut self, view: pb::MeshView) {
        self.tell_changes(&view);
        let first = self.progress.took.is_none();
        if first && self.judge.look(&view, synego_runtime::clock::now()) == Verdict::Ready {
            let took = Duration::from_millis(self.context.now().saturating_sub(self.progress.begun_unix_ms));
            self.progress.took = Some(took);
            if self.place != Place::Live {
                self.notes.push(board::summary(&view, self.progress));
            }
        }
        self.view = view;
    }

    /// Without a board each change of state is one line.
    fn tell_changes(&mut self, view: &pb::MeshView) {
        let mut now: BTreeMap<String, String> = BTreeMap::new();
        for service in &view.service {
            for instance in &service.instance {
                let state = state_word(instance.state()).to_owned();
                let cause = view::cause_line(instance.cause.as_ref());
                let before = self.states.get(&instance.id);
                if self.place != Place::Live && before != Some(&state) {
                    let from = before.map(|before| format!("{before} → ")).unwrap_or_default();
                    let why = if cause.is_empty() || cause == state || state == "ready" {
                        String::new()
                    } else {
                        format!(" ({cause})")
                    };
                    self.notes.push(format!("{} {from}{state}{why}", instance.id));
                }
                now.insert(instance.id.clone(), state);
            }
        }
        self.states = now;
        for warning in &view.warning {
            let known =
                self.view.warning.iter().any(|before| before.code == warning.code && before.message == warning.message);
            if !known {
                self.notes.push(format!(
                    "{} {}",
                    self.context.screen.err.tone(Tone::Warn, "warning:"),
                    warning.message
                ));
            }
        }
    }

    fn show(&mut self) {
        if self.place == Place::Background {
            std::mem::take(&mut self.notes).iter().for_each(|note| tracing::info!("{note}"));
            return;
        }
        if !self.pen.as_ref().is_some_and(Pen::is_ready) {
            return;
        }
        let notes: Vec<String> = std::mem::take(&mut self.notes);
        let above = std::mem::take(&mut self.above);
        let at = self.context.clock.at(self.context.now(), self.context.now());
        let screen = &self.context.screen;
        let quiet = screen.quiet;
        let words: Vec<Stroke> = notes
            .iter()
            .filter(|_| !quiet)
            .map(|note| Stroke::Err(format!("{}\n", screen.err.text(format!("{at} {note}").trim_end_matches('\n')))))
            .collect();
        let above = screen.out.text(&above).to_string();
        if self.place == Place::Plain {
            let lines = (!above.is_empty()).then_some(Stroke::Out(above));
            return self.write(lines.into_iter().chain(words).collect());
        }
        let mut strokes = Vec::new();
        if !words.is_empty() {
            // Our own words scroll like the lines do, but on stderr.
            strokes.extend(self.region.draw("", ""));
            strokes.extend(words);
        }
        let region = self.drawn();
        strokes.extend(self.region.draw(&above, &region));
        self.write(strokes);
    }

    fn drawn(&mut self) -> String {
        let paint = self.context.screen.err;
        let width = self.context.screen.columns();
        let mut keys = vec!["q stop all", if self.only_logs { "l board" } else { "l logs only" }, "/ filter"];
        if self.waiting {
            keys.insert(0, "a apply");
        }
        keys.push("? keys");
        let keys = match (self.typing, self.help) {
            (true, _) => format!("filter: {}_", self.filter),
            (_, true) => {
                "q ends all   l lines only   / lines with a text, Esc all   a takes a changed file   Ctrl-C as q"
                    .to_owned()
            }
            _ if !self.filter.is_empty() => format!("filter: {} (Esc ends it)   {}", self.filter, keys.join("   ")),
            _ => format!("{:>width$}", keys.join("   ")),
        };
        let keys = paint.text(&paint.tone(Tone::Dim, &keys));
        if self.only_logs || self.view.mesh.is_empty() {
            return format!("{keys}\n");
        }
        // Ages move on between two views.
        self.view.unix_ms = self.view.unix_ms.max(self.context.now());
        let board = board::draw(&self.view, self.progress, paint, width, &mut self.layout);
        let room = self.context.screen.rows().saturating_sub(4).max(6);
        let lines: Vec<&str> = board.lines().collect();
        let cut = if lines.len() > room {
            format!("  {} more lines: synego status\n", lines.len() - room)
        } else {
            String::new()
        };
        let body: String = lines.iter().take(room).flat_map(|line| [*line, "\n"]).collect();
        format!("\n{body}{cut}{keys}\n")
    }
}

async fn key(pressed: &mut Option<mpsc::Receiver<char>>) -> Option<char> {
    match pressed {
        Some(pressed) => pressed.recv().await,
        None => std::future::pending().await,
    }
}
