//! Parsing and checking of SQuAD JSON.
//!
//! The document is walked by hand instead of through derived deserialisers, so that each message
//! can say which field of which file is wrong, what stands there and what should.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::form::{self, Form, Row};
use super::{
    Answer, Article, BadAnswers, Dataset, Format, Paragraph, Question, ReadDataset, ReadOptions, Realign, UnknownFields,
};
use crate::dataset::shown_value::shown;
use crate::error::{BadAnswer, Error, Result};
use crate::question_counts::{QuestionCounts, WhyLeftOut};

/// Fields that SQuAD v1.1, v2.0 and the SQuADShifts and XQuAD files have.
const FILE_FIELDS: &[&str] = &["version", "data"];
const ARTICLE_FIELDS: &[&str] = &["title", "paragraphs", "split"];
const PARAGRAPH_FIELDS: &[&str] = &["context", "qas", "document_id"];
const QUESTION_FIELDS: &[&str] = &["id", "question", "answers", "is_impossible", "plausible_answers"];
const ANSWER_FIELDS: &[&str] = &["text", "answer_start"];
/// Fields of the rows that `datasets` exports, its `flatten` included.
const ROW_FIELDS: &[&str] = &["id", "title", "context", "question", "answers", "is_impossible", FLAT_TEXT, FLAT_START];
const FLAT_TEXT: &str = "answers.text";
const FLAT_START: &str = "answers.answer_start";

pub(super) fn parse(json: &str, path: &Path, options: ReadOptions) -> Result<ReadDataset> {
    let reader = Reader {
        path,
        options,
        answers: Cell::new(0),
        realigned: Cell::new(0),
        bad: RefCell::default(),
        left_out: Cell::new(0),
    };
    let (version, articles) = match form::parse(json, path)? {
        Form::Articles(root) => {
            let file = reader.object(&root, "file", FILE_FIELDS)?;
            let articles = reader
                .array(file, "", "data")?
                .iter()
                .enumerate()
                .map(|(i, article)| reader.article(article, &format!("data[{i}]")))
                .collect::<Result<Vec<_>>>()?;
            (file.get("version").cloned(), articles)
        }
        Form::Rows { file, rows } => {
            let file = file.as_ref().map(|file| reader.object(file, "file", FILE_FIELDS)).transpose()?;
            (file.and_then(|file| file.get("version")).cloned(), reader.articles_of(&rows)?)
        }
    };
    let bad = reader.bad.take();
    if options.bad_answers == BadAnswers::Refuse && !bad.is_empty() {
        return Err(reader.refused(bad));
    }
    let format = reader.format(version.as_ref(), &articles)?;
    let dataset = Dataset { format, articles };
    reader.check_questions(&dataset)?;
    let left_out = reader.left_out.get();
    let mut counts = QuestionCounts::of(dataset.len() + left_out);
    counts.leave_out(left_out, WhyLeftOut::BadOffsets);
    Ok(ReadDataset { dataset, counts, skipped_answers: bad.len(), realigned_answers: reader.realigned.get() })
}

struct Reader<'a> {
    path: &'a Path,
    options: ReadOptions,
    /// Answers read so far.
    answers: Cell<usize>,
    /// Answers moved so far.
    realigned: Cell<usize>,
    /// Answers that do not stand at their offsets.
    bad: RefCell<Vec<BadAnswer>>,
    /// Questions all of whose answers are among these.
    left_out: Cell<usize>,
}

/// What must be at an answer's offset, and where the answer is in the file.
struct AnswerPlace<'a> {
    context: &'a str,
    id: &'a str,
    field: String,
}

impl Reader<'_> {
    fn refused(&self, mut bad: Vec<BadAnswer>) -> Error {
        let path = self.path.to_owned();
        if bad.len() == 1 {
            let BadAnswer { id, field, expected, got } = bad.remove(0);
            return Error::AnswerOffset { path, id, field, expected, got };
        }
        Error::AnswerOffsets { path, answers: self.answers.get(), bad }
    }

    /// Rows as articles of paragraphs: one for each title, one for each context in it.
    fn articles_of(&self, rows: &[Row]) -> Result<Vec<Article>> {
        if rows.is_empty() {
            return Err(self.field("file", "at least one question", "none"));
        }
        let mut articles: Vec<Article> = Vec::new();
        let mut article_of: HashMap<String, usize> = HashMap::new();
        let mut paragraph_of: HashMap<(usize, String), usize> = HashMap::new();
        for Row { at, value } in rows {
            let object = self.object(value, at, ROW_FIELDS)?;
            let title = match object.get("title") {
                None | Some(Value::Null) => String::new(),
                Some(_) => self.string(object, at, "title")?,
            };
            let context = self.text(object, at, "context")?;
            let question = self.row_question(object, at, &context)?;
            let article = *article_of.entry(title.clone()).or_insert_with(|| {
                articles.push(Article { title, paragraphs: Vec::new() });
                articles.len() - 1
            });
            let paragraphs = &mut articles[article].paragraphs;
            let paragraph = *paragraph_of.entry((article, context.clone())).or_insert_with(|| {
                paragraphs.push(Paragraph { context, questions: Vec::new() });
                paragraphs.len() - 1
            });
            paragraphs[paragraph].questions.extend(question);
        }
        Ok(articles)
    }

    /// The question of a row; none if none of its answers stands at its offset.
    fn row_question(&self, object: &Map<String, Value>, at: &str, context: &str) -> Result<Option<Question>> {
        let id = self.text(object, at, "id")?;
        let question = self.text(object, at, "question")?;
        let is_flat = object.contains_key(FLAT_TEXT) && !object.contains_key("answers");
        let answers = if is_flat { &Value::Null } else { self.required(object, at, "answers")? };
        let (listed, answers) = match answers {
            Value::Null if is_flat => {
                let columns = [self.array(object, at, FLAT_TEXT)?, self.array(object, at, FLAT_START)?];
                self.answer_columns(columns, &join(at, "answers"), (context, &id))?
            }
            Value::Object(columns) => {
                let at = join(at, "answers");
                self.known(columns, &at, ANSWER_FIELDS)?;
                let columns = [self.array(columns, &at, "text")?, self.array(columns, &at, "answer_start")?];
                self.answer_columns(columns, &at, (context, &id))?
            }
            Value::Array(list) => (list.len(), self.answers(object, at, "answers", (context, &id))?),
            other => {
                let expected = "an object of `text` and `answer_start`, or an array";
                return Err(self.field(join(at, "answers"), expected, shown(other)));
            }
        };
        let is_impossible = match object.get("is_impossible") {
            None | Some(Value::Null) => listed == 0,
            Some(_) => self.is_impossible(object, at)?,
        };
        let question = Question { id, question, answers, plausible_answers: Vec::new(), is_impossible };
        Ok(self.answerable(question, listed))
    }

    /// `{"text": [..], "answer_start": [..]}`: the number of answers, and those that stand at their offsets.
    fn answer_columns(
        &self,
        [texts, starts]: [&[Value]; 2],
        at: &str,
        (context, id): (&str, &str),
    ) -> Result<(usize, Vec<Answer>)> {
        if texts.len() != starts.len() {
            let expected = format!("as many offsets as texts, {}", texts.len());
            return Err(self.field(join(at, "answer_start"), expected, starts.len().to_string()));
        }
        let mut answers = Vec::new();
        for (i, (text, start)) in texts.iter().zip(starts).enumerate() {
            let Value::String(text) = text else {
                return Err(self.field(format!("{at}.text[{i}]"), "a string", shown(text)));
            };
            if text.trim().is_empty() {
                return Err(self.field(format!("{at}.text[{i}]"), "a text that is not empty", format!("{text:?}")));
            }
            let start = self.offset(start, format!("{at}.answer_start[{i}]"))?;
            let place = AnswerPlace { context, id, field: format!("answers.answer_start[{i}]") };
            answers.extend(self.placed(Answer { text: text.clone(), start }, place));
        }
        Ok((texts.len(), answers))
    }

    /// A question, unless it lost all the answers that are listed for it.
    fn answerable(&self, question: Question, listed: usize) -> Option<Question> {
        if listed > 0 && question.answers.is_empty() {
            self.left_out.set(self.left_out.get() + 1);
            return None;
        }
        Some(question)
    }

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
            .filter_map(Result::transpose)
            .collect::<Result<Vec<_>>>()?;
        Ok(Paragraph { context, questions })
    }

    /// A question; none if none of its answers stands at its offset.
    fn question(&self, value: &Value, at: &str, context: &str) -> Result<Option<Question>> {
        let object = self.object(value, at, QUESTION_FIELDS)?;
        let id = self.text(object, at, "id")?;
        let question = self.text(object, at, "question")?;
        let is_impossible = match object.get("is_impossible") {
            None => false,
            Some(_) => self.is_impossible(object, at)?,
        };
        let listed = self.array(object, at, "answers")?.len();
        let answers = self.answers(object, at, "answers", (context, &id))?;
        let plausible_answers = match object.get("plausible_answers") {
            Some(_) => self.answers(object, at, "plausible_answers", (context, &id))?,
            None => Vec::new(),
        };
        Ok(self.answerable(Question { id, question, answers, plausible_answers, is_impossible }, listed))
    }

    fn is_impossible(&self, object: &Map<String, Value>, at: &str) -> Result<bool> {
        match self.required(object, at, "is_impossible")? {
            Value::Bool(is_impossible) => Ok(*is_impossible),
            other => Err(self.field(join(at, "is_impossible"), "true or false", shown(other))),
        }
    }

    /// The answers of a list that stand at their offsets.
    fn answers(
        &self,
        object: &Map<String, Value>,
        at: &str,
        name: &str,
        (context, id): (&str, &str),
    ) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for (i, value) in self.array(object, at, name)?.iter().enumerate() {
            let answer = self.answer(value, &format!("{at}.{name}[{i}]"))?;
            let place = AnswerPlace { context, id, field: format!("{name}[{i}].answer_start") };
            answers.extend(self.placed(answer, place));
        }
        Ok(answers)
    }

    fn answer(&self, value: &Value, at: &str) -> Result<Answer> {
        let object = self.object(value, at, ANSWER_FIELDS)?;
        let text = self.text(object, at, "text")?;
        let start = self.offset(self.required(object, at, "answer_start")?, format!("{at}.answer_start"))?;
        Ok(Answer { text, start })
    }

    fn offset(&self, value: &Value, field: String) -> Result<usize> {
        let offset = value.as_u64().and_then(|n| usize::try_from(n).ok());
        offset.ok_or_else(|| self.field(field, "a character offset of at least 0", shown(value)))
    }

    /// An answer where its text stands; none, and noted, where it does not.
    fn placed(&self, mut answer: Answer, AnswerPlace { context, id, field }: AnswerPlace<'_>) -> Option<Answer> {
        self.answers.set(self.answers.get() + 1);
        let byte = context.char_indices().map(|(byte, _)| byte).nth(answer.start);
        if byte.is_some_and(|byte| context[byte..].starts_with(&answer.text)) {
            return Some(answer);
        }
        if self.options.realign == Realign::WhereOnce
            && let Some(start) = only_place(context, &answer.text)
        {
            self.realigned.set(self.realigned.get() + 1);
            answer.start = start;
            return Some(answer);
        }
        let got = context.chars().skip(answer.start).take(answer.text.chars().count()).collect();
        let expected = format!("`{}` at character {}", answer.text, answer.start);
        self.bad.borrow_mut().push(BadAnswer { id: id.to_owned(), field, expected, got });
        None
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
        self.known(object, at, known)?;
        Ok(object)
    }

    /// Refuses fields that are not known, unless they are to be passed over.
    fn known(&self, object: &Map<String, Value>, at: &str, known: &[&str]) -> Result<()> {
        if self.options.unknown_fields == UnknownFields::Reject
            && let Some(unknown) = object.keys().find(|key| !known.contains(&key.as_str()))
        {
            let expected = format!("only the fields `{}`", known.join("`, `"));
            return Err(self.field(at, expected, format!("`{unknown}`")));
        }
        Ok(())
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

/// Where a text stands, in characters, if that is in one place only.
fn only_place(context: &str, text: &str) -> Option<usize> {
    let first = context.find(text)?;
    // Two places may overlap.
    let behind = first + context[first..].chars().next()?.len_utf8();
    (!context[behind..].contains(text)).then(|| context[..first].chars().count())
}
