use super::*;
use crate::dataset::Format;

/// A dataset of questions that have the answer "tea" or none.
fn dataset(has_answer: &[bool]) -> Dataset {
    let questions: Vec<String> = has_answer
        .iter()
        .enumerate()
        .map(|(i, has)| {
            let answers = if *has { r#"[{"text": "tea", "answer_start": 0}]"# } else { "[]" };
            format!(r#"{{"id": "q{i}", "question": "?", "answers": {answers}, "is_impossible": {}}}"#, !has)
        })
        .collect();
    let json = format!(
        r#"{{"version": "v2.0", "data": [{{"paragraphs": [{{"context": "tea", "qas": [{}]}}]}}]}}"#,
        questions.join(",")
    );
    Dataset::from_json(&json, "tea.json").unwrap()
}

fn answers(best_and_difference: &[(&str, f32)]) -> NullAnswers {
    let mut answers = NullAnswers::default();
    for (i, (best, difference)) in best_and_difference.iter().enumerate() {
        answers.insert(format!("q{i}"), *best, *difference);
    }
    answers
}

#[test]
fn the_threshold_is_the_one_of_the_highest_f1() {
    let data = dataset(&[true, true, false, false]);
    let some = answers(&[("tea", -2.0), ("tea", 0.5), ("tea", 1.0), ("tea", 3.0)]);
    let threshold = some.best_threshold(&data).unwrap();
    assert_eq!(threshold.to_bits(), 0.5f32.to_bits());
    let best = some.evaluate(&data, threshold).unwrap();
    assert_eq!((best.exact_match, best.no_answer.unwrap().exact), (100.0, 100.0));
    // Always answering, and never.
    assert_eq!(some.evaluate(&data, 100.0).unwrap().no_answer.unwrap().exact.to_bits(), 0);
    assert_eq!(some.evaluate(&data, -100.0).unwrap().has_answer.unwrap().exact.to_bits(), 0);
    // What is written to a file of predictions scores the same.
    let written = evaluate_v2(&data, &some.at(threshold)).unwrap();
    assert_eq!((written.exact_match, written.f1), (best.exact_match, best.f1));
}

#[test]
fn where_nothing_is_right_the_threshold_answers_nothing() {
    let data = dataset(&[true, false]);
    let wrong = answers(&[("milk", -9.0), ("milk", -5.0)]);
    let threshold = wrong.best_threshold(&data).unwrap();
    assert!(wrong.at(threshold).iter().all(|(_, answer)| answer.is_empty()), "{threshold}");
}

#[test]
fn the_best_thresholds_give_what_is_said_of_them() {
    // Below 0, where the official script's threshold for answering nothing is 0.
    for (data, some) in [
        (dataset(&[true, false]), answers(&[("milk", -9.0), ("milk", -5.0)])),
        (dataset(&[true, false]), answers(&[("milk", -1e9), ("milk", 3.0)])),
        (dataset(&[true, true, false]), answers(&[("tea", -2.0), ("black tea", -1.5), ("tea", -1.0)])),
    ] {
        let best = some.evaluate(&data, 0.0).unwrap().best.expect("version 2.0 has them");
        let at = |threshold: f64| some.evaluate(&data, threshold as f32).unwrap();
        assert_eq!(at(best.exact_threshold).exact_match.to_bits(), best.exact.to_bits(), "{best:?}");
        assert_eq!(at(best.f1_threshold).f1.to_bits(), best.f1.to_bits(), "{best:?}");
    }
}

#[test]
fn no_threshold_of_any_other_value_scores_more() {
    let mut state = 1u32;
    let mut draw = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    for _ in 0..200 {
        let n = 1 + draw(8) as usize;
        let data = dataset(&(0..n).map(|_| draw(2) == 0).collect::<Vec<_>>());
        let texts = ["tea", "milk", "", "black tea"];
        // Few values, so that some are equal.
        let some = answers(&(0..n).map(|_| (texts[draw(4) as usize], draw(5) as f32 - 2.0)).collect::<Vec<_>>());
        let found = some.evaluate(&data, some.best_threshold(&data).unwrap()).unwrap().f1;
        for threshold in [-9.0, -2.0, -1.5, -1.0, 0.0, 1.0, 2.0, 9.0] {
            let other = some.evaluate(&data, threshold).unwrap().f1;
            assert!(other <= found + 1e-9, "{threshold}: {other} > {found} of {some:?}");
        }
    }
}

/// What the official script prints for the published predictions with `--na-prob-file` and
/// `--na-prob-thresh 0.5`; the probabilities are made from the ids.
#[test]
fn published_predictions_with_null_probabilities_score_as_by_the_official_script() {
    let Some(folder) = crate::real_data::squad_folder() else {
        return;
    };
    let data = Dataset::read(folder.join("dev-v2.0-part.json")).unwrap();
    assert_eq!(data.format, Format::V2);
    let file = folder.join("predictions/v2.0-nlnet.json");
    let predictions = Predictions::read(&file).unwrap();
    // In the order of the file, which decides between equals.
    let ids: Vec<String> = crate::predictions::ids_in_order(&file).unwrap();
    let probability = |id: &String| {
        let number = u32::from_str_radix(&id[id.len() - 6..], 16).unwrap();
        let nothing = if predictions.get(id) == Some("") { 0.25 } else { 0.0 };
        (id.clone(), f64::from(number) / f64::from(0x0100_0000) * 0.75 + nothing)
    };
    let probabilities: NullProbabilities = ids.iter().map(probability).collect();
    let got = evaluate_v2_with_null_probabilities(&data, &predictions, &probabilities, 0.5).unwrap();
    assert_eq!((got.exact_match, got.f1), (68.976_631_748_589_85, 71.431_620_369_366_17));
    let best = got.best.unwrap();
    assert_eq!((best.exact, best.exact_threshold), (75.584_206_285_253_83, 0.731_772_333_383_560_2));
    assert_eq!((best.f1, best.f1_threshold), (78.566_251_102_447_14, 0.731_772_333_383_560_2));
}
