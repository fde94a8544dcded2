//! Percentile and MSE ranges against their definitions.

use quant_kernels::{
    spec::{
        bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, quant_spec::QuantSpec,
        range_estimator::RangeEstimator,
    },
    tensor::{distortion::Distortion, fake_quantize::fake_quantize, params::choose_params},
};

use crate::{
    scalar_reference::{level, sharing},
    support::{Plain, granularities, numbers, spec, tensor, values},
};

const DIMS: [usize; 2] = [29, 5];

/// The value at a fraction of sorted values, interpolated between its neighbours.
fn quantile(sorted: &[f32], fraction: f64) -> f64 {
    let position = fraction * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    let weight = position - below as f64;
    f64::from(sorted[below]) * (1.0 - weight) + f64::from(sorted[above]) * weight
}

fn sorted(mut values: Vec<f32>) -> Vec<f32> {
    values.sort_by(f32::total_cmp);
    values
}

#[test]
fn percentile_ranges_follow_the_definition_in_every_block_the_last_group_included() {
    let x = numbers(DIMS[0] * DIMS[1], 41);
    for percent in [50.5, 75.0, 90.0, 99.9, 100.0] {
        let range: RangeEstimator = format!("percentile:{percent}").parse().unwrap();
        for granularity in granularities() {
            let blocks = sharing(&x, [1, DIMS[0], DIMS[1]], granularity);
            for format in [Format::Symmetric, Format::Asymmetric] {
                let spec = spec(granularity, format).with_range(range);
                let params = choose_params(&tensor::<Plain, 2>(&x, DIMS), BitWidth::B4, &spec).unwrap();
                for (scale, block) in values(&params.scale()).iter().zip(blocks.values()) {
                    let expected = match format {
                        Format::Symmetric => {
                            let magnitudes = sorted(block.iter().map(|x| x.abs()).collect());
                            quantile(&magnitudes, percent / 100.0) / 7.0
                        }
                        Format::Asymmetric => {
                            let block = sorted(block.clone());
                            let low = quantile(&block, 1.0 - percent / 100.0).min(0.0);
                            let high = quantile(&block, percent / 100.0).max(0.0);
                            (high - low) / 15.0
                        }
                        Format::Nf4 => unreachable!("tables have tests of their own"),
                    };
                    let expected = if expected == 0.0 { 1.0 } else { expected };
                    assert!((f64::from(*scale) / expected - 1.0).abs() < 1e-4, "{spec}: {scale} is not {expected}");
                }
            }
        }
    }
}

#[test]
fn the_hundredth_percentile_is_the_min_max_range() {
    let x = tensor::<Plain, 2>(&numbers(DIMS[0] * DIMS[1], 42), DIMS);
    for granularity in granularities() {
        for format in [Format::Symmetric, Format::Asymmetric] {
            let spec = spec(granularity, format);
            let scale = |spec: QuantSpec| values(&choose_params(&x, BitWidth::B5, &spec).unwrap().scale());
            assert_eq!(scale(spec.with_range("percentile:100".parse().unwrap())), scale(spec), "{spec}");
        }
    }
}

#[test]
fn the_mse_range_is_never_worse_than_min_max_in_any_block() {
    let x = numbers(DIMS[0] * DIMS[1], 43);
    let input = tensor::<Plain, 2>(&x, DIMS);
    for granularity in granularities() {
        for format in [Format::Symmetric, Format::Asymmetric] {
            for bits in [BitWidth::B2, BitWidth::B3, BitWidth::B4, BitWidth::B8] {
                let spec = spec(granularity, format);
                let errors = |spec: QuantSpec| {
                    let y = fake_quantize(input.clone(), bits, &spec, GradientRule::Identity).unwrap();
                    let errors: Vec<f32> = values(&(y - input.clone())).iter().map(|e| e * e).collect();
                    sharing(&errors, [1, DIMS[0], DIMS[1]], granularity)
                };
                let (mse, min_max) = (errors(spec.with_range(RangeEstimator::Mse)), errors(spec));
                for (mse, min_max) in mse.values().zip(min_max.values()) {
                    let (mse, min_max) = (mse.iter().sum::<f32>(), min_max.iter().sum::<f32>());
                    assert!(mse <= min_max * 1.00001, "{spec} {bits} bits: {mse} is above {min_max}");
                }
            }
        }
    }
}

#[test]
fn the_mse_range_comes_close_to_the_best_of_ten_thousand() {
    let x = numbers(2000, 44);
    for bits in [BitWidth::B2, BitWidth::B3, BitWidth::B4] {
        let input = tensor::<Plain, 2>(&x, [2000, 1]);
        let spec = QuantSpec::default().with_range(RangeEstimator::Mse);
        let y = fake_quantize(input.clone(), bits, &spec, GradientRule::Identity).unwrap();
        let found = Distortion::between(&input, &y).mse;

        let levels = Format::Symmetric.levels(bits).unwrap();
        let largest = x.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let mse_at = |scale: f32| {
            let error = |x: f32| f64::from(level(x, (scale, None), levels) * scale - x).powi(2);
            x.iter().map(|&x| error(x)).sum::<f64>() / x.len() as f64
        };
        let scales = (1..=10_000).map(|step| largest / levels.high as f32 * step as f32 / 10_000.0);
        let best = scales.map(mse_at).fold(f64::INFINITY, f64::min);
        assert!(found <= best * 1.03, "{bits} bits: {found} against {best}");
    }
}

#[test]
fn clipping_an_outlier_pays_at_few_bits() {
    let mut x = numbers(1000, 45);
    x[17] = 100.0;
    let input = tensor::<Plain, 2>(&x, [1000, 1]);
    let rest_error = |range: &str| {
        let spec = QuantSpec::default().with_range(range.parse().unwrap());
        let y = fake_quantize(input.clone(), BitWidth::B4, &spec, GradientRule::Identity).unwrap();
        let errors = values(&(y - input.clone()));
        errors.iter().enumerate().filter(|(index, _)| *index != 17).map(|(_, e)| e * e).sum::<f32>()
    };
    assert!(rest_error("percentile:99.5") * 10.0 < rest_error("min-max"));
}
