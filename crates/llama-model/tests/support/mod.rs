//! What the tests share.

use llama_model::Llama;
use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    site_precision::SitePrecision,
};
use switchable_model::model::SwitchableModel as _;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::site_plan::SitePlan;

pub(crate) use test_support::compare::{assert_close, largest_difference, relative_error, values};
pub(crate) use test_support::fixture::{Fixture, golden};
pub(crate) use test_support::folder::{Folder, StoredTensor};
pub(crate) use test_support::test_device::{Plain, Training as Train, device};
pub(crate) use test_support::token_batch::batch_of_one;
pub(crate) use test_support::{on_every_backend, skip_without_device};

/// The golden language models, which between them have every kind of head, rotation and bias.
pub(crate) const LANGUAGE_MODELS: [&str; 2] = ["tiny", "tiny_untied"];

/// A golden folder as a model, its options the default.
pub(crate) fn load<B: QuantBackend>(case: &str) -> Llama<B> {
    load_with(case, &ModelOptions::default())
}

/// A golden folder as a model.
pub(crate) fn load_with<B: QuantBackend>(case: &str, options: &ModelOptions) -> Llama<B> {
    Llama::load(golden(case), options, &B::Device::default()).expect("a golden folder loads")
}

/// Options under which every parameter is trained.
pub(crate) fn trainable() -> ModelOptions {
    let linear = LinearSettings { base: BasePolicy::Trainable, ..Default::default() };
    ModelOptions { linear, ..Default::default() }
}

/// Every site at 32 bits, no adapter.
pub(crate) fn full<B: QuantBackend>(model: &Llama<B>) -> SitePlan {
    model.uniform_plan(SitePrecision::FULL)
}

pub(crate) fn width(bits: u8) -> BitWidth {
    BitWidth::new(bits).expect("a width")
}
