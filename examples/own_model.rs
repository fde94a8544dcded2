//! A burn model that is no transformer, made switchable: each of its layers runs at the width that a call names.
//!
//! ```text
//! cargo run --release --example own_model
//! ```
//!
//! It learns to tell two spirals apart, shows what each layer costs at 2 bits and all of them at fewer and fewer, and trains
//! adapters on the frozen base that repair 2 bits. What makes it switchable is [`SwitchableLinear`] in the place of
//! `burn::nn::Linear`, and a precision for each layer in the call.

use std::f32::consts::PI;
use std::process::ExitCode;

use command_line::finish;
use switchable_quant::burn;
use switchable_quant::burn::backend::Autodiff;
use switchable_quant::burn::module::{AutodiffModule, Module};
use switchable_quant::burn::nn::loss::CrossEntropyLossConfig;
use switchable_quant::burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use switchable_quant::burn::tensor::{Distribution, ElementConversion as _, Int, Tensor};
use switchable_quant::lora::QuantizedCache;
use switchable_quant::prelude::*;

/// Two numbers in, two hidden layers, two classes out.
const SHAPE: [usize; 4] = [2, 48, 48, 2];
const POINTS: usize = 400;

#[derive(Module, Debug)]
struct Classifier<B: Backend> {
    layers: Vec<SwitchableLinear<B>>,
}

impl<B: QuantBackend> Classifier<B> {
    fn random(device: &B::Device) -> Self {
        let settings = LinearSettings { base: BasePolicy::Trainable, ..LinearSettings::default() };
        let layer = |sizes: &[usize]| {
            let spread = Distribution::Normal(0.0, 1.5 / (sizes[0] as f64).sqrt());
            let weight = Tensor::random([sizes[0], sizes[1]], spread, device);
            let bias = Tensor::zeros([sizes[1]], device);
            SwitchableLinear::new(weight, Some(bias), settings, &QuantizedCache::default())
        };
        Self { layers: SHAPE.windows(2).map(layer).collect() }
    }

    /// `points` `[n, 2]` to scores `[n, 2]`; the plan has a precision for each layer.
    fn forward(&self, points: Tensor<B, 2>, plan: &[SitePrecision]) -> Tensor<B, 2> {
        let mut hidden = points;
        for (index, (layer, precision)) in self.layers.iter().zip(plan).enumerate() {
            hidden = layer.forward(hidden, precision);
            if index + 1 < self.layers.len() {
                hidden = hidden.tanh();
            }
        }
        hidden
    }

    fn percent_right(&self, (points, classes): &(Tensor<B, 2>, Tensor<B, 1, Int>), plan: &[SitePrecision]) -> f32 {
        let chosen = self.forward(points.clone(), plan).argmax(1).squeeze_dim::<1>(1);
        100.0 * chosen.equal(classes.clone()).float().mean().into_scalar().elem::<f32>()
    }
}

/// Points on two spirals around each other, and which of them each is on.
fn spirals<B: Backend>(device: &B::Device) -> (Tensor<B, 2>, Tensor<B, 1, Int>) {
    let point = |index: usize| {
        let (class, share) = (index % 2, index as f32 / POINTS as f32);
        let angle = 3.0 * PI * share + PI * class as f32;
        [angle.cos() * (0.1 + share), angle.sin() * (0.1 + share)]
    };
    let points: Vec<f32> = (0..POINTS).flat_map(point).collect();
    let classes: Vec<i32> = (0..POINTS).map(|index| (index % 2) as i32).collect();
    let points = Tensor::<B, 1>::from_floats(points.as_slice(), device).reshape([POINTS, 2]);
    (points, Tensor::from_ints(classes.as_slice(), device))
}

fn trained<B: QuantAutodiffBackend>(
    mut model: Classifier<B>,
    steps: usize,
    plan: &[SitePrecision],
    device: &B::Device,
) -> Classifier<B> {
    let (points, classes) = spirals::<B>(device);
    let loss = CrossEntropyLossConfig::new().init(device);
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).init();
    for _ in 0..steps {
        let gradients = loss.forward(model.forward(points.clone(), plan), classes.clone()).backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        model = optimizer.step(5e-3, model, gradients);
    }
    model
}

fn main() -> ExitCode {
    finish(own_model)
}

fn own_model() -> anyhow::Result<()> {
    let device = CpuDevice::default();
    Cpu::seed(&device, 1);
    let full = [SitePrecision::FULL; 3];
    let mut model = trained(Classifier::<Autodiff<Cpu>>::random(&device), 600, &full, &device);
    let data = spirals::<Cpu>(&device);

    println!("every layer at the same width");
    for bits in [32, 8, 4, 3, 2] {
        let plan = [SitePrecision::FULL.with_weights(BitWidth::new(bits)?); 3];
        println!("{bits:>2} bits       {:5.1} % right", model.valid().percent_right(&data, &plan));
    }
    println!("one layer at 2 bits");
    for layer in 0..full.len() {
        let mut plan = full;
        plan[layer] = SitePrecision::FULL.with_weights(BitWidth::B2);
        println!("layer {layer}       {:5.1} % right", model.valid().percent_right(&data, &plan));
    }

    // Adapters of 2 bits, trained beside a base that stays as it is.
    model.layers = model.layers.into_iter().map(SwitchableLinear::freeze).collect();
    for (seed, layer) in model.layers.iter_mut().enumerate() {
        layer.init_adapter(BitWidth::B2, &LoraConfig::new(4, 8.0)?, seed as u64)?;
    }
    let two = [SitePrecision::FULL.with_weights(BitWidth::B2).with_adapter(BitWidth::B2); 3];
    let model = trained(model, 600, &two, &device);
    println!("2 bits and adapters of rank 4");
    println!("             {:5.1} % right", model.valid().percent_right(&data, &two));
    Ok(())
}
