//! Which model a measurement belongs to.
//!
//! ```text
//! fingerprint = SHA-256(configuration ‖ settings ‖ base parameters ‖ packed codes ‖ adapters ‖ learned steps)
//! ```
//!
//! Each part is preceded by its name and length. Two models with the same fingerprint compute the same
//! function under every plan, but for the rounding of their backends. A model in floats and its packed
//! copy have different fingerprints: nested codes stand for other values below 8 bits.

use std::fmt;

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};

/// SHA-256 over all that decides what a model computes, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelFingerprint(String);

impl ModelFingerprint {
    /// The fingerprint of a model. It reads every weight once.
    ///
    /// # Panics
    ///
    /// When the backend gives weights that cannot be read as f32.
    pub fn of<B: QuantBackend, M: SwitchableModel<B>>(model: &ForQuestionAnswering<B, M>) -> Self {
        let mut hasher = Hasher(Sha256::new());
        hasher.part("config", model.config().to_json("").to_string().as_bytes());
        for (name, parameter) in model.named_parameters() {
            hasher.floats(&name, &parameter.values());
        }
        for site in model.transformer.sites().iter() {
            let layer = model.transformer.site(site);
            let settings = layer.settings();
            let what = (settings.weight, settings.activation, settings.placement, settings.execution);
            hasher.part(&model.transformer.sites().name(site), format!("{what:?}").as_bytes());
            if let Some(packed) = layer.packed_weights() {
                hasher.part("widths", format!("{:?}", packed.widths()).as_bytes());
                hasher.part("packed", format!("{:?}", packed.stored().spec()).as_bytes());
                hasher.part("codes", packed.stored().codes());
                hasher.floats("scales", &packed.stored().scales());
                hasher.part("zero points", packed.stored().zero_points());
            }
            for (width, pair) in layer.bank().iter() {
                hasher.part("adapter", format!("{width} {} {}", pair.rank(), pair.alpha()).as_bytes());
                hasher.floats("a", &values(pair.a.val()));
                hasher.floats("b", &values(pair.b.val()));
                if let Some(step) = pair.step() {
                    hasher.part("step", step.granularity().to_string().as_bytes());
                    hasher.floats("steps", &values(step.step.val()));
                }
            }
        }
        Self(format!("{:x}", hasher.0.finalize()))
    }
}

impl fmt::Display for ModelFingerprint {
    /// The first 12 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0[..12])
    }
}

impl TryFrom<String> for ModelFingerprint {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(is_digit) {
            return Ok(Self(text));
        }
        Err(Error::option("model", text, "64 hexadecimal digits in lower case"))
    }
}

impl From<ModelFingerprint> for String {
    fn from(fingerprint: ModelFingerprint) -> Self {
        fingerprint.0
    }
}

struct Hasher(Sha256);

impl Hasher {
    fn part(&mut self, name: &str, bytes: &[u8]) {
        for bytes in [name.as_bytes(), bytes] {
            self.0.update((bytes.len() as u64).to_le_bytes());
            self.0.update(bytes);
        }
    }

    fn floats(&mut self, name: &str, values: &[f32]) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.part(name, &bytes);
    }
}

fn values<B: Backend>(tensor: Tensor<B, 2>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("data converted to f32 is f32")
}
