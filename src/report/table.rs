//! Tables on the terminal.

use comfy_table::{CellAlignment, Table, TableComponent, presets};

use crate::eval::{Evaluation, Metrics};

/// A table of text: the first column to the left, all others to the right.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    for line in [TableComponent::HorizontalLines, TableComponent::MiddleIntersections] {
        table.remove_style(line);
    }
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.trim_fmt()
}

/// A model's metrics: by the mean of its scores, then by each score alone.
pub fn evaluation_table(evaluation: &Evaluation) -> String {
    let row = |name: &str, m: &Metrics| {
        let percent = |x: f64| format!("{:.2}", 100.0 * x);
        let [h1, h2, h3, h5] = [m.hits1, m.hits2, m.hits3, m.hits5].map(percent);
        vec![name.to_string(), h1, h2, h3, h5, format!("{:.3}", m.mean_rank), percent(m.reciprocal)]
    };
    let scores = evaluation.per_score.iter().map(|(kind, metrics)| row(kind.label(), metrics));
    let rows = std::iter::once(row("mean", &evaluation.mean)).chain(scores);
    table(&["score", "H@1 %", "H@2 %", "H@3 %", "H@5 %", "MR", "MRR %"], rows)
}
