//! Artefacts that commands write.

use std::cell::RefCell;
use std::path::Path;

use anyhow::Context as _;

use switchable_quant::data::Dataset;
use switchable_quant::default_model;
use switchable_quant::experiments::running::share::Share;
use switchable_quant::kernels::QuantAutodiffBackend;
use switchable_quant::reader::ModelFolder;
use switchable_quant::reader::artefact::manifest::Source;
use switchable_quant::reader::artefact::pack::Pack;
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::certificate::model_files::ModelFiles;
use switchable_quant::reader::certificate::seen_data::{SeenData, SeenRole, SeenSet};
use switchable_quant::transformer::config::ModelConfig as _;
use switchable_quant::transformer::model::{SwitchableModel, TrainableModel};
use switchable_quant::transformer::packed::form::PackedForm;
use switchable_quant::transformer::site_plan::SitePlan;

use crate::adapter_place::AdapterPlace;
use crate::arguments::input::InputArgs;
use crate::arguments::items::ItemArgs;
use crate::arguments::run::RunArgs;
use crate::contents::name_of;
use crate::files::{check_apart, resolve_model, resolved};
use crate::session::Session;

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Session<B, M> {
    /// The model as an artefact names what it was packed from.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn source(&self) -> anyhow::Result<Source> {
        let files = match &self.dir {
            Some(dir) => ModelFiles::of_original(dir)?,
            None => ModelFiles::embedded(&default_model::FILES),
        };
        let adapters = match &self.adapters.place {
            AdapterPlace::Folder(dir) => Some(ModelFiles::of_folder(dir)?.hash),
            AdapterPlace::Own | AdapterPlace::LeftOut => None,
        };
        let name = name_of(Path::new(&self.name));
        let scaling = self.scaling().map(|choice| choice.to_string());
        Ok(Source { name, hash: files.hash, adapters, scaling })
    }

    /// Writes the artefact of a plan that was found on some questions, and says so. A language model's has no span head.
    ///
    /// # Errors
    ///
    /// When a site cannot be packed, or the folder cannot be written; then nothing has its name.
    pub fn pack_plan(&self, plan: &SitePlan, searched: SeenSet, target: &ArtefactTarget) -> anyhow::Result<String> {
        let seen = self.seen_with(vec![searched])?;
        let has_span_head = !self.has_random_head;
        let pack = Pack { seen, has_span_head, ..Pack::new(self.source()?, PackedForm::Plan(plan)) };
        written_text(target.dir(), &pack.write_to(&self.folder, target)?)
    }

    /// The questions that this model was made from as far as its folder says, and those that a command chose its
    /// plans on.
    ///
    /// # Errors
    ///
    /// When the folder's record is damaged.
    pub fn seen_with(&self, searched: Vec<SeenSet>) -> anyhow::Result<Option<SeenData>> {
        let before = self.dir.as_ref().map(SeenData::read).transpose()?.flatten();
        let mut sets = before.map_or_else(Vec::new, |seen| seen.sets().to_vec());
        let calibrated = self.calibrated.as_ref().map_or_else(Vec::new, |calibrated| calibrated.seen.clone());
        for set in calibrated.into_iter().chain(searched) {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        Ok((!sets.is_empty()).then(|| SeenData::new(sets)))
    }
}

/// Questions that plans were chosen on.
///
/// # Errors
///
/// When there is none.
pub fn searched_on(name: &str, questions: &Dataset) -> anyhow::Result<SeenSet> {
    Ok(SeenSet::new(SeenRole::Search, name, questions)?)
}

impl ItemArgs {
    /// Checks and reserves `--pack` before anything is computed for it. Where items are listed, or one is done, nothing is
    /// packed.
    ///
    /// # Errors
    ///
    /// As [`reserve_target`].
    pub fn reserve_pack(&self, pack: Option<&Path>, input: &InputArgs, run: &RunArgs) -> anyhow::Result<ReservedPack> {
        let Some(dir) = pack.filter(|_| self.conclude()) else { return Ok(ReservedPack::default()) };
        // What takes the place of a folder takes all that is in it.
        anyhow::ensure!(
            !resolved(run.out())?.starts_with(resolved(dir)?),
            "`--pack {}` would take the place of the results of `--out {}`, expected another folder",
            dir.display(),
            run.out().display()
        );
        let model = input.model.as_deref().map(resolve_model).transpose()?;
        let read: Vec<&Path> = model.as_deref().into_iter().chain(input.adapters.as_deref()).collect();
        let target = reserve_target(dir, &read).context("--pack")?;
        Ok(ReservedPack(Some(target).into()))
    }
}

/// What `--pack` names, if it is given.
#[derive(Debug, Default)]
pub struct ReservedPack(RefCell<Option<ArtefactTarget>>);

impl ReservedPack {
    /// It, for the share of the work that writes it.
    pub fn for_share(&self, share: &Share) -> Option<ArtefactTarget> {
        if share.concludes() { self.0.take() } else { None }
    }
}

/// Checks and reserves where an artefact is to be written, before anything is computed for it.
///
/// # Errors
///
/// When the folder holds something else, is one that the command reads, or another command packs to it.
pub fn reserve_target(dir: &Path, read: &[&Path]) -> anyhow::Result<ArtefactTarget> {
    check_apart(dir, read)?;
    Ok(ArtefactTarget::reserve(dir)?)
}

/// What was written, in one line: `packed runs/small: 91.2 MB, 18.3 % of the model in f32`.
///
/// # Errors
///
/// When its files cannot be read.
pub fn written_text<B: QuantAutodiffBackend, M: SwitchableModel<B>>(
    dir: &Path,
    folder: &ModelFolder<B, M>,
) -> anyhow::Result<String> {
    let bytes = ModelFiles::of_folder(dir)?.model_bytes();
    let floats = size_of::<f32>() * folder.model.config().parameters();
    let share = 100.0 * bytes as f64 / floats as f64;
    Ok(format!("packed {}: {:.1} MB on disk, {share:.1} % of the model in f32", dir.display(), bytes as f64 / 1e6))
}
