//! What each site costs alone at each precision.
//!
//! ```text
//! loss        loss(site at b, the rest as in the reference) − loss(reference)
//! divergence  KL(reference ‖ site at b, the rest as in the reference)
//! ```

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::cost::site_bytes;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::{Evaluator, KeptStates};
use span_reader::evaluation::work::Work;
use span_reader::statistics::PairedComparison;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::{Site, Sites};

use crate::error::{Error, Result};
use crate::running::memory::Parts;
use crate::running::progress::{Progress, ShowProgress};

/// The figure that damage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageMeasure {
    /// Divergence of the answers from the reference's, never negative; needs no gold answers.
    #[default]
    Divergence,
    /// Increase of the loss of the gold spans, negative where a change happens to help.
    Loss,
}

/// Options of the measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamageOptions {
    /// The precisions that every site may take.
    pub choices: Vec<SitePrecision>,
    /// The widths that every embedding and the output matrix may take; none leaves them alone.
    pub embeddings: Vec<BitWidth>,
    /// The figure that allocations minimise.
    pub measure: DamageMeasure,
    /// Seed of the bootstraps.
    pub seed: u64,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Damage known from before, site by site.
    pub known: Parts,
}

impl DamageOptions {
    /// Divergence over some choices.
    pub fn new(choices: Vec<SitePrecision>) -> Self {
        Self {
            choices,
            embeddings: Vec::new(),
            measure: DamageMeasure::default(),
            seed: 0,
            show: ShowProgress::default(),
            known: Parts::default(),
        }
    }
}

/// One site at one precision, the others as in the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Damage {
    /// The site's precision; it says how the site is quantised.
    pub precision: SitePrecision,
    /// Bytes of the site, as [`site_bytes`] counts them: its adapter included.
    pub bytes: usize,
    /// Increase of the loss in nats; `None` when no window holds a gold span.
    pub loss: Option<f64>,
    /// Divergence from the reference in nats.
    pub divergence: f64,
    /// Exact match against the reference, question by question; `None` where the damage is
    /// [estimated](crate::search::estimates) and not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<PairedComparison>,
}

impl Damage {
    /// Whether it is estimated from gradients: the plan was not evaluated.
    pub fn is_estimated(&self) -> bool {
        self.comparison.is_none()
    }

    /// The damage by a measure, in nats; infinite where it is not known.
    pub fn by(&self, measure: DamageMeasure) -> f64 {
        match measure {
            DamageMeasure::Divergence => self.divergence,
            DamageMeasure::Loss => self.loss.unwrap_or(f64::INFINITY),
        }
    }
}

/// The choices of one site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteDamage {
    /// The site.
    pub site: Site,
    /// Its weights.
    pub parameters: usize,
    /// What each precision costs, in the order of the options.
    pub choices: Vec<Damage>,
}

/// Damage of every site at every choice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DamageTable {
    /// The figure that allocations minimise; all that were measured stay in the table.
    pub measure: DamageMeasure,
    /// Number of questions.
    pub n: usize,
    /// Seed of the bootstraps.
    pub seed: u64,
    /// Accuracy of the reference.
    pub reference: Accuracy,
    /// The sites in the order of the forward pass.
    pub sites: Vec<SiteDamage>,
    /// The word for a block in the names of the sites. Files of an earlier form leave it out: a model gives
    /// its own by [`with_names_of`](Self::with_names_of).
    #[serde(default = "first_block_word")]
    pub block_word: String,
    /// Work of the measurement.
    pub work: Work,
}

impl DamageTable {
    /// The name of a site.
    pub fn name(&self, site: Site) -> String {
        site.name(&self.block_word)
    }

    /// The table with the names that a model has for its sites.
    #[must_use]
    pub fn with_names_of(self, sites: &Sites) -> Self {
        Self { block_word: sites.block_word().to_owned(), ..self }
    }
}

/// The word of the models that files without one are of, unless a model says another.
fn first_block_word() -> String {
    "h".to_owned()
}

/// The sites that an allocation decides on, each with its precisions: the embeddings first where there are widths
/// for them, then the linear sites.
pub(crate) fn choices_of_sites<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    choices: &[SitePrecision],
    embeddings: &[BitWidth],
) -> Vec<(Site, Vec<SitePrecision>)> {
    let sites = model.sites();
    let widths: Vec<SitePrecision> = embeddings.iter().map(|&bits| SitePrecision::uniform(bits)).collect();
    let of_embeddings = sites.embeddings().filter(|_| !widths.is_empty()).map(|site| (site, widths.as_slice()));
    let all = of_embeddings.chain(sites.iter().map(|site| (site, choices)));
    let fitting = |(site, choices): (Site, &[SitePrecision])| {
        (site, choices.iter().map(|&choice| model.precision_for(site, choice)).collect())
    };
    all.map(fitting).collect()
}

/// Changes of single sites from a reference whose states are kept.
pub(crate) struct Measurement<'m, 'a, B: Backend, M> {
    evaluator: &'m Evaluator<'a, B, M>,
    reference: &'m SitePlan,
    unchanged: Accuracy,
    kept: KeptStates<B>,
    seed: u64,
}

impl<'m, 'a, B: QuantBackend, M: SwitchableModel<B>> Measurement<'m, 'a, B, M> {
    /// Evaluates the reference.
    pub(crate) fn from(evaluator: &'m Evaluator<'a, B, M>, reference: &'m SitePlan, seed: u64) -> Result<Self> {
        let (unchanged, kept) = evaluator.evaluate_keeping(None, reference)?;
        Ok(Self { evaluator, reference, unchanged, kept, seed })
    }

    /// The damage of a site at a precision, and the accuracy. What the reference has is not evaluated.
    pub(crate) fn of(&self, site: Site, precision: SitePrecision) -> Result<(Damage, Accuracy)> {
        let (body, unchanged) = (&self.evaluator.model().transformer, &self.unchanged);
        let changed = if self.reference.get(site) == precision {
            Accuracy { divergence: Some(0.0), ..unchanged.clone() }
        } else {
            self.evaluator.evaluate_from(&self.kept, &self.reference.clone().with(site, precision))?
        };
        let damage = Damage {
            precision: body.explicit_at(site, &precision),
            bytes: site_bytes(body, site, precision),
            loss: changed.loss.zip(unchanged.loss).map(|(changed, unchanged)| changed - unchanged),
            divergence: changed.divergence.unwrap_or(0.0),
            comparison: Some(unchanged.compare(&changed, self.seed)),
        };
        Ok((damage, changed))
    }

    /// The damage of a site at a precision of a table, and the work of measuring it.
    pub(crate) fn of_explicit(&self, site: Site, precision: &SitePrecision) -> Result<(Damage, Work)> {
        let before = self.evaluator.work();
        let implicit = self.evaluator.model().transformer.implicit_at(site, precision);
        let (damage, _) = self.of(site, implicit)?;
        Ok((damage, self.evaluator.work() - before))
    }
}

/// What the rows of a damage table are known by: the names of their sites.
pub fn damage_names<B: QuantBackend, M: SwitchableModel<B>>(model: &M, options: &DamageOptions) -> Vec<String> {
    site_names(model, &choices_of_sites(model, &options.choices, &options.embeddings))
}

fn site_names<B: QuantBackend, M: SwitchableModel<B>>(model: &M, sites: &[(Site, Vec<SitePrecision>)]) -> Vec<String> {
    sites.iter().map(|(site, _)| model.sites().name(*site)).collect()
}

/// Measures every site at every choice, one at a time.
///
/// The reference's states are kept: a change in block i costs the blocks from i on. A choice that the
/// reference has is not evaluated.
///
/// # Errors
///
/// When there is no choice, no window holds the gold span that the loss needs, an adapter is missing,
/// or the work is stopped.
pub fn measure_damage<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    reference: &SitePlan,
    options: &DamageOptions,
) -> Result<DamageTable> {
    if options.choices.is_empty() {
        return Err(Error::option("choices", "empty", "at least one precision"));
    }
    let model = evaluator.model();
    let before = evaluator.work();
    let measurement = Measurement::from(evaluator, reference, options.seed)?;
    let unchanged = measurement.unchanged.clone();
    if options.measure == DamageMeasure::Loss && unchanged.loss.is_none() {
        return Err(Error::option("measure", "loss", "divergence, as no window holds a gold span"));
    }
    let sites: Vec<(Site, Vec<SitePrecision>)> =
        choices_of_sites(&model.transformer, &options.choices, &options.embeddings);
    let names = site_names(&model.transformer, &sites);
    let (steps, known) = (sites.iter().map(|(_, choices)| choices.len()).sum(), options.known.count(&names));
    // A site that is known needs no time, but counts.
    let mut progress = Progress::start("damage", steps * known / names.len().max(1), steps, options.show);
    let mut work = evaluator.work() - before;
    let measured = options.known.each(&names, |index| {
        let (before, (site, precisions)) = (evaluator.work(), &sites[index]);
        let mut choices = Vec::with_capacity(precisions.len());
        for &precision in precisions {
            let (damage, changed) = measurement.of(*site, precision)?;
            progress.step(format!("{} EM {:.1} at {} bits", names[index], changed.exact_match, precision.weights));
            choices.push(damage);
        }
        let row = SiteDamage { site: *site, parameters: model.transformer.sites().parameters(*site), choices };
        Ok((row, evaluator.work() - before))
    })?;
    progress.finish();
    let mut rows = Vec::with_capacity(measured.len());
    for (row, work_of_row) in measured {
        work += work_of_row;
        rows.push(row);
    }
    Ok(DamageTable {
        measure: options.measure,
        n: unchanged.n,
        seed: options.seed,
        reference: unchanged,
        sites: rows,
        block_word: model.transformer.sites().block_word().to_owned(),
        work,
    })
}
