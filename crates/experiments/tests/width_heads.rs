//! Banks of a model whose widths have heads of their own.

use burn::module::AutodiffModule as _;
use burn::tensor::TensorData;

use experiments::banks::bank::{BankConfig, RegimeOfBank, Trains, train_bank, train_bank_with};
use experiments::train::branch::Branch;
use experiments::train::ladder::Ladder;
use experiments::train::regimes::Regime;
use experiments::train::regimes::in_turn::Static;
use experiments::train::trainer::TrainRun;
use gpt2_model::{Gpt2Config, Gpt2ForQuestionAnswering};
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use span_reader::running::stop::StopFlag;
use switchable_lora::peft::{PeftOptions, save::save_peft, saved_module::SavedModule, width_folder};
use switchable_lora::{linear_settings::BasePolicy, lora_config::LoraConfig, site_precision::SitePrecision};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::options::ModelOptions;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::MissingHead;

use crate::support::{
    Plain, Training, device, model, quiet, skip_without_device, task, train_config, training, weights,
};

const WIDTHS: [BitWidth; 2] = [BitWidth::B8, BitWidth::B4];

fn lora() -> LoraConfig {
    LoraConfig::new(2, 4.0).expect("a configuration")
}

/// A model whose adapters of both widths bring a head.
fn with_heads(config: &Gpt2Config) -> Gpt2ForQuestionAnswering<Training> {
    let mut model = model::<Training>(config, BasePolicy::Frozen);
    let dir = tempfile::tempdir().expect("a folder");
    for width in WIDTHS {
        model.transformer.init_adapters(width, &lora(), 3).expect("adapters");
        let scale = f32::from(width.bits());
        let weight = (0..2 * 16).map(|i| (i as f32 * scale).sin()).collect::<Vec<_>>();
        let saved = SavedModule {
            name: "qa_outputs".into(),
            weight: TensorData::new(weight, [2, 16]),
            bias: TensorData::new(vec![scale, -scale], [2]),
        };
        let options =
            PeftOptions { prefix: "transformer.".into(), saved_modules: vec![saved], ..PeftOptions::default() };
        let names: Vec<_> = config.sites().iter().map(|site| (site, config.sites().name(site))).collect();
        let pairs = names
            .iter()
            .map(|(site, name)| (name.as_str(), model.transformer.site(*site).bank().get(width).expect("it was made")));
        save_peft(width_folder(&dir, width), pairs, &options).expect("it is written");
    }
    _ = model.load_adapters(dir.path()).expect("they fit");
    assert_eq!(model.head_widths(), [BitWidth::B4, BitWidth::B8]);
    model
}

/// The weight and bias of every head that came with an adapter.
fn heads(model: &Gpt2ForQuestionAnswering<Training>) -> Vec<f32> {
    let heads = model.head_widths().iter().map(|&width| model.width_head(width).expect("listed"));
    heads
        .flat_map(|head| {
            let values = |data: TensorData| data.into_vec::<f32>().expect("f32");
            [values(head.weight.val().into_data()), values(head.bias.val().into_data())].concat()
        })
        .collect()
}

fn at(model: &Gpt2ForQuestionAnswering<Plain>, width: BitWidth) -> SitePlan {
    model.transformer.uniform_plan(SitePrecision::uniform(width))
}

fn accuracies(model: &Gpt2ForQuestionAnswering<Plain>, task: &ReadingTask) -> Vec<Accuracy> {
    let evaluator = Evaluator::new(model, task, EvaluateOptions::default(), &device()).expect("a batch size");
    WIDTHS.iter().map(|&width| evaluator.evaluate(&at(model, width)).expect("there is an adapter")).collect()
}

#[test]
fn a_bank_is_trained_under_the_heads_of_its_widths_and_answers_the_same_once_it_is_loaded() {
    skip_without_device!();
    let (_, config, task) = task(4);
    let before = with_heads(&config);
    for trains in [Trains::Bank, Trains::Both] {
        let bank = BankConfig { trains, ..BankConfig::new(&WIDTHS, lora(), 5) };
        let whole = train_bank(with_heads(&config), &task, &bank, training(&train_config(8), &quiet(1)));
        let (trained, outcome) = whole.expect("it trains");
        // Heads are trained where the base is.
        assert_eq!(heads(&trained) == heads(&before), trains == Trains::Bank);

        // Stopped in the middle, the run goes on to the same numbers.
        let dir = tempfile::tempdir().expect("a folder");
        let run = |stop: StopFlag| {
            let run = TrainRun { dir: Some(dir.path().into()), stop: stop.clone(), ..quiet(1) };
            let regime = |model: &Gpt2ForQuestionAnswering<Training>,
                          _: &Ladder|
             -> experiments::error::Result<Box<dyn Regime>> {
                let plans = bank.widths().map(|width| model.transformer.uniform_plan(bank.precision(width)));
                Ok(Box::new(Stopping { regime: Static::new(plans.collect())?, stop: stop.clone() }))
            };
            let of = RegimeOfBank::new(&bank, &regime);
            train_bank_with(with_heads(&config), &task, &of, training(&train_config(8), &run))
        };
        assert!(matches!(run(StopFlag::default()), Err(experiments::error::Error::Stopped)));
        let (resumed, rest) = run(StopFlag::default()).expect("it goes on");
        assert_eq!(rest.first_step, 5);
        assert_eq!([rest.earlier_losses, rest.losses].concat(), outcome.losses);
        assert_eq!((weights(&resumed), heads(&resumed)), (weights(&trained), heads(&trained)));

        // Saved and loaded again.
        let plain = trained.valid();
        let folder = tempfile::tempdir().expect("a folder");
        plain.export(folder.path()).expect("it is written");
        plain.save_adapters(folder.path().join("adapters"), ".").expect("they are written");
        let options = ModelOptions::default();
        let mut loaded =
            Gpt2ForQuestionAnswering::<Plain>::load(folder.path(), &options, MissingHead::Refuse, &device())
                .expect("it is read");
        _ = loaded.load_adapters(folder.path().join("adapters")).expect("they are read");
        assert_eq!(loaded.head_widths(), plain.head_widths());
        assert_eq!(accuracies(&loaded, &task), accuracies(&plain, &task));
        assert_ne!(accuracies(&plain, &task)[0].loss, accuracies(&plain, &task)[1].loss);
    }
}

/// Asks to be stopped after its fifth step.
struct Stopping {
    regime: Static,
    stop: StopFlag,
}

impl Regime for Stopping {
    fn name(&self) -> &'static str {
        self.regime.name()
    }

    fn parameters(&self) -> serde_json::Value {
        self.regime.parameters()
    }

    fn branches(&self, step: usize) -> Vec<Branch> {
        if step == 4 {
            self.stop.request();
        }
        self.regime.branches(step)
    }
}
