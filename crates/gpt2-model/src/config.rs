//! The shape of a GPT-2.

use serde_json::Value;

use switchable_model::config::kept_fields::KeptFields;

use crate::activation::Activation;

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
    /// What `config.json` says beside that, such as token ids and rates of dropout.
    pub kept: KeptFields,
    /// Whether the output matrix is the token embedding.
    pub tie_word_embeddings: bool,
    /// How often a window of a reading task holds its context: a causal model that reads it twice knows the
    /// second time what stands behind each token.
    pub context_reads: usize,
}

impl Gpt2Config {
    /// A GPT-2 of the given shape, its MLP four times as wide as its residual stream, trained without dropout
    /// on a vocabulary whose special tokens are not known.
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
            // Where these are missing, transformers takes a rate of 0.1 and the published vocabulary's ids.
            kept: KeptFields::new()
                .with("attn_pdrop", 0.0)
                .with("embd_pdrop", 0.0)
                .with("resid_pdrop", 0.0)
                .with("bos_token_id", Value::Null)
                .with("eos_token_id", Value::Null),
            tie_word_embeddings: true,
            context_reads: 1,
        }
    }

    /// GPT-2 small: 124,439,808 parameters.
    pub fn gpt2_small() -> Self {
        let config = Self::new(50_257, 1024, 768, 12, 12);
        Self { kept: config.kept.with("bos_token_id", 50_256).with("eos_token_id", 50_256), ..config }
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
