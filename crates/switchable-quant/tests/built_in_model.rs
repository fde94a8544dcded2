//! The model that is part of the crate does what the README says of it.

#![cfg(feature = "flex")]

use gpt2_model::{AdapterFolders, ModelConfig, SwitchableModel};
use switchable_quant::backend::Flex;
use switchable_quant::burn::backend::flex::FlexDevice;
use switchable_quant::default_model::{self, BANK_WIDTHS, DefaultModel, QuestionSet};
use switchable_quant::kernels::BitWidth;
use switchable_quant::model::{ModelOptions, SitePrecision};
use switchable_quant::reader::evaluation::evaluate::Evaluator;
use switchable_quant::reader::evaluation::options::EvaluateOptions;
use switchable_quant::reader::evaluation::reading::ReadingTask;

fn load() -> DefaultModel<Flex> {
    default_model::load(&ModelOptions::default(), &FlexDevice).expect("the built-in model loads")
}

#[test]
fn it_has_the_grid_of_gpt2_small_and_an_adapter_at_every_width() {
    let DefaultModel { model, tokenizer, .. } = load();
    assert_eq!(model.config().sites().len(), 48);
    assert_eq!(model.config().vocab_size, tokenizer.vocab_size());
    let mut widths = BANK_WIDTHS.to_vec();
    widths.sort_unstable();
    assert_eq!(model.transformer.adapter_widths(), widths);
    for site in model.config().sites().iter() {
        for width in BANK_WIDTHS {
            assert!(model.transformer.site(site).bank().get(width).is_some(), "{site:?} at {width} bits");
        }
    }
}

#[test]
fn it_answers_held_out_questions_and_its_adapters_repair_two_bits() {
    let DefaultModel { model, tokenizer, .. } = load();
    let questions = default_model::questions(QuestionSet::HeldOut).unwrap();
    assert_eq!(questions.len(), 1200);
    let task = ReadingTask::new(questions.limited(120), &tokenizer, model.config(), None).unwrap();
    let evaluator = Evaluator::new(&model, &task, EvaluateOptions::default(), &FlexDevice).unwrap();
    let exact = |precision| evaluator.evaluate(&model.transformer.uniform_plan(precision)).unwrap().exact_match;
    let full = exact(SitePrecision::FULL);
    assert!(full >= 85.0, "{full}");
    assert!(exact(SitePrecision::uniform(BitWidth::B4)) >= 0.97 * full);
    let two = SitePrecision::uniform(BitWidth::B2);
    let (with, without) = (exact(two), exact(two.without_adapter()));
    assert!(with > without + 10.0, "{with} with adapters, {without} without");
}

#[test]
fn its_question_sets_are_the_same_in_every_call_and_differ_from_each_other() {
    let [search, again, held_out] = [QuestionSet::Search, QuestionSet::Search, QuestionSet::HeldOut]
        .map(|set| default_model::questions(set).unwrap());
    assert_eq!(search.len(), 240);
    assert_eq!(search.to_json(), again.to_json());
    let contexts = |set: &switchable_quant::data::Dataset| -> std::collections::BTreeSet<String> {
        set.examples().iter().map(|example| example.context.to_string()).collect()
    };
    assert!(contexts(&search).is_disjoint(&contexts(&held_out)));
}
