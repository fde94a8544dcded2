#![doc = include_str!("../README.md")]

pub mod choice;
pub mod cost;
pub mod error;
pub mod evaluation;
pub mod running;
pub mod statistics;

pub use cost::Cost;
pub use error::{Error, Result};
pub use evaluation::accuracy::Accuracy;
pub use evaluation::answer::answer;
pub use evaluation::evaluate::{EvaluateOptions, Evaluator};
pub use evaluation::reading::ReadingTask;
