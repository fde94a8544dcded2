//! A tiny model and task.

use experiments::running::progress::ShowProgress;
use experiments::train::config::TrainConfig;
use experiments::train::objective::Objective;
use experiments::train::schedule::Schedule;
use experiments::train::trainer::TrainRun;
use experiments::workbench::StudyData;
use gpt2_model::{Gpt2Config, Gpt2ForQuestionAnswering};
use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::evaluation::reading::ReadingTask;
use span_reader::running::workers::Workers;
use squad_data::{BpeConfig, Dataset, GeneratorConfig, Split, TextTokenizer, corpus_texts, generate};
use switchable_lora::linear_settings::{BasePolicy, LinearSettings};
use switchable_model::config::ModelConfig;
use switchable_model::model::SwitchableModel;
use switchable_model::options::ModelOptions;

mod stop_after;

pub(crate) use stop_after::StopAfter;
pub(crate) use test_support::skip_without_device;
pub(crate) use test_support::test_device::{Plain, Training, device};

pub(crate) fn questions(split: Split, paragraphs: usize) -> Dataset {
    generate(&GeneratorConfig::new(split, paragraphs, 11)).expect("valid input")
}

/// Tokenizer, shape and task over some generated paragraphs.
pub(crate) fn task(paragraphs: usize) -> (TextTokenizer, Gpt2Config, ReadingTask) {
    let dataset = questions(Split::Train, paragraphs);
    let bpe = BpeConfig { vocab_size: 600, ..BpeConfig::default() };
    let tokenizer = TextTokenizer::train_bpe(corpus_texts(&questions(Split::Train, 60)), &bpe).expect("valid input");
    let config = Gpt2Config::new(tokenizer.vocab_size(), 256, 16, 3, 2).with_initializer_range(0.2);
    let task = ReadingTask::new(dataset, &tokenizer, &config, None).expect("valid input");
    (tokenizer, config, task)
}

pub(crate) fn model<B: QuantBackend>(config: &Gpt2Config, base: BasePolicy) -> Gpt2ForQuestionAnswering<B> {
    let linear = LinearSettings { base, ..LinearSettings::default() };
    let options = ModelOptions { linear, ..ModelOptions::default() };
    Gpt2ForQuestionAnswering::random(config, &options, 5, &B::Device::default()).expect("valid input")
}

pub(crate) fn train_config(steps: usize) -> TrainConfig {
    TrainConfig {
        steps,
        batch_size: 8,
        micro_batches: 2,
        schedule: Schedule { peak: 5e-3, warm_up: 0.1, final_share: 0.1 },
        objective: Objective { next_token: 0.3 },
        checkpoint_every: 3,
        ..TrainConfig::default()
    }
}

pub(crate) fn quiet(workers: usize) -> TrainRun {
    TrainRun { workers: Workers::new(workers), show: ShowProgress::No, ..TrainRun::default() }
}

/// All parameters of the base and all adapters of a model, one after another.
pub(crate) fn weights<B: QuantBackend>(model: &Gpt2ForQuestionAnswering<B>) -> Vec<f32> {
    let mut all: Vec<f32> = model.named_parameters().iter().flat_map(|(_, parameter)| parameter.values()).collect();
    for site in model.config().sites().iter() {
        for (_, pair) in model.transformer.site(site).bank().iter() {
            for factor in [&pair.a, &pair.b] {
                all.extend(factor.val().into_data().convert::<f32>().into_vec::<f32>().expect("converted to f32"));
            }
        }
    }
    all
}

pub(crate) fn training<'a>(config: &'a TrainConfig, run: &'a TrainRun) -> experiments::Training<'a> {
    experiments::Training { config, run }
}

/// A study that trains on the first questions, searches on the second and reports on the third.
pub(crate) fn study_data<'a>(
    [train, search, report]: [&'a ReadingTask; 3],
    tokenizer: &'a TextTokenizer,
) -> StudyData<'a> {
    StudyData { train: train.into(), search: search.into(), report: report.into(), tokenizer, window: None }
}
