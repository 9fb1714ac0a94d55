use super::*;
use crate::kar::order::Order;
use crate::kar::report::Report;

/// What becomes of the world's rankings, as a report has it.
fn reported(settings: &Settings, oracle: &mut Oracle) -> Report {
    let (_, rankings, _folder) = world();
    let outcome = outcome(settings, oracle, None).unwrap();
    Report::new("oracle".into(), settings, &rankings, MENTIONS, &outcome)
}

#[test]
fn options_are_shown_in_the_order_that_is_asked_for_and_answers_are_read_in_it() {
    let (dataset, rankings, _folder) = world();
    for order in [Order::BestFirst, Order::Shuffled, Order::WorstFirst] {
        let settings = Settings { order, ..FOUR() };
        let template = Template::built_in(settings.strategy).unwrap();
        let subject = Subject { dataset: &dataset, template: &template, settings: &settings };
        let mut at_a = [0; 4];
        for ranking in &rankings {
            let prompt = subject.question(0, ranking, 0).unwrap().prompt.user;
            let place = |at: usize| prompt.find(&format!(". entity {}:", ranking.candidates[at])).unwrap();
            let shown = settings.shown(ranking);
            assert!(shown.windows(2).all(|pair| place(pair[0]) < place(pair[1])), "{prompt}");
            at_a[shown[0]] += 1;
        }
        match order {
            Order::BestFirst => assert_eq!(at_a, [MENTIONS, 0, 0, 0]),
            Order::WorstFirst => assert_eq!(at_a, [0, 0, 0, MENTIONS]),
            Order::Shuffled => assert!(at_a.iter().all(|&n| n > 2), "{at_a:?}"),
        }
        for scoring in [Scoring::Letters, Scoring::Generate] {
            for strategy in [Strategy::SelectOne, Strategy::RankTopK] {
                let settings = Settings { scoring, strategy, ..settings.clone() };
                assert_eq!(ranks(&outcome(&settings, &mut Oracle::new(), None).unwrap()), [1; MENTIONS]);
            }
        }
        let debiased = Settings { debias: Some(0.2), ..settings.clone() };
        let mut biased = Oracle { prior: [3.0, 0.0, 1.0, 2.0], ..Oracle::new() };
        assert_eq!(ranks(&outcome(&debiased, &mut biased, None).unwrap()), [1; MENTIONS]);
    }
    // What a text names in an order counts in it.
    let words: fn(usize, char) -> String = |_, _| "A > C".into();
    let mut oracle = Oracle { words: Some(words), ..Oracle::new() };
    let settings =
        Settings { scoring: Scoring::Generate, strategy: Strategy::RankTopK, order: Order::WorstFirst, ..FOUR() };
    assert_eq!(outcome(&settings, &mut oracle, None).unwrap().reranked[0].order, [3, 1, 0, 2, 4, 5]);
}

#[test]
fn the_report_shows_a_model_that_likes_a_letter_by_what_stands_there() {
    let likes_a = || Oracle { certainty: 0.0, prior: [1.0, 0.0, 0.0, 0.0], ..Oracle::new() };
    for order in [Order::BestFirst, Order::WorstFirst] {
        let report = reported(&Settings { order, ..FOUR() }, &mut likes_a());
        // The right one is first, second, third or fourth in a quarter of the rankings each.
        let counts: Vec<_> = report.by_letter.iter().map(|at| (at.letter, at.right, at.found, at.chosen)).collect();
        assert_eq!(counts, [('A', 10, 10, 40), ('B', 10, 0, 0), ('C', 10, 0, 0), ('D', 10, 0, 0)]);
        // It moves nothing where the ranking's choice stands at A, and the last one to the front otherwise.
        assert_eq!(report.changes.degraded, if order == Order::BestFirst { 0 } else { 30 });
    }
    let report = reported(&Settings { order: Order::Shuffled, ..FOUR() }, &mut Oracle::new());
    assert!(report.by_letter.iter().all(|at| at.right == at.found && at.found == at.chosen));
    assert_eq!(report.by_letter.iter().map(|at| at.right).sum::<usize>(), MENTIONS);
    // An answer that is a text is one too; one that names nothing is none.
    let words: fn(usize, char) -> String = |mention, _| if mention % 2 == 0 { "B".into() } else { "no idea".into() };
    let mut oracle = Oracle { words: Some(words), ..Oracle::new() };
    let report = reported(&Settings { scoring: Scoring::Generate, ..FOUR() }, &mut oracle);
    assert_eq!(report.by_letter.iter().map(|at| at.chosen).collect::<Vec<_>>(), [0, 20, 0, 0]);
}

#[test]
fn debiasing_asks_its_sample_first_and_refuses_what_makes_the_ranking_worse() {
    // It is sure of what is wrong: of the entity behind the right one.
    let wrong = || Oracle { right: |mention| format!("entity {}", (mention + 1) % 4), ..Oracle::new() };
    let settings = Settings { debias: Some(0.6), ..FOUR() };
    let mut oracle = wrong();
    let error = outcome(&settings, &mut oracle, None).unwrap_err().to_string();
    assert!(error.contains("on the 24 sampled mentions") && error.contains("--allow-worse"), "{error}");
    assert_eq!(oracle.asked, 24 * 4);
    let told = outcome(&Settings { allow_worse: true, ..settings.clone() }, &mut wrong(), None).unwrap();
    let sample = told.sample.unwrap();
    assert!(sample.reciprocal.unwrap().mean < 0.0 && !sample.is_mostly_letters(), "{sample:?}");
    // Too small a sample says nothing.
    assert!(outcome(&Settings { debias: Some(0.2), ..FOUR() }, &mut wrong(), None).is_ok());
    let knows = outcome(&settings, &mut Oracle::new(), None).unwrap().sample.unwrap();
    assert!(knows.reciprocal.unwrap().mean > 0.0 && knows.judged == 24 && knows.mentions == 24);
    let mut likes_letters = Oracle { prior: [3.0, 0.0, 1.0, 2.0], certainty: 0.3, ..Oracle::new() };
    assert!(outcome(&settings, &mut likes_letters, None).unwrap().sample.unwrap().is_mostly_letters());
}
