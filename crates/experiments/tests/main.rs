//! Tests of training, evaluation and search on a tiny model and generated questions.

mod allocation;
mod bad_input;
mod bank_training;
mod cost;
mod data_parallel;
mod dynamic;
mod estimates;
mod generated_answers;
mod ladder;
mod learned_steps;
mod llama;
mod null_rule;
mod report;
mod robustness;
mod search;
mod support;
mod training;
mod validation;
mod width_heads;
