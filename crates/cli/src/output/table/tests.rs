//! Golden tables at several widths.

use super::*;

fn sample() -> Table {
    let mut table = Table::new(&[
        Column::name("SERVICE"),
        Column::stays("STATE"),
        Column::count("READY"),
        Column::text("VERSION"),
        Column::figure("REQ/S"),
        Column::figure("P99"),
        Column::figure("5XX"),
        Column::number("RESTARTS"),
        Column::sentence("CAUSE"),
        Column::text("PROTOCOL").wide(),
    ]);
    let mut row = |name: &str, state, rest: [&str; 8]| {
        let mut cells = vec![Cell::new(name), Cell::state(state)];
        cells.extend(rest.iter().map(Cell::new));
        table.row(cells);
    };
    row("users", InstanceState::Ready, ["6/6", "1.4.2 1.5.0", "1204.0", "11 ms", "0.00%", "0", "", "http"]);
    row(
        "a-service-with-a-name-that-does-not-end",
        InstanceState::Degraded,
        ["2/3", "2.0.1", "310.5", "48 ms", "0.02%", "4", "orders-1@vm2 ejected: 5 failures in a row", "grpc"],
    );
    row("migrate", InstanceState::Gone, ["–", "1.5.0", "–", "–", "–", "0", "", "http"]);
    table.note("job done, exit 0");
    table
}

fn drawn(width: Option<usize>, wide: bool, unicode: bool) -> String {
    sample().draw(Drawing { paint: Paint { colour: false, unicode }, width, wide })
}

#[test]
fn at_100_columns_the_cause_loses_its_end_and_the_name_nothing_more() {
    let text = drawn(Some(100), false, true);
    assert_eq!(text, include_str!("golden/100.txt"));
    assert!(text.lines().all(|line| line.width() <= 100));
}

#[test]
fn at_80_columns_figures_go_from_the_right_and_are_counted() {
    let text = drawn(Some(80), false, true);
    assert_eq!(text, include_str!("golden/80.txt"));
    assert!(text.lines().all(|line| line.width() <= 80));
}

#[test]
fn wide_shows_every_column_whole() {
    assert_eq!(drawn(Some(80), true, true), include_str!("golden/wide.txt"));
}

#[test]
fn without_terminal_there_are_no_marks_no_indent_and_no_hidden_columns() {
    assert_eq!(drawn(None, false, true), include_str!("golden/pipe.txt"));
}

#[test]
fn without_utf8_marks_and_dashes_are_ascii() {
    let text = drawn(Some(80), false, false);
    assert_eq!(text, include_str!("golden/ascii.txt"));
    assert!(text.is_ascii());
}

#[test]
fn colour_changes_nothing_but_escapes() {
    let colour = sample().draw(Drawing { paint: Paint { colour: true, unicode: true }, width: Some(100), wide: false });
    let mut stripped = String::new();
    let mut inside = false;
    for c in colour.chars() {
        match c {
            '\u{1b}' => inside = true,
            'm' if inside => inside = false,
            c if !inside => stripped.push(c),
            _ => {}
        }
    }
    assert_ne!(colour, stripped);
    assert_eq!(stripped, drawn(Some(100), false, true));
}

#[test]
fn a_redraw_keeps_the_columns_of_the_drawing_before() {
    let drawing = Drawing { paint: Paint::plain(), width: Some(80), wide: false };
    let mut layout = Layout::default();
    let mut table = Table::new(&[Column::name("NAME"), Column::text("WHERE")]);
    table.row(vec![Cell::new("a-long-name"), Cell::new("here")]);
    table.draw_with(drawing, &mut layout);
    let mut table = Table::new(&[Column::name("NAME"), Column::text("WHERE")]);
    table.row(vec![Cell::new("b"), Cell::new("there")]);
    assert_eq!(table.draw_with(drawing, &mut layout), "  NAME         WHERE\n  b            there\n");
}

#[test]
fn a_limit_counts_rows_not_notes() {
    let mut table = sample();
    assert_eq!(table.limit(3), None);
    assert_eq!(table.limit(2), Some(3));
    assert!(!table.draw(Drawing { paint: Paint::plain(), width: None, wide: false }).contains("job done"));
}

#[test]
fn changes_are_told_without_figures() {
    let lines = sample().steady_lines(Paint { colour: false, unicode: true });
    assert_eq!(lines[0], ("users".to_owned(), "users  ready  6/6  1.4.2 1.5.0  0".to_owned()));
}

#[test]
fn wide_signs_count_as_two_columns() {
    let paint = Paint { colour: false, unicode: true };
    assert_eq!(lose_middle("日本語日本語", 7, paint), "日…本語".replace("本語", "語"));
    assert_eq!(lose_end("日本語", 4, paint), "日…");
}
