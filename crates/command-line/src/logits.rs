//! Logits to compare models by.

use switchable_quant::burn::tensor::{Int, Tensor, TensorData};
use switchable_quant::kernels::QuantBackend;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::site_plan::SitePlan;

/// Logits of a text that a formula makes.
pub fn logits_of_a_formula<B: QuantBackend, M: SwitchableModel<B>>(model: &M, plan: &SitePlan) -> Tensor<B, 3> {
    let shape = model.shape();
    let ids = (0..shape.positions.min(64)).map(|i| (i * 7919 % shape.vocabulary) as u32).collect::<Vec<_>>();
    logits_of(model, &ids, plan)
}

/// Logits behind each of some tokens.
pub fn logits_of<B: QuantBackend, M: SwitchableModel<B>>(model: &M, ids: &[u32], plan: &SitePlan) -> Tensor<B, 3> {
    let ids: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let shape = [1, ids.len()];
    let ids = Tensor::<B, 2, Int>::from_data(TensorData::new(ids, shape), &model.device());
    model.next_token_scores(model.forward(ids, None, plan), plan)
}
