//! The adapter bank: one LoRA adapter per width on a frozen, quantised base (D6 of the study).

use gpt2_model::{BitWidth, Gpt2ForQuestionAnswering, SitePlan, SitePrecision};
use quant_kernels::QuantAutodiffBackend;
use switchable_lora::{BasePolicy, LinearSettings, LoraConfig};

use crate::reading::ReadingTask;
use crate::train::{Single, Static, TrainConfig, TrainOutcome, TrainRun, train};
use crate::{Error, Result};

/// Widths and adapters of a bank.
#[derive(Debug, Clone, PartialEq)]
pub struct BankConfig {
    /// Widths that get an adapter, trained in this order, one per step, over and over.
    pub widths: Vec<BitWidth>,
    /// Rank, alpha and initialisation of every adapter.
    pub lora: LoraConfig,
    /// Seed of the initialisation.
    pub seed: u64,
}

/// Trains base and head in full precision, without adapters.
///
/// # Errors
///
/// As [`train`].
pub fn train_base<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    task: &ReadingTask,
    config: &TrainConfig,
    run: &TrainRun,
    device: &B::Device,
) -> Result<(Gpt2ForQuestionAnswering<B>, TrainOutcome)> {
    let model = with_base(model, BasePolicy::Trainable);
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    train(model, task, &Single(plan), config, run, device)
}

/// Gives a model a bank and trains it by the `static` regime: step `t` runs every site at width
/// `t mod n` with that width's adapter. Base and head stay as they are.
///
/// # Errors
///
/// When a width comes twice or none is given, the rank does not fit, or as [`train`].
pub fn train_bank<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    task: &ReadingTask,
    bank: &BankConfig,
    config: &TrainConfig,
    run: &TrainRun,
    device: &B::Device,
) -> Result<(Gpt2ForQuestionAnswering<B>, TrainOutcome)> {
    let mut distinct = bank.widths.clone();
    distinct.sort_unstable();
    if let Some([width, _]) = distinct.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::option("bits", format!("{width} twice"), "each width once"));
    }
    let mut model = with_base(model, BasePolicy::Frozen);
    for &width in &bank.widths {
        model.transformer.init_adapters(width, &bank.lora, bank.seed.wrapping_add(u64::from(width.bits())))?;
    }
    let plans = bank.widths.iter().map(|&width| model.transformer.uniform_plan(SitePrecision::uniform(width)));
    let regime = Static::new(plans.collect::<Vec<SitePlan>>())?;
    train(model, task, &regime, config, run, device)
}

fn with_base<B: QuantAutodiffBackend>(
    model: Gpt2ForQuestionAnswering<B>,
    base: BasePolicy,
) -> Gpt2ForQuestionAnswering<B> {
    let settings = model.transformer.h.first().map(|block| block.attn.c_attn.settings()).unwrap_or_default();
    model.with_linear_settings(LinearSettings { base, ..settings })
}
