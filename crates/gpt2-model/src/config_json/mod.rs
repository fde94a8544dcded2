//! A GPT-2 as `config.json` of a Hugging Face folder gives it, and the names in that folder.

mod gguf;

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use switchable_model::config::context_reads::{CONTEXT_READS, context_reads, write_context_reads};
use switchable_model::config::fields::{ConfigFields, POSITIVE, is_positive};
use switchable_model::config::{ModelConfig, kept_fields::KeptFields, most_parameters};
use switchable_model::error::{Error, Result};
use switchable_model::gguf::GgufFamily;
use switchable_model::initial::InitialWeights;
use switchable_model::parameters::WeightLayout;
use switchable_model::scaling::FoldablePair;
use switchable_model::shape::ModelShape;
use switchable_model::sites::{LM_HEAD, Sites};

use crate::activation::Activation;
use crate::config::Gpt2Config;
use crate::initial::initial_values;
use crate::names::{ATTN_C_ATTN, ATTN_C_PROJ, MLP_C_FC, MLP_C_PROJ, WPE, WTE};

/// The fields that are computed with, `n_ctx` where an old file has no `n_positions`.
const READ: [&str; 18] = [
    "vocab_size",
    "n_positions",
    "n_ctx",
    "n_embd",
    "n_layer",
    "n_head",
    "n_inner",
    "activation_function",
    "layer_norm_epsilon",
    "initializer_range",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "tie_word_embeddings",
    CONTEXT_READS,
    "hidden_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
];

/// Other names of fields, which `transformers` takes as well.
const ALIASES: [(&str, &str); 4] = [
    ("hidden_size", "n_embd"),
    ("max_position_embeddings", "n_positions"),
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
];

/// Fields of GPT-2 that change nothing here: rates of dropout, a head that is not read, and whether scores are
/// computed in f32, as they are here, when the rest is in f16.
const HARMLESS: [&str; 10] = [
    "attn_pdrop",
    "embd_pdrop",
    "resid_pdrop",
    "embd_dropout",
    "summary_type",
    "summary_use_proj",
    "summary_activation",
    "summary_proj_to_labels",
    "summary_first_dropout",
    "reorder_and_upcast_attn",
];

impl ModelConfig for Gpt2Config {
    const MODEL_TYPE: &'static str = "gpt2";
    const LANGUAGE_MODEL: &'static str = "GPT2LMHeadModel";
    const QUESTION_ANSWERING: &'static str = "GPT2ForQuestionAnswering";
    const BODY: &'static str = "transformer.";
    const BUFFERS: &'static [&'static str] = &[".attn.bias", ".attn.masked_bias"];
    const BLOCKS_FIELD: &'static str = "n_layer";
    const LAYOUT: WeightLayout = WeightLayout::InOut;
    const GGUF: Option<&'static GgufFamily<Self>> = Some(&gguf::FAMILY);

    fn from_json(value: &Value, path: &Path) -> Result<Self> {
        let fields = ConfigFields::new(value, path)?;
        fields.expect("model_type", |v| v == "gpt2", "\"gpt2\"")?;
        for (alias, field) in ALIASES {
            fields.same(alias, field)?;
        }
        let n_embd = fields.size("n_embd")?;
        let config = Self {
            vocab_size: fields.size("vocab_size")?,
            n_positions: match fields.get("n_ctx") {
                // Old files have that name alone.
                Some(_) if fields.get("n_positions").is_none() => fields.size("n_ctx")?,
                _ => fields.size("n_positions")?,
            },
            n_embd,
            n_layer: fields.size("n_layer")?,
            n_head: fields.size("n_head")?,
            n_inner: fields.size_or("n_inner", 4 * n_embd)?,
            activation: match fields.get("activation_function") {
                None => Activation::GeluNew,
                Some(v) => serde_json::from_value(v.clone())
                    .map_err(|_| fields.error("activation_function", v, Activation::NAMES))?,
            },
            layer_norm_epsilon: fields.positive("layer_norm_epsilon", 1e-5)?,
            initializer_range: fields.positive("initializer_range", 0.02)?,
            scale_attn_weights: fields.flag("scale_attn_weights", true)?,
            scale_attn_by_inverse_layer_idx: fields.flag("scale_attn_by_inverse_layer_idx", false)?,
            kept: fields.kept(&READ, &HARMLESS)?,
            tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
            context_reads: context_reads(&fields)?,
        };
        config.check(path)?;
        Ok(config)
    }

    fn to_json(&self, architecture: &str) -> Value {
        let mut json = json!({
            "architectures": [architecture],
            "model_type": Self::MODEL_TYPE,
            "vocab_size": self.vocab_size,
            "n_positions": self.n_positions,
            "n_ctx": self.n_positions,
            "n_embd": self.n_embd,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_inner": self.n_inner,
            "activation_function": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "initializer_range": self.initializer_range,
            "scale_attn_weights": self.scale_attn_weights,
            "scale_attn_by_inverse_layer_idx": self.scale_attn_by_inverse_layer_idx,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
        });
        write_context_reads(self.context_reads, &mut json);
        self.kept.write_to(&mut json);
        json
    }

    fn kept_fields(&self) -> &KeptFields {
        &self.kept
    }

    fn kept_fields_mut(&mut self) -> &mut KeptFields {
        &mut self.kept
    }

    fn check(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.n_inner),
        ];
        let fault = |field, got: String, expected: String| Error::Config { path: path.into(), field, got, expected };
        if let Some((field, _)) = sizes.iter().find(|(_, n)| *n == 0) {
            return Err(fault(field, "0".into(), "at least 1".into()));
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(fault("n_embd", self.n_embd.to_string(), format!("a multiple of n_head = {}", self.n_head)));
        }
        for (field, got) in
            [("layer_norm_epsilon", self.layer_norm_epsilon), ("initializer_range", self.initializer_range)]
        {
            if !is_positive(got) {
                return Err(fault(field, got.to_string(), POSITIVE.into()));
            }
        }
        let [vocabulary, positions, d, blocks, _, inner] = sizes.map(|(_, size)| size as u128);
        let parameters = (vocabulary + positions) * d + blocks * d * (4 * d + 2 * inner);
        most_parameters(parameters, path)
    }

    fn shape(&self) -> ModelShape {
        ModelShape {
            blocks: self.n_layer,
            width: self.n_embd,
            positions: self.n_positions,
            vocabulary: self.vocab_size,
            heads: self.n_head,
            kv_heads: self.n_head,
            head_width: self.head_width(),
            context_reads: self.context_reads,
        }
    }

    fn foldable_pairs(&self) -> Vec<FoldablePair> {
        let d = self.n_embd;
        let mut pairs = vec![
            FoldablePair::behind_normalisation("ln_1", &[ATTN_C_ATTN], d),
            // The values, behind queries and keys.
            FoldablePair::behind_matrix(ATTN_C_ATTN, &[ATTN_C_PROJ], d).from_output(2 * d),
            FoldablePair::behind_normalisation("ln_2", &[MLP_C_FC], d),
        ];
        // Of all activations only this one has act(x / s) = act(x) / s.
        if self.activation == Activation::Relu {
            pairs.push(FoldablePair::behind_matrix(MLP_C_FC, &[MLP_C_PROJ], self.n_inner));
        }
        pairs
    }

    fn sites(&self) -> Sites {
        let (d, inner) = (self.n_embd, self.n_inner);
        let modules =
            [(ATTN_C_ATTN, [d, 3 * d]), (ATTN_C_PROJ, [d, d]), (MLP_C_FC, [d, inner]), (MLP_C_PROJ, [inner, d])];
        let tokens = [self.vocab_size, d];
        let head = (!self.tie_word_embeddings).then_some((LM_HEAD, tokens));
        let embeddings = [(WTE, tokens), (WPE, [self.n_positions, d])].into_iter().chain(head);
        Sites::new("h", self.n_layer, modules).with_embeddings(embeddings)
    }

    fn parameters(&self) -> usize {
        let d = self.n_embd;
        let biases = 3 * d + d + self.n_inner + d;
        let norms = 4 * d;
        let output = if self.tie_word_embeddings { 0 } else { self.vocab_size * d };
        output
            + (self.vocab_size + self.n_positions) * d
            + self.site_parameters()
            + self.n_layer * (biases + norms)
            + 2 * d
    }

    fn initializer_range(&self) -> f64 {
        self.initializer_range
    }

    fn initial_values(
        &self,
        initial: InitialWeights,
        rng: &mut ChaCha8Rng,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>> {
        Ok(initial_values(self, initial, rng, name, shape))
    }
}

#[cfg(test)]
mod tests;
