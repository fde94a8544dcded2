//! What of a model a saved run must find again: its quantiser, and which adapters each site has.
//!
//! Numbers are in the checkpoint. What they mean is not: the same factors under another alpha, or beside a
//! weight that is quantised otherwise, are another model.

use serde_json::{Map, Value, json};

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    spec::{rotation::Rotation, rounding_method::RoundingMethod},
};
use switchable_lora::{adapter_pair::LoraAdapterPair, switchable_linear::SwitchableLinear};
use switchable_model::model::SwitchableModel;

/// The settings of the sites, and the width, rank, alpha and learned step of every adapter.
pub(crate) fn model_identity<B: QuantBackend, M: SwitchableModel<B>>(model: &M) -> Value {
    let sites = model.sites();
    let adapters: Map<String, Value> =
        sites.iter().map(|site| (sites.name(site), adapters(model.site(site)))).collect();
    let settings = model.settings();
    let mut identity = json!({ "weight": settings.weight, "activation": settings.activation,
        "placement": settings.placement, "adapters": adapters });
    // Runs of before there were others say nothing of them.
    if settings.rounding != RoundingMethod::Nearest {
        identity["rounding"] = json!(settings.rounding);
    }
    if settings.rotation != Rotation::None {
        identity["rotation"] = json!(settings.rotation);
    }
    identity
}

fn adapters<B: QuantBackend>(layer: &SwitchableLinear<B>) -> Value {
    let adapter = |pair: &LoraAdapterPair<B>| {
        let step = pair.step().map(|step| step.granularity().to_string());
        json!({ "rank": pair.rank(), "alpha": pair.alpha(), "step": step })
    };
    layer.bank().iter().map(|(width, pair)| (width.bits().to_string(), adapter(pair))).collect::<Map<_, _>>().into()
}
