//! Tests of training, evaluation and search on a tiny model and generated questions.

mod bad_input;
mod cost;
mod robustness;
mod search;
mod support;
mod training;
