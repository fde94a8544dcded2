//! The shape of a GPT-2, as `config.json` of a Hugging Face folder gives it.

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
use crate::initial::initial_values;
use crate::names::{ATTN_C_ATTN, ATTN_C_PROJ, MLP_C_FC, MLP_C_PROJ};

/// Shape and constants of a GPT-2.
///
/// | field | meaning | GPT-2 small |
/// |---|---|---|
/// | `vocab_size` | tokens | 50,257 |
/// | `n_positions` | longest sequence, tokens | 1,024 |
/// | `n_embd` | width of the residual stream, a multiple of `n_head` | 768 |
/// | `n_layer` | blocks | 12 |
/// | `n_head` | attention heads per block | 12 |
/// | `n_inner` | width inside the MLP | 3,072 |
///
/// ```
/// use gpt2_model::Gpt2Config;
/// use switchable_model::config::ModelConfig;
///
/// let small = Gpt2Config::gpt2_small();
/// assert_eq!(small.parameters(), 124_439_808);
/// assert_eq!(small.site_parameters(), 84_934_656);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Gpt2Config {
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence in tokens.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Attention heads per block.
    pub n_head: usize,
    /// Width inside the MLP.
    pub n_inner: usize,
    /// Activation inside the MLP.
    pub activation: Activation,
    /// Added to the variance in layer normalisation.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of random initial weights.
    pub initializer_range: f64,
    /// Divide attention scores by the square root of the head's width.
    pub scale_attn_weights: bool,
    /// Divide attention scores by the block's number, counted from 1, as well.
    pub scale_attn_by_inverse_layer_idx: bool,
}

impl Gpt2Config {
    /// A GPT-2 of the given shape, its MLP four times as wide as its residual stream.
    pub fn new(vocab_size: usize, n_positions: usize, n_embd: usize, n_layer: usize, n_head: usize) -> Self {
        Self {
            vocab_size,
            n_positions,
            n_embd,
            n_layer,
            n_head,
            n_inner: 4 * n_embd,
            activation: Activation::GeluNew,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
        }
    }

    /// GPT-2 small: 124,439,808 parameters.
    pub fn gpt2_small() -> Self {
        Self::new(50_257, 1024, 768, 12, 12)
    }

    /// The same with another activation.
    pub fn with_activation(mut self, activation: Activation) -> Self {
        self.activation = activation;
        self
    }

    /// The same with another standard deviation of random initial weights.
    pub fn with_initializer_range(mut self, initializer_range: f64) -> Self {
        self.initializer_range = initializer_range;
        self
    }

    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.n_embd / self.n_head
    }
}

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
        fields.refuse_false("tie_word_embeddings")?;
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
            "tie_word_embeddings": true,
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
        (self.vocab_size + self.n_positions) * d + self.site_parameters() + self.n_layer * (biases + norms) + 2 * d
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
            ("tie_word_embeddings", json!(false)),
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
