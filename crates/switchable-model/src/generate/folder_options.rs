//! The options of generation that a model's folder asks for.

use std::path::Path;

use serde_json::Value;

use super::options::{DrawOptions, GenerateOptions, Sampling};
use crate::config::fields::ConfigFields;
use crate::error::Result;
use crate::gguf::special_tokens::token_ids;
use crate::gguf::{GgufFile, is_gguf};
use crate::json_text::{parse_json, read_text};

const GENERATION_CONFIG: &str = "generation_config.json";
const CONFIG: &str = "config.json";

/// The best tokens that `transformers` draws from where nothing is said.
const TOP_K: usize = 50;

/// Fields that give another text than is generated here, unless they have this value, are `null`, `false` or empty. Those that
/// `transformers` has beside them change no text: what is given back, how memory is used, how a text is found
/// faster.
const NEUTRAL: [(&str, f64); 30] = [
    ("num_beams", 1.0),
    ("num_beam_groups", 1.0),
    ("num_return_sequences", 1.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("max_time", f64::INFINITY),
    ("stop_strings", f64::INFINITY),
    ("min_p", 0.0),
    ("top_h", f64::INFINITY),
    ("typical_p", 1.0),
    ("epsilon_cutoff", 0.0),
    ("eta_cutoff", 0.0),
    ("penalty_alpha", 0.0),
    ("dola_layers", f64::INFINITY),
    ("diversity_penalty", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("bad_words_ids", f64::INFINITY),
    ("force_words_ids", f64::INFINITY),
    ("constraints", f64::INFINITY),
    ("forced_bos_token_id", f64::INFINITY),
    ("forced_eos_token_id", f64::INFINITY),
    ("exponential_decay_length_penalty", f64::INFINITY),
    ("suppress_tokens", f64::INFINITY),
    ("begin_suppress_tokens", f64::INFINITY),
    ("sequence_bias", f64::INFINITY),
    ("watermarking_config", f64::INFINITY),
    ("guidance_scale", 1.0),
    ("token_healing", f64::INFINITY),
];

impl GenerateOptions {
    /// The options that a model's folder asks for, or a GGUF file, which says where a text ends alone: those of its `generation_config.json`, or of its `config.json`
    /// where it has none. As in `transformers`, the first is not filled up from the second, and a field that
    /// neither library knows is passed over.
    ///
    /// | field | option | where it is missing |
    /// |---|---|---|
    /// | `eos_token_id`, an id or a list | `stop` | none |
    /// | `do_sample` | draws, or greedy | greedy, whatever the next three fields say |
    /// | `temperature` | `temperature` | 1 |
    /// | `top_k`; 0 is all | `top_k` | 50 |
    /// | `top_p` | `top_p` | 1 |
    /// | `repetition_penalty` | `repetition_penalty` | 1 |
    /// | `max_new_tokens` | `max_new_tokens` | as many as `max_length` leaves room for, else the default |
    /// | `max_length`, where `max_new_tokens` is missing | `max_length` | none |
    ///
    /// # Errors
    ///
    /// When a file cannot be read, a field is not what it should be, or one asks for a text that is not generated
    /// here, such as `num_beams` above 1; the error names file and field.
    pub fn of_folder(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        if is_gguf(dir) {
            let value = token_ids(&GgufFile::open(dir)?)?.into();
            return Self::of_fields(ConfigFields::new(&value, dir)?);
        }
        let own = dir.join(GENERATION_CONFIG);
        let path = if own.try_exists().unwrap_or(true) { own } else { dir.join(CONFIG) };
        let value: Value = parse_json(&read_text(&path)?, &path)?;
        Self::of_fields(ConfigFields::new(&value, &path)?)
    }

    fn of_fields(fields: ConfigFields<'_>) -> Result<Self> {
        for (field, neutral) in NEUTRAL {
            if let Some(value) = fields.get(field).filter(|value| !is_neutral(value, neutral)) {
                let expected = if neutral.is_finite() { format!("{neutral} or null") } else { "null".to_owned() };
                return Err(fields.error(field, value, &format!("{expected}: nothing else is generated here")));
            }
        }
        let default = Self::default();
        let is_drawn = given(&fields, "do_sample").is_some() && fields.flag("do_sample", false)?;
        let sampling = if is_drawn {
            Sampling::Draws(DrawOptions {
                temperature: number(&fields, "temperature")?.unwrap_or(1.0),
                top_k: top_k(&fields)?,
                top_p: top_p(&fields)?,
                seed: 0,
            })
        } else {
            Sampling::Greedy
        };
        let max_new_tokens = count(&fields, "max_new_tokens")?;
        let max_length = if max_new_tokens.is_some() { None } else { count(&fields, "max_length")? };
        let as_long_as_it_gets = if max_length.is_some() { usize::MAX } else { default.max_new_tokens };
        Ok(Self {
            max_new_tokens: max_new_tokens.unwrap_or(as_long_as_it_gets),
            max_length,
            sampling,
            repetition_penalty: number(&fields, "repetition_penalty")?.unwrap_or(1.0),
            stop: stop(&fields)?,
        })
    }
}

/// A field that is there and not `null`.
fn given<'a>(fields: &ConfigFields<'a>, field: &'static str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

fn is_neutral(value: &Value, neutral: f64) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        other => other.as_f64().is_some_and(|number| (number - neutral).abs() == 0.0),
    }
}

fn number(fields: &ConfigFields<'_>, field: &'static str) -> Result<Option<f32>> {
    let Some(value) = given(fields, field) else { return Ok(None) };
    match value.as_f64().map(|number| number as f32) {
        Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
        _ => Err(fields.error(field, value, "a finite number above 0")),
    }
}

fn count(fields: &ConfigFields<'_>, field: &'static str) -> Result<Option<usize>> {
    let Some(value) = given(fields, field) else { return Ok(None) };
    match value.as_u64() {
        Some(count) if count >= 1 => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
        _ => Err(fields.error(field, value, "a whole number of at least 1")),
    }
}

fn top_k(fields: &ConfigFields<'_>) -> Result<Option<usize>> {
    let Some(value) = given(fields, "top_k") else { return Ok(Some(TOP_K)) };
    match value.as_u64() {
        Some(0) => Ok(None),
        Some(top_k) => Ok(Some(usize::try_from(top_k).unwrap_or(usize::MAX))),
        None => Err(fields.error("top_k", value, "a whole number")),
    }
}

fn top_p(fields: &ConfigFields<'_>) -> Result<Option<f32>> {
    let top_p = number(fields, "top_p")?;
    match (given(fields, "top_p"), top_p) {
        (Some(value), Some(top_p)) if top_p > 1.0 => Err(fields.error("top_p", value, "a number above 0, at most 1")),
        _ => Ok(top_p.filter(|&top_p| top_p < 1.0)),
    }
}

fn stop(fields: &ConfigFields<'_>) -> Result<Vec<u32>> {
    let Some(value) = given(fields, "eos_token_id") else { return Ok(Vec::new()) };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids = match value {
        Value::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| fields.error("eos_token_id", value, "a token id or a list of them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<GenerateOptions> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        GenerateOptions::of_folder(folder.path())
    }

    #[test]
    fn the_stop_tokens_are_those_of_the_configuration_where_there_is_no_other_file() {
        let stop = |text| read(&[("config.json", text)]).unwrap().stop;
        assert_eq!(stop(r#"{"model_type": "gpt2", "eos_token_id": 96, "n_embd": 4}"#), [96]);
        assert_eq!(stop(r#"{"eos_token_id": [96, 3]}"#), [96, 3]);
        assert_eq!(stop(r#"{"eos_token_id": null}"#), Vec::<u32>::new());
        assert_eq!(stop("{}"), Vec::<u32>::new());
    }

    #[test]
    fn the_generation_configuration_wins_and_is_not_filled_up() {
        let config = ("config.json", r#"{"eos_token_id": 96, "repetition_penalty": 2.0}"#);
        let options = read(&[config, ("generation_config.json", r#"{"eos_token_id": [1, 2]}"#)]).unwrap();
        assert_eq!((options.stop, options.repetition_penalty), (vec![1, 2], 1.0));
        let options = read(&[config, ("generation_config.json", r#"{"transformers_version": "5"}"#)]).unwrap();
        assert_eq!(options, GenerateOptions::default());
    }

    #[test]
    fn every_field_that_is_read_has_its_option() {
        let options = read(&[(
            "generation_config.json",
            r#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1,
                "max_new_tokens": 7, "max_length": 4096, "eos_token_id": 5, "pad_token_id": 0, "num_beams": 1,
                "use_cache": true, "cache_implementation": "static", "bad_words_ids": [], "chat_format": "chatml"}"#,
        )]);
        let draws = DrawOptions { temperature: 0.6, top_k: Some(20), top_p: Some(0.9), seed: 0 };
        let expected = GenerateOptions {
            max_new_tokens: 7,
            max_length: None,
            sampling: Sampling::Draws(draws),
            repetition_penalty: 1.1,
            stop: vec![5],
        };
        assert_eq!(options.unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_as_in_transformers() {
        let sampling = |text| read(&[("generation_config.json", text)]).unwrap().sampling;
        let draws = |top_k, top_p| Sampling::Draws(DrawOptions { top_k, top_p, ..Default::default() });
        assert_eq!(sampling(r#"{"do_sample": true}"#), draws(Some(50), None));
        assert_eq!(sampling(r#"{"do_sample": true, "top_k": 0, "top_p": 1.0}"#), draws(None, None));
        assert_eq!(sampling(r#"{"temperature": 0.5, "top_p": 0.1}"#), Sampling::Greedy);
        // Without draws nobody looks at a temperature of 0, which older versions wrote.
        assert_eq!(sampling(r#"{"do_sample": false, "temperature": 0.0}"#), Sampling::Greedy);
        let lengths = |text| {
            let options = read(&[("generation_config.json", text)]).unwrap();
            (options.max_new_tokens, options.max_length)
        };
        assert_eq!(lengths("{}"), (32, None));
        assert_eq!(lengths(r#"{"max_length": 100}"#), (usize::MAX, Some(100)));
    }

    #[test]
    fn fields_that_ask_for_another_text_are_refused_by_file_and_name() {
        for (field, value) in [
            ("num_beams", "4"),
            ("no_repeat_ngram_size", "3"),
            ("penalty_alpha", "0.6"),
            ("min_new_tokens", "5"),
            ("typical_p", "0.9"),
            ("min_p", "0.05"),
            ("suppress_tokens", "[1, 2]"),
            ("sequence_bias", "[[[1], -2.0]]"),
            ("stop_strings", r#"["."]"#),
            ("forced_eos_token_id", "0"),
            ("watermarking_config", r#"{"bias": 2.0}"#),
            ("temperature", r#""hot""#),
            ("temperature", "0.0"),
            ("top_k", "-1"),
            ("top_p", "1.5"),
            ("top_p", "0"),
            ("repetition_penalty", "-1"),
            ("max_new_tokens", "0"),
            ("max_length", "2.5"),
            ("eos_token_id", "-1"),
            ("eos_token_id", r#"[1, "a"]"#),
            ("eos_token_id", "4294967296"),
            ("do_sample", "1"),
        ] {
            let text = format!(r#"{{"do_sample": true, "{field}": {value}}}"#);
            for file in ["generation_config.json", "config.json"] {
                let message = read(&[(file, &text)]).unwrap_err().to_string();
                let named = message.contains(file) && message.contains(&format!("field `{field}` is "));
                assert!(named, "{field} = {value}: {message}");
            }
        }
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        for (files, name) in [
            (&[("generation_config.json", "{"), ("config.json", "{}")][..], "generation_config.json"),
            (&[("config.json", "[]")], "config.json"),
            (&[], "config.json"),
        ] {
            let message = read(files).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}
