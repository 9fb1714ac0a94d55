//! What the paper prints (configs/paper.toml), for a result to stand beside.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A row of the paper's Table 2 or 3 on one dataset. In percent but for MR; what is not printed is none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Printed {
    /// H@1.
    #[serde(rename = "H@1")]
    pub hits1: Option<f64>,
    /// H@2.
    #[serde(rename = "H@2")]
    pub hits2: Option<f64>,
    /// H@3.
    #[serde(rename = "H@3")]
    pub hits3: Option<f64>,
    /// Mean rank.
    #[serde(rename = "MR")]
    pub mean_rank: Option<f64>,
    /// Mean reciprocal rank.
    #[serde(rename = "MRR")]
    pub reciprocal: Option<f64>,
    /// Why no ranking has these metrics, where that is so: they are no target.
    pub impossible: Option<String>,
    /// Which other entry says otherwise of the same thing.
    pub contradicts: Option<String>,
}

/// The paper's Tables 2 and 3: rows by table, dataset and name.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Paper(HashMap<String, HashMap<String, HashMap<String, Printed>>>);

impl Paper {
    /// configs/paper.toml as it was when this program was built.
    pub fn built_in() -> Result<Paper> {
        toml::from_str(include_str!("../../configs/paper.toml"))
            .map_err(|e| Error::invalid(format!("configs/paper.toml, as built in: {e}")))
    }

    /// The row of table 2 or 3 of this name, as printed, on a dataset: `WikiMEL`, `WikiDiverse`, or `Avg.` of both.
    pub fn lookup(&self, table: u8, dataset: &str, row: &str) -> Option<&Printed> {
        self.0.get(&format!("table{table}"))?.get(dataset)?.get(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a unit of the last digit printed, with room for rounding of sums of such numbers.
    const OFF: f64 = 0.005 + 1e-9;

    /// Datasets with the lengths of their lists.
    const DATASETS: [(&str, usize); 2] = [("WikiMEL", 100), ("WikiDiverse", 10)];

    /// What MRR can be in percent, given H@1, H@2, H@3 in percent and MR of lists of `n`; nothing if MR contradicts
    /// them. By the inequalities that stand on top of configs/paper.toml.
    fn bounds(hits: [f64; 3], mean_rank: f64, n: usize) -> Option<(f64, f64)> {
        let n = n as f64;
        // h1 + h2/2 + h3/3 + per_mention t - per_rank s, with all hits off by `off` percent and MR the other way.
        let bound = |per_mention: f64, per_rank: f64, off: f64| {
            let [first, second, third] = hits.map(|hits| (hits + off).min(100.0) / 100.0);
            let (h1, h2, h3, rest) = (first, second - first, third - second, 1.0 - third);
            let sum = mean_rank - off - h1 - 2.0 * h2 - 3.0 * h3;
            100.0 * (h1 + h2 / 2.0 + h3 / 3.0 + per_mention * rest - per_rank * sum)
        };
        let line = |a: f64, b: f64, off: f64| bound(1.0 / a + 1.0 / b, 1.0 / (a * b), off);
        let high = line(4.0, n, OFF);
        let low = (4..n as usize).map(|k| line(k as f64, k as f64 + 1.0, -OFF)).fold(0.0, f64::max);
        // 4 t <= s <= N t: by how much MR exceeds what it is with all of the rest at one end.
        let spare = |end: f64, off: f64| {
            let [first, second, third] = hits.map(|hits| (hits + off) / 100.0);
            mean_rank + off - (first + 2.0 * (second - first) + 3.0 * (third - second) + end * (1.0 - third))
        };
        (spare(4.0, OFF) >= 0.0 && spare(n, -OFF) <= 0.0).then_some((low, high))
    }

    /// Whether some ranking has these metrics; nothing if they are not all printed.
    fn possible(row: &Printed, n: usize) -> Option<bool> {
        let hits = [row.hits1?, row.hits2?, row.hits3?];
        let reciprocal = row.reciprocal?;
        let within = |(low, high): (f64, f64)| low - OFF <= reciprocal && reciprocal <= high + OFF;
        Some(hits.is_sorted() && bounds(hits, row.mean_rank?, n).is_some_and(within))
    }

    #[test]
    fn the_marks_are_those_of_arithmetic() {
        let paper = Paper::built_in().unwrap();
        let mut impossible = Vec::new();
        for (table, complete, alone) in [(2, 14, 4), (3, 8, 0)] {
            for (dataset, n) in DATASETS {
                let rows = &paper.0[&format!("table{table}")][dataset];
                let checked = rows.iter().filter_map(|(name, row)| Some((name, row, possible(row, n)?)));
                let checked: Vec<_> = checked.collect();
                assert_eq!((checked.len(), rows.len()), (complete, complete + alone), "table {table}, {dataset}");
                for (name, row, possible) in checked {
                    assert_eq!(possible, row.impossible.is_none(), "table {table}, {dataset}, {name}: {row:?}");
                    impossible.extend((!possible).then(|| format!("{dataset} {name}")));
                }
            }
        }
        assert_eq!(impossible, ["WikiMEL DRIN", "WikiDiverse DRIN"]);
    }

    #[test]
    fn the_bounds_are_those_of_rankings() {
        let metrics = |ranks: [usize; 3]| {
            let mean = |value: &dyn Fn(f64) -> f64| ranks.iter().map(|rank| value(*rank as f64)).sum::<f64>() / 3.0;
            let hits = [1.0, 2.0, 3.0].map(|k| 100.0 * mean(&|rank| if rank <= k { 1.0 } else { 0.0 }));
            (100.0 * mean(&|rank| 1.0 / rank), bounds(hits, mean(&|rank| rank), 6).unwrap())
        };
        // Every way to rank three mentions in lists of 6 lies within.
        for way in 0..6usize.pow(3) {
            let ranks = [way % 6, way / 6 % 6, way / 36].map(|place| place + 1);
            let (reciprocal, (low, high)) = metrics(ranks);
            assert!(low <= reciprocal && reciprocal <= high, "{ranks:?}: {low} {reciprocal} {high}");
        }
        // Neighbouring ranks are at the lower end, the first and last of the rest at the upper one, but for roundings.
        // MR off by 0.005 is worth 0.5 / 20 percent of MRR at the line through 4 and 5, and hits are worth less.
        for (ranks, lowest, highest) in [([4, 5, 5], true, false), ([5, 6, 6], true, false), ([4, 6, 6], false, true)] {
            let (reciprocal, (low, high)) = metrics(ranks);
            assert_eq!((reciprocal - low < 0.04, high - reciprocal < 0.04), (lowest, highest), "{ranks:?}");
        }
        assert_eq!(bounds([0.0, 0.0, 0.0], 3.9, 6), None);
        assert_eq!(bounds([0.0, 0.0, 50.0], 4.6, 6), None);
    }

    #[test]
    fn an_average_and_a_row_contradict_what_else_is_printed() {
        let paper = Paper::built_in().unwrap();
        let row = |table, dataset| paper.lookup(table, dataset, "FissFuse").unwrap();
        let average = row(3, "Avg.");
        let [a, b] = DATASETS.map(|(dataset, _)| row(3, dataset).reciprocal.unwrap());
        assert!((average.reciprocal.unwrap() - (a + b) / 2.0).abs() > 2.0 * OFF && average.impossible.is_some());
        let printed = |row: &Printed| Printed { contradicts: None, ..row.clone() };
        for (dataset, same) in [("WikiMEL", true), ("WikiDiverse", false)] {
            let rows = [row(2, dataset), row(3, dataset)];
            assert_eq!(printed(rows[0]) == printed(rows[1]), same, "{dataset}");
            assert!(rows.iter().all(|row| row.contradicts.is_none() == same), "{dataset}");
        }
    }

    #[test]
    fn a_row_is_found_by_its_printed_name_and_nothing_by_another() {
        let paper = Paper::built_in().unwrap();
        let row = paper.lookup(3, "WikiDiverse", "(b) w/o Fusion branch").unwrap();
        let want = [72.67, 88.36, 93.49, 1.53, 83.58].map(Some);
        assert_eq!([row.hits1, row.hits2, row.hits3, row.mean_rank, row.reciprocal], want);
        let genre = paper.lookup(2, "WikiMEL", "GENRE").unwrap();
        assert_eq!((genre.hits1, genre.hits2, genre.reciprocal), (Some(60.1), None, None));
        for (table, dataset, row) in [(1, "WikiMEL", "CLIP"), (2, "Twitter", "CLIP"), (3, "WikiMEL", "CLIP")] {
            assert_eq!(paper.lookup(table, dataset, row), None);
        }
    }
}
