mod fused;
mod order;

use super::*;
use crate::data::{Mention, RunFile, Skipped, Tolerance};
use crate::kar::Header;
use crate::kar::instruction::Strategy;
use crate::kar::instruction::letter;
use crate::kar::model::{Said, Wanted};
use crate::kar::types::Scoring;

/// A model that knows which entity is right, as far as `certainty` goes, and likes letters by `prior`.
struct Oracle {
    right: fn(usize) -> String,
    certainty: f32,
    prior: [f32; 4],
    /// What it says instead of a letter.
    words: Option<fn(usize, char) -> String>,
    asked: usize,
    /// Fails after so many answers.
    endurance: usize,
}

impl Oracle {
    fn new() -> Oracle {
        let right = |mention| format!("entity {}", mention % 4);
        Oracle { right, certainty: 1.0, prior: [0.0; 4], words: None, asked: 0, endurance: usize::MAX }
    }
}

impl LanguageModel for Oracle {
    fn identity(&self) -> String {
        "oracle".into()
    }

    fn answer(
        &mut self,
        questions: &[Question],
        wanted: Wanted,
        on_reply: &mut dyn FnMut(usize, Reply) -> Result<()>,
    ) -> Result<()> {
        // In an order of its own.
        for (i, question) in questions.iter().enumerate().rev().filter(|(_, q)| !q.answered) {
            if self.asked == self.endurance {
                return Err(Error::invalid("out of breath"));
            }
            self.asked += 1;
            let mention: usize = question.mention[1..].parse().unwrap();
            let at = |p: usize| format!("\n{}. {}", letter(p), (self.right)(mention));
            let right = (0..question.options).find(|&p| question.prompt.user.contains(&at(p))).unwrap_or(0);
            let said = match (wanted, self.words) {
                (Wanted::Letters { .. }, _) => {
                    let logit = |p: usize| self.prior[p] + if p == right { self.certainty } else { 0.0 };
                    Said::Letters((0..question.options).map(logit).collect())
                }
                (_, Some(words)) => Said::Text(words(mention, letter(right))),
                (_, None) => Said::Text(letter(right).to_string()),
            };
            on_reply(i, Reply { said, prompt_tokens: 10, computed_tokens: 5, new_tokens: 1 })?;
        }
        Ok(())
    }
}

const MENTIONS: usize = 40;

/// A dataset of eight entities, and rankings of six of them whose first four hold every mention's right one.
fn world() -> (Dataset, Vec<Ranking>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let entity = |i| format!("{{\"qid\":\"Q{}\",\"name\":\"entity {i}\",\"description\":\"number {i}\"}}\n", 100 + i);
    let entities: String = (0..8).map(entity).collect();
    std::fs::write(folder.path().join("entities.jsonl"), entities).unwrap();
    let dataset = Dataset::open(folder.path(), Tolerance::Strict, &mut Skipped::default()).unwrap();
    let ranking = |i: usize| {
        let (id, mention, sentence) = (format!("m{i}"), "it".to_string(), format!("What it means, the {i}th time."));
        let candidates = (0..6).map(|c: u32| if c < 4 { (c + i as u32 / 4) % 4 } else { c }).collect();
        let mention = Mention { id, mention, sentence, image: None, candidates: None, gold: Some(i as u32 % 4) };
        let scores = (0..6).map(|c| -(c as f32) * i as f32 / 10.0).collect();
        Ranking { mention, candidates, scores: Some(scores) }
    };
    (dataset, (0..MENTIONS).map(ranking).collect(), folder)
}

fn outcome(settings: &Settings, oracle: &mut Oracle, journal: Option<&mut Journal>) -> Result<Outcome> {
    let (dataset, rankings, _folder) = world();
    let template = Template::built_in(settings.strategy)?;
    rerank(&rankings, &dataset, &template, settings, oracle, journal, &ProgressBar::hidden())
}

/// New ranks of the right entities.
fn ranks(outcome: &Outcome) -> Vec<usize> {
    let (_, rankings, _folder) = world();
    rankings.iter().zip(&outcome.reranked).filter_map(|(r, new)| r.rank(new.order.iter().copied())).collect()
}

const FOUR: fn() -> Settings = || Settings { k: 4, ..Settings::default() };

#[test]
fn a_model_that_knows_puts_the_right_one_first_however_it_is_asked() {
    for scoring in [Scoring::Letters, Scoring::Generate] {
        for strategy in [Strategy::SelectOne, Strategy::RankTopK] {
            let settings = Settings { scoring, strategy, ..FOUR() };
            let outcome = outcome(&settings, &mut Oracle::new(), None).unwrap();
            assert_eq!(ranks(&outcome), [1; MENTIONS]);
            assert!(outcome.reranked.iter().all(|r| r.order[4..] == [4, 5]));
            assert_eq!((outcome.spent.calls, outcome.spent.prompt_tokens), (MENTIONS, 10 * MENTIONS));
        }
    }
}

#[test]
fn select_one_moves_one_and_rank_top_k_all_that_are_named() {
    let say = |strategy, words| {
        let mut oracle = Oracle { words: Some(words), ..Oracle::new() };
        let settings = Settings { scoring: Scoring::Generate, strategy, ..FOUR() };
        outcome(&settings, &mut oracle, None).unwrap().reranked[0].order.clone()
    };
    let three: fn(usize, char) -> String = |_, _| "D > B > A".into();
    assert_eq!(say(Strategy::RankTopK, three), [3, 1, 0, 2, 4, 5]);
    assert_eq!(say(Strategy::SelectOne, three), [3, 0, 1, 2, 4, 5]);
    let prior = |strategy| {
        let mut oracle = Oracle { prior: [0.0, 1.0, 3.0, 2.0], certainty: 0.0, ..Oracle::new() };
        outcome(&Settings { strategy, ..FOUR() }, &mut oracle, None).unwrap().reranked[0].order.clone()
    };
    assert_eq!(prior(Strategy::RankTopK), [2, 3, 1, 0, 4, 5]);
    assert_eq!(prior(Strategy::SelectOne), [2, 0, 1, 3, 4, 5]);
}

#[test]
fn an_invalid_answer_keeps_the_old_order() {
    let words: fn(usize, char) -> String = |mention, letter| match mention % 2 {
        0 => "no idea".into(),
        _ => letter.to_string(),
    };
    let mut oracle = Oracle { words: Some(words), ..Oracle::new() };
    let outcome = outcome(&Settings { scoring: Scoring::Generate, ..FOUR() }, &mut oracle, None).unwrap();
    for (i, reranked) in outcome.reranked.iter().enumerate() {
        match i % 2 {
            0 => {
                assert!(reranked.order == [0, 1, 2, 3, 4, 5] && reranked.verdict == Verdict::Invalid("no idea".into()))
            }
            _ => assert!(matches!(reranked.verdict, Verdict::Answered { .. })),
        }
    }
}

#[test]
fn debiasing_undoes_a_love_of_letters() {
    let oracle = || Oracle { prior: [3.0, 0.0, 1.0, 2.0], ..Oracle::new() };
    let biased = outcome(&FOUR(), &mut oracle(), None).unwrap();
    let fair = outcome(&Settings { debias: Some(0.1), ..FOUR() }, &mut oracle(), None).unwrap();
    assert!(ranks(&biased).iter().any(|&r| r > 1));
    assert_eq!(ranks(&fair), [1; MENTIONS]);
    // A tenth of the mentions is asked four times.
    assert_eq!((biased.spent.calls, fair.spent.calls), (MENTIONS, MENTIONS + 4 * 3));
    let of_letters = [3f64, 0.0, 1.0, 2.0].map(f64::exp);
    let sum: f64 = of_letters.iter().sum();
    let prior = fair.prior.unwrap();
    assert!(prior.letters().iter().zip(of_letters).all(|(p, q)| (p - q / sum).abs() < 1e-6));
}

#[test]
fn the_gate_asks_where_the_margin_is_small() {
    // The margin of mention i grows with i.
    let (_, rankings, _folder) = world();
    let gate = margin(&rankings[10]).unwrap();
    let mut oracle = Oracle::new();
    let outcome = outcome(&Settings { gate: Some(gate), ..FOUR() }, &mut oracle, None).unwrap();
    assert_eq!((oracle.asked, outcome.spent.calls_saved), (10, 30));
    assert!(outcome.reranked.iter().enumerate().all(|(i, r)| (r.verdict == Verdict::Sure) == (i >= 10)));
}

#[test]
fn what_the_journal_holds_is_not_asked_again() {
    let (dataset, _, folder) = world();
    let (path, settings) = (folder.path().join("journal.jsonl"), Settings { debias: Some(0.2), ..FOUR() });
    let run = RunFile::read(&folder.path().join("entities.jsonl")).unwrap();
    let template = Template::built_in(settings.strategy).unwrap();
    let header = Header::new(&Oracle::new(), &settings, &template, &dataset, &run).unwrap();
    let mut calls = Vec::new();
    let whole = outcome(&settings, &mut Oracle::new(), None).unwrap();
    loop {
        let mut journal = Journal::open(&path, &header).unwrap();
        let mut oracle = Oracle { endurance: 25, ..Oracle::new() };
        let result = outcome(&settings, &mut oracle, Some(&mut journal));
        calls.push(oracle.asked);
        if let Ok(resumed) = result {
            assert_eq!(resumed.reranked, whole.reranked);
            assert_eq!(resumed.spent.from_journal + resumed.spent.calls, whole.spent.calls);
            break;
        }
    }
    assert_eq!((calls.iter().sum::<usize>(), calls.len()), (whole.spent.calls, 3));

    // A file may hold anything: what cannot be an answer to its question is named with its line.
    let good = std::fs::read_to_string(&path).unwrap();
    let second = good.lines().nth(1).unwrap();
    let spoilt = |says: &str| {
        let (start, _) = second.split_once("{\"letters\":[").unwrap();
        let (_, end) = second.split_once("]}").unwrap();
        good.replace(second, &format!("{start}{says}{end}"))
    };
    let resumed = |text: String, settings: &Settings, header: &Header| {
        std::fs::write(&path, text).unwrap();
        let mut journal = Journal::open(&path, header)?;
        outcome(settings, &mut Oracle::new(), Some(&mut journal))
    };
    for (says, reason) in [
        ("{\"letters\":[]}", "has 0 letters' logits for 4 options"),
        ("{\"letters\":[1,2,3,4,5]}", "has 5 letters' logits for 4 options"),
        ("{\"letters\":[1,2,3,1e300]}", "no finite number (inf)"),
        ("{\"letters\":[1,2,3,null]}", "is no valid record"),
    ] {
        let error = resumed(spoilt(says), &settings, &header).unwrap_err().to_string();
        assert!(error.contains("journal.jsonl:2: ") && error.contains(reason), "{error}");
        assert!(error.contains("remove this line"), "{error}");
    }
    let text = Settings { scoring: Scoring::Generate, debias: None, ..settings.clone() };
    let of_text = Header { scoring: Scoring::Generate, ..header.clone() };
    let error = resumed(good.replacen("\"logits\"", "\"generate\"", 1), &text, &of_text).unwrap_err().to_string();
    assert!(error.contains("journal.jsonl:") && error.contains("where a text was asked for"), "{error}");
    // Numbers of tokens have no bound either.
    let most = good.replace("\"prompt_tokens\":10", &format!("\"prompt_tokens\":{}", usize::MAX));
    assert_eq!(resumed(most, &settings, &header).unwrap().spent.prompt_tokens, usize::MAX);
}

#[test]
fn a_refused_question_stops_the_run_or_keeps_the_old_order() {
    struct Refuser;
    impl LanguageModel for Refuser {
        fn identity(&self) -> String {
            "refuser".into()
        }
        fn answer(
            &mut self,
            questions: &[Question],
            _: Wanted,
            on_reply: &mut dyn FnMut(usize, Reply) -> Result<()>,
        ) -> Result<()> {
            let reply =
                Reply { said: Said::Refused("too long".into()), prompt_tokens: 0, computed_tokens: 0, new_tokens: 0 };
            (0..questions.len()).try_for_each(|i| on_reply(i, reply.clone()))
        }
    }
    let (dataset, rankings, _folder) = world();
    let template = Template::built_in(Strategy::SelectOne).unwrap();
    let ask = |settings: &Settings| {
        rerank(&rankings, &dataset, &template, settings, &mut Refuser, None, &ProgressBar::hidden())
    };
    let error = ask(&FOUR()).unwrap_err().to_string();
    assert!(error.contains("mention `m0`: too long") && error.contains("--skip-bad"), "{error}");
    let kept = ask(&Settings { skip_refused: true, ..FOUR() }).unwrap();
    assert!(
        kept.reranked.iter().all(|r| r.order == [0, 1, 2, 3, 4, 5] && r.verdict == Verdict::Refused("too long".into()))
    );
}

#[test]
fn answers_that_end_in_thoughts_are_counted_apart_and_stop_a_run_of_nothing_else() {
    let thinking: fn(usize, char) -> String = |_, _| "<think>Option A is a".into();
    let settings = Settings { scoring: Scoring::Generate, ..FOUR() };
    let mut oracle = Oracle { words: Some(thinking), ..Oracle::new() };
    let error = outcome(&settings, &mut oracle, None).unwrap_err().to_string();
    assert!(error.contains("first 20 answers") && error.contains("--max-new-tokens (now 32)"), "{error}");
    let mostly: fn(usize, char) -> String = |mention, letter| match mention {
        MENTIONS_BUT_ONE => letter.to_string(),
        _ => "<think>Option A is a".into(),
    };
    let mut oracle = Oracle { words: Some(mostly), ..Oracle::new() };
    let outcome = outcome(&settings, &mut oracle, None).unwrap();
    let unfinished = outcome.reranked.iter().filter(|r| matches!(r.verdict, Verdict::Unfinished(_)));
    assert_eq!(unfinished.count(), MENTIONS - 1);
}

/// The mention that is answered first: the oracle begins with the last.
const MENTIONS_BUT_ONE: usize = MENTIONS - 1;
