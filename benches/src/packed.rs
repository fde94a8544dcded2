//! Packing GPT-2 small's matrices, and products with them.

use std::hint::black_box;

use switchable_quant::backend::{Flex, FlexDevice};
use switchable_quant::burn::tensor::{Tensor, TensorData};
use switchable_quant::kernels::{ActivationBits, BitWidth, Granularity, Product, QuantSpec, ScaleFormat};
use switchable_quant::lora::pack_weight;

use crate::{Case, Unit};

const ROWS: [usize; 4] = [1, 16, 256, 1024];
const SHAPES: [[usize; 2]; 4] = [[768, 768], [768, 2304], [768, 3072], [3072, 768]];
/// Weights, activations; `f32` multiplies by burn.
const KINDS: [(&str, u8, u8); 6] =
    [("f32", 32, 32), ("q8", 8, 32), ("q4", 4, 32), ("q8a8", 8, 8), ("q4a8", 4, 8), ("q2a8", 2, 8)];
const PACK_WIDTHS: [u8; 3] = [8, 4, 3];

pub(crate) fn ids() -> Vec<String> {
    let products = KINDS.into_iter().flat_map(|(kind, ..)| {
        ROWS.into_iter().flat_map(move |m| SHAPES.map(|[k, n]| format!("packed_matmul/{kind}/{m}x{k}x{n}")))
    });
    products.chain(PACK_WIDTHS.map(|bits| format!("pack/q{bits}/3072x768"))).collect()
}

pub(crate) fn build(id: &str) -> Option<Case> {
    if !ids().iter().any(|known| known == id) {
        return None;
    }
    let parts: Vec<&str> = id.split('/').collect();
    let sizes: Vec<usize> = parts[2].split('x').map(|size| size.parse().expect("a known id")).collect();
    match *sizes {
        [rows, columns] => Some(pack(id, parts[1][1..].parse().expect("a known id"), [rows, columns])),
        [m, k, n] => Some(product(id, parts[1], [m, k, n])),
        _ => None,
    }
}

fn matrix([rows, columns]: [usize; 2]) -> Tensor<Flex, 2> {
    let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 10_007) as f32 / 5003.5 - 1.0).collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &FlexDevice)
}

fn per_channel() -> QuantSpec {
    QuantSpec::default().with_granularity(Granularity::PerChannel)
}

fn pack(id: &str, bits: u8, shape: [usize; 2]) -> Case {
    let weight = matrix(shape);
    let bits = BitWidth::new(bits).expect("a width");
    let run = move || pack_weight(&weight, bits, &per_channel(), ScaleFormat::F32).expect("it packs");
    assert_eq!(run().shape(), shape);
    let amount = ((shape[0] * shape[1] * size_of::<f32>()) as u64, Unit::Bytes);
    Case { id: id.to_owned(), amount, run: Box::new(move || drop(black_box(run()))) }
}

fn product(id: &str, kind: &str, [m, k, n]: [usize; 3]) -> Case {
    let (_, weights, activations) = KINDS.into_iter().find(|(known, ..)| *known == kind).expect("a known id");
    let (x, weight) = (matrix([m, k]), matrix([k, n]));
    let amount = ((m * k * n) as u64, Unit::Macs);
    if weights == 32 {
        let run = move || drop(black_box(x.clone().matmul(weight.clone())));
        return Case { id: id.to_owned(), amount, run: Box::new(run) };
    }
    let bits = BitWidth::new(weights).expect("a width");
    let packed = pack_weight(&weight, bits, &per_channel(), ScaleFormat::F32).expect("it packs");
    let activations = ActivationBits::new(BitWidth::new(activations).expect("a width")).expect("a width");
    let product = Product { activations, ..Default::default() };
    let values: Vec<f32> = x.clone().into_data().to_vec().expect("f32");
    let dequantised = Tensor::<Flex, 2>::from_data(TensorData::new(packed.dequantize(), [k, n]), &FlexDevice);
    let expected: Vec<f32> = x.matmul(dequantised).into_data().to_vec().expect("f32");
    let got = packed.matmul(&values, m, &product);
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(&expected).map(|(got, expected)| got - expected));
    let tolerance = if activations.width().is_full() { 1e-5 } else { 2e-2 };
    assert!(error < tolerance * norm(&mut expected.iter().copied()), "{id} is off by {error}");
    Case { id: id.to_owned(), amount, run: Box::new(move || drop(black_box(packed.matmul(&values, m, &product)))) }
}
