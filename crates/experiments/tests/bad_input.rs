//! Bad input is refused with the field and file, before any long work.

use experiments::banks::bank::train_base;
use experiments::error::Error;
use experiments::running::progress::ShowProgress;
use experiments::search::greedy::{GreedyOptions, GreedyStart, StopAt, greedy_search};
use experiments::search::sensitivity::{Part, SensitivityOptions, sensitivity};
use experiments::train::config::TrainConfig;
use experiments::train::trainer::TrainRun;
use gpt2_model::Gpt2Config;
use quant_kernels::spec::bit_width::BitWidth;
use span_reader::cost::plan_bytes;
use span_reader::evaluation::answer::answer;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use squad_data::{Dataset, Split};
use switchable_lora::{linear_settings::BasePolicy, site_precision::SitePrecision};
use switchable_model::model::SwitchableModel;

use crate::support::{
    Plain, Training, device, model, questions, quiet, skip_without_device, task, train_config, training,
};

#[test]
fn tasks_that_do_not_fit_the_model_are_refused() {
    skip_without_device!();
    let (tokenizer, config, _) = task(1);
    let message = |config: &Gpt2Config, dataset: Dataset, window| {
        ReadingTask::new(dataset, &tokenizer, config, window).expect_err("an error").to_string()
    };
    let small = Gpt2Config { vocab_size: 300, ..config.clone() };
    assert!(message(&small, questions(Split::Dev, 1), None).contains("vocabulary is"));
    assert!(
        message(&config, questions(Split::Dev, 1), Some(300)).contains("window is 300, the model has room for 256")
    );
    assert!(message(&config, questions(Split::Dev, 1), Some(6)).contains('6'));
    let empty = questions(Split::Dev, 1).limited(0);
    assert!(message(&config, empty, None).contains("no question"));
}

#[test]
fn a_missing_adapter_is_named_before_any_work() {
    skip_without_device!();
    let (_, config, task) = task(1);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let evaluator = Evaluator::new(&model, &task, EvaluateOptions::default(), &device).unwrap();
    let plan = model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B4));
    let message = evaluator.evaluate(&plan).unwrap_err().to_string();
    assert!(message.contains("h.0.attn.c_attn") && message.contains('4'), "{message}");
}

#[test]
fn a_folder_of_another_run_is_refused_with_the_field() {
    skip_without_device!();
    let (_, config, task) = task(3);
    let dir = tempfile::tempdir().unwrap();
    let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
    let start = || model::<Training>(&config, BasePolicy::Trainable);
    train_base(start(), &task, training(&train_config(3), &run)).unwrap();
    let other = TrainConfig { seed: 9, ..train_config(3) };
    let message = train_base(start(), &task, training(&other, &run)).unwrap_err().to_string();
    assert!(message.contains("state.json") && message.contains("config.seed") && message.contains('9'), "{message}");
}

#[test]
fn a_damaged_checkpoint_is_an_error_that_names_the_file() {
    skip_without_device!();
    let (_, config, task) = task(3);
    let start = || model::<Training>(&config, BasePolicy::Trainable);
    for (file, bytes) in [("model.mpk", &b"\x93"[..]), ("optimizer.mpk", b""), ("state.json", b"{\"version\":1")] {
        let dir = tempfile::tempdir().unwrap();
        let run = TrainRun { dir: Some(dir.path().into()), ..quiet(1) };
        train_base(start(), &task, training(&train_config(3), &run)).unwrap();
        std::fs::write(dir.path().join("step-000003").join(file), bytes).unwrap();
        let message = train_base(start(), &task, training(&train_config(3), &run)).unwrap_err().to_string();
        assert!(message.contains(file), "{message}");
    }
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    skip_without_device!();
    let (_, config, task) = task(3);
    let mut wild = train_config(40);
    wild.schedule.peak = 1e30;
    let start = model::<Training>(&config, BasePolicy::Trainable);
    let error = train_base(start, &task, training(&wild, &quiet(1))).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

#[test]
fn search_options_out_of_range_are_refused() {
    skip_without_device!();
    let (_, config, task) = task(1);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let device = device();
    let evaluator = Evaluator::new(&model, &task, EvaluateOptions::default(), &device).unwrap();
    let full = model.transformer.uniform_plan(SitePrecision::FULL);
    let low = SitePrecision::uniform(BitWidth::B2).without_adapter();
    let how = |part| SensitivityOptions { seed: 1, show: ShowProgress::No, ..SensitivityOptions::new(part, low) };
    let (sites, kept) = sensitivity(&evaluator, &full, &how(Part::Site)).unwrap();
    let greedy = |stop_at| GreedyOptions { stop_at, show: ShowProgress::No, ..GreedyOptions::new(low) };
    for tolerance in [0.0, 1.0, -0.5, f64::NAN] {
        let options = greedy(StopAt::Tolerance(tolerance));
        let message = greedy_search(
            &evaluator,
            GreedyStart { reference: &full, sensitivity: &sites, kept: kept.clone() },
            &options,
        )
        .unwrap_err()
        .to_string();
        assert!(message.contains("tolerance"), "{message}");
    }
    let bytes = plan_bytes(&model.transformer, &model.transformer.uniform_plan(low));
    for (stop_at, field, least) in [
        (StopAt::AverageBits(1.9), "average_bits", "2".to_string()),
        (StopAt::AverageBits(f64::NAN), "average_bits", "2".to_string()),
        (StopAt::SiteBytes(bytes - 1), "site_bytes", bytes.to_string()),
    ] {
        let message = greedy_search(
            &evaluator,
            GreedyStart { reference: &full, sensitivity: &sites, kept: kept.clone() },
            &greedy(stop_at),
        )
        .unwrap_err()
        .to_string();
        assert!(message.contains(field) && message.contains(&format!("at least {least},")), "{message}");
    }
    let (blocks, _) = sensitivity(&evaluator, &full, &how(Part::Block)).unwrap();
    let options = greedy(StopAt::Tolerance(0.1));
    let message = greedy_search(&evaluator, GreedyStart { reference: &full, sensitivity: &blocks, kept }, &options)
        .unwrap_err()
        .to_string();
    assert!(message.contains("single sites"), "{message}");
}

#[test]
fn an_empty_question_or_text_gets_no_answer() {
    skip_without_device!();
    let (tokenizer, config, _) = task(1);
    let model = model::<Plain>(&config, BasePolicy::Frozen);
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    for (question, context, field) in [(" ", "Some text.", "question"), ("Who?", "", "context")] {
        let message = answer(&model, &tokenizer, question, context, &plan).unwrap_err().to_string();
        assert!(message.contains(field), "{message}");
    }
    let found = answer(&model, &tokenizer, "Who?", "Mira Kestrel plays the harp.", &plan).unwrap();
    assert!("Mira Kestrel plays the harp.".contains(&found.text) && !found.text.is_empty());
}
