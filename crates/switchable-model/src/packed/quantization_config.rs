//! What `config.json` says of packed weights.
//!
//! ```text
//! "quantization_config": {"quant_method": "switchable-quant", "version": 1, "form": "plan" | "nested",
//!                         "weights": "packed.safetensors"}
//! ```
//!
//! Other programs know by it that the folder holds no floats: `transformers` refuses a method that it does not know.

use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::folder_names::PACKED_FILE;

/// The field of `config.json`.
pub(crate) const QUANTIZATION_CONFIG: &str = "quantization_config";

const METHOD: &str = "switchable-quant";
const VERSION: u64 = 1;

/// The value of the field in a folder of codes.
pub(crate) fn quantization_config(nested: bool) -> Value {
    let form = if nested { "nested" } else { "plan" };
    json!({ "quant_method": METHOD, "version": VERSION, "form": form, "weights": PACKED_FILE })
}

/// Takes the field out of a configuration, checked. Folders of before it have none.
///
/// # Errors
///
/// When it is of another method or a newer version, or contradicts the form of the codes.
pub(crate) fn take(config: &mut Value, nested: bool, path: &Path) -> Result<()> {
    let Some(found) = config.as_object_mut().and_then(|fields| fields.remove(QUANTIZATION_CONFIG)) else {
        return Ok(());
    };
    let Value::Object(expected) = quantization_config(nested) else { unreachable!("it is made as an object") };
    let fault = |field: &str, got: Option<&Value>, expected: String| Error::ConfigField {
        path: path.into(),
        field: format!("{QUANTIZATION_CONFIG}.{field}"),
        got: got.map_or_else(|| "missing".to_owned(), Value::to_string),
        expected,
    };
    let Value::Object(found) = found else {
        let (got, expected) = (found.to_string(), "an object".to_owned());
        return Err(Error::ConfigField { path: path.into(), field: QUANTIZATION_CONFIG.into(), got, expected });
    };
    for field in ["quant_method", "version", "form", "weights"] {
        if found.get(field) != expected.get(field) {
            return Err(fault(field, found.get(field), expected[field].to_string()));
        }
    }
    match found.iter().find(|(field, _)| !expected.contains_key(*field)) {
        Some((field, value)) => Err(fault(field, Some(value), "no such field in this version".to_owned())),
        None => Ok(()),
    }
}
