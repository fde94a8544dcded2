//! Attacks made on each precision and tried on each: the whole attack × inference matrix.
//!
//! ```text
//! M[a, i]          = robust accuracy of plan i on the items edited against source a
//! random, mean     = mean over i of M[a, i]
//! random, sampled  = every item under a plan drawn uniformly, once for its clean and its edited form
//! ```
//!
//! The diagonal is the white-box attack; off it an attack has to transfer, and what does not transfer
//! is no robustness: an attacker who knows the plan has the diagonal, and one who knows that the plan
//! is drawn has the row of the adaptive source, made on all plans at once. Inference at random
//! precision: Fu et al., *Double-Win Quant: Aggressively Winning Robustness of Quantized Deep Neural
//! Networks via Random Precision Training and Inference*, ICML 2021.

use std::cell::OnceCell;
use std::collections::HashSet;

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::statistics::mean;
use squad_data::{Example, QuestionScore};
use switchable_model::model::TrainableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::Attack;
use crate::robustness::protocol::craft::{
    AttackSource, CraftSummary, Crafted, Crafting, RobustnessOptions, fingerprint, item_rng, sources_of,
};
use crate::robustness::protocol::robust_accuracy::RobustAccuracy;
use crate::robustness::victim::model_under_attack::Victim;

/// A plan that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferencePlan {
    /// Short name, such as a width.
    pub label: String,
    /// The plan.
    pub plan: SitePlan,
}

/// One attack, on every source and tried on every plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttackMatrix {
    /// The attack.
    pub attack: String,
    /// Its parameters.
    pub settings: Value,
    /// Labels of the plans, in the order of each row's cells.
    pub inference: Vec<String>,
    /// Labels of other models whose predictions were scored, in the order of each row's cells of others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// One row per source.
    pub rows: Vec<MatrixRow>,
}

/// An attack made on one source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatrixRow {
    /// Label of the source.
    pub source: String,
    /// Counts, and what the attack took.
    pub craft: CraftSummary,
    /// One cell per plan; none when no item was attacked.
    pub cells: Vec<RobustAccuracy>,
    /// One cell per other model; none when no item was attacked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<RobustAccuracy>,
    /// Inference at random precision; `None` when no item was attacked.
    pub random_precision: Option<RandomPrecision>,
}

/// Inference at a precision drawn for each question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RandomPrecision {
    /// Mean of the cells' exact match when clean, percent.
    pub mean_clean_exact_match: f64,
    /// Mean of the cells' exact match when attacked, percent.
    pub mean_attacked_exact_match: f64,
    /// Mean of the cells' F1 when clean, percent.
    pub mean_clean_f1: f64,
    /// Mean of the cells' F1 when attacked, percent.
    pub mean_attacked_f1: f64,
    /// Items fooled over items right when clean, both added up over the cells, percent; `None` when
    /// nothing is right when clean.
    pub mean_success_rate: Option<f64>,
    /// As it comes out when the precision is really drawn.
    pub sampled: RobustAccuracy,
    /// Plan that was drawn for each item of the row, by position.
    pub drawn: Vec<usize>,
}

/// The same items, clean and attacked, under the same plans, for any attack.
#[derive(Debug)]
pub struct RobustnessProtocol<'a, B: QuantAutodiffBackend, M: TrainableModel<B>> {
    victim: &'a Victim<'a, B, M>,
    pub(super) items: &'a [Example],
    inference: Vec<InferencePlan>,
    pub(super) options: RobustnessOptions,
    /// Plan → scores of the clean items, once they are asked for.
    clean: Vec<OnceCell<Vec<QuestionScore>>>,
}

impl<'a, B: QuantAutodiffBackend, M: TrainableModel<B>> RobustnessProtocol<'a, B, M> {
    /// The protocol for some items, which are answered when the first attack on them is tried.
    ///
    /// # Errors
    ///
    /// When there is no item or no plan, two plans have one label, or an adapter of a plan is missing.
    pub fn new(
        victim: &'a Victim<'a, B, M>,
        items: &'a [Example],
        inference: Vec<InferencePlan>,
        options: RobustnessOptions,
    ) -> Result<Self> {
        if inference.is_empty() {
            return Err(Error::option("inference", "no plan", "at least one"));
        }
        if items.is_empty() {
            return Err(Error::NoQuestions { what: "the list of items to attack".into() });
        }
        check_labels("inference", inference.iter().map(|plan| plan.label.as_str()))?;
        for InferencePlan { plan, .. } in &inference {
            victim.model.check_plan(plan)?;
        }
        let clean = vec![OnceCell::new(); inference.len()];
        Ok(Self { victim, items, inference, options, clean })
    }

    /// Scores of the clean items under a plan, by its place; in the order of the items.
    ///
    /// # Errors
    ///
    /// When the folder holds scores of something else, or the work is stopped.
    ///
    /// # Panics
    ///
    /// When there are fewer plans.
    pub fn clean_scores(&self, place: usize) -> Result<&[QuestionScore]> {
        let known = &self.clean[place];
        if let Some(scores) = known.get() {
            return Ok(scores);
        }
        let InferencePlan { label, plan } = &self.inference[place];
        let made_from = json!({ "plan": plan.to_precision_plan(), "items": fingerprint(self.items) });
        let folder = self.options.memory.within("clean");
        let scores = folder.recall(label, &made_from, || self.victim.scores(plan, self.items))?;
        Ok(known.get_or_init(|| scores))
    }

    /// Makes an attack on one source; see [`Crafting::craft`].
    ///
    /// # Errors
    ///
    /// As [`Crafting::craft`].
    pub fn craft(&self, attack: &dyn Attack<B, M>, source: &AttackSource) -> Result<Crafted> {
        self.crafting().craft(attack, source)
    }

    fn crafting(&self) -> Crafting<'_, B, M> {
        Crafting { victim: self.victim, items: self.items, options: &self.options }
    }

    /// Tries an attack on every plan.
    ///
    /// # Errors
    ///
    /// When the work is stopped.
    ///
    /// # Panics
    ///
    /// When the attack was made on other items.
    pub fn row(&self, crafted: &Crafted) -> Result<MatrixRow> {
        let pairs = crafted.pairs(self.items);
        let mut row = MatrixRow {
            source: crafted.source.clone(),
            craft: crafted.summary(),
            cells: vec![],
            others: vec![],
            random_precision: None,
        };
        if pairs.is_empty() {
            return Ok(row);
        }
        let positions: Vec<usize> = pairs.iter().map(|(position, ..)| *position).collect();
        let edited: Vec<Example> = pairs.into_iter().map(|(.., edited)| edited).collect();
        // Plan → scores of the row's items, clean and attacked.
        let mut scores = Vec::with_capacity(self.inference.len());
        for (place, plan) in self.inference.iter().enumerate() {
            let clean = self.clean_scores(place)?;
            let clean: Vec<QuestionScore> = positions.iter().map(|&position| clean[position].clone()).collect();
            scores.push([clean, self.victim.scores(&plan.plan, &edited)?]);
        }
        let seed = self.options.seed;
        row.cells = scores.iter().map(|[clean, attacked]| RobustAccuracy::new(clean, attacked, seed)).collect();
        row.random_precision = Some(RandomPrecision::new(&row.cells, &scores, seed));
        Ok(row)
    }

    /// Makes an attack on every source and tries each on every plan: a row each, known or found.
    ///
    /// An attack that asks nothing of the model is made once, in a row called [`NO_SOURCE`](crate::robustness::protocol::craft::NO_SOURCE).
    ///
    /// # Errors
    ///
    /// As [`Crafting::craft`], and when two sources have one label; where processes share the work, when any row is left to
    /// another.
    pub fn matrix(&self, attack: &dyn Attack<B, M>, sources: &[AttackSource]) -> Result<AttackMatrix> {
        check_labels("sources", sources.iter().map(|source| source.label.as_str()))?;
        let sources = sources_of(attack, sources);
        // Attacks that were made are tried on other plans as well.
        let labels: Vec<&str> = self.inference.iter().map(|plan| plan.label.as_str()).collect();
        let known = self.options.memory.within(&format!("tried-on-{}", labels.join("-")));
        let made_from = |source: &AttackSource| {
            let attack_on = self.crafting().made_from(attack, source);
            (source.name_under(attack), json!({ "attack": attack_on, "inference": self.tried_on() }))
        };
        let made_from: Vec<(String, Value)> = sources.iter().map(made_from).collect();
        let rows = known.each(made_from.iter().map(|(name, options)| (name.as_str(), options)), |place| {
            self.row(&self.craft(attack, &sources[place])?)
        })?;
        let inference = self.inference.iter().map(|plan| plan.label.clone()).collect();
        Ok(AttackMatrix { attack: attack.name(), settings: attack.settings(), inference, others: vec![], rows })
    }

    /// The plans that attacks are tried on, with their labels.
    fn tried_on(&self) -> Vec<Value> {
        let plans = self.inference.iter();
        plans.map(|InferencePlan { label, plan }| json!([label, plan.to_precision_plan()])).collect()
    }
}

impl RandomPrecision {
    /// `cells` are those of a row and `scores` what they are made of: plan → clean and attacked.
    fn new(cells: &[RobustAccuracy], scores: &[[Vec<QuestionScore>; 2]], seed: u64) -> Self {
        let mean_of = |value: fn(&RobustAccuracy) -> f64| mean(&cells.iter().map(value).collect::<Vec<_>>());
        let sum_of = |value: fn(&RobustAccuracy) -> usize| cells.iter().map(value).sum::<usize>();
        let right = sum_of(|cell| cell.right_when_clean);
        let draw = |score: &QuestionScore| {
            let mut rng = item_rng(seed, &score.id);
            // Not the numbers that the attack on this item drew.
            rng.set_stream(1);
            rng.random_range(0..cells.len() as u32) as usize
        };
        let drawn: Vec<usize> = scores[0][0].iter().map(draw).collect();
        let [clean, attacked] = [0, 1].map(|side| {
            let of_plan = |(item, &plan): (usize, &usize)| scores[plan][side][item].clone();
            drawn.iter().enumerate().map(of_plan).collect::<Vec<_>>()
        });
        Self {
            mean_clean_exact_match: mean_of(|cell| cell.clean_exact_match),
            mean_attacked_exact_match: mean_of(|cell| cell.attacked_exact_match),
            mean_clean_f1: mean_of(|cell| cell.clean_f1),
            mean_attacked_f1: mean_of(|cell| cell.attacked_f1),
            mean_success_rate: (right > 0).then(|| 100.0 * sum_of(|cell| cell.fooled) as f64 / right as f64),
            sampled: RobustAccuracy::new(&clean, &attacked, seed),
            drawn,
        }
    }
}

/// Labels name rows, columns and files: each once, and no path.
fn check_labels<'l>(field: &'static str, labels: impl Iterator<Item = &'l str>) -> Result<()> {
    let mut seen = HashSet::new();
    for label in labels {
        if label.is_empty() || label.contains(['/', '\\']) || !seen.insert(label) {
            return Err(Error::option(field, format!("`{label}`"), "labels without slashes, each once"));
        }
    }
    Ok(())
}
