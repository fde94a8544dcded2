//! Damage of all sites at all precisions from one backward pass for each window.
//!
//! ```text
//! Δ_b      = W_b − W_ref              W_b what multiplies the input at precision b: Q_b(W), and s·A·B of its adapter
//! u_n(b)   = ⟨G_n, Δ_b⟩               G_n [d_in, d_out], gradient of window n with respect to the site's weight
//! diverge  ≈ ¼ · mean_n u_n²          G_n of  g_start·z_start + g_end·z_end
//! loss     ≈ mean_n u_n + mean_n u_n²     G_n of the window's loss  −½ · (log p_start(i*) + log p_end(j*))
//!
//! g = √p ⊙ ε − p · ⟨√p, ε⟩,    ε uniform in {−1, 1} per position,    E[g gᵀ] = diag(p) − p pᵀ
//! ```
//!
//! `z` are the logits and `p` the answer distribution of the reference. `diag(p) − p pᵀ` is the curvature of
//! `KL(p ‖ softmax(z))` and also the covariance of the gradient of `log p(y)` for a label `y` drawn from `p`: the
//! mean of `u²` is `Δᵀ F Δ` with the Fisher information F of the whole window, nothing of it left out. Random signs
//! in place of drawn labels have the same mean and vary less where the answer is nearly certain. For the loss F is
//! that of the gold answers, which is the Hessian only where the model fits them.
//!
//! An answer that is generated is k tokens in the place of two ends, each with a distribution over the vocabulary: the
//! factors are `1/(2k)` for the divergence and `k/2` for the second order of the loss, means over the tokens both; a span has
//! k = 2.
//!
//! An inner product is all that a precision costs, so that every width comes from the same backward pass. What is
//! left out: terms above the second order, which are most of the damage where few bits break a site, what rounding
//! activations does, and another span head that an adapter may bring.
//!
//! Sources: Dong et al., *HAWQ-V2*, arXiv:1911.03852 (curvature times the square of what rounding changes); Li et al.,
//! *BRECQ*, arXiv:2102.05426 (Fisher information in the place of the Hessian); Hutchinson, *A stochastic estimator
//! of the trace of the influence matrix*, Communications in Statistics 1989 (random signs).

use quant_kernels::backends::quant_backend::{QuantAutodiffBackend, QuantBackend};
use span_reader::cost::site_bytes;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::work::Work;
use switchable_model::model::{SwitchableModel, TrainableModel};
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::search::allocation::damage::{Damage, DamageOptions, DamageTable, SiteDamage, choices_of_sites};
use crate::search::estimates::inner_products::{Moments, Windows, moments};
use crate::search::estimates::weight_changes::{WeightChanges, check_floats};
use crate::search::estimates::window::Window;

mod answer_gradient;
mod inner_products;
pub mod settle;
pub mod validation;
mod weight_changes;
mod window;

/// Forward passes that one forward and backward pass are counted as: inputs and weights each have a gradient.
const PASSES: u64 = 3;

/// Estimates what [`measure_damage`](crate::search::allocation::damage::measure_damage) measures.
///
/// Every [`Damage`] of the table [is estimated](Damage::is_estimated); allocations are solved from it as from one
/// that was measured. The accuracy of the reference is measured.
///
/// # Errors
///
/// When there is no choice, weights are only there packed, a choice rounds activations otherwise than the
/// reference, no window holds the gold span that the loss needs, an adapter is missing, or the work is stopped.
pub fn estimate_damage<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    evaluator: &Evaluator<'_, B::InnerBackend, M::InnerModule>,
    reference: &SitePlan,
    options: &DamageOptions,
) -> Result<DamageTable> {
    if options.choices.is_empty() {
        return Err(Error::option("choices", "empty", "at least one precision"));
    }
    let body = &evaluator.model().transformer;
    let sites = choices_of_sites(body, &options.choices, &options.embeddings);
    let windows = Window::all(evaluator.task(), options.measure)?;
    options.known.recall("estimates", || {
        let before = evaluator.work();
        let unchanged = evaluator.evaluate(reference)?;
        let changes = sites
            .iter()
            .map(|(site, choices)| WeightChanges::new(body, reference, *site, choices))
            .collect::<Result<Vec<_>>>()?;
        let found =
            moments::<B, M>(evaluator, &Windows { texts: &windows, plan: reference, changes: &changes }, options)?;
        let passes = PASSES * (reference.blocks() * windows.len()) as u64;
        let rows = sites.iter().zip(found).map(|((site, choices), moments)| {
            let damage = |(&precision, moments): (_, Moments)| Damage {
                precision: body.explicit_at(*site, &precision),
                bytes: site_bytes(body, *site, precision),
                loss: moments.loss(options.measure),
                divergence: moments.divergence(),
                comparison: None,
            };
            let choices = choices.iter().zip(moments).map(damage).collect();
            SiteDamage { site: *site, parameters: body.sites().parameters(*site), choices }
        });
        let mut work = evaluator.work() - before;
        work += Work { blocks_computed: passes, blocks_plain: passes };
        Ok(DamageTable {
            measure: options.measure,
            n: unchanged.n,
            seed: options.seed,
            reference: unchanged,
            sites: rows.collect(),
            block_word: body.sites().block_word().to_owned(),
            work,
        })
    })
}

/// Whether damage from a reference can be estimated: every weight is there in floats.
pub fn can_be_estimated<B: QuantBackend, M: SwitchableModel<B>>(model: &M, reference: &SitePlan) -> bool {
    let sites = reference.sites();
    sites.embeddings().chain(sites.iter()).all(|site| check_floats(model, site).is_ok())
}
