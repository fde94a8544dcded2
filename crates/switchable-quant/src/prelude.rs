//! The names that most programs need: `use switchable_quant::prelude::*;`.
//!
//! It has no `Error` and no `Result`, so that a program's own stay what they are.

pub use burn::tensor::Tensor;
pub use burn::tensor::backend::{AutodiffBackend, Backend};

pub use quant_kernels::{
    backends::quant_backend::{QuantAutodiffBackend, QuantBackend},
    spec::{
        bit_width::BitWidth, formats::format::Format, gradient_rule::GradientRule, granularity::Granularity,
        quant_spec::QuantSpec, range_estimator::RangeEstimator,
    },
    tensor::fake_quantize::fake_quantize,
};

pub use switchable_lora::{
    linear_settings::{BasePolicy, LinearSettings},
    lora_bank::LoraBank,
    lora_config::{LoraConfig, LoraInit},
    placement::Placement,
    precision_plan::PrecisionPlan,
    site_precision::SitePrecision,
    switchable_linear::SwitchableLinear,
};

pub use gpt2_model::{
    AdapterFolders, Generate, Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, ModelConfig, ModelOptions, ModelWeights,
    NamedPlans, PackModel, Site, SitePlan, SubModule, SwitchableModel, WeightSource,
};

pub use squad_data::{Dataset, Predictions, TextTokenizer};

pub use span_reader::{Accuracy, Cost, EvaluateOptions, Evaluator, ReadingTask, answer};

#[cfg(feature = "experiments")]
pub use experiments::search::greedy::GreedyOptions;
#[cfg(feature = "experiments")]
pub use experiments::search::greedy::greedy_search;

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub use crate::backend::{Cpu, CpuDevice};
pub use crate::default_model::{self, DefaultModel};
#[cfg(feature = "experiments")]
pub use crate::device::WithAutodiff;
pub use crate::device::{Device, DeviceChoice, WithBackend};
