//! Two programs that run in turn, round by round: the interval of their ratios' centre (Wilcoxon's signed ranks) must lie beyond
//! what counts. Ranks, because a round in which the machine was elsewhere can be off by 20 %: it widens an interval by Student's t
//! until nothing can be told.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Compared, Thresholds, UNKNOWN, Verdict};
use crate::error::Result;
use crate::eval::statistics::centre;
use crate::profile::measurement::cycles;
use crate::profile::timing::Timing;

/// What a program said of its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What each run took.
    pub seconds: Vec<f64>,
    /// The clock of its device during each, in MHz, as far as it is known; nothing on the host.
    pub clocks_mhz: Option<Vec<Option<f64>>>,
}

impl Turn {
    /// Runs of a later turn of the same program. Clocks count only where all turns have them.
    pub fn extend(&mut self, later: Turn) {
        let first = self.seconds.is_empty();
        self.seconds.extend(later.seconds);
        self.clocks_mhz = match (self.clocks_mhz.take(), later.clocks_mhz) {
            (None, later) if first => later,
            (Some(clocks), Some(later)) => Some([clocks, later].concat()),
            _ => None,
        };
    }
}

/// Programs that run in turn, round by round.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// Median seconds of the old and the new of each round.
    medians: Vec<(f64, f64)>,
    /// The same in cycles, if both know them.
    cycles: Vec<Option<(f64, f64)>>,
    /// Whether a device works, whose clock may change.
    on_device: bool,
}

impl Rounds {
    /// Adds a round, of processes that were started for it. Fails if one did not run.
    pub fn push(&mut self, old: Turn, new: Turn) -> Result<()> {
        self.on_device |= old.clocks_mhz.is_some() || new.clocks_mhz.is_some();
        let in_cycles = |turn: &Turn| Some(cycles(&turn.seconds, turn.clocks_mhz.as_deref()?)?.p50());
        self.cycles.push(in_cycles(&old).zip(in_cycles(&new)));
        self.medians.push((Timing::new(old.seconds)?.p50(), Timing::new(new.seconds)?.p50()));
        Ok(())
    }

    /// The interval of the ratios' centre in cycles, if all rounds know them.
    fn in_cycles(&self, confidence: f64) -> Option<(f64, f64)> {
        let logs: Option<Vec<f64>> = self.cycles.iter().map(|round| round.map(|(old, new)| (new / old).ln())).collect();
        let found = centre(&logs?, confidence)?;
        Some((found.interval.low.exp() - 1.0, found.interval.high.exp() - 1.0))
    }

    /// What can be said so far; `None` if more rounds may tell.
    pub fn verdict(&self, name: &str, parameters: &Map<String, Value>, thresholds: &Thresholds) -> Option<Compared> {
        let Thresholds { min_rounds, max_rounds, confidence, least_change, .. } = *thresholds;
        let n = self.medians.len();
        if n < min_rounds {
            return None;
        }
        let logs: Vec<f64> = self.medians.iter().map(|(old, new)| (new / old).ln()).collect();
        let found = centre(&logs, confidence)?;
        let interval = (found.interval.low.exp(), found.interval.high.exp());
        let (low, high) = (interval.0 - 1.0, interval.1 - 1.0);
        let beyond = |(low, high): (f64, f64)| match () {
            () if low > least_change => Some(Verdict::Slow),
            () if high < -least_change => Some(Verdict::Fast),
            () => None,
        };
        let signed = |share: f64| format!("{:+.2} %", 100.0 * share);
        // A difference in time alone is one of the clock's.
        let (in_time, in_cycles) = (beyond((low, high)), self.in_cycles(confidence));
        let confirmed = in_time.filter(|_| !self.on_device || in_cycles.and_then(beyond) == in_time);
        let verdict = match confirmed {
            Some(verdict) => verdict,
            None if low >= -least_change && high <= least_change => Verdict::Same,
            None if n >= max_rounds => Verdict::Ambiguous,
            None => return None,
        };
        let beside = match (in_time.filter(|_| self.on_device), in_cycles) {
            (None, _) => String::new(),
            (Some(_), None) => UNKNOWN.into(),
            (Some(_), Some((low, high))) => {
                let say = if confirmed.is_some() { "confirm" } else { "do not confirm" };
                format!("; cycles {say} it: {} to {}", signed(low), signed(high))
            }
        };
        let why = format!(
            "{n} rounds: {} to {} ({:.0} % confidence), {:.1} % is what counts{beside}",
            signed(low),
            signed(high),
            100.0 * confidence,
            100.0 * least_change
        );
        let median =
            |side: fn(&(f64, f64)) -> f64| Timing::new(self.medians.iter().map(side).collect()).map(|t| t.p50());
        let [old, new] = [median(|m| m.0), median(|m| m.1)].map(|median| median.unwrap_or(f64::NAN));
        let (name, parameters, ratio) = (name.to_string(), parameters.clone(), found.estimate.exp());
        Some(Compared { name, parameters, old, new, ratio, interval: Some(interval), verdict, why })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twenty runs around a time, within 2 %, at this clock.
    fn turn(seconds: f64, clock_mhz: Option<Option<f64>>) -> Turn {
        let seconds = (0..20).map(|i| seconds * (1.0 + 0.001 * i as f64)).collect();
        Turn { seconds, clocks_mhz: clock_mhz.map(|clock| vec![clock; 20]) }
    }

    /// Of rounds in which the new program took so many times as long and ran at this clock, the old one at another.
    fn judge_at(ratios: &[f64], old: Option<Option<f64>>, new: Option<Option<f64>>) -> Option<Compared> {
        let mut rounds = Rounds::default();
        ratios.iter().for_each(|ratio| rounds.push(turn(1.0, old), turn(*ratio, new)).unwrap());
        rounds.verdict("step", &Map::new(), &Thresholds::default())
    }

    #[test]
    fn rounds_go_on_until_their_ratio_is_clear() {
        let judge = |ratios: &[f64]| judge_at(ratios, None, None).map(|compared| compared.verdict);
        assert_eq!(judge(&[1.03; 7]), None, "too few");
        assert_eq!(judge(&[1.03, 1.02, 1.03, 1.04, 1.03, 1.03, 1.02, 1.04]), Some(Verdict::Slow));
        assert_eq!(judge(&[0.97, 0.96, 0.97, 0.98, 0.97, 0.97, 0.96, 0.98]), Some(Verdict::Fast));
        assert_eq!(judge(&[1.0, 1.002, 0.998, 1.0, 1.001, 0.999, 1.0, 1.0]), Some(Verdict::Same));
        let far = [1.1, 0.9].repeat(4);
        assert_eq!(judge(&far), None);
        assert_eq!(judge(&far.repeat(3)), Some(Verdict::Ambiguous));
        // Rounds in which the machine was elsewhere.
        let slower = [&[1.03, 1.035, 1.025, 1.03, 1.04, 1.02].repeat(3)[..], &[0.8, 1.5]].concat();
        assert_eq!(judge(&slower), Some(Verdict::Slow));
    }

    #[test]
    fn on_a_device_the_rounds_have_to_agree_in_cycles() {
        let slower = [1.03, 1.02, 1.03, 1.04, 1.03, 1.03, 1.02, 1.04];
        let at = |mhz: f64| Some(Some(mhz));
        let found = judge_at(&slower, at(1700.0), at(1700.0)).unwrap();
        assert!(found.verdict == Verdict::Slow && found.why.contains("cycles confirm it"), "{}", found.why);
        // Three per cent below the other's clock: more rounds may tell, and at the last nothing is told.
        let throttled = (at(1700.0), at(1700.0 / 1.03));
        assert!(judge_at(&slower, throttled.0, throttled.1).is_none());
        let found = judge_at(&slower.repeat(3), throttled.0, throttled.1).unwrap();
        assert!(found.verdict == Verdict::Ambiguous && found.why.contains("cycles do not confirm it"), "{}", found.why);
        // Of a program that says none, or a device that does not.
        for unknown in [None, Some(None)] {
            let found = judge_at(&slower.repeat(3), unknown, at(1700.0)).unwrap();
            assert!(found.verdict == Verdict::Ambiguous && found.why.contains("not known"), "{}", found.why);
        }
        assert_eq!(judge_at(&[1.0; 8], at(1700.0), at(1500.0)).unwrap().verdict, Verdict::Same);
    }

    #[test]
    fn turns_have_a_clock_if_all_have_one() {
        let mut all = Turn::default();
        all.extend(turn(1.0, Some(Some(1.0))));
        all.extend(turn(2.0, Some(None)));
        assert_eq!((all.seconds.len(), all.clocks_mhz.as_ref().map(Vec::len)), (40, Some(40)));
        all.extend(turn(1.0, None));
        assert_eq!((all.seconds.len(), all.clocks_mhz), (60, None));
    }
}
