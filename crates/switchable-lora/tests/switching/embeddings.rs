//! Embeddings at any width, from codes and from floats.

use burn::{
    module::{AutodiffModule as _, Module as _},
    tensor::{Int, Tensor},
};

use quant_kernels::{packed::scales::ScaleFormat, spec::bit_width::BitWidth};
use switchable_lora::{
    linear_settings::Execution,
    packed_weights::PackedWeights,
    quantized_cache::QuantizedCache,
    site_precision::{SitePrecision, SiteRounding},
    switchable_embedding::SwitchableEmbedding,
};

use crate::support::{Plain, Tracked, assert_close, device, skip_without_device, tensor, values};

const ROWS: usize = 37;
const WIDTH: usize = 70;

fn at(bits: u8) -> SitePrecision {
    SitePrecision::FULL.with_weights(BitWidth::new(bits).expect("a width"))
}

fn embedding(execution: Execution) -> SwitchableEmbedding<Plain> {
    SwitchableEmbedding::new(tensor([ROWS, WIDTH], 3), &QuantizedCache::default()).with_execution(execution)
}

fn ids(ids: &[i32]) -> Tensor<Plain, 1, Int> {
    Tensor::from_ints(ids, &device())
}

#[test]
fn rows_and_scores_from_codes_are_those_of_rounded_floats() {
    skip_without_device!();
    let [fake, packed] = [Execution::FakeQuantized, Execution::Packed].map(embedding);
    let hidden = tensor::<Plain, 2>([3, WIDTH], 5);
    for spec in ["per-channel", "per-tensor", "per-group:32,asymmetric", "per-channel,symmetric,mse"] {
        for bits in [2, 3, 4, 5, 6, 7, 8, 12, 16, 32] {
            let spec = spec.parse().expect("a quantiser");
            let precision = at(bits).with_quantizer(spec);
            let only = (bits <= 8).then(|| {
                let codes = fake.pack(&precision, ScaleFormat::F32).expect("it packs");
                SwitchableEmbedding::from_packed(PackedWeights::Fixed(codes), &QuantizedCache::default(), &device())
            });
            for other in only.iter().chain([&packed]) {
                let what = format!("{spec} {bits}");
                other.check(&precision).expect("it can");
                let wanted = [36, 0, 16, 15, 0];
                assert_eq!(
                    values(&other.rows(ids(&wanted), &precision)),
                    values(&fake.rows(ids(&wanted), &precision)),
                    "{what}"
                );
                assert_eq!(values(&other.range(30, 7, &precision)), values(&fake.range(30, 7, &precision)), "{what}");
                for activations in [BitWidth::FULL, BitWidth::B8] {
                    let precision = precision.with_activations(activations);
                    let (got, expected) =
                        (other.scores(hidden.clone(), &precision), fake.scores(hidden.clone(), &precision));
                    assert_close(&values(&got), &values(&expected), 2e-5, &what);
                }
            }
        }
    }
    assert_eq!(packed.rows(ids(&[]), &at(4)).dims(), [0, WIDTH]);
}

#[test]
fn forms_that_are_kept_follow_the_values() {
    skip_without_device!();
    for execution in [Execution::FakeQuantized, Execution::Packed] {
        let before = embedding(execution);
        let first = values(&before.rows(ids(&[1]), &at(4)));
        let doubled = before.clone().map_values(|table| table * 2.0);
        let expected: Vec<f32> = first.iter().map(|value| value * 2.0).collect();
        assert_eq!(values(&doubled.rows(ids(&[1]), &at(4))), expected);
        assert_eq!(values(&before.rows(ids(&[1]), &at(4))), first);
        let loaded = before.clone().load_record(doubled.clone().into_record());
        assert_eq!(values(&loaded.rows(ids(&[1]), &at(4))), expected);
    }
}

#[test]
fn gradients_pass_through_the_rounding_of_a_trained_table() {
    skip_without_device!();
    let table = SwitchableEmbedding::<Tracked>::new(tensor([ROWS, WIDTH], 3), &QuantizedCache::default())
        .set_require_grad(true)
        .with_execution(Execution::Packed);
    let ids = Tensor::<Tracked, 1, Int>::from_ints([2, 2], &device());
    let gradients = table.rows(ids, &at(4)).sum().backward();
    let gradient = table.param().expect("floats").val().grad(&gradients).expect("it is looked up");
    let rows: Vec<f32> = values(&gradient.sum_dim(1));
    assert!((rows[2] - 2.0 * WIDTH as f32).abs() < 1e-3 && rows[3].abs() < 1e-6, "{rows:?}");
    assert_eq!(values(&table.valid().rows(self::ids(&[5]), &at(4))).len(), WIDTH);
}

#[test]
fn a_rounding_that_is_not_done_is_refused_by_name() {
    skip_without_device!();
    for float in [embedding(Execution::Packed), embedding(Execution::FakeQuantized)] {
        for rounding in [SiteRounding::Gptq, SiteRounding::Hqq, SiteRounding::Nested] {
            let precision = SitePrecision { rounding: Some(rounding), ..at(4) };
            let message = float.check(&precision).expect_err("it is not done").to_string();
            assert!(message.contains(&format!("got `{rounding}`")), "{message}");
        }
        float.check(&SitePrecision { rounding: Some(SiteRounding::Nearest), ..at(4) }).expect("it is done");
    }
}

#[test]
fn what_codes_cannot_be_is_refused() {
    skip_without_device!();
    let float = embedding(Execution::Packed);
    let codes = float.pack(&at(6), ScaleFormat::F16).expect("it packs");
    let packed = float.clone().with_packed(PackedWeights::Fixed(codes));
    assert!(packed.param().is_none());
    assert_eq!(packed.own_precision(), at(6));
    packed.check(&at(6)).expect("its own width");
    for bits in [4, 8, 32] {
        let message = packed.check(&at(bits)).expect_err("another width").to_string();
        assert!(message.contains("available: 6"), "{message}");
    }
    let other = at(6).with_quantizer("per-tensor".parse().expect("a quantiser"));
    assert!(packed.check(&other).is_err());
    assert!(float.check(&SitePrecision::uniform(BitWidth::B8)).is_err(), "an adapter");
    assert!(float.check(&at(1)).is_err(), "one symmetric bit");
}
