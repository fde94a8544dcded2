//! What the tests share.

use gpt2_model::{Gpt2, ModelOptions, ModelWeights, QuantBackend, SitePlan, SitePrecision, SwitchableModel};

pub(crate) use test_support::compare::{assert_close, largest_difference, values};
pub(crate) use test_support::fixture::{Fixture, golden};
pub(crate) use test_support::folder::{Folder, StoredTensor};
pub(crate) use test_support::test_device::{Plain, Training as Train, device};
pub(crate) use test_support::token_batch::batch_of_one;
pub(crate) use test_support::{on_every_backend, skip_without_device};

/// A golden folder as a model, its options the default.
pub(crate) fn load<B: QuantBackend>(case: &str) -> Gpt2<B> {
    load_with(case, &ModelOptions::default())
}

/// A golden folder as a model.
pub(crate) fn load_with<B: QuantBackend>(case: &str, options: &ModelOptions) -> Gpt2<B> {
    Gpt2::load(golden(case), options, &B::Device::default()).expect("a golden folder loads")
}

/// Every site at 32 bits, no adapter.
pub(crate) fn full<B: QuantBackend>(model: &Gpt2<B>) -> SitePlan {
    model.uniform_plan(SitePrecision::FULL)
}
