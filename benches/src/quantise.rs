//! Fake quantisation of GPT-2 small's largest matrix and of activations, and training its steps.

use switchable_quant::burn::tensor::Tensor;
use switchable_quant::kernels::{
    GradientRule, LearnedStep, QuantAutodiffBackend, QuantBackend, QuantSpec, fake_quantize, tensor::reference,
};

use crate::answer::{assert_close, finish, matrix, width};
use crate::case::{Case, Unit};

const SHAPES: [(&str, &str, u8, [usize; 2]); 4] = [
    ("per_tensor", "per-tensor", 4, [3072, 768]),
    ("per_channel", "per-channel", 4, [3072, 768]),
    ("per_group:64", "per-group:64", 4, [3072, 768]),
    ("per_token", "per-token", 8, [1024, 768]),
];

/// Who does the work.
#[derive(Clone, Copy)]
enum Way {
    Kernel,
    PlainOperations,
}

impl Way {
    /// The end of an id.
    fn suffix(self) -> &'static str {
        match self {
            Self::Kernel => "",
            Self::PlainOperations => "/plain",
        }
    }
}

pub(crate) fn cases<B: QuantBackend>(device: &B::Device) -> Vec<Case> {
    let ways = [Way::Kernel, Way::PlainOperations];
    SHAPES.into_iter().flat_map(|shape| ways.map(|way| case::<B>(shape, way, device))).collect()
}

/// Forward and backward by learned steps.
pub(crate) fn learned_cases<B: QuantAutodiffBackend>(device: &B::Device) -> Vec<Case> {
    let ways = [Way::Kernel, Way::PlainOperations];
    ways.into_iter().flat_map(|way| ["per-tensor", "per-channel"].map(|text| learned::<B>(text, way, device))).collect()
}

fn learned<B: QuantAutodiffBackend>(granularity: &'static str, way: Way, device: &B::Device) -> Case {
    let [rows, columns] = [3072, 768];
    let id = format!("learned_step/{}/q4/{rows}x{columns}{}", granularity.replace('-', "_"), way.suffix());
    let amount = ((rows * columns * size_of::<f32>()) as u64, Unit::Bytes);
    let device = device.clone();
    Case::new(id.clone(), amount, move || {
        let x = matrix::<B>([rows, columns], &device);
        let granularity = granularity.parse().expect("a granularity");
        let learned = LearnedStep::new(&x, width(4), granularity).expect("valid options");
        let x = x.require_grad();
        let run = move |way| {
            let y = match way {
                Way::Kernel => learned.forward(x.clone()),
                Way::PlainOperations => reference::learned_step(x.clone(), &learned),
            };
            let gradients = y.square().sum().backward();
            let of_x: Tensor<B::InnerBackend, 2> = x.grad(&gradients).expect("it is tracked");
            (of_x, learned.step.grad(&gradients).expect("it is trained"))
        };
        let (got, expected) = (run(Way::Kernel), run(Way::PlainOperations));
        assert_close(&got.0, &expected.0, 1e-5, &id);
        assert_close(&got.1, &expected.1, 1e-3, &id);
        move || finish::<B::InnerBackend>(run(way), &device)
    })
}

fn case<B: QuantBackend>(
    (name, granularity, bits, [rows, columns]): (&str, &'static str, u8, [usize; 2]),
    way: Way,
    device: &B::Device,
) -> Case {
    let id = format!("fake_quantize/{name}/q{bits}/{rows}x{columns}{}", way.suffix());
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
