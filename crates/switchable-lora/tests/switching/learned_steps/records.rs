//! Steps as parameters, and in records.

use super::*;
use crate::support::Paths;

#[test]
fn steps_are_parameters_with_a_path_that_are_told_apart() {
    skip_without_device!();
    let mut layer = plain_layer(&QuantizedCache::default());
    layer.insert_adapter(BitWidth::B8, pair(BitWidth::B8)).unwrap();
    let mut paths = Paths::default();
    layer.visit(&mut paths);
    let steps: Vec<_> = paths.found.iter().filter(|(path, _)| path.contains("step")).collect();
    let names: Vec<_> = steps.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, [0, 1, 2].map(|pair| format!("bank.pairs.{pair}.step.values.step")));
    assert_eq!(learned_step_ids::<Plain, _>(&layer), steps.iter().map(|(_, id)| *id).collect());
    assert!(layer.to_string().contains("LearnedStep"));
}

#[test]
fn records_carry_steps_and_they_are_trained_afterwards() {
    skip_without_device!();
    let layer = layer::<Tracked>(LinearSettings::default(), &QuantizedCache::default());
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = recorder.record(layer.clone().into_record(), ()).unwrap();
    let record = recorder.load(bytes, &device()).unwrap();
    let mut blank = layer.clone();
    for width in WIDTHS {
        let one = LearnedStep::from_steps(Tensor::ones([1, 1], &device()), width, Granularity::PerTensor);
        blank.insert_adapter(width, pair(width).with_step(one.unwrap())).unwrap();
    }
    assert_ne!(values(&blank.forward(x(), &AT_2)), values(&layer.forward(x(), &AT_2)));
    let loaded = blank.load_record(record);
    for width in WIDTHS {
        let precision = SitePrecision::uniform(width);
        let y = loaded.forward(x(), &precision);
        assert_eq!(values(&y), values(&layer.forward(x(), &precision)), "{width} bits");
        let gradients = y.square().sum().backward();
        assert!(at(&loaded, width).step().unwrap().step.grad(&gradients).is_some(), "{width} bits");
    }
}

/// An adapter as it was recorded before there were learned steps.
#[derive(Module, Debug)]
struct PairWithoutField<B: Backend> {
    a: Param<Tensor<B, 2>>,
    b: Param<Tensor<B, 2>>,
    alpha: f64,
}

#[derive(Module, Debug)]
struct BankWithoutField<B: Backend> {
    pairs: Vec<PairWithoutField<B>>,
    widths: Vec<BitWidth>,
}

#[test]
fn records_without_the_field_load_as_adapters_without_steps() {
    skip_without_device!();
    let old = pair::<Plain>(BitWidth::B4);
    let field = PairWithoutField { a: old.a.clone(), b: old.b.clone(), alpha: old.alpha() };
    let bank = BankWithoutField { pairs: vec![field], widths: vec![BitWidth::B4] };
    let recorder = NamedMpkBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = Recorder::<Plain>::record(&recorder, bank.into_record(), ()).unwrap();
    let mut fresh = LoraBank::<Plain>::new();
    let rank = old.rank();
    let zeros = |dims: [usize; 2]| Tensor::<Plain, 2>::zeros(dims, &device());
    let blank = LoraAdapterPair::from_factors(zeros([D_IN, rank]), zeros([rank, D_OUT]), old.alpha()).unwrap();
    fresh.insert(BitWidth::B4, blank);
    let record = Recorder::<Plain>::load(&recorder, bytes, &device()).unwrap();
    let loaded = fresh.load_record(record);
    let got = loaded.get(BitWidth::B4).unwrap();
    assert_eq!((values(&got.a.val()), values(&got.b.val())), (values(&old.a.val()), values(&old.b.val())));
    assert!(got.step().is_none());
}
