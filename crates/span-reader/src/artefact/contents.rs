//! What an artefact holds beside its model: plans by name, what they were measured to give, the cascade.

use std::collections::BTreeMap;
use std::path::Path;

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::artefact::manifest::Manifest;
use crate::artefact::plans::{PLANS, read_plans};
use crate::artefact::saved_cascade::{CASCADE, SavedCascade};
use crate::choice::controller::PrecisionController;
use crate::choice::front::MeasuredFront;
use crate::error::Result;

/// The file of the measured front.
pub const FRONT: &str = "front.json";

/// What an artefact holds beside its model.
#[derive(Debug, Clone)]
pub struct ArtefactContents {
    /// What it is and was made from.
    pub manifest: Manifest,
    /// Its plans by name.
    pub plans: BTreeMap<String, SitePlan>,
    /// Plans with what they were measured to give and to cost.
    pub front: Option<MeasuredFront>,
    /// The cascade.
    pub cascade: Option<SavedCascade>,
}

impl ArtefactContents {
    /// What the folder of a model holds beside it; `None` where the folder is no artefact.
    ///
    /// # Errors
    ///
    /// When a file is missing, changed, damaged or of another version, or a plan is not one of the model, such as
    /// one that names an adapter which is not there; the error names the file.
    pub fn open<B: QuantBackend, M: SwitchableModel<B>>(
        dir: &Path,
        manifest: Manifest,
        model: &ForQuestionAnswering<B, M>,
    ) -> Result<Self> {
        let mut plans = BTreeMap::new();
        for (name, plan) in read_plans(dir)? {
            let path = dir.join(PLANS).join(format!("{name}.json"));
            plans.insert(name, model.resolve(&plan).map_err(|error| error.in_file(path))?);
        }
        let path = dir.join(FRONT);
        let front = path.exists().then(|| MeasuredFront::load(&path)).transpose()?;
        if let Some(front) = &front {
            PrecisionController::new(model, front.clone(), "").map_err(|error| error.in_file(&path))?;
        }
        let cascade = SavedCascade::read(dir)?;
        if let Some(cascade) = &cascade {
            cascade.open(model).map_err(|error| error.in_file(dir.join(CASCADE)))?;
        }
        Ok(Self { manifest, plans, front, cascade })
    }
}
