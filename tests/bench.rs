//! `fissfuse-bench`: settings do what they say, and what cannot be measured is refused.

use std::process::Output;

use fissfuse::profile::Timing;
use fissfuse::profile::counts::Counts;
use fissfuse::profile::measurement::{Measurement, Measurements};
use serde_json::Value;

use crate::support::{World, cusim, fissfuse_bench, refused};

pub fn bench(args: &[&str]) -> Output {
    fissfuse_bench().args(args).output().unwrap()
}

pub fn json(args: &[&str]) -> Value {
    let output = bench(&[args, &["--output", "json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn latency_measures_what_it_is_asked_for() {
    let small = ["latency", "--entities", "20", "--d", "8", "--device", "cpu", "--runs", "2"];
    let rows = |more: &[&str]| json(&[&small[..], more].concat())["results"].as_array().unwrap().clone();
    let row = |rows: &[Value]| {
        let number = |value: &Value| value.as_u64().unwrap();
        let of = |r: &Value| {
            [&r["parameters"]["mentions"], &r["parameters"]["candidates"], &r["seconds"]["runs"]].map(number)
        };
        rows.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(row(&rows(&["--mentions", "3,3"])), [[3, 10, 2]], "a value is a row once");
    assert_eq!(row(&rows(&["--mentions", "2-4*2", "--preset", "wikimel"])), [[2, 100, 2], [4, 100, 2]]);
    for wrong in [&["--mentions", "0"][..], &["--mentions", "3-2"], &["--runs", "0"], &["--load", "5"]] {
        assert_eq!(bench(&[&small[..], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_device_says_what_scoring_is_made_of() {
    let library = cusim();
    let parts = |device: &str, more: &str| {
        let mut bench = fissfuse_bench();
        bench.args(["latency", "--device", device, "--entities", "20", "--d", "8", "--mentions", "2", "--runs", "3"]);
        bench.args(["--prepared", more, "--warmup", "1", "--output", "json"]).env("LD_LIBRARY_PATH", library.path());
        let run: Value = serde_json::from_slice(&bench.output().unwrap().stdout).unwrap();
        let names = |row: &Value| {
            let parts = row["parts"].as_object().unwrap();
            assert!(parts.values().all(|part| part["runs"] == 3 && part["min"].as_f64().unwrap() >= 0.0), "{parts:?}");
            parts.keys().cloned().collect::<Vec<_>>()
        };
        run["results"].as_array().unwrap().iter().map(names).collect::<Vec<_>>()
    };
    let of_device = ["enqueue", "copy in", "device"];
    let mentions = ["features in", "prepare mentions", "score"];
    let cold = ["features in", "prepare mentions", "prepare candidates", "score"].map(String::from).to_vec();
    let together = |parts: &[&[&str]]| parts.concat().into_iter().map(String::from).collect::<Vec<_>>();
    let as_one = ["features in", "prepare and score"];
    let all = [together(&[&as_one, &of_device]), cold.clone(), together(&[&["score"], &of_device])];
    assert_eq!(parts("cuda", "--cold"), all);
    assert_eq!(parts("cpu", "--cold"), [together(&[&mentions]), cold, together(&[&["score"]])]);
    // What stays is not launched.
    assert_eq!(parts("cuda", "--resident=5"), [together(&[&mentions]), together(&[&["score"]])]);
}

#[test]
fn flops_are_those_of_the_encoder_that_is_named() {
    let world = World::new();
    let of = |args: &[&str]| json(&[&["flops", "--mentions", "2", "--d", "8"], args].concat());
    let texts = |args: &[&str]| {
        let run = of(args);
        let row = run["results"].as_array().unwrap().iter().find(|row| row["name"] == "encoder, texts of a sample");
        row.unwrap()["figures"]["textbook_flops"].as_f64().unwrap()
    };
    assert!(texts(&["--encoder", world.arg("encoder")]) < texts(&[]));
    // A textbook pads to the longest text that is read, and no further than the encoder goes.
    assert!(texts(&["--max-tokens", "64"]) < texts(&["--max-tokens", "77"]));
    assert_eq!(texts(&["--max-tokens", "77"]), texts(&["--max-tokens", "300"]));
    let config = world.path("encoder/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replacen("\"clip\"", "\"bert\"", 1)).unwrap();
    refused(&bench(&["flops", "--encoder", world.arg("encoder")]), &["config.json", "model_type `bert`"]);
}

#[test]
fn nothing_to_measure_is_an_error() {
    let world = World::new();
    assert_eq!(bench(&["encode"]).status.code(), Some(2));
    std::fs::write(world.path("texts"), "\n \n").unwrap();
    let texts = ["encode", "--texts", world.arg("texts")];
    assert_eq!(bench(&texts).status.code(), Some(2));
    let encode = [&texts[..], &["--text-encoder", world.arg("encoder")]].concat();
    refused(&bench(&encode), &["texts: holds no text"]);
    std::fs::write(world.path("counts.json"), r#"{"kernels": []}"#).unwrap();
    for command in ["kernels", "flops"] {
        refused(&bench(&[command, "--counts", world.arg("counts.json")]), &["counts no launch"]);
    }
}

#[test]
fn one_run_has_the_same_rows_in_every_format() {
    let world = World::new();
    let step = ["step", "--device", "cpu", "--mentions", "1-2", "--d", "8,16", "--runs", "2", "--warmup", "0"];
    let printed = |format: &str| {
        let output = bench(&[&step[..], &["--output", format, "--save", world.arg("run.json")]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let saved = || Measurements::read(&world.path("run.json")).unwrap();
    let whole: Measurements = serde_json::from_str(&printed("json")).unwrap();
    assert_eq!((whole.results.clone(), whole.results.len()), (saved().results, 4));
    let parameters: Vec<_> = whole.results.iter().map(|r| (&r.parameters["mentions"], &r.parameters["d"])).collect();
    let wanted = [(1, 8), (1, 16), (2, 8), (2, 16)].map(|(a, b)| (Value::from(a), Value::from(b)));
    assert_eq!(parameters, wanted.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
    assert!(whole.results.iter().all(|r| r.seconds.as_ref().unwrap().runs() == 2));
    let lines = printed("jsonl");
    assert!(lines.lines().count() == 4 && lines.lines().all(|l| serde_json::from_str::<Value>(l).is_ok()));
    assert_eq!(printed("csv").lines().count(), 5);
    let rows = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((rows(&printed("md"), "| "), rows(&printed("table"), " 1 ")), (5, 2));
}

#[test]
fn comparisons_give_verdicts_and_codes() {
    let world = World::new();
    let step = ["step", "--device", "cpu", "--mentions", "1", "--d", "8"];
    let run = |more: &[&str]| bench(&[&step[..], more].concat());
    assert!(run(&["--runs", "12", "--save", world.arg("old.json")]).status.success());
    let against = |more: &[&str]| run(&[&["--runs", "12", "--compare", world.arg("old.json")], more].concat());
    // Old runs that took no time, an age, or were one: verdicts that no noise of this machine changes.
    let old = Measurements::read(&world.path("old.json")).unwrap();
    std::fs::write(world.path("t.toml"), "max_noise = 1e6\nclear_gap = 0.0").unwrap();
    for (samples, more, verdict, code) in [
        (vec![1e-9; 12], &[][..], "SLOW", 3),
        (vec![1e9; 12], &["--strict"], "FAST", 0),
        (vec![1e-9], &[], "AMBIGUOUS", 0),
        (vec![1e-9], &["--strict", "--explain"], "1 old runs, at least 10 are needed", 4),
    ] {
        let mut old = old.clone();
        old.results[0].seconds = Some(Timing::new(samples).unwrap());
        old.write(&world.path("old.json")).unwrap();
        let compared = against(&[&["--thresholds", world.arg("t.toml")], more].concat());
        let said = String::from_utf8_lossy(&compared.stdout).into_owned();
        assert!(said.contains(verdict) && compared.status.code() == Some(code), "{verdict} {said}");
    }
    refused(&against(&["--seed", "1"]), &["seed was 0 then and is 1 now"]);
    refused(&against(&["--candidates", "3"]), &["candidates 10", "was measured then only"]);
    let text = std::fs::read_to_string(world.path("old.json")).unwrap();
    std::fs::write(world.path("newer.json"), text.replace("\"schema\": 1", "\"schema\": 9")).unwrap();
    refused(&run(&["--compare", world.arg("newer.json")]), &["newer.json", "schema 9"]);
    std::fs::write(world.path("t.toml"), "clear_gap = 7").unwrap();
    refused(&against(&["--thresholds", world.arg("t.toml")]), &["t.toml", "clear_gap"]);
}

#[test]
fn two_programs_are_measured_in_turn() {
    let world = World::new();
    std::fs::write(world.path("t.toml"), "min_rounds = 2\nmax_rounds = 2\nconfidence = 0.5\nleast_change = 0.3")
        .unwrap();
    let this = env!("CARGO_BIN_EXE_fissfuse-bench");
    let step = ["step", "--device", "cpu", "--mentions", "1,2", "--d", "8", "--thresholds", world.arg("t.toml")];
    let compared = bench(&[&step[..], &["--interleave", this, "--output", "json"]].concat());
    let rows: Value = serde_json::from_slice(&compared.stdout).unwrap();
    let rows = rows["comparison"].as_array().unwrap().clone();
    assert_eq!(rows.iter().map(|row| row["parameters"]["mentions"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    for row in &rows {
        let (ratio, interval) = (row["ratio"].as_f64().unwrap(), &row["interval"]);
        assert!(interval[0].as_f64().unwrap() <= ratio && ratio <= interval[1].as_f64().unwrap(), "{row}");
        assert!(row["old"].as_f64().unwrap() > 0.0 && row["new"].as_f64().unwrap() > 0.0, "{row}");
    }
    let with = |program: &str| bench(&[&step[..], &["--interleave", program]].concat());
    refused(&with("/bin/false"), &["/bin/false ended while it was measured"]);
    refused(&with(world.arg("nowhere")), &["nowhere cannot be started"]);
    refused(&with("/bin/cat"), &["/bin/cat"]);
}

#[test]
fn requests_under_load_count_from_their_schedule() {
    let load = ["latency", "--device", "cpu", "--entities", "20", "--d", "8", "--mentions", "1", "--candidates", "2"];
    let load =
        [&load[..], &["--load", "40", "--load-seconds", "0.5", "--arrival", "constant", "--slo", "10000"]].concat();
    let run = json(&load);
    let row = &run["results"][0];
    assert_eq!((&row["figures"]["requests"], &row["figures"]["good_share"]), (&20.0.into(), &1.0.into()));
    let at = |part: &Value, i: usize| part["samples"][i].as_f64().unwrap();
    for i in 0..20 {
        let parts = at(&row["parts"]["queue"], i) + at(&row["parts"]["service"], i);
        assert!((at(&row["seconds"], i) - parts).abs() < 1e-6, "{row}");
    }
    let settings = run["settings"].as_object().unwrap();
    assert_eq!((&settings["load_seconds"], &settings["slo_ms"]), (&0.5.into(), &10000.0.into()));
    for wrong in [["--load", "0"], ["--load", "1e9"], ["--slo", "-1"], ["--arrival", "gamma"]] {
        assert!(!bench(&[&load[..], &wrong].concat()).status.success(), "{wrong:?}");
    }
}

#[test]
fn what_was_measured_before_a_device_failed_is_kept() {
    let (library, world) = (cusim(), World::new());
    let step = |mentions: &str, more: &[&str], variables: &[(&str, &str)]| {
        let mut bench = fissfuse_bench();
        bench.args(["step", "--device", "cuda", "--mentions", mentions, "--d", "8", "--runs", "2", "--warmup", "0"]);
        bench.args(more).env("LD_LIBRARY_PATH", library.path()).envs(variables.iter().copied()).output().unwrap()
    };
    let counts = world.arg("counts.json");
    assert!(step("1", &[], &[("CUSIM_COUNT", counts)]).status.success());
    let launches: u64 =
        Counts::read(&world.path("counts.json")).unwrap().kernels.iter().map(|kernel| kernel.launches).sum();
    // The first row's launches go well; one of the second's fails.
    let fail = format!("launch:{}", launches + 20);
    let failed = step("1,2", &["--save", world.arg("kept.json")], &[("CUSIM_FAIL", fail.as_str())]);
    refused(&failed, &["cuda:0"]);
    let kept = Measurements::read(&world.path("kept.json")).unwrap();
    assert_eq!(kept.results.iter().map(|row| &row.parameters["mentions"]).collect::<Vec<_>>(), [&Value::from(1)]);
    assert!(String::from_utf8_lossy(&failed.stdout).contains("samples/s"), "the row is printed, too");
}

#[test]
fn runs_on_a_device_have_a_clock_without_which_no_difference_is_confirmed() {
    let (library, world) = (cusim(), World::new());
    let step = |device: &str, more: &[&str]| {
        let mut bench = fissfuse_bench();
        bench.args(["step", "--device", device, "--mentions", "1", "--d", "8", "--runs", "2", "--warmup", "1"]);
        bench.args(more).env("LD_LIBRARY_PATH", library.path()).output().unwrap()
    };
    let saved = |device: &str| {
        assert!(step(device, &["--save", world.arg("run.json")]).status.success());
        Measurements::read(&world.path("run.json")).unwrap()
    };
    assert_eq!(saved("cpu").results[0].clocks_mhz, None);
    // Each launch of cusim counts its steps from the beginning: no time passes between two.
    let mut old = saved("cuda");
    assert_eq!(old.results[0].clocks_mhz, Some(vec![None, None]));
    old.results[0].seconds = Some(Timing::new(vec![1e-9; 2]).unwrap());
    old.write(&world.path("old.json")).unwrap();
    std::fs::write(world.path("t.toml"), "min_runs = 1\nmax_noise = 1000.0").unwrap();
    let compare = ["--compare", world.arg("old.json"), "--thresholds", world.arg("t.toml"), "--explain", "--strict"];
    let output = step("cuda", &[&compare[..], &["--output", "json"]].concat());
    assert_eq!(output.status.code(), Some(4));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &found["comparison"][0];
    assert_eq!(row["verdict"], "AMBIGUOUS");
    assert!(
        row["why"].as_str().unwrap().ends_with("not confirmed in cycles, since the clock is not known of each run")
    );
}

#[test]
fn counts_of_kernels_stand_beside_a_profilers() {
    let (library, world) = (cusim(), World::new());
    let counts = world.arg("counts.json");
    let mut step = fissfuse_bench();
    step.args(["step", "--device", "cuda", "--mentions", "1", "--d", "8", "--runs", "1", "--warmup", "0"]);
    assert!(step.env("LD_LIBRARY_PATH", library.path()).env("CUSIM_COUNT", counts).output().unwrap().status.success());
    let run = json(&["kernels", "--counts", counts]);
    let rows = run["results"].as_array().unwrap();
    let all = rows.iter().find(|row| row["name"] == "all").unwrap();
    let sum = |figure: &str| {
        rows.iter().filter(|row| row["name"] != "all").map(|row| row["figures"][figure].as_f64().unwrap()).sum::<f64>()
    };
    for figure in ["launches", "flops", "tensor_flops", "bytes"] {
        assert_eq!(all["figures"][figure].as_f64(), Some(sum(figure)), "{figure}");
    }
    // A page as ncu prints it, of what cusim counted: each ratio is 1 but the one that is planted.
    let own = json(&["kernels", "--counts", counts, "--metrics", "ncu"]);
    let kernel = &own["results"][0];
    let figures: Vec<(&String, f64)> =
        kernel["figures"].as_object().unwrap().iter().map(|(name, x)| (name, x.as_f64().unwrap())).collect();
    let launches = figures[0].1;
    let names: Vec<String> = figures[1..].iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let values: Vec<String> = figures[1..].iter().map(|(_, value)| format!("\"{value}\"")).collect();
    let empty = vec!["\"\""; names.len()].join(",");
    let mut page = format!("\"ID\",\"Kernel Name\",{}\n\"\",\"\",{empty}\n", names.join(","));
    let name = kernel["name"].as_str().unwrap();
    page += &format!("\"0\",\"{name}(Args)\",{}\n", values.join(","));
    std::fs::write(world.path("page.csv"), page).unwrap();
    let compared = json(&["compare-ncu", world.arg("page.csv"), "--counts", counts]);
    for row in compared["results"].as_array().unwrap() {
        let metric = row["parameters"]["metric"].as_str().unwrap();
        // The page has one launch with all of cusim's counts: sums are scaled to one launch, means are not.
        let wanted =
            if metric.ends_with(".sum") && row["figures"]["cusim"].as_f64() != Some(0.0) { launches } else { 1.0 };
        let ratio = row["figures"]["ratio"].as_f64().unwrap();
        assert!((ratio / wanted - 1.0).abs() < 1e-9, "{row}");
    }
    let lines = json(&["kernels", "--counts", counts, "--by-line", name]);
    let of_lines: f64 =
        lines["results"].as_array().unwrap().iter().map(|row| row["figures"]["flops"].as_f64().unwrap()).sum();
    let of_kernel = rows.iter().find(|row| row["name"] == name).unwrap();
    assert_eq!(of_kernel["figures"]["flops"].as_f64(), Some(of_lines));
    refused(&bench(&["kernels", "--counts", counts, "--by-line", "nothing"]), &["counts no kernel nothing", name]);
    std::fs::write(world.path("page.csv"), "==PROF== nothing\n").unwrap();
    refused(&bench(&["compare-ncu", world.arg("page.csv"), "--counts", counts]), &["page.csv", "Kernel Name"]);
}

#[test]
fn a_step_is_taken_apart_on_the_cpu_and_on_a_device_alike() {
    let world = World::new();
    let step = ["step", "--by-op", "--mentions", "3", "--candidates", "4", "--mean-tokens", "5", "--max-tokens", "9"];
    let rest = ["--patches", "4", "--d", "16", "--runs", "2", "--warmup", "1", "--output", "json", "--device"];
    let rows = |device: &str, library: &std::path::Path| {
        let mut command = fissfuse_bench();
        let output =
            command.args([&step[..], &rest, &[device]].concat()).env("LD_LIBRARY_PATH", library).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Measurements>(&output.stdout).unwrap().results
    };
    let driver = cusim();
    let (cpu, cuda) = (rows("cpu", &world.path("nowhere")), rows("cuda", driver.path()));
    for rows in [&cpu, &cuda] {
        let samples = |row: &Measurement| row.seconds.clone().unwrap().samples().to_vec();
        let (whole, rest) = rows.split_last().unwrap();
        assert_eq!((whole.name.as_str(), rest.last().unwrap().name.as_str()), ("training step", "between operations"));
        for run in 0..2 {
            let sum = |rows: &[Measurement]| rows.iter().map(|row| samples(row)[run]).sum::<f64>();
            let (operations, parts, all) = (sum(&rest[..rest.len() - 1]), sum(rest), samples(whole)[run]);
            // Events give each time as an f32, so that their sum is as exact as one.
            assert!((parts - all).abs() <= 1e-5 * all, "{parts} of {all}");
            assert!(operations > 0.0 && operations <= all * (1.0 + 1e-5), "{operations} of {all}");
        }
        let median = |row: &Measurement| row.seconds.as_ref().unwrap().p50();
        rows.iter().for_each(|row| assert_eq!(row.figures["share"], Some(median(row) / median(whole)), "{}", row.name));
    }
    let counted = |rows: &[Measurement]| {
        let row = |row: &Measurement| {
            let figures = ["calls", "flops", "bytes"].map(|figure| row.figures.get(figure).copied().flatten());
            (row.name.clone(), row.parameters["pass"].clone(), figures.map(|figure| figure.map(|f| f as u64)))
        };
        // Rows of sequences are scaled by who reads them on a device, and `project` puts their gradient together; the step has them all.
        let moved = ["project", "multi_pool", "cross_attention", "training step"];
        let (moved, alike): (Vec<_>, Vec<_>) = rows.iter().map(row).partition(|(name, ..)| moved.contains(&&**name));
        (moved, alike)
    };
    let ((moved, alike), (moved_there, alike_there)) = (counted(&cpu), counted(&cuda));
    assert_eq!(alike, alike_there);
    let flops = |rows: &[(String, Value, [Option<u64>; 3])], name: &str, pass: &str| -> f64 {
        let of = rows
            .iter()
            .filter(|(operation, of, _)| (operation == name || name.is_empty()) && (of == pass || pass.is_empty()));
        of.filter_map(|(.., [_, flops, _])| *flops).sum::<u64>() as f64
    };
    let [here, there] = [&moved, &moved_there].map(|rows| flops(rows, "", ""));
    assert!((here - there).abs() <= 0.03 * here, "{moved:?} {moved_there:?}");
    assert!(flops(&moved_there, "project", "backward") > flops(&moved, "project", "backward"));
    assert!(flops(&moved_there, "cross_attention", "backward") < flops(&moved, "cross_attention", "backward"));
    let has = |name: &str, pass: &str| cpu.iter().any(|row| row.name == name && row.parameters["pass"] == pass);
    assert!(has("project", "forward") && has("project", "backward") && has("adamw", "update"));
    assert_eq!(bench(&["step", "--by-op", "--graph"]).status.code(), Some(2));
}

#[test]
fn kernels_of_a_step_are_timed_by_the_devices_events() {
    let (library, world) = (cusim(), World::new());
    let counts = world.arg("counts.json");
    let sizes = ["--device", "cuda", "--mentions", "1", "--d", "8"];
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut bench = fissfuse_bench();
        bench.args(args).args(sizes).env("LD_LIBRARY_PATH", library.path()).envs(variables.iter().copied());
        let output = bench.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    run(&["step", "--runs", "1", "--warmup", "0"], &[("CUSIM_COUNT", counts)]);
    let timed = run(&["kernels", "--runs", "2", "--counts", counts, "--output", "json"], &[]);
    let timed: Measurements = serde_json::from_slice(&timed).unwrap();
    let counted = Counts::read(&world.path("counts.json")).unwrap().kernels;
    let launches =
        |name: &str| counted.iter().find(|kernel| kernel.kernel == name).map(|kernel| kernel.launches as f64);
    assert!(timed.results.len() > 10, "{timed:?}");
    for row in &timed.results {
        // Memory is filled by the driver, not by a kernel, so that every kernel here is one of the step.
        assert_eq!(row.figures["launches"], launches(&row.name), "{}", row.name);
        assert!(row.figures["registers"].unwrap() > 0.0, "{row:?}");
        let occupancy = row.figures["occupancy_share"].unwrap();
        assert!(occupancy > 0.0 && occupancy <= 1.0, "{row:?}");
        assert_eq!((row.seconds.as_ref().unwrap().runs(), row.parts["hot"].runs()), (2, 2));
        assert!(row.clocks_mhz.as_ref().is_some_and(|clocks| clocks.len() == 2 && clocks[0].is_some()), "{row:?}");
    }
    assert_eq!(timed.machine.gpu.unwrap().clock_mhz, 1695);
    let nothing = fissfuse_bench().args(["kernels", "--device", "cpu"]).output().unwrap();
    refused(&nothing, &["--counts FILE"]);
}
