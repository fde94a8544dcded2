use std::collections::BTreeSet;

use super::*;
use crate::generator::{GeneratorConfig, Split, corpus_texts, generate};
use crate::tokenizer::{BpeConfig, SpecialTokens, TextTokenizer};
use crate::windows::SpanConfig;

const PAD: u32 = 0;

/// 180 windows, a part of them without a target.
fn features() -> SpanFeatures {
    let config = GeneratorConfig {
        unanswerable_probability: 0.2,
        filler_probability: 0.5,
        ..GeneratorConfig::new(Split::Train, 60, 1)
    };
    let corpus = generate(&config).unwrap();
    let tokenizer = TextTokenizer::train_bpe(corpus_texts(&corpus), &BpeConfig::default()).unwrap();
    let separator = SpecialTokens::of(&tokenizer).unwrap().separator;
    let config = SpanConfig { null_target: crate::NullTarget::Never, ..SpanConfig::new(256, separator) };
    SpanFeatures::new(&tokenizer, &corpus.examples(), &config).unwrap()
}

fn visited(batches: impl Iterator<Item = Batch>) -> Vec<usize> {
    batches.flat_map(|batch| batch.windows).collect()
}

#[test]
fn an_epoch_of_evaluation_visits_every_window_once() {
    let features = features();
    let batches = Batches::new(&features, BatchConfig::evaluation(16, PAD)).unwrap();
    let mut windows = visited(batches.epoch(0));
    assert_eq!(batches.epoch(0).len(), batches.steps_per_epoch());
    assert_eq!(batches.steps_per_epoch(), 12);
    windows.sort_unstable();
    assert_eq!(windows, (0..180).collect::<Vec<_>>());
    assert!(batches.epoch(0).eq(batches.epoch(0)));
}

#[test]
fn without_buckets_sequential_means_in_order() {
    let features = features();
    let config = BatchConfig { bucket: 0, ..BatchConfig::evaluation(16, PAD) };
    let windows = visited(Batches::new(&features, config).unwrap().epoch(3));
    assert_eq!(windows, (0..180).collect::<Vec<_>>());
}

#[test]
fn training_visits_windows_with_a_target_in_another_order_every_epoch() {
    let features = features();
    let with_target: BTreeSet<usize> = (0..180).filter(|&index| features.windows()[index].target.is_some()).collect();
    assert!((120..175).contains(&with_target.len()), "{}", with_target.len());
    let batches = Batches::new(&features, BatchConfig::training(16, PAD, 5)).unwrap();
    assert_eq!(batches.steps_per_epoch(), with_target.len() / 16);
    let (first, second) = (visited(batches.epoch(0)), visited(batches.epoch(1)));
    assert_ne!(first, second);
    for epoch in [first, second] {
        let different: BTreeSet<usize> = epoch.iter().copied().collect();
        assert_eq!(epoch.len(), batches.steps_per_epoch() * 16);
        assert_eq!(different.len(), epoch.len());
        assert!(different.is_subset(&with_target));
    }
    let other_seed = Batches::new(&features, BatchConfig::training(16, PAD, 6)).unwrap();
    assert_ne!(visited(batches.epoch(0)), visited(other_seed.epoch(0)));
}

#[test]
fn any_step_can_be_taken_up_again() {
    let features = features();
    let config = BatchConfig { last: LastBatch::Keep, ..BatchConfig::training(16, PAD, 5) };
    let batches = Batches::new(&features, config).unwrap();
    let steps = batches.steps_per_epoch();
    let whole: Vec<Batch> = batches.iter_from(0, 0).take(3 * steps).collect();
    for (position, batch) in whole.iter().enumerate() {
        assert_eq!((batch.epoch, batch.step), (position / steps, position % steps));
        let resumed = Batches::new(&features, config).unwrap();
        assert_eq!(resumed.iter_from(batch.epoch, batch.step).next().as_ref(), Some(batch));
        assert_eq!(resumed.iter_from(0, position).next().as_ref(), Some(batch));
    }
}

#[test]
fn rows_are_windows_padded_at_the_right() {
    let features = features();
    let config = BatchConfig { pad_to_multiple_of: 32, ..BatchConfig::evaluation(7, 9) };
    for batch in Batches::new(&features, config).unwrap().epoch(0) {
        assert_eq!(batch.len % 32, 0);
        assert_eq!(batch.windows.len(), batch.batch);
        for (row, &index) in batch.windows.iter().enumerate() {
            let window = &features.windows()[index];
            for position in 0..batch.len {
                let at = row * batch.len + position;
                let id = window.ids.get(position);
                assert_eq!(batch.ids[at], id.map_or(9, |&id| i64::from(id)));
                assert_eq!(batch.attention[at], id.is_some());
                let is_answerable = position >= window.null && position < window.ids.len();
                assert_eq!(batch.answerable[at], is_answerable);
            }
            let target = window.target.map(|target| (target.start as i64, target.end as i64));
            assert_eq!((batch.starts[row], batch.ends[row]), target.unwrap_or((NO_TARGET, NO_TARGET)));
        }
        let tokens: usize = batch.windows.iter().map(|&index| features.windows()[index].ids.len()).sum();
        assert_eq!(batch.tokens(), tokens);
    }
}

#[test]
fn buckets_spare_padding() {
    let features = features();
    let positions = |bucket| {
        let config = BatchConfig { bucket, ..BatchConfig::training(8, PAD, 5) };
        let batches = Batches::new(&features, config).unwrap();
        batches.epoch(0).map(|batch| batch.ids.len() - batch.tokens()).sum::<usize>()
    };
    assert!(positions(16) * 2 < positions(1), "{} against {}", positions(16), positions(1));
}

#[test]
fn fields_out_of_range_are_named() {
    let features = features();
    let good = BatchConfig::training(16, PAD, 5);
    let cases = [
        (BatchConfig { size: 0, ..good }, "size: expected at least 1, got 0"),
        (BatchConfig { pad_to_multiple_of: 0, ..good }, "pad_to_multiple_of: expected at least 1, got 0"),
        (
            BatchConfig { size: 1_000, select: Select::All, ..good },
            "size: expected at least 1000 windows to put into batches, got 180",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(Batches::new(&features, config).unwrap_err().to_string(), expected);
    }
    let nothing = SpanFeatures::clone(&features);
    let examples: Vec<_> = nothing.examples().iter().filter(|example| example.is_impossible).cloned().collect();
    let tokenizer = TextTokenizer::train_bpe(["a"], &BpeConfig::default()).unwrap();
    let config = SpanConfig { null_target: crate::NullTarget::Never, ..SpanConfig::new(1024, vec![1]) };
    let impossible = SpanFeatures::new(&tokenizer, &examples, &config).unwrap();
    let keep = BatchConfig { last: LastBatch::Keep, ..good };
    assert_eq!(
        Batches::new(&impossible, keep).unwrap_err().to_string(),
        "select: expected at least 1 windows to put into batches, got 0"
    );
}
