//! Parsing and checking of SQuAD JSON.
//!
//! The document is walked by hand instead of through derived deserialisers, so that each message
//! can say which field of which file is wrong, what stands there and what should.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Answer, Article, Dataset, Format, Paragraph, Question, ReadOptions, UnknownFields};
use crate::error::{Error, Result};

/// Fields that SQuAD v1.1, v2.0 and the SQuADShifts and XQuAD files have.
const FILE_FIELDS: &[&str] = &["version", "data"];
const ARTICLE_FIELDS: &[&str] = &["title", "paragraphs", "split"];
const PARAGRAPH_FIELDS: &[&str] = &["context", "qas", "document_id"];
const QUESTION_FIELDS: &[&str] = &["id", "question", "answers", "is_impossible", "plausible_answers"];
const ANSWER_FIELDS: &[&str] = &["text", "answer_start"];

/// Characters of a wrong value that a message shows.
const SHOWN_CHARS: usize = 40;

pub(super) fn parse(json: &str, path: &Path, options: ReadOptions) -> Result<Dataset> {
    let root: Value = serde_json::from_str(json).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    let reader = Reader { path, unknown_fields: options.unknown_fields };
    let file = reader.object(&root, "file", FILE_FIELDS)?;
    let articles = reader
        .array(file, "", "data")?
        .iter()
        .enumerate()
        .map(|(i, article)| reader.article(article, &format!("data[{i}]")))
        .collect::<Result<Vec<_>>>()?;
    let format = reader.format(file.get("version"), &articles)?;
    let dataset = Dataset { format, articles };
    reader.check_questions(&dataset)?;
    Ok(dataset)
}

struct Reader<'a> {
    path: &'a Path,
    unknown_fields: UnknownFields,
}

impl Reader<'_> {
    fn format(&self, version: Option<&Value>, articles: &[Article]) -> Result<Format> {
        let Some(version) = version else {
            // Converted files often lack it; their questions tell.
            let mut paragraphs = articles.iter().flat_map(|a| &a.paragraphs);
            let has_impossible = paragraphs.any(|p| p.questions.iter().any(|question| question.is_impossible));
            return Ok(if has_impossible { Format::V2 } else { Format::V1 });
        };
        match version.as_str() {
            Some("1.0" | "1.1" | "v1.0" | "v1.1") => Ok(Format::V1),
            Some("2.0" | "v2.0") => Ok(Format::V2),
            _ => Err(self.field("version", "`1.0`, `1.1` or `v2.0`", shown(version))),
        }
    }

    fn article(&self, value: &Value, at: &str) -> Result<Article> {
        let object = self.object(value, at, ARTICLE_FIELDS)?;
        let title = match object.get("title") {
            Some(_) => self.string(object, at, "title")?,
            None => String::new(),
        };
        let paragraphs = self
            .array(object, at, "paragraphs")?
            .iter()
            .enumerate()
            .map(|(i, paragraph)| self.paragraph(paragraph, &format!("{at}.paragraphs[{i}]")))
            .collect::<Result<Vec<_>>>()?;
        Ok(Article { title, paragraphs })
    }

    fn paragraph(&self, value: &Value, at: &str) -> Result<Paragraph> {
        let object = self.object(value, at, PARAGRAPH_FIELDS)?;
        let context = self.text(object, at, "context")?;
        let questions = self
            .array(object, at, "qas")?
            .iter()
            .enumerate()
            .map(|(i, question)| self.question(question, &format!("{at}.qas[{i}]"), &context))
            .collect::<Result<Vec<_>>>()?;
        Ok(Paragraph { context, questions })
    }

    fn question(&self, value: &Value, at: &str, context: &str) -> Result<Question> {
        let object = self.object(value, at, QUESTION_FIELDS)?;
        let id = self.text(object, at, "id")?;
        let question = self.text(object, at, "question")?;
        let is_impossible = match object.get("is_impossible") {
            None => false,
            Some(Value::Bool(is_impossible)) => *is_impossible,
            Some(other) => {
                let field = format!("{at}.is_impossible");
                return Err(self.field(field, "true or false", shown(other)));
            }
        };
        let answers = self.answers(object, at, "answers", context, &id)?;
        let plausible_answers = match object.get("plausible_answers") {
            Some(_) => self.answers(object, at, "plausible_answers", context, &id)?,
            None => Vec::new(),
        };
        Ok(Question { id, question, answers, plausible_answers, is_impossible })
    }

    fn answers(
        &self,
        object: &Map<String, Value>,
        at: &str,
        name: &str,
        context: &str,
        id: &str,
    ) -> Result<Vec<Answer>> {
        let list = self.array(object, at, name)?.iter().enumerate();
        list.map(|(i, value)| {
            let field = format!("{name}[{i}]");
            self.answer(value, &format!("{at}.{field}")).and_then(|answer| {
                self.check_offset(&answer, context, id, &field)?;
                Ok(answer)
            })
        })
        .collect()
    }

    fn answer(&self, value: &Value, at: &str) -> Result<Answer> {
        let object = self.object(value, at, ANSWER_FIELDS)?;
        let text = self.text(object, at, "text")?;
        let start = self.required(object, at, "answer_start")?;
        let Some(start) = start.as_u64().and_then(|n| usize::try_from(n).ok()) else {
            let field = format!("{at}.answer_start");
            return Err(self.field(field, "a character offset of at least 0", shown(start)));
        };
        Ok(Answer { text, start })
    }

    fn check_offset(&self, answer: &Answer, context: &str, id: &str, field: &str) -> Result<()> {
        let stands_there = context
            .char_indices()
            .map(|(byte, _)| byte)
            .nth(answer.start)
            .is_some_and(|byte| context[byte..].starts_with(&answer.text));
        if stands_there {
            return Ok(());
        }
        let wanted_chars = answer.text.chars().count();
        let there = context.chars().skip(answer.start).take(wanted_chars);
        Err(Error::AnswerOffset {
            path: self.path.to_owned(),
            id: id.to_owned(),
            field: format!("{field}.answer_start"),
            expected: format!("`{}` at character {}", answer.text, answer.start),
            got: there.collect(),
        })
    }

    /// Checks what concerns a question as a whole: that it can be scored, and that its id means
    /// one question only.
    ///
    /// An id may come back with the same question on the same context, as it does in the official
    /// training file where annotators answered twice.
    fn check_questions(&self, dataset: &Dataset) -> Result<()> {
        let mut seen: HashMap<&str, (&str, &str)> = HashMap::new();
        let paragraphs = dataset.articles.iter().flat_map(|a| &a.paragraphs);
        for paragraph in paragraphs {
            for question in &paragraph.questions {
                let fail = |field, expected: &str, got: String| Error::Question {
                    path: self.path.to_owned(),
                    id: question.id.clone(),
                    field,
                    expected: expected.into(),
                    got,
                };
                if question.is_impossible && !question.answers.is_empty() {
                    let got = format!("{}", question.answers.len());
                    return Err(fail("answers", "none for an impossible question", got));
                }
                if !question.is_impossible && question.answers.is_empty() {
                    return Err(fail("answers", "at least one", "none".into()));
                }
                if question.is_impossible && dataset.format == Format::V1 {
                    let got = "true".into();
                    return Err(fail("is_impossible", "false in version 1", got));
                }
                let content = (paragraph.context.as_str(), question.question.as_str());
                let first = *seen.entry(&question.id).or_insert(content);
                if first != content {
                    let got = format!("`{}` and `{}`", first.1, content.1);
                    return Err(fail("id", "one question of this id", got));
                }
            }
        }
        Ok(())
    }

    fn object<'v>(&self, value: &'v Value, at: &str, known: &[&str]) -> Result<&'v Map<String, Value>> {
        let Value::Object(object) = value else {
            return Err(self.field(at, "an object", shown(value)));
        };
        if self.unknown_fields == UnknownFields::Reject
            && let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str()))
        {
            let expected = format!("only the fields `{}`", known.join("`, `"));
            return Err(self.field(at, expected, format!("`{unknown}`")));
        }
        Ok(object)
    }

    fn required<'v>(&self, object: &'v Map<String, Value>, at: &str, name: &str) -> Result<&'v Value> {
        object.get(name).ok_or_else(|| self.field(join(at, name), "a value", "none"))
    }

    fn array<'v>(&self, object: &'v Map<String, Value>, at: &str, name: &str) -> Result<&'v [Value]> {
        match self.required(object, at, name)? {
            Value::Array(list) => Ok(list),
            other => Err(self.field(join(at, name), "an array", shown(other))),
        }
    }

    fn string(&self, object: &Map<String, Value>, at: &str, name: &str) -> Result<String> {
        match self.required(object, at, name)? {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.field(join(at, name), "a string", shown(other))),
        }
    }

    /// A string with something in it.
    fn text(&self, object: &Map<String, Value>, at: &str, name: &str) -> Result<String> {
        let text = self.string(object, at, name)?;
        if text.trim().is_empty() {
            let got = format!("{text:?}");
            return Err(self.field(join(at, name), "a text that is not empty", got));
        }
        Ok(text)
    }

    fn field(&self, field: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::Field { path: self.path.to_owned(), field: field.into(), expected: expected.into(), got: got.into() }
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// A wrong value as a message shows it: its kind, and itself where it is short.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Array(list) => format!("an array of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
        Value::Bool(_) | Value::Number(_) => format!("{value}"),
        Value::String(text) if text.chars().count() <= SHOWN_CHARS => format!("{text:?}"),
        Value::String(text) => {
            let start: String = text.chars().take(SHOWN_CHARS).collect();
            format!("a string that begins with {start:?}")
        }
    }
}
