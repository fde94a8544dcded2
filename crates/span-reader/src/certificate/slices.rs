//! The loss in parts of the questions: by length of the answer, by question word, with and without an answer.
//!
//! ```text
//! p     = McNemar's exact test of the part's discordant questions over its design effect
//! ```
//!
//! Many parts are compared: one in twenty would differ at 5 % by chance. A part counts as worse where Holm's p
//! ([`holm`](crate::statistics::holm)) is below 0.05 and the artefact is right less often.

use std::fmt;

use serde::{Deserialize, Serialize};
use squad_data::Example;

use crate::certificate::paired_loss::{PairedLoss, QuestionLoss};
use crate::statistics::holm::adjusted;
use crate::statistics::{Interval, mcnemar};

/// What questions are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlicedBy {
    /// Words of the shortest gold answer.
    AnswerWords,
    /// The first word of the question that asks.
    QuestionWord,
    /// Whether the text holds an answer.
    Answerable,
}

/// `answers of 2-3 words`, `questions with who`, `questions without an answer`
impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.by, self.part.as_str()) {
            (SlicedBy::AnswerWords, "1") => f.write_str("answers of 1 word"),
            (SlicedBy::AnswerWords, words) => write!(f, "answers of {words} words"),
            (SlicedBy::QuestionWord, OTHER) => f.write_str("questions with no question word"),
            (SlicedBy::QuestionWord, word) => write!(f, "questions with {word}"),
            (SlicedBy::Answerable, "HasAns") => f.write_str("questions with an answer"),
            (SlicedBy::Answerable, _) => f.write_str("questions without an answer"),
        }
    }
}

/// A part of the questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// What it is divided by.
    pub by: SlicedBy,
    /// Which part.
    pub part: String,
    /// Number of questions.
    pub questions: usize,
    /// Exact match of the original, percent.
    pub original: f64,
    /// Exact match of the artefact, percent.
    pub artefact: f64,
    /// Artefact minus original, percent points.
    pub difference: f64,
    /// 95 % interval of the difference, of this part alone.
    pub interval: Interval,
    /// p of this part alone.
    pub p_value: f64,
    /// p among all parts.
    pub holm_p_value: f64,
    /// Whether the artefact is worse here beyond what so many comparisons give by chance.
    pub is_worse: bool,
}

/// A question answered by both.
#[derive(Debug, Clone, Copy)]
pub(super) struct BothAnswers<'a> {
    pub(super) example: &'a Example,
    pub(super) has_answer: bool,
    /// 1 where the original is right.
    pub(super) original: f64,
    /// 1 where the artefact is right.
    pub(super) artefact: f64,
    pub(super) loss: QuestionLoss,
}

const LENGTHS: [(&str, usize); 4] = [("1", 1), ("2-3", 3), ("4-7", 7), ("8+", usize::MAX)];
const QUESTION_WORDS: [&str; 7] = ["what", "who", "when", "where", "which", "why", "how"];
const OTHER: &str = "other";

/// All parts in which there is a question, in a fixed order.
pub(super) fn slices(answers: &[BothAnswers<'_>]) -> Vec<Slice> {
    let has_both = answers.iter().any(|answer| !answer.has_answer);
    let kinds: [(SlicedBy, Vec<&str>); 3] = [
        (SlicedBy::AnswerWords, LENGTHS.map(|(name, _)| name).to_vec()),
        (SlicedBy::QuestionWord, QUESTION_WORDS.into_iter().chain([OTHER]).collect()),
        (SlicedBy::Answerable, if has_both { vec!["HasAns", "NoAns"] } else { Vec::new() }),
    ];
    let mut slices = Vec::new();
    for (by, parts) in kinds {
        for part in parts {
            let chosen: Vec<&BothAnswers<'_>> =
                answers.iter().filter(|answer| part_of(by, answer) == Some(part)).collect();
            if !chosen.is_empty() {
                slices.push(slice(by, part, &chosen));
            }
        }
    }
    adjust(&mut slices);
    slices
}

fn part_of(by: SlicedBy, answer: &BothAnswers<'_>) -> Option<&'static str> {
    match by {
        SlicedBy::AnswerWords => {
            let words = answer.example.answers.iter().map(|gold| gold.text.split_whitespace().count()).min()?;
            LENGTHS.into_iter().find(|(_, most)| words <= *most).map(|(name, _)| name)
        }
        SlicedBy::QuestionWord => Some(question_word(&answer.example.question)),
        SlicedBy::Answerable => Some(if answer.has_answer { "HasAns" } else { "NoAns" }),
    }
}

fn question_word(question: &str) -> &'static str {
    let lower = question.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric()).map(|word| match word {
        "whom" | "whose" => "who",
        word => word,
    });
    words.find_map(|word| QUESTION_WORDS.into_iter().find(|known| *known == word)).unwrap_or(OTHER)
}

fn slice(by: SlicedBy, part: &str, chosen: &[&BothAnswers<'_>]) -> Slice {
    let losses: Vec<QuestionLoss> = chosen.iter().map(|answer| answer.loss).collect();
    let PairedLoss { difference, interval, design_effect, .. } = PairedLoss::new(&losses);
    let percent = |right: &dyn Fn(&BothAnswers<'_>) -> f64| {
        100.0 * chosen.iter().map(|answer| right(answer)).sum::<f64>() / chosen.len() as f64
    };
    let lost = losses.iter().filter(|question| question.loss > 0.5).count();
    let won = losses.iter().filter(|question| question.loss < -0.5).count();
    let apart = |count: usize| count as f64 / design_effect;
    // Rounded so that less differs.
    let (most, least) = (apart(lost.max(won)).floor(), apart(lost.min(won)).ceil());
    let p_value = mcnemar(most as usize, least as usize);
    Slice {
        by,
        part: part.to_owned(),
        questions: chosen.len(),
        original: percent(&|answer| answer.original),
        artefact: percent(&|answer| answer.artefact),
        difference,
        interval,
        p_value,
        holm_p_value: 1.0,
        is_worse: false,
    }
}

fn adjust(slices: &mut [Slice]) {
    let p_values: Vec<f64> = slices.iter().map(|slice| slice.p_value).collect();
    for (slice, p_value) in slices.iter_mut().zip(adjusted(&p_values)) {
        slice.holm_p_value = p_value;
        slice.is_worse = p_value < 0.05 && slice.difference < 0.0;
    }
}

#[cfg(test)]
mod tests {
    use squad_data::Answer;

    use crate::certificate::text_hash::TextHash;

    use super::*;

    fn example(question: &str, answers: &[&str]) -> Example {
        let answer = |text: &&str| Answer { text: (*text).to_owned(), start: 0 };
        Example {
            id: question.into(),
            context: "c".into(),
            question: question.into(),
            answers: answers.iter().map(answer).collect(),
            is_impossible: answers.is_empty(),
        }
    }

    #[test]
    fn the_first_word_that_asks_says_the_part() {
        for (question, expected) in [
            ("What is it?", "what"),
            ("In which year, and when?", "which"),
            ("To whom was it given?", "who"),
            ("Whose?", "who"),
            ("Somehow named?", "other"),
            ("HOW many", "how"),
        ] {
            assert_eq!(question_word(question), expected, "{question}");
        }
    }

    #[test]
    fn answers_are_counted_by_the_words_of_the_shortest() {
        let of = |golds: &[&str]| {
            let example = example("q", golds);
            let loss = QuestionLoss { loss: 0.0, paragraph: TextHash::of_context("c") };
            let both = BothAnswers { example: &example, has_answer: true, original: 1.0, artefact: 1.0, loss };
            part_of(SlicedBy::AnswerWords, &both)
        };
        let eight = "a b c d e f g h";
        assert_eq!(
            [of(&["tea"]), of(&[eight, "a b"]), of(&["a b c d e f g"]), of(&[eight])].map(Option::unwrap),
            ["1", "2-3", "4-7", "8+"]
        );
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_loss_in_one_part_is_flagged_and_chance_is_not() {
        let examples: Vec<Example> = (0..600)
            .map(|i| match i % 3 {
                0 => example("what", &["tea"]),
                1 => example("who", &["two words"]),
                _ => example("why", &[]),
            })
            .collect();
        let both: Vec<BothAnswers<'_>> = examples
            .iter()
            .enumerate()
            .map(|(i, example)| {
                // `who` loses 30 of its 200 questions, the others one each.
                let is_lost = (i % 3 == 1 && i < 90) || i == 0 || i == 2;
                let paragraph = TextHash::of_context(&i.to_string());
                let loss = QuestionLoss { loss: f64::from(u8::from(is_lost)), paragraph };
                let artefact = 1.0 - loss.loss;
                BothAnswers { example, has_answer: !example.is_impossible, original: 1.0, artefact, loss }
            })
            .collect();
        let slices = slices(&both);
        let worse: Vec<&str> = slices.iter().filter(|s| s.is_worse).map(|s| s.part.as_str()).collect();
        assert_eq!(worse, ["2-3", "who", "HasAns"]);
        let names: Vec<String> = slices.iter().map(ToString::to_string).collect();
        let expected = [
            "answers of 1 word",
            "answers of 2-3 words",
            "questions with what",
            "questions with who",
            "questions with why",
            "questions with an answer",
            "questions without an answer",
        ];
        assert_eq!(names, expected);
        let total: usize = slices.iter().filter(|s| s.by == SlicedBy::QuestionWord).map(|s| s.questions).sum();
        assert_eq!(total, 600);
        for slice in &slices {
            assert!(slice.holm_p_value >= slice.p_value && slice.interval.contains(slice.difference), "{slice:?}");
        }
        let who = slices.iter().find(|slice| slice.part == "who").unwrap();
        assert!((who.artefact - 85.0).abs() < 1e-9 && (who.difference + 15.0).abs() < 1e-9);
    }

    #[test]
    fn holm_multiplies_by_those_that_are_left() {
        let loss = QuestionLoss { loss: 0.0, paragraph: TextHash::of_context("c") };
        let example = example("what", &["tea"]);
        let both = BothAnswers { example: &example, has_answer: true, original: 1.0, artefact: 1.0, loss };
        let base = slice(SlicedBy::QuestionWord, "what", &[&both]);
        let mut slices: Vec<Slice> =
            [0.03, 0.01, 0.02].map(|p_value| Slice { p_value, difference: -1.0, ..base.clone() }).to_vec();
        adjust(&mut slices);
        let found: Vec<f64> = slices.iter().map(|slice| slice.holm_p_value).collect();
        for (found, expected) in found.iter().zip([0.04, 0.03, 0.04]) {
            assert!((found - expected).abs() < 1e-12, "{found}");
        }
        assert!(slices.iter().all(|slice| slice.is_worse));
    }
}
