//! Layers and inputs to test with.

use burn::{
    module::{ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData, backend::Backend},
};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::{
    adapter_pair::LoraAdapterPair, linear_settings::LinearSettings, placement::Placement,
    quantized_cache::QuantizedCache, site_precision::SitePrecision, switchable_linear::SwitchableLinear,
};
use test_support::numbers::numbers;

pub(crate) use test_support::panics::assert_panics;
pub(crate) use test_support::skip_without_device;
pub(crate) use test_support::test_device::{Plain, Training as Tracked, device};

pub(crate) const D_IN: usize = 12;
pub(crate) const D_OUT: usize = 7;
pub(crate) const WIDTHS: [BitWidth; 4] = [BitWidth::B2, BitWidth::B4, BitWidth::B8, BitWidth::FULL];

pub(crate) fn tensor<B: QuantBackend, const D: usize>(dims: [usize; D], seed: u64) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(numbers(dims.iter().product(), seed), dims), &B::Device::default())
}

pub(crate) fn values<B: QuantBackend, const D: usize>(tensor: &Tensor<B, D>) -> Vec<f32> {
    tensor.to_data().to_vec().expect("the tensors of these tests are f32")
}

#[track_caller]
pub(crate) fn assert_close(got: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() <= tolerance, "{what}: element {index} is {got}, expected {expected}");
    }
}

/// A pair whose product is not zero, of a rank and alpha of its own for each width.
pub(crate) fn pair<B: QuantBackend>(width: BitWidth) -> LoraAdapterPair<B> {
    let bits = u64::from(width.bits());
    let rank = 1 + width.bits() as usize % 3;
    let a = tensor([D_IN, rank], 100 + bits);
    let b = tensor([rank, D_OUT], 200 + bits);
    LoraAdapterPair::from_factors(a, b, 0.5 * rank as f64).expect("the ranks agree")
}

/// A layer with a bias and an adapter for every one of `WIDTHS`.
pub(crate) fn layer<B: QuantBackend>(settings: LinearSettings, cache: &QuantizedCache) -> SwitchableLinear<B> {
    let mut layer = SwitchableLinear::new(tensor([D_IN, D_OUT], 1), Some(tensor([D_OUT], 2)), settings, cache);
    for width in WIDTHS {
        layer.insert_adapter(width, pair(width)).expect("the shapes agree");
    }
    layer
}

pub(crate) fn merged() -> LinearSettings {
    LinearSettings { placement: Placement::Merged, ..LinearSettings::default() }
}

/// Every pair of weight and activation width, with and without each adapter.
pub(crate) fn precisions() -> Vec<SitePrecision> {
    let mut precisions = Vec::new();
    for weights in WIDTHS {
        for activations in [BitWidth::B4, BitWidth::FULL] {
            for adapter in WIDTHS.map(Some).into_iter().chain([None]) {
                precisions.push(SitePrecision { weights, activations, adapter, ..SitePrecision::FULL });
            }
        }
    }
    precisions
}

/// Every parameter of a module with its path.
#[derive(Default)]
pub(crate) struct Paths {
    path: Vec<String>,
    pub(crate) found: Vec<(String, ParamId)>,
}

impl<B: Backend> ModuleVisitor<B> for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found.push((self.path.join("."), param.id));
    }
}
