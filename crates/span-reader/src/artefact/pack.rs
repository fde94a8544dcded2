//! From an open model to an artefact.

use std::collections::BTreeMap;
use std::path::Path;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::precision_plan::PrecisionPlan;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::adapters::AdapterFolders as _;
use switchable_model::model::SwitchableModel;
use switchable_model::packed::form::{PackOptions, PackedForm};
use switchable_model::span_head::MissingHead;

use crate::artefact::contents::FRONT;
use crate::artefact::manifest::{Manifest, Source};
use crate::artefact::model_card::Card;
use crate::artefact::plans::write_plans;
use crate::artefact::saved_cascade::SavedCascade;
use crate::artefact::target::ArtefactTarget;
use crate::certificate::file_names::MODEL_CARD;
use crate::certificate::seen_data::SeenData;
use crate::choice::front::MeasuredFront;
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::model_folder::{FolderOptions, ModelFolder};
use crate::running::json_file::write_text;

/// What an artefact is to hold.
///
/// | part | default |
/// |---|---|
/// | `options` | scales of f32, embeddings as the plan says |
/// | `has_span_head` | yes |
/// | `plans` | none beside the one that it is packed by |
/// | `front`, `cascade` | none |
/// | `seen` | none: the artefact does not say which questions it was made from |
#[derive(Debug)]
pub struct Pack<'a> {
    /// The model that it is packed from.
    pub source: Source,
    /// What is packed at which width.
    pub form: PackedForm<'a>,
    /// In which numbers.
    pub options: PackOptions,
    /// Whether the span head is packed: a language model has none.
    pub has_span_head: bool,
    /// Further plans by name.
    pub plans: BTreeMap<String, PrecisionPlan>,
    /// Plans with what they were measured to give on the model as it is packed.
    pub front: Option<MeasuredFront>,
    /// A cascade of the model as it is packed.
    pub cascade: Option<SavedCascade>,
    /// The questions that it was made from.
    pub seen: Option<SeenData>,
}

impl<'a> Pack<'a> {
    /// An artefact of a model in a form, and of nothing else.
    pub fn new(source: Source, form: PackedForm<'a>) -> Self {
        let (plans, front, cascade, seen) = (BTreeMap::new(), None, None, None);
        Self { source, form, options: PackOptions::default(), has_span_head: true, plans, front, cascade, seen }
    }

    /// Writes the artefact of a model and opens it: the whole folder takes its name at once, in the place of an
    /// artefact that is there, and only after what is in it was opened and checked.
    ///
    /// # Errors
    ///
    /// When the folder holds something else, a site cannot be packed, a plan, front or cascade is not one of the
    /// packed model, another command packs to the folder, or it cannot be written; then nothing has its name.
    pub fn write<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        folder: &ModelFolder<B, M>,
        dir: &Path,
    ) -> Result<ModelFolder<B, M>> {
        self.write_to(folder, &ArtefactTarget::reserve(dir)?)
    }

    /// [`write`](Self::write) under a name that was reserved before the work that led here.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn write_to<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        folder: &ModelFolder<B, M>,
        target: &ArtefactTarget,
    ) -> Result<ModelFolder<B, M>> {
        let dir = target.dir();
        ArtefactTarget::check(dir)?;
        let partial = target.name().partial()?;
        // Files have another name while they are written: the folder is what is known of them.
        self.fill(folder, partial.path()).map_err(|error| error.in_file(dir))?;
        partial.persist().map_err(|error| Error::from(error).in_file(dir))?;
        self.open(dir, &folder.model.transformer.device())
    }

    /// Writes all files, and opens them.
    fn fill<B: QuantBackend, M: SwitchableModel<B>>(&self, folder: &ModelFolder<B, M>, target: &Path) -> Result<()> {
        let folder = self.with_usable_adapters(folder);
        if self.has_span_head {
            folder.save_packed(target, self.form, &self.options)?;
        } else {
            folder.save_packed_language_model(target, self.form, &self.options)?;
        }
        write_plans(target, &self.plans)?;
        if let Some(front) = &self.front {
            front.save(target.join(FRONT))?;
        }
        if let Some(cascade) = &self.cascade {
            cascade.save(target)?;
        }
        if let Some(seen) = &self.seen {
            seen.write(target)?;
        }
        Manifest::announce(target)?;
        let manifest = Manifest::of_folder(target, self.source.clone())?;
        manifest.save(target)?;
        let packed = self.open::<B, M>(target, &folder.model.transformer.device())?;
        write_text(target.join(MODEL_CARD), &self.card(&manifest, &packed))
    }

    /// The model with the adapters that the codes run with: of codes of one width each those that a plan names, of
    /// nested codes all, as a front or cascade was measured with them.
    fn with_usable_adapters<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        folder: &ModelFolder<B, M>,
    ) -> ModelFolder<B, M> {
        let mut widths: Vec<BitWidth> = match self.form {
            PackedForm::Plan(plan) => plan.adapter_widths(),
            PackedForm::Nested => folder.model.transformer.adapter_widths(),
        };
        let points = self.front.iter().flat_map(MeasuredFront::points).map(|point| &point.plan);
        let stages = self.cascade.iter().flat_map(|cascade| &cascade.stages).map(|stage| &stage.plan);
        for plan in self.plans.values().chain(points).chain(stages) {
            widths.extend(plan.entries().flat_map(|(_, precision)| precision.adapters()));
        }
        let (mut model, tokenizer) = (folder.model.clone(), folder.tokenizer.clone());
        model.keep_adapters(&widths);
        if let PackedForm::Plan(plan) = self.form {
            for (site, precision) in plan.iter().filter(|(_, precision)| precision.adapter != Some(precision.weights)) {
                // A step that is not the scale of the codes could not be used, and would not load.
                let layer = model.transformer.site_mut(site);
                if layer.bank().get(precision.weights).is_some_and(|pair| pair.step().is_some()) {
                    layer.remove_adapter(precision.weights);
                }
            }
        }
        ModelFolder { model, tokenizer, plan: None, artefact: None, activations: None, notes: Vec::new() }
    }

    fn open<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        dir: &Path,
        device: &B::Device,
    ) -> Result<ModelFolder<B, M>> {
        let missing_head = if self.has_span_head { MissingHead::Refuse } else { MissingHead::Random(0) };
        ModelFolder::open(dir, &FolderOptions { missing_head, ..FolderOptions::default() }, device)
    }

    fn card<B: QuantBackend, M: SwitchableModel<B>>(&self, manifest: &Manifest, packed: &ModelFolder<B, M>) -> String {
        let body = &packed.model.transformer;
        let own = || body.uniform_plan(SitePrecision::uniform(BitWidth::B8).without_adapter());
        let cost = Cost::of(body, &packed.plan.clone().unwrap_or_else(own));
        let widths: Vec<String> = packed.code_widths().iter().map(ToString::to_string).collect();
        let (plans, front) = (&self.plans, self.front.as_ref());
        Card { manifest, cost: &cost, widths: &widths, plans, front }.text()
    }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;
    use burn::backend::flex::FlexDevice;
    use content_identity::ContentHash;
    use gpt2_model::{Gpt2, Gpt2Config};
    use squad_data::{BpeConfig, TextTokenizer};
    use switchable_model::config::kept_fields::ARTEFACT_MANIFEST;
    use switchable_model::options::ModelOptions;
    use switchable_model::span_head::ForQuestionAnswering;

    use super::*;
    use crate::artefact::manifest::MANIFEST;
    use crate::running::json_file::{read_json, write_json};

    type Folder = ModelFolder<Flex, Gpt2<Flex>>;

    fn small() -> Folder {
        let config = Gpt2Config::new(300, 64, 32, 2, 2);
        let model = ForQuestionAnswering::random(&config, &ModelOptions::default(), 1, &FlexDevice).unwrap();
        let bpe = BpeConfig { vocab_size: 260, ..BpeConfig::default() };
        let tokenizer = TextTokenizer::train_bpe(["a crab"], &bpe).unwrap();
        ModelFolder { model, tokenizer, plan: None, artefact: None, activations: None, notes: Vec::new() }
    }

    fn open(dir: &Path) -> Result<Folder> {
        ModelFolder::open(dir, &FolderOptions::default(), &FlexDevice)
    }

    #[test]
    fn an_artefact_without_its_manifest_is_refused_and_codes_that_never_had_one_open_with_a_note() {
        let (dir, folder) = (tempfile::tempdir().unwrap(), small());
        let plan = folder.model.transformer.uniform_plan(SitePrecision::uniform(BitWidth::B4).without_adapter());
        let hash = ContentHash::of_bytes(b"small");
        let source = Source { name: "small".into(), hash, adapters: None, scaling: None };
        let target = dir.path().join("artefact");
        let packed = Pack::new(source, PackedForm::Plan(&plan)).write(&folder, &target).unwrap();
        assert!(packed.artefact.is_some() && packed.notes.is_empty(), "{:?}", packed.notes);

        // A model that was read from an artefact and is written again is none.
        let plain = dir.path().join("plain");
        std::fs::create_dir(&plain).unwrap();
        packed.save_packed(&plain, PackedForm::Plan(&plan), &PackOptions::default()).unwrap();
        let opened = open(&plain).unwrap();
        assert!(opened.artefact.is_none());
        assert!(opened.notes.iter().any(|note| note.contains("unchecked") && note.contains(MANIFEST)), "{opened:?}");

        // A copy that was cut short, with a byte that nobody would miss.
        std::fs::remove_file(target.join(MANIFEST)).unwrap();
        let codes = target.join("packed.safetensors");
        let mut bytes = std::fs::read(&codes).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&codes, bytes).unwrap();
        let message = open(&target).unwrap_err().to_string();
        let parts = [target.to_str().unwrap(), "artefact.json is missing", ARTEFACT_MANIFEST, "config.json"];
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");

        // As artefacts were before they said so.
        let config = target.join("config.json");
        let mut fields: serde_json::Map<String, serde_json::Value> = read_json(&config).unwrap();
        assert_eq!(fields.remove(ARTEFACT_MANIFEST), Some(MANIFEST.into()));
        write_json(&config, &fields).unwrap();
        assert!(open(&target).unwrap().notes.iter().any(|note| note.contains("unchecked")));
    }
}
