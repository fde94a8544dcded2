//! A GPT-2 as `config.json` of a Hugging Face folder gives it, and the names in that folder.

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use switchable_model::config::{ModelConfig, fields::ConfigFields};
use switchable_model::error::{Error, Result};
use switchable_model::initial::InitialWeights;
use switchable_model::parameters::WeightLayout;
use switchable_model::shape::ModelShape;
use switchable_model::sites::Sites;

use crate::activation::Activation;
use crate::config::Gpt2Config;
use crate::initial::initial_values;
use crate::names::{ATTN_C_ATTN, ATTN_C_PROJ, MLP_C_FC, MLP_C_PROJ};

impl ModelConfig for Gpt2Config {
    const MODEL_TYPE: &'static str = "gpt2";
    const LANGUAGE_MODEL: &'static str = "GPT2LMHeadModel";
    const QUESTION_ANSWERING: &'static str = "GPT2ForQuestionAnswering";
    const BODY: &'static str = "transformer.";
    const BLOCKS_FIELD: &'static str = "n_layer";
    const LAYOUT: WeightLayout = WeightLayout::InOut;

    fn from_json(value: &Value, path: &Path) -> Result<Self> {
        let fields = ConfigFields::new(value, path)?;
        fields.expect("model_type", |v| v == "gpt2", "\"gpt2\"")?;
        fields.refuse_true("add_cross_attention")?;
        let n_embd = fields.size("n_embd")?;
        let config = Self {
            vocab_size: fields.size("vocab_size")?,
            n_positions: match fields.get("n_positions") {
                Some(_) => fields.size("n_positions")?,
                None => fields.size("n_ctx")?,
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
            tie_word_embeddings: fields.flag("tie_word_embeddings", true)?,
        };
        config.check(path)?;
        Ok(config)
    }

    fn to_json(&self, architecture: &str) -> Value {
        json!({
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
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "torch_dtype": "float32",
        })
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
        Ok(())
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
        }
    }

    fn sites(&self) -> Sites {
        let (d, inner) = (self.n_embd, self.n_inner);
        let modules =
            [(ATTN_C_ATTN, [d, 3 * d]), (ATTN_C_PROJ, [d, d]), (MLP_C_FC, [d, inner]), (MLP_C_PROJ, [inner, d])];
        Sites::new("h", self.n_layer, modules)
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
mod tests {
    use super::*;

    fn read(value: &Value) -> Result<Gpt2Config> {
        Gpt2Config::from_json(value, Path::new("dir/config.json"))
    }

    #[test]
    fn json_round_trips() {
        let config = Gpt2Config::new(97, 64, 32, 3, 4).with_activation(Activation::Relu);
        assert_eq!(read(&config.to_json("GPT2LMHeadModel")).unwrap(), config);
    }

    #[test]
    fn every_bad_field_is_named_with_the_file() {
        let good = Gpt2Config::new(97, 64, 32, 3, 4).to_json("GPT2LMHeadModel");
        let cases = [
            ("model_type", json!("llama")),
            ("vocab_size", json!(0)),
            ("vocab_size", json!(-1)),
            ("vocab_size", json!("many")),
            ("vocab_size", json!(1u64 << 40)),
            ("n_embd", json!(30)),
            ("n_layer", json!(2.5)),
            ("n_inner", json!(0)),
            ("activation_function", json!("mish")),
            ("layer_norm_epsilon", json!(0)),
            ("scale_attn_weights", json!("yes")),
            ("add_cross_attention", json!(true)),
            ("tie_word_embeddings", json!("no")),
        ];
        for (field, value) in cases {
            let mut bad = good.clone();
            bad[field] = value.clone();
            let message = read(&bad).expect_err(field).to_string();
            assert!(message.contains("dir/config.json") && message.contains(field), "{field}={value}: {message}");
        }
        for field in ["model_type", "vocab_size", "n_embd", "n_layer", "n_head"] {
            let mut bad = good.clone();
            bad.as_object_mut().unwrap().remove(field);
            let message = read(&bad).expect_err(field).to_string();
            assert!(message.contains(field) && message.contains("missing"), "{message}");
        }
        assert!(read(&json!([1, 2])).is_err());
    }
}
