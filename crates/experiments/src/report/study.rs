//! The study on one model: all stages, one after another, each saved as it is done.

use serde::Serialize;

use quant_kernels::{backends::quant_backend::QuantAutodiffBackend, spec::bit_width::BitWidth};
use switchable_model::model::TrainableModel;

use crate::error::{Error, Result};
use crate::report::section::Section;
use crate::report::stage::AnyStage;
use crate::report::stages::allocation::ExactAllocation;
use crate::report::stages::damage::SiteDamages;
use crate::report::stages::dynamic::DynamicStudy;
use crate::report::stages::greedy::Greedy;
use crate::report::stages::layers::Layers;
use crate::report::stages::low_width::LowWidth;
use crate::report::stages::regimes::{RegimeStudy, Regimes};
use crate::report::stages::robustness::RobustnessStudy;
use crate::report::stages::roundings::Roundings;
use crate::report::stages::uniform::Uniform;
use crate::running::share::Left;
use crate::workbench::Workbench;

/// What the study of this crate does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyConfig {
    /// Width of the sensitivities and of the greedy search; by default the highest of 4, 3 and 2 bits
    /// that costs more than the noise.
    pub low: Option<BitWidth>,
    /// Share of the exact match that the greedy search may lose, in (0, 1).
    pub tolerance: f64,
    /// Widths that the exact allocation chooses from.
    pub choices: Vec<BitWidth>,
    /// Budgets of the exact allocation as bits per weight, scales and adapters included; where empty
    /// [`BudgetRange::defaults`](crate::search::allocation::budgets::BudgetRange::defaults).
    pub budgets: Vec<f64>,
    /// Swaps tried at each budget.
    pub swaps: usize,
    /// Roundings and ranges beside each other; `None` leaves them out.
    pub roundings: Option<Roundings>,
    /// Comparison of training regimes; `None` leaves it out.
    pub regimes: Option<RegimeStudy>,
    /// Attacks; `None` leaves them out.
    pub robustness: Option<RobustnessStudy>,
    /// Plans chosen at run time; `None` leaves them out.
    pub dynamic: Option<DynamicStudy>,
}

impl Default for StudyConfig {
    fn default() -> Self {
        use BitWidth as Bits;
        Self {
            low: None,
            tolerance: 0.1,
            choices: vec![Bits::B2, Bits::B3, Bits::B4, Bits::B5, Bits::B6, Bits::B8, Bits::B16, Bits::FULL],
            budgets: Vec::new(),
            swaps: 20,
            roundings: None,
            regimes: None,
            robustness: None,
            dynamic: None,
        }
    }
}

impl StudyConfig {
    /// The stages, in the order of the report.
    pub fn stages<B: QuantAutodiffBackend, M: TrainableModel<B>>(&self) -> Vec<Box<dyn AnyStage<B, M>>> {
        let mut stages: Vec<Box<dyn AnyStage<B, M>>> = vec![
            Box::new(Uniform),
            Box::new(Layers { low: LowWidth { width: self.low } }),
            Box::new(self.greedy()),
            Box::new(self.allocation()),
        ];
        if let Some(roundings) = &self.roundings {
            stages.push(Box::new(roundings.clone()));
        }
        if let Some(regimes) = self.regimes() {
            stages.push(Box::new(regimes));
        }
        if let Some(robustness) = &self.robustness {
            stages.push(Box::new(robustness.clone()));
        }
        if let Some(dynamic) = &self.dynamic {
            stages.push(Box::new(dynamic.clone()));
        }
        stages
    }

    /// The damage of every site at every choice.
    pub fn damage(&self) -> SiteDamages {
        SiteDamages { choices: self.choices.clone() }
    }

    /// Each site alone, and the greedy search.
    pub fn greedy(&self) -> Greedy {
        Greedy { low: LowWidth { width: self.low }, tolerance: self.tolerance, damage: self.damage() }
    }

    /// The exact allocation.
    pub fn allocation(&self) -> ExactAllocation {
        ExactAllocation { budgets: self.budgets.clone(), swaps: self.swaps, greedy: self.greedy() }
    }

    /// The comparison of regimes, if it is asked for.
    pub fn regimes(&self) -> Option<Regimes> {
        self.regimes.clone().map(|study| Regimes { study, greedy: self.greedy() })
    }
}

/// Those of some stages that are named, in their order; all where none is. What they need of the others is found on the
/// way, and not reported.
///
/// # Errors
///
/// When a name is that of none; the error lists those that there are.
pub fn only<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    stages: Vec<Box<dyn AnyStage<B, M>>>,
    names: &[String],
) -> Result<Vec<Box<dyn AnyStage<B, M>>>> {
    let known: Vec<&str> = stages.iter().map(|stage| stage.name()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Error::option("only", format!("`{unknown}`"), known.join(", ")));
    }
    let is_named = |stage: &str| names.is_empty() || names.iter().any(|name| name == stage);
    Ok(stages.into_iter().filter(|stage| is_named(stage.name())).collect())
}

/// Looks at the options of every stage, as [`run_study`] does before any of them runs.
///
/// # Errors
///
/// When an option is out of its range; the error names it.
pub fn check_study<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    bench: &Workbench<'_, B, M>,
    stages: &[Box<dyn AnyStage<B, M>>],
) -> Result<()> {
    stages.iter().try_for_each(|stage| stage.check(bench))
}

/// Runs stages one after another, or what is left of them; returns what the report says.
///
/// # Errors
///
/// When an option is out of its range, a folder holds another study, or the work is stopped. Where processes share the
/// work, [`Error::Elsewhere`] when some of it is left, after all stages were looked at.
pub fn run_study<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    bench: &Workbench<'_, B, M>,
    stages: &[Box<dyn AnyStage<B, M>>],
) -> Result<Vec<Section>> {
    check_study(bench, stages)?;
    let (mut sections, mut left) = (Vec::new(), Left::default());
    for stage in stages {
        if bench.memory.is_over() {
            return Err(Error::Elsewhere);
        }
        sections.extend(left.unless(stage.report(bench))?.unwrap_or_default());
    }
    left.finish()?;
    Ok(sections)
}
