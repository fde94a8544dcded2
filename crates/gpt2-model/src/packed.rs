//! Folders of packed models: written once, mapped into memory, run from their codes.
//!
//! ```text
//! dir/config.json           as Hugging Face has it
//! dir/packed.safetensors    codes and scales of the packed matrices, everything else in f32
//! ```
//!
//! The file's layout is that of `docs/FORMAT.md`. Its metadata hold the plan (`plan`, the JSON of a
//! [`PrecisionPlan`]), whether 8-bit codes serve the lower widths too (`nested`), and the configuration
//! again (`config`). The two files cannot be replaced at once: where a write was cut short between
//! them, they disagree, and the folder does not load.

use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use quant_kernels::{
    ActivationBits, Granularity, LinearTerms, NestedTensor, OutputFunction, PackedFile, PackedFileWriter,
    PackedOperand, PackedTensor, PlainData, QuantBackend, QuantSpec, packed_linear,
};
use switchable_lora::{
    PackedWeights, Placement, PrecisionPlan, ScaleFormat, SitePrecision, SwitchableLinear, pack_weight,
    pack_weight_by_step,
};

use crate::error::at_site;
use crate::kv_cache::KV_CACHE_SPEC;
use crate::parameters::ParameterRef;
use crate::sites::block_name;
use crate::weights::Values;
use crate::{BitWidth, Error, Gpt2, Gpt2Config, Gpt2ForQuestionAnswering, ModelOptions, Result, Site, SitePlan};

/// The file of a packed folder.
const FILE: &str = "packed.safetensors";
const PLAN: &str = "plan";
const NESTED: &str = "nested";
const CONFIG: &str = "config";
const HEAD: &str = "lm_head.weight";

/// What is packed at which width.
#[derive(Debug, Clone, Copy)]
pub enum PackedForm<'a> {
    /// Each site at the width that a plan gives it; those above 8 bits stay in f32.
    Plan(&'a SitePlan),
    /// Every site at 8 bits, from which a product takes 8, 7, … or 2 bits.
    Nested,
}

/// How a model is packed.
///
/// | option | default |
/// |---|---|
/// | `scale_format` | f32: the values are those of fake quantisation, bit for bit |
/// | `lm_head` | none: the language-model head is the token embedding in f32 |
#[derive(Debug, Clone, Copy)]
pub struct PackOptions {
    /// The numbers of the scales. f16 halves their bytes and moves each by up to 2⁻¹¹.
    pub scale_format: ScaleFormat,
    /// The width of a packed copy of the token embedding, one scale per token, for the
    /// language-model head.
    pub lm_head: Option<BitWidth>,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self { scale_format: ScaleFormat::F32, lm_head: None }
    }
}

impl<B: QuantBackend> Gpt2<B> {
    /// Writes a packed folder.
    ///
    /// Adapters are not part of it: they are saved by [`save_adapters`](Self::save_adapters). Where the
    /// plan names an adapter with a learned step, the step is the scale of the codes: the folder's weight
    /// at that width is then the one that goes with the adapter, which loads onto these codes and no
    /// others.
    ///
    /// # Errors
    ///
    /// When a site cannot be packed, which names it: as nested codes serve several widths by one scale,
    /// they cannot stand for learned steps, and a packed weight has no adapter merged into it. When the
    /// folder cannot be written. No file is left
    /// half written; a folder in which only one of the two was replaced does not load.
    pub fn save_packed(&self, dir: impl AsRef<Path>, form: PackedForm<'_>, options: &PackOptions) -> Result<()> {
        write(dir.as_ref(), self, "GPT2LMHeadModel", self.named_parameters(), form, *options)
    }

    /// Opens a packed folder, and gives the plan that it was packed by. The codes stay in the file
    /// and are mapped into memory.
    ///
    /// # Errors
    ///
    /// When a file is missing, damaged or of another version, or does not fit the configuration; the
    /// error names the file and the tensor or field.
    pub fn load_packed(dir: impl AsRef<Path>, options: &ModelOptions, device: &B::Device) -> Result<(Self, SitePlan)> {
        let mut folder = PackedFolder::open(dir.as_ref())?;
        folder.body(options, device)
    }

    /// The model with a packed copy of its token embedding as the language-model head, one scale per
    /// token. The embedding itself stays for looking tokens up.
    ///
    /// # Errors
    ///
    /// When the width is not 2 to 8 bits, or the embedding holds what cannot be packed.
    pub fn with_packed_head(mut self, bits: BitWidth, scale_format: ScaleFormat) -> Result<Self> {
        self.packed_head = Some(pack_head(&self, bits, scale_format)?);
        Ok(self)
    }

    /// Bytes that the sites' weights occupy: codes and scales where they are packed, 4 for each
    /// weight where they are not.
    pub fn site_bytes(&self) -> usize {
        Site::all(self.config())
            .map(|site| match self.site(site).packed_weights() {
                Some(weights) => weights.bytes(),
                None => site.parameters(self.config()) * size_of::<f32>(),
            })
            .sum()
    }
}

impl<B: QuantBackend> Gpt2ForQuestionAnswering<B> {
    /// Writes a packed folder; see [`Gpt2::save_packed`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn save_packed(&self, dir: impl AsRef<Path>, form: PackedForm<'_>, options: &PackOptions) -> Result<()> {
        let parameters = self.named_parameters();
        write(dir.as_ref(), &self.transformer, "GPT2ForQuestionAnswering", parameters, form, *options)
    }

    /// Opens a packed folder; see [`Gpt2::load_packed`].
    ///
    /// # Errors
    ///
    /// The same, and when the folder holds no span head.
    pub fn load_packed(dir: impl AsRef<Path>, options: &ModelOptions, device: &B::Device) -> Result<(Self, SitePlan)> {
        let mut folder = PackedFolder::open(dir.as_ref())?;
        let (transformer, plan) = folder.body(options, device)?;
        let weight = folder.data("qa_outputs.weight", &[2, folder.config.n_embd])?;
        let bias = folder.data("qa_outputs.bias", &[2])?;
        let model = Self::with_head(transformer, weight, bias, device).with_linear_settings(options.linear);
        Ok((model, plan))
    }
}

fn pack_head<B: QuantBackend>(model: &Gpt2<B>, bits: BitWidth, scale_format: ScaleFormat) -> Result<PackedTensor> {
    // A column of the head is a token.
    let per_token = QuantSpec::default().with_granularity(Granularity::PerChannel);
    Ok(pack_weight(&model.wte.val().transpose(), bits, &per_token, scale_format)?)
}

/// The codes that a site is saved as; `None` where it stays in f32.
fn pack_site<B: QuantBackend>(
    model: &Gpt2<B>,
    site: Site,
    form: PackedForm<'_>,
    options: PackOptions,
) -> Result<Option<PackedTensor>> {
    let layer = model.site(site);
    let precision = match form {
        PackedForm::Plan(plan) => plan.get(site),
        PackedForm::Nested => {
            check_nested(layer).map_err(|error| at_site(site, error))?;
            SitePrecision::uniform(BitWidth::B8).without_adapter()
        }
    };
    let bits = precision.weights;
    if bits > BitWidth::B8 {
        return Ok(None);
    }
    if let Some(PackedWeights::Fixed(tensor)) = layer.packed_weights()
        && tensor.bits() == bits
    {
        return Ok(Some(tensor.clone()));
    }
    let settings = layer.settings();
    let packed = match layer.learned_step(&precision) {
        Some(_) if settings.placement == Placement::Merged => {
            Err(switchable_lora::Error::MergedStep { bits, what: "a packed weight without the adapter in it" })
        }
        Some(step) => pack_weight_by_step(&layer.weight(), step, options.scale_format),
        None => pack_weight(&layer.weight(), bits, &settings.weight, options.scale_format),
    };
    Ok(Some(packed.map_err(|error| at_site(site, error))?))
}

/// Nested codes have the scales of one quantisation to 8 bits: an adapter's learned step cannot be one of
/// them.
fn check_nested<B: QuantBackend>(layer: &SwitchableLinear<B>) -> switchable_lora::Result<()> {
    let mut widths = layer.bank().iter().filter(|(_, pair)| pair.step().is_some()).map(|(width, _)| width);
    match widths.find(|&width| width <= BitWidth::B8) {
        Some(bits) => {
            Err(switchable_lora::Error::PackedStep { bits, expected: "codes of that width alone, packed by a plan" })
        }
        None => Ok(()),
    }
}

fn write<B: QuantBackend>(
    dir: &Path,
    model: &Gpt2<B>,
    architecture: &str,
    parameters: Vec<(String, ParameterRef<'_, B>)>,
    form: PackedForm<'_>,
    options: PackOptions,
) -> Result<()> {
    let plan = match form {
        PackedForm::Plan(plan) => {
            model.check_plan(plan)?;
            plan.clone()
        }
        PackedForm::Nested => model.uniform_plan(SitePrecision::uniform(BitWidth::B8).without_adapter()),
    };
    let name_of = |site: Site| format!("transformer.{site}.weight");
    let mut packed = Vec::new();
    for site in Site::all(model.config()) {
        if let Some(tensor) = pack_site(model, site, form, options)? {
            packed.push((name_of(site), tensor));
        }
    }
    if let Some(bits) = options.lm_head {
        packed.push((HEAD.to_owned(), pack_head(model, bits, options.scale_format)?));
    }
    let plain: Vec<(String, Vec<usize>, Vec<f32>)> = parameters
        .into_iter()
        .filter(|(name, _)| packed.iter().all(|(packed, _)| packed != name))
        .map(|(name, parameter)| (name, parameter.shape(), parameter.values()))
        .collect();

    let mut writer = PackedFileWriter::new();
    for (name, tensor) in &packed {
        writer.packed(name.as_str(), tensor);
    }
    for (name, shape, values) in &plain {
        writer.plain(name.as_str(), shape, PlainData::F32(values));
    }
    writer.metadata(PLAN, plan.to_precision_plan().to_json());
    writer.metadata(NESTED, matches!(form, PackedForm::Nested).to_string());
    let config = model.config().to_json(architecture);
    writer.metadata(CONFIG, config.to_string());
    writer.write(dir.join(FILE))?;
    Ok(whole_files::write(dir.join("config.json"), format!("{config:#}\n").as_bytes())?)
}

/// An open packed folder.
struct PackedFolder {
    path: PathBuf,
    config: Gpt2Config,
    file: PackedFile,
    nested: bool,
}

impl PackedFolder {
    fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let config_path = dir.join("config.json");
        let config = Gpt2Config::load(&config_path)?;
        let file = PackedFile::open(&path)?;
        let Some(packed_with) = file.metadata().get(CONFIG) else {
            return Err(metadata_error(&path, CONFIG, None, "the model's configuration"));
        };
        let packed_with = serde_json::from_str(packed_with).map_err(|error| Error::json(&path, error))?;
        let packed_with = Gpt2Config::from_json(&packed_with, &path)?;
        if let Some((field, got, expected)) = first_difference(&config, &packed_with) {
            return Err(Error::PackedConfig { path: config_path, weights: path, field, got, expected });
        }
        let nested = match file.metadata().get(NESTED).map(String::as_str) {
            Some("true") => true,
            Some("false") => false,
            got => return Err(metadata_error(&path, NESTED, got, "`true` or `false`")),
        };
        Ok(Self { path, config, file, nested })
    }

    fn body<B: QuantBackend>(&mut self, options: &ModelOptions, device: &B::Device) -> Result<(Gpt2<B>, SitePlan)> {
        let config = self.config.clone();
        if let Some(name) = self.file.packed_names().chain(self.file.plain_names()).find(|name| beyond(name, &config)) {
            return Err(Error::ExtraBlock { path: self.path.clone(), name: name.to_owned(), n_layer: config.n_layer });
        }
        let mut model = crate::model::build(&config, options, device, self)?;
        if self.file.packed_names().any(|name| name == HEAD) {
            let head = self.file.packed(HEAD)?;
            self.check_shape(HEAD, &head.shape(), &[config.n_embd, config.vocab_size])?;
            model.packed_head = Some(head);
        }
        let text = self.file.metadata().get(PLAN);
        let Some(text) = text else { return Err(metadata_error(&self.path, PLAN, None, "a precision plan")) };
        let in_file = |error| crate::error::in_file(&self.path, error);
        let plan = PrecisionPlan::from_json(text).map_err(in_file)?;
        // The adapters that the plan names may be loaded later.
        let asked_for = |site: Site| plan.get(&site.to_string()).adapter.into_iter().collect::<Vec<_>>();
        plan.validate(Site::all(&config).map(|site| (site.to_string(), asked_for(site)))).map_err(in_file)?;
        plan.validate_kv_cache((0..config.n_layer).map(block_name), KV_CACHE_SPEC).map_err(in_file)?;
        let bare = SitePlan::of_plan(&config, &plan).without_adapters();
        model.check_plan(&bare)?;
        Ok((model, SitePlan::of_plan(&config, &plan)))
    }

    fn check_shape(&self, name: &str, got: &[usize], expected: &[usize]) -> Result<()> {
        if got == expected {
            return Ok(());
        }
        let (path, name) = (self.path.clone(), name.to_owned());
        Err(Error::Shape { path, name, got: got.to_vec(), expected: expected.to_vec() })
    }
}

impl Values for PackedFolder {
    fn data(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        let tensor = self.file.plain(name)?;
        self.check_shape(name, tensor.shape(), shape)?;
        let values = tensor.to_f32();
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => {
                Err(Error::NonFinite { path: self.path.clone(), name: name.to_owned(), index, value: values[index] })
            }
            None => Ok(TensorData::new(values, shape.to_vec())),
        }
    }

    fn packed(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<PackedWeights>> {
        if self.file.packed_names().all(|packed| packed != name) {
            return Ok(None);
        }
        let tensor = self.file.packed(name)?;
        self.check_shape(name, &tensor.shape(), &shape)?;
        Ok(Some(if self.nested {
            PackedWeights::Nested(NestedTensor::new(tensor)?)
        } else {
            PackedWeights::Fixed(tensor)
        }))
    }
}

/// The first field in which two configurations differ, and its two values.
fn first_difference(got: &Gpt2Config, expected: &Gpt2Config) -> Option<(String, String, String)> {
    let [got, expected] = [got, expected].map(|config| config.to_json(""));
    let (got, expected) = (got.as_object()?, expected.as_object()?);
    let (field, value) = got.iter().find(|(field, value)| expected.get(*field) != Some(value))?;
    Some((field.clone(), value.to_string(), expected.get(field)?.to_string()))
}

/// Whether a tensor belongs to a block that the configuration does not have.
fn beyond(name: &str, config: &Gpt2Config) -> bool {
    let block = name.strip_prefix("transformer.h.").and_then(|rest| rest.split('.').next());
    block.and_then(|block| block.parse::<usize>().ok()).is_some_and(|block| block >= config.n_layer)
}

fn metadata_error(path: &Path, field: &'static str, got: Option<&str>, expected: &str) -> Error {
    let got = got.map_or_else(|| "missing".to_owned(), |got| format!("`{got}`"));
    Error::Config { path: path.into(), field, got, expected: expected.to_owned() }
}

/// Scores of the next token from a packed head.
pub(crate) fn packed_logits<B: QuantBackend>(hidden: Tensor<B, 2>, head: &PackedTensor) -> Tensor<B, 2> {
    let nothing = LinearTerms { bias: None, adapter: None, function: OutputFunction::Identity };
    packed_linear(hidden, PackedOperand::whole(head), ActivationBits::FULL, nothing)
}
