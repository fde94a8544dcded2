//! Sensitivity: one part of the model changed to another precision at a time.
//!
//! ```text
//! harm(part) = accuracy(reference) − accuracy(reference with the part at the other precision)
//! ```
//!
//! The parts are blocks or single sites. The reference is evaluated once and its hidden states are kept,
//! so that a change in block `i` costs the blocks from `i` on.

use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::{Evaluator, KeptStates};
use span_reader::evaluation::work::Work;
use span_reader::statistics::PairedComparison;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::sub_module::SubModule;
use switchable_model::sites::{Site, Sites};

use crate::error::Result;
use crate::running::memory::Parts;
use crate::running::progress::{Progress, ShowProgress};
use crate::search::harm_order::HarmOrder;

/// What is changed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// All four sites of a block.
    Block,
    /// One site, embeddings among them where the options name a width for them.
    Site,
}

/// The effect of changing one part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// `h.3` or `h.3.attn.c_attn`.
    pub name: String,
    /// The block; `None` when an embedding was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// The sub-module; `None` when the whole block was changed.
    pub module: Option<SubModule>,
    /// Accuracy with the part changed.
    pub accuracy: Accuracy,
    /// Against the reference, question by question.
    pub comparison: PairedComparison,
}

impl Effect {
    /// The site that was changed; `None` when it was a block.
    pub fn site(&self) -> Option<Site> {
        self.module.map(|module| Site { block: self.block, module })
    }
}

/// The effects of changing every part, one at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// What was changed at a time.
    pub part: Part,
    /// The precision it was changed to.
    pub changed_to: SitePrecision,
    /// The width that embeddings were changed to, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<BitWidth>,
    /// Accuracy with nothing changed.
    pub reference: Accuracy,
    /// One effect per part, in the order of the forward pass.
    pub effects: Vec<Effect>,
    /// Work of the reference and of all effects.
    #[serde(default)]
    pub work: Work,
}

impl Sensitivity {
    /// Effects from the least to the most harmful; equals stay in the order of the forward pass.
    pub fn by_harm(&self, order: HarmOrder) -> Vec<&Effect> {
        let mut effects: Vec<&Effect> = self.effects.iter().collect();
        effects.sort_by(|a, b| order.compare(&a.accuracy, &b.accuracy));
        effects
    }

    /// The exact match that each linear site costs alone; `None` where blocks were changed.
    pub fn site_losses(&self) -> Option<SiteLosses> {
        let sites: Vec<Site> = self.effects.iter().map(Effect::site).collect::<Option<_>>()?;
        let mut modules: Vec<SubModule> = Vec::new();
        for site in sites.iter().filter(|site| site.block.is_some()) {
            if !modules.contains(&site.module) {
                modules.push(site.module);
            }
        }
        let mut rows: Vec<Vec<f64>> = Vec::new();
        for (block, effect) in self.effects.iter().filter_map(|effect| Some((effect.block?, effect))) {
            if rows.len() <= block {
                rows.resize(block + 1, vec![0.0; modules.len()]);
            }
            let column = modules.iter().position(|&module| effect.module == Some(module))?;
            rows[block][column] = self.reference.exact_match - effect.accuracy.exact_match;
        }
        Some(SiteLosses { modules, rows })
    }
}

/// Exact match that each site costs alone, in percentage points: blocks × sub-modules.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteLosses {
    /// The columns, in the order of the forward pass.
    pub modules: Vec<SubModule>,
    /// One row per block.
    pub rows: Vec<Vec<f64>>,
}

/// Options of a sensitivity analysis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SensitivityOptions {
    /// What is changed at a time.
    pub part: Part,
    /// The precision it is changed to.
    pub change_to: SitePrecision,
    /// The width that each embedding is changed to, one at a time, where sites are; `None` leaves them alone.
    pub embeddings: Option<BitWidth>,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Effects known from before, part by part.
    pub known: Parts,
}

impl SensitivityOptions {
    /// One part after another at another precision; nothing is known from before.
    pub fn new(part: Part, change_to: SitePrecision) -> Self {
        Self { part, change_to, embeddings: None, seed: 0, show: ShowProgress::default(), known: Parts::default() }
    }
}

/// Changes every part of the reference plan, one at a time.
///
/// Returns the effects and the reference's kept states, from which a search goes on.
///
/// # Errors
///
/// When an adapter is missing, the work is stopped, or what is known is of something else.
pub fn sensitivity<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    reference: &SitePlan,
    options: &SensitivityOptions,
) -> Result<(Sensitivity, KeptStates<B>)> {
    let sites = reference.sites();
    let body = &evaluator.model().transformer;
    let change_to = |site: Site| match (site.block, options.embeddings) {
        (None, Some(bits)) => body.precision_for(site, SitePrecision::uniform(bits)),
        _ => body.precision_for(site, options.change_to),
    };
    let parts = parts_of(sites, options);
    let names = names_of(sites, &parts);
    let before = evaluator.work();
    let (accuracy, kept) = evaluator.evaluate_keeping(None, reference)?;
    let mut progress = Progress::start("sensitivity", options.known.count(&names), parts.len(), options.show);
    let mut work = evaluator.work() - before;
    let measured = options.known.each(&names, |index| {
        let (name, (block, module)) = (&names[index], parts[index]);
        let plan = match module {
            None => {
                let changed = sites.iter().filter(|site| site.block == block);
                changed.fold(reference.clone(), |plan, site| plan.with(site, change_to(site)))
            }
            Some(module) => {
                let site = Site { block, module };
                reference.clone().with(site, change_to(site))
            }
        };
        let before = evaluator.work();
        let changed = evaluator.evaluate_from(&kept, &plan)?;
        progress.step(format!("{name} EM {:.1}", changed.exact_match));
        let comparison = accuracy.compare(&changed, options.seed);
        let effect = Effect { name: name.clone(), block, module, accuracy: changed, comparison };
        Ok((effect, evaluator.work() - before))
    })?;
    progress.finish();
    let mut effects = Vec::with_capacity(measured.len());
    for (effect, work_of_part) in measured {
        work += work_of_part;
        effects.push(effect);
    }
    let (part, changed_to, embeddings) = (options.part, options.change_to, options.embeddings);
    let result = Sensitivity { part, changed_to, embeddings, reference: accuracy, effects, work };
    Ok((result, kept))
}

/// A block, or a sub-module of it or of the model.
type PartOfModel = (Option<usize>, Option<SubModule>);

/// What is changed, one at a time.
fn parts_of(sites: &Sites, options: &SensitivityOptions) -> Vec<PartOfModel> {
    let of_site = |site: Site| (site.block, Some(site.module));
    match options.part {
        Part::Block => (0..sites.blocks()).map(|block| (Some(block), None)).collect(),
        Part::Site if options.embeddings.is_some() => sites.embeddings().chain(sites.iter()).map(of_site).collect(),
        Part::Site => sites.iter().map(of_site).collect(),
    }
}

fn names_of(sites: &Sites, parts: &[PartOfModel]) -> Vec<String> {
    let name = |&(block, module): &PartOfModel| match module {
        None => sites.block_name(block.unwrap_or_default()),
        Some(module) => sites.name(Site { block, module }),
    };
    parts.iter().map(name).collect()
}

/// What the effects of a sensitivity are known by: the names of what is changed.
pub fn sensitivity_names(sites: &Sites, options: &SensitivityOptions) -> Vec<String> {
    names_of(sites, &parts_of(sites, options))
}
