//! Wrong values in messages.

use serde_json::Value;

/// Characters of a wrong value that a message shows.
const SHOWN_CHARS: usize = 40;

/// A wrong value as a message shows it: its kind, and itself where it is short.
pub(crate) fn shown(value: &Value) -> String {
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
