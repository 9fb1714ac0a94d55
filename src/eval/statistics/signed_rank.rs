//! Where the centre of a few values lies, whatever some of them do: Wilcoxon's signed ranks.

use super::Interval;

/// The centre of values and where it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Centre {
    /// Hodges and Lehmann's estimate: the median of the means of all pairs of values, each with itself among them.
    pub estimate: f64,
    /// Where the centre lies with the confidence that was asked for, if values fall on either side of it alike. One value that is
    /// far away moves it by no more than one that is a little beyond the others.
    pub interval: Interval,
}

/// The centre of these values; `None` if they are too few for this confidence (8 are needed for 0.99), or not finite.
pub fn centre(values: &[f64], confidence: f64) -> Option<Centre> {
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let outside = outside(values.len(), confidence)?;
    let mut means: Vec<f64> =
        values.iter().enumerate().flat_map(|(i, x)| values[i..].iter().map(move |y| f64::midpoint(*x, *y))).collect();
    means.sort_unstable_by(f64::total_cmp);
    let at = |i: usize| means.get(i).copied();
    let last = means.len().checked_sub(1)?;
    let estimate = f64::midpoint(at(last / 2)?, at(last.div_ceil(2))?);
    Some(Centre { estimate, interval: Interval { low: at(outside)?, high: at(last - outside)? } })
}

/// Means of pairs that lie outside of the interval, on each side: the largest sum of the ranks of positive values that has at most
/// the probability (1 - confidence) / 2 to be as small as it is. `None` if even none of them is likelier.
fn outside(n: usize, confidence: f64) -> Option<usize> {
    // Of the 2^n choices of positive ranks, the share with each sum.
    let mut shares = vec![0.0; n * (n + 1) / 2 + 1];
    shares[0] = 1.0;
    for rank in 1..=n {
        for sum in (0..shares.len()).rev() {
            let with = sum.checked_sub(rank).map_or(0.0, |without| shares[without]);
            shares[sum] = 0.5 * (shares[sum] + with);
        }
    }
    let mut up_to = 0.0;
    let mut within = |share: &f64| {
        up_to += share;
        up_to <= (1.0 - confidence) / 2.0
    };
    shares.iter().take_while(|share| within(share)).count().checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_that_lie_outside_are_those_of_published_tables() {
        // Wilcoxon's critical values, two-sided, for 5, 2 and 1 per cent.
        for (n, values) in [
            (6, [Some(0), None, None]),
            (8, [Some(3), Some(1), Some(0)]),
            (10, [Some(8), Some(5), Some(3)]),
            (15, [Some(25), Some(19), Some(15)]),
            (20, [Some(52), Some(43), Some(37)]),
            (25, [Some(89), Some(76), Some(68)]),
        ] {
            assert_eq!([0.95, 0.98, 0.99].map(|confidence| outside(n, confidence)), values, "{n}");
        }
        assert_eq!(outside(0, 0.5), None);
    }

    #[test]
    fn one_value_far_away_moves_the_centre_little() {
        let even: Vec<f64> = (0..9).map(f64::from).collect();
        let found = centre(&even, 0.99).unwrap();
        assert_eq!((found.estimate, found.interval), (4.0, Interval { low: 0.5, high: 7.5 }));
        let far: Vec<f64> = even[..8].iter().copied().chain([1e9]).collect();
        let moved = centre(&far, 0.99).unwrap();
        assert_eq!((moved.estimate, moved.interval.low), (4.0, 0.5));
        assert_eq!(centre(&[1.0; 7], 0.99), None, "too few");
        assert_eq!(centre(&[f64::NAN; 9], 0.99), None);
        let same = centre(&[2.0; 8], 0.99).unwrap();
        assert_eq!((same.estimate, same.interval), (2.0, Interval { low: 2.0, high: 2.0 }));
    }
}
