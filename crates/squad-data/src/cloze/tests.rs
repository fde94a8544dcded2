use super::*;
use crate::dataset::{Article, Dataset, Format};

const TEXT: &str = "Early life.\n\
    Powers was born in Jenkins, Kentucky, to Oliver and Ida Powers. He grew up in Pound, Virginia, just across the \
    state border. Graduating from Milligan College in Tennessee, in 1950, he was commissioned as a second lieutenant \
    in the United States Air Force — 26 others (all from Æthelton) were not.\n\
    Short line.";

#[test]
fn answers_stand_at_their_offsets_and_files_read_back() {
    for seed in 0..200 {
        let paragraphs = cloze_questions(TEXT, "a", &ClozeConfig { seed, ..ClozeConfig::default() }).unwrap();
        assert_eq!(paragraphs.len(), 1, "headings and short lines are passed over");
        for question in &paragraphs[0].questions {
            assert!(question.question.ends_with('?') && question.answers.len() == 1);
        }
        // Reading checks every answer against its offset.
        let articles = vec![Article { title: "a".into(), paragraphs }];
        let dataset = Dataset { format: Format::V1, articles };
        assert_eq!(Dataset::from_json(&dataset.to_json(), "a.json").unwrap(), dataset);
    }
}

#[test]
fn an_answer_lies_within_a_sentence_and_is_not_in_its_question() {
    let config = ClozeConfig { phrases: 0.0, dropped: 0.0, words_per_question: 40, ..ClozeConfig::default() };
    let mut seen = Vec::new();
    for seed in 0..100 {
        for paragraph in cloze_questions(TEXT, "a", &ClozeConfig { seed, ..config }).unwrap() {
            for question in paragraph.questions {
                let answer = &question.answers[0].text;
                assert!(!answer.contains(['.', ',', '(']), "{answer}");
                assert!(answer == "Powers" || !question.question.contains(answer.as_str()), "{question:?}");
                seen.push(answer.clone());
            }
        }
    }
    for name in ["Jenkins", "Kentucky", "Ida Powers", "Milligan College", "1950", "26", "Æthelton"] {
        assert!(seen.iter().any(|answer| answer == name), "{name} was never asked for");
    }
    assert!(!seen.iter().any(|answer| answer == "He" || answer == "Graduating"));
}

#[test]
fn contexts_end_behind_a_sentence_and_within_their_words() {
    let config = ClozeConfig { words_per_context: 30, ..ClozeConfig::default() };
    let paragraphs = cloze_questions(TEXT, "a", &config).unwrap();
    assert!(paragraphs[0].context.ends_with("state border."), "{}", paragraphs[0].context);
    let endless = "word ".repeat(100);
    let paragraphs = cloze_questions(&endless, "a", &ClozeConfig { phrases: 1.0, ..config }).unwrap();
    assert_eq!(paragraphs[0].context.split_whitespace().count(), 30);
}

#[test]
fn the_same_seed_and_name_ask_the_same_questions() {
    let config = ClozeConfig { seed: 7, ..ClozeConfig::default() };
    let asked = |name: &str, seed| cloze_questions(TEXT, name, &ClozeConfig { seed, ..config }).unwrap();
    assert_eq!(asked("a", 7), asked("a", 7));
    assert_ne!(asked("a", 7), asked("a", 8));
    let texts = |name| asked(name, 7)[0].questions.iter().map(|q| q.question.clone()).collect::<Vec<_>>();
    assert_ne!(texts("a"), texts("b"));
    assert!(cloze_questions("", "a", &config).unwrap().is_empty());
}

#[test]
fn every_field_out_of_range_is_named() {
    let good = ClozeConfig::default();
    let cases = [
        ("questions_per_paragraph", ClozeConfig { questions_per_paragraph: 0, ..good }),
        ("words_per_context", ClozeConfig { words_per_context: 19, ..good }),
        ("words_per_question", ClozeConfig { words_per_question: 1, ..good }),
        ("dropped", ClozeConfig { dropped: 1.0, ..good }),
        ("phrases", ClozeConfig { phrases: f64::NAN, ..good }),
    ];
    for (field, config) in cases {
        let message = cloze_questions(TEXT, "a", &config).expect_err(field).to_string();
        assert!(message.contains(field), "{message}");
    }
}
