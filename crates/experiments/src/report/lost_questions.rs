//! Questions that one plan answers and another does not, with their paragraphs: what a loss is made of.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use span_reader::evaluation::accuracy::Accuracy;
use squad_data::{Dataset, Predictions};

/// Questions that a report shows; all of them are in its JSON.
const SHOWN: usize = 8;

/// A question that is answered before and not behind a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostQuestion {
    /// Its identifier.
    pub id: String,
    /// The question.
    pub question: String,
    /// Its paragraph.
    pub context: String,
    /// The gold answers, each once; none where it has no answer.
    pub gold: Vec<String>,
    /// The answer before.
    pub before: String,
    /// The answer behind the change.
    pub after: String,
}

/// The questions that are answered exactly before and not behind a change, in the order of the data.
///
/// # Panics
///
/// When the two are not of the same questions.
pub fn lost_questions(
    dataset: &Dataset,
    before: (&Accuracy, &Predictions),
    after: (&Accuracy, &Predictions),
) -> Vec<LostQuestion> {
    let examples = dataset.examples();
    let pairs = before.0.scores.iter().zip(&after.0.scores);
    let lost = pairs.filter(|(before, after)| {
        assert_eq!(before.id, after.id, "two runs on the same questions");
        before.exact > 0.5 && after.exact < 0.5
    });
    let question = |id: &str| {
        // Of an id that comes back the last is scored.
        let example = examples.iter().rfind(|example| example.id == id)?;
        let mut gold: Vec<String> = Vec::new();
        for answer in &example.answers {
            if !gold.contains(&answer.text) {
                gold.push(answer.text.clone());
            }
        }
        let answer = |predictions: &Predictions| predictions.get(id).unwrap_or_default().to_owned();
        Some(LostQuestion {
            id: id.to_owned(),
            question: example.question.clone(),
            context: example.context.to_string(),
            gold,
            before: answer(before.1),
            after: answer(after.1),
        })
    };
    lost.filter_map(|(score, _)| question(&score.id)).collect()
}

/// The first of them as Markdown; `n` were lost.
pub(crate) fn lost_text(lost: &[LostQuestion], n: usize, file: &str) -> String {
    if n == 0 {
        return "No question is answered at 32 bits alone.\n".to_owned();
    }
    if lost.is_empty() {
        return format!("{n} questions are answered at 32 bits alone; this result was saved before they were kept.\n");
    }
    let shown = lost.len().min(SHOWN);
    let which =
        if shown < n { format!("the first {shown}, all of them in `{file}`") } else { "all of them".to_owned() };
    let mut text = format!("{n} questions are answered at 32 bits alone; {which}:\n\n");
    for LostQuestion { question, context, gold, before, after, .. } in &lost[..shown] {
        let gold = if gold.is_empty() { "no answer".to_owned() } else { gold.join(" / ") };
        let [question, context, gold, before, after] =
            [question, context, &gold, before, after].map(|text| literal(text));
        let answer = |text: &str| if text.is_empty() { "nothing".to_owned() } else { format!("“{text}”") };
        let _ = write!(
            text,
            "**{question}** At 32 bits {}, by the plan {}; gold: {gold}.\n\n> {context}\n\n",
            answer(&before),
            answer(&after)
        );
    }
    text
}

/// A text as it stands, in one line, whatever of it means something in Markdown.
fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len());
    for letter in text.trim().chars() {
        if letter.is_control() {
            literal.push(' ');
            continue;
        }
        if letter.is_ascii_punctuation() && !".,;:'\"?%/".contains(letter) {
            literal.push('\\');
        }
        literal.push(letter);
    }
    literal
}

#[cfg(test)]
mod tests {
    use squad_data::{Answer, Article, Format, Paragraph, Question, QuestionScore};

    use super::*;

    fn dataset() -> Dataset {
        let question = |id: &str, answers: &[&str]| Question {
            id: id.into(),
            question: format!("which {id}?"),
            answers: answers.iter().map(|text| Answer { text: (*text).into(), start: 0 }).collect(),
            plausible_answers: Vec::new(),
            is_impossible: false,
        };
        let questions = vec![question("a", &["x *y*", "x *y*", "z"]), question("b", &["x"]), question("c", &["x"])];
        let paragraphs = vec![Paragraph { context: "x *y* | <b>\nz".into(), questions }];
        Dataset { format: Format::V1, articles: vec![Article { title: "t".into(), paragraphs }] }
    }

    fn answered(exact: [f64; 3], answer: &str) -> (Accuracy, Predictions) {
        let score = |(id, exact): (&str, f64)| QuestionScore { id: id.into(), exact, f1: exact, has_answer: true };
        let scores = ["a", "b", "c"].into_iter().zip(exact).map(score).collect();
        let mut predictions = Predictions::new();
        for id in ["a", "b", "c"] {
            predictions.insert(id, answer);
        }
        (Accuracy::new(0.0, 0.0, scores, None), predictions)
    }

    #[test]
    fn what_is_lost_is_shown_as_it_stands_and_what_is_won_is_not() {
        let (before, after) = (answered([1.0, 0.0, 1.0], "z"), answered([0.0, 1.0, 1.0], ""));
        let lost = lost_questions(&dataset(), (&before.0, &before.1), (&after.0, &after.1));
        assert_eq!(lost.len(), 1);
        assert_eq!((lost[0].id.as_str(), lost[0].gold.as_slice()), ("a", ["x *y*".to_owned(), "z".into()].as_slice()));
        assert_eq!((lost[0].before.as_str(), lost[0].after.as_str()), ("z", ""));
        let text = lost_text(&lost, 1, "greedy.json");
        let expected =
            "**which a?** At 32 bits “z”, by the plan nothing; gold: x \\*y\\* / z.\n\n> x \\*y\\* \\| \\<b\\> z\n";
        assert!(text.starts_with("1 questions are answered at 32 bits alone; all of them:\n\n"), "{text}");
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn a_result_that_was_saved_without_them_says_so() {
        assert_eq!(lost_text(&[], 0, "greedy.json"), "No question is answered at 32 bits alone.\n");
        assert!(lost_text(&[], 3, "greedy.json").starts_with("3 questions are answered at 32 bits alone; this result"));
        let one = LostQuestion {
            id: "a".into(),
            question: "q".into(),
            context: "c".into(),
            gold: Vec::new(),
            before: String::new(),
            after: "x".into(),
        };
        let text = lost_text(&vec![one; 9], 9, "greedy.json");
        assert!(
            text.contains("the first 8, all of them in `greedy.json`") && text.contains("gold: no answer."),
            "{text}"
        );
        assert_eq!(text.matches("\n> c\n").count(), 8);
    }
}
