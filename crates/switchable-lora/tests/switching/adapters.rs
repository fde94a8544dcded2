//! How adapters start.

use burn::tensor::Tensor;

use quant_kernels::{spec::bit_width::BitWidth, tensor::distortion::Distortion};
use switchable_lora::{
    adapter_pair::LoraAdapterPair,
    error::Error,
    linear_settings::LinearSettings,
    lora_config::{LoraConfig, LoraInit},
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{D_IN, D_OUT, Plain, Tracked, device, skip_without_device, tensor, values};

fn bare(d_in: usize, d_out: usize) -> SwitchableLinear<Plain> {
    SwitchableLinear::new(tensor([d_in, d_out], 1), None, LinearSettings::default(), &QuantizedCache::default())
}

fn loftq(rank: usize) -> LoraConfig {
    LoraConfig::new(rank, 3.0).expect("rank and alpha are above 0").with_init(LoraInit::LoftQ { iterations: 4 })
}

#[test]
fn zero_b_adds_exactly_nothing() {
    skip_without_device!();
    let mut layer = bare(D_IN, D_OUT);
    layer.init_adapter(BitWidth::B4, &LoraConfig::new(3, 6.0).unwrap(), 9).unwrap();
    let x = tensor::<Plain, 2>([4, D_IN], 2);
    let four = SitePrecision::uniform(BitWidth::B4);
    let (with, without) = (layer.forward(x.clone(), &four), layer.forward(x, &four.without_adapter()));
    assert_eq!(values(&with), values(&without));
}

#[test]
fn a_is_normal_with_the_variance_documented() {
    skip_without_device!();
    let config = LoraConfig::new(16, 16.0).unwrap();
    let d_in = 400;
    let pair = LoraAdapterPair::<Plain>::adding_nothing(&config, [d_in, 2], 3, &device());
    let a: Vec<f64> = values(&pair.a.val()).iter().map(|&a| f64::from(a) * (d_in as f64).sqrt()).collect();
    let moment = |power| a.iter().map(|a| a.powi(power)).sum::<f64>() / a.len() as f64;
    // 6,400 numbers: the standard errors are 0.0125, 0.018 and 0.12.
    assert!(moment(1).abs() < 0.05, "mean {}", moment(1));
    assert!((moment(2) - 1.0).abs() < 0.08, "variance {}", moment(2));
    assert!((moment(4) - 3.0).abs() < 0.5, "fourth moment {}", moment(4));
}

#[test]
fn the_seed_decides_the_numbers() {
    skip_without_device!();
    let config = LoraConfig::new(2, 2.0).unwrap();
    let a = |seed| values(&LoraAdapterPair::<Plain>::adding_nothing(&config, [5, 5], seed, &device()).a.val());
    assert_eq!(a(1), a(1));
    assert_ne!(a(1), a(2));
}

#[test]
fn loftq_removes_more_of_the_damage_the_higher_the_rank() {
    skip_without_device!();
    let weight = tensor::<Plain, 2>([40, 30], 1);
    let mut last = f64::INFINITY;
    for rank in [1, 4, 16, 30] {
        let mut layer = bare(40, 30);
        layer.init_adapter(BitWidth::B2, &loftq(rank), 0).unwrap();
        let repaired =
            layer.quantized_weight(BitWidth::B2).unwrap() + layer.bank().get(BitWidth::B2).unwrap().product();
        let mse = Distortion::between(&weight, &repaired).mse;
        assert!(mse < last, "rank {rank} left {mse}, a lower one {last}");
        last = mse;
    }
    assert!(last < 1e-12, "the full rank left {last}");
}

#[test]
fn loftq_shares_the_size_between_the_factors() {
    skip_without_device!();
    let mut layer = bare(40, 30);
    layer.init_adapter(BitWidth::B3, &loftq(4), 0).unwrap();
    let pair = layer.bank().get(BitWidth::B3).unwrap();
    let norm = |factor: Tensor<Plain, 2>| factor.square().sum().sqrt().into_scalar();
    let (a, b) = (norm(pair.a.val()), norm(pair.b.val()));
    assert!((a / b - 1.0).abs() < 1e-3, "{a} and {b}");
}

#[test]
fn loftq_where_nothing_was_lost_can_still_learn() {
    skip_without_device!();
    // Full precision loses nothing; two zero factors would never get a gradient.
    let cache = QuantizedCache::default();
    let weight = tensor::<Tracked, 2>([D_IN, D_OUT], 1);
    let mut layer = SwitchableLinear::<Tracked>::new(weight, None, LinearSettings::default(), &cache);
    layer.init_adapter(BitWidth::FULL, &loftq(3), 0).unwrap();
    let pair = layer.bank().get(BitWidth::FULL).unwrap();
    assert!(values(&pair.b.val()).iter().all(|&b| b == 0.0));
    assert!(values(&pair.a.val()).iter().all(|&a| a != 0.0));
    let y = layer.forward(tensor::<Tracked, 2>([4, D_IN], 2), &SitePrecision::uniform(BitWidth::FULL));
    let gradients = y.square().sum().backward();
    assert!(values(&pair.b.grad(&gradients).unwrap()).iter().any(|&gradient| gradient != 0.0));
}

#[test]
fn loftq_ranks_beyond_the_weight_are_filled_like_zero_b() {
    skip_without_device!();
    let mut layer = bare(6, 4);
    layer.init_adapter(BitWidth::B2, &loftq(9), 0).unwrap();
    let pair = layer.bank().get(BitWidth::B2).unwrap();
    assert_eq!((pair.a.dims(), pair.b.dims()), ([6, 9], [9, 4]));
    let repaired = layer.quantized_weight(BitWidth::B2).unwrap() + pair.product();
    assert!(Distortion::between(&layer.weight(), &repaired).max_abs_error < 1e-5);
    assert!(values(&pair.b.val().slice([4..9, 0..4])).iter().all(|&b| b == 0.0));
}

#[test]
fn widths_that_the_quantiser_lacks_and_shapes_that_differ_are_errors() {
    skip_without_device!();
    let mut layer = bare(D_IN, D_OUT);
    assert!(matches!(layer.init_adapter(BitWidth::B1, &loftq(2), 0), Err(Error::Quantisation(_))));
    let config = LoraConfig::new(2, 2.0).unwrap();
    let pair = LoraAdapterPair::adding_nothing(&config, [D_OUT, D_IN], 0, &device());
    let message = layer.insert_adapter(BitWidth::B4, pair).unwrap_err().to_string();
    assert_eq!(message, "adapter for a [7, 12] weight does not fit a [12, 7] weight");
    assert!(layer.bank().is_empty());

    let factors = |a_rank, b_rank| {
        LoraAdapterPair::from_factors(tensor::<Plain, 2>([3, a_rank], 1), tensor([b_rank, 3], 1), 1.0).map(|_| ())
    };
    let message = factors(2, 4).unwrap_err().to_string();
    assert_eq!(message, "adapter factors of shapes [3, 2] and [4, 3] do not share a rank");
    assert!(matches!(factors(0, 0), Err(Error::Rank)));
}
