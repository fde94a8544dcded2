//! Fake quantisation of GPT-2 small's largest matrix and of activations.

use switchable_quant::kernels::{GradientRule, QuantBackend, QuantSpec, fake_quantize, reference};

use crate::answer::{finish, matrix, width};
use crate::{Case, Unit};

const SHAPES: [(&str, &str, u8, [usize; 2]); 4] = [
    ("per_tensor", "per-tensor", 4, [3072, 768]),
    ("per_channel", "per-channel", 4, [3072, 768]),
    ("per_group:64", "per-group:64", 4, [3072, 768]),
    ("per_token", "per-token", 8, [1024, 768]),
];

/// Who does the work.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Kernel,
    PlainOperations,
}

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    let ways = [Way::Kernel, Way::PlainOperations];
    SHAPES.into_iter().flat_map(|shape| ways.map(|way| case::<B>(shape, way, device))).collect()
}

fn case<B: QuantBackend>(
    (name, granularity, bits, [rows, columns]): (&str, &'static str, u8, [usize; 2]),
    way: Way,
    device: &B::Device,
) -> Case {
    let suffix = if way == Way::Kernel { "" } else { "/plain" };
    let id = format!("fake_quantize/{name}/q{bits}/{rows}x{columns}{suffix}");
    let amount = ((rows * columns * size_of::<f32>()) as u64, Unit::Bytes);
    let device = device.clone();
    Case::new(id.clone(), amount, move || {
        let spec = QuantSpec::default().with_granularity(granularity.parse().expect("a granularity"));
        let (bits, rule) = (width(bits), GradientRule::Identity);
        let x = matrix::<B>([rows, columns], &device);
        let run = move |way| match way {
            Way::Kernel => fake_quantize(x.clone(), bits, &spec, rule).expect("valid options"),
            Way::PlainOperations => reference::fake_quantize(x.clone(), bits, &spec, rule).expect("valid options"),
        };
        assert_eq!(run(Way::Kernel).into_data(), run(Way::PlainOperations).into_data(), "{id}");
        move || finish::<B>(run(way), &device)
    })
}
