//! A share of the training mentions, for learning curves (Fig. 7 of the paper).

use xxhash_rust::xxh3::xxh3_128;

/// `share` times as many of the mentions, rounded, but one at least, in the order they have. Which ones depends on the
/// seed and on their identifiers alone; those of a smaller share are among those of a larger one.
pub(super) fn take<T>(mentions: Vec<T>, share: f64, seed: u64, id: impl Fn(&T) -> &str) -> Vec<T> {
    let count = ((share * mentions.len() as f64).round() as usize).max(1);
    if count >= mentions.len() {
        return mentions;
    }
    let place = |mention: &T| xxh3_128(&[&seed.to_le_bytes()[..], id(mention).as_bytes()].concat());
    let mut order: Vec<(u128, usize)> = mentions.iter().enumerate().map(|(at, mention)| (place(mention), at)).collect();
    // Identifiers decide where places are equal, so that the order in the file never does.
    order.sort_unstable_by(|a, b| (a.0, id(&mentions[a.1])).cmp(&(b.0, id(&mentions[b.1]))));
    let mut taken = vec![false; mentions.len()];
    order[..count].iter().for_each(|&(_, at)| taken[at] = true);
    mentions.into_iter().zip(taken).filter_map(|(mention, taken)| taken.then_some(mention)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn mentions(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("train-{i}")).collect()
    }

    fn taken(mentions: Vec<String>, share: f64, seed: u64) -> Vec<String> {
        take(mentions, share, seed, |id| id)
    }

    fn set(mentions: Vec<String>) -> BTreeSet<String> {
        mentions.into_iter().collect()
    }

    #[test]
    fn a_share_is_of_the_exact_size_and_one_at_least() {
        let cases = [(1000, 0.1, 100), (18_092, 0.25, 4523), (10, 0.25, 3), (10, 0.24, 2), (7, 1e-9, 1), (7, 1.0, 7)];
        for (n, share, count) in cases {
            assert_eq!(taken(mentions(n), share, 0).len(), count, "{share} of {n}");
        }
        assert!(taken(Vec::new(), 0.5, 0).is_empty());
    }

    #[test]
    fn smaller_shares_are_within_larger_ones_whatever_the_order_of_the_file() {
        let shares = [0.01, 0.1, 0.25, 0.5, 0.99, 1.0].map(|share| taken(mentions(500), share, 3));
        for pair in shares.windows(2) {
            let [smaller, larger] = [0, 1].map(|i| set(pair[i].clone()));
            assert!(smaller.is_subset(&larger) && smaller.len() < larger.len());
        }
        let backwards: Vec<String> = mentions(500).into_iter().rev().collect();
        let same = taken(backwards, 0.25, 3);
        // In the order of the file, though.
        assert!(same.iter().rev().eq(&shares[2]), "{same:?}");
    }

    #[test]
    fn another_seed_takes_others() {
        // Of 1000, two independent halves have 500 * 500 / 1000 in common, give or take 5 deviations of
        // sqrt(500 * 500 * 500 * 500 / (1000^2 * 999)) = 7.9.
        for seed in 1..10 {
            let [one, other] = [0, seed].map(|seed| set(taken(mentions(1000), 0.5, seed)));
            let common = one.intersection(&other).count();
            assert!((211..=289).contains(&common), "{seed}: {common}");
        }
    }
}
