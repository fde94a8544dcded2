//! What the training of a bank changes, what its widths share, and what it leaves as it was.

use burn::module::AutodiffModule as _;

use experiments::banks::bank::{BankConfig, Init, RegimeOfBank, Trains, train_bank, train_bank_with};
use experiments::banks::sharing::Sharing;
use experiments::train::config::TrainConfig;
use experiments::train::ladder::Ladder;
use experiments::train::regimes::Regime;
use experiments::train::regimes::in_turn::Static;
use experiments::train::regimes::single::Single;
use experiments::train::span_task::SpanTask;
use experiments::train::trainer::{TrainRun, train};
use quant_kernels::spec::{bit_width::BitWidth, rounding_method::RoundingMethod};
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    lora_config::LoraConfig,
    site_precision::SitePrecision,
};
use switchable_model::adapters::AdapterFolders as _;
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::packed::PackModel as _;
use switchable_model::packed::form::{PackOptions, PackedForm};

use crate::support::{
    Plain, StopAfter, Training, device, model, quiet, skip_without_device, task, train_config, training, weights,
};

#[test]
fn a_bank_is_trained_and_the_base_stays() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let start = model::<Training>(&config, BasePolicy::Trainable);
    let base = weights(&start);
    let widths = [BitWidth::FULL, BitWidth::B4, BitWidth::B2];
    let bank = BankConfig::new(&widths, LoraConfig::new(2, 4.0).unwrap(), 3);
    // Two steps: the adapter of the third width is not reached.
    let (trained, _) = train_bank(start, &task, &bank, training(&train_config(2), &quiet(2))).unwrap();
    assert_eq!(weights(&trained)[..base.len()], base);
    for site in config.sites().iter() {
        for (width, pair) in trained.transformer.site(site).bank().iter() {
            let b = pair.b.val().into_data().convert::<f32>().into_vec::<f32>().unwrap();
            let moved = b.iter().any(|v| *v != 0.0);
            assert_eq!(moved, width != BitWidth::B2, "{site:?} at {width} bits");
        }
    }
}

/// Values of what a bank may train: base with its head, and of each width the two factors of all adapters and
/// the learned steps.
fn trained_parts(model: &gpt2_model::Gpt2ForQuestionAnswering<Training>) -> (Vec<(String, Vec<f32>)>, WidthParts) {
    let base = model.named_parameters().iter().map(|(name, parameter)| (name.clone(), parameter.values())).collect();
    let values = |tensor: burn::tensor::Tensor<Training, 2>| {
        tensor.into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32")
    };
    let mut of_widths = WidthParts::new();
    for site in model.config().sites().iter() {
        for (width, pair) in model.transformer.site(site).bank().iter() {
            let part = of_widths.entry(width).or_default();
            part.extend(values(pair.a.val()));
            part.extend(values(pair.b.val()));
            part.extend(pair.step().into_iter().flat_map(|step| values(step.step.val())));
        }
    }
    (base, of_widths)
}

type WidthParts = std::collections::BTreeMap<BitWidth, Vec<f32>>;

/// Names of parameters whose values are others than before.
fn moved(before: &[(String, Vec<f32>)], after: &[(String, Vec<f32>)]) -> Vec<String> {
    assert_eq!(before.len(), after.len());
    before.iter().zip(after).filter(|(a, b)| a.1 != b.1).map(|(a, _)| a.0.clone()).collect()
}

#[test]
fn each_choice_of_what_is_trained_changes_that_and_nothing_else() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let widths = [BitWidth::FULL, BitWidth::B4, BitWidth::B2];
    // Without decay a parameter moves by its gradient alone.
    let config_of = TrainConfig { weight_decay: 0.0, ..train_config(2) };
    for trains in [Trains::Bank, Trains::Base, Trains::Both] {
        for policy in [BasePolicy::Frozen, BasePolicy::Trainable] {
            let start = model::<Training>(&config, policy);
            let bank = BankConfig { trains, ..BankConfig::new(&widths, LoraConfig::new(2, 4.0).unwrap(), 3) };
            let (before, _) = trained_parts(&start);
            // Two steps: 32 and 4 bits; the third width is not reached.
            let (trained, _) = train_bank(start.clone(), &task, &bank, training(&config_of, &quiet(1))).unwrap();
            let (after, adapters) = trained_parts(&trained);
            let (base, all) = (moved(&before, &after), before.len());
            let expected = if trains == Trains::Bank { 0 } else { all };
            assert_eq!(base.len(), expected, "{trains:?} of a base that was {policy:?}: {base:?}");
            let begun = adapters_at_the_start(&start, &bank);
            let changed: Vec<BitWidth> =
                adapters.iter().filter(|(width, values)| begun[width] != **values).map(|(width, _)| *width).collect();
            let bits: &[BitWidth] = if trains == Trains::Base { &[] } else { &[BitWidth::B4, BitWidth::FULL] };
            assert_eq!(changed, bits, "{trains:?}");
            assert_eq!(adapters.is_empty(), trains == Trains::Base, "a base alone gets no adapters");
        }
    }
}

/// The adapters that a bank starts from: those that a run of no step ends with.
fn adapters_at_the_start(start: &gpt2_model::Gpt2ForQuestionAnswering<Training>, bank: &BankConfig) -> WidthParts {
    let mut model = start.clone();
    for (width, lora) in &bank.adapters {
        model.transformer.init_adapters(*width, lora, bank.seed + u64::from(width.bits())).expect("it fits");
    }
    trained_parts(&model).1
}

#[test]
fn what_is_trained_beside_or_instead_of_a_bank_learns_and_quantises_what_it_trains() {
    skip_without_device!();
    let (_, config, task) = task(4);
    let widths = [BitWidth::FULL, BitWidth::B4];
    for trains in [Trains::Base, Trains::Both] {
        let bank = BankConfig { trains, ..BankConfig::new(&widths, LoraConfig::new(2, 4.0).unwrap(), 3) };
        let start = model::<Training>(&config, BasePolicy::Frozen);
        let (trained, _) = train_bank(start.clone(), &task, &bank, training(&train_config(120), &quiet(2))).unwrap();
        let loss = |model: &gpt2_model::Gpt2ForQuestionAnswering<Plain>, precision| {
            let evaluator = Evaluator::new(model, &task, EvaluateOptions::default(), &device()).unwrap();
            evaluator.evaluate(&model.transformer.uniform_plan(precision)).unwrap().loss.unwrap()
        };
        for width in widths {
            let precision = bank.precision(width);
            assert_eq!(precision.adapter.is_some(), trains == Trains::Both);
            let before = loss(&start.valid(), precision.without_adapter());
            let after = loss(&trained.valid(), precision);
            assert!(after < 0.6 * before, "{trains:?} at {width} bits: {before} nats before, {after} after");
        }
    }
}

#[test]
fn a_run_that_trains_the_base_goes_on_to_the_same_weights() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let widths = [BitWidth::FULL, BitWidth::B4, BitWidth::B2];
    for trains in [Trains::Base, Trains::Both] {
        let learned_steps = trains == Trains::Both;
        let bank = BankConfig::new(&widths, LoraConfig::new(2, 4.0).unwrap(), 3);
        let bank = BankConfig { trains, learned_steps, ..bank };
        let start = || model::<Training>(&config, BasePolicy::Frozen);
        let (whole, outcome) = train_bank(start(), &task, &bank, training(&train_config(8), &quiet(1))).unwrap();

        let dir = tempfile::tempdir().unwrap();
        let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
        let stopping = StopAfter::new(4);
        let stopped = TrainRun { stop: stopping.flag.clone(), ..run.clone() };
        let build = |model: &gpt2_model::Gpt2ForQuestionAnswering<Training>, _: &Ladder| {
            let plans = bank.widths().map(|width| model.transformer.uniform_plan(bank.precision(width)));
            let regime: Box<dyn Regime> = Box::new(stopping.around(Static::new(plans.collect())?));
            Ok(regime)
        };
        let of = RegimeOfBank::new(&bank, &build);
        let error = train_bank_with(start(), &task, &of, training(&train_config(8), &stopped)).unwrap_err();
        assert!(matches!(error, experiments::error::Error::Stopped), "{error}");
        let (resumed, rest) = train_bank(start(), &task, &bank, training(&train_config(8), &run)).unwrap();
        assert_eq!((rest.first_step, &rest.losses[..]), (4, &outcome.losses[4..]), "{trains:?}");
        assert_eq!(trained_parts(&resumed), trained_parts(&whole), "{trains:?}");

        // What is trained is of the run.
        let other = BankConfig { trains: Trains::Bank, ..bank.clone() };
        let message = train_bank(start(), &task, &other, training(&train_config(8), &run)).unwrap_err().to_string();
        assert!(message.contains("state.json") && message.contains("trains"), "{trains:?}: {message}");
    }
}

#[test]
fn a_run_goes_on_with_the_adapters_that_it_was_saved_with_or_not_at_all() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let spans = SpanTask::new(&task, &train_config(4)).unwrap();
    let with = |rank: usize, alpha: f64, bits: BitWidth| {
        let mut model = model::<Training>(&config, BasePolicy::Frozen);
        model.transformer.init_adapters(bits, &LoraConfig::new(rank, alpha).unwrap(), 3).unwrap();
        model
    };
    let dir = tempfile::tempdir().unwrap();
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let plan = |bits| with(2, 8.0, bits).transformer.uniform_plan(SitePrecision::uniform(bits));
    let go = |model, bits| train(model, &spans, &Single(plan(bits)), training(&train_config(4), &run));
    let four = BitWidth::B4;
    let (trained, _) = go(with(2, 8.0, four), four).unwrap();
    let (again, outcome) = go(with(2, 8.0, four), four).unwrap();
    assert_eq!((outcome.first_step, weights(&again) == weights(&trained)), (4, true));
    for (model, word) in [(with(2, 32.0, four), "alpha"), (with(3, 8.0, four), "rank")] {
        let error = go(model, four).unwrap_err().to_string();
        assert!(error.contains("state.json") && error.contains(word), "{error}");
    }
    let mut two = with(2, 8.0, four);
    two.transformer.init_adapters(BitWidth::B8, &LoraConfig::new(2, 8.0).unwrap(), 3).unwrap();
    let error = go(two, four).unwrap_err().to_string();
    assert!(error.contains("adapters") && error.contains('8'), "{error}");
}

#[test]
fn a_bank_of_a_model_with_adapters_of_a_few_sites_trains_those_of_all_sites() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let mut model = model::<Training>(&config, BasePolicy::Frozen);
    let (four, lora) = (BitWidth::B4, LoraConfig::new(2, 8.0).unwrap());
    let site = config.sites().iter().next().unwrap();
    model.transformer.site_mut(site).init_adapter(four, &lora, 1).unwrap();
    let bank = BankConfig::new(&[four], lora, 1);
    let (trained, _) = train_bank(model, &task, &bank, training(&train_config(2), &quiet(1))).unwrap();
    for site in config.sites().iter() {
        let pair = trained.transformer.site(site).bank().get(four).expect("a bank has an adapter at every site");
        let b = pair.b.val().into_data().to_vec::<f32>().unwrap();
        assert!(b.iter().any(|value| *value != 0.0), "{site:?} was not trained");
    }

    let large = BankConfig::new(&[four], LoraConfig::new(1 << 32, 8.0).unwrap(), 1);
    let error = train_bank(trained, &task, &large, training(&train_config(2), &quiet(1))).unwrap_err().to_string();
    assert!(error.contains("h.0.attn.c_attn") && error.contains("rank 4294967296"), "{error}");
}

#[test]
fn what_widths_share_is_trained_at_each_of_them() {
    skip_without_device!();
    let (_, config, task) = task(4);
    let widths = [BitWidth::FULL, BitWidth::B8, BitWidth::B3];
    for sharing in Sharing::ALL {
        let bank = BankConfig { sharing, ..BankConfig::new(&widths, LoraConfig::new(8, 16.0).unwrap(), 3) };
        let start = model::<Training>(&config, BasePolicy::Frozen);
        // The third width alone, which has or shares an adapter.
        let only = |model: &gpt2_model::Gpt2ForQuestionAnswering<Training>, _: &Ladder| {
            let regime: Box<dyn Regime> =
                Box::new(Single(model.transformer.uniform_plan(bank.precision(BitWidth::B3))));
            Ok(regime)
        };
        let of = RegimeOfBank::new(&bank, &only);
        let config = TrainConfig { weight_decay: 0.0, ..train_config(2) };
        let (trained, _) = train_bank_with(start.clone(), &task, &of, training(&config, &quiet(1))).unwrap();
        let begun = {
            let mut model = start.clone();
            bank.give_to(&mut model.transformer, Init::Started).unwrap();
            trained_parts(&model).1
        };
        let after = trained_parts(&trained).1;
        let there: Vec<BitWidth> = after.keys().copied().collect();
        let moved: Vec<BitWidth> = after.iter().filter(|(width, now)| begun[width] != **now).map(|(w, _)| *w).collect();
        let (expected, expected_moved): (&[BitWidth], &[BitWidth]) = match sharing {
            Sharing::Adapters => (&[BitWidth::B3, BitWidth::B8, BitWidth::FULL], &[BitWidth::B3]),
            Sharing::SharedAdapter => (&[BitWidth::FULL], &[BitWidth::FULL]),
            Sharing::SharedAndOwn => (&[BitWidth::B3, BitWidth::B8, BitWidth::FULL], &[BitWidth::B3, BitWidth::FULL]),
        };
        assert_eq!((there.as_slice(), moved.as_slice()), (expected, expected_moved), "{sharing}");
        let site = trained.config().sites().iter().next().expect("a site");
        let ranks: Vec<usize> = trained.transformer.site(site).bank().iter().map(|(_, pair)| pair.rank()).collect();
        let expected: &[usize] = match sharing {
            Sharing::Adapters => &[8, 8, 8],
            Sharing::SharedAdapter => &[8],
            Sharing::SharedAndOwn => &[2, 2, 8],
        };
        assert_eq!(ranks, expected, "{sharing}");
        // A folder of them says what is shared.
        let dir = tempfile::tempdir().unwrap();
        trained.save_adapters(dir.path(), "tiny").unwrap();
        let mut loaded = start.clone();
        loaded.load_adapters(dir.path()).unwrap();
        for width in widths {
            assert_eq!(loaded.transformer.precision_at(width), bank.precision(width), "{sharing} at {width}");
        }
    }
}

#[test]
fn sharing_that_has_no_sense_is_refused() {
    skip_without_device!();
    let (_, config, _) = task(1);
    let model = model::<Training>(&config, BasePolicy::Frozen);
    let bank = BankConfig::new(&[BitWidth::FULL, BitWidth::B4], LoraConfig::new(2, 4.0).unwrap(), 3);
    let steps = BankConfig { sharing: Sharing::SharedAdapter, learned_steps: true, ..bank.clone() };
    let error = steps.check(&model).unwrap_err().to_string();
    assert!(error.contains("shared-adapter") && error.contains("shared+own"), "{error}");
    let bare = BankConfig { sharing: Sharing::SharedAndOwn, trains: Trains::Base, ..bank };
    assert!(bare.check(&model).unwrap_err().to_string().contains("adapters to share"));
    assert!("shared".parse::<Sharing>().unwrap_err().to_string().contains("`shared`"));
}

#[test]
fn weights_that_are_trained_for_all_slices_lose_less_at_the_lowest() {
    skip_without_device!();
    let (_, config, task) = task(4);
    let widths = [BitWidth::B8, BitWidth::B4, BitWidth::B2];
    let bank = BankConfig { trains: Trains::Base, ..BankConfig::new(&widths, LoraConfig::new(2, 4.0).unwrap(), 3) };
    let start = model::<Training>(&config, BasePolicy::Frozen);
    let settings = start.transformer.settings();
    let weight = "per-channel".parse().unwrap();
    let nested = LinearSettings { rounding: RoundingMethod::Nested, weight, ..settings };
    let start = start.with_linear_settings(nested);
    let (trained, _) = train_bank(start.clone(), &task, &bank, training(&train_config(120), &quiet(2))).unwrap();
    let packed = trained.valid().transformer.pack(PackedForm::Nested, &PackOptions::default()).unwrap();
    let loss = |model: &gpt2_model::Gpt2ForQuestionAnswering<Plain>, width| {
        let evaluator = Evaluator::new(model, &task, EvaluateOptions::default(), &device()).unwrap();
        let precision = SitePrecision::uniform(width).without_adapter();
        evaluator.evaluate(&model.transformer.uniform_plan(precision)).unwrap().loss.unwrap()
    };
    let mut in_codes = trained.valid();
    in_codes.transformer = packed;
    for width in widths {
        let (before, after) = (loss(&start.valid(), width), loss(&trained.valid(), width));
        assert!(after < 0.7 * before, "{width} bits: {before} nats before, {after} after");
        // One tensor of 8 bits is what was trained.
        let of_codes = loss(&in_codes, width);
        assert!((of_codes - after).abs() < 1e-3 * after, "{width} bits: {of_codes} in codes, {after} before");
    }
}
