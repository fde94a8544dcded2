//! Training: learning, exact resume, independence of the number of workers, frozen bases.

use burn::module::AutodiffModule as _;
use experiments::train::train;
use experiments::{
    BankConfig, EvaluateOptions, Evaluator, Regime as _, Single, Static, StopFlag, TrainConfig, TrainRun, train_bank,
    train_base,
};
use gpt2_model::{BitWidth, SitePrecision};
use switchable_lora::{BasePolicy, LoraConfig};

use crate::support::{Plain, Training, model, quiet, task, train_config, weights};

#[test]
fn a_model_learns_the_questions_it_is_trained_on() {
    let (_, config, task) = task(4);
    let device = burn::backend::flex::FlexDevice;
    let train_config = TrainConfig { steps: 120, ..train_config(120) };
    let start = model::<Training>(&config, BasePolicy::Trainable);
    let (trained, outcome) = train_base(start.clone(), &task, &train_config, &quiet(1), &device).unwrap();
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
    let (_, config, task) = task(6);
    let device = burn::backend::flex::FlexDevice;
    let start = || model::<Training>(&config, BasePolicy::Trainable);
    let (whole, outcome) = train_base(start(), &task, &train_config(8), &quiet(1), &device).unwrap();

    // Stopped before any step: a checkpoint of step 0; then after each single checkpoint.
    let dir = tempfile::tempdir().unwrap();
    let stop = StopFlag::default();
    stop.request();
    let stopped = TrainRun { dir: Some(dir.path().into()), stop, ..quiet(1) };
    let error = train_base(start(), &task, &train_config(8), &stopped, &device).unwrap_err();
    assert!(matches!(error, experiments::Error::Stopped), "{error}");
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let (resumed, rest) = train_base(start(), &task, &train_config(8), &run, &device).unwrap();
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
    let error = train(start(), &task, &regime, &train_config(8), &stopped, &device).unwrap_err();
    assert!(matches!(error, experiments::Error::Stopped), "{error}");
    let (resumed, rest) = train(start(), &task, &Single(plan), &train_config(8), &run, &device).unwrap();
    assert_eq!(rest.first_step, 3);
    assert_eq!(rest.losses, outcome.losses[3..]);
    assert_eq!(weights(&resumed), weights(&whole));
}

/// Raises a stop flag when the plans of a step are asked for.
struct StopAfter {
    step: usize,
    flag: StopFlag,
}

struct Stopping<'a>(&'a StopAfter, Single);

impl StopAfter {
    fn new(step: usize) -> Self {
        Self { step, flag: StopFlag::default() }
    }

    fn around(&self, regime: Single) -> Stopping<'_> {
        Stopping(self, regime)
    }
}

impl experiments::Regime for Stopping<'_> {
    fn name(&self) -> &'static str {
        self.1.name()
    }

    fn plans(&self, step: usize) -> Vec<&gpt2_model::SitePlan> {
        if step + 1 == self.0.step {
            self.0.flag.request();
        }
        self.1.plans(step)
    }
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let (_, config, task) = task(6);
    let device = burn::backend::flex::FlexDevice;
    let run = |workers| {
        let start = model::<Training>(&config, BasePolicy::Trainable);
        let (trained, outcome) = train_base(start, &task, &train_config(4), &quiet(workers), &device).unwrap();
        (weights(&trained), outcome.losses)
    };
    assert_eq!(run(2), run(3));
}

#[test]
fn a_bank_is_trained_and_the_base_stays() {
    let (_, config, task) = task(6);
    let device = burn::backend::flex::FlexDevice;
    let start = model::<Training>(&config, BasePolicy::Trainable);
    let base = weights(&start);
    let bank = BankConfig {
        widths: vec![BitWidth::FULL, BitWidth::B4, BitWidth::B2],
        lora: LoraConfig::new(2, 4.0).unwrap(),
        seed: 3,
    };
    // Two steps: the adapter of the third width is not reached.
    let (trained, _) = train_bank(start, &task, &bank, &train_config(2), &quiet(2), &device).unwrap();
    assert_eq!(weights(&trained)[..base.len()], base);
    for site in gpt2_model::Site::all(&config) {
        for (width, pair) in trained.transformer.site(site).bank().iter() {
            let b = pair.b.val().into_data().convert::<f32>().into_vec::<f32>().unwrap();
            let moved = b.iter().any(|v| *v != 0.0);
            assert_eq!(moved, width != BitWidth::B2, "{site} at {width} bits");
        }
    }
}

#[test]
fn static_takes_its_plans_in_turn() {
    let (_, config, _) = task(1);
    let body = model::<Plain>(&config, BasePolicy::Frozen).transformer;
    let widths = [BitWidth::B4, BitWidth::B8, BitWidth::B16, BitWidth::FULL];
    let plans = widths.map(|width| body.uniform_plan(SitePrecision::uniform(width)));
    let regime = Static::new(plans.to_vec()).unwrap();
    for step in 0..9 {
        assert_eq!(regime.plans(step), vec![&plans[step % 4]]);
    }
    assert!(Static::new(Vec::new()).is_err());
}
