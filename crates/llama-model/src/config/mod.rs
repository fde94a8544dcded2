//! The shape of a Llama, as `config.json` of a Hugging Face folder gives it.

mod gguf;
mod reading;
#[cfg(test)]
mod tests;

use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use switchable_model::config::context_reads::write_context_reads;
use switchable_model::config::fields::{POSITIVE, is_positive};
use switchable_model::config::{ModelConfig, kept_fields::KeptFields, most_parameters};
use switchable_model::error::{Error, Result};
use switchable_model::gguf::GgufFamily;
use switchable_model::initial::InitialWeights;
use switchable_model::parameters::WeightLayout;
use switchable_model::scaling::FoldablePair;
use switchable_model::shape::ModelShape;
use switchable_model::sites::Sites;

use crate::initial;
use crate::rotary::scaling::RopeScaling;
use crate::sub_modules::{self, DOWN_PROJ, GATE_PROJ, K_PROJ, O_PROJ, Q_PROJ, UP_PROJ, V_PROJ};

/// Shape and constants of a Llama.
///
/// | field | meaning | Llama 3.2 1B |
/// |---|---|---|
/// | `vocab_size` | tokens | 128,256 |
/// | `max_position_embeddings` | longest sequence, tokens | 131,072 |
/// | `hidden_size` | width of the residual stream | 2,048 |
/// | `num_hidden_layers` | blocks | 16 |
/// | `num_attention_heads` | heads of the queries per block | 32 |
/// | `num_key_value_heads` | heads of keys and values per block, a divisor of the former | 8 |
/// | `head_dim` | width of a head, even | 64 |
/// | `intermediate_size` | width inside the MLP | 8,192 |
///
/// ```
/// use llama_model::config::LlamaConfig;
/// use switchable_model::config::ModelConfig as _;
///
/// let config = LlamaConfig {
///     max_position_embeddings: 131_072,
///     num_key_value_heads: 8,
///     tie_word_embeddings: true,
///     ..LlamaConfig::new(128_256, 2048, 16, 32)
/// };
/// assert_eq!(config.parameters(), 1_235_814_400);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence in tokens.
    pub max_position_embeddings: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Heads of the queries per block.
    pub num_attention_heads: usize,
    /// Heads of the keys and values per block; each serves as many query heads.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Added to the mean square in normalisation.
    pub rms_norm_eps: f64,
    /// Base of the rotations' frequencies.
    pub rope_theta: f64,
    /// How the rotations' frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// Whether queries, keys, values and the output of attention have a bias.
    pub attention_bias: bool,
    /// Whether the three matrices of the MLP have a bias.
    pub mlp_bias: bool,
    /// Whether the token embedding is the output matrix too.
    pub tie_word_embeddings: bool,
    /// Standard deviation of random initial weights.
    pub initializer_range: f64,
    /// How often a window of a reading task holds its context: a causal model that reads it twice knows the
    /// second time what stands behind each token.
    pub context_reads: usize,
    /// What `config.json` says beside that, such as token ids.
    pub kept: KeptFields,
}

impl LlamaConfig {
    /// A Llama of the given shape for 2,048 tokens, with a key and value head for every query head, an MLP
    /// four times as wide as its residual stream, no biases, and an output matrix of its own.
    pub fn new(vocab_size: usize, hidden_size: usize, num_hidden_layers: usize, num_attention_heads: usize) -> Self {
        Self {
            vocab_size,
            max_position_embeddings: 2048,
            hidden_size,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads: num_attention_heads,
            head_dim: hidden_size / num_attention_heads.max(1),
            intermediate_size: 4 * hidden_size,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            rope_scaling: RopeScaling::Default,
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            context_reads: 1,
            // Where these are missing, transformers takes those of the first Llama.
            kept: KeptFields::new()
                .with("attention_dropout", 0.0)
                .with("bos_token_id", Value::Null)
                .with("eos_token_id", Value::Null),
        }
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, which is that of all value heads.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }
}

impl ModelConfig for LlamaConfig {
    const MODEL_TYPE: &'static str = "llama";
    const LANGUAGE_MODEL: &'static str = "LlamaForCausalLM";
    const QUESTION_ANSWERING: &'static str = "LlamaForQuestionAnswering";
    const BODY: &'static str = "model.";
    // `transformers` calls the body of this one head by another name.
    const SPAN_BODY: &'static str = "transformer.";
    const BUFFERS: &'static [&'static str] = &["rotary_emb.inv_freq"];
    const BLOCKS_FIELD: &'static str = "num_hidden_layers";
    const LAYOUT: WeightLayout = WeightLayout::OutIn;
    const GGUF: Option<&'static GgufFamily<Self>> = Some(&gguf::FAMILY);

    fn from_json(value: &Value, path: &Path) -> Result<Self> {
        reading::from_json(value, path)
    }

    fn to_json(&self, architecture: &str) -> Value {
        let rope_scaling = match self.rope_scaling {
            RopeScaling::Default => Value::Null,
            scaling => json!(scaling),
        };
        let mut json = json!({
            "architectures": [architecture],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "silu",
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": rope_scaling,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
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
            ("max_position_embeddings", self.max_position_embeddings),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("intermediate_size", self.intermediate_size),
        ];
        let fault =
            |field, got: String, expected: String| Err(Error::Config { path: path.into(), field, got, expected });
        if let Some((field, _)) = sizes.iter().find(|(_, n)| *n == 0) {
            return fault(field, "0".into(), "at least 1".into());
        }
        let (heads, kv_heads) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a multiple of num_key_value_heads = {kv_heads}");
            return fault("num_attention_heads", heads.to_string(), expected);
        }
        if !self.head_dim.is_multiple_of(2) {
            return fault("head_dim", self.head_dim.to_string(), "an even number, whose halves are turned".into());
        }
        let numbers = [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
            ("initializer_range", self.initializer_range),
        ];
        for (field, got) in numbers {
            if !is_positive(got) {
                return fault(field, got.to_string(), POSITIVE.into());
            }
        }
        if let Some((field, got, expected)) = self.rope_scaling.fault() {
            return fault(field, got.to_string(), expected.into());
        }
        // The angle of a token is the product of its position and a frequency, in f32; a base below 1 has frequencies
        // above it.
        let (head, positions) = (self.head_dim as f64, self.max_position_embeddings);
        let fastest = self.rope_theta.powf((2.0 - head) / head).max(1.0);
        if !is_positive(fastest * positions as f64) {
            let expected = format!("a base whose frequencies times {positions} positions f32 holds");
            return fault("rope_theta", self.rope_theta.to_string(), expected);
        }
        let [vocabulary, _, d, blocks, heads, kv_heads, head, inner] = sizes.map(|(_, size)| size as u128);
        let block = 2 * d * head * (heads + kv_heads) + 3 * d * inner;
        most_parameters(2 * vocabulary * d + blocks * block, path)
    }

    fn shape(&self) -> ModelShape {
        ModelShape {
            blocks: self.num_hidden_layers,
            width: self.hidden_size,
            positions: self.max_position_embeddings,
            vocabulary: self.vocab_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_width: self.head_dim,
            context_reads: self.context_reads,
        }
    }

    fn sites(&self) -> Sites {
        sub_modules::sites(self)
    }

    fn foldable_pairs(&self) -> Vec<FoldablePair> {
        let (d, sharing) = (self.hidden_size, self.num_attention_heads / self.num_key_value_heads);
        vec![
            FoldablePair::behind_normalisation("input_layernorm", &[Q_PROJ, K_PROJ, V_PROJ], d),
            FoldablePair::behind_matrix(V_PROJ, &[O_PROJ], self.key_value_width())
                .shared_by_heads(self.head_dim, sharing),
            FoldablePair::behind_normalisation("post_attention_layernorm", &[GATE_PROJ, UP_PROJ], d),
            FoldablePair::behind_matrix(UP_PROJ, &[DOWN_PROJ], self.intermediate_size),
        ]
    }

    fn parameters(&self) -> usize {
        let d = self.hidden_size;
        let attention_biases = self.query_width() + 2 * self.key_value_width() + d;
        let mlp_biases = 2 * self.intermediate_size + d;
        let biases = usize::from(self.attention_bias) * attention_biases + usize::from(self.mlp_bias) * mlp_biases;
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        embeddings * self.vocab_size * d + self.site_parameters() + self.num_hidden_layers * (biases + 2 * d) + d
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
        initial::check(initial)?;
        Ok(initial::values(self.initializer_range, rng, name, shape))
    }
}
