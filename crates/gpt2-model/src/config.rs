//! The shape of a GPT-2, as `config.json` of a Hugging Face folder gives it.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{Activation, Error, Result, SITES_PER_BLOCK};

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

    /// Reads `config.json`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is not JSON, lacks a field, or asks for something that is not
    /// GPT-2 (another `model_type`, cross attention, untied embeddings).
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| Error::json(path, e))?;
        Self::from_json(&value, path)
    }

    /// Reads the fields of a parsed `config.json`; `path` stands in the errors.
    ///
    /// # Errors
    ///
    /// As [`Gpt2Config::load`].
    pub fn from_json(value: &Value, path: &Path) -> Result<Self> {
        let empty = Map::new();
        let fields = Fields { map: value.as_object().unwrap_or(&empty), path };
        if !value.is_object() {
            return Err(fields.error("<root>", value, "a JSON object"));
        }
        fields.expect("model_type", |v| v == "gpt2", "\"gpt2\"")?;
        fields.refuse_true("add_cross_attention")?;
        fields.refuse_false("tie_word_embeddings")?;
        let n_embd = fields.size("n_embd")?;
        let config = Self {
            vocab_size: fields.size("vocab_size")?,
            n_positions: match fields.map.get("n_positions") {
                Some(_) => fields.size("n_positions")?,
                None => fields.size("n_ctx")?,
            },
            n_embd,
            n_layer: fields.size("n_layer")?,
            n_head: fields.size("n_head")?,
            n_inner: match fields.map.get("n_inner") {
                None | Some(Value::Null) => 4 * n_embd,
                Some(_) => fields.size("n_inner")?,
            },
            activation: match fields.map.get("activation_function") {
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

    /// The fields as `config.json` holds them; `architecture` is the class that loads the weights.
    pub fn to_json(&self, architecture: &str) -> Value {
        json!({
            "architectures": [architecture],
            "model_type": "gpt2",
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

    /// Checks that the numbers fit together.
    ///
    /// # Errors
    ///
    /// When a size is zero or `n_embd` is not a multiple of `n_head`; `path` stands in the error.
    pub fn check(&self, path: &Path) -> Result<()> {
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

    /// Width of one attention head.
    pub fn head_width(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// Number of quantisable matrices: four per block.
    pub fn sites(&self) -> usize {
        SITES_PER_BLOCK * self.n_layer
    }

    /// Parameters in the quantisable matrices, biases not counted.
    pub fn site_parameters(&self) -> usize {
        self.n_layer * (4 * self.n_embd * self.n_embd + 2 * self.n_embd * self.n_inner)
    }

    /// All parameters of the language model, its tied output matrix counted once.
    pub fn parameters(&self) -> usize {
        let d = self.n_embd;
        let biases = 3 * d + d + self.n_inner + d;
        let norms = 4 * d;
        (self.vocab_size + self.n_positions) * d + self.site_parameters() + self.n_layer * (biases + norms) + 2 * d
    }
}

/// Typed access to the fields of `config.json`, with errors that name them.
struct Fields<'a> {
    map: &'a Map<String, Value>,
    path: &'a Path,
}

impl Fields<'_> {
    fn error(&self, field: &'static str, got: &Value, expected: &str) -> Error {
        Error::Config { path: self.path.into(), field, got: got.to_string(), expected: expected.into() }
    }

    fn missing(&self, field: &'static str, expected: &str) -> Error {
        Error::Config { path: self.path.into(), field, got: "missing".into(), expected: expected.into() }
    }

    fn size(&self, field: &'static str) -> Result<usize> {
        const EXPECTED: &str = "a whole number from 1 to 4294967295";
        let value = self.map.get(field).ok_or_else(|| self.missing(field, EXPECTED))?;
        match value.as_u64() {
            Some(n) if n >= 1 && u32::try_from(n).is_ok() => Ok(n as usize),
            _ => Err(self.error(field, value, EXPECTED)),
        }
    }

    fn positive(&self, field: &'static str, default: f64) -> Result<f64> {
        match self.map.get(field) {
            None => Ok(default),
            Some(value) => match value.as_f64() {
                Some(x) if x > 0.0 && x.is_finite() => Ok(x),
                _ => Err(self.error(field, value, "a positive number")),
            },
        }
    }

    fn flag(&self, field: &'static str, default: bool) -> Result<bool> {
        match self.map.get(field) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.error(field, value, "true or false")),
        }
    }

    fn expect(&self, field: &'static str, accept: impl Fn(&Value) -> bool, expected: &str) -> Result<()> {
        match self.map.get(field) {
            None => Err(self.missing(field, expected)),
            Some(value) if accept(value) => Ok(()),
            Some(value) => Err(self.error(field, value, expected)),
        }
    }

    fn refuse_true(&self, field: &'static str) -> Result<()> {
        match self.map.get(field) {
            Some(value @ Value::Bool(true)) => Err(self.error(field, value, "false")),
            _ => Ok(()),
        }
    }

    fn refuse_false(&self, field: &'static str) -> Result<()> {
        match self.map.get(field) {
            Some(value @ Value::Bool(false)) => Err(self.error(field, value, "true")),
            _ => Ok(()),
        }
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
