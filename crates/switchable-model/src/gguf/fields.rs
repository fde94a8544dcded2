//! Typed access to the metadata, with errors that name file and key.

use super::fault::fault;
use super::metadata::{Value, place_of};
use super::{GgufFile, TensorInfo};
use crate::error::{Error, Result};

const EMBEDDING: &str = "token_embd.weight";
const OUTPUT: &str = "output.weight";

impl GgufFile {
    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.metadata.get(key).is_some()
    }

    /// The error of a key that is missing.
    pub fn missing(&self, key: &str, expected: &str) -> Error {
        fault(self.path(), &place_of(key), "missing".into(), expected.into())
    }

    /// The error of a key whose value cannot be run.
    pub fn refused(&self, key: &str, expected: &str) -> Error {
        let got = self.metadata.get(key).map_or_else(
            || "missing".to_owned(),
            |value| match value {
                Value::Text(range) => format!("{:?}", String::from_utf8_lossy(&self.source.bytes()[range.clone()])),
                other => other.shown(),
            },
        );
        fault(self.path(), &place_of(key), got, expected.into())
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// When the key has another value.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Text(range)) => {
                super::cursor::utf8(self.path(), &self.source.bytes()[range.clone()], &place_of(key)).map(Some)
            }
            Some(_) => Err(self.refused(key, "a text")),
        }
    }

    /// A size, at least 1, or a default where the key is missing.
    ///
    /// # Errors
    ///
    /// When the key is missing without a default, or its value is no such number.
    pub fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        const EXPECTED: &str = "a whole number from 1 to 4294967295";
        match (self.metadata.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(key, EXPECTED)),
            (Some(Value::Whole(size)), _) if (1..=u32::MAX.into()).contains(size) => Ok(*size as usize),
            (Some(Value::List(list)), _) => {
                let got = format!("a list of {}, one for each block", list.len());
                Err(fault(self.path(), &place_of(key), got, "one number for all blocks".into()))
            }
            _ => Err(self.refused(key, EXPECTED)),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    ///
    /// When the value is none, or beyond 64 bits.
    pub fn whole(&self, key: &str) -> Result<Option<i64>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Whole(number)) if i64::try_from(*number).is_ok() => Ok(Some(*number as i64)),
            Some(_) => Err(self.refused(key, "a whole number")),
        }
    }

    /// The number of tokens: the rows of the token embedding, which the key has to agree with where it is there.
    ///
    /// # Errors
    ///
    /// When there is no token embedding, or the key says another number.
    pub fn vocabulary(&self, key: &str) -> Result<usize> {
        let rows = match self.tensor(EMBEDDING).map(|tensor| tensor.shape.as_slice()) {
            Some(&[rows, _]) => rows,
            Some(shape) => return Err(self.tensor_fault(EMBEDDING, format!("of shape {shape:?}"), "a matrix")),
            None => return Err(self.tensor_fault(EMBEDDING, "missing".into(), "the token embedding")),
        };
        if self.size(key, Some(rows))? != rows {
            return Err(self.refused(key, &format!("{rows}, the rows of `{EMBEDDING}`")));
        }
        Ok(rows)
    }

    /// Whether the token embedding is the output matrix too: where there is no other, or one of the same bytes.
    pub fn is_tied(&self) -> bool {
        let same = |output: &TensorInfo| {
            self.tensor(EMBEDDING).is_some_and(|embedding| {
                embedding.block_type == output.block_type && self.bytes_of(embedding) == self.bytes_of(output)
            })
        };
        self.tensor(OUTPUT).is_none_or(same)
    }

    /// The error of a tensor.
    pub fn tensor_fault(&self, name: &str, got: String, expected: &str) -> Error {
        fault(self.path(), &format!("tensor `{name}`"), got, expected.into())
    }

    /// A token id.
    ///
    /// # Errors
    ///
    /// When the value is no such number.
    pub fn token_id(&self, key: &str) -> Result<Option<u32>> {
        match self.metadata.get(key) {
            // Converters write −1 or the largest number where there is none.
            None | Some(Value::Whole(-1 | 0xffff_ffff)) => Ok(None),
            Some(Value::Whole(id)) if (0..=u32::MAX.into()).contains(id) => Ok(Some(*id as u32)),
            Some(_) => Err(self.refused(key, "a token id")),
        }
    }

    /// A number above 0, or a default where the key is missing.
    ///
    /// # Errors
    ///
    /// When the key is missing without a default, or its value is no such number.
    pub fn positive(&self, key: &str, default: Option<f64>) -> Result<f64> {
        const EXPECTED: &str = "a number above 0";
        match (self.metadata.get(key), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.missing(key, EXPECTED)),
            (Some(Value::Float(number)), _) if *number > 0.0 && number.is_finite() => Ok(*number),
            _ => Err(self.refused(key, EXPECTED)),
        }
    }

    /// True or false.
    ///
    /// # Errors
    ///
    /// When the value is neither.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Flag(flag)) => Ok(Some(*flag)),
            Some(_) => Err(self.refused(key, "true or false")),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    ///
    /// When the value is none.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => list.texts(self.source.bytes(), self.path(), &place_of(key)).map(Some),
            Some(_) => Err(self.refused(key, "a list of texts")),
        }
    }

    /// A list of whole numbers.
    ///
    /// # Errors
    ///
    /// When the value is none.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<i64>>> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => list.numbers(self.source.bytes(), self.path(), &place_of(key)).map(Some),
            Some(_) => Err(self.refused(key, "a list of whole numbers")),
        }
    }

    /// Refuses every key that begins with a prefix, such as `llama.`, and is not among those that are known: it may
    /// say that the model is another one.
    ///
    /// # Errors
    ///
    /// When there is one, which the error names.
    pub fn only(&self, prefix: &str, known: &[&str]) -> Result<()> {
        let is_known = |key: &str| key.strip_prefix(prefix).is_none_or(|rest| known.contains(&rest));
        match self.metadata.keys().find(|key| !is_known(key)) {
            Some(key) => Err(self.refused(key, "no such key: it is not known to change nothing")),
            None => Ok(()),
        }
    }
}

impl Value {
    /// The value, for errors, but for the contents of texts and lists.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Whole(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(_) => "a text".to_owned(),
            Self::List(list) => format!("a list of {}", list.len()),
        }
    }
}
