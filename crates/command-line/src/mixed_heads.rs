//! Span heads of plans that mix widths.

use switchable_quant::kernels::QuantBackend;
use switchable_quant::lora::SitePrecision;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::span_head::ForQuestionAnswering;

/// Checks that a model has a head for plans that mix some precisions, as those of a search do.
///
/// # Errors
///
/// When their adapters came with different heads, and `--span-head` does not say which answers.
pub fn check_mixed_heads<B: QuantBackend, M: SwitchableModel<B>>(
    model: &ForQuestionAnswering<B, M>,
    precisions: &[SitePrecision],
) -> anyhow::Result<()> {
    let plan = model.transformer.uniform_plan(SitePrecision::FULL);
    let sites = model.transformer.sites().iter().zip(precisions);
    let mixed = sites.fold(plan, |plan, (site, &precision)| plan.with(site, precision));
    model.head_of(&mixed)?;
    Ok(())
}
