#![doc = include_str!("../README.md")]

pub mod artefact;
pub mod certificate;
pub mod choice;
pub mod cost;
pub mod embedded_folder;
pub mod error;
pub mod evaluation;
pub mod footprint;
pub mod gguf_export;
mod gguf_model;
pub mod model_folder;
pub mod running;
pub mod serving;
pub mod statistics;
pub mod text;

pub use cost::Cost;
pub use error::{Error, Result};
pub use evaluation::accuracy::Accuracy;
pub use evaluation::answer::answer;
pub use evaluation::evaluate::Evaluator;
pub use evaluation::options::EvaluateOptions;
pub use evaluation::reading::ReadingTask;
pub use model_folder::{FolderOptions, ModelFolder};
