//! What a data file is, by its content: SQuAD's articles, or rows of one question each.

use std::path::Path;

use serde_json::Value;

use crate::dataset::shown_value::shown;
use crate::error::{Error, Result};

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A file's questions, not yet looked at.
pub(super) enum Form {
    /// `{"data": [{"paragraphs": …}]}`.
    Articles(Value),
    /// One question each, with what messages call it; and the file around them if it is an object.
    Rows { file: Option<Value>, rows: Vec<Row> },
}

/// A question with its context.
pub(super) struct Row {
    /// Where it stands, as in `data[3]` or `line 4`.
    pub(super) at: String,
    pub(super) value: Value,
}

/// The text of a file.
///
/// # Errors
/// [`Error::Text`] if it is none, with what it seems to be.
pub(super) fn text(bytes: Vec<u8>, path: &Path) -> Result<String> {
    let other = |reason: String| Error::Text { path: path.to_owned(), reason };
    let known: [(&[u8], &str); 5] = [
        (b"\xff\xfe", "UTF-16; save it as UTF-8"),
        (b"\xfe\xff", "UTF-16; save it as UTF-8"),
        (b"PAR1", "a Parquet file; write it as JSON, such as with `to_json` of `datasets`"),
        (b"\x1f\x8b", "a file packed by gzip; unpack it"),
        (b"PK\x03\x04", "a zip archive; unpack it"),
    ];
    if let Some((_, what)) = known.iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Err(other(format!("expected JSON in UTF-8, got {what}")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        other(format!("expected JSON in UTF-8, got bytes that are none behind the first {at}"))
    })
}

/// Tells the form of a file and parses it.
///
/// # Errors
/// [`Error::Json`] and [`Error::JsonLine`] for what is not JSON, [`Error::Field`] for JSON of no known form.
pub(super) fn parse(json: &str, path: &Path) -> Result<Form> {
    let json = json.strip_prefix(BYTE_ORDER_MARK).unwrap_or(json);
    match serde_json::from_str(json) {
        Ok(Value::Array(list)) => Ok(of_list(list)),
        Ok(root @ Value::Object(_)) => Ok(of_object(root)),
        Ok(other) => Err(Error::Field {
            path: path.to_owned(),
            field: "file".to_owned(),
            expected: "an object".to_owned(),
            got: shown(&other),
        }),
        Err(_) if is_json_lines(json) => Ok(Form::Rows { file: None, rows: lines(json, path)? }),
        Err(source) => Err(Error::Json { path: path.to_owned(), source }),
    }
}

fn of_list(list: Vec<Value>) -> Form {
    if list.iter().any(|value| value.get("paragraphs").is_some()) {
        return Form::Articles(serde_json::json!({ "data": list }));
    }
    Form::Rows { file: None, rows: rows(list, "") }
}

fn of_object(mut root: Value) -> Form {
    if root.get("data").is_none() && root.get("context").is_some() {
        let row = Row { at: "file".to_owned(), value: root };
        return Form::Rows { file: None, rows: vec![row] };
    }
    match root.get_mut("data") {
        // An article has no context of its own.
        Some(Value::Array(list)) if list.iter().any(|value| value.get("context").is_some()) => {
            let rows = rows(std::mem::take(list), "data");
            Form::Rows { file: Some(root), rows }
        }
        _ => Form::Articles(root),
    }
}

fn rows(list: Vec<Value>, of: &str) -> Vec<Row> {
    list.into_iter().enumerate().map(|(i, value)| Row { at: format!("{of}[{i}]"), value }).collect()
}

/// Lines with something on them, counted from 1.
fn numbered(json: &str) -> impl Iterator<Item = (usize, &str)> {
    json.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty())
}

/// Whether the first line is an object by itself and others follow.
fn is_json_lines(json: &str) -> bool {
    let mut lines = numbered(json);
    let first = lines.next().and_then(|(_, line)| serde_json::from_str::<Value>(line).ok());
    first.is_some_and(|value| value.is_object()) && lines.next().is_some()
}

fn lines(json: &str, path: &Path) -> Result<Vec<Row>> {
    let row = |(line, text): (usize, &str)| match serde_json::from_str(text) {
        Ok(value) => Ok(Row { at: format!("line {line}"), value }),
        Err(source) => Err(Error::JsonLine { path: path.to_owned(), line, source }),
    };
    numbered(json).map(row).collect()
}
