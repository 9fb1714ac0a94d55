use super::*;

fn decoder(share: bool, tokens: usize) -> (Decoder, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let texts = ["Which one is meant? Answer with a letter: A, B or C.", "The king of Jordan, a river"];
    let config = llama::Preset::Tiny.config();
    llama::write_random(folder.path(), &config, llama::Precision::F32, 5, texts.into_iter()).unwrap();
    let decoder = Decoder::open(folder.path(), None, None, false, Batching { tokens, share }).unwrap();
    (decoder, folder)
}

/// Whatever share of the probability the letters have: a random model gives them little.
const LETTERS: Wanted = Wanted::Letters { least_share: 0.0 };

/// Three mentions, the second of which is asked under three rotations.
fn questions() -> Vec<Question> {
    let texts = ["The king of Jordan spoke.", "A river that is in the north of Jordan.", "Jordan."];
    let question = |group: usize, options: [&str; 3]| {
        let user = format!("Which one is meant? {} {}", texts[group], options.join(", "));
        let prompt = Prompt { system: "Answer with a letter.".into(), user, reply: "Answer:".into() };
        Question { mention: group.to_string(), group, prompt, options: 3, answered: false }
    };
    let one = ["A. the river", "B. the king", "C. the place"];
    let rotated = [["A. the king", "B. the place", "C. the river"], ["A. the place", "B. the river", "C. the king"]];
    vec![question(0, one), question(1, one), question(1, rotated[0]), question(1, rotated[1]), question(2, one)]
}

fn replies(decoder: &mut Decoder, wanted: Wanted) -> Vec<Reply> {
    let questions = questions();
    let mut replies = vec![None; questions.len()];
    decoder
        .answer(&questions, wanted, &mut |i, reply| {
            assert!(replies[i].replace(reply).is_none());
            Ok(())
        })
        .unwrap();
    replies.into_iter().map(Option::unwrap).collect()
}

#[test]
fn shared_and_batched_prompts_give_what_each_alone_gives() {
    let questions = questions();
    for (share, tokens) in [(true, 4096), (true, 1), (false, 4096), (false, 90)] {
        let (mut decoder, _folder) = decoder(share, tokens);
        let letters = replies(&mut decoder, LETTERS);
        let texts = replies(&mut decoder, Wanted::Text { max_new_tokens: 5 });
        let prompts: Vec<Vec<u32>> = questions.iter().map(|q| decoder.tokens(&q.prompt).unwrap()).collect();
        for (i, prompt) in prompts.iter().enumerate() {
            let logits = decoder.llama.logits(prompt).unwrap();
            let last = &logits.data()[(prompt.len() - 1) * decoder.llama.config().vocab_size..];
            // This tokenizer knows the letters alone and after a space.
            let logit = |token: String| last[decoder.llama.tokenizer().id(&token).unwrap() as usize];
            let Said::Letters(got) = &letters[i].said else { panic!("{:?}", letters[i]) };
            for (letter, got) in got.iter().enumerate() {
                let letter = ["A", "B", "C"][letter];
                let want = (logit(letter.into()).exp() + logit(format!("\u{120}{letter}")).exp()).ln();
                // Sums in another order differ in their last bits.
                assert!((got - want).abs() < 1e-4 * want.abs().max(1.0), "{got} {want}");
            }
            let how = Generation { sampling: Sampling { temperature: 0.0, top_p: 1.0, seed: 0 }, max_new_tokens: 5 };
            let go_on = |_, _| ControlFlow::Continue(());
            let (answers, _) = decoder.llama.generate(None, &[prompt], how, go_on).unwrap();
            let want = decoder.llama.tokenizer().decode(&answers[0].tokens).unwrap();
            assert_eq!(texts[i].said, Said::Text(want));
            assert_eq!((letters[i].prompt_tokens, letters[i].new_tokens), (prompt.len(), 0));
        }
        let sum = |of: fn(&Reply) -> usize| letters.iter().map(of).sum::<usize>();
        let (all, computed) = (sum(|r| r.prompt_tokens), sum(|r| r.computed_tokens));
        if share {
            let common = common_len(prompts.iter());
            let of_one = common_len(prompts[1..4].iter());
            assert!(of_one >= common + LEAST_SHARED, "the sentence is shared by its rotations");
            assert_eq!(all - computed, 4 * common + 2 * (of_one - common));
        } else {
            assert_eq!(all, computed);
        }
    }
}

#[test]
fn what_is_asked_after_others_were_answered_has_the_same_bits() {
    let (mut decoder, _folder) = decoder(true, 90);
    let whole = replies(&mut decoder, LETTERS);
    for known in 0..5 {
        let mut questions = questions();
        questions.iter_mut().enumerate().for_each(|(i, q)| q.answered = i <= known && i != 2);
        let mut heard = Vec::new();
        let mut listen = |i: usize, reply: Reply| {
            heard.push(i);
            assert_eq!(reply, whole[i]);
            Ok(())
        };
        decoder.answer(&questions, LETTERS, &mut listen).unwrap();
        heard.sort_unstable();
        assert_eq!(heard, (0..5).filter(|&i| !questions[i].answered).collect::<Vec<_>>());
    }
}

#[test]
fn a_template_without_system_messages_gets_them_with_the_question() {
    let (decoder, _folder) = decoder(true, 100);
    assert_eq!(decoder.style, Style::ChatWithoutSystem);
    let tokens = decoder.tokens(&questions()[0].prompt).unwrap();
    let text = decoder.llama.tokenizer().decode(&tokens).unwrap();
    assert!(text.contains("[INST] Answer with a letter.\n\nWhich one") && text.ends_with("[/INST] Answer:"), "{text}");
}

#[test]
fn letters_that_are_improbable_are_no_answer() {
    let questions = questions();
    let (mut decoder, _folder) = decoder(true, 4096);
    let anyway = replies(&mut decoder, LETTERS);
    let last = |decoder: &Decoder, question: &Question| {
        let prompt = decoder.tokens(&question.prompt).unwrap();
        let logits = decoder.llama.logits(&prompt).unwrap();
        logits.data()[(prompt.len() - 1) * decoder.llama.config().vocab_size..].to_vec()
    };
    // The share of the letters A, B and C, alone and after a space, among all but quotes, brackets and markup.
    let tokenizer = decoder.llama.tokenizer();
    let of = |pieces: &[&str]| pieces.iter().filter_map(|piece| tokenizer.id(piece)).collect::<Vec<_>>();
    let letters = of(&["A", "\u{120}A", "B", "\u{120}B", "C", "\u{120}C"]);
    let signs: Vec<String> = "*([\"'`_#-$".chars().flat_map(|sign| [sign.into(), format!("\u{120}{sign}")]).collect();
    let signs = of(&signs.iter().map(String::as_str).collect::<Vec<_>>());
    let share = |row: &[f32]| {
        let sum = |tokens: &[u32]| tokens.iter().map(|t| f64::from(row[*t as usize]).exp()).sum::<f64>();
        sum(&letters) / (row.iter().map(|l| f64::from(*l).exp()).sum::<f64>() - sum(&signs))
    };
    let rows: Vec<Vec<f32>> = questions.iter().map(|question| last(&decoder, question)).collect();
    let shares: Vec<f64> = rows.iter().map(|row| share(row)).collect();
    let mut sorted = shares.clone();
    sorted.sort_by(f64::total_cmp);
    assert_eq!((letters.len(), sorted[4] < 0.1), (6, true), "{shares:?}");
    let middle = (sorted[1] + sorted[2]) / 2.0;
    for (least_share, sure) in [(0.1, 0), (middle, 3), (sorted[0] / 2.0, 5)] {
        let got = replies(&mut decoder, Wanted::Letters { least_share });
        assert_eq!(got.iter().filter(|reply| matches!(reply.said, Said::Letters(_))).count(), sure);
        for (i, reply) in got.iter().enumerate() {
            match &reply.said {
                Said::Letters(logits) => {
                    let Said::Letters(want) = &anyway[i].said else { panic!("{:?}", anyway[i]) };
                    // Sums in another order differ in their last bits.
                    let near = logits.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs().max(1.0));
                    assert!(near && shares[i] >= least_share, "{logits:?} {want:?}");
                }
                Said::Unsure(text) => {
                    let best = (0..rows[i].len()).max_by(|&a, &b| rows[i][a].total_cmp(&rows[i][b])).unwrap();
                    assert_eq!(*text, decoder.llama.tokenizer().decode(&[best as u32]).unwrap());
                    assert!(shares[i] < least_share);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn an_answer_that_begins_with_a_thought_is_told_from_one_that_begins_with_a_word() {
    for first in ["<think>", " <think>", "\n<think>\n", "[THINK]"] {
        assert_eq!(begun(first.into()), Said::Unfinished(first.into()));
    }
    for first in ["I", "", "\n", "think", "<"] {
        assert_eq!(begun(first.into()), Said::Unsure(first.into()));
    }
}
