//! The plans that a bank is trained at, from the fewest bits to the most.

use serde_json::{Value, json};

use quant_kernels::spec::bit_width::BitWidth;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};

/// A plan and the width that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// The width.
    pub bits: BitWidth,
    /// The plan of that width.
    pub plan: SitePlan,
}

/// Plans by ascending width, each width once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder(Vec<Rung>);

impl Ladder {
    /// Sorts the plans by width.
    ///
    /// # Errors
    ///
    /// When there is none, or a width comes twice.
    pub fn new(plans: impl IntoIterator<Item = (BitWidth, SitePlan)>) -> Result<Self> {
        let mut rungs: Vec<Rung> = plans.into_iter().map(|(bits, plan)| Rung { bits, plan }).collect();
        rungs.sort_by_key(|rung| rung.bits);
        if rungs.is_empty() {
            return Err(Error::option("bits", "empty", "at least one width"));
        }
        if let Some(pair) = rungs.windows(2).find(|pair| pair[0].bits == pair[1].bits) {
            return Err(Error::option("bits", format!("{} twice", pair[0].bits), "each width once"));
        }
        Ok(Self(rungs))
    }

    /// All rungs, ascending.
    pub fn rungs(&self) -> &[Rung] {
        &self.0
    }

    /// The same widths without adapters.
    #[must_use]
    pub fn without_adapters(&self) -> Self {
        let bare = |rung: &Rung| Rung { bits: rung.bits, plan: rung.plan.clone().without_adapters() };
        Self(self.0.iter().map(bare).collect())
    }

    /// The same widths with other adapters: those of a precision of each width.
    #[must_use]
    pub fn with_adapters_of(&self, precision: impl Fn(BitWidth) -> SitePrecision) -> Self {
        let with_adapters = |rung: &Rung| {
            let SitePrecision { adapter, shared, .. } = precision(rung.bits);
            let sites = rung.plan.iter();
            let plan = sites
                .fold(rung.plan.clone(), |plan, (site, own)| plan.with(site, SitePrecision { adapter, shared, ..own }));
            Rung { bits: rung.bits, plan }
        };
        Self(self.0.iter().map(with_adapters).collect())
    }

    /// The rung of the most bits.
    ///
    /// # Panics
    ///
    /// Never: a ladder has a rung.
    pub fn highest(&self) -> &Rung {
        self.0.last().expect("a ladder has a rung")
    }

    /// The rung whose width is nearest to a number of bits; of two equally near the lower one.
    ///
    /// # Panics
    ///
    /// Never: a ladder has a rung.
    pub fn nearest(&self, bits: f64) -> &Rung {
        let distance = |rung: &Rung| (f64::from(rung.bits.bits()) - bits).abs();
        self.0.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("a ladder has a rung")
    }

    /// Widths and plans, for the identity of a run.
    pub fn describe(&self) -> Value {
        let rung = |rung: &Rung| json!({ "bits": rung.bits, "plan": rung.plan.to_precision_plan() });
        self.0.iter().map(rung).collect()
    }

    /// Number of rungs, at least one.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: there is at least one rung.
    pub fn is_empty(&self) -> bool {
        false
    }
}
