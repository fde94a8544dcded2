//! The questions and the experiments of a study.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;

use switchable_quant::data::Dataset;
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::experiments::banks::bank::BankConfig;
use switchable_quant::experiments::banks::contestants::Contestants;
use switchable_quant::experiments::banks::learned_grid::StepTraining;
use switchable_quant::experiments::report::stages::dynamic::DynamicStudy;
use switchable_quant::experiments::report::stages::regimes::RegimeStudy;
use switchable_quant::experiments::report::stages::robustness::RobustnessStudy;
use switchable_quant::experiments::report::stages::roundings::Roundings;
use switchable_quant::experiments::report::study::StudyConfig;
use switchable_quant::experiments::train::config::TrainConfig;
use switchable_quant::experiments::train::schedule::Schedule;
use switchable_quant::kernels::BitWidth;
use switchable_quant::lora::LoraConfig;

use crate::arguments::attack_budget::AttackBudgetArgs;
use crate::arguments::count::parse_up_to;
use crate::arguments::hardening::HardeningArgs;
use crate::arguments::input::InputArgs;
use crate::arguments::widths::parse_bits;
use crate::ending::usage;
use crate::files::{LoadedQuestions, load_questions, load_training_set, resolve_data};

/// Questions that plans are searched on and adapters trained on.
#[derive(Debug, Clone, Args)]
pub struct StudyDataArgs {
    /// SQuAD JSON file that plans are searched on; needed with --data
    #[arg(long, value_name = "FILE")]
    pub search: Option<String>,
    /// Use at most this many search questions
    #[arg(long, default_value_t = 240, value_name = "N")]
    pub search_limit: usize,
    /// SQuAD JSON files that adapters are trained on, and the model on attacks; needed with --data unless
    /// neither is asked for
    #[arg(long, num_args = 1.., value_name = "FILE")]
    pub train: Vec<PathBuf>,
    /// Use at most this many training questions
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    pub train_limit: usize,
}

/// The experiments of a study.
#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each flag leaves out one experiment")]
pub struct StudyArgs {
    /// Report these stages alone, such as uniform,roundings; what they need of others is found on the way
    #[arg(long, value_delimiter = ',', value_name = "STAGE,...")]
    pub only: Vec<String>,
    /// Leave out the comparison of roundings and ranges
    #[arg(long)]
    pub no_roundings: bool,
    /// Optimiser steps of each cell with learned steps in that comparison, on the training questions; 0 leaves them out
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub rounding_steps: usize,
    /// Leave out the comparison of training regimes
    #[arg(long)]
    pub no_regimes: bool,
    /// Regimes that are compared with static, such as cyclic-equal-steps,joint; all by default
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub contestants: Vec<String>,
    /// Leave out the attacks
    #[arg(long)]
    pub no_robustness: bool,
    /// Leave out the choice of plans at run time
    #[arg(long)]
    pub no_dynamic: bool,
    /// Widths that are attacked
    #[arg(long, default_value = "32,8,4,3", value_parser = parse_bits, value_name = "BITS,...")]
    pub attack_bits: std::vec::Vec<BitWidth>,
    /// Report questions that are attacked
    #[arg(long, default_value_t = 60, value_name = "N")]
    pub attack_items: usize,
    /// How long attacks search.
    #[command(flatten)]
    pub budget: AttackBudgetArgs,
    /// Training on attacks.
    #[command(flatten)]
    pub hardening: HardeningArgs,
    /// Widths of the banks that are trained
    #[arg(long, default_value = "32,4,3,2", value_parser = parse_bits, value_name = "BITS,...")]
    pub bits: std::vec::Vec<BitWidth>,
    /// Optimiser steps of the static regime; the others get as many BitOps
    #[arg(long, default_value_t = 120, value_name = "N")]
    pub steps: usize,
    /// Seeds of every regime
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub seeds: u64,
    /// Rank of the adapters
    #[arg(long, default_value_t = 8, value_parser = parse_up_to::<65_536>)]
    pub rank: usize,
    /// Highest learning rate of the adapters
    #[arg(long, default_value_t = 2e-3)]
    pub learning_rate: f64,
    /// Share of the exact match that the greedy search may lose
    #[arg(long, default_value_t = 0.1)]
    pub tolerance: f64,
    /// Width of the sensitivities and the greedy search; by default the highest of 4, 3 and 2 bits that
    /// costs more than the noise
    #[arg(long, value_name = "BITS")]
    pub low: Option<BitWidth>,
    /// Swaps tried at each budget of the exact allocation
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub swaps: usize,
}

impl StudyDataArgs {
    /// Checks, before anything is opened, that questions of the user's own come with all that the study needs.
    ///
    /// # Errors
    ///
    /// A [`Usage`](crate::Usage) that names the flag that is missing.
    pub fn check(&self, data: Option<&str>, study: &StudyArgs) -> anyhow::Result<()> {
        match data {
            Some(_) if self.search.is_none() => Err(search_missing()),
            Some(_) if self.train.is_empty() && study.trains() => Err(train_missing()),
            _ => Ok(()),
        }
    }

    /// The questions to search on; those of the `input` are reported on.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or is needed and not named.
    pub fn search(&self, input: &InputArgs) -> anyhow::Result<LoadedQuestions> {
        let questions = match (&self.search, &input.data) {
            (Some(file), _) => load_questions(&resolve_data(file)?, input.reading)?,
            (None, None) => default_model::questions(QuestionSet::Search)?.into(),
            (None, Some(_)) => return Err(search_missing()),
        };
        Ok(questions.limited(self.search_limit))
    }

    /// The questions to train on; where nothing is trained, those of the search stand in.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or is needed and not named.
    pub fn train(
        &self,
        input: &InputArgs,
        study: &StudyArgs,
        search: &LoadedQuestions,
    ) -> anyhow::Result<LoadedQuestions> {
        let questions = match (self.train.is_empty(), &input.data) {
            (false, _) => load_training_set(&self.train, input.reading)?,
            (true, None) => default_model::questions(QuestionSet::Train)?.into(),
            (true, Some(_)) if !study.trains() => search.clone(),
            (true, Some(_)) => return Err(train_missing()),
        };
        Ok(questions.limited(self.train_limit))
    }
}

/// Refuses questions that are used for a choice and measured on as well.
///
/// # Errors
///
/// When there are any, with how many.
pub fn check_unseen(flag: &str, used: &Dataset, measured: &Dataset) -> anyhow::Result<()> {
    let ids: HashSet<&str> = used.questions().map(|question| question.id.as_str()).collect();
    let both = measured.questions().filter(|question| ids.contains(question.id.as_str())).count();
    anyhow::ensure!(
        both == 0,
        "{both} of the questions of `--data` are in `{flag}` too: what is reported has to be unseen"
    );
    Ok(())
}

fn search_missing() -> anyhow::Error {
    usage("`--data` needs `--search`: plans are not chosen on the questions they are reported on")
}

fn train_missing() -> anyhow::Error {
    usage(
        "`--data` needs `--train`, or `--no-regimes`, `--rounding-steps 0` and `--adversarial-rounds 0` to leave the training out",
    )
}

impl StudyArgs {
    /// Whether anything is trained.
    pub fn trains(&self) -> bool {
        let takes_part = |stage: &str| self.only.is_empty() || self.only.iter().any(|name| name == stage);
        let regimes = !self.no_regimes && takes_part("regimes");
        let roundings = self.learns_steps() && takes_part("roundings");
        let hardening = !self.no_robustness && self.hardening.adversarial_rounds > 0 && takes_part("robustness");
        regimes || roundings || hardening
    }

    /// Whether the comparison of roundings has learned steps.
    fn learns_steps(&self) -> bool {
        !self.no_roundings && self.rounding_steps > 0
    }

    /// The study that the flags name.
    ///
    /// # Errors
    ///
    /// When the rank is out of its range.
    pub fn config(&self, batch_size: usize, seed: u64) -> anyhow::Result<StudyConfig> {
        let robustness = RobustnessStudy {
            widths: self.attack_bits.clone(),
            items: self.attack_items,
            budget: self.budget.budget(),
            training: self.hardening.training(batch_size, seed),
            ..RobustnessStudy::default()
        };
        let regimes = self.regimes(batch_size, seed)?;
        let train = TrainConfig { steps: self.rounding_steps, ..regimes.train.clone() };
        let lora = LoraConfig::new(self.rank, 16.0)?;
        let learned = self.learns_steps().then_some(StepTraining { lora, train });
        let roundings = Roundings { learned, ..Roundings::default() };
        Ok(StudyConfig {
            low: self.low,
            tolerance: self.tolerance,
            swaps: self.swaps,
            roundings: (!self.no_roundings).then_some(roundings),
            regimes: (!self.no_regimes).then_some(regimes),
            robustness: (!self.no_robustness).then_some(robustness),
            dynamic: (!self.no_dynamic).then(DynamicStudy::default),
            ..StudyConfig::default()
        })
    }

    fn regimes(&self, batch_size: usize, seed: u64) -> anyhow::Result<RegimeStudy> {
        let train = TrainConfig {
            steps: self.steps,
            batch_size,
            micro_batches: if batch_size.is_multiple_of(2) { 2 } else { 1 },
            schedule: Schedule { peak: self.learning_rate, final_share: 0.05, ..Schedule::default() },
            weight_decay: 0.0,
            checkpoint_every: 50,
            ..TrainConfig::default()
        };
        Ok(RegimeStudy {
            bank: BankConfig::new(&self.bits, LoraConfig::new(self.rank, 16.0)?, seed),
            range_steps: (self.steps / self.bits.len().max(1)).max(4),
            range_threshold: 0.05,
            seeds: (seed..seed + self.seeds).collect(),
            table: Contestants::default(),
            contestants: self.contestants.clone(),
            train,
        })
    }
}
