//! Questions without an answer: training points to the separator, the null rule compares with it.

use std::sync::LazyLock;

use burn::module::AutodiffModule as _;

use experiments::banks::bank::train_base;
use experiments::train::config::TrainConfig;
use gpt2_model::Gpt2ForQuestionAnswering;
use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reading::ReadingTask;
use squad_data::{
    BpeConfig, DecodeConfig, Evaluation, Format, NullRule, Question, Split, TextTokenizer, corpus_texts, evaluate,
};
use switchable_lora::{linear_settings::BasePolicy, site_precision::SitePrecision};
use switchable_model::model::SwitchableModel as _;

use crate::support::{Plain, Training, device, model, questions, quiet, skip_without_device, train_config, training};

/// Generated questions, and as many that are asked of a paragraph about other people.
fn answerable_and_not() -> squad_data::Dataset {
    let mut dataset = questions(Split::Train, 8);
    dataset.format = Format::V2;
    for article in &mut dataset.articles {
        let asked: Vec<Vec<Question>> = article.paragraphs.iter().map(|p| p.questions.clone()).collect();
        for (i, paragraph) in article.paragraphs.iter_mut().enumerate() {
            let others = &asked[(i + 1) % asked.len()];
            paragraph.questions.extend(others.iter().map(|question| Question {
                id: format!("{}-elsewhere", question.id),
                answers: Vec::new(),
                is_impossible: true,
                ..question.clone()
            }));
        }
    }
    dataset
}

struct Learnt {
    task: ReadingTask,
    model: Gpt2ForQuestionAnswering<Plain>,
}

static LEARNT: LazyLock<Learnt> = LazyLock::new(|| {
    let bpe = BpeConfig { vocab_size: 600, ..BpeConfig::default() };
    let texts = questions(Split::Train, 60);
    let tokenizer = TextTokenizer::train_bpe(corpus_texts(&texts), &bpe).expect("valid input");
    let config = gpt2_model::Gpt2Config::new(tokenizer.vocab_size(), 256, 16, 3, 2).with_initializer_range(0.2);
    let task = ReadingTask::new(answerable_and_not(), &tokenizer, &config, None).expect("valid input");
    let start = model::<Training>(&config, BasePolicy::Trainable);
    let steps = TrainConfig { checkpoint_every: 1000, ..train_config(400) };
    let (model, _) = train_base(start, &task, training(&steps, &quiet(2))).expect("it trains");
    Learnt { task, model: model.valid() }
});

/// The official scores of some questions under a null rule.
fn scores<B: QuantBackend>(model: &Gpt2ForQuestionAnswering<B>, task: &ReadingTask, null: NullRule) -> Evaluation {
    let decode = DecodeConfig { null, ..DecodeConfig::default() };
    let options = EvaluateOptions { decode, ..EvaluateOptions::default() };
    let evaluator = Evaluator::new(model, task, options, &B::Device::default()).expect("valid input");
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    evaluate(&task.dataset, &evaluator.predict(&plan).expect("valid input").1).expect("there are questions")
}

#[test]
fn a_model_trained_on_version_2_answers_with_nothing_where_there_is_no_answer() {
    skip_without_device!();
    let Learnt { task, model } = &*LEARNT;
    assert_eq!(task.training_counts().text("questions"), "48 questions");
    let exact = |null| {
        let found = scores(model, task, null);
        [found.has_answer, found.no_answer].map(|subset| subset.expect("there are both").exact)
    };
    let [has, no] = exact(NullRule::Never);
    assert!(has > 50.0 && no == 0.0, "always answered: {has} {no}");
    let [has, no] = exact(NullRule::Threshold(0.0));
    assert!(has > 50.0 && no > 50.0, "by the null rule: {has} {no}");
    let [has, no] = exact(NullRule::Threshold(-1e6));
    assert!(has < 1e-9 && no > 100.0 - 1e-9, "never answered: {has} {no}");
}

#[test]
fn a_threshold_chosen_on_held_out_questions_holds_for_the_others() {
    skip_without_device!();
    let Learnt { task, model } = &*LEARNT;
    let [held_out, measured] = task.held_out(0.3, 2).unwrap();
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    let evaluator = |task| Evaluator::new(model, task, EvaluateOptions::default(), &device()).unwrap();
    let nulls = evaluator(&held_out).null_answers(&plan).unwrap();
    let threshold = nulls.best_threshold(&held_out.dataset).unwrap();
    let chosen = scores(model, &measured, NullRule::Threshold(threshold));
    let always = scores(model, &measured, NullRule::Never);
    assert!(chosen.f1 > always.f1 + 10.0, "threshold {threshold}: {} against {}", chosen.f1, always.f1);

    // The same by the official script's way, with what the best thresholds would give.
    let official = evaluator(&measured).null_answers(&plan).unwrap().evaluate(&measured.dataset, threshold).unwrap();
    assert_eq!((official.exact_match, official.f1), (chosen.exact_match, chosen.f1));
    assert!(official.best.unwrap().f1 >= chosen.f1);
}

#[test]
fn data_of_version_1_have_no_null_threshold() {
    skip_without_device!();
    let Learnt { task, model } = &*LEARNT;
    let mut task = task.clone();
    task.dataset.format = Format::V1;
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    let evaluator = Evaluator::new(model, &task, EvaluateOptions::default(), &device()).unwrap();
    let message = evaluator.null_answers(&plan).unwrap_err().to_string();
    assert!(message.contains("version 1.1"), "{message}");
}
