//! Significance against SciPy and statsmodels (tests/fixtures/statistics/make.py), and at the edges; runs compared through the binary.

use std::fs;

use fissfuse::eval::statistics::{Interval, Resampling, Summary, bootstrap, differences, holm, t_test, wilson};
use rayon::ThreadPoolBuilder;
use serde_json::{Value, json};

use crate::support::{World, fissfuse, fixture, refuse, succeed};

/// Resamples of SciPy's intervals and of ours.
const RESAMPLES: usize = 100_000;

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(fixture("statistics/expected.json")).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn sample(case: &Value) -> Vec<f64> {
    let reciprocal = |ranks: &Value| numbers(ranks).into_iter().map(|rank| 1.0 / rank).collect::<Vec<_>>();
    match &case["ranks"] {
        Value::Null => numbers(&case["differences"]),
        ranks => differences(&reciprocal(&ranks[0]), &reciprocal(&ranks[1])).unwrap(),
    }
}

/// Equal but for 1e-9 of the value: what sums and series of other orders may differ by, with room for a long tail.
fn agrees(got: f64, want: f64) -> bool {
    (got - want).abs() <= 1e-9 * want.abs()
}

#[test]
fn t_tests_agree_with_scipy() {
    let expected = expected();
    for case in expected["t_tests"].as_array().unwrap() {
        let got = t_test(&sample(case)).unwrap();
        let want = ["t", "p"].map(|key| case[key].as_f64().unwrap());
        assert!(got.t.is_some_and(|t| agrees(t, want[0])) && agrees(got.p, want[1]), "{got:?} {want:?}");
        assert_eq!((got.degrees_of_freedom as u64, got.note), (case["df"].as_u64().unwrap(), None));
    }
}

#[test]
fn p_values_keep_their_digits_near_zero_and_far_out() {
    for case in expected()["tails"].as_array().unwrap().iter().map(numbers) {
        let [t, df, want] = case[..] else { panic!("{case:?}") };
        // As many of 1 + shift as of -1 + shift: their t is shift * sqrt(df).
        let shift = t / df.sqrt();
        let sample: Vec<f64> = (0..=df as usize).map(|i| shift + if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        for sign in [1.0, -1.0] {
            let got = t_test(&sample.iter().map(|x| sign * x).collect::<Vec<_>>()).unwrap();
            assert!(agrees(got.p, want), "t {t}, {df} degrees: {got:?} {want:e}");
        }
    }
}

#[test]
fn shares_corrections_and_summaries_agree_with_statsmodels_and_numpy() {
    let expected = expected();
    for case in expected["wilson"].as_array().unwrap().iter().map(numbers) {
        let [hits, n, low, high] = case[..] else { panic!("{case:?}") };
        let got = wilson(hits as usize, n as usize).unwrap();
        // What stands for 0 in statsmodels may be 1e-19.
        let same = |got: f64, want: f64| agrees(got, want) || got == 0.0 && want < 1e-15;
        assert!(same(got.low, low) && same(got.high, high), "{got:?} {case:?}");
        assert!((got.low == 0.0) == (hits == 0.0) && (got.high == 1.0) == (hits == n), "{got:?} {case:?}");
    }
    for case in expected["holm"].as_array().unwrap() {
        let (got, want) = (holm(&numbers(&case["p"])).unwrap(), numbers(&case["corrected"]));
        assert!(
            got.len() == want.len() && got.iter().zip(&want).all(|(got, want)| agrees(*got, *want)),
            "{got:?} {want:?}"
        );
    }
    for case in expected["summaries"].as_array().unwrap() {
        let got = Summary::of(&numbers(&case["values"])).unwrap();
        let [mean, deviation] = ["mean", "deviation"].map(|key| case[key].as_f64().unwrap());
        assert!(agrees(got.mean, mean) && got.deviation.is_some_and(|d| agrees(d, deviation)), "{got:?} {case}");
    }
}

#[test]
fn bootstrap_intervals_agree_with_scipys_percentiles_within_their_sampling_error() {
    // A 2.5 % quantile of R draws has the standard error sqrt(0.025 * 0.975 / R) / density, and a normal distribution's
    // density there is 0.0584 over its deviation. Two such errors, SciPy's and ours, at five deviations.
    let tolerance = 5.0 * 2f64.sqrt() * (0.025 * 0.975 / RESAMPLES as f64).sqrt() / 0.0584;
    for case in expected()["bootstrap"].as_array().unwrap() {
        let got = bootstrap(&sample(case), Resampling { resamples: RESAMPLES, seed: 3 }).unwrap();
        let [low, high, error] = ["low", "high", "error"].map(|key| case[key].as_f64().unwrap());
        let off = [got.low - low, got.high - high].map(|off| (off / error).abs());
        assert!(off.iter().all(|off| *off < tolerance), "{got:?} {low} {high}: {off:?} of {tolerance} standard errors");
    }
}

#[test]
fn a_bootstrap_has_the_same_bits_on_any_number_of_threads() {
    let sample = sample(&expected()["t_tests"][3]);
    let draw = |threads: usize, seed: u64| {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let Interval { low, high } = pool.install(|| bootstrap(&sample, Resampling { resamples: 999, seed })).unwrap();
        (low.to_bits(), high.to_bits())
    };
    let one = draw(1, 7);
    assert!([2, 3, 8].into_iter().all(|threads| draw(threads, 7) == one));
    assert_ne!(draw(1, 8), one);
}

#[test]
fn what_has_no_spread_is_said_to_have_none() {
    let none = t_test(&[0.0; 5]).unwrap();
    assert_eq!((none.t, none.p, none.note), (None, 1.0, Some("all differences are zero")));
    // The mean of ten times 0.1 is not 0.1 in binary.
    let equal = t_test(&[0.1; 10]).unwrap();
    assert_eq!((equal.t, equal.p, equal.note), (None, 0.0, Some("all differences are equal and not zero")));
    let interval = bootstrap(&[0.0; 5], Resampling { resamples: 10, seed: 0 }).unwrap();
    assert_eq!(interval, Interval { low: 0.0, high: 0.0 });
    let one = Summary::of(&[0.5]).unwrap();
    assert_eq!((one.mean, one.deviation, one.seeds), (0.5, None, 1));
}

#[test]
fn what_has_no_answer_is_an_error_and_never_nan() {
    let resampling = Resampling { resamples: 10, seed: 0 };
    for (values, says) in [
        (&[][..], "0 pairs"),
        (&[0.5], "1 pairs"),
        (&[0.5, f64::NAN], "value 2 of 2 is NaN"),
        (&[f64::INFINITY, 0.5], "value 1 of 2 is inf"),
        (&[1e300, -1e300, 1e299], "overflow"),
    ] {
        for error in [t_test(values).unwrap_err(), bootstrap(values, resampling).unwrap_err()] {
            assert!(error.to_string().contains(says), "{error}");
        }
    }
    let error = t_test(&[1e-300, 2e-300]).unwrap_err().to_string();
    assert!(error.contains("too small"), "{error}");
    assert!(bootstrap(&[0.0, 1.0], Resampling { resamples: 0, ..resampling }).is_err());
    assert!(differences(&[0.5], &[]).is_err());
    assert!(Summary::of(&[]).is_err() && Summary::of(&[f64::NAN]).is_err());
    assert!(wilson(0, 0).is_err() && wilson(2, 1).is_err());
    for bad in [f64::NAN, -0.1, 1.1] {
        assert!(holm(&[0.5, bad]).unwrap_err().to_string().contains("is no p-value"));
    }
    assert!(holm(&[]).unwrap().is_empty());
}

#[test]
fn two_runs_are_compared_over_the_mentions_that_both_rank() {
    let world = World::trained();
    // The gold entity of mention i at place i % 3 of one run and first in the other, which lacks two mentions.
    let ranked = |i: usize, place: usize| {
        let mention = World::mention("test", i);
        let gold = mention["gold"].clone();
        let mut candidates: Vec<Value> = mention["candidates"].as_array().unwrap().clone();
        candidates.retain(|candidate| *candidate != gold);
        candidates.insert(place, gold);
        json!({"mention_id": mention["mention_id"], "candidates": candidates})
    };
    let write = |name: &str, count: usize, place: &dyn Fn(usize) -> usize| {
        world.write_lines(name, &(0..count).map(|i| ranked(i, place(i))).collect::<Vec<_>>());
    };
    write("thirds.jsonl", 10, &|i| i % 3);
    write("firsts.jsonl", 8, &|_| 0);
    let compare = |run: &str, against: &str| {
        let runs = ["--ranking", world.arg(run), "--against", world.arg(against)];
        [&["eval", "--data", world.arg("data")][..], &runs, &["--out", world.arg("compared")]].concat()
    };
    let printed = succeed(&compare("thirds.jsonl", "firsts.jsonl"));
    for says in [
        "8 mentions that this run and",
        "MRR -35.42, 95 % interval",
        "better: 0, worse: 5, equally: 3",
        "2 mentions left out",
    ] {
        assert!(printed.contains(says), "{printed} lacks {says}");
    }
    let metrics =
        || -> Value { serde_json::from_slice(&fs::read(world.path("compared/metrics.json")).unwrap()).unwrap() };
    let comparison = metrics()["comparison"].clone();
    // Reciprocal ranks 1, 1/2 and 1/3 less 1: three, three and two times.
    let (mean, squares): (f64, f64) = (-(3.0 / 2.0 + 4.0 / 3.0) / 8.0, 3.0 / 4.0 + 8.0 / 9.0);
    let t = mean / ((squares - 8.0 * mean * mean) / 7.0 / 8.0).sqrt();
    let number = |value: &Value| value.as_f64().unwrap();
    assert!((number(&comparison["difference"]) - mean).abs() < 1e-12, "{comparison}");
    assert!((number(&comparison["t_test"]["t"]) - t).abs() < 1e-9, "{comparison}");
    let [low, high] = ["low", "high"].map(|end| number(&comparison["interval"][end]));
    assert!(-2.0 / 3.0 <= low && low < mean && mean < high && high <= 0.0, "{comparison}");
    assert_eq!((&comparison["only_run"], &comparison["protocol"]), (&json!(2), &json!("gold-in-list")));
    let printed = succeed(&compare("firsts.jsonl", "firsts.jsonl"));
    assert!(printed.contains("p = 1.000 (all differences are zero)"), "{printed}");
    // One list without its gold entity is of another protocol.
    let mut lines = world.read_lines("firsts.jsonl");
    lines[1]["candidates"].as_array_mut().unwrap().remove(0);
    world.write_lines("lacking.jsonl", &lines);
    let says = ["lacking.jsonl: the runs are of different protocols", "0 of 10 rankings of the run and in 1 of 8"];
    refuse(&compare("thirds.jsonl", "lacking.jsonl"), &says);
    let alone = fissfuse(&["eval", "--data", world.arg("data"), "--against", world.arg("firsts.jsonl")]);
    assert_eq!({ alone }.output().unwrap().status.code(), Some(2));
}
