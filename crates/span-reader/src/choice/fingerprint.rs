//! Which model a measurement belongs to.
//!
//! ```text
//! fingerprint = BLAKE3(configuration ‖ settings ‖ base parameters ‖ heads of widths ‖ packed codes ‖ adapters ‖ learned steps)
//! ```
//!
//! Each part is preceded by its name and length. Two models with the same fingerprint compute the same
//! function under every plan, but for the rounding of their backends. A model in floats and its packed
//! copy have different fingerprints: nested codes stand for other values below 8 bits.

use std::fmt;

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use content_identity::{ContentHash, Hasher};
use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::linear_settings::Execution;
use switchable_lora::packed_weights::PackedWeights;
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::span_head::ForQuestionAnswering;

/// BLAKE3 over all that decides what a model computes, as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelFingerprint(ContentHash);

impl ModelFingerprint {
    /// The fingerprint of a model. It reads every weight once.
    ///
    /// # Panics
    ///
    /// When the backend gives weights that cannot be read as f32.
    pub fn of<B: QuantBackend, M: SwitchableModel<B>>(model: &ForQuestionAnswering<B, M>) -> Self {
        let mut hasher = Hasher::default();
        hasher.bytes("config", model.config().to_json("").to_string().as_bytes());
        for (name, parameter) in model.named_parameters() {
            hasher.floats(&name, &parameter.values());
        }
        for &width in model.head_widths() {
            if let Some(head) = model.width_head(width) {
                hasher.bytes("head", width.to_string().as_bytes());
                hasher.floats("weight", &values(head.weight.val()));
                hasher.floats("bias", &values(head.bias.val()));
            }
        }
        if let Some(choice) = model.mixed_head() {
            hasher.bytes("mixed head", choice.to_string().as_bytes());
        }
        for site in model.transformer.sites().iter() {
            let layer = model.transformer.site(site);
            let settings = layer.settings();
            // How floats are multiplied is no part of what is computed.
            let held = if layer.packed_weights().is_some() { Execution::Packed } else { Execution::FakeQuantized };
            let what = (settings.weight, settings.activation, settings.placement, held);
            hasher.bytes(&model.transformer.sites().name(site), format!("{what:?}").as_bytes());
            if (settings.rounding, settings.rotation) != Default::default() {
                hasher.bytes("rounding", format!("{} {}", settings.rounding, settings.rotation).as_bytes());
            }
            // Codes are what their moments made of them.
            let goes_by_inputs = held == Execution::FakeQuantized && settings.rounding.needs_moments(settings.weight);
            if let Some(moments) = layer.moments().filter(|_| goes_by_inputs) {
                hasher.floats("importance", &moments.importance().collect::<Vec<_>>());
            }
            if let Some(packed) = layer.packed_weights() {
                hash_codes(&mut hasher, packed);
            }
            for (width, pair) in layer.bank().iter() {
                hasher.bytes("adapter", format!("{width} {} {}", pair.rank(), pair.alpha()).as_bytes());
                hasher.floats("a", &values(pair.a.val()));
                hasher.floats("b", &values(pair.b.val()));
                if let Some(step) = pair.step() {
                    hasher.bytes("step", step.granularity().to_string().as_bytes());
                    hasher.floats("steps", &values(step.step.val()));
                }
            }
        }
        for site in model.transformer.sites().embeddings() {
            if let Some(packed) = model.transformer.embedding_site(site).packed_weights() {
                hasher.bytes(&model.transformer.sites().name(site), b"packed");
                hash_codes(&mut hasher, packed);
            }
        }
        Self(hasher.finish())
    }
}

impl fmt::Display for ModelFingerprint {
    /// The first 12 digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.12}", self.0)
    }
}

impl From<ModelFingerprint> for ContentHash {
    fn from(fingerprint: ModelFingerprint) -> Self {
        fingerprint.0
    }
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().expect("data converted to f32 is f32")
}

fn hash_codes(hasher: &mut Hasher, packed: &PackedWeights) {
    hasher.bytes("widths", format!("{:?}", packed.widths()).as_bytes());
    hasher.bytes("packed", format!("{:?}", packed.stored().spec()).as_bytes());
    hasher.bytes("codes", packed.stored().codes());
    hasher.floats("scales", &packed.stored().scales());
    hasher.bytes("zero points", packed.stored().zero_points());
    if let PackedWeights::Nested(nested) = packed {
        for bits in nested.own_widths() {
            let scales = nested.scales(bits).map(|(scales, _)| scales).unwrap_or_default();
            hasher.floats(&format!("scales of {bits} bits"), &scales);
        }
    }
}
