//! The plans that a server has, with what they cost and were measured to give: what `/plans` says, and what the choice
//! of a request is checked against before the request waits.

use std::collections::BTreeMap;

use serde::Serialize;

use switchable_quant::kernels::QuantBackend;
use switchable_quant::reader::Error;
use switchable_quant::reader::choice::controller::{PlanRequest, PrecisionController};
use switchable_quant::reader::choice::front::FrontPoint;
use switchable_quant::reader::cost::{embedding_bytes, plan_bit_ops, plan_bytes};
use switchable_quant::reader::serving::plan_choice::PlanChoice;
use switchable_quant::reader::serving::service::Service;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::site_plan::SitePlan;

use super::problem::Problem;

/// One plan.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PlanEntry {
    /// What answers name it by: its name in the artefact, or its place in the front or the cascade.
    pub(super) id: String,
    /// Mean width of the weights, in bits.
    pub(super) average_bits: f64,
    /// Bytes of the matrices at the plan's own widths, with scales and adapters, as budgets count them.
    pub(super) bytes: usize,
    /// Bit operations per token.
    pub(super) bit_ops_per_token: f64,
    /// What was measured, where it was.
    measured: Option<Measured>,
    /// Bits of the weights by block, in the order of the modules.
    weights: Vec<Vec<u8>>,
    /// Bits of the embeddings and of an output matrix of its own.
    embeddings: BTreeMap<String, u8>,
    /// Bits of keys and values by block.
    kv_cache: Vec<u8>,
}

/// Questions answered exactly, percent, with its 95 % interval.
#[derive(Debug, Clone, Copy, Serialize)]
struct Measured {
    exact_match: f64,
    low: f64,
    high: f64,
    n: usize,
}

/// The cascade by the ids of its plans.
#[derive(Debug, Clone, Serialize)]
struct Cascade {
    plans: Vec<String>,
    thresholds: Vec<f64>,
}

/// All plans of a server.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Catalogue {
    model: String,
    modules: Vec<String>,
    blocks: Vec<String>,
    plans: Vec<PlanEntry>,
    /// The plan where nothing is chosen.
    default: String,
    /// The names that a request may choose.
    names: Vec<String>,
    /// The plans that budgets and targets are looked up in.
    front: Vec<String>,
    cascade: Option<Cascade>,
    #[serde(skip)]
    controller: Option<PrecisionController>,
    #[serde(skip)]
    of_entries: Vec<SitePlan>,
}

impl Catalogue {
    /// The plans of a service.
    pub(super) fn of<B: QuantBackend, M: SwitchableModel<B>>(
        service: &Service<B, M>,
        model: String,
    ) -> Result<Self, Error> {
        let default = service.plan(&PlanChoice::Default)?;
        let sites = default.sites();
        let mut catalogue = Self {
            model,
            modules: sites.modules().map(|module| module.name().to_owned()).collect(),
            blocks: (0..sites.blocks()).map(|block| sites.block_name(block)).collect(),
            plans: Vec::new(),
            default: String::new(),
            names: service.names().map(str::to_owned).collect(),
            front: Vec::new(),
            cascade: None,
            controller: service.controller().cloned(),
            of_entries: Vec::new(),
        };
        for name in service.names() {
            catalogue.add(service, service.folder().plan_of(name)?, name.to_owned());
        }
        catalogue.default = catalogue.add(service, default, "default".to_owned());
        let picks = service.controller().into_iter().flat_map(PrecisionController::picks).enumerate();
        catalogue.front =
            picks.map(|(place, pick)| catalogue.add(service, pick.plan, format!("front-{}", place + 1))).collect();
        let stages = service.cascade_plans().enumerate();
        let stages: Vec<String> =
            stages.map(|(stage, plan)| catalogue.add(service, plan, format!("cascade-{}", stage + 1))).collect();
        let thresholds = service.thresholds().to_vec();
        catalogue.cascade = (!stages.is_empty()).then_some(Cascade { plans: stages, thresholds });
        Ok(catalogue)
    }

    /// The id of a plan, which is added where no other is equal to it.
    fn add<B: QuantBackend, M: SwitchableModel<B>>(
        &mut self,
        service: &Service<B, M>,
        plan: &SitePlan,
        id: String,
    ) -> String {
        if let Some(entry) = self.entry(plan) {
            return entry.id.clone();
        }
        let controller = service.controller();
        let point = controller.and_then(|controller| controller.picks().find(|pick| pick.plan == plan));
        let n = controller.map_or(0, |controller| controller.front().n());
        let model = &service.folder().model.transformer;
        let are_full = plan.embeddings().all(|(_, precision)| precision.weights.is_full());
        let of_embeddings = if are_full { 0 } else { embedding_bytes(model, plan) };
        let bits = |block| plan.block(block).iter().map(|precision| precision.weights.bits()).collect();
        let sites = plan.sites();
        self.plans.push(PlanEntry {
            id: id.clone(),
            average_bits: plan.average_weight_bits(),
            bytes: point.map_or_else(|| plan_bytes(model, plan) + of_embeddings, |pick| pick.point.bytes()),
            bit_ops_per_token: plan_bit_ops(model, plan),
            measured: point.map(|pick| Measured::of(pick.point, n)),
            weights: (0..plan.blocks()).map(bits).collect(),
            embeddings: plan.embeddings().map(|(site, at)| (sites.name(site), at.weights.bits())).collect(),
            kv_cache: (0..plan.blocks()).map(|block| plan.kv_cache(block).bits()).collect(),
        });
        self.of_entries.push(plan.clone());
        id
    }

    /// What is known of a plan.
    pub(super) fn entry(&self, plan: &SitePlan) -> Option<&PlanEntry> {
        let place = self.of_entries.iter().position(|known| known == plan)?;
        self.plans.get(place)
    }

    /// The name of the model.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// Whether there is a plan for a choice.
    pub(super) fn check(&self, choice: &PlanChoice) -> Result<(), Problem> {
        match choice {
            PlanChoice::Default => Ok(()),
            PlanChoice::Named(name) if self.names.contains(name) => Ok(()),
            PlanChoice::Named(name) => {
                let expected = match self.names.as_slice() {
                    [] => "an artefact that has plans".to_owned(),
                    names => format!("one of {}", names.join(", ")),
                };
                Err(Problem::field("choice.plan", format!("{name:?}"), expected))
            }
            PlanChoice::Measured(request) => {
                let missing = || Problem::field("choice", "by what was measured", "an artefact with a measured front");
                let controller = self.controller.as_ref().ok_or_else(missing)?;
                match controller.pick(*request) {
                    Ok(_) => Ok(()),
                    Err(Error::Option { got, expected, .. }) => Err(Problem::field(asked(request), got, expected)),
                    Err(other) => Err(other.into()),
                }
            }
            PlanChoice::Confidence if self.cascade.is_some() => Ok(()),
            PlanChoice::Confidence => Err(Problem::field("choice", "confidence", "an artefact with a cascade")),
        }
    }
}

/// The field of a request that asks by what was measured.
fn asked(request: &PlanRequest) -> &'static str {
    match request {
        PlanRequest::Bytes(_) => "choice.bytes",
        PlanRequest::Accuracy(_) | PlanRequest::AccuracyForSure(_) => "choice.accuracy",
        PlanRequest::BitOps(_) | PlanRequest::Latency(_) => "choice",
    }
}

impl Measured {
    fn of(point: &FrontPoint, n: usize) -> Self {
        let interval = point.exact_match_interval;
        Self { exact_match: point.exact_match, low: interval.low, high: interval.high, n }
    }
}
