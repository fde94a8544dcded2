//! Properties that hold for random tensors.

use proptest::prelude::*;

use quant_kernels::{
    spec::{
        bit_width::BitWidth,
        formats::format::Format,
        gradient_rule::GradientRule,
        granularity::Granularity,
        quant_spec::{self, QuantSpec},
        range_estimator::{Percentile, RangeEstimator},
    },
    tensor::{
        fake_quantize::fake_quantize,
        params::choose_params,
        quantize::{dequantize, quantize},
    },
};

use crate::{
    scalar_reference::scale_index,
    support::{Plain, spec, tensor, values},
};

#[derive(Debug, Clone)]
struct Case {
    x: Vec<f32>,
    dims: [usize; 2],
    bits: BitWidth,
    granularity: Granularity,
}

fn finite() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -2.0f32..2.0,
        1 => Just(0.0f32),
        1 => -1e30f32..1e30,
        1 => -1e-30f32..1e-30,
    ]
}

fn granularity() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        Just(Granularity::PerChannel),
        Just(Granularity::PerToken),
        (1usize..12).prop_map(|rows| Granularity::per_group(rows).expect("groups are not empty")),
    ]
}

fn case(lowest_bits: u8) -> impl Strategy<Value = Case> {
    let width = (lowest_bits..=16).prop_map(|bits| BitWidth::new(bits).expect("the range is valid"));
    (1usize..12, 1usize..12, width, granularity()).prop_flat_map(|(rows, columns, bits, granularity)| {
        let values = proptest::collection::vec(finite(), rows * columns);
        values.prop_map(move |x| Case { x, dims: [rows, columns], bits, granularity })
    })
}

fn any_spec() -> impl Strategy<Value = QuantSpec> {
    let granularity = prop_oneof![
        Just(Granularity::PerTensor),
        Just(Granularity::PerChannel),
        Just(Granularity::PerToken),
        (1usize..=usize::MAX).prop_map(|rows| Granularity::per_group(rows).expect("groups are not empty")),
    ];
    let format = prop_oneof![Just(Format::Symmetric), Just(Format::Asymmetric), Just(Format::Nf4)];
    // Percentiles are kept to a ten-thousandth of a percent.
    let percentile = (500_001u32..=1_000_000).prop_map(|steps| f64::from(steps) / 10_000.0);
    let range = prop_oneof![
        Just(RangeEstimator::MinMax),
        Just(RangeEstimator::Mse),
        percentile.prop_map(|percent| RangeEstimator::Percentile(Percentile::new(percent).expect("it is in range"))),
    ];
    (granularity, format, range).prop_map(|(granularity, format, range)| QuantSpec { granularity, format, range })
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Named {
    #[serde(with = "quant_spec::text")]
    weight: QuantSpec,
    #[serde(default, with = "quant_spec::optional_text")]
    activation: Option<QuantSpec>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_text_of_a_quantiser_is_read_back_as_the_same(spec in any_spec(), is_said in any::<bool>()) {
        let text = spec.to_string();
        prop_assert_eq!(text.parse::<QuantSpec>().expect("its own text"), spec);
        let named = Named { weight: spec, activation: is_said.then_some(spec) };
        let json = serde_json::to_string(&named).expect("text is JSON");
        prop_assert_eq!(json.matches(&text).count(), 1 + usize::from(is_said));
        prop_assert_eq!(serde_json::from_str::<Named>(&json).expect("its own JSON"), named);
    }
}

impl Case {
    fn block(&self, index: usize) -> usize {
        scale_index(self.granularity, [1, self.dims[0], self.dims[1]], index)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn symmetric_errors_are_at_most_half_a_step(case in case(2)) {
        let input = tensor::<Plain, 2>(&case.x, case.dims);
        let params = choose_params(&input, case.bits, &spec(case.granularity, Format::Symmetric)).unwrap();
        let y = values(&dequantize(quantize(input, &params), &params));
        let scales = values(&params.scale());
        for (index, (&x, &y)) in case.x.iter().zip(&y).enumerate() {
            let step = f64::from(scales[case.block(index)]);
            // The division, and the product back, round once each.
            let rounding = f64::from(x.abs()) * 3.0 * f64::from(f32::EPSILON);
            prop_assert!((f64::from(x) - f64::from(y)).abs() <= step / 2.0 + rounding, "{x} became {y}, step {step}");
        }
    }

    #[test]
    fn asymmetric_errors_are_at_most_one_step(case in case(1)) {
        // Half a step of the value, and half a step of the zero point where the range ends.
        let input = tensor::<Plain, 2>(&case.x, case.dims);
        let params = choose_params(&input, case.bits, &spec(case.granularity, Format::Asymmetric)).unwrap();
        let y = values(&dequantize(quantize(input, &params), &params));
        let scales = values(&params.scale());
        for (index, (&x, &y)) in case.x.iter().zip(&y).enumerate() {
            let step = f64::from(scales[case.block(index)]);
            let rounding = f64::from(x.abs()) * 3.0 * f64::from(f32::EPSILON);
            prop_assert!((f64::from(x) - f64::from(y)).abs() <= step * 1.001 + rounding, "{x} became {y}, step {step}");
        }
    }

    #[test]
    fn quantising_twice_gives_the_same_levels(case in case(2)) {
        let spec = spec(case.granularity, Format::Symmetric);
        let input = tensor::<Plain, 2>(&case.x, case.dims);
        let first = choose_params(&input, case.bits, &spec).unwrap();
        let once = quantize(input, &first);
        let restored = dequantize(once.clone(), &first);
        let second = choose_params(&restored, case.bits, &spec).unwrap();
        let twice = quantize(restored.clone(), &second);
        // −0 and 0 are the same level.
        prop_assert!(values(&once) == values(&twice), "{:?} became {:?}", values(&once), values(&twice));
        let again = values(&dequantize(twice, &second));
        for (again, once) in again.iter().zip(values(&restored)) {
            prop_assert!((again - once).abs() <= once.abs() * 3e-7, "{once} became {again}");
        }
    }

    #[test]
    fn symmetric_quantisation_is_odd(case in case(2)) {
        let spec = spec(case.granularity, Format::Symmetric);
        let fake = |x: &[f32]| {
            let input = tensor::<Plain, 2>(x, case.dims);
            values(&fake_quantize(input, case.bits, &spec, GradientRule::Identity).unwrap())
        };
        let negated: Vec<f32> = case.x.iter().map(|x| -x).collect();
        let mirrored: Vec<f32> = fake(&negated).iter().map(|y| -y).collect();
        prop_assert_eq!(fake(&case.x), mirrored);
    }

    #[test]
    fn zero_stays_zero_and_order_is_kept(case in case(2)) {
        for format in [Format::Symmetric, Format::Asymmetric] {
            let input = tensor::<Plain, 2>(&case.x, case.dims);
            let y = fake_quantize(input, case.bits, &spec(case.granularity, format), GradientRule::Identity).unwrap();
            let y = values(&y);
            for i in 0..y.len() {
                prop_assert!(case.x[i] != 0.0 || y[i] == 0.0, "0 became {}", y[i]);
                for j in 0..y.len() {
                    let ordered = case.x[i] > case.x[j] || y[i] <= y[j];
                    prop_assert!(case.block(i) != case.block(j) || ordered, "{:?} became {:?}", case.x, y);
                }
            }
        }
    }

    #[test]
    fn levels_are_integers_within_their_range(case in case(1)) {
        for format in [Format::Symmetric, Format::Asymmetric] {
            let Ok(range) = format.levels(case.bits) else { continue };
            let input = tensor::<Plain, 2>(&case.x, case.dims);
            let params = choose_params(&input, case.bits, &spec(case.granularity, format)).unwrap();
            for q in values(&quantize(input, &params)) {
                prop_assert!(q.fract() == 0.0 && q >= range.low as f32 && q <= range.high as f32, "level {q}");
            }
        }
    }
}
