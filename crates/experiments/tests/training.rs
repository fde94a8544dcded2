//! Training: learning, exact resume, independence of the number of workers, regimes, running text.

use burn::module::AutodiffModule as _;

use experiments::banks::bank::{BankConfig, RegimeOfBank, train_bank_with, train_base};
use experiments::train::branch::{Branch, Distance, Protection};
use experiments::train::config::TrainConfig;
use experiments::train::ladder::Ladder;
use experiments::train::regimes::Regime;
use experiments::train::regimes::cascade::Cascade;
use experiments::train::regimes::in_turn::Static;
use experiments::train::regimes::joint::Joint;
use experiments::train::regimes::single::Single;
use experiments::train::span_task::SpanTask;
use experiments::train::text_task::{TextTask, text_loss};
use experiments::train::trainer::{TrainRun, train};
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use span_reader::running::stop::StopFlag;
use switchable_lora::{linear_settings::BasePolicy, lora_config::LoraConfig, site_precision::SitePrecision};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;

use crate::support::{
    Plain, StopAfter, Training, device, model, quiet, skip_without_device, task, train_config, training, weights,
};

#[test]
fn a_model_learns_the_questions_it_is_trained_on() {
    skip_without_device!();
    let (_, config, task) = task(4);
    let device = device();
    let train_config = TrainConfig { steps: 120, ..train_config(120) };
    let start = model::<Training>(&config, BasePolicy::Trainable);
    let (trained, outcome) = train_base(start.clone(), &task, training(&train_config, &quiet(1))).unwrap();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(mean(&outcome.losses[110..]) < 0.5 * mean(&outcome.losses[..10]), "{:?}", outcome.losses);

    let plan = trained.transformer.uniform_plan(SitePrecision::FULL);
    let loss = |model: &gpt2_model::Gpt2ForQuestionAnswering<Plain>| {
        let evaluator = Evaluator::new(model, &task, EvaluateOptions::default(), &device).unwrap();
        evaluator.evaluate(&plan).unwrap().loss.unwrap()
    };
    assert!(loss(&trained.valid()) < 0.5 * loss(&start.valid()));
}

#[test]
fn an_interrupted_run_ends_with_the_same_weights() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let start = || model::<Training>(&config, BasePolicy::Trainable);
    let (whole, outcome) = train_base(start(), &task, training(&train_config(8), &quiet(1))).unwrap();

    // Stopped before any step: a checkpoint of step 0; then after each single checkpoint.
    let dir = tempfile::tempdir().unwrap();
    let stop = StopFlag::default();
    stop.request();
    let stopped = TrainRun { dir: Some(dir.path().into()), stop, ..quiet(1) };
    let error = train_base(start(), &task, training(&train_config(8), &stopped)).unwrap_err();
    assert!(matches!(error, experiments::error::Error::Stopped), "{error}");
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let (resumed, rest) = train_base(start(), &task, training(&train_config(8), &run)).unwrap();
    assert_eq!(rest.first_step, 0);
    assert_eq!(rest.losses, outcome.losses);
    assert_eq!(weights(&resumed), weights(&whole));
    assert!(dir.path().join("step-000008").is_dir() && !dir.path().join("step-000006").exists());

    // From the middle: the state after step 3 of a run that diverges from here on in nothing.
    let middle = tempfile::tempdir().unwrap();
    let run = TrainRun { dir: Some(middle.path().into()), ..quiet(1) };
    let stopping = StopAfter::new(3);
    let stopped = TrainRun { stop: stopping.flag.clone(), ..run.clone() };
    let plan = start().transformer.uniform_plan(SitePrecision::FULL);
    let regime = stopping.around(Single(plan.clone()));
    let spans = SpanTask::new(&task, &train_config(8)).unwrap();
    let error = train(start(), &spans, &regime, training(&train_config(8), &stopped)).unwrap_err();
    assert!(matches!(error, experiments::error::Error::Stopped), "{error}");
    let (resumed, rest) = train(start(), &spans, &Single(plan), training(&train_config(8), &run)).unwrap();
    assert_eq!(rest.first_step, 3);
    assert_eq!(rest.losses, outcome.losses[3..]);
    assert_eq!(rest.earlier_losses, outcome.losses[..3]);
    assert_eq!(weights(&resumed), weights(&whole));
    let log = std::fs::read_to_string(middle.path().join("train.jsonl")).unwrap();
    let steps: Vec<u64> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (0..8).collect::<Vec<_>>(), "each step has one line");
}

#[test]
fn a_checkpoint_of_other_weights_or_questions_is_refused() {
    skip_without_device!();
    let (tokenizer, config, first) = task(3);
    let dir = tempfile::tempdir().unwrap();
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let start = model::<Training>(&config, BasePolicy::Trainable);
    train_base(start.clone(), &first, training(&train_config(2), &run)).unwrap();
    let refused = |model, task: &ReadingTask, config: &TrainConfig| {
        let result = train_base(model, task, training(config, &run));
        result.expect_err("it is of other work").to_string()
    };

    // The same names, shapes and numbers of everything: only the contents differ.
    let mut edited = first.dataset.clone();
    edited.articles[0].paragraphs[0].questions[0].question.push('?');
    let edited = ReadingTask::new(edited, &tokenizer, &config, None).unwrap();
    let message = refused(start.clone(), &edited, &train_config(2));
    assert!(message.contains("training questions changed"), "{message}");
    let (other, _) = train_base(start.clone(), &first, training(&train_config(1), &quiet(1))).unwrap();
    let message = refused(other, &first, &train_config(2));
    assert!(message.contains("model changed"), "{message}");
    let message = refused(start.clone(), &first, &train_config(3));
    assert!(message.contains("option `config.steps` was 2, is 3"), "{message}");

    // How often it is saved changes no result, and neither does the number of workers.
    let often = TrainConfig { checkpoint_every: 1, ..train_config(2) };
    let elsewhere = TrainRun { dir: run.dir.clone(), ..quiet(3) };
    let (_, outcome) = train_base(start.clone(), &first, training(&often, &elsewhere)).unwrap();
    assert_eq!(outcome.first_step, 2);

    let state = dir.path().join("step-000002/state.json");
    let by_paths = r#"{"version": 1, "step": 2, "run": {"run": {"model": "gpt2", "train": "train.json"}}}"#;
    std::fs::write(&state, by_paths).unwrap();
    let message = refused(start, &first, &train_config(2));
    assert!(message.contains("state.json") && message.contains("earlier version"), "{message}");
}

#[test]
fn a_run_that_is_stopped_where_it_started_keeps_its_only_checkpoint() {
    skip_without_device!();
    let (_, config, task) = task(3);
    let dir = tempfile::tempdir().unwrap();
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let start = || model::<Training>(&config, BasePolicy::Trainable);
    let stop = StopFlag::default();
    stop.request();
    let stopped = TrainRun { stop, ..run.clone() };
    assert!(train_base(start(), &task, training(&train_config(4), &stopped)).is_err());
    let folder = dir.path().join("step-000000");
    let marker = folder.join("marker");
    std::fs::write(&marker, "").unwrap();
    // What a killed process was about to save.
    std::fs::create_dir(dir.path().join(".partial-abc")).unwrap();
    assert!(train_base(start(), &task, training(&train_config(4), &stopped)).is_err());
    assert!(marker.exists(), "the checkpoint was not written again in its place");
    train_base(start(), &task, training(&train_config(4), &run)).unwrap();
    assert!(!dir.path().join(".partial-abc").exists() && !folder.exists());
}

#[test]
fn the_number_of_workers_changes_nothing() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let run = |workers| {
        let start = model::<Training>(&config, BasePolicy::Trainable);
        let (trained, outcome) = train_base(start, &task, training(&train_config(4), &quiet(workers))).unwrap();
        (weights(&trained), outcome.losses)
    };
    let alone = run(1);
    for workers in [2, 3] {
        assert_eq!(run(workers), alone, "{workers} workers");
    }
}

#[test]
fn static_takes_its_plans_in_turn() {
    skip_without_device!();
    let (_, config, _) = task(1);
    let body = model::<Plain>(&config, BasePolicy::Frozen).transformer;
    let widths = [BitWidth::B4, BitWidth::B8, BitWidth::B16, BitWidth::FULL];
    let plans = widths.map(|width| body.uniform_plan(SitePrecision::uniform(width)));
    let regime = Static::new(plans.to_vec()).unwrap();
    for step in 0..9 {
        assert_eq!(regime.branches(step), vec![Branch::new(plans[step % 4].clone(), 1.0)]);
    }
    assert!(Static::new(Vec::new()).is_err());
}

/// Trains a bank of 32, 4 and 2 bits by a regime over its ladder.
fn trained_bank(regime: impl Fn(Ladder) -> Box<dyn Regime>, steps: usize) -> (Vec<f32>, Vec<f64>) {
    let (_, config, task) = task(6);
    let start = model::<Training>(&config, BasePolicy::Trainable);
    let widths = [BitWidth::FULL, BitWidth::B4, BitWidth::B2];
    let bank = BankConfig::new(&widths, LoraConfig::new(2, 4.0).expect("valid input"), 3);
    let build = |_: &_, ladder: &Ladder| Ok(regime(ladder.clone()));
    let config = train_config(steps);
    let (trained, outcome) =
        train_bank_with(start, &task, &RegimeOfBank::new(&bank, &build), training(&config, &quiet(2)))
            .expect("valid input");
    (weights(&trained), outcome.losses)
}

#[test]
fn a_cascade_without_weight_is_joint_training() {
    skip_without_device!();
    let joint = trained_bank(|ladder| Box::new(Joint::new(ladder, Protection::None)), 4);
    let cascade = |beta| {
        trained_bank(move |ladder| Box::new(Cascade::new(ladder, beta, Distance::Kl, Protection::None).unwrap()), 4)
    };
    assert_eq!(cascade(0.0), joint);
    assert_ne!(cascade(1.0).0, joint.0);
}

#[test]
fn a_teacher_gets_no_gradient_from_its_pupils() {
    skip_without_device!();
    // The widths share no parameter but the frozen base: were the teacher drawn to its pupils, the
    // adapter of 32 bits would move otherwise with them than without.
    let (_, config, task) = task(6);
    let width_32 = |beta: f64| {
        let start = model::<Training>(&config, BasePolicy::Trainable);
        let bank = BankConfig::new(&[BitWidth::FULL, BitWidth::B2], LoraConfig::new(2, 4.0).unwrap(), 3);
        let build = |_: &_, ladder: &Ladder| -> experiments::error::Result<Box<dyn Regime>> {
            Ok(Box::new(Cascade::new(ladder.clone(), beta, Distance::Mse, Protection::None)?))
        };
        // No clipping, whose norm is over all adapters.
        let config = TrainConfig { clip_norm: 1e9, ..train_config(4) };
        let (trained, _) =
            train_bank_with(start, &task, &RegimeOfBank::new(&bank, &build), training(&config, &quiet(1))).unwrap();
        let of_width = |width| -> Vec<f32> {
            let sites = trained.config().sites().iter();
            let values = sites.flat_map(|site| {
                let pair = trained.transformer.site(site).bank().get(width).expect("the bank has the width");
                pair.b.val().into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32")
            });
            values.collect()
        };
        (of_width(BitWidth::FULL), of_width(BitWidth::B2))
    };
    let (alone, taught) = (width_32(0.0), width_32(3.0));
    assert_eq!(alone.0, taught.0);
    assert_ne!(alone.1, taught.1);
}

/// The same plan twice, the second time with a loss to be avoided: its gradient points against the first.
struct Opposed(gpt2_model::SitePlan, Protection);

impl Regime for Opposed {
    fn name(&self) -> &'static str {
        "opposed"
    }

    fn parameters(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    fn branches(&self, _step: usize) -> Vec<Branch> {
        let first = Branch { protection: self.1, ..Branch::new(self.0.clone(), 1.0) };
        vec![first, Branch::new(self.0.clone(), -3.0)]
    }
}

#[test]
fn a_guarded_branch_is_not_acted_against() {
    skip_without_device!();
    let (_, config, task) = task(6);
    let device = device();
    let train_config = TrainConfig { steps: 40, weight_decay: 0.0, ..train_config(40) };
    let loss_after = |protection| {
        let start = model::<Training>(&config, BasePolicy::Trainable);
        let plan = start.transformer.uniform_plan(SitePrecision::FULL);
        let spans = SpanTask::new(&task, &train_config).unwrap();
        let regime = Opposed(plan.clone(), protection);
        let (trained, _) = train(start.clone(), &spans, &regime, training(&train_config, &quiet(2))).unwrap();
        let loss = |model: &gpt2_model::Gpt2ForQuestionAnswering<Plain>| {
            let evaluator = Evaluator::new(model, &task, EvaluateOptions::default(), &device).unwrap();
            evaluator.evaluate(&plan).unwrap().loss.unwrap()
        };
        loss(&trained.valid()) - loss(&start.valid())
    };
    // Unguarded the sum of the two gradients climbs the loss. Guarded it descends: what is left of the
    // second gradient is nothing.
    assert!(loss_after(Protection::None) > 0.0);
    assert!(loss_after(Protection::Guarded) < 0.0);
}

#[test]
fn a_language_model_learns_its_text_and_resumes_exactly() {
    skip_without_device!();
    let (tokenizer, config, _) = task(1);
    let text = "Ada keeps a crab. Ben keeps a crow. Cleo keeps a camel. ".repeat(30);
    let tokens = tokenizer.encode_ids(&text).unwrap();
    let config_of = |steps| TrainConfig { batch_size: 4, ..train_config(steps) };
    let text_task = TextTask::new(tokens.clone(), 32, &config_of(30)).unwrap();
    let start = || model::<Training>(&config, BasePolicy::Trainable).transformer;
    let plan = start().uniform_plan(SitePrecision::FULL);
    let regime = Single(plan.clone());
    let (whole, outcome) = train(start(), &text_task, &regime, training(&config_of(30), &quiet(2))).unwrap();
    let before = text_loss(&start().valid(), &tokens, 32, &plan).unwrap();
    let after = text_loss(&whole.valid(), &tokens, 32, &plan).unwrap();
    assert!(after < 0.5 * before, "{before} nats before, {after} after");

    // The text is a few epochs long, so that the resumed run starts inside another epoch.
    let dir = tempfile::tempdir().unwrap();
    let stopping = StopAfter::new(20);
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(2) };
    let stopped = TrainRun { stop: stopping.flag.clone(), ..run.clone() };
    let stop = stopping.around(Single(plan.clone()));
    train(start(), &text_task, &stop, training(&config_of(30), &stopped)).unwrap_err();
    let (resumed, rest) = train(start(), &text_task, &regime, training(&config_of(30), &run)).unwrap();
    assert_eq!(rest.losses, outcome.losses[20..]);
    let values = |model: &gpt2_model::Gpt2<Training>| -> Vec<f32> {
        model.named_parameters().iter().flat_map(|(_, parameter)| parameter.values()).collect()
    };
    assert_eq!(values(&resumed), values(&whole));
}

#[test]
fn text_that_is_too_short_or_unknown_is_refused() {
    skip_without_device!();
    let (_, config, _) = task(1);
    let message = TextTask::new(vec![1; 127], 32, &train_config(1)).unwrap_err().to_string();
    assert!(message.contains("127 tokens") && message.contains("128"), "{message}");
    assert!(TextTask::new(vec![1; 100], 1, &train_config(1)).is_err());
    let task = TextTask::new(vec![99_999; 200], 32, &train_config(1)).unwrap();
    let start = model::<Training>(&config, BasePolicy::Trainable).transformer;
    let regime = Single(start.uniform_plan(SitePrecision::FULL));
    let message = train(start, &task, &regime, training(&train_config(1), &quiet(1))).unwrap_err().to_string();
    assert!(message.contains("99999"), "{message}");
}
