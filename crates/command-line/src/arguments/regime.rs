//! How a bank is trained.

use anyhow::Context as _;
use clap::Args;

use switchable_quant::experiments::train::branch::{Distance, Protection};
use switchable_quant::experiments::train::regimes::config::{RegimeConfig, RegimeKind, Specialisation};
use switchable_quant::lora::SitePrecision;
use switchable_quant::transformer::sites::{Site, Sites};

/// How a bank is trained.
#[derive(Debug, Clone, Args)]
pub struct RegimeArgs {
    /// static, cyclic, triangular, shuffled (each width as often as in cyclic, in random order), random, joint or cascade
    #[arg(long, default_value = "static")]
    pub regime: RegimeKind,
    /// Cycles of the cyclic regime in a run, and of the one that shuffled shuffles
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
    pub fn config(&self, sites: &Sites, low: SitePrecision, seed: u64) -> anyhow::Result<RegimeConfig> {
        let site = |name: &String| {
            let found = sites.find(name);
            found.with_context(|| format!("`--specialise {name}`: the model has no such site"))
        };
        let chosen = self.specialise.iter().map(site).collect::<anyhow::Result<Vec<Site>>>()?;
        let share = self.specialised_share;
        Ok(RegimeConfig {
            kind: self.regime.clone(),
            cycles: self.cycles,
            beta: self.beta,
            distance: if self.mse { Distance::Mse } else { Distance::Kl },
            protection: if self.guard { Protection::Guarded } else { Protection::None },
            layer_dropout: self.layer_dropout,
            specialisation: (!chosen.is_empty()).then_some(Specialisation { sites: chosen, low, share }),
            seed,
            ..RegimeConfig::default()
        })
    }
}
