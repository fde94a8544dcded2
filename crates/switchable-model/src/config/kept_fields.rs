//! Fields of a `config.json` that change nothing that is computed here.
//!
//! Every field of the file is either read, or known to be harmless, or refused: a field that nobody looked
//! at may say that the model is another one. Harmless fields are kept, so that a folder that is written
//! again has them as they were.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::fields::ConfigFields;
use crate::error::{Error, Result};

/// Fields that are kept as they were read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeptFields(BTreeMap<String, Value>);

/// The field by which an artefact says which file beside its `config.json` holds the hashes of all of its files. It is of
/// that one folder: a model that is opened from it and written again is no artefact.
pub const ARTEFACT_MANIFEST: &str = "artefact_manifest";

/// Fields that the export writes anew: the class that loads the weights, and their type; and one that is of a folder.
const WRITTEN: [&str; 5] = ["model_type", "architectures", "torch_dtype", "dtype", ARTEFACT_MANIFEST];

/// Fields of `transformers`' configurations that say how a model was made, how it is loaded or trained, or
/// how text is generated when nothing else is asked for.
const HARMLESS: &[&str] = &[
    // Where it comes from.
    "_name_or_path",
    "_model_name_or_path",
    "_commit_hash",
    "transformers_version",
    "transformers.js_config",
    "_attn_implementation_autoset",
    "_attn_implementation",
    "attn_implementation",
    // Token ids and the tokenizer.
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "unk_token_id",
    "sep_token_id",
    "decoder_start_token_id",
    "tokenizer_class",
    "prefix",
    // Heads that are not read, and labels.
    "id2label",
    "label2id",
    "num_labels",
    "_num_labels",
    "problem_type",
    "finetuning_task",
    "task_specific_params",
    // What is given back, and how much memory it takes.
    "return_dict",
    "return_dict_in_generate",
    "output_hidden_states",
    "output_attentions",
    "output_scores",
    "output_past",
    "use_cache",
    "cache_implementation",
    "chunk_size_feed_forward",
    "gradient_checkpointing",
    "torchscript",
    "use_bfloat16",
    "tf_legacy_loss",
    "line_by_line",
    "predict_special_tokens",
    // Defaults of generation.
    "max_length",
    "max_new_tokens",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "num_return_sequences",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "remove_invalid_values",
    "exponential_decay_length_penalty",
    "suppress_tokens",
    "begin_suppress_tokens",
    // Only where there is cross-attention, which `add_cross_attention` asks for.
    "is_decoder",
    "cross_attention_hidden_size",
];

/// Fields that are harmless at one value alone.
const NEUTRAL: &[&str] =
    &["add_cross_attention", "is_encoder_decoder", "tie_encoder_decoder", "pruned_heads", "rope_interleaved"];

impl KeptFields {
    /// No field.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// A field, if it is kept.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// The same with another value of a field.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.insert(field.to_owned(), value.into());
        self
    }

    /// Adds the fields to a configuration that is written, where it has them not.
    ///
    /// # Panics
    ///
    /// When the configuration is no JSON object.
    pub fn write_to(&self, config: &mut Value) {
        let config = config.as_object_mut().expect("a configuration is an object");
        for (field, value) in &self.0 {
            config.entry(field).or_insert_with(|| value.clone());
        }
    }

    /// Takes the fields out of a configuration.
    pub(crate) fn remove_from(&self, config: &mut Map<String, Value>) {
        config.retain(|field, _| !self.0.contains_key(field));
    }
}

impl ConfigFields<'_> {
    /// The fields that are neither in `read`, which the family reads, nor written anew; `harmless` are those
    /// of the family that change nothing that is computed.
    ///
    /// # Errors
    ///
    /// When one of them is not known to be harmless, and not `null`; the error names it.
    pub fn kept(&self, read: &[&str], harmless: &[&str]) -> Result<KeptFields> {
        let mut kept = KeptFields::new();
        for (field, value) in self.iter() {
            let name = field.as_str();
            if read.contains(&name) || WRITTEN.contains(&name) {
                continue;
            }
            let is_neutral = NEUTRAL.contains(&name) && is_neutral(value);
            if !value.is_null() && !is_neutral && !HARMLESS.contains(&name) && !harmless.contains(&name) {
                return Err(self.unknown(field, value));
            }
            kept.0.insert(field.clone(), value.clone());
        }
        Ok(kept)
    }

    /// Refuses every field that is not in `read` and not `null`.
    ///
    /// # Errors
    ///
    /// When there is one, which the error names.
    pub fn only(&self, read: &[&str]) -> Result<()> {
        match self.iter().find(|(field, value)| !value.is_null() && !read.contains(&field.as_str())) {
            Some((field, value)) => Err(self.unknown(field, value)),
            None => Ok(()),
        }
    }

    fn unknown(&self, field: &str, value: &Value) -> Error {
        const LONGEST: usize = 120;
        let expected = match field {
            "quantization_config" => "null: weights that another library quantised are not read".to_owned(),
            "auto_map" => "null: code that comes with a model is not run".to_owned(),
            _ if NEUTRAL.contains(&field) => "false, empty or null".to_owned(),
            _ => "null: the field is not known to change nothing".to_owned(),
        };
        let mut got = value.to_string();
        if let Some((end, _)) = got.char_indices().nth(LONGEST) {
            got.truncate(end);
            got.push('…');
        }
        Error::ConfigField { path: self.path().into(), field: field.to_owned(), got, expected }
    }
}

/// `false`, or empty.
fn is_neutral(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_folder_says_of_itself_is_not_kept() {
        let config = json!({ ARTEFACT_MANIFEST: "artefact.json", "model_type": "gpt2", "eos_token_id": 3 });
        let kept = ConfigFields::new(&config, Path::new("config.json")).unwrap().kept(&[], &[]).unwrap();
        assert_eq!(kept, KeptFields::new().with("eos_token_id", 3));
    }
}
