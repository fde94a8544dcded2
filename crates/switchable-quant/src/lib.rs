//! One GPT-2 whose every linear sub-module runs at its own bit-width, chosen per call.
//!
//! A bank of LoRA adapters, one per bit-width, repairs what quantisation breaks; training makes
//! such a bank, and a search finds which sub-module can afford how few bits. This crate is the one
//! to depend on: it re-exports the others, chooses the backend at run time, and carries a small
//! trained model.
//!
//! ```
//! use switchable_quant::prelude::*;
//!
//! // 4 bits everywhere, but 8 in the second matrix of every MLP and in the whole first block.
//! let mut plan = PrecisionPlan::uniform(SitePrecision::uniform(BitWidth::B4));
//! plan.set_sub_module("mlp.c_proj", SitePrecision::uniform(BitWidth::B8));
//! plan.set_block("h.0", SitePrecision::uniform(BitWidth::B8));
//!
//! assert_eq!(plan.get("h.7.attn.c_attn").weights, BitWidth::B4);
//! assert_eq!(plan.get("h.7.mlp.c_proj").weights, BitWidth::B8);
//! assert_eq!(plan.get("h.0.attn.c_attn").weights, BitWidth::B8);
//! ```
//!
//! # Map
//!
//! | module | crate | what |
//! |---|---|---|
//! | [`kernels`] | `quant-kernels` | bit-widths, quantisation of tensors and its gradients |
//! | [`lora`] | `switchable-lora` | linear layers with a width per call, adapter banks, plans |
//! | [`model`] | `gpt2-model` | GPT-2 from and to Hugging Face folders |
//! | [`data`] | `squad-data` | SQuAD, tokenizers, windows, metrics, generated corpora |
//! | [`reader`] | `span-reader` | accuracy and cost of a plan, plans chosen at run time |
//! | [`experiments`] | `experiments` | training, sensitivity, search, attacks, report |
//! | [`charts`] | `charts` | figures with intervals |
//! | [`device`], [`backend`] | this one | the device by a `--device` text; the backends by name |
//! | [`default_model`] | this one | the model that is part of the crate |
//! | `hub` | this one | `--model` and `--data` by name, with the feature `hub` |
//!
//! [`prelude`] has the names that most programs need.
//!
//! # Features
//!
//! | feature | what | default |
//! |---|---|---|
//! | `flex` | CPU backend of burn, with the widest vector instructions of the machine | yes |
//! | `ndarray` | another CPU backend of burn | |
//! | `cuda` | NVIDIA GPUs; needs the driver and toolkit when run, nothing to build | |
//! | `wgpu` | GPUs by Vulkan, Metal or DirectX 12 | |
//! | `hub` | downloads from the Hugging Face Hub and SQuAD's site | |
//!
//! # Should I use this crate?
//!
//! Use it to make a GPT-2 small and know what that costs, or to study quantisation that switches
//! at run time. Code that needs one part, such as quantised tensors or SQuAD's metrics, can depend
//! on that crate alone.

#[cfg(any(feature = "cuda", test))]
mod cuda_driver;
mod error;

pub mod backend;
pub mod default_model;
pub mod device;
#[cfg(feature = "hub")]
pub mod hub;
pub mod prelude;

pub use burn;
pub use charts;
pub use error::{Error, Result};
pub use experiments;
pub use gpt2_model as model;
pub use quant_kernels as kernels;
pub use span_reader as reader;
pub use squad_data as data;
pub use switchable_lora as lora;
