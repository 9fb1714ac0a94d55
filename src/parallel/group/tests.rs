use super::*;

fn together<T: Send>(size: usize, work: impl Fn(&Group) -> T + Sync) -> Vec<T> {
    let places: Vec<String> = (0..size).map(|i| format!("thread {i}")).collect();
    let groups = Group::within(&places, Duration::from_secs(20)).unwrap();
    thread::scope(|scope| {
        let run = |group: Group| {
            let work = &work;
            scope.spawn(move || work(&group))
        };
        let threads: Vec<_> = groups.into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn sums_have_the_bits_of_adding_in_the_order_of_the_ranks_and_move_what_the_formula_says() {
    for (size, len) in [(1, 10), (2, 1000), (3, 7), (4, 2), (5, 1001), (2, 0)] {
        let value = |rank: usize, i: usize| (1.0 + (rank * len + i) as f32).sqrt();
        let want: Vec<f32> = (0..len).map(|i| (1..size).fold(value(0, i), |sum, rank| sum + value(rank, i))).collect();
        let got = together(size, |group| {
            let mut values: Vec<f32> = (0..len).map(|i| value(group.rank(), i)).collect();
            group.sum(&mut values).unwrap();
            group.finish().unwrap();
            (values, group.sent())
        });
        assert!(got.iter().all(|(values, _)| *values == want), "{size} ranks");
        let sent: u64 = got.iter().map(|(_, sent)| sent).sum();
        // 2 (n - 1) / n of the bytes on average, whatever the remainder.
        assert_eq!(sent, 2 * (size as u64 - 1) * 4 * len as u64, "{size} ranks, {len} values");
    }
}

#[test]
fn what_differs_is_named_by_all_ranks_alike() {
    let said = together(3, |group| {
        let seed = if group.rank() == 1 { 5 } else { 4 };
        let error = group.agree(&serde_json::json!({"train": {"seed": seed, "epochs": 2}})).unwrap_err();
        group.stop(&error);
        error.to_string()
    });
    for said in said {
        assert!(said.contains("rank 1 (thread 1) differs from rank 0: train.seed is 5 and not 4"), "{said}");
    }
}

#[test]
fn a_rank_that_fails_ends_the_others_with_its_words() {
    let said = together(3, |group| match group.rank() {
        2 => {
            group.stop(&Error::invalid("the disk is full"));
            String::new()
        }
        _ => group.gather(&[1]).unwrap_err().to_string(),
    });
    assert!(said[..2].iter().all(|said| said.contains("rank 2 (thread 2) stopped: the disk is full")), "{said:?}");
}

#[test]
fn parts_are_whole_in_order_and_nearly_equal() {
    for (of, parts) in [(10, 3), (2, 4), (0, 2), (256, 2)] {
        let all: Vec<usize> = (0..parts).flat_map(|which| part(of, which, parts)).collect();
        assert_eq!(all, (0..of).collect::<Vec<_>>());
        assert!((0..parts).all(|which| part(of, which, parts).len().abs_diff(of / parts) <= 1));
    }
}
