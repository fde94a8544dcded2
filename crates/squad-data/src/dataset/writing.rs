//! The JSON form of a dataset.

use serde::Serialize;

use super::{Answer, Dataset, Format, Paragraph, Question};

#[derive(Serialize)]
struct FileJson<'a> {
    version: &'static str,
    data: Vec<ArticleJson<'a>>,
}

#[derive(Serialize)]
struct ArticleJson<'a> {
    title: &'a str,
    paragraphs: Vec<ParagraphJson<'a>>,
}

#[derive(Serialize)]
struct ParagraphJson<'a> {
    context: &'a str,
    qas: Vec<QuestionJson<'a>>,
}

#[derive(Serialize)]
struct QuestionJson<'a> {
    id: &'a str,
    question: &'a str,
    answers: Vec<AnswerJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_impossible: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plausible_answers: Vec<AnswerJson<'a>>,
}

#[derive(Serialize)]
struct AnswerJson<'a> {
    text: &'a str,
    answer_start: usize,
}

pub(super) fn to_json(dataset: &Dataset) -> String {
    let file = FileJson {
        version: match dataset.format {
            Format::V1 => "1.1",
            Format::V2 => "v2.0",
        },
        data: dataset
            .articles
            .iter()
            .map(|article| ArticleJson {
                title: &article.title,
                paragraphs: article
                    .paragraphs
                    .iter()
                    .map(|paragraph| paragraph_json(paragraph, dataset.format))
                    .collect(),
            })
            .collect(),
    };
    serde_json::to_string(&file).expect("strings, numbers and lists are always JSON")
}

fn paragraph_json(paragraph: &Paragraph, format: Format) -> ParagraphJson<'_> {
    ParagraphJson {
        context: &paragraph.context,
        qas: paragraph.questions.iter().map(|question| question_json(question, format)).collect(),
    }
}

fn question_json(question: &Question, format: Format) -> QuestionJson<'_> {
    QuestionJson {
        id: &question.id,
        question: &question.question,
        answers: answers_json(&question.answers),
        is_impossible: match format {
            Format::V1 => None,
            Format::V2 => Some(question.is_impossible),
        },
        plausible_answers: answers_json(&question.plausible_answers),
    }
}

fn answers_json(answers: &[Answer]) -> Vec<AnswerJson<'_>> {
    answers.iter().map(|answer| AnswerJson { text: &answer.text, answer_start: answer.start }).collect()
}
