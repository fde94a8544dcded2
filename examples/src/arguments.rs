//! Flags that several examples take.

use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context as _;
use clap::Args;
use switchable_quant::device::{Device, DeviceChoice};
use switchable_quant::experiments::robustness::hardening::adversarial_training::AdversarialTraining;
use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::experiments::train::branch::{Distance, Protection};
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::regimes::config::{RegimeConfig, RegimeKind, Specialisation};
use switchable_quant::experiments::train::schedule::Schedule;
use switchable_quant::kernels::{BitWidth, QuantSpec};
use switchable_quant::model::{Gpt2Config, LinearSettings, ModelConfig, ModelOptions, Site, SitePrecision};
use switchable_quant::reader::evaluation::evaluate::EvaluateOptions;
use switchable_quant::reader::running::stop::StopFlag;
use switchable_quant::reader::running::workers::Workers;

/// Where and how a command runs.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// auto, cpu, ndarray, cuda, cuda:N or wgpu
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder for results; made when missing
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Batches computed at once; by default one per core on a CPU, one on a GPU
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

impl RunArgs {
    /// The workers for a device.
    pub fn workers(&self, device: &Device) -> Workers {
        Workers::new(self.workers.unwrap_or_else(|| device.worker_threads().get()))
    }

    /// Whether progress is shown.
    pub fn show(&self) -> ShowProgress {
        if self.quiet { ShowProgress::No } else { ShowProgress::Yes }
    }

    /// Options of an evaluation.
    pub fn evaluate_options(&self, device: &Device, batch_size: usize, stop: &StopFlag) -> EvaluateOptions {
        EvaluateOptions { batch_size, workers: self.workers(device), stop: stop.clone(), ..EvaluateOptions::default() }
    }
}

/// Model and questions.
#[derive(Debug, Clone, Args)]
pub struct InputArgs {
    /// Hugging Face folder of a GPT-2, or a name such as openai-community/gpt2 to download;
    /// by default the model that is part of the program
    #[arg(long, value_name = "DIR|NAME")]
    pub model: Option<String>,
    /// Folder of adapters, one sub-folder per width (bits-4, bits-8, …); by default those of the
    /// built-in model, and none for another model
    #[arg(long, value_name = "DIR")]
    pub adapters: Option<PathBuf>,
    /// SQuAD JSON file, v1.1 or v2.0, or squad to download it; by default generated questions
    #[arg(long, value_name = "FILE")]
    pub data: Option<String>,
    /// Use at most this many questions
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Longest window in tokens; by default the model's positions, at most 384
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Windows per batch
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub batch: usize,
}

/// How weights and activations are quantised.
#[derive(Debug, Clone, Args)]
pub struct QuantArgs {
    /// Weight quantiser: granularity,mapping,range; e.g. per-channel,symmetric,min-max
    #[arg(long, default_value = "per-tensor,symmetric,min-max", value_name = "SPEC")]
    pub quantizer: QuantSpec,
}

impl QuantArgs {
    /// Options to build a model with.
    pub fn model_options(&self) -> ModelOptions {
        let linear = LinearSettings { weight: self.quantizer, ..LinearSettings::default() };
        ModelOptions { linear, ..ModelOptions::default() }
    }
}

/// How a bank is trained.
#[derive(Debug, Clone, Args)]
pub struct RegimeArgs {
    /// static, cyclic, triangular, random, joint or cascade
    #[arg(long, default_value = "static")]
    pub regime: RegimeKind,
    /// Cycles of the cyclic regime in a run
    #[arg(long, default_value_t = 8)]
    pub cycles: usize,
    /// Weight of every teacher in the cascade regime
    #[arg(long, default_value_t = 1.0)]
    pub beta: f64,
    /// Compare scores by their mean square in the cascade regime, not by KL divergence
    #[arg(long)]
    pub mse: bool,
    /// Let the lower widths of joint and cascade not act against the highest one
    #[arg(long)]
    pub guard: bool,
    /// Random sites left at the highest width in every step
    #[arg(long, default_value_t = 0, value_name = "SITES")]
    pub layer_dropout: usize,
    /// Sites that get extra steps in which only they are low, such as `h.0.mlp.c_proj,h.1.attn.c_attn`
    #[arg(long, value_delimiter = ',', value_name = "SITES")]
    pub specialise: Vec<String>,
    /// Share of the steps that are such extra ones
    #[arg(long, default_value_t = 0.2)]
    pub specialised_share: f64,
}

impl RegimeArgs {
    /// The regime that the flags name; extra steps run their sites at `low`.
    ///
    /// # Errors
    ///
    /// When a site is not one of the model's.
    pub fn config(&self, shape: &Gpt2Config, low: SitePrecision, seed: u64) -> anyhow::Result<RegimeConfig> {
        let site = |name: &String| {
            let found = shape.sites().find(name);
            found.with_context(|| format!("`--specialise {name}`: the model has no such site"))
        };
        let sites = self.specialise.iter().map(site).collect::<anyhow::Result<Vec<Site>>>()?;
        let share = self.specialised_share;
        Ok(RegimeConfig {
            kind: self.regime.clone(),
            cycles: self.cycles,
            beta: self.beta,
            distance: if self.mse { Distance::Mse } else { Distance::Kl },
            protection: if self.guard { Protection::Guarded } else { Protection::None },
            layer_dropout: self.layer_dropout,
            specialisation: (!sites.is_empty()).then_some(Specialisation { sites, low, share }),
            seed,
            ..RegimeConfig::default()
        })
    }
}

/// How models are trained on attacks.
#[derive(Debug, Clone, Args)]
pub struct HardeningArgs {
    /// Rounds of training on attacks, plain and at random precision, 0 for none
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub adversarial_rounds: usize,
    /// Training questions attacked in a round
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub adversarial_items: usize,
    /// Optimiser steps of a round
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub adversarial_steps: usize,
    /// Highest learning rate of a round; all weights are trained
    #[arg(long, default_value_t = 3e-4)]
    pub adversarial_learning_rate: f64,
}

impl HardeningArgs {
    /// The training that the flags name; `None` for no rounds.
    pub fn training(&self, batch_size: usize, seed: u64) -> Option<AdversarialTraining> {
        let train = TrainConfig {
            steps: self.adversarial_steps,
            batch_size,
            schedule: Schedule { peak: self.adversarial_learning_rate, ..Schedule::default() },
            seed,
            ..TrainConfig::default()
        };
        let (rounds, items_per_round) = (self.adversarial_rounds, self.adversarial_items);
        (rounds > 0).then(|| AdversarialTraining { rounds, items_per_round, train, ..AdversarialTraining::default() })
    }
}

/// A number per width: a default and exceptions, such as `8` or `8,2:16,3:16`.
#[derive(Debug, Clone, PartialEq)]
pub struct PerWidth<T> {
    default: T,
    exceptions: Vec<(BitWidth, T)>,
}

impl<T: Copy> PerWidth<T> {
    /// The number of a width.
    pub fn get(&self, width: BitWidth) -> T {
        self.exceptions.iter().find(|(bits, _)| *bits == width).map_or(self.default, |(_, value)| *value)
    }
}

impl<T: FromStr<Err: Display>> FromStr for PerWidth<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let number = |text: &str| text.parse::<T>().map_err(|e| format!("`{text}`: {e}"));
        let default = number(parts.next().unwrap_or_default())?;
        let exceptions = parts.map(|part| {
            let (bits, value) = part.split_once(':').ok_or_else(|| format!("`{part}`, expected BITS:NUMBER"))?;
            Ok((bits.parse().map_err(|e| format!("`{bits}`: {e}"))?, number(value)?))
        });
        Ok(Self { default, exceptions: exceptions.collect::<Result<_, String>>()? })
    }
}

/// Widths separated by commas, such as `32,16,8,4`.
///
/// # Errors
///
/// When one is not a width.
pub fn parse_bits(text: &str) -> Result<Vec<BitWidth>, String> {
    text.split(',').map(|part| part.trim().parse().map_err(|e| format!("{e}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_per_width_have_a_default_and_exceptions() {
        let ranks: PerWidth<usize> = "8, 2:16,3:12".parse().unwrap();
        assert_eq!([2, 3, 4, 32].map(|bits| ranks.get(BitWidth::new(bits).unwrap())), [16, 12, 8, 8]);
        for wrong in ["", "x", "8,2", "8,2:x", "8,99:4"] {
            assert!(wrong.parse::<PerWidth<usize>>().is_err(), "{wrong}");
        }
    }
}
