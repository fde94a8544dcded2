//! A bank that is measured while it is trained.

use std::cell::RefCell;

use burn::module::AutodiffModule as _;

use experiments::banks::bank::{BankConfig, RegimeOfBank, train_bank, train_bank_with};
use experiments::banks::validation::{VALIDATION, Validation, read_rows};
use experiments::train::config::TrainConfig;
use experiments::train::ladder::Ladder;
use experiments::train::regimes::Regime;
use experiments::train::regimes::in_turn::Static;
use experiments::train::regimes::single::Single;
use experiments::train::span_task::SpanTask;
use experiments::train::trainer::{TrainRun, Watch, train, train_watched};
use gpt2_model::Gpt2ForQuestionAnswering;
use quant_kernels::BitWidth;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use squad_data::Split;
use switchable_lora::linear_settings::BasePolicy;
use switchable_lora::lora_config::LoraConfig;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel as _;

use crate::support::{
    Training, device, model, questions, quiet, skip_without_device, task, train_config, training, weights,
};

#[test]
fn looking_at_a_bank_on_the_way_changes_nothing_and_leaves_a_row_for_each_width() {
    skip_without_device!();
    let (tokenizer, config, task) = task(6);
    let unseen = ReadingTask::new(questions(Split::Dev, 2), &tokenizer, &config, None).unwrap();
    let widths = [BitWidth::B4, BitWidth::B2];
    let bank = BankConfig::new(&widths, LoraConfig::new(2, 4.0).unwrap(), 3);
    let start = || model::<Training>(&config, BasePolicy::Frozen);
    let (alone, _) = train_bank(start(), &task, &bank, training(&train_config(5), &quiet(1))).unwrap();

    let build = |model: &Gpt2ForQuestionAnswering<Training>, _: &Ladder| {
        let plans = bank.widths().map(|width| model.transformer.uniform_plan(bank.precision(width)));
        let regime: Box<dyn Regime> = Box::new(Static::new(plans.collect())?);
        Ok(regime)
    };
    let validation = Validation { every: 2, questions: (&unseen).into(), options: EvaluateOptions::default() };
    let of = RegimeOfBank { validation: Some(&validation), ..RegimeOfBank::new(&bank, &build) };
    let dir = tempfile::tempdir().unwrap();
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let (watched, _) = train_bank_with(start(), &task, &of, training(&train_config(5), &run)).unwrap();
    assert_eq!(weights(&watched), weights(&alone));

    let rows = read_rows(&dir.path().join(VALIDATION)).unwrap();
    let steps: Vec<(usize, u8)> = rows.iter().map(|row| (row.step, row.bits.bits())).collect();
    assert_eq!(steps, [(0, 2), (0, 4), (2, 2), (2, 4), (4, 2), (4, 4), (5, 2), (5, 4)]);
    let plain = watched.valid();
    let evaluator = Evaluator::new(&plain, &unseen, EvaluateOptions::default(), &device()).unwrap();
    let last = evaluator.evaluate(&plain.transformer.uniform_plan(bank.precision(BitWidth::B4))).unwrap();
    assert_eq!((rows[7].loss, rows[7].n), (last.loss, last.n));
    assert_ne!(rows[7].loss, rows[1].loss, "it has learnt something");

    // A run that is done looks no more.
    train_bank_with(start(), &task, &of, training(&train_config(5), &run)).unwrap();
    assert_eq!(read_rows(&dir.path().join(VALIDATION)).unwrap(), rows);
    let other = Validation { questions: (&task).into(), ..validation.clone() };
    let of = RegimeOfBank { validation: Some(&other), ..RegimeOfBank::new(&bank, &build) };
    let message = train_bank_with(start(), &task, &of, training(&train_config(5), &run)).unwrap_err().to_string();
    assert!(message.contains(VALIDATION) && message.contains("of other questions"), "{message}");
    let never = Validation { every: 0, ..validation.clone() };
    let of = RegimeOfBank { validation: Some(&never), ..RegimeOfBank::new(&bank, &build) };
    let message = train_bank_with(start(), &task, &of, training(&train_config(5), &quiet(1))).unwrap_err().to_string();
    assert!(message.contains("every is 0") || message.contains("`every` is 0"), "{message}");
}

#[test]
fn a_step_behind_which_a_look_is_stopped_is_not_lost() {
    skip_without_device!();
    let (_, config, task) = task(4);
    let start = || model::<Training>(&config, BasePolicy::Trainable);
    let regime = Single(start().transformer.uniform_plan(SitePrecision::FULL));
    let spans = SpanTask::new(&task, &train_config(8)).unwrap();
    let config = TrainConfig { checkpoint_every: 100, ..train_config(8) };
    let (_, whole) = train(start(), &spans, &regime, training(&config, &quiet(1))).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let looked = RefCell::new(Vec::new());
    let stopped = |step: usize, _: &Gpt2ForQuestionAnswering<Training>| {
        looked.borrow_mut().push(step);
        if step == 6 { Err(experiments::error::Error::Stopped) } else { Ok(()) }
    };
    let watch = Watch { every: 3, look: &stopped };
    let error = train_watched(start(), &spans, &regime, training(&config, &run), Some(&watch)).unwrap_err();
    assert!(matches!(error, experiments::error::Error::Stopped), "{error}");
    assert_eq!(looked.take(), [0, 3, 6]);
    let look = |step: usize, _: &Gpt2ForQuestionAnswering<Training>| {
        looked.borrow_mut().push(step);
        Ok(())
    };
    let watch = Watch { every: 3, look: &look };
    let (_, rest) = train_watched(start(), &spans, &regime, training(&config, &run), Some(&watch)).unwrap();
    assert_eq!((rest.first_step, rest.losses.as_slice()), (6, &whole.losses[6..]));
    assert_eq!(looked.take(), [6, 8], "the look that was stopped comes again");
}
