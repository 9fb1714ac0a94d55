//! Tables on the terminal.

use comfy_table::{CellAlignment, Table, TableComponent, presets};

use crate::eval::Metrics;
use crate::kar::{RankChanges, Report};
use crate::printable::printable;

/// A table of text: the first column to the left, all others to the right.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
        table.remove_style(line);
    }
    rows.into_iter().for_each(|row| {
        // A cell is a line: a line break in a name would look like a row.
        table.add_row(row.iter().map(|cell| printable(cell).replace(['\n', '\t'], " ")));
    });
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.trim_fmt()
}

/// A table of Markdown.
pub fn markdown_table(header: &[impl AsRef<str>], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let line = |cells: Vec<String>| {
        let cells =
            cells.iter().map(|cell| format!(" {} |", printable(cell).replace('|', "\\|").replace(['\n', '\t'], " ")));
        format!("|{}\n", cells.collect::<String>())
    };
    let mut text = line(header.iter().map(|name| name.as_ref().to_string()).collect());
    text += &format!("|{}\n", "---|".repeat(header.len()));
    rows.into_iter().for_each(|row| text += &line(row));
    text
}

/// A row of metrics for each name.
pub fn metrics_table<'a>(rows: impl IntoIterator<Item = (&'a str, &'a Metrics)>) -> String {
    let row = |name: &str, m: &Metrics| {
        let percent = |x: f64| format!("{:.2}", 100.0 * x);
        let [h1, h2, h3, h5] = [m.hits1, m.hits2, m.hits3, m.hits5].map(percent);
        vec![name.to_string(), h1, h2, h3, h5, format!("{:.3}", m.mean_rank), percent(m.reciprocal)]
    };
    let rows = rows.into_iter().map(|(name, metrics)| row(name, metrics));
    table(&["score", "H@1 %", "H@2 %", "H@3 %", "H@5 %", "MR", "MRR %"], rows)
}

/// Metrics before and after re-ranking; nothing where no mention has a gold entity.
pub fn reranking_table(report: &Report) -> Option<String> {
    let values = |m: &Metrics| {
        let percent = |x: f64| 100.0 * x;
        [
            percent(m.hits1),
            percent(m.hits2),
            percent(m.hits3),
            percent(m.hits4),
            percent(m.hits5),
            m.mean_rank,
            percent(m.reciprocal),
        ]
    };
    let (before, after) = (values(report.before.as_ref()?), values(report.after.as_ref()?));
    let change: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    let shown = |values: &[f64], sign: bool| -> Vec<String> {
        let decimals = |i: usize| if i == 5 { 3 } else { 2 };
        let text = |(i, x): (usize, &f64)| match sign {
            true => format!("{x:+.*}", decimals(i)),
            false => format!("{x:.*}", decimals(i)),
        };
        values.iter().enumerate().map(text).collect()
    };
    let row = |name: &str, values: Vec<String>| [vec![name.to_string()], values].concat();
    let rows =
        [row("before", shown(&before, false)), row("after", shown(&after, false)), row("change", shown(&change, true))];
    Some(table(&["", "H@1 %", "H@2 %", "H@3 %", "H@4 %", "H@5 %", "MR", "MRR %"], rows))
}

/// How many gold entities went from which rank (rows) to which (columns), as in Fig. 9.
pub fn rank_change_table(report: &Report) -> String {
    rank_changes(&report.changes)
}

/// The same of changes alone.
pub fn rank_changes(changes: &RankChanges) -> String {
    let ranks: Vec<String> = (1..=changes.matrix.len()).map(|rank| rank.to_string()).collect();
    let header: Vec<&str> = ["before \\ after"].into_iter().chain(ranks.iter().map(String::as_str)).collect();
    let row = |(rank, counts): (&String, &Vec<usize>)| {
        [rank.clone()].into_iter().chain(counts.iter().map(usize::to_string)).collect()
    };
    table(&header, ranks.iter().zip(&changes.matrix).map(row))
}
