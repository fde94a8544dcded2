//! What the tests share: fixtures, folders to damage, and comparison.

mod compare;
mod fixture;
mod folder;
#[path = "../../../quant-kernels/tests/support/test_device.rs"]
mod test_device;

use burn::tensor::{Int, Tensor, TensorData};
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

pub(crate) use compare::{assert_close, largest_difference, relative_error, values};
pub(crate) use fixture::{Fixture, golden};
pub(crate) use folder::{Folder, StoredTensor};
pub(crate) use test_device::{Plain, Training as Train, device, device_is_there, skip_without_device};

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

/// Token ids of one sequence as a batch of one.
pub(crate) fn batch_of_one<B: QuantBackend>(ids: &[u32]) -> Tensor<B, 2, Int> {
    let values: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), &B::Device::default())
}

/// Repeats generic tests as `#[test]` functions on the backend under test, on ndarray, and on the
/// former with autodiff, whose forward pass takes another path through attention.
macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {
        mod plain {
            $(#[test] fn $test() { crate::support::run_on_device(super::$test::<crate::support::Plain>); })+
        }
        mod ndarray {
            $(#[test] fn $test() { super::$test::<burn::backend::NdArray>(); })+
        }
        mod autodiff {
            $(#[test] fn $test() { crate::support::run_on_device(super::$test::<crate::support::Train>); })+
        }
    };
}
pub(crate) use on_every_backend;

/// Runs a test, unless its device is not there.
pub(crate) fn run_on_device(test: fn()) {
    skip_without_device!();
    test();
}
