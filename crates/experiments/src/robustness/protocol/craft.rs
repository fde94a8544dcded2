//! Attacks on a list of items, made on one plan or several.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Instant;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use span_reader::statistics::mean;
use squad_data::{Answer, Example};
use switchable_model::model::TrainableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::robustness::attacks::attack::{Access, Attack, Outcome};
use crate::robustness::protected_example::{ProtectedExample, Unattackable};
use crate::robustness::protocol::edit_size::EditSize;
use crate::robustness::victim::model_under_attack::Victim;
use crate::robustness::victim::oracle::Oracle;
use crate::running::memory::Memory;
use crate::running::progress::{Progress, ShowProgress};

/// What an attack is made on: one plan, or several at once for the adaptive attack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttackSource {
    /// Short name, such as a width.
    pub label: String,
    /// The plans; losses and gradients are their mean.
    pub plans: Vec<SitePlan>,
}

/// Which items are attacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemChoice {
    /// Those that every plan of the source answers exactly when clean. An attack that asks nothing of
    /// the model has no such plan and gets all items.
    #[default]
    CorrectWhenClean,
    /// All.
    All,
}

/// How the protocol runs.
#[derive(Debug, Clone, Default)]
pub struct RobustnessOptions {
    /// Which items are attacked.
    pub items: ItemChoice,
    /// Seed of everything random.
    pub seed: u64,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Where the attacks made on each source, and what came of them on each plan, are kept and found again; its identity
    /// says what else must be the same for them to be used, such as model and data.
    pub memory: Memory,
}

/// What came of one item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CraftOutcome {
    /// It was not attacked, as [`ItemChoice`] says.
    NotChosen,
    /// It could not be attacked.
    Unattackable {
        /// Why.
        reason: Unattackable,
    },
    /// It was edited; a search that found nothing that raises the loss leaves it as it was.
    Attacked {
        /// The edited question.
        question: String,
        /// The edited context.
        context: String,
        /// Where each gold answer stands in it, in characters.
        answer_starts: Vec<usize>,
        /// How much was changed.
        size: EditSize,
    },
}

/// What came of one item, and what it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CraftRecord {
    /// The question's id.
    pub id: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: CraftOutcome,
    /// Items read by the model, once per plan.
    pub queries: usize,
    /// Wall-clock seconds of the attack.
    pub seconds: f64,
}

/// An attack made on one source, item by item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Crafted {
    /// The attack's name.
    pub attack: String,
    /// The source's label.
    pub source: String,
    /// One record per item, in their order.
    pub records: Vec<CraftRecord>,
}

/// What an attack took on average, and what it could not do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CraftSummary {
    /// Items given.
    pub items: usize,
    /// Items left out, as [`ItemChoice`] says.
    pub not_chosen: usize,
    /// Items that could not be attacked, by reason.
    pub unattackable: BTreeMap<Unattackable, usize>,
    /// Items attacked.
    pub attacked: usize,
    /// Mean queries of an attacked item.
    pub mean_queries: f64,
    /// Mean seconds of an attacked item.
    pub mean_seconds: f64,
    /// Mean characters changed in an attacked item.
    pub mean_characters: f64,
    /// Mean words changed in an attacked item.
    pub mean_words: f64,
}

impl Crafted {
    /// The attacked items among those that were given: position, clean and edited.
    ///
    /// # Panics
    ///
    /// When the items are not those that were given.
    pub fn pairs<'i>(&self, items: &'i [Example]) -> Vec<(usize, &'i Example, Example)> {
        assert_eq!(items.len(), self.records.len(), "as many items as records");
        let pair = |(position, (item, record)): (usize, (&'i Example, &CraftRecord))| {
            assert_eq!(item.id, record.id, "items in the order of the records");
            Some((position, item, record.edited(item)?))
        };
        items.iter().zip(&self.records).enumerate().filter_map(pair).collect()
    }

    /// The edited items, such as a batch to train on.
    ///
    /// # Panics
    ///
    /// As [`Crafted::pairs`].
    pub fn adversarial_examples(&self, items: &[Example]) -> Vec<Example> {
        self.pairs(items).into_iter().map(|(_, _, edited)| edited).collect()
    }

    /// Counts and means.
    pub fn summary(&self) -> CraftSummary {
        let mut unattackable = BTreeMap::new();
        let (mut not_chosen, mut attacked) = (0, Vec::new());
        for record in &self.records {
            match &record.outcome {
                CraftOutcome::NotChosen => not_chosen += 1,
                CraftOutcome::Unattackable { reason } => *unattackable.entry(*reason).or_insert(0) += 1,
                CraftOutcome::Attacked { size, .. } => attacked.push((record, size)),
            }
        }
        let mean_of =
            |value: &dyn Fn(&(&CraftRecord, &EditSize)) -> f64| mean(&attacked.iter().map(value).collect::<Vec<_>>());
        CraftSummary {
            items: self.records.len(),
            not_chosen,
            unattackable,
            attacked: attacked.len(),
            mean_queries: mean_of(&|(record, _)| record.queries as f64),
            mean_seconds: mean_of(&|(record, _)| record.seconds),
            mean_characters: mean_of(&|(_, size)| size.characters as f64),
            mean_words: mean_of(&|(_, size)| size.words as f64),
        }
    }
}

impl CraftRecord {
    /// The edited item, if it was attacked.
    fn edited(&self, clean: &Example) -> Option<Example> {
        let CraftOutcome::Attacked { question, context, answer_starts, .. } = &self.outcome else { return None };
        let moved = |(answer, &start): (&Answer, &usize)| Answer { text: answer.text.clone(), start };
        Some(Example {
            id: clean.id.clone(),
            context: context.as_str().into(),
            question: question.clone(),
            answers: clean.answers.iter().zip(answer_starts).map(moved).collect(),
            is_impossible: clean.is_impossible,
        })
    }
}

/// What attacks are made on.
#[derive(Debug)]
pub struct Crafting<'a, B: QuantAutodiffBackend, M: TrainableModel<B>> {
    /// The model.
    pub victim: &'a Victim<'a, B, M>,
    /// The items.
    pub items: &'a [Example],
    /// Which of them, and how.
    pub options: &'a RobustnessOptions,
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Crafting<'_, B, M> {
    /// Makes an attack on one source, several items at once.
    ///
    /// The random source of an item depends on the seed and the item's id alone. With a folder, records
    /// of the same attack, source, seed, items and identity are read from there instead, and new ones are
    /// written.
    ///
    /// # Errors
    ///
    /// When a plan asks for an adapter that is missing, the source has no plan and the attack needs one,
    /// the folder holds records of something else, or the work is stopped.
    ///
    /// # Panics
    ///
    /// When the attack gives back another item than it was given.
    pub fn craft(&self, attack: &dyn Attack<B, M>, source: &AttackSource) -> Result<Crafted> {
        let Self { victim, items, options } = *self;
        if items.is_empty() {
            return Err(Error::NoQuestions { what: "the list of items to attack".into() });
        }
        let plans = asked_plans(attack, source);
        if plans.is_empty() && attack.access() != Access::Blind {
            return Err(Error::option("plans", 0, format!("at least one for the attack {}", attack.name())));
        }
        for plan in plans {
            victim.model.check_plan(plan)?;
        }
        let (name, made_from) = (source.name_under(attack), self.made_from(attack, source));
        let crafted = options.memory.recall(&name, &made_from, || {
            let label = format!("{} on {}", attack.name(), source.label);
            let mut progress = Progress::start(&label, 0, items.len(), options.show);
            let mut records = Vec::with_capacity(items.len());
            for some in items.chunks(victim.options.workers.len() * 4) {
                let done = victim.options.workers.map(some, |_, item| {
                    victim.options.stop.check()?;
                    self.craft_item(attack, plans, item)
                });
                for record in done {
                    records.push(record?);
                    progress.step(String::new());
                }
            }
            progress.finish();
            Ok(Crafted { attack: attack.name(), source: source.label.clone(), records })
        })?;
        if let Some(dir) = options.memory.dir() {
            crafted.check(&dir.join(format!("{name}.json")), items)?;
        }
        Ok(crafted)
    }

    /// What an attack on a source is made from, beside model and data.
    pub(super) fn made_from(&self, attack: &dyn Attack<B, M>, source: &AttackSource) -> Value {
        let plans = asked_plans(attack, source);
        json!({
            "settings": attack.settings(),
            "plans": plans.iter().map(SitePlan::to_precision_plan).collect::<Vec<_>>(),
            "item_choice": self.options.items,
            "seed": self.options.seed,
            "items": fingerprint(self.items),
        })
    }

    fn craft_item(&self, attack: &dyn Attack<B, M>, plans: &[SitePlan], item: &Example) -> Result<CraftRecord> {
        let Self { victim, options, .. } = *self;
        let oracle = Oracle::new(victim, plans);
        let mut seconds = 0.0;
        let outcome = match ProtectedExample::new(item.clone()) {
            Err(reason) => CraftOutcome::Unattackable { reason },
            Ok(item) => {
                let chosen = match options.items {
                    ItemChoice::All => true,
                    // Asked of another oracle: these queries are not the attack's.
                    ItemChoice::CorrectWhenClean => {
                        plans.is_empty()
                            || Oracle::new(victim, plans).read(&[&item])?[0].exact.iter().all(|&exact| exact)
                    }
                };
                if chosen {
                    let start = Instant::now();
                    let outcome = attacked(&item, attack, &oracle, options)?;
                    seconds = start.elapsed().as_secs_f64();
                    outcome
                } else {
                    CraftOutcome::NotChosen
                }
            }
        };
        Ok(CraftRecord { id: item.id.clone(), outcome, queries: oracle.queries(), seconds })
    }
}

/// The plans that an attack asks: none where it asks nothing of the model.
fn asked_plans<'s, B: QuantAutodiffBackend, M: TrainableModel<B>>(
    attack: &dyn Attack<B, M>,
    source: &'s AttackSource,
) -> &'s [SitePlan] {
    if attack.access() == Access::Blind { &[] } else { &source.plans }
}

/// Label of the one source of an attack that asks nothing of the model.
pub const NO_SOURCE: &str = "none";

/// What an attack is made on of some sources: each, or none where it asks nothing of the model.
pub(super) fn sources_of<'s, B: QuantAutodiffBackend, M: TrainableModel<B>>(
    attack: &dyn Attack<B, M>,
    sources: &'s [AttackSource],
) -> Cow<'s, [AttackSource]> {
    if attack.access() == Access::Blind {
        Cow::Owned(vec![AttackSource { label: NO_SOURCE.into(), plans: Vec::new() }])
    } else {
        Cow::Borrowed(sources)
    }
}

impl AttackSource {
    /// What an attack on it is known by.
    pub(super) fn name_under<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        &self,
        attack: &dyn Attack<B, M>,
    ) -> String {
        name_of(&attack.name(), &self.label)
    }
}

/// What an attack made on a source is known by.
pub(super) fn name_of(attack: &str, source: &str) -> String {
    format!("{attack}-{source}")
}

fn attacked<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    item: &ProtectedExample,
    attack: &dyn Attack<B, M>,
    oracle: &Oracle<'_, B, M>,
    options: &RobustnessOptions,
) -> Result<CraftOutcome> {
    let mut rng = item_rng(options.seed, &item.example().id);
    let outcome = attack.attack(item, oracle, &mut rng).and_then(|outcome| {
        if let Outcome::Attacked(edited) = &outcome {
            assert!(item.has_same_answers(edited), "the attack {} gave another item back", attack.name());
            // Blind attacks have not seen whether the window still has room.
            oracle.gold_window(edited)?;
        }
        Ok(outcome)
    });
    Ok(match outcome {
        Err(Error::Data(squad_data::Error::LongQuestion { .. })) => {
            CraftOutcome::Unattackable { reason: Unattackable::QuestionTooLong }
        }
        Err(error) => return Err(error),
        Ok(Outcome::Unattackable(reason)) => CraftOutcome::Unattackable { reason },
        Ok(Outcome::Attacked(edited)) => CraftOutcome::Attacked {
            size: EditSize::between(item.example(), edited.example()),
            question: edited.example().question.clone(),
            context: edited.example().context.to_string(),
            answer_starts: edited.example().answers.iter().map(|answer| answer.start).collect(),
        },
    })
}

impl Crafted {
    /// Checks records read from a file: one for each item, and every gold answer where it should be.
    fn check(&self, path: &std::path::Path, items: &[Example]) -> Result<()> {
        let other = |field: &str, found: String, expected: String| {
            Err(Error::Checkpoint { path: path.into(), reason: format!("`{field}` is {found}, expected {expected}") })
        };
        if !self.records.iter().map(|record| &record.id).eq(items.iter().map(|item| &item.id)) {
            return other("records", format!("{} records", self.records.len()), "one record per item".into());
        }
        for (_, clean, edited) in self.pairs(items) {
            if clean.answers.len() != edited.answers.len() {
                let got = format!("{} answers", edited.answers.len());
                return other(&edited.id, got, format!("{} answers", clean.answers.len()));
            }
            if let Err(reason) = ProtectedExample::new(edited.clone()) {
                return other(&edited.id, reason.to_string(), "every gold answer at its offset".into());
            }
        }
        Ok(())
    }
}

/// The random source of an item: the same whatever stands before it and on every machine.
pub(crate) fn item_rng(seed: u64, id: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed ^ fnv1a([id]))
}

/// Number of items and a hash of all that attacks see of them.
pub(super) fn fingerprint(items: &[Example]) -> String {
    let answers = items.iter().flat_map(|item| &item.answers);
    let starts: Vec<String> = answers.map(|answer| answer.start.to_string()).collect();
    let texts = items.iter().flat_map(|item| {
        let answers = item.answers.iter().map(|answer| answer.text.as_str());
        [item.id.as_str(), &item.question, &item.context].into_iter().chain(answers)
    });
    format!("{} items, {:016x}", items.len(), fnv1a(texts.chain(starts.iter().map(String::as_str))))
}

/// FNV-1a over some texts, each with its end marked.
fn fnv1a<'t>(texts: impl IntoIterator<Item = &'t str>) -> u64 {
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
