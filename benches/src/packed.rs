//! Packing GPT-2 small's matrices, and products with them.

use switchable_quant::burn::tensor::Tensor;
use switchable_quant::kernels::{
    GradientRule, Granularity, QuantBackend, QuantSpec, ScaleFormat,
    backends::linear_terms::LinearTerms,
    packed::{
        half_weight::HalfWeight,
        packed_view::PackedView,
        product::{activations::ActivationBits, epilogue::OutputFunction},
    },
    tensor::{half_linear::half_linear, packed_linear::packed_linear, reference, rounding::Rounding},
};

use crate::answer::{assert_close, finish, matrix, width};
use crate::case::{Case, Unit};

const ROWS: [usize; 4] = [1, 16, 256, 1024];
const SHAPES: [[usize; 2]; 4] = [[768, 768], [768, 2304], [768, 3072], [3072, 768]];
/// Weights, activations; `f32` multiplies by burn, `bf16` what is rounded to it.
const KINDS: [(&str, u8, u8); 8] = [
    ("f32", 32, 32),
    ("bf16", 32, 32),
    ("q8", 8, 32),
    ("q4", 4, 32),
    ("q4_bf16", 4, 32),
    ("q8a8", 8, 8),
    ("q4a8", 4, 8),
    ("q2a8", 2, 8),
];
const PACK_WIDTHS: [u8; 3] = [8, 4, 3];

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    let mut all: Vec<Case> = PACK_WIDTHS.map(|bits| pack::<B>(bits, [3072, 768], device)).into();
    for kind in KINDS {
        for m in ROWS {
            all.extend(SHAPES.map(|[k, n]| product::<B>(kind, [m, k, n], device)));
        }
    }
    all
}

fn per_channel() -> QuantSpec {
    QuantSpec::default().with_granularity(Granularity::PerChannel)
}

/// The values are those of fake quantisation; a code has no sign for 0.
fn pack<B: QuantBackend>(bits: u8, shape: [usize; 2], device: &B::Device) -> Case {
    let [rows, columns] = shape;
    let id = format!("pack/q{bits}/{rows}x{columns}");
    let amount = ((rows * columns * size_of::<f32>()) as u64, Unit::Bytes);
    let device = device.clone();
    Case::new(id.clone(), amount, move || {
        let (weight, bits) = (matrix::<B>(shape, &device), width(bits));
        let expected = reference::fake_quantize(weight.clone(), bits, &per_channel(), GradientRule::Identity);
        let expected: Vec<f32> = expected.expect("valid options").into_data().iter().collect();
        let nearest = Rounding::Nearest { bits, spec: per_channel() };
        let run = move || nearest.pack(&weight, ScaleFormat::F32).expect("it packs");
        assert!(run().dequantize() == expected, "{id}: other values than those of fake quantisation");
        move || drop(std::hint::black_box(run()))
    })
}

/// The product is that of fake-quantised matrices, but for the order of sums.
fn product<B: QuantBackend>(
    (kind, weights, activations): (&'static str, u8, u8),
    [m, k, n]: [usize; 3],
    device: &B::Device,
) -> Case {
    let id = format!("packed_matmul/{kind}/{m}x{k}x{n}");
    let device = device.clone();
    Case::new(id.clone(), ((m * k * n) as u64, Unit::Macs), move || {
        let (x, weight) = (matrix::<B>([m, k], &device), matrix::<B>([k, n], &device));
        let (weights, activations) = (width(weights), width(activations));
        let rule = GradientRule::Identity;
        let quantized = |x: &Tensor<B, 2>, bits, spec| {
            reference::fake_quantize(x.clone(), bits, &spec, rule).expect("valid options")
        };
        let expected =
            quantized(&x, activations, QuantSpec::PER_TOKEN).matmul(quantized(&weight, weights, per_channel()));
        let nearest = Rounding::Nearest { bits: weights, spec: per_channel() };
        let packed = (!weights.is_full()).then(|| nearest.pack(&weight, ScaleFormat::F32).expect("it packs"));
        let halves = kind.ends_with("bf16");
        let half = (halves && packed.is_none()).then(|| {
            let values: Vec<f32> = weight.to_data().iter().collect();
            HalfWeight::new(&values, [k, n])
        });
        let activations = match activations {
            _ if halves => ActivationBits::BF16,
            bits => ActivationBits::new(bits).expect("a width"),
        };
        let run = move || {
            let nothing = LinearTerms { bias: None, adapter: None, function: OutputFunction::Identity };
            match (&packed, &half) {
                (Some(packed), _) => packed_linear(x.clone(), PackedView::whole(packed), activations, nothing),
                (None, Some(half)) => half_linear(x.clone(), half, nothing),
                (None, None) => x.clone().matmul(weight.clone()),
            }
        };
        assert_close(&run(), &expected, if halves { 0.03 } else { 1e-5 }, &id);
        move || finish::<B>(run(), &device)
    })
}
