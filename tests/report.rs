//! `fissfuse report` through the binary, and its page in a real browser.

mod browser;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fissfuse::device::Ceilings;
use fissfuse::profile::Timing;
use fissfuse::profile::measurement::Measurements;
use serde_json::{Value, json};

use self::browser::Browser;
use crate::kar::server::{Server, good};
use crate::support::{World, fissfuse, fissfuse_bench, refuse, succeed};

/// Markup, a quote and a mark that turns the direction of text, in what a dataset says.
const MARKUP: &str = "<img src=x onerror=\"document.title='taken'\"><b>'\"\u{202e}pots";

const EXPERIMENT: &str = r#"
title = "A small <i>table</i>"
seeds = [0, 1]
against = "FissFuse"
complexity = true
examples = 2
base.model.d = 16
base.train.epochs = 2
base.train.batch_size = 16
base.train.learning_rate = 1e-3
rerank = [{ name = "first", k = 3 }]

[[rows]]
name = "FissFuse"

[[rows]]
name = "<b>BERT</b>"
model.name = "bert"

[[rows]]
name = "CLIP"
model.name = "clip-projected"
"#;

/// Measurements as fissfuse-bench writes them.
fn measurements(command: &str, results: Value) -> Value {
    let ceilings = Some(Ceilings { flops_per_second: 1e11, bytes_per_second: 1e10 });
    let results = serde_json::from_value(results).unwrap();
    let run = Measurements { ceilings, results, ..Measurements::begin(command, None).unwrap() };
    serde_json::to_value(run).unwrap()
}

fn seconds(median: f64) -> Value {
    let samples: Vec<f64> = (0..40).map(|i| median * (0.8 + 0.01 * i as f64)).collect();
    json!(Timing::new(samples).unwrap())
}

/// A folder with a run of each kind, made by the program itself where it can be.
fn runs(world: &World) -> Vec<&'static str> {
    let entity = |line: usize, change: &dyn Fn(&mut Value)| world.change_line("data/entities.jsonl", line, change);
    (1..=4).for_each(|line| entity(line, &|entity| entity["name"] = json!(format!("{MARKUP} {line}"))));
    for line in 1..=10 {
        world.change_line("data/test.jsonl", line, |mention| {
            let sentence = format!("{} {MARKUP} ", mention["sentence"].as_str().unwrap());
            mention["sentence"] = json!(sentence);
        });
    }
    succeed(&world.encode());
    succeed(&[&world.train()[..], &["--epochs", "3"]].concat());
    succeed(&world.eval("eval"));
    succeed(&[&world.eval("eval-valid")[..], &["--split", "valid"]].concat());
    let server = Server::new(vec![good("B"); 64]);
    let model = ["--endpoint", server.url.clone().leak(), "--model", "m"];
    let paths =
        ["--data", world.arg("data"), "--ranking", world.arg("eval/run.jsonl"), "--out", world.arg("eval/kar.jsonl")];
    let report = ["--report", world.arg("eval/kar.json")];
    succeed(&[&["rerank"][..], &paths, &report, &model].concat());
    fs::write(world.path("small.toml"), EXPERIMENT).unwrap();
    let paths = ["--data", world.arg("data"), "--features", world.arg("features"), "--out", world.arg("table")];
    succeed(&[&["experiment", world.arg("small.toml")][..], &paths, &model].concat());
    // One image is gone since the features were made of it.
    fs::remove_file(world.path("data/images/blue-ball.png")).unwrap();

    let counted = |name: &str, flops: f64, seconds: Value| json!({"name": name, "seconds": seconds, "figures": {"flops": flops, "bytes": 1e6}});
    let kernels = json!([
        counted("mlp", 1e8, seconds(2e-3)),
        counted("gather_<x>", 1e5, Value::Null),
        counted("copy", 0.0, Value::Null)
    ]);
    fs::create_dir_all(world.path("bench")).unwrap();
    fs::write(world.path("bench/kernels.json"), measurements("kernels", kernels).to_string()).unwrap();
    let small = ["--device", "cpu", "--mentions", "2", "--d", "8", "--runs", "6", "--warmup", "1", "--save"];
    let measured: [(&[&str], _); 3] =
        [(&["step", "--by-op"], "step"), (&["latency", "--entities", "20"], "latency"), (&["ops", "dropout"], "ops")];
    for (command, name) in measured {
        let sizes = if name == "ops" { &["--device", "cpu", "--runs", "6", "--save"][..] } else { &small };
        let file = world.path(&format!("bench/{name}.json"));
        let output = fissfuse_bench().args(command).args(sizes).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    ["model", "eval", "eval-valid", "table", "bench"].map(|name| world.arg(name)).into()
}

/// Whatever reaches beyond the window, outside of boxes that scroll.
const OVERFLOWING: &str = "
    const wide = document.scrollingElement.scrollWidth > innerWidth ? ['the page'] : [];
    const scrolls = e => e && e !== document.body
        && (getComputedStyle(e).overflowX !== 'visible' || scrolls(e.parentElement));
    for (const e of document.querySelectorAll('body *')) {
        const box = e.getBoundingClientRect();
        const out = box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
        if (out && !e.closest('.skip, .hidden') && !scrolls(e.parentElement)) wide.push(e.outerHTML.slice(0, 200));
        // A table may be wider than the window, what it is called may not.
        if (out && e.matches('caption > span')) wide.push('a caption: ' + e.textContent.slice(0, 200));
    }
    return wide;";

#[test]
fn the_page_is_whole_on_any_screen_and_open_to_all() {
    let world = World::new();
    let runs = runs(&world);
    let out = world.path("report.html");
    let named = ["--data", world.arg("data"), "--out", world.arg("report.html"), "--title", MARKUP];
    let printed = succeed(&[&["report"][..], &runs, &named].concat());
    assert!(
        printed.contains("Results, Experiments, Cost against accuracy, Re-ranking, Training, Examples"),
        "{printed}"
    );
    let bytes = fs::metadata(&out).unwrap().len();
    assert!(bytes < 3_000_000, "{bytes} bytes");
    // The same runs give the same bytes.
    let first = fs::read(&out).unwrap();
    succeed(&[&["report"][..], &runs, &named].concat());
    assert!(fs::read(&out).unwrap() == first, "the bytes differ");

    let browser = Browser::start();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-screenshots");
    let mut backs = Vec::new();
    for (width, dark) in [(390, false), (1440, false), (390, true), (1440, true)] {
        let took = browser.open(&out, width, dark);
        let place = format!("{width} px, {}", if dark { "dark" } else { "light" });
        let ready =
            browser.run("return [document.readyState, performance.getEntriesByType('navigation')[0].domInteractive]");
        assert_eq!(ready[0], "complete", "{place}");
        // The browser's own clock, since the machine may be busy with other tests; the whole call has a looser bound.
        assert!(ready[1].as_f64().unwrap() < 1000.0 && took < Duration::from_secs(10), "{place}: {ready}, {took:?}");
        let sections = browser.run("return [...document.querySelectorAll('main > section')].map(s => s.id)");
        let want = [
            "results",
            "experiments",
            "complexity",
            "reranking",
            "training",
            "examples",
            "time",
            "latency",
            "roofline",
        ];
        assert_eq!(sections, json!(want), "{place}");
        let empty = browser.run(
            "return [...document.querySelectorAll('main > section')].filter(s => s.children.length < 4).map(s => s.id)",
        );
        assert_eq!(empty, json!([]), "{place}");
        // What the data bring is text: it makes no element and runs nothing.
        let made = browser
            .run("return [document.querySelectorAll('b, i, script, img[src=x], [onerror]').length, document.title]");
        assert_eq!(made, json!([0, MARKUP]), "{place}");
        let said = browser.run("return document.body.textContent.includes('<img src=x onerror=')");
        assert_eq!(said, json!(true), "{place}");
        assert_eq!(browser.run(OVERFLOWING), json!([]), "{place}");
        browser.picture(&pictures.join(format!("{width}-{}.png", if dark { "dark" } else { "light" })));
        browser.run("document.querySelectorAll('details').forEach(d => d.open = true)");
        assert_eq!(browser.run(OVERFLOWING), json!([]), "{place}, with all numbers");
        assert_eq!(browser.shuts_out(), [Value::Null; 0], "{place}");
        assert_eq!(browser.console(), [Value::Null; 0], "{place}");
        // A chart is drawn once, in the size that fits.
        let seen = "[...document.querySelectorAll('.chart')].filter(c => c.getBoundingClientRect().width > 0)";
        let kinds =
            browser.run(&format!("return [...new Set({seen}.map(c => c.classList.contains('narrow')))].sort()"));
        assert_eq!(kinds, json!([width < 600]), "{place}");
        let text = format!("{seen}.flatMap(c => [...c.querySelectorAll('text')])");
        let small = browser.run(&format!("return {text}.filter(t => t.getBoundingClientRect().height < 9).length"));
        assert_eq!(small, json!(0), "{place}: text of charts is too small to read");
        backs.push(browser.run("return getComputedStyle(document.body).backgroundColor"));
    }
    assert!(backs[0] == backs[1] && backs[2] == backs[3] && backs[0] != backs[2], "{backs:?}");
    by_keyboard(&browser, &out);
    assert!(browser.printed().starts_with(b"%PDF"));
}

/// The first stop of the keyboard leads past the sections' list, and the next ones reach what opens and scrolls.
fn by_keyboard(browser: &Browser, page: &Path) {
    browser.open(page, 1440, false);
    browser.press("Tab");
    let skip =
        browser.run("const e = document.activeElement; return [e.className, e.getBoundingClientRect().top >= 0]");
    assert_eq!(skip, json!(["skip", true]));
    browser.press("Enter");
    assert_eq!(browser.run("return [location.hash, document.activeElement.id]"), json!(["#main", "main"]));
    for _ in 0..40 {
        browser.press("Tab");
        if browser.run("return document.activeElement.tagName") == "SUMMARY" {
            browser.press("Enter");
            assert_eq!(browser.run("return document.activeElement.parentElement.open"), json!(true));
            return;
        }
    }
    panic!("no list of numbers is reached by the keyboard");
}

#[test]
fn results_that_are_not_to_be_compared_stand_apart_and_examples_of_another_dataset_are_left_out() {
    let world = World::trained().copy();
    succeed(&world.eval("eval"));
    let metrics = fs::read_to_string(world.path("eval/metrics.json")).unwrap();
    let page = |runs: &[&'static str]| {
        succeed(&[&["report"][..], runs, &["--data", world.arg("data"), "--out", world.arg("page.html")]].concat());
        fs::read_to_string(world.path("page.html")).unwrap()
    };
    assert!(!page(&[world.arg("eval")]).contains("of several datasets"));
    fs::create_dir_all(world.path("other")).unwrap();
    fs::write(world.path("other/metrics.json"), metrics.replace("gold-in-list", "as-retrieved")).unwrap();
    let text = page(&[world.arg("eval"), world.arg("other")]);
    assert!(text.contains("of several datasets, splits or protocols") && text.contains("lists as retrieved"), "{text}");
    assert_eq!(text.matches("with 95 % Wilson intervals of the hits").count(), 4, "a caption and a label for each");
    // The same run, after the dataset was changed.
    world.change_line("data/test.jsonl", 1, |mention| mention["sentence"] = json!("Something else."));
    assert!(page(&[world.arg("eval")]).contains("no examples, since it is of another dataset"));
}

#[test]
fn what_cannot_be_shown_is_named() {
    let world = World::trained().copy();
    let write = |name: &str, text: &str| -> &'static str {
        let path: PathBuf = world.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        world.arg(name)
    };
    let out = ["--out", world.arg("page.html")];
    let refused = |run: &'static str, says: &[&str]| refuse(&[&["report", run][..], &out].concat(), says);
    refused(write("empty/train.jsonl", ""), &["empty/train.jsonl: is empty: its run wrote nothing yet"]);
    refused(world.arg("encoder"), &["encoder: holds nothing that a report shows", "summary.json of an experiment"]);
    refused(world.arg("data"), &["data: is a dataset and no run; give it as --data"]);
    refused(world.arg("none"), &["none: cannot read: nothing is there", "metrics.json of an evaluation"]);
    let newer = measurements("step", json!([])).to_string().replace("\"schema\":1", "\"schema\":2");
    refused(write("newer.json", &newer), &["newer.json: is of schema 2, and this program reads up to 1"]);
    refused(write("cut.json", "{\"rows\": [1,"), &["cut.json: is no JSON", "was it cut short?"]);
    refuse(
        &["report", world.arg("model"), "--out", world.arg("model/train.jsonl")],
        &["--out is a file of RUN, which is read"],
    );
    // Any name may be that of measurements.
    let timed = json!([{"name": "work", "seconds": seconds(1e-3)}]);
    let timed = write("benched/any.json", &measurements("layer", timed).to_string());
    let before = fs::read(timed).unwrap();
    refuse(&["report", world.arg("benched"), "--out", timed], &["any.json: --out is what RUN reads"]);
    assert_eq!(fs::read(timed).unwrap(), before);
    let counted = json!([{"name": "parameters", "figures": {"parameters": 3.0}}]);
    let mut counted = measurements("flops", counted);
    counted["ceilings"] = Value::Null;
    let counted = write("counted.json", &counted.to_string());
    refused(counted, &["counted.json: no section shows it", "the page would be empty"]);
    assert!(!world.path("page.html").exists(), "nothing may be written");
    let both = fissfuse(&[&["report", timed, counted][..], &out].concat()).output().unwrap();
    let errors = String::from_utf8(both.stderr).unwrap();
    assert!(both.status.success() && errors.contains("counted.json: no section shows it"), "{errors}");
    // A line that was cut, and losses that are no numbers, are said on the page.
    let log = fs::read_to_string(world.path("model/train.jsonl")).unwrap();
    let mut first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    (first["loss"], first["losses"][2][1]) = (Value::Null, Value::Null);
    let log = format!("{first}\n{}\n{}", log.lines().nth(1).unwrap(), &log[..40]);
    write("model/train.jsonl", &log);
    succeed(&[&["report", world.arg("model")][..], &out].concat());
    let page = fs::read_to_string(world.path("page.html")).unwrap();
    assert!(page.contains("A loss is not finite at epoch 1: its line has a gap there."), "{page}");
    assert!(page.contains("Line 3, the last one, was cut short and is left out."), "{page}");
}

#[test]
fn warnings_and_advice_stand_where_their_rows_do() {
    let world = World::new();
    let row = |name: &str, more: Value| {
        let mut row = json!({"name": name, "seconds": seconds(1e-3), "warnings": [format!("{name} is shaky")]});
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let parts = json!({"parts": {"one": seconds(5e-4)}});
    let whole = json!({"figures": {"flops": 1e6, "bytes": 1e6}});
    let mut kernels = measurements("kernels", json!([row("k", whole)]));
    kernels["advice"] = json!(["fuse <them>"]);
    let files = [("kernels", kernels), ("layer", measurements("layer", json!([row("p", parts)])))];
    for (name, file) in &files {
        fs::write(world.path(&format!("{name}.json")), file.to_string()).unwrap();
    }
    let runs = [world.arg("kernels.json"), world.arg("layer.json")];
    succeed(&[&["report"][..], &runs, &["--out", world.arg("page.html")]].concat());
    let page = fs::read_to_string(world.path("page.html")).unwrap();
    let section = |id: &str| {
        let from = page.split_once(&format!("<section id=\"{id}\"")).unwrap_or_else(|| panic!("no {id}: {page}")).1;
        from.split_once("</section>").unwrap().0
    };
    assert!(section("roofline").contains("k: k is shaky") && section("roofline").contains("Advice: fuse &lt;them&gt;"));
    assert!(section("time").contains("p: p is shaky") && !section("time").contains("k is shaky"));
    assert!(section("latency").contains("p: p is shaky"));
}
