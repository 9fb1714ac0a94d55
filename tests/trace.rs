//! `--trace`: files that are whole and true whatever ends the command, and results that are the same with and without.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use fissfuse::llama::{Precision, Preset, write_random};
use serde_json::{Value, json};

use crate::kar::server::Server;
use crate::support::{World, fissfuse, fissfuse_on_cusim, launches_on_cusim, refuse, refused, run};

/// A span of a trace, in nanoseconds.
#[derive(Clone, Debug)]
struct Span {
    name: String,
    place: (u64, u64),
    start: u64,
    end: u64,
    step: u64,
}

struct Trace {
    spans: Vec<Span>,
    other: Value,
    /// Names of threads and processes.
    named: Vec<(String, u64, u64, String)>,
}

const HOST: u64 = 1;
const DEVICE: u64 = 2;

impl Trace {
    /// Reads a file, of which everything must be as Chrome's format says, and on each thread spans must lie one in the
    /// other or one after the other.
    fn read(path: &Path) -> Trace {
        let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let (mut spans, mut named) = (Vec::new(), Vec::new());
        for event in file["traceEvents"].as_array().unwrap() {
            let place = (event["pid"].as_u64().unwrap(), event["tid"].as_u64().unwrap());
            let name = event["name"].as_str().unwrap().to_string();
            match event["ph"].as_str().unwrap() {
                "M" => named.push((name, place.0, place.1, event["args"]["name"].as_str().unwrap().to_string())),
                "X" => {
                    // Microseconds with three places: whole nanoseconds.
                    let [ts, dur] = ["ts", "dur"].map(|key| (1e3 * event[key].as_f64().unwrap()).round() as u64);
                    let step = event["args"]["step"].as_u64().unwrap();
                    spans.push(Span { name, place, start: ts, end: ts + dur, step });
                }
                other => panic!("an event of kind {other}"),
            }
        }
        assert!(!spans.is_empty());
        let trace = Trace { spans, other: file["otherData"].clone(), named };
        trace.assert_nested();
        trace
    }

    fn assert_nested(&self) {
        let mut of_thread: BTreeMap<(u64, u64), Vec<&Span>> = BTreeMap::new();
        self.spans.iter().for_each(|span| of_thread.entry(span.place).or_default().push(span));
        for (place, mut spans) in of_thread {
            let has_name =
                |kind: &str, tid: u64| self.named.iter().any(|n| n.0 == kind && (n.1, n.2) == (place.0, tid));
            assert!(has_name("process_name", 0) && has_name("thread_name", place.1), "{place:?} has no name");
            spans.sort_by_key(|span| (span.start, std::cmp::Reverse(span.end)));
            let mut open: Vec<&Span> = Vec::new();
            for span in spans {
                while open.last().is_some_and(|outer| outer.end <= span.start) {
                    open.pop();
                }
                if let Some(outer) = open.last() {
                    assert!(span.end <= outer.end, "{span:?} ends behind {outer:?}, in which it begins");
                }
                open.push(span);
            }
        }
    }

    fn calls(&self, process: u64, name: &str) -> usize {
        self.spans.iter().filter(|span| span.place.0 == process && span.name == name).count()
    }

    fn names(&self, process: u64) -> BTreeSet<&str> {
        self.spans.iter().filter(|span| span.place.0 == process).map(|span| span.name.as_str()).collect()
    }

    /// Wants spans of each of these names on the host.
    fn expect(&self, names: &[&str]) {
        let found = self.names(HOST);
        names.iter().for_each(|name| assert!(found.contains(name), "no {name} in {found:?}"));
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", errors(output));
}

/// The bits that a run of the world's training leaves.
fn bits(world: &World, out: &str) -> [Vec<u8>; 2] {
    ["best.safetensors", "last.safetensors"].map(|file| fs::read(world.path(out).join(file)).unwrap())
}

/// `fissfuse train` of two epochs of three steps into a folder.
fn train(world: &World, out: &str) -> Vec<&'static str> {
    let mut args = world.train();
    let at = args.iter().position(|arg| *arg == "--out").unwrap();
    args[at + 1] = world.arg(out);
    args.extend(["--epochs", "2", "--dropout", "0.2"]);
    args
}

#[test]
fn a_trained_model_has_the_same_bits_and_its_steps_lie_in_the_trace() {
    let world = World::encoded();
    let cpu = ["--device", "cpu"];
    done(&run(&[&train(&world, "plain")[..], &cpu].concat()));
    let traced = run(&[&train(&world, "traced")[..], &cpu, &["--trace", world.arg("trace.json")]].concat());
    done(&traced);
    assert_eq!(bits(&world, "traced"), bits(&world, "plain"));
    let trace = Trace::read(&world.path("trace.json"));
    trace.expect(&["validation", "checkpoint", "losses of the step before", "project forward", "project backward"]);
    for name in ["training step", "batch", "forward", "backward", "optimizer", "cross_entropy backward"] {
        assert_eq!(trace.calls(HOST, name), 6, "{name}");
    }
    assert_eq!((trace.other["steps"].as_u64(), trace.other["spans left out"].as_u64()), (Some(6), Some(0)));
    let summary = errors(&traced);
    let row = summary
        .lines()
        .find(|line| line.trim_start().starts_with("training step"))
        .unwrap_or_else(|| panic!("{summary}"));
    assert_eq!(row.split_whitespace().nth(3), Some("6"), "{row}");
    // Within each step lie its phases.
    let of = |name: &str| trace.spans.iter().filter(|span| span.name == name).cloned().collect::<Vec<_>>();
    for (step, forward) in of("training step").iter().zip(of("forward")) {
        assert!(step.start <= forward.start && forward.end <= step.end, "{step:?} {forward:?}");
    }
    let last = ["--trace", world.arg("last.json"), "--trace-steps", "2"];
    done(&run(&[&train(&world, "again")[..], &cpu, &last].concat()));
    let trace = Trace::read(&world.path("last.json"));
    assert_eq!(trace.calls(HOST, "training step"), 2);
    assert!(trace.spans.iter().all(|span| span.step > 4) && trace.other["spans left out"].as_u64() > Some(20));
}

#[test]
fn a_device_has_a_track_of_its_own_and_the_same_results() {
    let world = World::encoded();
    let cuda = ["--device", "cuda", "--arithmetic", "f32"];
    let on = |out: &str, more: &[&str], environment: &[(&str, &str)]| {
        fissfuse_on_cusim(&[&train(&world, out)[..], &cuda, more].concat(), environment)
    };
    done(&on("plain", &[], &[("CUSIM_ASYNC", "late")]));
    let traced = on("traced", &["--trace", world.arg("trace.json")], &[("CUSIM_ASYNC", "late")]);
    done(&traced);
    assert_eq!(bits(&world, "traced"), bits(&world, "plain"));
    let trace = Trace::read(&world.path("trace.json"));
    for name in ["training step", "forward", "backward", "optimizer"] {
        assert_eq!((trace.calls(HOST, name), trace.calls(DEVICE, name)), (6, 6), "{name}");
    }
    let of_operations = |process| trace.names(process).into_iter().filter(|name| name.ends_with(" backward"));
    assert!(of_operations(HOST).count() > 5);
    for name in of_operations(HOST) {
        assert_eq!(trace.calls(DEVICE, name), trace.calls(HOST, name), "{name}");
    }
    assert!(trace.named.iter().any(|named| named.1 == DEVICE && named.3.starts_with("cuda:0")), "{:?}", trace.named);
    assert!(errors(&traced).contains("cuda:0"), "{}", errors(&traced));
    // What is recorded as a graph runs as a whole.
    done(&on("graph", &["--graph", "--trace", world.arg("graph.json")], &[]));
    assert_eq!(bits(&world, "graph"), bits(&world, "plain"));
    let trace = Trace::read(&world.path("graph.json"));
    assert_eq!((trace.calls(DEVICE, "training step"), trace.calls(DEVICE, "forward")), (6, 0));
}

#[test]
fn of_a_device_that_fails_the_finished_part_is_written() {
    let world = World::encoded();
    let args = ["--device", "cuda", "--trace", world.arg("trace.json")];
    let all = launches_on_cusim(&[&train(&world, "counted")[..], &args[..2]].concat());
    let middle = format!("ecc:{}", all / 2);
    let failed = fissfuse_on_cusim(&[&train(&world, "model")[..], &args].concat(), &[("CUSIM_FAIL", &middle)]);
    refused(&failed, &["failing"]);
    let trace = Trace::read(&world.path("trace.json"));
    assert!(trace.calls(HOST, "training step") > 0 && trace.calls(DEVICE, "forward") > 0, "{:?}", trace.names(HOST));
}

/// Waits for something that a child does.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn terminate(id: u32) {
    assert!(Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_in_the_middle_of_training_leaves_the_trace_of_what_was_done() {
    let world = World::encoded();
    let long = ["--epochs", "100000", "--trace", world.arg("trace.json"), "--trace-steps", "30"];
    let args = [&world.train()[..], &long].concat();
    let child = fissfuse(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let log = world.path("model/train.jsonl");
    until("twelve epochs", || fs::read_to_string(&log).is_ok_and(|text| text.lines().count() >= 12));
    assert!(!world.path("trace.json").exists());
    terminate(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + 15), "{}", errors(&output));
    let trace = Trace::read(&world.path("trace.json"));
    assert_eq!(trace.calls(HOST, "training step"), 30);
    assert!(trace.calls(HOST, "checkpoint") > 0);
}

#[test]
fn a_trace_that_cannot_be_written_is_refused_before_anything_starts() {
    let world = World::encoded();
    fs::create_dir(world.path("folder")).unwrap();
    fs::write(world.path("file"), "").unwrap();
    for (path, says) in [
        ("folder", "is a folder"),
        ("file/trace.json", "Not a directory"),
        ("data/train.jsonl", "--trace is a file of --data"),
        ("model", "are one file"),
        ("model/best.safetensors", "--trace is a file of --out, which is written"),
        ("model/train.jsonl", "--trace is a file of --out, which is written"),
        ("features/manifest.json", "--trace is a file of --features, which is read"),
    ] {
        refuse(&[&world.train()[..], &["--trace", world.arg(path)]].concat(), &[path, says]);
    }
    let encode = crate::support::replace(world.encode(), "--out", world.arg("other"));
    refuse(&[&encode[..], &["--trace", world.arg("folder")]].concat(), &["is a folder"]);
    for (path, says) in [("other/manifest.json", "a file of --out"), ("encoder/config.json", "a file of --encoder")] {
        refuse(&[&encode[..], &["--trace", world.arg(path)]].concat(), &[path, says]);
    }
    refuse(&[&world.link()[..], &["--trace", world.arg("folder")]].concat(), &["is a folder"]);
    assert!(!world.path("model").exists() && !world.path("other").exists(), "work was begun");
    let no_steps = [&world.train()[..], &["--trace", world.arg("t.json"), "--trace-steps", "0"]].concat();
    assert_eq!(run(&no_steps).status.code(), Some(2));
}

#[test]
fn encoding_and_linking_say_what_they_did() {
    let world = World::trained().copy();
    let encode = crate::support::replace(world.encode(), "--out", world.arg("other"));
    done(&run(&[&encode[..], &["--device", "cpu", "--trace", world.arg("encode.json")]].concat()));
    let trace = Trace::read(&world.path("encode.json"));
    trace.expect(&[
        "tokens",
        "read image",
        "decode image",
        "preprocess image",
        "forward of texts",
        "forward of images",
        "store",
    ]);
    // Of twelve pictures of entities, each once.
    assert_eq!((trace.calls(HOST, "decode image"), trace.calls(HOST, "read image")), (12, 12));
    let shards = |folder: &str| {
        let files = fs::read_dir(world.path(folder)).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.is_file()).collect();
        files.sort();
        files
            .iter()
            .map(|path| (path.file_name().unwrap().to_owned(), fs::metadata(path).unwrap().len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(shards("other"), shards("features"));
    world.write_lines("asked.jsonl", &[World::mention("test", 0), World::mention("test", 1)]);
    let link = [&world.link()[..], &["--device", "cpu", "--input", world.arg("asked.jsonl")]].concat();
    let (plain, traced) = (run(&link), run(&[&link[..], &["--trace", world.arg("link.json")]].concat()));
    done(&traced);
    assert_eq!(traced.stdout, plain.stdout);
    let trace = Trace::read(&world.path("link.json"));
    for name in ["mention", "encode mention", "score", "rank", "forward of texts", "forward of images"] {
        assert_eq!(trace.calls(HOST, name), 2, "{name}");
    }
    // The second line is wrong: what was done before is in the trace.
    fs::write(world.path("asked.jsonl"), format!("{}\nno JSON\n", World::mention("test", 0))).unwrap();
    refused(&run(&[&link[..], &["--trace", world.arg("failed.json")]].concat()), &["asked.jsonl:2"]);
    assert_eq!(Trace::read(&world.path("failed.json")).calls(HOST, "mention"), 1);
}

#[test]
fn a_signal_to_a_linker_that_waits_for_mentions_ends_it_at_once_with_its_trace() {
    let world = World::trained().copy();
    let args = [&world.link()[..], &["--device", "cpu", "--trace", world.arg("trace.json")]].concat();
    let mut child =
        fissfuse(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "{}", World::mention("test", 0)).unwrap();
    let mut answer = String::new();
    let mut answers = std::io::BufReader::new(child.stdout.as_mut().unwrap());
    std::io::BufRead::read_line(&mut answers, &mut answer).unwrap();
    assert!(answer.contains("test-0"), "{answer}");
    terminate(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(15), "{}", errors(&output));
    assert_eq!(Trace::read(&world.path("trace.json")).calls(HOST, "mention"), 1);
    drop(input);
}

#[test]
fn questions_to_a_llama_and_to_a_server_are_in_the_trace() {
    let world = World::new();
    write_random(&world.path("llama"), &Preset::Tiny.config(), Precision::F32, 3, ["A ball: B or C."].into_iter())
        .unwrap();
    let ranked =
        |i: usize| json!({"mention_id": format!("test-{i}"), "candidates": World::mention("test", i)["candidates"]});
    world.write_lines("run.jsonl", &(0..10).map(ranked).collect::<Vec<_>>());
    let rerank = |out: &str, more: &[&str]| {
        let out = world.path(out).display().to_string();
        let args = ["rerank", "--data", world.arg("data"), "--ranking", world.arg("run.jsonl"), "--out", &out];
        done(&run(&[&args[..], more].concat()));
    };
    let llama = ["--llm", world.arg("llama"), "--device", "cpu", "--scoring", "generate", "--max-new-tokens", "3"];
    rerank("plain.jsonl", &llama);
    rerank("traced.jsonl", &[&llama[..], &["--trace", world.arg("llama.json")]].concat());
    assert_eq!(fs::read(world.path("traced.jsonl")).unwrap(), fs::read(world.path("plain.jsonl")).unwrap());
    Trace::read(&world.path("llama.json")).expect(&["questions", "tokens", "prefill", "decode step", "journal"]);
    let server = Server::new([]);
    let endpoint = ["--endpoint", &server.url, "--model", "m", "--trace", world.arg("server.json")];
    rerank("served.jsonl", &endpoint);
    let trace = Trace::read(&world.path("server.json"));
    assert_eq!((trace.calls(HOST, "question"), trace.calls(HOST, "HTTP")), (10, 10));
}

#[test]
fn ranges_are_told_to_nvtx_where_it_is_installed() {
    let world = World::trained().copy();
    let source = world.path("nvtx.cpp");
    fs::write(
        &source,
        "#include <cstdio>\n#include <cstdlib>\n\
         static void say(const char *what, const char *name) {\n\
         FILE *out = fopen(getenv(\"NVTX_SAID\"), \"a\"); fprintf(out, \"%s %s\\n\", what, name); fclose(out); }\n\
         extern \"C\" int nvtxRangePushA(const char *name) { say(\"push\", name); return 0; }\n\
         extern \"C\" int nvtxRangePop() { say(\"pop\", \"\"); return 0; }\n",
    )
    .unwrap();
    let compiler = std::env::var("NVCC_CCBIN").unwrap_or_else(|_| "g++".into());
    let library = world.path("libnvToolsExt.so.1");
    let made = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(made.expect("a C++ compiler, as nvcc needs one").success());
    world.write_lines("asked.jsonl", &[World::mention("test", 0)]);
    let link = [&world.link()[..], &["--device", "cpu", "--input", world.arg("asked.jsonl")]].concat();
    let said = |more: &[&str]| {
        let mut command = fissfuse(&[&["--threads", "1"], &link[..], more].concat());
        command.env("LD_LIBRARY_PATH", library.parent().unwrap()).env("NVTX_SAID", world.path("said"));
        done(&command.output().unwrap());
        fs::read_to_string(world.path("said")).unwrap_or_default()
    };
    assert_eq!(said(&[]), "", "ranges without a trace");
    let said = said(&["--trace", world.arg("trace.json")]);
    let pushes: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("push ")).collect();
    assert!(["mention", "score", "decode image"].iter().all(|name| pushes.contains(name)), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("pop")).count(), pushes.len(), "{said}");
    assert_eq!(pushes.len(), Trace::read(&world.path("trace.json")).spans.len());
}
