use super::*;
use crate::kar::fuse::Fusion;
use crate::kar::order::Order;

/// Weights by all of the world's rankings.
fn fitted(settings: &Settings, oracle: &mut Oracle, journal: Option<&mut Journal>) -> Result<Fusion> {
    let (dataset, rankings, _folder) = world();
    let drawn = sample(&rankings, usize::MAX, 0);
    let template = Template::built_in(settings.strategy)?;
    fit_weights(&drawn, &dataset, &template, settings, oracle, journal, &ProgressBar::hidden())
}

fn with(fusion: &Fusion) -> Settings {
    Settings { weights: Some(fusion.weights.clone()), ..FOUR() }
}

#[test]
fn a_model_that_knows_is_weighed_and_orders_all_options() {
    for (order, prior) in [(Order::BestFirst, [0.0; 4]), (Order::Shuffled, [4.0, 0.0, 1.0, 2.0])] {
        let oracle = || Oracle { prior, ..Oracle::new() };
        let settings = Settings { order, ..FOUR() };
        let fusion = fitted(&settings, &mut oracle(), None).unwrap();
        assert!(fusion.reason.is_none() && fusion.weights.model > 0.0, "{fusion:?}");
        // Before, a quarter of the right ones is first.
        assert_eq!((fusion.fitted, fusion.spent.calls, fusion.hits1.mean), (MENTIONS, MENTIONS, 0.75));
        let settings = Settings { order, ..with(&fusion) };
        let outcome = outcome(&settings, &mut oracle(), None).unwrap();
        assert_eq!(ranks(&outcome), [1; MENTIONS]);
        for reranked in &outcome.reranked {
            let Verdict::Answered { probabilities: Some(p) } = &reranked.verdict else { panic!("{reranked:?}") };
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(reranked.order[..4].windows(2).all(|pair| p[pair[0]] >= p[pair[1]]));
            assert_eq!(reranked.order[4..], [4, 5]);
        }
    }
}

#[test]
fn a_model_without_weight_is_not_asked_and_moves_nothing() {
    // Of no relation to what is right; and one that looks at letters alone.
    let guesses =
        Oracle { right: |mention| format!("entity {}", (mention * mention / 3 + mention / 7) % 4), ..Oracle::new() };
    let likes_a = Oracle { certainty: 0.0, prior: [3.0, 0.0, 0.0, 0.0], ..Oracle::new() };
    for mut oracle in [guesses, likes_a] {
        let fusion = fitted(&FOUR(), &mut oracle, None).unwrap();
        assert!(fusion.weights.model == 0.0 && fusion.reason.is_some(), "{fusion:?}");
        assert_eq!(oracle.asked, MENTIONS);
        let outcome = outcome(&with(&fusion), &mut oracle, None).unwrap();
        assert_eq!((oracle.asked, outcome.spent.calls), (MENTIONS, 0));
        for reranked in &outcome.reranked {
            assert!(reranked.order == [0, 1, 2, 3, 4, 5] && reranked.verdict == Verdict::Weightless);
        }
    }
}

#[test]
fn what_was_answered_is_not_asked_again_to_fit_weights() {
    let (dataset, _, folder) = world();
    let run = RunFile::read(&folder.path().join("entities.jsonl")).unwrap();
    let template = Template::built_in(Strategy::SelectOne).unwrap();
    let header = Header::new(&Oracle::new(), &FOUR(), &template, &dataset, &run).unwrap();
    let open = || Journal::open(&folder.path().join("journal.jsonl"), &header).unwrap();
    let whole = fitted(&FOUR(), &mut Oracle::new(), None).unwrap();
    let mut oracle = Oracle { endurance: 25, ..Oracle::new() };
    assert!(fitted(&FOUR(), &mut oracle, Some(&mut open())).is_err());
    let resumed = fitted(&FOUR(), &mut Oracle::new(), Some(&mut open())).unwrap();
    assert_eq!((resumed.spent.calls, resumed.spent.from_journal), (MENTIONS - 25, 25));
    assert_eq!((resumed.weights.clone(), resumed.hits1), (whole.weights, whole.hits1));
    // The weights change nothing in what is asked.
    let outcome = outcome(&with(&resumed), &mut Oracle::new(), Some(&mut open())).unwrap();
    assert_eq!((outcome.spent.calls, outcome.spent.from_journal), (0, MENTIONS));
}

#[test]
fn the_gate_and_short_lists_leave_mentions_out_of_the_fit() {
    let (_, rankings, _folder) = world();
    let settings = Settings { gate: Some(margin(&rankings[30]).unwrap()), ..FOUR() };
    let fusion = fitted(&settings, &mut Oracle::new(), None).unwrap();
    // Half of them are right: what is expected is over all.
    assert_eq!((fusion.fitted, fusion.mentions, fusion.spent.calls), (30, MENTIONS, 30));
    let right = rankings[..30].iter().filter(|ranking| ranking.rank(0..6) == Some(1)).count();
    assert_eq!(fusion.hits1.mean, (30 - right) as f64 / MENTIONS as f64);
}

#[test]
fn what_weights_cannot_be_fitted_on_or_applied_to_is_named() {
    let (dataset, rankings, _folder) = world();
    let template = Template::built_in(Strategy::SelectOne).unwrap();
    let refused = |rankings: &[Ranking], settings: &Settings, oracle: &mut Oracle| {
        let hidden = ProgressBar::hidden();
        fit_weights(rankings, &dataset, &template, settings, oracle, None, &hidden).unwrap_err().to_string()
    };
    let mut oracle = Oracle::new();
    let error = refused(&rankings[..19], &FOUR(), &mut oracle);
    assert!(error.contains("19 of 19 drawn mentions") && error.contains("20 are needed"), "{error}");
    let mut elsewhere = rankings.clone();
    elsewhere.iter_mut().for_each(|ranking| ranking.mention.gold = Some(7));
    let error = refused(&elsewhere, &FOUR(), &mut oracle);
    assert!(error.contains("0 of 40 drawn") && error.contains("0 have their gold") && error.contains("--k"), "{error}");
    let error = refused(&rankings, &Settings { gate: Some(0.0), ..FOUR() }, &mut oracle);
    assert!(error.contains("40 have their gold entity") && error.contains("--gate"), "{error}");
    assert!(refused(&[], &FOUR(), &mut oracle).contains("0 of 0"));
    let text = Settings { scoring: Scoring::Generate, ..FOUR() };
    assert!(refused(&rankings, &text, &mut oracle).contains("add --scoring logits"));
    let debiased = Settings { debias: Some(0.1), ..FOUR() };
    assert!(refused(&rankings, &debiased, &mut oracle).contains("leave out --debias"));
    let mut mixed = rankings.clone();
    mixed[5].scores = None;
    let error = refused(&mixed, &FOUR(), &mut oracle);
    assert!(error.contains("mention `m5`") && error.contains("no `scores`"), "{error}");
    assert_eq!(oracle.asked, 0);
    let fusion = fitted(&FOUR(), &mut Oracle::new(), None).unwrap();
    let apply = |rankings: &[Ranking]| {
        let hidden = ProgressBar::hidden();
        rerank(rankings, &dataset, &template, &with(&fusion), &mut Oracle::new(), None, &hidden)
    };
    assert!(apply(&mixed).unwrap_err().to_string().contains("mention `m5`"));
    assert!(outcome(&Settings { scoring: Scoring::Generate, ..with(&fusion) }, &mut Oracle::new(), None).is_err());
    // Without scores anywhere, the ranks are the ranking's evidence.
    mixed.iter_mut().for_each(|ranking| ranking.scores = None);
    assert!(apply(&mixed).unwrap_err().to_string().contains("no `scores`"));
    let drawn = sample(&mixed, usize::MAX, 0);
    let hidden = ProgressBar::hidden();
    let of_ranks = fit_weights(&drawn, &dataset, &template, &FOUR(), &mut Oracle::new(), None, &hidden).unwrap();
    assert!(!of_ranks.weights.scored && of_ranks.weights.model > 0.0);
    assert!(rerank(&mixed, &dataset, &template, &with(&of_ranks), &mut Oracle::new(), None, &hidden).is_ok());
    // A model whose answers have no letters.
    struct Silent;
    impl LanguageModel for Silent {
        fn identity(&self) -> String {
            "silent".into()
        }
        fn answer(
            &mut self,
            questions: &[Question],
            _: Wanted,
            on_reply: &mut dyn FnMut(usize, Reply) -> Result<()>,
        ) -> Result<()> {
            let said = Said::Unsure("I".into());
            let reply = Reply { said, prompt_tokens: 0, computed_tokens: 0, new_tokens: 0 };
            (0..questions.len()).try_for_each(|i| on_reply(i, reply.clone()))
        }
    }
    let silent = fit_weights(&rankings, &dataset, &template, &FOUR(), &mut Silent, None, &hidden);
    let error = silent.unwrap_err().to_string();
    assert!(error.contains("40 answers do not begin with a letter") && error.contains("--least-share"), "{error}");
}

#[test]
fn a_sample_is_drawn_by_its_seed_of_mentions_with_gold() {
    let (_, mut rankings, _folder) = world();
    rankings[3].mention.gold = None;
    let ids = |n, seed| sample(&rankings, n, seed).iter().map(|r| r.mention.id.clone()).collect::<Vec<_>>();
    assert_eq!((ids(10, 0).len(), ids(100, 0).len()), (10, MENTIONS - 1));
    assert!(ids(10, 0) == ids(10, 0) && ids(10, 0) != ids(10, 1) && !ids(100, 0).contains(&"m3".to_string()));
}
