//! The cascade of an artefact: `cascade.json`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_lora::precision_plan::PrecisionPlan;
use switchable_model::model::SwitchableModel;
use switchable_model::span_head::ForQuestionAnswering;

use crate::choice::cascade::ConfidenceCascade;
use crate::choice::cascade_table::CascadeStage;
use crate::choice::fingerprint::ModelFingerprint;
use crate::choice::measured_cascade::CalibratedCascade;
use crate::choice::temperature::Temperature;
use crate::choice::thresholds::ThresholdChoice;
use crate::error::{Error, Result};
use crate::running::json_file::{read_json, write_json};

/// The file.
pub const CASCADE: &str = "cascade.json";

const VERSION: u32 = 1;

/// A plan of the cascade and the temperature of its confidences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedStage {
    /// The plan.
    pub plan: PrecisionPlan,
    /// Divides its scores.
    pub temperature: Temperature,
}

/// A calibrated cascade of one model, as it is saved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCascade {
    version: u32,
    /// The model that it was calibrated on.
    pub model: ModelFingerprint,
    /// Number of questions that it was calibrated on.
    pub n: usize,
    /// The stages, rising in cost.
    pub stages: Vec<SavedStage>,
    /// The confidences below which stages escalate, and what they gave where they were chosen.
    pub chosen: ThresholdChoice,
}

impl SavedCascade {
    /// A calibrated cascade of a model.
    pub fn new<B: QuantBackend, M: SwitchableModel<B>>(
        model: &ForQuestionAnswering<B, M>,
        cascade: &CalibratedCascade,
    ) -> Self {
        let stage = |CascadeStage { plan, temperature }: CascadeStage| SavedStage {
            plan: model.named_plan(&plan),
            temperature,
        };
        Self {
            version: VERSION,
            model: ModelFingerprint::of(model),
            n: cascade.front.n(),
            stages: cascade.stages().into_iter().map(stage).collect(),
            chosen: cascade.chosen.clone(),
        }
    }

    /// The cascade, to answer with.
    ///
    /// # Errors
    ///
    /// When it was calibrated on another model, a plan is not one of the model, or the thresholds do not fit the
    /// stages.
    pub fn open<'a, B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &'a ForQuestionAnswering<B, M>,
    ) -> Result<ConfidenceCascade<'a, B, M>> {
        let at_hand = ModelFingerprint::of(model);
        if at_hand != self.model {
            return Err(Error::OtherModel { front: self.model.to_string(), model: at_hand.to_string() });
        }
        let stage =
            |stage: &SavedStage| Ok(CascadeStage { plan: model.resolve(&stage.plan)?, temperature: stage.temperature });
        let stages = self.stages.iter().map(stage).collect::<Result<_>>()?;
        ConfidenceCascade::new(model, stages, self.chosen.thresholds.clone())
    }

    /// Writes it into the folder of an artefact.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn save(&self, artefact: &Path) -> Result<()> {
        write_json(artefact.join(CASCADE), self)
    }

    /// Reads that of an artefact; `None` where it has none.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is of another version, or has a field that is not known.
    pub fn read(artefact: &Path) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = artefact.join(CASCADE);
        if !path.exists() {
            return Ok(None);
        }
        let Versioned { version: got } = read_json(&path)?;
        if got != VERSION {
            return Err(Error::Version { path, got, known: VERSION });
        }
        let cascade: Self = read_json(&path)?;
        cascade.check().map_err(|error| error.in_file(&path))?;
        Ok(Some(cascade))
    }

    /// Checks every number against its range.
    fn check(&self) -> Result<()> {
        let ThresholdChoice { exact_match, bit_ops_per_question, .. } = self.chosen;
        if self.n == 0 {
            return Err(Error::option("n", 0, "at least one question"));
        }
        if !(0.0..=100.0).contains(&exact_match) {
            return Err(Error::option("chosen.exact_match", exact_match, "0 to 100 percent"));
        }
        if !(bit_ops_per_question.is_finite() && bit_ops_per_question >= 0.0) {
            return Err(Error::option(
                "chosen.bit_ops_per_question",
                bit_ops_per_question,
                "a number that is not negative",
            ));
        }
        Ok(())
    }
}
