use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::dataset::Example;
use crate::tokenizer::{BpeConfig, LeadingSpace, TextTokenizer};
use crate::windows::SpanConfig;

fn features(contexts: &[&str], max_len: usize) -> SpanFeatures {
    let examples: Vec<Example> = contexts
        .iter()
        .enumerate()
        .map(|(number, context)| Example {
            id: format!("q{number}"),
            context: (*context).into(),
            question: "who".to_owned(),
            answers: Vec::new(),
            is_impossible: true,
        })
        .collect();
    let config = BpeConfig { leading_space: LeadingSpace::Kept, vocab_size: 300, ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(contexts.iter().flat_map(|c| [*c, "who", c]), &config).unwrap();
    let config = SpanConfig { overlap: 4, ..SpanConfig::new(max_len, vec![1]) };
    SpanFeatures::new(&tokenizer, &examples, &config).unwrap()
}

type WindowLogits = (Vec<f32>, Vec<f32>);

fn random_logits(features: &SpanFeatures, rng: &mut ChaCha8Rng) -> Vec<WindowLogits> {
    let mut draw = |len: usize| (0..len).map(|_| rng.random_range(-4.0..4.0_f32)).collect::<Vec<f32>>();
    features.windows().iter().map(|window| (draw(window.ids.len()), draw(window.ids.len()))).collect()
}

fn decode(features: &SpanFeatures, config: DecodeConfig, logits: &[WindowLogits]) -> Vec<Decoded> {
    let mut decoder = SpanDecoder::new(features, config).unwrap();
    for (window, (start, end)) in logits.iter().enumerate() {
        decoder.add(window, start, end).unwrap();
    }
    decoder.finish().unwrap()
}

/// Every span of every window, the best score of each place, sorted.
fn all_spans(features: &SpanFeatures, example: usize, most: usize, logits: &[WindowLogits]) -> Vec<(CharSpan, f32)> {
    let mut best: HashMap<CharSpan, f32> = HashMap::new();
    for (index, window) in features.windows().iter().enumerate() {
        if window.example != example {
            continue;
        }
        for start in window.context_start..window.ids.len() {
            for end in start..window.ids.len().min(start + most) {
                let chars = window.chars(TokenSpan { start, end }).unwrap();
                let score = logits[index].0[start] + logits[index].1[end];
                let place = best.entry(chars).or_insert(f32::NEG_INFINITY);
                *place = place.max(score);
            }
        }
    }
    let mut spans: Vec<(CharSpan, f32)> = best.into_iter().collect();
    spans.sort_by(|a, b| b.1.total_cmp(&a.1));
    spans
}

#[test]
fn the_best_spans_are_those_of_trying_all() {
    let long = "ada ate an apple and bela ate a big banana by the sea";
    let features = features(&["ada and bela", long, "a"], 10);
    assert!(features.len() > 4, "{} windows", features.len());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for most in [1, 3, 30] {
        for _ in 0..20 {
            let logits = random_logits(&features, &mut rng);
            let config = DecodeConfig { max_answer_tokens: most, n_best: 6, ..DecodeConfig::default() };
            for (example, decoded) in decode(&features, config, &logits).iter().enumerate() {
                let expected = all_spans(&features, example, most, &logits);
                let got: Vec<(CharSpan, f32)> =
                    decoded.n_best.iter().map(|candidate| (candidate.chars, candidate.score)).collect();
                assert_eq!(got, expected[..expected.len().min(6)]);
                let context = &features.examples()[example].context;
                for candidate in &decoded.n_best {
                    assert_eq!(candidate.text, candidate.chars.slice(context));
                    let window = &features.windows()[candidate.window];
                    assert_eq!(window.chars(candidate.tokens), Some(candidate.chars));
                }
                assert_eq!(decoded.text, decoded.n_best[0].text);
                assert!((decoded.probability - decoded.n_best[0].probability).abs() < 1e-15);
            }
        }
    }
}

#[test]
fn probabilities_are_softmax_of_starts_times_softmax_of_ends() {
    let features = features(&["ada and bela"], 32);
    let window = &features.windows()[0];
    let count = window.ids.len() - window.context_start;
    assert!(count >= 3);
    let flat = vec![(vec![2.5; window.ids.len()], vec![-700.0; window.ids.len()])];
    let without = &decode(&features, DecodeConfig::default(), &flat)[0];
    let expected = 1.0 / (count * count) as f64;
    assert!((without.probability - expected).abs() < 1e-12, "{}", without.probability);
    assert!(without.null_probability.abs() < f64::EPSILON);

    let with_null = DecodeConfig { null: NullRule::Threshold(0.0), n_best: 1_000, ..DecodeConfig::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let logits = random_logits(&features, &mut rng);
    let decoded = &decode(&features, with_null, &logits)[0];
    let (start, end) = &logits[0];
    let softmax = |logits: &[f32], position: usize| {
        let sum: f64 = logits[window.null..].iter().map(|logit| f64::from(*logit).exp()).sum();
        f64::from(logits[position]).exp() / sum
    };
    for candidate in &decoded.n_best {
        let expected = softmax(start, candidate.tokens.start) * softmax(end, candidate.tokens.end);
        assert!((candidate.probability - expected).abs() < 1e-6 * expected, "{candidate:?}");
    }
    let null = softmax(start, window.null) * softmax(end, window.null);
    assert!((decoded.null_probability - null).abs() < 1e-9);
}

#[test]
fn equal_scores_go_to_the_first_place() {
    let features = features(&["ada and bela and cara"], 64);
    let len = features.windows()[0].ids.len();
    let decoded = &decode(&features, DecodeConfig::default(), &[(vec![0.0; len], vec![0.0; len])])[0];
    let first = features.windows()[0].context_start;
    assert_eq!(decoded.n_best[0].tokens, TokenSpan { start: first, end: first });
    assert_eq!(decoded.n_best[1].tokens, TokenSpan { start: first, end: first + 1 });
}

#[test]
fn a_question_is_null_only_by_more_than_the_threshold_in_every_window() {
    let features = features(&["ada ate an apple and bela ate a big banana by the sea"], 16);
    let windows = features.windows();
    assert!(windows.len() > 1);
    let logits = |nulls: &[f32]| -> Vec<WindowLogits> {
        windows
            .iter()
            .zip(nulls.iter().cycle())
            .map(|(window, null)| {
                let mut logits = vec![0.0; window.ids.len()];
                logits[window.null] = *null / 2.0;
                (logits.clone(), logits)
            })
            .collect()
    };
    let with = |threshold: f32, nulls: &[f32]| {
        let config = DecodeConfig { null: NullRule::Threshold(threshold), ..DecodeConfig::default() };
        decode(&features, config, &logits(nulls)).remove(0)
    };
    assert_eq!(with(1.0, &[3.0]).text, "");
    assert_eq!(with(3.0, &[3.0]).text, with(0.0, &[-1.0]).text);
    assert_ne!(with(3.0, &[3.0]).text, "");
    let mixed = with(1.0, &[3.0, 0.5]);
    assert_ne!(mixed.text, "");
    assert!((mixed.null_score_diff - 0.5).abs() < 1e-6);
    let nothing = with(1.0, &[20.0]);
    assert!(nothing.probability > 0.99, "{}", nothing.probability);
    assert!((nothing.probability - nothing.null_probability).abs() < 1e-15);
    assert!(with(1.0, &[20.0, -20.0]).null_probability < 0.01);
    let never = decode(&features, DecodeConfig::default(), &logits(&[9.0])).remove(0);
    assert_ne!(never.text, "");
}

#[test]
fn answers_are_cut_from_the_context_by_characters() {
    let context = "Zoe\u{301} 👩\u{200d}👧 drinks 🍵🍵 \n now";
    let features = features(&[context], 128);
    let window = &features.windows()[0];
    let position = |character: usize| {
        window.context_start + window.offsets().iter().position(|span| span.end > character).unwrap()
    };
    let tea = context.chars().position(|character| character == '🍵').unwrap();
    let (mut start, mut end) = (vec![0.0; window.ids.len()], vec![0.0; window.ids.len()]);
    start[position(tea)] = 9.0;
    // The last token of the blanks behind the tea: they are not part of an answer.
    end[position(tea + 3)] = 9.0;
    let decoded = &decode(&features, DecodeConfig::default(), &[(start, end)])[0];
    assert_eq!(decoded.text, "🍵🍵");
    assert_eq!(decoded.n_best[0].chars, CharSpan { start: tea, end: tea + 2 });
}

#[test]
fn logits_behind_a_window_are_padding() {
    let features = features(&["ada and bela"], 32);
    let len = features.windows()[0].ids.len();
    let mut logits = vec![0.0; len];
    let unpadded = decode(&features, DecodeConfig::default(), &[(logits.clone(), logits.clone())]);
    logits.extend([f32::NAN, 99.0]);
    assert_eq!(decode(&features, DecodeConfig::default(), &[(logits.clone(), logits)]), unpadded);
}

#[test]
fn unusable_logits_are_named() {
    let features = features(&["ada and bela", "bela"], 32);
    let len = features.windows()[0].ids.len();
    let good = vec![0.0_f32; len];
    let mut decoder = SpanDecoder::new(&features, DecodeConfig::default()).unwrap();
    let short = decoder.add(0, &good, &good[1..]).unwrap_err().to_string();
    assert_eq!(short, format!("question `q0`, window 0: end logits: expected at least {len}, got {}", len - 1));
    for value in [f32::NAN, f32::INFINITY] {
        let mut bad = good.clone();
        bad[len - 1] = value;
        let error = decoder.add(0, &bad, &good).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "question `q0`, window 0: start logits: expected finite numbers, got {value} at position {}",
                len - 1
            )
        );
    }
    let error = decoder.add(0, &good, &vec![f32::NEG_INFINITY; len]).unwrap_err().to_string();
    assert_eq!(error, "question `q0`, window 0: logits: expected a finite one for starts and for ends, got none");
    decoder.add(0, &good, &good).unwrap();
    assert_eq!(
        decoder.add(0, &good, &good).unwrap_err().to_string(),
        "question `q0`, window 0: logits: expected one set of them, got a second"
    );
    assert_eq!(
        decoder.finish().unwrap_err().to_string(),
        "question `q1`, window 1: logits: expected one set of them, got none"
    );
}

#[test]
fn masked_positions_are_never_answered_with() {
    let features = features(&["ada and bela"], 32);
    let window = &features.windows()[0];
    let mut start = vec![f32::NEG_INFINITY; window.ids.len()];
    start[window.context_start + 1] = -3.0;
    let decoded = &decode(&features, DecodeConfig::default(), &[(start, vec![0.0; window.ids.len()])])[0];
    assert_eq!(decoded.n_best[0].tokens.start, window.context_start + 1);
    assert!(decoded.probability.is_finite() && decoded.probability > 0.0);
}

#[test]
fn fields_out_of_range_are_named() {
    let features = features(&["ada"], 32);
    let good = DecodeConfig::default();
    let cases = [
        (DecodeConfig { max_answer_tokens: 0, ..good }, "max_answer_tokens: expected at least 1, got 0"),
        (DecodeConfig { n_best: 0, ..good }, "n_best: expected at least 1, got 0"),
        (
            DecodeConfig { null: NullRule::Threshold(f32::NAN), ..good },
            "null: expected a threshold that is a number, got NaN",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(SpanDecoder::new(&features, config).unwrap_err().to_string(), expected);
    }
}

#[test]
fn one_example_is_decided_as_soon_as_its_windows_are_there() {
    let features = features(&["a b c d e f g h i j k l m n o p q r s t u v w", "x y z", "one two three four five"], 12);
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let logits = random_logits(&features, &mut rng);
    let whole = decode(&features, DecodeConfig::default(), &logits);
    assert!(features.windows().iter().filter(|window| window.example == 0).count() > 1);
    let mut decoder = SpanDecoder::new(&features, DecodeConfig::default()).unwrap();
    for (window, (start, end)) in logits.iter().enumerate().rev() {
        decoder.add(window, start, end).unwrap();
        let is_whole = |example| features.windows()[..window].iter().all(|other| other.example != example);
        for (example, decided) in whole.iter().enumerate() {
            assert_eq!(decoder.decide(example), is_whole(example).then(|| decided.clone()), "{window}");
        }
    }
}

#[test]
fn probabilities_of_a_span_without_a_rival_are_1_at_most() {
    let config = BpeConfig { vocab_size: 259, leading_space: LeadingSpace::Kept, ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(["x"], &config).expect("it is trained");
    let question = Example {
        id: "q".into(),
        context: "x".into(),
        question: "\u{200b}".into(),
        answers: Vec::new(),
        is_impossible: false,
    };
    let features = SpanFeatures::new(&tokenizer, &[question], &SpanConfig::new(32, vec![1])).expect("it fits a window");
    let tokens = features.windows()[0].ids.len();
    assert_eq!((features.len(), features.windows()[0].context_start), (1, tokens - 1), "a context of one token");
    for null in [NullRule::Never, NullRule::Threshold(100.0)] {
        for step in 1..200 {
            // Only one position can be answered; where nothing may be the answer, it is no rival.
            let (mut start, mut end) = (vec![f32::NEG_INFINITY; tokens], vec![f32::NEG_INFINITY; tokens]);
            (start[tokens - 1], end[tokens - 1]) = (0.37 * step as f32, 0.011 * step as f32);
            let mut decoder =
                SpanDecoder::new(&features, DecodeConfig { null, ..DecodeConfig::default() }).expect("it decodes");
            decoder.add(0, &start, &end).expect("they are scores");
            let decoded = decoder.finish().expect("it is whole").remove(0);
            assert!(decoded.probability <= 1.0 && decoded.probability > 0.999, "{decoded:?}");
            assert!(decoded.n_best.iter().all(|candidate| candidate.probability <= 1.0), "{decoded:?}");
            assert!((0.0..=1.0).contains(&decoded.null_probability), "{decoded:?}");
        }
    }
}
