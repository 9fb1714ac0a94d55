//! What the spans of a trace add up to.

use std::collections::HashMap;

use super::ring::{Event, Ring, Track};

/// All spans of one name, on the host or on one device.
#[derive(Clone, Debug)]
pub struct Row {
    /// What they are called.
    pub name: String,
    /// `host`, or the device.
    pub place: String,
    /// How many there are.
    pub calls: usize,
    /// Seconds of all together; those within others count in both.
    pub total: f64,
    /// Median of their seconds (nearest rank).
    pub p50: f64,
    /// Seconds of the longest.
    pub max: f64,
    /// Total as a share of the time from the first span's beginning to the last one's end; more than 1 where threads
    /// work side by side.
    pub share: f64,
}

/// A row for each name, the host's first, in each place by the total.
pub fn rows(ring: &Ring, events: &[Event], devices: &[String]) -> Vec<Row> {
    let begin = events.iter().map(|event| event.start).min().unwrap_or(0);
    let end = events.iter().map(|event| event.start + event.duration).max().unwrap_or(0);
    let whole = (end - begin).max(1) as f64;
    let mut durations: HashMap<(Option<u32>, u32), Vec<u64>> = HashMap::new();
    for event in events {
        let device = match event.track {
            Track::Host(_) => None,
            Track::Device(device) => Some(device),
        };
        durations.entry((device, event.name)).or_default().push(event.duration);
    }
    let seconds = |nanoseconds: u64| 1e-9 * nanoseconds as f64;
    let mut rows: Vec<(Option<u32>, Row)> = Vec::with_capacity(durations.len());
    for ((device, name), mut of_name) in durations {
        of_name.sort_unstable();
        let total: u64 = of_name.iter().sum();
        let known = device.map(|device| devices.get(device as usize).map_or("device", String::as_str));
        rows.push((
            device,
            Row {
                name: ring.name(name).to_string(),
                place: known.unwrap_or("host").to_string(),
                calls: of_name.len(),
                total: seconds(total),
                p50: seconds(of_name[of_name.len().div_ceil(2) - 1]),
                max: seconds(of_name[of_name.len() - 1]),
                share: total as f64 / whole,
            },
        ));
    }
    rows.sort_by(|(a, x), (b, y)| a.cmp(b).then(y.total.total_cmp(&x.total)).then(x.name.cmp(&y.name)));
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_one_name_and_place_are_a_row() {
        let mut ring = Ring::new(1, 1 << 20);
        for (name, track, from, to) in [
            ("a", Track::Host(0), 0, 10),
            ("a", Track::Host(1), 20, 50),
            ("a", Track::Host(0), 60, 80),
            ("b", Track::Host(0), 0, 100),
            ("a", Track::Device(0), 0, 1),
        ] {
            ring.add(name, track, (from * 1_000_000_000, to * 1_000_000_000), 0);
        }
        let rows = rows(&ring, &ring.kept(), &["cuda:0".into()]);
        let found: Vec<_> =
            rows.iter().map(|r| (r.name.as_str(), r.place.as_str(), r.calls, r.total.round())).collect();
        assert_eq!(found, [("b", "host", 1, 100.0), ("a", "host", 3, 60.0), ("a", "cuda:0", 1, 1.0)]);
        assert!((rows[1].p50 - 20.0).abs() < 1e-9 && (rows[1].max - 30.0).abs() < 1e-9 && rows[1].share == 0.6);
    }
}
