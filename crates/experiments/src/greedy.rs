//! Greedy bit-width search (D4 of the study).
//!
//! ```text
//! start:   every site at the high precision
//! repeat:  flip the site that did least harm alone to the low precision
//! until:   EM ≤ (1 − tolerance) · EM(all high);  that last flip is undone
//! ```

use gpt2_model::{Site, SitePlan, SitePrecision};
use quant_kernels::QuantBackend;
use serde::{Deserialize, Serialize};

use crate::accuracy::Accuracy;
use crate::evaluate::{Evaluator, KeptStates};
use crate::harm_order::HarmOrder;
use crate::progress::{Progress, ShowProgress};
use crate::sensitivity::{Effect, Sensitivity};
use crate::{Error, Result};

/// Options of the search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GreedyOptions {
    /// Precision that sites are flipped to.
    pub low: SitePrecision,
    /// Share of the exact match that may be lost, in (0, 1).
    pub tolerance: f64,
    /// Whether progress is shown.
    pub show: ShowProgress,
}

/// One flip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flip {
    /// The site.
    pub site: String,
    /// Accuracy with this and all earlier accepted flips.
    pub accuracy: Accuracy,
    /// Mean width of the weights in bits, weighted by parameters.
    pub average_bits: f64,
    /// Whether the flip was kept.
    pub accepted: bool,
}

/// Result of the search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GreedyResult {
    /// Accuracy with every site at the high precision.
    pub reference: Accuracy,
    /// Exact match in percent that a plan must stay above.
    pub threshold: f64,
    /// Every flip tried, in order.
    pub path: Vec<Flip>,
    /// Names of the flipped sites, in order.
    pub flipped: Vec<String>,
    /// Accuracy of the final plan.
    pub accuracy: Accuracy,
}

/// Searches from a reference plan in the order of the sensitivity of its sites.
///
/// `kept` are the reference's states, as [`sensitivity`](crate::sensitivity()) returns them.
///
/// # Errors
///
/// When the tolerance is outside (0, 1), the sensitivity is not one of single sites, an adapter is
/// missing, or the work is stopped.
pub fn greedy_search<B: QuantBackend>(
    evaluator: &Evaluator<'_, B>,
    reference: &SitePlan,
    sensitivity: &Sensitivity,
    kept: KeptStates<B>,
    options: &GreedyOptions,
) -> Result<(GreedyResult, SitePlan)> {
    check_tolerance(options.tolerance)?;
    let sites: Option<Vec<Site>> = sensitivity.by_harm(HarmOrder::ExactMatch).into_iter().map(Effect::site).collect();
    let sites = sites.ok_or_else(|| Error::option("sensitivity", "of blocks", "the sensitivity of single sites"))?;
    let config = evaluator.model().config();
    let full = &sensitivity.reference;
    let threshold = (1.0 - options.tolerance) * full.exact_match;
    let (mut plan, mut accuracy, mut kept) = (reference.clone(), full.clone(), kept);
    let (mut path, mut flipped) = (Vec::new(), Vec::new());
    let mut progress = Progress::start("greedy search", 0, sites.len(), options.show);
    for site in sites {
        let trial = plan.clone().with(site, options.low);
        let (tried, states) = evaluator.evaluate_keeping(Some(&kept), &trial)?;
        let accepted = tried.exact_match > threshold;
        let average_bits = trial.average_weight_bits(config);
        progress.step(format!("{site} EM {:.1} at {average_bits:.1} bits", tried.exact_match));
        path.push(Flip { site: site.to_string(), accuracy: tried.clone(), average_bits, accepted });
        if !accepted {
            break;
        }
        flipped.push(site.to_string());
        (plan, accuracy, kept) = (trial, tried, states);
    }
    progress.finish();
    Ok((GreedyResult { reference: full.clone(), threshold, path, flipped, accuracy }, plan))
}

/// # Errors
///
/// When a tolerance is outside (0, 1).
pub fn check_tolerance(tolerance: f64) -> Result<()> {
    if tolerance > 0.0 && tolerance < 1.0 {
        Ok(())
    } else {
        Err(Error::option("tolerance", tolerance, "a number above 0 and below 1"))
    }
}
