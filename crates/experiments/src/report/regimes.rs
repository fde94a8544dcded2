//! The part of a study that trains and compares regimes.

use burn::module::AutodiffModule as _;
use gpt2_model::{Gpt2ForQuestionAnswering, SitePrecision, SwitchableModel};
use quant_kernels::{Mapping, QuantAutodiffBackend};
use serde::Serialize;
use serde_json::json;
use switchable_lora::LoraInit;

use super::Stages;
use super::study::{StudyData, StudyRun};
use crate::Evaluator;
use crate::banks::bank::{BankConfig, BankOverrides};
use crate::banks::precision_range::{PrecisionRange, precision_range_test};
use crate::banks::regime_comparison::{Contestant, RegimeRun, run_contestant, steps_within, training_bit_ops};
use crate::search::sensitivity::{Part, Sensitivity, SensitivityOptions, sensitivity};
use crate::train::{RegimeConfig, RegimeKind, Specialisation, TrainConfig, TrainRun};
use crate::{Error, Result};

/// Which regimes are compared, and how they are trained.
#[derive(Debug, Clone, PartialEq)]
pub struct RegimeStudy {
    /// Widths and adapters.
    pub bank: BankConfig,
    /// Training of the static regime; the others get as many BitOps.
    pub train: TrainConfig,
    /// Seeds, at least one.
    pub seeds: Vec<u64>,
    /// Contestants by name, as [`contestant_name`] writes their labels; all where empty. `static`, which
    /// the others are compared with, always takes part.
    pub contestants: Vec<String>,
    /// Steps per width of the precision range test.
    pub range_steps: usize,
    /// Progress that counts in that test, nats.
    pub range_threshold: f64,
}

impl Serialize for RegimeStudy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        json!({
            "adapters": self.bank.adapters, "activations": self.bank.activations, "train": self.train,
            "seeds": self.seeds, "range_steps": self.range_steps, "range_threshold": self.range_threshold,
        })
        .serialize(serializer)
    }
}

impl RegimeStudy {
    /// # Errors
    ///
    /// When there is no seed, a contestant is named that there is not, or the training is out of its
    /// range.
    pub(super) fn check(&self) -> Result<()> {
        if self.seeds.is_empty() {
            return Err(Error::option("seeds", "empty", "at least one seed"));
        }
        let known = CONTESTANTS.map(contestant_name);
        if let Some(unknown) = self.contestants.iter().find(|name| !known.contains(name)) {
            return Err(Error::option("contestants", format!("`{unknown}`"), known.join(", ")));
        }
        self.train.check()
    }

    fn compares(&self, contestant: &Contestant) -> bool {
        let name = contestant_name(&contestant.label);
        self.contestants.is_empty() || contestant.label == STATIC || self.contestants.contains(&name)
    }
}

/// Regimes trained and compared.
#[derive(Debug, Clone, PartialEq)]
pub struct RegimeResults {
    /// The lowest width that still learns.
    pub range: PrecisionRange,
    /// Every contestant with every seed.
    pub runs: Vec<RegimeRun>,
    /// Sensitivity of every site with the bank of the first seed: label and result.
    pub sites: Vec<(String, Sensitivity)>,
}

/// Trains and evaluates all contestants.
pub(super) fn run_regimes<B: QuantAutodiffBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    data: StudyData<'_>,
    (study, low, sites, seed): (&RegimeStudy, SitePrecision, &Sensitivity, u64),
    run: &StudyRun,
    stages: &Stages,
    device: &B::Device,
) -> Result<RegimeResults> {
    let quiet_run = TrainRun { dir: None, ..run.train.clone() };
    let range_config = TrainConfig { steps: study.range_steps, ..study.train.clone() };
    let range_options = json!({ "regimes": study, "seed": seed });
    let range = stages.run("precision-range", &range_options, || {
        let threshold = study.range_threshold;
        precision_range_test(model, data.train, &study.bank, threshold, (&range_config, &quiet_run), device)
    })?;

    let (mut runs, mut maps) = (Vec::new(), Vec::new());
    for contestant in contestants(model, study, sites)?.into_iter().filter(|contestant| study.compares(contestant)) {
        for &seed in &study.seeds {
            let name = format!("regime-{}-seed-{seed}", contestant_name(&contestant.label));
            let options = json!({ "regimes": study, "contestant": contestant, "low": low });
            let checkpoints = stages.dir().join("training").join(&name);
            let (result, map): (RegimeRun, Option<Sensitivity>) = stages.run(&name, &options, || {
                let training = TrainRun {
                    dir: Some(checkpoints.clone()),
                    identity: json!({ "part": name, "run": run.train.identity }),
                    ..run.train.clone()
                };
                let train = (data.train, &study.train, &training);
                let evaluation = (data.report, &run.evaluate);
                let (result, trained) =
                    run_contestant(model.clone(), &contestant, seed, &study.bank, train, evaluation, device)?;
                let map = if seed == study.seeds[0] && is_mapped(&contestant) {
                    let trained = trained.valid();
                    let search =
                        Evaluator::<B::InnerBackend>::new(&trained, data.search, run.evaluate.clone(), device)?;
                    let full = trained.transformer.uniform_plan(SitePrecision::FULL);
                    let change_to = lowest_trained(study, low);
                    let how = SensitivityOptions { part: Part::Site, change_to, seed, show: run.show };
                    Some(sensitivity(&search, &full, &how)?.0)
                } else {
                    None
                };
                Ok((result, map))
            })?;
            // The result is saved; its checkpoints have served.
            if checkpoints.exists() {
                std::fs::remove_dir_all(&checkpoints).map_err(|e| Error::io(&checkpoints, e))?;
            }
            maps.extend(map.map(|map| (contestant.label.clone(), map)));
            runs.push(result);
        }
    }
    Ok(RegimeResults { range, runs, sites: maps })
}

/// The low precision where the bank has it, else its lowest.
fn lowest_trained(study: &RegimeStudy, low: SitePrecision) -> SitePrecision {
    let lowest = study.bank.widths().min().unwrap_or(low.weights);
    let bits = if study.bank.widths().any(|width| width == low.weights) { low.weights } else { lowest };
    study.bank.precision(bits)
}

/// Whether a contestant's bank gets a heat map: the two that the study asks for.
fn is_mapped(contestant: &Contestant) -> bool {
    [STATIC, CYCLIC].contains(&contestant.label.as_str())
}

/// Label of the static regime, the baseline.
pub(super) const STATIC: &str = "static";
/// Label of the cyclic regime with as many steps.
pub(super) const CYCLIC: &str = "cyclic, equal steps";

/// Labels of all contestants.
pub const CONTESTANTS: [&str; 10] = [
    STATIC,
    CYCLIC,
    "cyclic, equal BitOps",
    "joint",
    "cascade",
    "specialised",
    "layer dropout",
    "LoftQ",
    "learned steps",
    "LoftQ and learned steps",
];

/// The static regime, the cyclic one at equal steps and at equal BitOps, the others at equal BitOps; and
/// the static one from other starts. An asymmetric quantiser has no steps that could be learned.
fn contestants<B: QuantAutodiffBackend>(
    model: &Gpt2ForQuestionAnswering<B>,
    study: &RegimeStudy,
    sites: &Sensitivity,
) -> Result<Vec<Contestant>> {
    let ladder = study.bank.ladder(model)?;
    let steps = study.train.steps;
    // Cycles of at least four steps, eight of them where they fit.
    let cycles = (steps / 4).clamp(1, 8);
    let of = |kind| RegimeConfig { cycles, ..RegimeConfig::of(kind) };
    let budget = training_bit_ops(&*of(RegimeKind::Static).build(&ladder, steps)?, steps);
    let equal_bit_ops = |label: &str, regime: RegimeConfig| {
        let steps = steps_within(&regime, &ladder, budget)?;
        Ok::<_, Error>(Contestant { label: label.into(), regime, steps })
    };
    let most_harmful: Vec<_> =
        sites.by_harm(crate::HarmOrder::Divergence).into_iter().rev().filter_map(crate::Effect::site).collect();
    let share_of_sites = |share: usize| (most_harmful.len() / share).max(1);
    let specialisation = Specialisation {
        sites: most_harmful[..share_of_sites(6)].to_vec(),
        low: study.bank.precision(ladder.rungs()[0].bits),
        share: 0.2,
    };
    // What adapters start from, and how weights are quantised, under the static regime.
    let starting =
        |init, learned_steps| RegimeConfig { bank: BankOverrides { init, learned_steps }, ..of(RegimeKind::Static) };
    let loftq = Some(LoraInit::LoftQ { iterations: 5 });
    let weight = model.transformer.settings().weight;
    let mut contestants = vec![
        Contestant { label: STATIC.into(), regime: of(RegimeKind::Static), steps },
        Contestant { label: CYCLIC.into(), regime: of(RegimeKind::Cyclic), steps },
        equal_bit_ops("cyclic, equal BitOps", of(RegimeKind::Cyclic))?,
        equal_bit_ops("joint", of(RegimeKind::Joint))?,
        equal_bit_ops("cascade", of(RegimeKind::Cascade))?,
        equal_bit_ops("specialised", RegimeConfig { specialisation: Some(specialisation), ..of(RegimeKind::Static) })?,
        equal_bit_ops("layer dropout", RegimeConfig { layer_dropout: share_of_sites(12), ..of(RegimeKind::Static) })?,
        Contestant { label: "LoftQ".into(), regime: starting(loftq, None), steps },
    ];
    if weight.format == Mapping::Symmetric {
        let learned = |label: &str, init| Contestant { label: label.into(), regime: starting(init, Some(true)), steps };
        contestants.extend([learned("learned steps", None), learned("LoftQ and learned steps", loftq)]);
    }
    Ok(contestants)
}

/// A label as part of a file name or a flag: `cyclic, equal steps` is `cyclic-equal-steps`.
pub fn contestant_name(label: &str) -> String {
    label.replace(", ", "-").replace(' ', "-")
}

/// Labels of the contestants in their order, each once.
pub(super) fn labels(runs: &[RegimeRun]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for run in runs {
        if !labels.contains(&run.contestant.label.as_str()) {
            labels.push(&run.contestant.label);
        }
    }
    labels
}
