//! A model under a plan as one GGUF file, tokenizer included: what llama.cpp runs.
//!
//! Weights are those of [`export_model`]; the tokenizer becomes the keys that
//! [`ModelFolder::open`](crate::model_folder::ModelFolder::open) reads. Ids without a token become unused ones, as
//! llama.cpp has as many tokens as the embedding has rows; special tokens beyond the embedding, which nothing uses, are
//! left out. A span head has no place in such a file.

use std::path::Path;

use serde_json::Value;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{LeadingSpace, SpecialTokens, TextTokenizer, TokenKind, VocabularyParts};
use switchable_model::config::ModelConfig as _;
use switchable_model::config::kept_fields::KeptFields;
use switchable_model::gguf::export::{ExportedModel, MatrixFloats, WrittenTensor, export_model};
use switchable_model::gguf::writer::{GgufWriter, MetadataValue};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;
use crate::gguf_model::{
    ADD_BOS, CHAT_TEMPLATE, CONTROL, MERGES, MODEL, NORMAL, PRE, SPECIAL, TOKENS, TYPES, UNUSED, USER_DEFINED, name_of,
};

/// What a file is written of.
#[derive(Debug, Clone, Copy)]
pub struct GgufExport<'a, M> {
    /// What the file calls the model.
    pub name: &'a str,
    /// The model, without a span head.
    pub model: &'a M,
    /// Its tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// The plan whose weights are written.
    pub plan: &'a SitePlan,
    /// The floats of matrices that are no codes.
    pub matrices: MatrixFloats,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct GgufReport {
    /// The tensors, in the order of the file.
    pub tensors: Vec<WrittenTensor>,
    /// What the file cannot say, one line each.
    pub notes: Vec<String>,
}

impl<M> GgufExport<'_, M> {
    /// Writes the file, whole or not at all, in the place of one that is there.
    ///
    /// # Errors
    ///
    /// When the tokenizer is no byte-level BPE that llama.cpp cuts texts for, which names the field; those of
    /// [`export_model`]; when the file cannot be written.
    pub fn write<B: QuantBackend>(&self, path: impl AsRef<Path>) -> Result<GgufReport>
    where
        M: SwitchableModel<B>,
    {
        // What costs nothing to refuse comes first.
        let parts = self.tokenizer.parts()?;
        let ExportedModel { mut writer, tensors } = export_model(self.model, self.plan, self.matrices)?;
        writer.pair("general.name", self.name);
        let config = self.model.config();
        let ends = TextMarks::of(config.kept_fields(), self.tokenizer, &parts);
        let mut notes = self.notes_of_plan();
        notes.extend(write_tokenizer(&mut writer, &parts, self.model.shape().vocabulary, &ends));
        writer.write(path)?;
        Ok(GgufReport { tensors, notes })
    }

    fn notes_of_plan<B: QuantBackend>(&self) -> Vec<String>
    where
        M: SwitchableModel<B>,
    {
        let plan = self.plan;
        let rounded = plan.iter().chain(plan.embeddings()).filter(|(_, site)| !site.activations.is_full()).count();
        let blocks = (0..plan.blocks()).filter(|&block| !plan.kv_cache(block).is_full()).count();
        let activations = format!(
            "activations of {rounded} sites are not as the plan rounds them: llama.cpp rounds them to 8 bits beside codes"
        );
        let cache =
            format!("keys and values of {blocks} blocks are not as the plan rounds them: `--cache-type-k` does");
        [(rounded, activations), (blocks, cache)].into_iter().filter(|(n, _)| *n > 0).map(|(_, note)| note).collect()
    }
}

/// Where a text begins and ends.
struct TextMarks {
    begin: Option<u32>,
    /// The ends of a text, of a turn, of a message.
    all: Vec<u32>,
    pad: Option<u32>,
}

impl TextMarks {
    /// What the tokenizer's files name, then what `config.json` does.
    fn of(config: &KeptFields, tokenizer: &TextTokenizer, parts: &VocabularyParts) -> Self {
        let ids = |field: &str| -> Vec<u32> {
            let number = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            match config.get(field) {
                Some(Value::Array(list)) => list.iter().filter_map(number).collect(),
                Some(value) => number(value).into_iter().collect(),
                None => Vec::new(),
            }
        };
        let named = |field: &str| parts.special.get(field).copied();
        let one = |field: &str| named(field).or_else(|| ids(&format!("{field}_id")).first().copied());
        let mut all: Vec<u32> = Vec::new();
        for id in named("eos_token").into_iter().chain(ids("eos_token_id")) {
            if !all.contains(&id) {
                all.push(id);
            }
        }
        if all.is_empty() {
            all.extend(SpecialTokens::of(tokenizer).ok().map(|special| special.end));
        }
        Self { begin: parts.begins_with.or_else(|| one("bos_token")), all, pad: one("pad_token") }
    }
}

/// Adds the keys of a tokenizer; what they cannot say.
fn write_tokenizer(writer: &mut GgufWriter, parts: &VocabularyParts, rows: usize, ends: &TextMarks) -> Vec<String> {
    let mut notes = Vec::new();
    let (mut tokens, mut types) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for id in 0..rows {
        let (token, number) = match parts.tokens.get(id).and_then(Option::as_ref) {
            Some((token, TokenKind::Merged)) => (token.clone(), NORMAL),
            Some((token, TokenKind::Whole)) => (token.clone(), USER_DEFINED),
            Some((token, TokenKind::Special)) => (token.clone(), CONTROL),
            None => (format!("[PAD{id}]"), UNUSED),
        };
        tokens.push(token);
        types.push(number as i32);
    }
    writer.pair(MODEL, "gpt2");
    writer.pair(PRE, name_of(parts.splitting));
    writer.pair(TOKENS, MetadataValue::Texts(tokens));
    writer.pair(TYPES, MetadataValue::Numbers(types));
    writer.pair(MERGES, MetadataValue::Texts(parts.merges.clone()));
    writer.pair(ADD_BOS, parts.begins_with.is_some());
    let fits = |id: &u32| usize::try_from(*id).is_ok_and(|id| id < rows);
    for (field, key) in SPECIAL {
        let id = match field {
            "bos_token" => ends.begin,
            "eos_token" => ends.all.first().copied(),
            "pad_token" => ends.pad,
            _ => parts.special.get(field).copied(),
        };
        if let Some(id) = id.filter(fits) {
            writer.pair(key, id);
        }
    }
    for (id, key) in ends.all.iter().skip(1).zip(["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"]) {
        if fits(id) {
            writer.pair(key, *id);
        }
    }
    if ends.all.is_empty() {
        notes.push("no token ends a text: llama.cpp takes token 11 for one".to_owned());
    }
    if parts.leading_space == LeadingSpace::Added {
        notes.push(
            "texts are read as if a space stood before them, which llama.cpp does not do: prompts need that space"
                .to_owned(),
        );
    }
    if let Some(template) = &parts.chat_template {
        writer.pair(format!("tokenizer.{CHAT_TEMPLATE}"), template.as_str());
    }
    notes
}
