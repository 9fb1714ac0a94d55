use rand::Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use super::*;
use crate::kar::instruction::letter;
use crate::random::{Purpose, generator};

const OPTIONS: [Choice; 5] = [
    Choice { name: "Jordan", qid: "Q810" },
    Choice { name: "Michael Jordan", qid: "Q41421" },
    Choice { name: "Michael B. Jordan", qid: "Q6829" },
    Choice { name: "Jordan River", qid: "Q40059" },
    Choice { name: "Air Jordan", qid: "Q407895" },
];

fn parse(answer: &str, options: &[Choice], strategy: Strategy) -> Vec<usize> {
    match read(answer, options, strategy) {
        Reading::Named(order) => order,
        Reading::Invalid | Reading::Unfinished => Vec::new(),
    }
}

fn select(answer: &str) -> Option<usize> {
    parse(answer, &OPTIONS, Strategy::SelectOne).first().copied()
}

fn rank(answer: &str) -> Vec<usize> {
    parse(answer, &OPTIONS, Strategy::RankTopK)
}

#[test]
fn one_option_is_found_however_it_is_said() {
    for answer in [
        "B",
        " B.",
        "b",
        "(b)",
        "B)",
        "B. Michael Jordan",
        "B: Michael Jordan, who played basketball",
        "**B**",
        "**B. Michael Jordan**",
        "\"B\"",
        "`B`",
        "[B]",
        "[[B]]",
        "$\\boxed{B}$",
        "<answer>B</answer>",
        "{\"answer\": \"B\"}",
        "Answer: B",
        "answer: b",
        "Answer: (B) Michael Jordan.",
        "The answer is B.",
        "The answer is B because A is a country.",
        "The correct answer is: B. Michael Jordan",
        "Sure! The answer is option B.",
        "Based on the text, the mention \"Jordan\" refers to B. Michael Jordan.",
        "Based on the text, the mention [[Jordan]] most likely refers to Michael Jordan.",
        "I would choose B, since A is a country and C an actor.",
        "Option B",
        "It is option B, not option A.",
        "It cannot be A. It isn't the Jordan River. It is B",
        "Not A but B",
        "B rather than A",
        "Q41421",
        "The entity is Q41421 (Michael Jordan), not Q810.",
        "michael jordan",
        "Michael  Jordan\n",
        "The basketball player Michael Jordan.",
        "B\nB\nB",
        "B\n\nExplanation: A is a country, C an actor, D a river.",
        "B\n\nText: another text\nMention: other\n\nEntities:\nA. one",
        "A is a country. C is an actor. D is a river. Therefore, the answer is B.",
        "A. Jordan is a country.\nB. Michael Jordan is a player.\nThe best answer is B.",
        "<think>It could be A. Or is it C?</think>\n\nB",
        "A king is not meant here; the text is about basketball, hence B fits.",
        "I think B",
        "Answer:\n\nB",
        "1. B",
        "- B",
        "I'm sure that it's B.",
        "The A-level player: B",
    ] {
        assert_eq!(select(answer), Some(1), "{answer:?}");
    }
    for answer in ["A", "A.", "A. Jordan", "The answer is A", "The answer is A, a country.", "A: a kingdom", "Jordan"] {
        assert_eq!(select(answer), Some(0), "{answer:?}");
    }
    assert_eq!(select("Michael B. Jordan"), Some(2));
    assert_eq!(select("The actor Michael B. Jordan."), Some(2));
}

#[test]
fn an_answer_that_names_none_is_invalid() {
    for answer in [
        "",
        "  \n",
        "F",
        "The answer is G.",
        "None of them.",
        "Neither A nor B",
        "I don't know.",
        "I cannot tell; a text would help.",
        "A man who played basketball",
        "7",
        "42",
        "Q1",
        "U.S.A.",
        "A-level",
        "R&B",
        "<think>It is B, no doubt",
        "AB-CD",
        "🙂",
        "\u{0}\u{feff}",
    ] {
        assert_eq!(select(answer), None, "{answer:?}");
        assert!(rank(answer).is_empty(), "{answer:?}");
    }
}

#[test]
fn an_order_is_found_however_it_is_said() {
    let order = [1, 0, 4, 2, 3];
    for answer in [
        "B > A > E > C > D",
        "B>A>E>C>D",
        "[B] > [A] > [E] > [C] > [D]",
        "B, A, E, C, D",
        "B, A, E, C, and D.",
        "B A E C D",
        "BAECD",
        "The order is BAECD.",
        "[\"B\", \"A\", \"E\", \"C\", \"D\"]",
        "1. B\n2. A\n3. E\n4. C\n5. D",
        "1) B. Michael Jordan\n2) A. Jordan\n3) E. Air Jordan\n4) C. Michael B. Jordan\n5) D. Jordan River",
        "1. Michael Jordan\n2. Jordan\n3. Air Jordan\n4. Michael B. Jordan\n5. Jordan River",
        "Michael Jordan > Jordan > Air Jordan > Michael B. Jordan > Jordan River",
        "- **B. Michael Jordan**: the player\n- **A. Jordan**: the country\n- **E**\n- **C**\n- **D**",
        "B -> A -> E -> C -> D",
        "B → A → E → C → D",
        "B > A > E > C > D > B > A > E > C > D",
        "B, A, F, E, G, C, D",
        "Q41421, Q810, Q407895, Q6829, Q40059",
        "First B, then A, then E, then C, then D",
        "A is a country, D a river. The order from best to worst: B > A > E > C > D",
        "B = A = E = C = D",
        "B\nA\nE\nC\nD",
        "B/A/E/C/D",
        "<think>A > B</think>B > A > E > C > D",
    ] {
        assert_eq!(rank(answer), order, "{answer:?}");
    }
    assert_eq!(rank("B > A"), [1, 0]);
    assert_eq!(rank("B"), [1]);
    assert_eq!(rank("D > D > D"), [3]);
}

#[test]
fn options_of_one_name_are_told_apart_by_letters_only() {
    let options = [
        Choice { name: "Paris", qid: "1" },
        Choice { name: "paris", qid: "2" },
        Choice { name: "Paris Hilton", qid: "3" },
    ];
    let select = |answer: &str| parse(answer, &options, Strategy::SelectOne);
    assert!(select("Paris").is_empty());
    assert_eq!(select("B. Paris"), [1]);
    assert_eq!(select("Paris Hilton"), [2]);
    // Identifiers that are mere numbers could be any number.
    assert!(select("2 of them").is_empty());
}

/// An answer of the corpus.
#[derive(serde::Deserialize)]
struct Example {
    family: String,
    strategy: Strategy,
    options: usize,
    answer: String,
    /// Letters, or `invalid` or `unfinished`.
    expected: String,
}

/// The habits of model families. What is read must be right; what cannot be read is counted.
#[test]
fn the_corpus_has_no_wrong_reading() {
    let corpus: Vec<Example> =
        include_str!("corpus.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let families: std::collections::HashSet<&str> = corpus.iter().map(|e| e.family.as_str()).collect();
    assert!(corpus.len() >= 400 && families.len() >= 15, "{} of {} families", corpus.len(), families.len());
    let mut unread = Vec::new();
    for example in &corpus {
        let got = match read(&example.answer, &OPTIONS[..example.options], example.strategy) {
            Reading::Named(order) => order.into_iter().map(letter).collect(),
            Reading::Invalid => "invalid".to_string(),
            Reading::Unfinished => "unfinished".to_string(),
        };
        if got == "invalid" && example.expected != "invalid" {
            unread.push(&example.answer);
            continue;
        }
        assert_eq!(got, example.expected, "{}: {:?}", example.family, example.answer);
    }
    assert_eq!(unread.len(), UNREAD, "{unread:?}");
}

/// Answers of the corpus that say something and are not read.
const UNREAD: usize = 10;

#[test]
fn a_letter_is_read_as_any_other_is() {
    for answer in [
        "@ is the best match.",
        "@ fits best.",
        "@ seems right",
        "I think @",
        "The answer is @.",
        "答案是@选项",
        "@ is a country.",
    ] {
        let read_as = |letter: &str| select(&answer.replace('@', letter));
        assert_eq!(read_as("A").map(|_| ()), read_as("B").map(|_| ()), "{answer}");
        assert!(read_as("A").is_none_or(|option| option == 0), "{answer}");
    }
}

/// Every order in every way of writing it down.
#[test]
fn any_order_in_any_list_is_read_back() {
    let mut rng = generator(0, Purpose::Demo, 1);
    // A letter for @, its place for #.
    let ways = ["@", "[@]", "(@)", "**@**", "\"@\"", "@.", "#. @", "Option @"];
    for n in 2..=26 {
        let names: Vec<String> = (0..n).map(|i| format!("entity number {i}")).collect();
        let qids: Vec<String> = (0..n).map(|i| format!("Q{}", 1000 + i)).collect();
        let options: Vec<Choice> = names.iter().zip(&qids).map(|(name, qid)| Choice { name, qid }).collect();
        for _ in 0..2 {
            let mut order: Vec<usize> = (0..n).collect();
            order.shuffle(&mut rng);
            for way in ways {
                let item = |(i, &o): (usize, &usize)| {
                    way.replace('@', &letter(o).to_string()).replace('#', &(i + 1).to_string())
                };
                let items: Vec<String> = order.iter().enumerate().map(item).collect();
                for separator in [" > ", ">", ", ", "\n", "; "] {
                    let text = items.join(separator);
                    assert_eq!(parse(&text, &options, Strategy::RankTopK), order, "{text:?}");
                    let select = parse(&text, &options, Strategy::SelectOne);
                    assert_eq!(select, order[..1], "{text:?}");
                }
            }
            let by = |texts: &[String]| order.iter().map(|&o| texts[o].clone()).collect::<Vec<_>>().join(", ");
            assert_eq!(parse(&by(&names), &options, Strategy::RankTopK), order);
            assert_eq!(parse(&by(&qids), &options, Strategy::RankTopK), order);
        }
    }
}

/// Whatever is said, the result is some options, each once.
#[test]
fn nothing_that_is_said_breaks_the_parser() {
    let pieces = [
        "A",
        "B",
        "E",
        "F",
        "Z",
        "a",
        "b",
        "I",
        " ",
        "  ",
        "\n",
        "\t",
        ".",
        ",",
        ":",
        ";",
        ">",
        "->",
        "→",
        "(",
        ")",
        "[",
        "]",
        "*",
        "**",
        "\"",
        "'",
        "’",
        "`",
        "-",
        "_",
        "&",
        "1.",
        "2)",
        "10",
        "option ",
        "answer is ",
        "Answer:",
        "not ",
        "neither ",
        "n't ",
        "order:",
        "refers to ",
        "and ",
        "then ",
        "Jordan",
        "Michael ",
        "Q810",
        "q41421",
        "U.S.",
        "<think>",
        "</think>",
        "é",
        "ß",
        "约",
        "🙂",
        "\u{301}",
        "\u{0}",
        "{",
        "}",
        "\\boxed{",
        "$",
        "the ",
        "is ",
        "\r\n",
        "…",
        "I'm",
    ];
    let mut rng = generator(1, Purpose::Demo, 2);
    for _ in 0..20_000 {
        let length = rng.random_range(0..14);
        let text: String = (0..length).filter_map(|_| pieces.choose(&mut rng).copied()).collect();
        for strategy in [Strategy::SelectOne, Strategy::RankTopK] {
            for options in [&OPTIONS[..], &OPTIONS[..2], &OPTIONS[..1], &[]] {
                let said = parse(&text, options, strategy);
                let distinct = said.iter().enumerate().all(|(i, o)| !said[..i].contains(o));
                assert!(distinct && said.iter().all(|&o| o < options.len()), "{text:?}: {said:?}");
                assert!(strategy == Strategy::RankTopK || said.len() <= 1);
            }
        }
    }
}
