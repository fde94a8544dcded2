//! One layer of GPT-2 small, `attn.c_attn`, on the tokens of a batch.
//!
//! ```text
//! y = Qa(x) · Qw(W) + s · (x · A) · B
//! ```

use switchable_quant::kernels::{GradientRule, Granularity, QuantBackend, QuantSpec, tensor::reference};
use switchable_quant::lora::{
    Execution, LinearSettings, LoraAdapterPair, QuantizedCache, SitePrecision, SwitchableLinear,
};

use crate::answer::{assert_close, finish, matrix, width};
use crate::case::{Case, Unit};

const TOKENS: usize = 1024;
const D_IN: usize = 768;
const D_OUT: usize = 2304;
const RANK: usize = 8;
/// Weights and activations; each has an adapter. Quantised weights are kept from call to call, in
/// `fake` ones as floats.
const KINDS: [(&str, Execution, u8, u8); 5] = [
    ("f32", Execution::FakeQuantized, 32, 32),
    ("w8_fake", Execution::FakeQuantized, 8, 32),
    ("w4_fake", Execution::FakeQuantized, 4, 32),
    ("w8a8", Execution::Packed, 8, 8),
    ("w4a8", Execution::Packed, 4, 8),
];

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    KINDS.map(|kind| case::<B>(kind, device)).into()
}

fn case<B: QuantBackend>(
    (name, execution, weights, activations): (&str, Execution, u8, u8),
    device: &B::Device,
) -> Case {
    let id = format!("switchable_linear/{name}/{TOKENS}x{D_IN}x{D_OUT}");
    let device = device.clone();
    Case::new(id.clone(), (TOKENS as u64, Unit::Tokens), move || {
        let (x, weight) = (matrix::<B>([TOKENS, D_IN], &device), matrix::<B>([D_IN, D_OUT], &device));
        let (a, b) = (matrix::<B>([D_IN, RANK], &device), matrix::<B>([RANK, D_OUT], &device));
        let (weights, activations) = (width(weights), width(activations));

        let spec = QuantSpec::default().with_granularity(Granularity::PerChannel);
        let settings = LinearSettings { weight: spec, execution, ..Default::default() };
        let mut layer = SwitchableLinear::new(weight.clone(), None, settings, &QuantizedCache::default());
        let pair = LoraAdapterPair::from_factors(a.clone(), b.clone(), 16.0).expect("the ranks agree");
        let scaling = pair.scaling();
        layer.insert_adapter(weights, pair).expect("it adapts this weight");
        let precision = SitePrecision::uniform(weights).with_activations(activations);

        let rule = GradientRule::Identity;
        let quantized_x = reference::fake_quantize(x.clone(), activations, &settings.activation, rule);
        let quantized_weight = reference::fake_quantize(weight, weights, &spec, rule);
        let expected = quantized_x.expect("valid options").matmul(quantized_weight.expect("valid options"))
            + x.clone().matmul(a).matmul(b) * scaling;
        assert_close(&layer.forward(x.clone(), &precision), &expected, 1e-5, &id);
        move || finish::<B>(layer.forward(x.clone(), &precision), &device)
    })
}
