//! What the tests share: fixtures, folders to damage, and comparison.

mod compare;
mod fixture;
mod folder;

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Int, Tensor, TensorData};
use gpt2_model::{Gpt2, ModelOptions, QuantBackend, SitePlan, SitePrecision};

pub(crate) use compare::{assert_close, largest_difference, values};
pub(crate) use fixture::{Fixture, golden};
pub(crate) use folder::{Folder, StoredTensor};

/// The backend that trains.
pub(crate) type Train = Autodiff<Flex>;

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

/// Token ids of one sequence as a batch of one.
pub(crate) fn batch_of_one<B: QuantBackend>(ids: &[u32]) -> Tensor<B, 2, Int> {
    let values: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    Tensor::from_data(TensorData::new(values, [1, ids.len()]), &B::Device::default())
}

/// Repeats generic tests as `#[test]` functions on every backend of the default build, and on the
/// autodiff backend, whose forward pass takes another path through attention.
macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {
        mod flex {
            $(#[test] fn $test() { super::$test::<burn::backend::Flex>(); })+
        }
        mod ndarray {
            $(#[test] fn $test() { super::$test::<burn::backend::NdArray>(); })+
        }
        mod autodiff {
            $(#[test] fn $test() { super::$test::<$crate::support::Train>(); })+
        }
    };
}
pub(crate) use on_every_backend;
