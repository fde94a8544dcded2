use std::sync::OnceLock;

use proptest::prelude::*;

use super::*;
use crate::dataset::Answer;
use crate::generator::{GeneratorConfig, Split, corpus_texts, generate};
use crate::tokenizer::{BpeConfig, LeadingSpace};

const SEPARATOR: u32 = 1;

fn tokenizer() -> &'static TextTokenizer {
    static TOKENIZER: OnceLock<TextTokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let corpus = generate(&GeneratorConfig::new(Split::Train, 60, 1)).unwrap();
        let config = BpeConfig { leading_space: LeadingSpace::Kept, ..BpeConfig::default() };
        TextTokenizer::train_bpe(corpus_texts(&corpus), &config).unwrap()
    })
}

fn example(question: &str, context: &str, answers: &[&str]) -> Example {
    Example {
        id: "q1".to_owned(),
        context: context.into(),
        question: question.to_owned(),
        answers: answers
            .iter()
            .map(|text| {
                let byte = context.find(text).expect("the answer stands in the context");
                Answer { text: (*text).to_owned(), start: context[..byte].chars().count() }
            })
            .collect(),
        is_impossible: answers.is_empty(),
    }
}

fn windows(example: &Example, config: &SpanConfig) -> Result<Vec<Window>> {
    SpanFeatures::new(tokenizer(), std::slice::from_ref(example), config).map(|features| features.windows)
}

fn config(max_len: usize, overlap: usize) -> SpanConfig {
    SpanConfig { overlap, ..SpanConfig::new(max_len, vec![SEPARATOR]) }
}

#[test]
fn a_window_is_question_separator_context() {
    let example = example("Where does Ada live?", "Ada lives in Oslo.", &["Oslo"]);
    let config = SpanConfig { separator: vec![SEPARATOR, SEPARATOR], ..config(64, 8) };
    let windows = windows(&example, &config).unwrap();
    let question = tokenizer().encode(&example.question).unwrap().ids;
    let context = tokenizer().encode(&example.context).unwrap();
    let window = &windows[0];
    assert_eq!(windows.len(), 1);
    assert_eq!(window.ids, [question.as_slice(), &[SEPARATOR; 2], &context.ids].concat());
    assert_eq!(window.context_start, question.len() + 2);
    assert_eq!(window.null, question.len() + 1);
    assert_eq!(window.offsets(), context.offsets);
    assert_eq!(window.chars(window.target.unwrap()).unwrap().slice(&example.context), "Oslo");
    let answerable = (0..70).filter(|&position| window.is_answerable(position));
    assert_eq!(answerable.collect::<Vec<_>>(), (window.null..window.ids.len()).collect::<Vec<_>>());
}

#[test]
fn spans_outside_of_the_context_have_no_characters() {
    let example = example("Where?", "Ada lives in Oslo.", &["Oslo"]);
    let window = &windows(&example, &config(64, 8)).unwrap()[0];
    let (start, end) = (window.context_start, window.ids.len() - 1);
    assert!(window.chars(TokenSpan { start, end }).is_some());
    assert_eq!(window.chars(TokenSpan { start: start - 1, end }), None);
    assert_eq!(window.chars(TokenSpan { start, end: end + 1 }), None);
    assert_eq!(window.chars(TokenSpan { start: end, end: start }), None);
}

#[test]
fn targets_cover_answers_of_many_bytes() {
    let context = "Zoe\u{301} 👩\u{200d}👧 trinkt Grüntee 🍵🍵 und Milch.";
    for answer in ["Zoe\u{301}", "👩\u{200d}👧", "Grüntee", "🍵🍵", "🍵🍵 und Milch"] {
        let example = example("Was?", context, &[answer]);
        let window = &windows(&example, &config(128, 8)).unwrap()[0];
        let chars = window.chars(window.target.unwrap()).unwrap();
        assert_eq!(chars.slice(context), answer);
    }
}

#[test]
fn an_answer_inside_a_token_is_widened_to_the_token() {
    let example = example("Where?", "Ada lives in Oslo.", &["slo"]);
    let window = &windows(&example, &config(64, 8)).unwrap()[0];
    let target = window.chars(window.target.unwrap()).unwrap().slice(&example.context);
    assert!(target.contains("slo"), "{target}");
}

#[test]
fn a_question_that_fills_the_window_is_an_error_that_names_it() {
    let example = example("Where does Ada live in the winter of the year?", "Ada lives in Oslo.", &["Oslo"]);
    let tokens = tokenizer().encode(&example.question).unwrap().ids.len();
    assert!(windows(&example, &config(tokens + 2, 0)).is_ok());
    let error = windows(&example, &config(tokens + 1, 0)).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "question `q1`: expected at most {} question tokens in a window of {}, got {tokens}",
            tokens - 1,
            tokens + 1
        )
    );
    let truncated = SpanConfig { long_questions: LongQuestions::TruncateTo(3), ..config(tokens + 1, 0) };
    let window = &windows(&example, &truncated).unwrap()[0];
    assert_eq!(window.ids[..3], tokenizer().encode(&example.question).unwrap().ids[..3]);
    assert_eq!(window.context_start, 4);
}

#[test]
fn a_context_without_tokens_is_an_error_that_names_the_question() {
    let example = example("Where?", "", &[]);
    let error = windows(&example, &config(64, 8)).unwrap_err().to_string();
    assert_eq!(error, "question `q1`: expected a context of at least one token, got none");
}

#[test]
fn fields_out_of_range_are_named() {
    let example = example("Where?", "Ada lives in Oslo.", &["Oslo"]);
    let cases = [
        (SpanConfig::new(64, Vec::new()), "separator: expected at least one token, got 0"),
        (config(2, 0), "max_len: expected at least 3 tokens, got 2"),
        (
            SpanConfig { long_questions: LongQuestions::TruncateTo(0), ..config(64, 0) },
            "long_questions: expected 1 to 62 tokens, got 0",
        ),
        (
            SpanConfig { long_questions: LongQuestions::TruncateTo(63), ..config(64, 0) },
            "long_questions: expected 1 to 62 tokens, got 63",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(windows(&example, &config).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_answer_cut_by_one_window_is_whole_in_the_next() {
    let words = ["red", "blue", "green", "black", "white", "pink", "grey", "brown"];
    let context = words.repeat(4).join(" ") + " Cape Town " + &words.repeat(4).join(" ");
    let example = example("Where?", &context, &["Cape Town"]);
    let windows = windows(&example, &config(24, 8)).unwrap();
    assert!(windows.len() > 3);
    let holding: Vec<&Window> = windows.iter().filter(|window| window.target.is_some()).collect();
    assert!(!holding.is_empty() && holding.len() < windows.len());
    for window in holding {
        let chars = window.chars(window.target.unwrap()).unwrap();
        assert_eq!(chars.slice(&context), "Cape Town");
    }
}

#[test]
fn null_targets_point_at_the_separator() {
    let long = "Ada lives in a town in the north. ".repeat(6) + "Bela lives in Oslo.";
    let possible = example("Where does Bela live?", &long, &["Oslo"]);
    let impossible = example("Where does Cara live?", &long, &[]);
    let targets = |example: &Example, null_target: NullTarget| -> Vec<Option<bool>> {
        let config = SpanConfig { null_target, ..config(32, 8) };
        windows(example, &config)
            .unwrap()
            .iter()
            .map(|window| {
                let null = TokenSpan { start: window.null, end: window.null };
                window.target.map(|target| target == null)
            })
            .collect()
    };
    for (null_target, outside, of_impossible) in [
        (NullTarget::Never, None, None),
        (NullTarget::Impossible, None, Some(true)),
        (NullTarget::ImpossibleOrOutside, Some(true), Some(true)),
    ] {
        let of_possible = targets(&possible, null_target);
        assert_eq!(of_possible.first(), Some(&outside));
        assert_eq!(of_possible.last(), Some(&Some(false)));
        let all = targets(&impossible, null_target);
        assert!(all.len() > 1 && all.iter().all(|target| *target == of_impossible), "{all:?}");
    }
}

#[test]
fn the_first_gold_answer_that_is_inside_is_the_target() {
    let context = "Ada lives in Oslo, the town of Oslo in the north.";
    let example = example("Where?", context, &["the north", "Oslo"]);
    let whole = &windows(&example, &config(64, 8)).unwrap()[0];
    assert_eq!(whole.chars(whole.target.unwrap()).unwrap().slice(context), "the north");
    let first = &windows(&example, &config(12, 2)).unwrap()[0];
    assert_eq!(first.chars(first.target.unwrap()).unwrap().slice(context), "Oslo");
}

#[test]
fn every_answer_of_the_real_files_is_found_in_a_window() {
    let Some(folder) = crate::real_data::folder() else {
        return;
    };
    let gpt2 = TextTokenizer::from_dir(folder.join("gpt2-tokenizer")).unwrap();
    let dataset = crate::Dataset::read(folder.join("squad/dev-v1.1-part.json")).unwrap();
    let separator = crate::SpecialTokens::of(&gpt2).unwrap().separator;
    let features = SpanFeatures::new(&gpt2, &dataset.examples(), &SpanConfig::new(384, separator)).unwrap();
    let mut is_found = vec![false; features.examples().len()];
    for window in features.windows() {
        assert!(window.ids.len() <= 384);
        let Some(target) = window.target else {
            continue;
        };
        is_found[window.example] = true;
        let example = &features.examples()[window.example];
        let text = window.chars(target).unwrap().slice(&example.context);
        assert!(example.answers.iter().any(|answer| text.contains(&answer.text)), "{text}");
    }
    assert!(is_found.into_iter().all(|is_found| is_found));
}

proptest! {
    #[test]
    fn windows_cover_the_context_and_agree_with_its_tokens(
        context in "[a-zA-Zéß🍵 \n.,]{0,300}x",
        question in "[a-z ]{0,12}",
        max_len in 16_usize..80,
        overlap in 0_usize..80,
        answer in any::<prop::sample::Index>(),
        answer_chars in 1_usize..20,
    ) {
        let characters: Vec<char> = context.chars().collect();
        let start = answer.index(characters.len());
        let end = characters.len().min(start + answer_chars);
        let text: String = characters[start..end].iter().collect();
        let example = Example {
            answers: vec![Answer { text, start }],
            is_impossible: false,
            ..example(&question, &context, &[])
        };
        let encoding = tokenizer().encode(&context).unwrap();
        let question = tokenizer().encode(&question).unwrap().ids;
        let windows = windows(&example, &config(max_len, overlap)).unwrap();

        let room = max_len - question.len() - 1;
        let shared = overlap.min(room / 2);
        prop_assert_eq!(windows[0].context_tokens.start, 0);
        prop_assert_eq!(windows.last().unwrap().context_tokens.end, encoding.ids.len());
        for pair in windows.windows(2) {
            prop_assert_eq!(pair[1].context_tokens.start + shared, pair[0].context_tokens.end);
            prop_assert!(pair[1].context_tokens.end > pair[0].context_tokens.end);
            prop_assert_eq!(pair[0].ids.len(), max_len);
        }
        for window in &windows {
            let range = window.context_tokens.clone();
            prop_assert!(window.ids.len() <= max_len);
            prop_assert_eq!(&window.ids[..question.len()], &question);
            prop_assert_eq!(&window.ids[window.context_start..], &encoding.ids[range.clone()]);
            prop_assert_eq!(window.offsets(), &encoding.offsets[range.clone()]);
            if let Some(target) = window.target {
                let chars = window.chars(target).unwrap();
                // White space around an answer may have no token of its own.
                let answer = &characters[start..end];
                let blank = |character: &&char| character.is_whitespace();
                let inner_start = start + answer.iter().take_while(blank).count();
                let inner_end = end - answer.iter().rev().take_while(blank).count();
                if inner_start < inner_end {
                    prop_assert!(chars.start <= inner_start && inner_end <= chars.end);
                }
            }
        }
        // Of several windows, each may hold only a part of a long answer.
        let is_found = windows.iter().any(|window| window.target.is_some());
        let is_blank = characters[start..end].iter().all(|character| character.is_whitespace());
        prop_assert!(is_found || is_blank || windows.len() > 1);
    }
}

#[test]
fn selected_examples_have_the_windows_they_would_have_alone() {
    let words = |n: usize| "one two three four five six ".repeat(n);
    let contexts = [words(9), words(1), words(5)];
    let examples: Vec<Example> = contexts.iter().map(|context| example("Which one?", context, &["two"])).collect();
    let config = config(24, 4);
    let all = SpanFeatures::new(tokenizer(), &examples, &config).unwrap();
    assert!(all.windows_of(0).len() > all.windows_of(2).len() && all.windows_of(2).len() > 1);
    assert!(all.windows_of(3).is_empty());
    for order in [&[2, 0][..], &[1], &[0, 1, 2], &[]] {
        let chosen: Vec<Example> = order.iter().map(|&index| examples[index].clone()).collect();
        let expected = SpanFeatures::new(tokenizer(), &chosen, &config).unwrap();
        let selected = all.select(order);
        assert_eq!(selected.windows(), expected.windows());
        assert_eq!(selected.examples(), expected.examples());
    }
}

#[test]
fn answers_that_fit_no_window_are_counted_with_their_length() {
    let long = "tea ".repeat(70).trim().to_owned();
    // In its context a space stands before it.
    let tokens = tokenizer().encode(&format!(" {long}")).unwrap().ids.len();
    assert!(tokens > 64, "{tokens} tokens");
    let context = format!("Ada drinks milk. {long}");
    let fits = example("What?", &context, &["milk"]);
    let too_long = example("What else?", &context, &[&long]);
    let impossible = example("What not?", &context, &[]);
    let examples = [fits.clone(), too_long, impossible];
    let counts = |null_target, examples: &[Example]| {
        let config = SpanConfig { null_target, ..config(64, 8) };
        SpanFeatures::new(tokenizer(), examples, &config).unwrap().target_counts()
    };
    let no_window = format!("1 answer of {tokens} tokens fits no window of 64");
    let never = counts(NullTarget::Never, &examples);
    assert_eq!(
        never.text("training questions"),
        format!("1 of 3 training questions ({no_window}; 1 question without an answer)")
    );
    for null_target in [NullTarget::Impossible, NullTarget::ImpossibleOrOutside] {
        assert_eq!(counts(null_target, &examples).text("questions"), format!("2 of 3 questions ({no_window})"));
    }
    assert_eq!(counts(NullTarget::Impossible, &[fits.clone(), fits]), QuestionCounts::of(2));
}

#[test]
fn a_context_that_is_read_twice_stands_twice_behind_separators_and_is_answered_in_its_last_copy() {
    let example = example("who is it", "one two three four five six", &["four five"]);
    let once = windows(&example, &config(64, 0)).unwrap();
    let twice = windows(&example, &config(64, 0).with_context_reads(2)).unwrap();
    let ([once], [twice]) = (&once[..], &twice[..]) else { panic!("{} and {} windows", once.len(), twice.len()) };
    let read = &once.ids[once.null..];
    assert_eq!(twice.ids, [&once.ids[..], read].concat());
    assert_eq!(twice.ids[twice.null], SEPARATOR);
    let target = twice.target.unwrap();
    assert_eq!(target.start, once.target.unwrap().start + read.len());
    assert_eq!(twice.chars(target).unwrap().slice(&example.context), "four five");
    assert!(!twice.is_answerable(once.target.unwrap().start));
}

#[test]
fn windows_that_read_more_than_once_fit_and_cover_the_context() {
    let example = example("who is it", &"one two three four five six ".repeat(9), &["four"]);
    let question = windows(&example, &config(512, 0)).unwrap()[0].null;
    for reads in 1..=4 {
        let tight = question + 2 * reads;
        for max_len in [tight, tight + 1, tight + 3, 40, 64] {
            let config = SpanConfig { overlap: 3, ..config(max_len, 0).with_context_reads(reads) };
            let windows = windows(&example, &config).unwrap();
            assert!(windows.iter().all(|window| window.ids.len() <= max_len), "{reads} in {max_len}");
            let mut behind = 0;
            for window in &windows {
                assert!(window.context_tokens.start <= behind && window.context_tokens.end > behind);
                behind = window.context_tokens.end;
                assert_eq!(window.ids.len() - window.context_start, window.context_tokens.len());
            }
            assert_eq!(behind, windows[0].offsets.len());
        }
        let error = windows(&example, &config(tight - 1, 0).with_context_reads(reads)).unwrap_err();
        assert!(matches!(error, Error::LongQuestion { .. }), "{error}");
    }
    let none = windows(&example, &config(64, 0).with_context_reads(0)).unwrap_err().to_string();
    assert_eq!(none, "context_reads: expected at least 1, got 0");
}
