//! Gradients flow where they should and nowhere else.

use burn::{
    optim::{AdamWConfig, GradientsParams, Optimizer},
    tensor::{Tensor, backend::AutodiffBackend},
};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    lora_config::LoraConfig,
    placement::Placement,
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Tracked, WIDTHS, assert_close, layer, merged, pair, precisions, skip_without_device, tensor, values,
};

type Gradients = <Tracked as AutodiffBackend>::Gradients;

fn trainable(settings: LinearSettings) -> LinearSettings {
    LinearSettings { base: BasePolicy::Trainable, ..settings }
}

/// Gradients of the sum of squares of the output.
fn gradients(layer: &SwitchableLinear<Tracked>, x: &Tensor<Tracked, 2>, precision: SitePrecision) -> Gradients {
    layer.forward(x.clone(), &precision).square().sum().backward()
}

fn input() -> Tensor<Tracked, 2> {
    tensor::<Tracked, 2>([5, D_IN], 3).require_grad()
}

#[test]
fn frozen_base_gets_no_gradient() {
    skip_without_device!();
    for settings in [LinearSettings::default(), merged()] {
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        for precision in precisions() {
            let x = input();
            let output = layer.forward(x.clone(), &precision).sum();
            let gradients = output.backward();
            assert!(layer.weight().grad(&gradients).is_none(), "{precision:?}");
            assert!(layer.bias().unwrap().grad(&gradients).is_none(), "{precision:?}");
            assert!(x.grad(&gradients).is_some(), "{precision:?}");
        }
    }
}

#[test]
fn trainable_base_gets_a_gradient_at_every_width() {
    skip_without_device!();
    for settings in [LinearSettings::default(), merged()].map(trainable) {
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        for precision in precisions() {
            let gradients = gradients(&layer, &input(), precision);
            let weight = values(&layer.weight().grad(&gradients).unwrap());
            assert!(weight.iter().any(|&gradient| gradient != 0.0), "{precision:?}");
            assert!(layer.bias().unwrap().grad(&gradients).is_some(), "{precision:?}");
        }
    }
}

#[test]
fn only_the_active_adapter_gets_a_gradient() {
    skip_without_device!();
    for settings in [LinearSettings::default(), merged()] {
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        for precision in precisions() {
            let gradients = gradients(&layer, &input(), precision);
            for (width, pair) in layer.bank().iter() {
                let active = precision.adapter == Some(width);
                assert_eq!(pair.a.grad(&gradients).is_some(), active, "A of {width} bits, {precision:?}");
                assert_eq!(pair.b.grad(&gradients).is_some(), active, "B of {width} bits, {precision:?}");
            }
        }
    }
}

#[test]
fn gradients_equal_those_of_the_formulas() {
    skip_without_device!();
    // With y = Qa(x)·Q + s·x·A·B + b and G = ∂L/∂y:
    //   ∂A = s·xᵀ·G·Bᵀ    ∂B = s·Aᵀ·xᵀ·G    ∂x = G·Qᵀ + s·G·Bᵀ·Aᵀ
    let layer = layer::<Tracked>(LinearSettings::default(), &QuantizedCache::default());
    for width in WIDTHS {
        let precision = SitePrecision::uniform(width).with_activations(BitWidth::B8);
        let x = input();
        let y = layer.forward(x.clone(), &precision);
        let arriving = y.clone().set_require_grad(false).inner() * 2.0;
        let gradients = y.square().sum().backward();

        let pair = layer.bank().get(width).unwrap();
        let (a, b, s) = (pair.a.val().inner(), pair.b.val().inner(), pair.scaling() as f32);
        let q = layer.quantized_weight(width).unwrap().inner();
        let plain_x = x.clone().inner();
        let a_gradient = plain_x.clone().transpose().matmul(arriving.clone()).matmul(b.clone().transpose()) * s;
        let b_gradient = a.clone().transpose().matmul(plain_x.transpose()).matmul(arriving.clone()) * s;
        let x_gradient =
            arriving.clone().matmul(q.transpose()) + arriving.matmul(b.transpose()).matmul(a.transpose()) * s;
        assert_close(
            &values(&pair.a.grad(&gradients).unwrap()),
            &values(&a_gradient),
            2e-4,
            &format!("A of {width} bits"),
        );
        assert_close(
            &values(&pair.b.grad(&gradients).unwrap()),
            &values(&b_gradient),
            2e-4,
            &format!("B of {width} bits"),
        );
        assert_close(&values(&x.grad(&gradients).unwrap()), &values(&x_gradient), 2e-4, &format!("x at {width} bits"));
    }
}

#[test]
fn the_merged_gradient_passes_straight_through_the_quantiser() {
    skip_without_device!();
    // ∂A = s·Wᵍ·Bᵀ and ∂B = s·Aᵀ·Wᵍ with Wᵍ = xᵀ·G, whatever the width.
    let layer = layer::<Tracked>(merged(), &QuantizedCache::default());
    for width in WIDTHS {
        let x = input();
        let y = layer.forward(x.clone(), &SitePrecision::uniform(width));
        let arriving = y.clone().set_require_grad(false).inner() * 2.0;
        let gradients = y.square().sum().backward();
        let pair = layer.bank().get(width).unwrap();
        let (a, b, s) = (pair.a.val().inner(), pair.b.val().inner(), pair.scaling() as f32);
        let weight_gradient = x.inner().transpose().matmul(arriving);
        let a_gradient = weight_gradient.clone().matmul(b.transpose()) * s;
        let b_gradient = a.transpose().matmul(weight_gradient) * s;
        assert_close(
            &values(&pair.a.grad(&gradients).unwrap()),
            &values(&a_gradient),
            2e-4,
            &format!("A of {width} bits"),
        );
        assert_close(
            &values(&pair.b.grad(&gradients).unwrap()),
            &values(&b_gradient),
            2e-4,
            &format!("B of {width} bits"),
        );
    }
}

#[test]
fn the_trainable_gradient_passes_straight_through_the_quantiser() {
    skip_without_device!();
    let layer = layer::<Tracked>(trainable(LinearSettings::default()), &QuantizedCache::default());
    for width in WIDTHS {
        let x = input();
        let y = layer.forward(x.clone(), &SitePrecision::uniform(width));
        let arriving = y.clone().set_require_grad(false).inner() * 2.0;
        let gradients = y.square().sum().backward();
        let expected = x.inner().transpose().matmul(arriving);
        assert_close(
            &values(&layer.weight().grad(&gradients).unwrap()),
            &values(&expected),
            2e-4,
            &format!("{width} bits"),
        );
    }
}

#[test]
fn freezing_and_unfreezing_decide_who_learns() {
    skip_without_device!();
    let layer = layer::<Tracked>(LinearSettings::default(), &QuantizedCache::default()).unfreeze();
    assert_eq!(layer.settings().base, BasePolicy::Trainable);
    let precision = SitePrecision::uniform(BitWidth::B4);
    assert!(layer.weight().grad(&gradients(&layer, &input(), precision)).is_some());
    let layer = layer.freeze();
    assert_eq!(layer.settings().base, BasePolicy::Frozen);
    assert!(layer.weight().grad(&gradients(&layer, &input(), precision)).is_none());
}

#[test]
fn training_an_adapter_learns_at_its_width_and_touches_nothing_else() {
    skip_without_device!();
    for placement in [Placement::Residual, Placement::Merged] {
        let settings = LinearSettings { placement, ..LinearSettings::default() };
        let mut layer = layer::<Tracked>(settings, &QuantizedCache::default());
        layer.init_adapter(BitWidth::B4, &LoraConfig::new(4, 4.0).unwrap(), 1).unwrap();
        let before = layer.clone();
        // The task is another weight, a few directions away.
        let task = layer.weight() + pair::<Tracked>(BitWidth::B8).product() * 2.0;
        let x = tensor::<Tracked, 2>([64, D_IN], 12);
        let target = x.clone().matmul(task).set_require_grad(false) + layer.bias().unwrap().unsqueeze();
        let four_bits = SitePrecision::uniform(BitWidth::B4);
        let loss =
            |layer: &SwitchableLinear<Tracked>| (layer.forward(x.clone(), &four_bits) - target.clone()).square().mean();
        let start = loss(&layer).into_scalar();
        let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).init();
        for _ in 0..150 {
            let gradients = GradientsParams::from_grads(loss(&layer).backward(), &layer);
            layer = optimizer.step(0.02, layer, gradients);
        }
        let end = loss(&layer).into_scalar();
        assert!(end < start * 0.2, "{placement:?}: {start} only fell to {end}");
        assert_eq!(values(&layer.weight()), values(&before.weight()));
        for precision in precisions().into_iter().filter(|precision| precision.adapter != Some(BitWidth::B4)) {
            let (after, before) = (layer.forward(x.clone(), &precision), before.forward(x.clone(), &precision));
            assert_eq!(values(&after), values(&before), "{placement:?} {precision:?}");
        }
    }
}

#[test]
fn an_adapter_that_adds_nothing_still_learns() {
    skip_without_device!();
    let cache = QuantizedCache::default();
    let mut layer = SwitchableLinear::<Tracked>::new(tensor([D_IN, D_OUT], 1), None, LinearSettings::default(), &cache);
    layer.init_adapter(BitWidth::B4, &LoraConfig::new(2, 2.0).unwrap(), 5).unwrap();
    let gradients = gradients(&layer, &input(), SitePrecision::uniform(BitWidth::B4));
    let pair = layer.bank().get(BitWidth::B4).unwrap();
    assert!(values(&pair.b.grad(&gradients).unwrap()).iter().any(|&gradient| gradient != 0.0));
}
