//! A model with all that it needs to read: tokenizer, adapters and, where it was packed, its plan.
//!
//! | file | what |
//! |---|---|
//! | `config.json` | the shape of the model |
//! | `model.safetensors`, or shards with their index | its weights in floats |
//! | `packed.safetensors` | its weights as codes, with the plan that they were packed by |
//! | `tokenizer.json`, or `vocab.json` and `merges.txt` | its tokenizer |
//! | `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json` | what is added to it, and which tokens are special |
//! | `adapters/bits-N` | adapters of the width N, as PEFT keeps them |
//! | `artefact.json` | where the folder is an [artefact](crate::artefact): all files by their contents |
//!
//! One GGUF file is a model as well: shape, weights and tokenizer, without adapters.
//!
//! A folder brings its adapters with it, unless [`OwnAdapters::LeftOut`] says otherwise; those of another
//! folder are loaded by [`ModelFolder::load_adapters`].

use std::path::Path;

use burn::tensor::backend::Backend;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use squad_data::TextTokenizer;
use switchable_lora::packed_weights::PackedWeights;
use switchable_lora::peft::load::AdapterBytes;
use switchable_lora::peft::trained_for::settings_of_bank;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::adapters::AdapterFolders;
use switchable_model::config::ModelConfig;
use switchable_model::gguf::{GgufFile, is_gguf};
use switchable_model::model::SwitchableModel;
use switchable_model::model_weights::ModelWeights as _;
use switchable_model::options::ModelOptions;
use switchable_model::packed::PackModel as _;
use switchable_model::packed::form::{PackOptions, PackedForm};
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::{ForQuestionAnswering, MissingHead};
use switchable_model::weights::source::WeightSource;

use crate::artefact::contents::ArtefactContents;
use crate::artefact::manifest::{MANIFEST, Manifest};
use crate::embedded_folder::{EmbeddedAdapter, EmbeddedFolder};
use crate::error::{Error, Result};
use crate::gguf_model::{notes_of, tokenizer_of};
use crate::running::json_file::read_json;

/// The file that tells a folder of codes from one of floats.
const PACKED: &str = "packed.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const ADAPTERS: &str = "adapters";

/// How a folder is opened.
///
/// | option | default |
/// |---|---|
/// | `model` | quantisers, placement, base policy and cache of [`ModelOptions`] |
/// | `missing_head` | a folder without a span head is refused |
/// | `adapters` | those in the folder `adapters` are loaded |
/// | `quantiser` | that of `model` |
/// | `activations` | full precision, or as the codes' own plan has it |
#[derive(Debug, Clone, Default)]
pub struct FolderOptions {
    /// How the model is built.
    pub model: ModelOptions,
    /// What to do with a folder of a language model alone.
    pub missing_head: MissingHead,
    /// What to do with the folder's own adapters.
    pub adapters: OwnAdapters,
    /// Which quantisers a folder of floats has.
    pub quantiser: Quantiser,
    /// The width of the activations where weights are quantised.
    pub activations: Option<BitWidth>,
}

/// Which quantisers a folder of floats has; codes have their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Quantiser {
    /// Those of the options.
    #[default]
    Given,
    /// Those that the folder's own adapters were trained for, where they are used and say one and the same; else those
    /// of the options.
    OfAdapters,
}

impl FolderOptions {
    /// How the model of a folder of floats is built.
    fn model_of(&self, dir: &Path) -> Result<ModelOptions> {
        let adapters = dir.join(ADAPTERS);
        let mut model = self.model.clone();
        if self.quantiser == Quantiser::OfAdapters
            && self.adapters == OwnAdapters::Used
            && adapters.is_dir()
            && let Some(settings) = settings_of_bank(adapters)?
        {
            model.linear = model.linear.with_quantisation(settings);
        }
        Ok(model)
    }
}

/// What to do with the adapters in a model's folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OwnAdapters {
    /// They are loaded.
    #[default]
    Used,
    /// They are left out: every width runs without one, until adapters are loaded.
    LeftOut,
}

/// A model, opened.
#[derive(Debug)]
pub struct ModelFolder<B: Backend, M> {
    /// The model with its adapters.
    pub model: ForQuestionAnswering<B, M>,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// The plan that its weights were packed by.
    pub plan: Option<SitePlan>,
    /// What an artefact holds beside its model.
    pub artefact: Option<ArtefactContents>,
    /// The width of the activations where weights are quantised, if one was asked for.
    pub activations: Option<BitWidth>,
    /// What the files leave open, one line each, for whoever runs the model.
    pub notes: Vec<String>,
}

impl<B: QuantBackend, M: SwitchableModel<B>> ModelFolder<B, M> {
    /// Opens a folder of floats or of codes, or a GGUF file.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or does not fit the others; the error names the file and the
    /// tensor or field. Codes that are no artefact's are opened unchecked, which the notes say.
    pub fn open(dir: impl AsRef<Path>, options: &FolderOptions, device: &B::Device) -> Result<Self> {
        let dir = dir.as_ref();
        let manifest = Manifest::open_in(dir)?;
        if manifest.is_some() && dir.join(PACKED).exists() {
            check_says_codes(dir)?;
        }
        let mut folder = Self::open_model(dir, options, device)?;
        if manifest.is_none() && dir.join(PACKED).exists() {
            folder.notes.push(format!("files      unchecked: there is no {MANIFEST} beside {PACKED}"));
        }
        if options.adapters == OwnAdapters::LeftOut {
            return Ok(folder);
        }
        if dir.join(ADAPTERS).exists() {
            folder.load_adapters(dir.join(ADAPTERS))?;
        }
        if let Some(manifest) = manifest {
            if let Some(plan) = &folder.plan {
                folder.model.check_plan(plan).map_err(|error| error.in_file(dir.join(PACKED)))?;
            }
            folder.artefact = Some(ArtefactContents::open(dir, manifest, &folder.model)?);
        }
        Ok(folder)
    }

    /// The folder without its adapters.
    fn open_model(dir: &Path, options: &FolderOptions, device: &B::Device) -> Result<Self> {
        let (model, plan) = if dir.join(PACKED).exists() {
            let (model, plan) = ForQuestionAnswering::load_packed(dir, &options.model, options.missing_head, device)?;
            (model, Some(plan))
        } else {
            let model = options.model_of(dir)?;
            (ForQuestionAnswering::<B, M>::load(dir, &model, options.missing_head, device)?, None)
        };
        let tokenizer = open_tokenizer(dir)?;
        tokenizer.check_fits(model.transformer.shape().vocabulary)?;
        let notes = if is_gguf(dir) { notes_of(&GgufFile::open(dir)?)? } else { Vec::new() };
        Ok(Self { model, tokenizer, plan, artefact: None, activations: options.activations, notes })
    }

    /// Opens files that are part of the program.
    ///
    /// # Errors
    ///
    /// As [`ModelFolder::open`].
    pub fn embedded(files: &EmbeddedFolder, options: &ModelOptions, device: &B::Device) -> Result<Self> {
        let file = |name: &str| Path::new(files.name).join(name);
        let path = file("config.json");
        let config = serde_json::from_str(files.config).map_err(|error| Error::json(&path, error))?;
        let config = M::Config::from_json(&config, &path)?;
        let weights = WeightSource::embedded(file("model.safetensors"), files.weights);
        let mut model = ForQuestionAnswering::<B, M>::from_sources(&config, vec![weights], options, device)?;
        for adapter in files.adapters {
            let EmbeddedAdapter { name, width, config, weights, trained_for } = *adapter;
            let bytes = AdapterBytes { config, weights, trained_for: Some(trained_for) };
            _ = model.transformer.parse_adapter(name, bytes, width)?;
        }
        let name = file(TOKENIZER);
        let tokenizer = TextTokenizer::from_bytes(files.tokenizer, &name.to_string_lossy())?;
        Ok(Self { model, tokenizer, plan: None, artefact: None, activations: None, notes: Vec::new() })
    }

    /// Takes the adapters of a folder, in the place of those of the same widths. What their files leave open
    /// is added to the notes.
    ///
    /// # Errors
    ///
    /// When the folder holds no adapter, or one that does not fit the model or was trained for another
    /// quantiser.
    pub fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<Vec<BitWidth>> {
        let loaded = self.model.load_adapters(dir)?;
        self.notes.extend(loaded.to_string().lines().map(str::to_owned));
        let heads = self.model.head_widths().iter().map(ToString::to_string).collect::<Vec<_>>();
        if !heads.is_empty() {
            self.notes.push(format!("span heads of their own: the adapters of {} bits", heads.join(", ")));
        }
        Ok(loaded.widths)
    }

    /// Takes out the adapters of all widths.
    pub fn drop_adapters(&mut self) {
        self.model.drop_adapters();
    }

    /// The widths at which every weight can run, ascending: all where they are floats, those of the
    /// codes where they are packed.
    pub fn widths(&self) -> Vec<BitWidth> {
        let all = (1..=16).filter_map(|bits| BitWidth::new(bits).ok()).chain([BitWidth::FULL]);
        let runs = |bits: &BitWidth| {
            let plan = self.model.transformer.uniform_plan(SitePrecision::uniform(*bits).without_adapter());
            self.model.transformer.check_plan(&plan).is_ok()
        };
        all.filter(runs).collect()
    }

    /// The widths that codes are held at, ascending; 32 among them where a site is in floats.
    pub fn code_widths(&self) -> Vec<BitWidth> {
        let body = &self.model.transformer;
        let of_site =
            |site| body.site(site).packed_weights().map_or_else(|| vec![BitWidth::FULL], PackedWeights::widths);
        let mut widths: Vec<BitWidth> = body.sites().iter().flat_map(of_site).collect();
        widths.sort_unstable();
        widths.dedup();
        widths
    }

    /// A plan of the artefact, by its name.
    ///
    /// # Errors
    ///
    /// When there is none, which names those that there are.
    pub fn plan_of(&self, name: &str) -> Result<&SitePlan> {
        let plans = self.artefact.as_ref().map(|artefact| &artefact.plans);
        plans.and_then(|plans| plans.get(name)).ok_or_else(|| {
            let names: Vec<&str> = plans.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            let expected = match names.as_slice() {
                [] => "an artefact that has plans".to_owned(),
                names => format!("one of {}", names.join(", ")),
            };
            Error::option("plan", format!("{name:?}"), expected)
        })
    }

    /// The precision of a width with its adapter, or without where the model has none. Below 32 bits the activations are
    /// at their width too, if one was asked for.
    pub fn precision(&self, bits: BitWidth) -> SitePrecision {
        self.with_own_activations(self.model.transformer.precision_at(bits))
    }

    fn with_own_activations(&self, precision: SitePrecision) -> SitePrecision {
        match self.activations {
            Some(activations) if !precision.weights.is_full() => precision.with_activations(activations),
            _ => precision,
        }
    }

    /// The plan that the folder runs at where none is asked for: of codes of one width each the plan that they were
    /// packed by; of nested codes 8 bits, with the adapters of 8 bits where there are any; of floats full
    /// precision, with its adapters where there are any. Activations are at the width that was asked for, if one was.
    pub fn default_plan(&self) -> SitePlan {
        match &self.plan {
            Some(plan) => {
                let plan = if self.is_nested() { self.with_adapters(plan) } else { plan.clone() };
                plan.iter().fold(plan.clone(), |all, (site, own)| all.with(site, self.with_own_activations(own)))
            }
            None => self.model.transformer.uniform_plan(self.precision(BitWidth::FULL)),
        }
    }

    /// A plan with the adapter of each site's width, or without where the model has none for it.
    pub fn with_adapters(&self, plan: &SitePlan) -> SitePlan {
        let body = &self.model.transformer;
        plan.iter().fold(plan.clone(), |plan, (site, precision)| {
            let SitePrecision { adapter, shared, .. } = self.precision(precision.weights);
            plan.with(site, body.precision_for(site, SitePrecision { adapter, shared, ..precision }))
        })
    }

    /// Whether every site serves several widths from one tensor.
    fn is_nested(&self) -> bool {
        let body = &self.model.transformer;
        body.sites().iter().all(|site| matches!(body.site(site).packed_weights(), Some(PackedWeights::Nested(_))))
    }

    /// Writes the folder in floats: model, tokenizer and adapters. `base_model` stands in the adapters'
    /// configuration as the model that they belong to.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let dir = dir.as_ref();
        self.model.export(dir)?;
        self.save_rest(dir, base_model)
    }

    /// The same without the span head, as a folder of a language model.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn save_language_model(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        let (dir, body) = (dir.as_ref(), &self.model.transformer);
        body.export(dir)?;
        self.tokenizer.save_in(dir)?;
        // Without the heads that adapters brought, which a language model has no place for.
        Ok(body.save_adapters(dir.join(ADAPTERS), base_model)?)
    }

    /// Writes the folder as codes: packed weights with their plan, head, tokenizer and adapters. At the sites
    /// whose placement is merged, the adapters that the plan names are in the codes, and none stands beside them.
    ///
    /// # Errors
    ///
    /// When a site cannot be packed, which names it, or the folder cannot be written.
    pub fn save_packed(&self, dir: impl AsRef<Path>, form: PackedForm<'_>, options: &PackOptions) -> Result<()> {
        let dir = dir.as_ref();
        if let Some((merged, plan)) = self.merged(form)? {
            return merged.save_packed(dir, PackedForm::Plan(&plan), options);
        }
        self.check_steps(form)?;
        self.model.save_packed(dir, form, options)?;
        self.save_rest(dir, ".")
    }

    /// The same without the span head, as a folder of a language model.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn save_packed_language_model(
        &self,
        dir: impl AsRef<Path>,
        form: PackedForm<'_>,
        options: &PackOptions,
    ) -> Result<()> {
        let dir = dir.as_ref();
        if let Some((merged, plan)) = self.merged(form)? {
            return merged.save_packed_language_model(dir, PackedForm::Plan(&plan), options);
        }
        self.check_steps(form)?;
        self.model.transformer.save_packed(dir, form, options)?;
        self.tokenizer.save_in(dir)?;
        // Without the heads that adapters brought, which a language model has no place for.
        Ok(self.model.transformer.save_adapters(dir.join(ADAPTERS), ".")?)
    }

    /// The folder with merged adapters in the weights, and the plan without them: beside the codes they would
    /// be added once more. `None` where there are none.
    fn merged(&self, form: PackedForm<'_>) -> Result<Option<(Self, SitePlan)>> {
        let folder = |(model, plan)| {
            let (tokenizer, notes) = (self.tokenizer.clone(), self.notes.clone());
            (Self { model, tokenizer, plan: None, artefact: None, activations: self.activations, notes }, plan)
        };
        Ok(self.model.merged(form)?.map(folder))
    }

    /// Refuses codes that an adapter's learned step is not the scale of: the folder would not load with it.
    fn check_steps(&self, form: PackedForm<'_>) -> Result<()> {
        let PackedForm::Plan(plan) = form else { return Ok(()) };
        let model = &self.model.transformer;
        for (site, precision) in plan.iter().filter(|(_, precision)| precision.weights <= BitWidth::B8) {
            let bits = precision.weights;
            let has_step = model.site(site).bank().get(bits).is_some_and(|pair| pair.step().is_some());
            if has_step && precision.adapter != Some(bits) {
                let expected = "a plan with the adapter of that width, or no such adapter";
                let (site, source) =
                    (model.sites().name(site), Box::new(switchable_lora::Error::PackedStep { bits, expected }));
                return Err(switchable_model::Error::from(switchable_lora::Error::Site { site, source }).into());
            }
        }
        Ok(())
    }

    fn save_rest(&self, dir: &Path, base_model: &str) -> Result<()> {
        self.tokenizer.save_in(dir)?;
        Ok(self.model.save_adapters(dir.join(ADAPTERS), base_model)?)
    }
}

/// The tokenizer of a model folder or of a GGUF file.
///
/// # Errors
///
/// When a file is missing or damaged, or holds a tokenizer of another kind; the error names the file and the field.
pub fn open_tokenizer(model: impl AsRef<Path>) -> Result<TextTokenizer> {
    let model = model.as_ref();
    if is_gguf(model) { tokenizer_of(&GgufFile::open(model)?) } else { Ok(TextTokenizer::from_dir(model)?) }
}

/// Checks that the configuration of an artefact of codes says so to programs that read no codes. Folders that are no
/// artefact may be older than the field.
fn check_says_codes(dir: &Path) -> Result<()> {
    let path = dir.join("config.json");
    let config: serde_json::Value = read_json(&path)?;
    if config.get("quantization_config").is_some_and(|field| !field.is_null()) {
        return Ok(());
    }
    Err(Error::option("quantization_config", "missing", "that of an artefact of codes").in_file(path))
}
