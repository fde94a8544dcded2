//! The examples of every README, built and run as a crate outside of the workspace builds them.

#[doc = include_str!("../../crates/charts/README.md")]
struct Charts;

#[doc = include_str!("../../crates/experiments/README.md")]
struct Experiments;

#[doc = include_str!("../../crates/gpt2-model/README.md")]
struct Gpt2Model;

#[doc = include_str!("../../crates/llama-model/README.md")]
struct LlamaModel;

#[doc = include_str!("../../crates/quant-kernels/README.md")]
struct QuantKernels;

#[doc = include_str!("../../crates/span-reader/README.md")]
struct SpanReader;

#[doc = include_str!("../../crates/squad-data/README.md")]
struct SquadData;

#[doc = include_str!("../../crates/switchable-lora/README.md")]
struct SwitchableLora;

#[doc = include_str!("../../crates/switchable-model/README.md")]
struct SwitchableModel;

#[doc = include_str!("../../crates/switchable-quant/README.md")]
struct SwitchableQuant;

#[doc = include_str!("../../crates/whole-files/README.md")]
struct WholeFiles;
