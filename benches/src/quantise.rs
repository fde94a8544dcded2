//! Fake quantisation of GPT-2 small's largest matrix and of activations.

use std::hint::black_box;

use switchable_quant::backend::{Flex, FlexDevice};
use switchable_quant::burn::tensor::{Tensor, TensorData};
use switchable_quant::kernels::{BitWidth, GradientRule, QuantSpec, fake_quantize, reference};

use crate::{Case, Unit};

const SHAPES: [(&str, &str, u8, [usize; 2]); 4] = [
    ("per_tensor", "per-tensor", 4, [3072, 768]),
    ("per_channel", "per-channel", 4, [3072, 768]),
    ("per_group:64", "per-group:64", 4, [3072, 768]),
    ("per_token", "per-token", 8, [1024, 768]),
];

/// Who does the work.
const WAYS: [&str; 2] = ["", "/plain"];

fn id((name, _, bits, [rows, columns]): (&str, &str, u8, [usize; 2]), way: &str) -> String {
    format!("fake_quantize/{name}/q{bits}/{rows}x{columns}{way}")
}

pub(crate) fn ids() -> Vec<String> {
    SHAPES.iter().flat_map(|&shape| WAYS.map(|way| id(shape, way))).collect()
}

pub(crate) fn build(wanted: &str) -> Option<Case> {
    let (shape, way) =
        SHAPES.into_iter().flat_map(|shape| WAYS.map(|way| (shape, way))).find(|&(s, way)| id(s, way) == wanted)?;
    let (_, granularity, bits, [rows, columns]) = shape;
    let bits = BitWidth::new(bits).expect("a width");
    let spec = QuantSpec::default().with_granularity(granularity.parse().expect("a granularity"));
    let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919) % 10_007) as f32 / 5003.5 - 1.0).collect();
    let x = Tensor::<Flex, 2>::from_data(TensorData::new(values, [rows, columns]), &FlexDevice);
    let rule = GradientRule::Identity;
    let plain = move |x| reference::fake_quantize(x, bits, &spec, rule).expect("valid options");
    let fused = move |x| fake_quantize(x, bits, &spec, rule).expect("valid options");
    assert_eq!(fused(x.clone()).into_data(), plain(x.clone()).into_data(), "{wanted}");
    let run: Box<dyn FnMut()> = if way.is_empty() {
        Box::new(move || drop(black_box(fused(x.clone()))))
    } else {
        Box::new(move || drop(black_box(plain(x.clone()))))
    };
    Some(Case { id: wanted.to_owned(), amount: ((rows * columns * size_of::<f32>()) as u64, Unit::Bytes), run })
}
