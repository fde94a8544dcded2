//! Banks whose weights have learned steps: what they learn, how they go on, what they cost.

use burn::module::AutodiffModule as _;
use serde_json::json;

use experiments::banks::bank::{BankConfig, BankOverrides, RegimeOfBank, train_bank, train_bank_with, train_base};
use experiments::banks::regime_comparison::{Contestant, Entry, run_contestant};
use experiments::running::memory::Memory;
use experiments::train::regimes::Regime;
use experiments::train::regimes::config::{RegimeConfig, RegimeKind};
use experiments::train::trainer::TrainRun;
use experiments::workbench::{RunSettings, Workbench};
use gpt2_model::{Gpt2Config, Gpt2ForQuestionAnswering};
use quant_kernels::{packed::scales::ScaleFormat, spec::bit_width::BitWidth, tensor::rounding::Rounding};
use span_reader::choice::fingerprint::ModelFingerprint;
use span_reader::cost::{Cost, plan_bytes};
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use span_reader::running::stop::StopFlag;
use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    lora_config::{LoraConfig, LoraInit, WeightScales},
    packed_weights::PackedWeights,
    site_precision::SitePrecision,
};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::packed::form::{PackOptions, PackedForm};

use crate::support::{
    Plain, Training, device, model, quiet, skip_without_device, study_data, task, train_config, training, weights,
};

const LOFTQ: LoraInit = LoraInit::LoftQ { iterations: 3 };

/// Adapters whose scales are learned.
fn learned() -> LoraConfig {
    LoraConfig::new(2, 4.0).expect("valid input").with_scales(WeightScales::Learned)
}

fn bank(widths: &[BitWidth], learned_steps: bool) -> BankConfig {
    let lora = LoraConfig::new(2, 4.0).expect("valid input");
    BankConfig { learned_steps, ..BankConfig::new(widths, lora, 3) }
}

/// All learned steps of a model at a width, site by site.
fn steps(model: &Gpt2ForQuestionAnswering<Training>, width: BitWidth) -> Vec<Vec<f32>> {
    let of_site = |site| {
        let step = model.transformer.site(site).bank().get(width)?.step()?;
        Some(step.step.val().into_data().convert::<f32>().into_vec().expect("converted to f32"))
    };
    model.config().sites().iter().filter_map(of_site).collect()
}

fn loss(model: &Gpt2ForQuestionAnswering<Training>, task: &ReadingTask, width: BitWidth) -> f64 {
    let plain = model.valid();
    let evaluator = Evaluator::new(&plain, task, EvaluateOptions::default(), &device()).expect("valid input");
    let plan = plain.transformer.uniform_plan(SitePrecision::uniform(width));
    evaluator.evaluate(&plan).expect("valid input").loss.expect("a span loss")
}

fn start(config: &Gpt2Config) -> Gpt2ForQuestionAnswering<Training> {
    model::<Training>(config, BasePolicy::Trainable)
}

#[test]
fn at_two_bits_a_bank_learns_more_with_learned_steps() {
    skip_without_device!();
    let (_, config, task) = task(4);
    // A base that knows something, which 2 bits take from it.
    let (base, _) = train_base(start(&config), &task, training(&train_config(150), &quiet(2))).unwrap();
    let trained = |learned_steps, init| {
        let bank = bank(&[BitWidth::B2], learned_steps).overridden(&BankOverrides { init, ..BankOverrides::default() });
        train_bank(base.clone(), &task, &bank, training(&train_config(20), &quiet(2))).expect("valid input").0
    };
    let by_range = loss(&trained(false, None), &task, BitWidth::B2);
    let learned = trained(true, None);
    let by_step = loss(&learned, &task, BitWidth::B2);
    assert!(by_step < by_range, "{by_step} nats with steps, {by_range} without");

    // Both at once: LoftQ repairs what the step leaves, and the step goes on from there.
    let both = trained(true, Some(LOFTQ));
    let loftq = loss(&trained(false, Some(LOFTQ)), &task, BitWidth::B2);
    let by_both = loss(&both, &task, BitWidth::B2);
    assert!(by_both < loftq, "{by_both} nats with LoftQ and steps, {loftq} with LoftQ");
    for model in [&learned, &both] {
        assert!(steps(model, BitWidth::B2).iter().flatten().all(|&step| step > 0.0));
    }
}

#[test]
fn steps_of_every_quantised_width_move_by_shares_of_their_size_and_the_base_stays() {
    skip_without_device!();
    let (_, config, task) = task(4);
    let widths = [BitWidth::FULL, BitWidth::B16, BitWidth::B8, BitWidth::B2];
    let base = weights(&start(&config));
    let before = {
        let mut model = start(&config);
        for width in &widths[1..] {
            let seed = 3 + u64::from(width.bits());
            model.transformer.init_adapters(*width, &learned(), seed).unwrap();
        }
        model
    };
    let (bank, run) = (bank(&widths, true), quiet(2));
    let (after, _) = train_bank(start(&config), &task, &bank, training(&train_config(8), &run)).unwrap();
    assert_eq!(weights(&after)[..base.len()], base);
    assert!(steps(&after, BitWidth::FULL).is_empty());
    for &width in &widths[1..] {
        let (before, after) = (steps(&before, width), steps(&after, width));
        assert_eq!(before.len(), config.sites().len());
        for (before, after) in before.iter().flatten().zip(after.iter().flatten()) {
            // Two updates of a width, each about the learning rate, at most 5e-3, times the size.
            let change = (after / before - 1.0).abs();
            assert!(change > 1e-5 && change < 0.04, "{width} bits: from {before} to {after}");
        }
    }
}

/// A regime that raises a stop flag when a step's passes are asked for.
struct StopAt(Box<dyn Regime>, usize, StopFlag);

impl Regime for StopAt {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn parameters(&self) -> serde_json::Value {
        self.0.parameters()
    }

    fn branches(&self, step: usize) -> Vec<experiments::train::branch::Branch> {
        if step == self.1 {
            self.2.request();
        }
        self.0.branches(step)
    }
}

#[test]
fn a_run_with_learned_steps_goes_on_exactly_and_its_folder_is_not_that_of_one_without() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let widths = [BitWidth::FULL, BitWidth::B4, BitWidth::B2];
    let bank = bank(&widths, true).overridden(&BankOverrides { init: Some(LOFTQ), ..BankOverrides::default() });
    let train_config = train_config(8);
    let regime = RegimeConfig::default();
    let stop = StopFlag::default();
    let trained = |bank: &BankConfig, run: &TrainRun, stop_at: usize| {
        let build =
            |_: &_, ladder: &experiments::train::ladder::Ladder| -> experiments::error::Result<Box<dyn Regime>> {
                Ok(Box::new(StopAt(regime.build(ladder, 8)?, stop_at, run.stop.clone())))
            };
        train_bank_with(start(&config), &task, &RegimeOfBank::new(bank, &build), training(&train_config, run))
    };
    let (whole, outcome) = trained(&bank, &quiet(2), usize::MAX).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let identity = json!({ "part": "bank" });
    let run = TrainRun { dir: Some(dir.path().into()), identity: identity.into(), ..quiet(2) };
    let stopped = TrainRun { stop, ..run.clone() };
    let error = trained(&bank, &stopped, 4).unwrap_err();
    assert!(matches!(error, experiments::error::Error::Stopped), "{error}");
    let without = BankConfig { learned_steps: false, ..bank.clone() };
    let message = trained(&without, &run, usize::MAX).unwrap_err().to_string();
    assert!(message.contains("option `learned_steps` was true, is false"), "{message}");
    let (resumed, rest) = trained(&bank, &run, usize::MAX).unwrap();
    assert_eq!(rest.first_step, 5);
    assert_eq!(rest.losses, outcome.losses[5..]);
    assert_eq!(weights(&resumed), weights(&whole));
    for width in [BitWidth::B4, BitWidth::B2] {
        assert!(!steps(&whole, width).is_empty());
        assert_eq!(steps(&resumed, width), steps(&whole, width));
    }
}

#[test]
fn quantisers_without_symmetry_cannot_have_learned_steps() {
    skip_without_device!();
    let (_, config, task) = task(2);
    let settings = LinearSettings { weight: "per-tensor,asymmetric".parse().unwrap(), ..LinearSettings::default() };
    let start = start(&config).with_linear_settings(settings);
    let bank = bank(&[BitWidth::B4], true);
    let error = train_bank(start, &task, &bank, training(&train_config(1), &quiet(1))).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn") && error.contains("symmetric"), "{error}");
}

#[test]
fn contestants_change_the_bank_of_their_study() {
    skip_without_device!();
    let (tokenizer, config, task) = task(3);
    let study = bank(&[BitWidth::FULL, BitWidth::B2], false);
    let contestant = |bank| Contestant {
        label: "c".into(),
        regime: RegimeConfig::of(RegimeKind::Static),
        bank,
        // The last step, whose loss is compared, is one at 2 bits.
        steps: 3,
    };
    let base = start(&config);
    let data = study_data([&task, &task, &task], &tokenizer);
    let bench = Workbench::new(&base, data, RunSettings::default(), Memory::Nothing);
    let run = |overrides| {
        let (config, run) = (train_config(3), quiet(1));
        let contestant = contestant(overrides);
        let training = training(&config, &run);
        run_contestant(&bench, Entry { contestant: &contestant, seed: 9, bank: &study, training }).unwrap()
    };
    let all = [None, Some(LOFTQ)].into_iter().flat_map(|init| {
        [None, Some(true)].map(|learned_steps| BankOverrides { init, learned_steps, ..BankOverrides::default() })
    });
    let mut losses = Vec::new();
    for overrides in all {
        let (run, trained) = run(overrides);
        assert_eq!(!steps(&trained, BitWidth::B2).is_empty(), overrides.learned_steps == Some(true), "{overrides:?}");
        assert_eq!(run.contestant.bank, overrides);
        assert!(!losses.contains(&run.final_loss), "{overrides:?} is like another");
        losses.push(run.final_loss);
    }
}

#[test]
fn overrides_are_only_written_where_there_are_any() {
    let contestant = |bank| Contestant { label: "c".into(), regime: RegimeConfig::default(), bank, steps: 1 };
    let unchanged = contestant(BankOverrides::default());
    let plain = serde_json::to_value(&unchanged).unwrap();
    assert!(plain["regime"].get("bank").is_none(), "{plain}");
    assert_eq!(serde_json::from_value::<Contestant>(plain).unwrap(), unchanged);
    for (overrides, expected) in [
        (
            BankOverrides { init: Some(LOFTQ), ..BankOverrides::default() },
            json!({ "init": { "loft-q": { "iterations": 3 } } }),
        ),
        (BankOverrides { learned_steps: Some(true), ..BankOverrides::default() }, json!({ "learned_steps": true })),
    ] {
        let contestant = contestant(overrides);
        let json = serde_json::to_value(&contestant).unwrap();
        assert_eq!(json["regime"]["bank"], expected);
        assert_eq!(serde_json::from_value::<Contestant>(json).unwrap(), contestant);
    }
    let typo = json!({ "label": "c", "regime": { "bank": { "learned_step": true } }, "steps": 1 });
    assert!(serde_json::from_value::<Contestant>(typo).is_err());
}

#[test]
fn a_learned_step_costs_what_the_scale_does_that_it_replaces() {
    skip_without_device!();
    let (_, config, _) = task(1);
    for spec in ["per-tensor", "per-channel", "per-group:8"] {
        let settings = LinearSettings { weight: spec.parse().unwrap(), ..LinearSettings::default() };
        let mut model = model::<Plain>(&config, BasePolicy::Frozen).with_linear_settings(settings);
        let lora = LoraConfig::new(2, 4.0).unwrap();
        let plan = model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B4));
        let bytes = |model: &Gpt2ForQuestionAnswering<Plain>| {
            (Cost::of(&model.transformer, &plan), plan_bytes(&model.transformer, &plan))
        };
        model.transformer.init_adapters(BitWidth::B4, &lora, 1).unwrap();
        let (by_range, fingerprint) = (bytes(&model), ModelFingerprint::of(&model));
        model.transformer.init_adapters(BitWidth::B4, &learned(), 1).unwrap();
        assert_eq!(bytes(&model), by_range, "{spec}");
        assert_ne!(ModelFingerprint::of(&model), fingerprint, "{spec}: the model computes something else");
        // As many values as the scales that are counted.
        let steps: usize = config
            .sites()
            .iter()
            .filter_map(|site| Some(model.transformer.site(site).bank().get(BitWidth::B4)?.step()?.step.dims()))
            .map(|[rows, columns]| rows * columns)
            .sum();
        let weights = config.site_parameters() / 2;
        assert_eq!(by_range.1, weights + steps * size_of::<f32>() + by_range.0.adapters, "{spec}");
    }
}

#[test]
fn nested_codes_have_the_steps_of_a_bank_as_scales() {
    skip_without_device!();
    let (_, config, _) = task(1);
    let mut model = model::<Plain>(&config, BasePolicy::Frozen);
    model.transformer.init_adapters(BitWidth::B4, &learned(), 1).unwrap();
    let nested = model.clone().pack(PackedForm::Nested, &PackOptions::default()).expect("it packs");
    for site in nested.transformer.sites().clone().iter() {
        let layer = nested.transformer.site(site);
        let codes = layer.packed_weights().expect("codes");
        assert!(codes.has_own_scales(BitWidth::B4) && !codes.has_own_scales(BitWidth::B3));
        assert_eq!(codes.bytes() - codes.stored().bytes(), codes.stored().scales().len() * size_of::<f32>());
        let step = layer.bank().get(BitWidth::B4).and_then(|pair| pair.step()).expect("a step");
        let weight = model.transformer.site(site).weight();
        let expected = Rounding::Step(step).pack(&weight, ScaleFormat::F32).expect("it packs").scales();
        assert_eq!(codes.at(BitWidth::B4).expect("a width").dequantize().len(), weight.shape().num_elements());
        let PackedWeights::Nested(codes) = codes else { panic!("they are nested") };
        assert_eq!(codes.scales(BitWidth::B4).expect("a width").0, expected);
    }
    // Both are told apart from codes that are cut, and from those of another step.
    let mut bare = model.clone();
    bare.drop_adapters();
    let cut = bare.pack(PackedForm::Nested, &PackOptions::default()).expect("it packs");
    assert_ne!(ModelFingerprint::of(&nested), ModelFingerprint::of(&cut));
    let mut alone = nested.clone();
    alone.drop_adapters();
    assert_ne!(ModelFingerprint::of(&alone), ModelFingerprint::of(&cut), "the scales of 4 bits are left out");
}
