//! Tables that fit the terminal: columns go from the right, name and state never, long names lose their middle.

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::harmless;
use super::paint::{Paint, Tone, state_mark, state_tone, state_word};
use synego_wire::pb::InstanceState;

/// Fewest columns left of a name that loses its middle, or of a text that loses its end.
const NARROWEST: usize = 12;

/// One column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    head: &'static str,
    right: bool,
    fit: Fit,
    wide: bool,
    volatile: bool,
}

/// What happens to a column when there is too little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// It goes, from the right.
    Goes,
    /// It stays.
    Stays,
    /// It stays; long values lose their middle.
    LosesMiddle,
    /// It stays while there are 20 columns for it; long values lose their end.
    LosesEnd,
}

impl Column {
    const fn new(head: &'static str, fit: Fit) -> Self {
        Self { head, right: false, fit, wide: false, volatile: false }
    }
    /// The name of what the row is about: stays, and loses its middle at last.
    pub(crate) const fn name(head: &'static str) -> Self {
        Self::new(head, Fit::LosesMiddle)
    }
    /// A column that stays as it is.
    pub(crate) const fn stays(head: &'static str) -> Self {
        Self::new(head, Fit::Stays)
    }
    /// A column that may go.
    pub(crate) const fn text(head: &'static str) -> Self {
        Self::new(head, Fit::Goes)
    }
    /// A sentence: loses its end before it goes.
    pub(crate) const fn sentence(head: &'static str) -> Self {
        Self::new(head, Fit::LosesEnd)
    }
    /// A number that may go; at the right edge of its column.
    pub(crate) const fn number(head: &'static str) -> Self {
        Self { right: true, ..Self::new(head, Fit::Goes) }
    }
    /// The same, and it changes all the time: its changes are not told where changes are told line by line.
    pub(crate) const fn figure(head: &'static str) -> Self {
        Self { volatile: true, ..Self::number(head) }
    }
    /// A number that stays.
    pub(crate) const fn count(head: &'static str) -> Self {
        Self { right: true, ..Self::new(head, Fit::Stays) }
    }
    /// Only with `-o wide`.
    pub(crate) const fn wide(self) -> Self {
        Self { wide: true, ..self }
    }
}

/// One value of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Cell {
    text: String,
    mark: Option<&'static str>,
    tone: Option<Tone>,
}

impl Cell {
    /// A text; control characters in it are made harmless.
    pub(crate) fn new(text: impl AsRef<str>) -> Self {
        Self { text: harmless(text.as_ref()), mark: None, tone: None }
    }
    /// A text in a colour.
    pub(crate) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self { tone: Some(tone), ..Self::new(text) }
    }
    /// A state: mark, word and colour.
    pub(crate) fn state(state: InstanceState) -> Self {
        Self { mark: Some(state_mark(state)), ..Self::toned(state_word(state), state_tone(state)) }
    }
    /// The cell alone, outside of a table; with its mark on a terminal.
    pub(crate) fn words(&self, paint: Paint, marked: bool) -> String {
        let mark = self.mark.filter(|_| marked);
        let text = mark.map_or_else(|| self.text.clone(), |mark| format!("{mark} {}", self.text));
        self.tone.map_or_else(|| text.clone(), |tone| paint.tone(tone, &text))
    }
}

/// How a table is drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawing {
    /// Colour and signs.
    pub(crate) paint: Paint,
    /// Columns of the terminal; `None`: no terminal, so everything, without marks and indent.
    pub(crate) width: Option<usize>,
    /// `-o wide`: every column, however wide.
    pub(crate) wide: bool,
}

/// Which columns are shown and how wide; kept from one drawing to the next so that nothing jumps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    widths: Vec<Option<usize>>,
    room: Option<usize>,
}

/// Rows under columns.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
    headless: bool,
}

#[derive(Debug, Clone)]
enum Row {
    Cells(Vec<Cell>),
    /// A line of its own below a row, at the second column.
    Note(String),
}

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), ..Self::default() }
    }

    /// The same without the line of heads.
    pub(crate) fn headless(mut self) -> Self {
        self.headless = true;
        self
    }

    /// Adds a row: one cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "one cell for each column");
        self.rows.push(Row::Cells(cells));
    }

    /// Adds a line below the last row.
    pub(crate) fn note(&mut self, text: impl AsRef<str>) {
        self.rows.push(Row::Note(harmless(text.as_ref())));
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Leaves the first `limit` rows; returns how many there were when some went.
    pub(crate) fn limit(&mut self, limit: usize) -> Option<usize> {
        let total = self.rows.iter().filter(|row| matches!(row, Row::Cells(_))).count();
        if limit == 0 || total <= limit {
            return None;
        }
        let mut seen = 0;
        self.rows.retain(|row| {
            seen += usize::from(matches!(row, Row::Cells(_)));
            seen <= limit
        });
        Some(total)
    }

    /// For each row its first cell, and the whole without what changes all the time.
    pub(crate) fn steady_lines(&self, paint: Paint) -> Vec<(String, String)> {
        let line = |cells: &Vec<Cell>| {
            let texts =
                self.columns.iter().zip(cells).filter(|(column, cell)| {
                    !column.volatile && !column.wide && !cell.text.is_empty() && cell.text != "–"
                });
            let name = cells.first().map_or_else(String::new, |cell| cell.text.clone());
            (name, paint.text(&texts.map(|(_, cell)| cell.text.as_str()).collect::<Vec<_>>().join("  ")))
        };
        self.rows.iter().filter_map(|row| if let Row::Cells(cells) = row { Some(line(cells)) } else { None }).collect()
    }

    /// The table as text, each line with a newline at its end.
    pub(crate) fn draw(&self, drawing: Drawing) -> String {
        self.draw_with(drawing, &mut Layout::default())
    }

    /// The same with the columns of the drawing before, which are kept unless the room changed.
    pub(crate) fn draw_with(&self, drawing: Drawing, layout: &mut Layout) -> String {
        let cells: Vec<Option<Vec<String>>> = self
            .rows
            .iter()
            .map(|row| match row {
                Row::Cells(cells) => Some(cells.iter().map(|cell| plain(cell, drawing)).collect()),
                Row::Note(_) => None,
            })
            .collect();
        self.lay_out(&cells, drawing, layout);
        let indent = if drawing.width.is_some() { "  " } else { "" };
        let mut text = String::new();
        let heads: Vec<String> = self.columns.iter().map(|column| column.head.to_owned()).collect();
        if !self.headless {
            self.line(&mut text, indent, &heads, &[], layout, drawing, Some(Tone::Dim));
        }
        let second = layout.widths.first().copied().flatten().unwrap_or(0) + indent.len() + 2;
        for (row, texts) in self.rows.iter().zip(&cells) {
            match (row, texts) {
                (Row::Cells(cells), Some(texts)) => self.line(&mut text, indent, texts, cells, layout, drawing, None),
                (Row::Note(note), _) => {
                    let note = drawing.paint.text(note);
                    let room = drawing.width.filter(|_| !drawing.wide).map_or(usize::MAX, |width| width - second);
                    text.push_str(&" ".repeat(second));
                    text.push_str(&drawing.paint.tone(Tone::Dim, &lose_end(&note, room, drawing.paint)));
                    text.push('\n');
                }
                _ => {}
            }
        }
        let hidden = self.columns.iter().zip(&layout.widths).filter(|(column, width)| !column.wide && width.is_none());
        match hidden.count() {
            0 => {}
            number => {
                let words = format!("{}{} hidden: -o wide\n", indent, super::amount::count(number, "column"));
                text.push_str(&drawing.paint.tone(Tone::Dim, &words));
            }
        }
        text
    }

    fn lay_out(&self, cells: &[Option<Vec<String>>], drawing: Drawing, layout: &mut Layout) {
        let mut widths: Vec<Option<usize>> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let of_cells = cells.iter().flatten().filter_map(|row| row.get(index)).map(|text| text.width());
                (drawing.wide || !column.wide).then(|| of_cells.max().unwrap_or(0).max(column.head.width()))
            })
            .collect();
        let kept = layout.room == drawing.width && layout.widths.len() == widths.len();
        if kept {
            for (width, before) in widths.iter_mut().zip(&layout.widths) {
                *width = before.and_then(|before| width.map(|width| width.max(before)));
            }
        }
        if let (Some(room), false) = (drawing.width, drawing.wide) {
            self.fit(&mut widths, room);
        }
        *layout = Layout { widths, room: drawing.width };
    }

    fn fit(&self, widths: &mut [Option<usize>], room: usize) {
        let least = |column: &Column, width: usize| match column.fit {
            Fit::LosesEnd => width.min(20),
            Fit::LosesMiddle => width.min(24),
            _ => width,
        };
        let needed = |widths: &[Option<usize>], least: &dyn Fn(&Column, usize) -> usize| -> usize {
            self.columns.iter().zip(widths).filter_map(|(column, width)| Some(least(column, (*width)?) + 2)).sum()
        };
        while needed(widths, &least) > room {
            let last = self
                .columns
                .iter()
                .zip(widths.iter())
                .rposition(|(column, width)| matches!(column.fit, Fit::Goes) && width.is_some());
            let Some(index) = last else { break };
            widths[index] = None;
        }
        let steps =
            [(Fit::LosesMiddle, 24), (Fit::LosesEnd, 20), (Fit::LosesMiddle, NARROWEST), (Fit::LosesEnd, NARROWEST)];
        for (fit, floor) in steps {
            for index in (0..self.columns.len()).rev() {
                let over = needed(widths, &|_, width| width).saturating_sub(room);
                if let (true, Some(width)) = (self.columns[index].fit == fit, widths[index]) {
                    widths[index] = Some(width.saturating_sub(over).max(floor.min(width)));
                }
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one line of a table, called twice")]
    fn line(
        &self,
        into: &mut String,
        indent: &str,
        texts: &[String],
        cells: &[Cell],
        layout: &Layout,
        drawing: Drawing,
        tone: Option<Tone>,
    ) {
        let mut line = indent.to_owned();
        let mut pending = 0;
        let mut first = true;
        for (index, (column, width)) in self.columns.iter().zip(&layout.widths).enumerate() {
            let Some(width) = *width else { continue };
            let text = texts.get(index).map_or("", String::as_str);
            let text = match column.fit {
                Fit::LosesEnd => lose_end(text, width, drawing.paint),
                _ => lose_middle(text, width, drawing.paint),
            };
            let blanks = width.saturating_sub(text.width());
            let (before, after) = if column.right { (blanks, 0) } else { (0, blanks) };
            // Blanks are written only before something: no line ends in blanks.
            pending += before + if first { 0 } else { 2 };
            first = false;
            if !text.is_empty() {
                line.push_str(&" ".repeat(pending));
                pending = 0;
                match tone.or_else(|| cells.get(index).and_then(|cell| cell.tone)) {
                    Some(tone) => line.push_str(&drawing.paint.tone(tone, &text)),
                    None => line.push_str(&text),
                }
            }
            pending += after;
        }
        into.push_str(line.trim_end());
        into.push('\n');
    }
}

fn plain(cell: &Cell, drawing: Drawing) -> String {
    match cell.mark {
        Some(mark) if drawing.width.is_some() => drawing.paint.text(&format!("{mark} {}", cell.text)),
        _ => drawing.paint.text(&cell.text),
    }
}

/// `text` in at most `width` columns, its middle left out.
pub(crate) fn lose_middle(text: &str, width: usize, paint: Paint) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let sign = paint.text("…");
    let left = width.saturating_sub(sign.len().min(2).min(sign.width()));
    let head = take(text.chars(), left.div_ceil(2));
    let tail: String = take(text.chars().rev(), left / 2).chars().rev().collect();
    format!("{head}{sign}{tail}")
}

/// `text` in at most `width` columns, its end left out.
pub(crate) fn lose_end(text: &str, width: usize, paint: Paint) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let sign = paint.text("…");
    format!("{}{sign}", take(text.chars(), width.saturating_sub(sign.width())).trim_end())
}

fn take(chars: impl Iterator<Item = char>, width: usize) -> String {
    let mut left = width;
    chars
        .take_while(|c| {
            let wide = c.width().unwrap_or(0);
            let fits = wide <= left;
            left = left.saturating_sub(wide);
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests;
