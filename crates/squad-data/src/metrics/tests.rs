use super::*;
use crate::dataset::{Answer, Article, Paragraph, Question};
use crate::predictions::NullProbabilities;

/// A dataset of questions `(id, gold answers)`; offsets play no part in scores.
fn dataset(format: Format, questions: &[(&str, &[&str])]) -> Dataset {
    let questions = questions.iter().map(|(id, golds)| Question {
        id: (*id).to_owned(),
        question: "?".to_owned(),
        answers: golds.iter().map(|text| Answer { text: (*text).to_owned(), start: 0 }).collect(),
        plausible_answers: Vec::new(),
        is_impossible: golds.is_empty(),
    });
    let paragraph = Paragraph { context: "-".to_owned(), questions: questions.collect() };
    Dataset { format, articles: vec![Article { title: String::new(), paragraphs: vec![paragraph] }] }
}

fn predictions(answers: &[(&str, &str)]) -> Predictions {
    answers.iter().map(|(id, answer)| ((*id).to_owned(), (*answer).to_owned())).collect()
}

/// The scores that the official scripts print for the published predictions.
#[test]
fn published_predictions_score_as_by_the_official_scripts() {
    let Some(folder) = crate::real_data::squad_folder() else {
        return;
    };
    let table = [
        ("v1.1-logistic-regression", "dev-v1.1-part", 40.779_429_489_754_925, 51.624_493_522_517_646, 4_978),
        ("v1.1-r-net-plus", "dev-v1.1-part", 82.181_599_035_757_33, 88.583_908_695_988_82, 4_978),
        ("v2.0-nlnet", "dev-v2.0-part", 75.132_957_292_506_05, 78.115_002_109_699_36, 6_205),
    ];
    for (name, data, exact_match, f1, n) in table {
        let dataset = Dataset::read(folder.join(format!("{data}.json"))).unwrap();
        let predictions = Predictions::read(folder.join(format!("predictions/{name}.json"))).unwrap();
        let got = evaluate(&dataset, &predictions).unwrap();
        assert_eq!((got.exact_match, got.f1, got.n), (exact_match, f1, n));
        assert_eq!(got.missing, n - predictions.len());
        assert_eq!(got.scores.len(), n);
        if dataset.format == Format::V2 {
            let has_answer = Subset { exact: 70.627_281_778_957_85, f1: 76.768_532_389_871_98, total: 3_013 };
            assert_eq!(got.has_answer, Some(has_answer));
            let no_answer = got.no_answer.unwrap();
            assert_eq!((no_answer.exact, no_answer.total), (79.385_964_912_280_7, 3_192));
        }
    }
}

#[test]
fn normalisation_is_that_of_python() {
    let table = [
        ("The Cat", "cat"),
        ("a an the A AN THE", ""),
        ("an-other a.b", "another ab"),
        ("theatre then a-the", "theatre then athe"),
        ("U.S.A.", "usa"),
        ("it's", "its"),
        ("snake_case", "snakecase"),
        // Only ASCII punctuation goes.
        ("“the” – ‘a’ €5", "“ ” – ‘ ’ €5"),
        // White space in Python and in Rust.
        ("x\u{a0}y\u{2003}z\u{3000}w\u{85}v", "x y z w v"),
        // White space in Python only.
        ("x\u{1c}y\u{1d}z\u{1e}w\u{1f}v", "x y z w v"),
        // Not white space in either.
        ("x\u{200b}y", "x\u{200b}y"),
        // A combining mark is no word character: the article before it is one.
        ("a\u{301} b", "\u{301} b"),
        ("á b", "á b"),
        ("a\u{93e}", "\u{93e}"),
        // Numbers of every kind are word characters.
        ("a²", "a²"),
        ("a½ the٣ aⅣ", "a½ the٣ aⅳ"),
        // Symbols are not, though Rust calls circled letters alphabetic.
        ("aⓐ", "ⓐ"),
        // Lower case that changes the length, and the sigma that ends a word.
        ("İ ΟΔΟΣ", "i\u{307} οδος"),
        ("", ""),
        ("  \t\n", ""),
    ];
    for (answer, expected) in table {
        assert_eq!(normalize_answer(answer), expected, "{answer:?}");
    }
}

#[test]
#[expect(clippy::float_cmp, reason = "the same operations give the same number")]
fn f1_counts_words_as_bags() {
    assert_eq!(f1_score("x x y", "x y y"), 2.0 * (2.0 / 3.0) * (2.0 / 3.0) / (2.0 / 3.0 + 2.0 / 3.0));
    assert_eq!(f1_score("x", "y"), 0.0);
    assert_eq!(f1_score("", ""), 0.0);
    assert_eq!(f1_score("the", "x"), 0.0);
    assert_eq!(f1_score("The x!", "x"), 1.0);
}

#[test]
#[expect(clippy::float_cmp, reason = "the same operations give the same number")]
fn version_1_takes_the_best_gold_and_counts_missing_predictions_as_wrong() {
    let dataset = dataset(Format::V1, &[("q1", &["red", "dark red"]), ("q2", &["blue"]), ("q3", &["tea"])]);
    let got = evaluate(&dataset, &predictions(&[("q1", "very dark red"), ("q3", "Tea."), ("x", "y")])).unwrap();
    let f1 = 2.0 * (2.0 / 3.0) * 1.0 / (2.0 / 3.0 + 1.0);
    assert_eq!((got.n, got.missing), (3, 1));
    assert_eq!(got.exact_match, 100.0 * 1.0 / 3.0);
    assert_eq!(got.f1, 100.0 * (f1 + 0.0 + 1.0) / 3.0);
    let scores: Vec<(&str, f64, f64)> = got.scores.iter().map(|s| (s.id.as_str(), s.exact, s.f1)).collect();
    assert_eq!(scores, [("q1", 0.0, f1), ("q2", 0.0, 0.0), ("q3", 1.0, 1.0)]);
    assert_eq!((got.has_answer, got.no_answer, got.best), (None, None, None));
}

#[test]
fn version_1_scores_an_id_as_often_as_it_comes() {
    let dataset = dataset(Format::V1, &[("q1", &["red"]), ("q1", &["blue"])]);
    let got = evaluate(&dataset, &predictions(&[("q1", "blue")])).unwrap();
    assert_eq!((got.exact_match, got.n), (50.0, 2));
}

#[test]
#[expect(clippy::float_cmp, reason = "the same operations give the same number")]
fn version_2_scores_nothing_as_the_answer_to_impossible_questions() {
    let questions: &[(&str, &[&str])] = &[
        ("has", &["red"]),
        ("no", &[]),
        ("lied", &[]),
        ("shy", &["blue"]),
        ("blank", &["the", "a"]),
        ("gone", &["x"]),
    ];
    let dataset = dataset(Format::V2, questions);
    let answers = [("has", "a red"), ("no", ""), ("lied", "red"), ("shy", ""), ("blank", "an")];
    let got = evaluate(&dataset, &predictions(&answers)).unwrap();
    let exact: Vec<(&str, f64, bool)> = got.scores.iter().map(|s| (s.id.as_str(), s.exact, s.has_answer)).collect();
    assert_eq!(
        exact,
        [
            ("has", 1.0, true),
            ("no", 1.0, false),
            ("lied", 0.0, false),
            ("shy", 0.0, true),
            ("blank", 1.0, true),
            ("gone", 0.0, true),
        ]
    );
    assert!(got.scores.iter().all(|score| score.exact == score.f1));
    assert_eq!((got.exact_match, got.n, got.missing), (50.0, 6, 1));
    assert_eq!(got.has_answer, Some(Subset { exact: 50.0, f1: 50.0, total: 4 }));
    assert_eq!(got.no_answer, Some(Subset { exact: 50.0, f1: 50.0, total: 2 }));
    assert_eq!(
        got.to_json(),
        "{\"exact_match\":50.0,\"f1\":50.0,\"n\":6,\"HasAns_exact\":50.0,\"HasAns_f1\":50.0,\"HasAns_total\":4,\
         \"NoAns_exact\":50.0,\"NoAns_f1\":50.0,\"NoAns_total\":2}"
    );
}

#[test]
fn version_2_scores_an_id_once_against_its_last_answers() {
    let dataset = dataset(Format::V2, &[("q1", &["red"]), ("q2", &["tea"]), ("q1", &["blue"])]);
    let got = evaluate(&dataset, &predictions(&[("q1", "blue"), ("q2", "milk")])).unwrap();
    let ids: Vec<&str> = got.scores.iter().map(|score| score.id.as_str()).collect();
    assert_eq!((ids, got.exact_match), (vec!["q1", "q2"], 50.0));
}

#[test]
fn version_2_without_impossible_questions_has_one_subset() {
    let dataset = dataset(Format::V2, &[("q1", &["red"])]);
    let got = evaluate(&dataset, &predictions(&[("q1", "red")])).unwrap();
    assert!(got.has_answer.is_some() && got.no_answer.is_none());
    assert!(!got.to_json().contains("NoAns"));
}

#[test]
#[expect(clippy::float_cmp, reason = "the same operations give the same number")]
fn thresholds_turn_likely_nulls_into_nothing() {
    let questions: &[(&str, &[&str])] = &[("a", &["red"]), ("b", &[]), ("c", &["dark blue"]), ("d", &[])];
    let dataset = dataset(Format::V2, questions);
    let predictions = predictions(&[("a", "red"), ("b", "red"), ("c", "blue"), ("d", "")]);
    let nulls: NullProbabilities =
        [("a", 0.1), ("b", 0.8), ("c", 0.3), ("d", 0.9)].map(|(id, p)| (id.to_owned(), p)).into_iter().collect();
    let raw = evaluate_v2_with_null_probabilities(&dataset, &predictions, &nulls, 1.0).unwrap();
    let without = evaluate(&dataset, &predictions).unwrap();
    assert_eq!((raw.exact_match, raw.f1), (without.exact_match, without.f1));
    assert_eq!(raw.exact_match, 50.0);

    let at_half = evaluate_v2_with_null_probabilities(&dataset, &predictions, &nulls, 0.5).unwrap();
    assert_eq!(at_half.exact_match, 75.0);
    // A value that equals the threshold is still answered.
    let at_b = evaluate_v2_with_null_probabilities(&dataset, &predictions, &nulls, 0.8).unwrap();
    assert_eq!(at_b.exact_match, 50.0);
    let at_nothing = evaluate_v2_with_null_probabilities(&dataset, &predictions, &nulls, 0.0).unwrap();
    assert_eq!((at_nothing.exact_match, at_nothing.f1), (50.0, 50.0));

    let f1_of_c = 2.0 * (1.0 * 0.5) / (1.0 + 0.5);
    let best = BestThresholds {
        exact: 75.0,
        exact_threshold: 0.1,
        f1: 100.0 * (2.0 + 1.0 + f1_of_c) / 4.0,
        f1_threshold: 0.3,
    };
    assert_eq!(at_half.best, Some(best));
    assert!(at_half.to_json().contains("\"best_exact\":75.0,\"best_exact_thresh\":0.1,\"best_f1\":"));
}

#[test]
fn a_predicted_question_needs_a_null_probability() {
    let dataset = dataset(Format::V2, &[("q1", &["red"]), ("q2", &[])]);
    let nulls: NullProbabilities = [("q1".to_owned(), 0.5)].into_iter().collect();
    let predictions = predictions(&[("q1", "red"), ("q2", "")]);
    let error = evaluate_v2_with_null_probabilities(&dataset, &predictions, &nulls, 0.5).unwrap_err();
    assert_eq!(error.to_string(), "null probabilities: expected a value for question `q2`, got none");
}

#[test]
fn a_dataset_without_questions_has_no_score() {
    for format in [Format::V1, Format::V2] {
        let error = evaluate(&dataset(format, &[]), &Predictions::new()).unwrap_err().to_string();
        assert_eq!(error, "dataset: expected at least 1 question, got 0");
    }
}
