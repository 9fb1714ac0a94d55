//! Whether comparisons can be trusted on this machine.

use std::time::Instant;

use fissfuse::model::ModelConfig;
use fissfuse::profile::Timing;
use fissfuse::profile::by_op::Breakdown;
use fissfuse::profile::comparison::{Thresholds, Verdict};
use fissfuse::profile::latency::{AtHand, LatencyBench};
use fissfuse::profile::measurement::Measurement;
use fissfuse::profile::sampling::{Laps, Sampling};
use fissfuse::profile::step::TrainingStep;
use fissfuse::profile::synthetic::Shape;
use fissfuse::tensor::Element;
use fissfuse::trace;
use fissfuse::train::Steps;
use indicatif::ProgressBar;
use serde_json::{Map, Value};

use super::at_least_one;
use super::compare::{interleave, this};
use super::session::{Session, percent};

/// Whether comparisons can be trusted on this machine: this program against itself, which must never be SLOW, and against
/// itself slowed down, which must be. Whether `latency` says what a plain loop around the scorer sees, and what a step costs
/// more that is taken apart or traced.
#[derive(clap::Args)]
pub struct SelfTestArgs {
    /// Comparisons of this program with itself.
    #[arg(long, default_value_t = 50)]
    comparisons: usize,

    /// Comparisons with a planted slowdown.
    #[arg(long, default_value_t = 20)]
    trials: usize,

    /// The slowdown, in per cent of a step.
    #[arg(long, value_name = "PERCENT", default_value_t = 3.0, value_parser = percent)]
    slowdown: f64,

    /// Mentions of the training step that is compared.
    #[arg(long, default_value_t = 4, value_parser = at_least_one())]
    mentions: usize,
}

/// Runs of the plain loop, and turns of it and of what it is compared with.
const RUNS: usize = 200;
const TURNS: usize = 10;

/// Exits with 3 if a comparison was wrong.
pub fn self_test(args: SelfTestArgs, session: &mut Session) -> anyhow::Result<u8> {
    session.begin("self-test", None)?;
    session.set("mentions", args.mentions);
    let step = ["step".into(), "--device".into(), "cpu".into(), "--mentions".into(), args.mentions.to_string()];
    let slowed = [&step[..], &["--plant".to_string(), args.slowdown.to_string()]].concat();
    let same = verdicts(&step, &step, args.comparisons, "compared with itself")?;
    let found = verdicts(&step, &slowed, args.trials, "compared with itself slowed down")?;
    let wrong = same.get("SLOW").is_some_and(|slow| *slow > 0);
    let missed = args.trials - found.get("SLOW").copied().unwrap_or(0);
    let row = |name: &str, slowdown: f64, verdicts: &Counts| {
        let parameters: Map<String, Value> = [("slowdown_percent".to_string(), slowdown.into())].into_iter().collect();
        verdicts
            .iter()
            .fold(Measurement::new(name, parameters), |row, (verdict, count)| row.with(verdict, *count as f64))
    };
    session.push(row("verdicts", 0.0, &same));
    session.push(row("verdicts", args.slowdown, &found));
    session.push(plain_loop()?);
    observed(args.mentions)?.into_iter().for_each(|row| session.push(row));
    Ok(if wrong || 20 * missed > args.trials { 3 } else { 0 })
}

/// How often each verdict was given.
type Counts = std::collections::BTreeMap<&'static str, usize>;

fn verdicts(old: &[String], new: &[String], times: usize, what: &str) -> anyhow::Result<Counts> {
    let mut counts = Counts::from([("SAME", 0), ("FAST", 0), ("SLOW", 0), ("AMBIGUOUS", 0)]);
    let bar = ProgressBar::new(times as u64).with_message(what.to_string());
    for _ in 0..times {
        for row in interleave(&this(old)?, &this(new)?, &Thresholds::default(), &mut |_| {})?.0 {
            let name = match row.verdict {
                Verdict::Same => "SAME",
                Verdict::Fast => "FAST",
                Verdict::Slow => "SLOW",
                Verdict::Ambiguous => "AMBIGUOUS",
            };
            *counts.entry(name).or_default() += 1;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(counts)
}

/// How many times as long steps take that are taken apart and that are traced as those in turn with them that nothing
/// observes: the medians of all turns' ratios.
fn observed(mentions: usize) -> anyhow::Result<[Measurement; 2]> {
    let shape = Shape { mentions, ..Shape::WIKIDIVERSE };
    let mut step = TrainingStep::new(ModelConfig::default(), shape, 0, Steps::new(None, false)?)?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("trace.json");
    let (mut apart, mut traced, mut breakdown) = (Vec::new(), Vec::new(), Breakdown::default());
    let seconds = |work: &mut dyn FnMut() -> fissfuse::Result<()>| -> fissfuse::Result<f64> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    };
    for _ in 0..RUNS {
        let plain = seconds(&mut || step.run().map(drop))?;
        apart.push(seconds(&mut || breakdown.run(&mut step))? / plain);
        let plain = seconds(&mut || step.run().map(drop))?;
        trace::begin(&path, 1)?;
        trace::next_step();
        let under_trace = seconds(&mut || step.run().map(drop));
        trace::end()?;
        traced.push(under_trace? / plain);
    }
    let row = |name: &str, ratios: Vec<f64>| -> anyhow::Result<Measurement> {
        Ok(Measurement::new(name, Map::new()).with("ratio", Timing::new(ratios)?.p50()))
    };
    Ok([row("step taken apart beside a plain one", apart)?, row("traced step beside a plain one", traced)?])
}

/// The median run of a plain loop around the scorer beside that which `latency` reports of it, in turn: the medians of all turns,
/// and of their ratios, on which a machine that is busy at times has no say.
fn plain_loop() -> anyhow::Result<Measurement> {
    let (config, shape) = (ModelConfig::default(), Shape::WIKIDIVERSE);
    let mut bench = LatencyBench::new(config, shape, (2000, Element::F32), 0, None)?;
    let mut runs = bench.runs((1, shape.candidates), AtHand::Prepared, None)?;
    let sampling = Sampling { warmup: Some(0), runs: Some(RUNS), ..Sampling::default() };
    let (mut plain, mut reported, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let mut seconds = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let start = Instant::now();
            runs.run(&mut Laps::default())?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        let seen = Timing::new(seconds)?.p50();
        let measured = sampling.measure("link", Map::new(), None, |laps| runs.run(laps).map(drop))?;
        let said = measured.seconds.map_or(f64::NAN, |seconds| seconds.p50());
        plain.push(seen);
        reported.push(said);
        ratios.push(said / seen);
    }
    let [plain, reported, ratio] =
        [Timing::new(plain)?.p50(), Timing::new(reported)?.p50(), Timing::new(ratios)?.p50()];
    let row = Measurement::new("latency beside a plain loop", Map::new());
    Ok(row.with("plain_seconds", plain).with("latency_seconds", reported).with("ratio", ratio))
}
