#![doc = include_str!("../README.md")]

pub mod adapters;
pub mod attention_mask;
pub mod calibration;
pub mod config;
pub mod error;
pub(crate) mod folder_names;
pub mod generate;
pub mod gguf;
pub mod initial;
pub(crate) mod json_text;
pub mod kv_cache;
pub mod kv_rounding;
pub mod loss;
pub mod model;
pub mod model_weights;
pub mod named_plans;
mod no_adapters;
pub mod options;
pub mod output_matrix;
pub mod packed;
pub mod parameters;
pub mod pass;
pub mod positions;
pub mod prelude;
pub mod scaling;
pub mod shape;
pub mod site_plan;
pub mod sites;
mod span_adapters;
pub mod span_head;
pub mod token_tensor;
pub mod weights;
pub mod width_heads;
pub mod width_heads_record;

pub use error::{Error, Result};
pub use model::{SwitchableModel, TrainableModel};
