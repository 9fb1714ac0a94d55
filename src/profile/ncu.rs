//! Counts of cusim beside those of a profiler, under the names that Nsight Compute gives them.
//!
//! cusim counts PTX instructions, a profiler those that the card ran: products that the compiler fused or unrolled differ, bytes
//! and FLOPs of tensor cores must not.

use std::collections::BTreeMap;
use std::path::Path;

use super::counts::{KernelCount, Work};
use crate::error::{Error, Result};
use crate::files::read_text;

/// How a metric of several launches becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// Added.
    Sum,
    /// Averaged.
    Mean,
}

/// A metric: its name, how launches are put together, and what cusim counts of it.
struct Metric {
    name: &'static str,
    over: Over,
    of: fn(&Work) -> f64,
}

fn operations(work: &Work, kind: &str) -> f64 {
    work.operations.get(kind).copied().unwrap_or(0) as f64
}

const fn sum(name: &'static str, of: fn(&Work) -> f64) -> Metric {
    Metric { name, over: Over::Sum, of }
}

const fn mean(name: &'static str, of: fn(&Work) -> f64) -> Metric {
    Metric { name, over: Over::Mean, of }
}

const METRICS: [Metric; 16] = [
    sum("smsp__inst_executed.sum", |w| w.warp_instructions as f64),
    mean("smsp__thread_inst_executed_per_inst_executed.ratio", |w| w.active_lanes),
    sum("l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum", |w| w.global_load.sectors as f64),
    sum("l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum", |w| w.global_store.sectors as f64),
    mean("smsp__sass_average_data_bytes_per_sector_mem_global_op_ld.pct", |w| 100.0 * w.global_load.efficiency()),
    mean("smsp__sass_average_data_bytes_per_sector_mem_global_op_st.pct", |w| 100.0 * w.global_store.efficiency()),
    sum("l1tex__data_pipe_lsu_wavefronts_mem_shared_op_ld.sum", |w| w.shared_load.wavefronts as f64),
    sum("l1tex__data_pipe_lsu_wavefronts_mem_shared_op_st.sum", |w| w.shared_store.wavefronts as f64),
    sum("l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum", |w| {
        (w.shared_load.wavefronts - w.shared_load.ideal_wavefronts) as f64
    }),
    sum("l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_st.sum", |w| {
        (w.shared_store.wavefronts - w.shared_store.ideal_wavefronts) as f64
    }),
    sum("smsp__sass_thread_inst_executed_op_fadd_pred_on.sum", |w| operations(w, "f32_add")),
    sum("smsp__sass_thread_inst_executed_op_fmul_pred_on.sum", |w| operations(w, "f32_mul")),
    sum("smsp__sass_thread_inst_executed_op_ffma_pred_on.sum", |w| operations(w, "f32_fma") / 2.0),
    sum("sm__ops_path_tensor_src_fp16_dst_fp32.sum", |w| operations(w, "tensor_f16")),
    sum("sm__ops_path_tensor_src_bf16_dst_fp32.sum", |w| operations(w, "tensor_bf16")),
    sum("sm__ops_path_tensor_src_tf32_dst_fp32.sum", |w| operations(w, "tensor_tf32")),
];

/// Names of the metrics, as `ncu --metrics` takes them.
pub fn metric_names() -> impl Iterator<Item = &'static str> {
    METRICS.iter().map(|metric| metric.name)
}

/// What cusim counted, by the metrics' names.
pub fn of_counts(work: &Work) -> impl Iterator<Item = (&'static str, f64)> + '_ {
    METRICS.iter().map(|metric| (metric.name, (metric.of)(work)))
}

/// A kernel's metrics in a profiler's page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profiled {
    /// Launches that were profiled.
    pub launches: u64,
    /// Values by name, of all launches together.
    pub metrics: BTreeMap<String, f64>,
}

/// Reads what `ncu --csv --page raw` printed, by kernel; other lines of its output are passed over.
pub fn read(path: &Path) -> Result<BTreeMap<String, Profiled>> {
    let text = read_text(path)?;
    let invalid = |reason: String| Error::file(path, reason);
    let lines = text.lines().skip_while(|line| !line.starts_with("\"ID\"")).filter(|line| line.starts_with('"'));
    let page = lines.collect::<Vec<_>>().join("\n");
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(page.as_bytes());
    let header = reader.headers().map_err(|e| invalid(e.to_string()))?.clone();
    let Some(name) = header.iter().position(|column| column == "Kernel Name") else {
        return Err(invalid("has no column `Kernel Name`: it must come from `ncu --csv --page raw`".into()));
    };
    let known: Vec<(usize, &Metric)> = header
        .iter()
        .enumerate()
        .filter_map(|(at, column)| Some((at, METRICS.iter().find(|metric| metric.name == column)?)))
        .collect();
    if known.is_empty() {
        let names: Vec<&str> = metric_names().collect();
        return Err(invalid(format!(
            "has none of the metrics that cusim counts: take ncu --metrics {}",
            names.join(",")
        )));
    }
    let mut kernels: BTreeMap<String, Profiled> = BTreeMap::new();
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|e| invalid(e.to_string()))?;
        let kernel = record.get(name).unwrap_or_default();
        // The first row has the units.
        if kernel.is_empty() {
            continue;
        }
        // Arguments and templates follow the name, where the profiler knows them.
        let kernel = kernel.split(['(', '<']).next().unwrap_or(kernel).trim();
        let profiled = kernels.entry(kernel.to_string()).or_default();
        profiled.launches += 1;
        for (at, metric) in &known {
            let cell = record.get(*at).unwrap_or_default();
            let value: f64 = cell
                .replace(',', "")
                .parse()
                .map_err(|_| invalid(format!("row {}: {} of {kernel} is `{cell}`, no number", row + 1, metric.name)))?;
            let all = profiled.metrics.entry(metric.name.into()).or_default();
            match metric.over {
                Over::Sum => *all += value,
                Over::Mean => *all += (value - *all) / profiled.launches as f64,
            }
        }
    }
    if kernels.is_empty() { Err(invalid("holds no kernel".into())) } else { Ok(kernels) }
}

/// A metric that both have.
#[derive(Clone, Debug, PartialEq)]
pub struct Both {
    /// The kernel.
    pub kernel: String,
    /// Launches that the profiler saw; what cusim counted is scaled to as many.
    pub launches: u64,
    /// The metric's name.
    pub metric: &'static str,
    /// What cusim counted.
    pub counted: f64,
    /// What the profiler measured.
    pub profiled: f64,
}

/// Kernels that both have, metric by metric, and the names of those that only one has.
pub fn compare(counts: &[KernelCount], profiled: &BTreeMap<String, Profiled>) -> (Vec<Both>, Vec<String>) {
    let mut both = Vec::new();
    for kernel in counts {
        let Some(profile) = profiled.get(&kernel.kernel) else { continue };
        let share = profile.launches as f64 / kernel.launches.max(1) as f64;
        for metric in &METRICS {
            let Some(measured) = profile.metrics.get(metric.name) else { continue };
            let counted = (metric.of)(&kernel.work) * if metric.over == Over::Sum { share } else { 1.0 };
            let (kernel, launches) = (kernel.kernel.clone(), profile.launches);
            both.push(Both { kernel, launches, metric: metric.name, counted, profiled: *measured });
        }
    }
    let only_counted = counts.iter().map(|k| &k.kernel).filter(|name| !profiled.contains_key(*name));
    let only_profiled = profiled.keys().filter(|name| counts.iter().all(|k| &k.kernel != *name));
    let only = only_counted.map(|name| format!("{name} (counted only)"));
    (both, only.chain(only_profiled.map(|name| format!("{name} (profiled only)"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "==PROF== Connected\n\
        \"ID\",\"Kernel Name\",\"l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum\",\
        \"smsp__thread_inst_executed_per_inst_executed.ratio\",\"gpu__time_duration.sum\"\n\
        \"\",\"\",\"sector\",\"\",\"ns\"\n\
        \"0\",\"score(Args)\",\"1,000\",\"30\",\"5\"\n\
        \"1\",\"score(Args)\",\"3,000\",\"32\",\"5\"\n\
        \"2\",\"other\",\"7\",\"32\",\"5\"\n\
        a line of the program\n";

    fn counts() -> Vec<KernelCount> {
        let counts = r#"[{"kernel": "score", "launches": 4, "loaded_once_bytes": 0, "stored_once_bytes": 0,
            "loaded_by_wave_bytes": 0, "warp_instructions": 5, "flops": 0, "operations": {"tensor_bf16": 8},
            "active_lanes": 31.0, "global_load": {"bytes": 1, "sectors": 8000}, "global_store": {"bytes": 0, "sectors": 0},
            "shared_load": {"wavefronts": 3, "ideal_wavefronts": 2}, "shared_store": {"wavefronts": 0, "ideal_wavefronts": 0},
            "local_bytes": 0}]"#;
        serde_json::from_str(counts).unwrap()
    }

    fn page(text: &str) -> Result<BTreeMap<String, Profiled>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("page.csv");
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn launches_are_added_or_averaged_and_counts_scaled_to_them() {
        let profiled = page(PAGE).unwrap();
        assert_eq!(profiled["score"].launches, 2);
        let (both, only) = compare(&counts(), &profiled);
        let values: Vec<_> = both.iter().map(|row| (row.counted, row.profiled)).collect();
        assert_eq!(values, [(31.0, 31.0), (4000.0, 4000.0)]);
        assert_eq!(only, ["other (profiled only)"]);
        let named: BTreeMap<_, _> = of_counts(&counts()[0].work).collect();
        assert_eq!(named["l1tex__data_bank_conflicts_pipe_lsu_mem_shared_op_ld.sum"], 1.0);
        assert_eq!(named["sm__ops_path_tensor_src_bf16_dst_fp32.sum"], 8.0);
    }

    #[test]
    fn a_page_that_cannot_be_compared_says_what_it_lacks() {
        for (wrong, says) in [
            ("", "Kernel Name"),
            ("\"ID\",\"Kernel Name\",\"gpu__time_duration.sum\"\n", "ncu --metrics smsp__inst_executed.sum,"),
            (
                &PAGE.replace("\"3,000\"", "\"n/a\""),
                "row 3: l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum of score is `n/a`",
            ),
            (&PAGE[..PAGE.find("\"0\"").unwrap()], "holds no kernel"),
        ] {
            let error = page(wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
