//! What times of parts advise, by fixed rules (docs/bench.md).

use super::measurement::Measurement;

/// Giving a device its work.
pub const ENQUEUE: &str = "enqueue";
/// Copies to the device.
pub const COPY_IN: &str = "copy in";
/// Kernels.
pub const DEVICE: &str = "device";

/// Giving work takes more than this share of the device's time: launches bound it.
const ENQUEUE_SHARE: f64 = 0.8;
/// The slowest of a hundred takes so many times the median: something else ran on the machine.
const TAIL: f64 = 3.0;
/// Under load, less than this share of what arrives is done: the queue grows for as long as the load lasts.
const SERVED: f64 = 0.95;

/// Under load, the work itself.
pub const SERVICE: &str = "service";
/// Under load, how many requests arrive, and how many are done.
pub const ARRIVALS: &str = "arrivals_per_second";
/// See [`ARRIVALS`].
pub const THROUGHPUT: &str = "throughput_per_second";

/// Advice on a row.
pub fn advice(row: &Measurement) -> Vec<String> {
    let median = |part: &str| row.parts.get(part).map(|time| time.p50());
    let mut advice = Vec::new();
    let mut say = |text: String| advice.push(format!("{}: {text}", row.label()));
    let launches = median(ENQUEUE).zip(median(DEVICE)).map(|(enqueue, device)| enqueue / device);
    if let Some(times) = launches.filter(|times| *times > ENQUEUE_SHARE) {
        say(format!(
            "bound by launches (enqueue takes {times:.1} times the device's time): take graphs, or more at once"
        ));
    }
    if let Some((copies, device)) = median(COPY_IN).zip(median(DEVICE)).filter(|(copies, device)| copies >= device) {
        say(format!(
            "bound by copies (they take {:.1} times the kernels' time): keep more on the device",
            copies / device
        ));
    }
    let figure = |name: &str| row.figures.get(name).copied().flatten();
    if let Some((arrive, done)) =
        figure(ARRIVALS).zip(figure(THROUGHPUT)).filter(|(arrive, done)| *done < SERVED * arrive)
    {
        say(format!(
            "{arrive:.0} requests a second arrive and {done:.0} are done: they wait ever longer; lower --load"
        ));
    }
    // Requests that queue wait for each other, on the quietest machine.
    if let Some(seconds) = row.parts.get(SERVICE).or(row.seconds.as_ref()) {
        let (p99, p50) = (seconds.quantile(0.99), seconds.p50());
        if seconds.runs() >= 100 && p99 > TAIL * p50 {
            let times = p99 / p50;
            say(format!(
                "the machine was busy with something else (p99 is {times:.1} times the median): measure on a quiet one"
            ));
        }
    }
    advice
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::profile::Timing;

    fn row(parts: &[(&str, f64)], seconds: &[f64]) -> Vec<String> {
        let mut row = Measurement::new("link", Map::new());
        row.seconds = Timing::new(seconds.to_vec()).ok();
        for (part, seconds) in parts {
            row.parts.insert((*part).into(), Timing::new(vec![*seconds]).unwrap());
        }
        advice(&row)
    }

    #[test]
    fn each_rule_speaks_beyond_its_bound_and_not_within() {
        let quiet = [1.0; 100];
        assert!(row(&[(ENQUEUE, 0.8), (DEVICE, 1.0)], &quiet).is_empty());
        assert!(row(&[(ENQUEUE, 0.9), (DEVICE, 1.0)], &quiet)[0].contains("bound by launches"));
        assert!(row(&[(COPY_IN, 0.9), (DEVICE, 1.0)], &quiet).is_empty());
        assert!(row(&[(COPY_IN, 1.1), (DEVICE, 1.0)], &quiet)[0].contains("bound by copies"));
        let mut slow = [1.0; 100];
        slow[97..].fill(3.5);
        assert!(row(&[], &slow)[0].contains("p99 is 3.5 times"));
        slow[97..].fill(2.9);
        assert!(row(&[], &slow).is_empty());
        assert!(row(&[], &[1.0, 9.0]).is_empty(), "too few to tell");
        // Under load the work itself is judged, and whether it keeps up.
        let mut load = Measurement::new("link under load", Map::new());
        slow[97..].fill(9.0);
        load.seconds = Timing::new(slow.to_vec()).ok();
        load.parts.insert(SERVICE.into(), Timing::new(vec![1.0; 100]).unwrap());
        let of = |done: f64| advice(&load.clone().with(ARRIVALS, 1000.0).with(THROUGHPUT, done));
        assert!(of(960.0).is_empty());
        assert!(of(400.0)[0].contains("1000 requests a second arrive and 400 are done"));
    }
}
