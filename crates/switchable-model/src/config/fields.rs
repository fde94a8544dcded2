//! Typed access to the fields of a `config.json`, with errors that name file and field.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// What numbers that a model computes with may be; for errors.
pub const POSITIVE: &str = "a positive number that f32 holds, 1.2e-38 to 3.4e38";

/// Whether a number is above 0, and is so in f32 as well, which models compute in: there 1e-60 is 0 and 1e308 infinite.
///
/// ```
/// use switchable_model::config::fields::is_positive;
///
/// assert!(is_positive(1e-5));
/// assert!([0.0, -1.0, 1e-60, 1e308, f64::NAN].into_iter().all(|number| !is_positive(number)));
/// ```
pub fn is_positive(number: f64) -> bool {
    let single = number as f32;
    // What is smaller than a normal number is 0 on some devices.
    single > 0.0 && single.is_normal()
}

/// The fields of a `config.json`.
#[derive(Debug, Clone, Copy)]
pub struct ConfigFields<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
}

impl<'a> ConfigFields<'a> {
    /// The fields of a JSON object; `path` stands in the errors.
    ///
    /// # Errors
    ///
    /// When the value is not an object.
    pub fn new(value: &'a Value, path: &'a Path) -> Result<Self> {
        match value.as_object() {
            Some(map) => Ok(Self { map, path }),
            None => Err(Error::Config {
                path: path.into(),
                field: "<root>",
                got: value.to_string(),
                expected: "a JSON object".into(),
            }),
        }
    }

    /// All fields.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }

    /// The file that the fields are from.
    pub(crate) fn path(&self) -> &'a Path {
        self.path
    }

    /// A field as it is, `null` too; `None` where it is missing.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field)
    }

    /// The error of a field that has a value that cannot be run.
    pub fn error(&self, field: &'static str, got: &Value, expected: &str) -> Error {
        Error::Config { path: self.path.into(), field, got: got.to_string(), expected: expected.into() }
    }

    /// The error of a field that is missing.
    pub fn missing(&self, field: &'static str, expected: &str) -> Error {
        Error::Config { path: self.path.into(), field, got: "missing".into(), expected: expected.into() }
    }

    /// A size, at least 1.
    ///
    /// # Errors
    ///
    /// When the field is missing or no such number.
    pub fn size(&self, field: &'static str) -> Result<usize> {
        const EXPECTED: &str = "a whole number from 1 to 4294967295";
        let value = self.map.get(field).ok_or_else(|| self.missing(field, EXPECTED))?;
        match value.as_u64() {
            Some(n) if n >= 1 && u32::try_from(n).is_ok() => Ok(n as usize),
            _ => Err(self.error(field, value, EXPECTED)),
        }
    }

    /// A size, at least 1, or a default where the field is missing or `null`.
    ///
    /// # Errors
    ///
    /// When the field is no such number.
    pub fn size_or(&self, field: &'static str, default: usize) -> Result<usize> {
        match self.map.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => self.size(field),
        }
    }

    /// A number that [is positive](is_positive) in f32 too, or a default where the field is missing.
    ///
    /// # Errors
    ///
    /// When the field is no such number.
    pub fn positive(&self, field: &'static str, default: f64) -> Result<f64> {
        match self.map.get(field) {
            None => Ok(default),
            Some(value) => match value.as_f64() {
                Some(x) if is_positive(x) => Ok(x),
                _ => Err(self.error(field, value, POSITIVE)),
            },
        }
    }

    /// True or false, or a default where the field is missing.
    ///
    /// # Errors
    ///
    /// When the field is neither.
    pub fn flag(&self, field: &'static str, default: bool) -> Result<bool> {
        match self.map.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(field, value, "true or false")),
        }
    }

    /// Checks that another name of a field, if it is given, gives it the same value.
    ///
    /// # Errors
    ///
    /// When it gives another.
    pub fn same(&self, alias: &'static str, field: &str) -> Result<()> {
        match (self.map.get(alias), self.map.get(field)) {
            (Some(got), Some(value)) if !got.is_null() && got != value => {
                Err(self.error(alias, got, &format!("{value}, as `{field}` is")))
            }
            _ => Ok(()),
        }
    }

    /// Checks a field that must be there.
    ///
    /// # Errors
    ///
    /// When it is missing or not accepted.
    pub fn expect(&self, field: &'static str, accept: impl Fn(&Value) -> bool, expected: &str) -> Result<()> {
        match self.map.get(field) {
            None => Err(self.missing(field, expected)),
            Some(value) if accept(value) => Ok(()),
            Some(value) => Err(self.error(field, value, expected)),
        }
    }

    /// Checks a field that may be missing but not `false`.
    ///
    /// # Errors
    ///
    /// When it is.
    pub fn refuse_false(&self, field: &'static str) -> Result<()> {
        match self.map.get(field) {
            Some(value @ Value::Bool(false)) => Err(self.error(field, value, "true")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_that_are_zero_or_infinite_in_f32_are_refused_as_zero_and_infinity_are() {
        let read = |value: Value| {
            let config = json!({ "epsilon": value });
            ConfigFields::new(&config, Path::new("config.json")).unwrap().positive("epsilon", 1.0)
        };
        for wrong in
            [json!(0), json!(-1), json!(1e308), json!(3.5e38), json!(1e-60), json!(1e-40), json!("1"), json!(null)]
        {
            let message = read(wrong.clone()).unwrap_err().to_string();
            assert!(
                ["config.json", "epsilon", POSITIVE].iter().all(|part| message.contains(part)),
                "{wrong}: {message}"
            );
        }
        for right in [1e-5f64, 1.0, 1.2e-38, 3.4e38] {
            assert_eq!(read(json!(right)).unwrap().to_bits(), right.to_bits());
        }
    }
}
