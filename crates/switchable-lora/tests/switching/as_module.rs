//! The layer as a burn module: validation copies, records, paths and moves.

use burn::{
    module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId},
    record::{BinBytesRecorder, FullPrecisionSettings, Recorder},
    tensor::{Tensor, backend::Backend},
};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    quantized_cache::QuantizedCache,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

use crate::support::{
    D_IN, D_OUT, Plain, Tracked, WIDTHS, device, layer, merged, pair, precisions, skip_without_device, tensor, values,
};

#[test]
fn the_validation_copy_gives_the_same_bits() {
    skip_without_device!();
    for settings in [LinearSettings::default(), merged()] {
        for base in [BasePolicy::Frozen, BasePolicy::Trainable] {
            let tracked = layer::<Tracked>(LinearSettings { base, ..settings }, &QuantizedCache::default());
            let valid: SwitchableLinear<Plain> = tracked.valid();
            for precision in precisions() {
                let a = tracked.forward(tensor::<Tracked, 2>([4, D_IN], 5), &precision);
                let b = valid.forward(tensor::<Plain, 2>([4, D_IN], 5), &precision);
                assert_eq!(values(&a), values(&b), "{settings:?} {precision:?}");
            }
        }
    }
}

#[test]
fn a_layer_moved_to_autodiff_trains_what_its_policy_says() {
    skip_without_device!();
    for (base, trained) in [(BasePolicy::Frozen, false), (BasePolicy::Trainable, true)] {
        let plain = layer::<Plain>(LinearSettings { base, ..LinearSettings::default() }, &QuantizedCache::default());
        let tracked = plain.train::<Tracked>();
        let output = tracked.forward(tensor::<Tracked, 2>([4, D_IN], 5).require_grad(), &SitePrecision::FULL);
        let gradients = output.sum().backward();
        assert_eq!(tracked.weight().grad(&gradients).is_some(), trained, "{base:?}");
    }
}

#[derive(Default)]
struct Paths {
    path: Vec<String>,
    found: Vec<(String, ParamId)>,
}

impl<B: Backend> ModuleVisitor<B> for Paths {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.found.push((self.path.join("."), param.id));
    }
}

#[test]
fn every_parameter_is_visited_under_its_path() {
    skip_without_device!();
    let mut layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    for width in [BitWidth::B8, BitWidth::FULL] {
        layer.remove_adapter(width);
    }
    let mut paths = Paths::default();
    layer.visit(&mut paths);
    let names: Vec<_> = paths.found.iter().map(|(path, _)| path.as_str()).collect();
    let pairs = ["bank.pairs.0.a", "bank.pairs.0.b", "bank.pairs.1.a", "bank.pairs.1.b"];
    assert_eq!(names, [&["base.weight", "base.bias"][..], &pairs[..]].concat());
    assert_eq!(paths.found[0].1, layer.weight_param().unwrap().id);
    assert_eq!(Some(paths.found[1].1), layer.bias_param().map(|bias| bias.id));

    let rank = |width| pair::<Plain>(width).rank();
    let adapters = (rank(BitWidth::B2) + rank(BitWidth::B4)) * (D_IN + D_OUT);
    assert_eq!(layer.num_params(), D_IN * D_OUT + D_OUT + adapters);
}

#[test]
fn records_carry_weights_and_adapters() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let recorder = BinBytesRecorder::<FullPrecisionSettings>::new();
    let bytes = recorder.record(layer.clone().into_record(), ()).unwrap();
    let record = recorder.load(bytes, &device()).unwrap();

    let zeros = Tensor::zeros([D_IN, D_OUT], &device());
    let bias = Some(Tensor::zeros([D_OUT], &device()));
    let mut blank = SwitchableLinear::<Plain>::new(zeros, bias, LinearSettings::default(), &QuantizedCache::default());
    for width in WIDTHS {
        let zero = |factor: Tensor<Plain, 2>| factor * 0.0;
        let pair = pair::<Plain>(width);
        let (a, b) = (zero(pair.a.val()), zero(pair.b.val()));
        let pair = switchable_lora::LoraAdapterPair::from_factors(a, b, pair.alpha()).unwrap();
        blank.insert_adapter(width, pair).unwrap();
    }
    let loaded = blank.load_record(record);
    let x = tensor::<Plain, 2>([4, D_IN], 5);
    for precision in precisions() {
        let (got, expected) = (loaded.forward(x.clone(), &precision), layer.forward(x.clone(), &precision));
        assert_eq!(values(&got), values(&expected), "{precision:?}");
    }
}

#[test]
fn a_loaded_record_keeps_the_policy() {
    skip_without_device!();
    for (base, trained) in [(BasePolicy::Frozen, false), (BasePolicy::Trainable, true)] {
        let settings = LinearSettings { base, ..LinearSettings::default() };
        let layer = layer::<Tracked>(settings, &QuantizedCache::default());
        let loaded = layer.clone().load_record(layer.into_record());
        assert_eq!(loaded.weight().is_require_grad(), trained, "{base:?}");
        assert_eq!(loaded.bias().unwrap().is_require_grad(), trained, "{base:?}");
        assert!(loaded.bank().iter().all(|(_, pair)| pair.a.val().is_require_grad()), "{base:?}");
    }
}

#[test]
fn moving_to_a_device_keeps_the_values() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let device = device();
    let x = tensor::<Plain, 2>([4, D_IN], 5);
    let expected = values(&layer.forward(x.clone(), &SitePrecision::uniform(BitWidth::B4)));
    assert_eq!(layer.devices(), [crate::support::device()]);
    for moved in [layer.clone().to_device(&device), layer.fork(&device)] {
        assert_eq!(values(&moved.forward(x.clone(), &SitePrecision::uniform(BitWidth::B4))), expected);
    }
}

#[test]
fn the_printed_layer_names_its_parts() {
    skip_without_device!();
    let layer = layer::<Plain>(LinearSettings::default(), &QuantizedCache::default());
    let text = layer.to_string();
    for part in ["SwitchableLinear", "BaseWeights", "Frozen", "[12, 7]", "Residual"] {
        assert!(text.contains(part), "`{part}` is not in {text}");
    }
}
