//! Folders of packed models: written once, mapped into memory, run from their codes.
//!
//! ```text
//! dir/config.json           as Hugging Face has it
//! dir/packed.safetensors    codes and scales of the packed matrices, everything else in f32
//! ```
//!
//! The file's layout is that of `docs/FORMAT.md`. Its metadata hold the plan (`plan`, the JSON of a
//! [`PrecisionPlan`]), whether 8-bit codes serve the lower widths too (`nested`), and the configuration
//! again (`config`). `config.json` says by its `quantization_config` that the weights are codes. The two files cannot
//! be replaced at once: where a write was cut short between
//! them, they disagree, and the folder does not load.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use serde_json::Value;

use quant_kernels::{
    backends::quant_backend::QuantBackend,
    packed::file::{plain::PlainData, reader::PackedFile, writer::PackedFileWriter},
    spec::rotation::Rotation,
};
use switchable_lora::{
    packed_weights::PackedWeights, precision_plan::PrecisionPlan, quantisation_settings::QuantisationSettings,
};

use super::codes::{packed_embeddings, packed_plan, packed_sites, serves_several};
use super::form::{PackOptions, PackedForm};
use super::quantization_config::{QUANTIZATION_CONFIG, quantization_config, take};
use crate::config::ModelConfig;
use crate::error::{Error, Result, in_file};
use crate::folder_names::{OUTPUT_MATRIX, PACKED_FILE, SPAN_HEAD};
use crate::json_text::{parse_json, read_text};
use crate::kv_rounding::KV_CACHE_SPEC;
use crate::model::SwitchableModel;
use crate::named_plans::NamedPlans as _;
use crate::options::ModelOptions;
use crate::parameters::ParameterRef;
use crate::site_plan::SitePlan;
use crate::sites::{LM_HEAD, Site, Sites};
use crate::weights::builder::ModelBuilder;
use crate::weights::tensors::check_alone;
use crate::weights::values::Values;

const PLAN: &str = "plan";
const NESTED: &str = "nested";
const CONFIG: &str = "config";

/// A packed folder that is to be written.
pub(crate) struct PackedWriter<C> {
    config: C,
    plan: PrecisionPlan,
    nested: bool,
    packed: Vec<(String, PackedWeights)>,
}

impl<C: ModelConfig> PackedWriter<C> {
    /// Packs a model.
    pub(crate) fn new<B: QuantBackend, M: SwitchableModel<B, Config = C>>(
        model: &M,
        form: PackedForm<'_>,
        options: PackOptions,
    ) -> Result<Self> {
        let plan = packed_plan(model, form, options)?;
        let (sites, embeddings) = (packed_sites(model, form, options)?, packed_embeddings(model, &plan, options)?);
        let embeddings = embeddings.into_iter().map(|(site, tensor)| (site, PackedWeights::Fixed(tensor)));
        let name_of = |(site, weights)| (tensor_name::<C>(model.sites(), site), weights);
        let packed = sites.into_iter().chain(embeddings).map(name_of).collect();
        let plan = model.named_plan(&plan);
        let nested = matches!(form, PackedForm::Nested);
        Ok(Self { config: model.config().clone(), plan, nested, packed })
    }

    /// Writes the codes, and in f32 those parameters that are not packed.
    pub(crate) fn write<B: QuantBackend>(
        &self,
        dir: &Path,
        architecture: &str,
        parameters: Vec<(String, ParameterRef<'_, B>)>,
    ) -> Result<()> {
        let plain: Vec<(String, Vec<usize>, Vec<f32>)> = parameters
            .into_iter()
            .filter(|(name, _)| self.packed.iter().all(|(packed, _)| packed != name))
            .map(|(name, parameter)| (name, parameter.shape(), parameter.values()))
            .collect();
        let mut writer = PackedFileWriter::new();
        for (name, weights) in &self.packed {
            match weights {
                PackedWeights::Fixed(tensor) => writer.packed(name.as_str(), tensor),
                PackedWeights::Nested(nested) => writer.nested(name.as_str(), nested),
            };
        }
        for (name, shape, values) in &plain {
            writer.plain(name.as_str(), shape, PlainData::F32(values));
        }
        writer.metadata(PLAN, self.plan.to_json());
        writer.metadata(NESTED, self.nested.to_string());
        let config = self.config.to_json(architecture);
        writer.metadata(CONFIG, config.to_string());
        writer.write(dir.join(PACKED_FILE))?;
        let mut config = config;
        config[QUANTIZATION_CONFIG] = quantization_config(self.nested);
        Ok(whole_files::write(dir.join("config.json"), format!("{config:#}\n").as_bytes())?)
    }
}

/// An open packed folder.
pub(crate) struct PackedFolder<C> {
    path: PathBuf,
    config: C,
    file: PackedFile,
    nested: bool,
}

impl<C: ModelConfig> PackedFolder<C> {
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(PACKED_FILE);
        check_alone(dir)?;
        let config_path = dir.join("config.json");
        let mut config = parse_json(&read_text(&config_path)?, &config_path)?;
        let file = PackedFile::open(&path)?;
        let nested = match file.metadata().get(NESTED).map(String::as_str) {
            Some("true") => true,
            Some("false") => false,
            got => return Err(metadata_error(&path, NESTED, got, "`true` or `false`")),
        };
        if !nested && let Some(name) = file.names_with_width_scales().next() {
            let expected = format!("`true`, as `{name}` has scales of several widths");
            return Err(metadata_error(&path, NESTED, Some("false"), &expected));
        }
        take(&mut config, nested, &config_path)?;
        let config = C::from_json(&config, &config_path)?;
        let Some(packed_with) = file.metadata().get(CONFIG) else {
            return Err(metadata_error(&path, CONFIG, None, "the model's configuration"));
        };
        let packed_with = C::from_json(&parse_json(packed_with, &path)?, &path)?;
        if let Some((field, got, expected)) = first_difference(&config, &packed_with) {
            return Err(Error::PackedConfig { path: config_path, weights: path, field, got, expected });
        }
        Ok(Self { path, config, file, nested })
    }

    /// Whether there is a span head.
    pub(crate) fn holds_span_head(&self) -> bool {
        self.file.plain_names().any(|name| name == SPAN_HEAD)
    }

    /// The error of a folder without one.
    pub(crate) fn no_span_head(&self) -> Error {
        Error::NoSpanHead { path: self.path.clone() }
    }

    /// The plan that it was packed by.
    pub(crate) fn plan(&self) -> Result<PrecisionPlan> {
        let text = self.file.metadata().get(PLAN);
        let Some(text) = text else { return Err(metadata_error(&self.path, PLAN, None, "a precision plan")) };
        Ok(PrecisionPlan::from_json(text).map_err(|error| in_file(&self.path, error))?)
    }

    pub(crate) fn into_config(self) -> C {
        self.config
    }

    /// The model without a span head, and the plan that it was packed by.
    pub(crate) fn body<B: QuantBackend, M: SwitchableModel<B, Config = C>>(
        &mut self,
        options: &ModelOptions,
        device: &B::Device,
    ) -> Result<(M, SitePlan)> {
        let (config, sites) = (self.config.clone(), self.config.sites());
        let block = |name: &str| sites.block_of(name.strip_prefix(C::BODY)?);
        let beyond = |name: &&str| block(name).is_some_and(|block| block >= sites.blocks());
        if let Some(name) = self.file.packed_names().chain(self.file.plain_names()).find(beyond) {
            let (path, name) = (self.path.clone(), name.to_owned());
            return Err(Error::ExtraBlock { path, name, field: C::BLOCKS_FIELD, blocks: sites.blocks() });
        }
        let plan = self.plan()?;
        // What the folder was packed under is what its sites do of themselves.
        let unrotated = QuantisationSettings { rotation: Rotation::None, ..options.linear.quantisation() };
        let quantisation = plan.default_precision().quantisation(unrotated);
        let linear = options.linear.with_quantisation(quantisation);
        let options = &ModelOptions { linear, ..options.clone() };
        let mut model = M::build(&config, &mut ModelBuilder::new(&config, options, device, self))?;
        for site in self.config.sites().iter() {
            let own = plan.get(&sites.name(site)).with_said_rotation().quantisation(quantisation);
            let layer = model.site_mut(site);
            *layer = layer.clone().with_rounding(own.rounding, own.rotation);
        }
        // A tied output matrix of which the file holds a copy in codes is a matrix of its own.
        let sites = model.sites().clone();
        self.check_names(model.named_parameters().into_iter().map(|(name, _)| name), &sites)?;
        let in_file = |error| in_file(&self.path, error);
        // The adapters that the plan names may be loaded later.
        let asked_for = |site: Site| plan.get(&sites.name(site)).adapters().collect::<Vec<_>>();
        let sites_asked = sites.iter().map(|site| (sites.name(site), asked_for(site)));
        plan.validate_with_embeddings(sites_asked, &sites.embedding_names()).map_err(in_file)?;
        let blocks = (0..sites.blocks()).map(|block| sites.block_name(block));
        plan.validate_kv_cache(blocks, KV_CACHE_SPEC).map_err(in_file)?;
        let is_said = |site: Site| plan.sites().any(|(name, _)| name == sites.name(site));
        let left_open: Vec<Site> = sites.embeddings().filter(|&site| !is_said(site)).collect();
        let plan = SitePlan::of_plan(&sites, &plan);
        // A folder's plan is of its codes.
        let own = |plan: SitePlan, site| plan.with(site, model.embedding_site(site).own_precision());
        let plan = left_open.into_iter().fold(plan, own);
        let named = |error: Error| error.in_file(&self.path);
        model.check_plan(&plan.clone().without_adapters()).map_err(named)?;
        let plan = model.implicit_plan(&plan);
        Ok((model, plan))
    }

    /// Checks that every tensor is one of the model's or of its span head.
    fn check_names(&self, parameters: impl Iterator<Item = String>, sites: &Sites) -> Result<()> {
        let weights = sites.iter().chain(sites.embeddings()).map(|site| tensor_name::<C>(sites, site));
        let heads = [OUTPUT_MATRIX, SPAN_HEAD, "qa_outputs.bias"].map(str::to_owned);
        let known: BTreeSet<String> = parameters.chain(weights).chain(heads).collect();
        match self.file.packed_names().chain(self.file.plain_names()).find(|name| !known.contains(*name)) {
            Some(name) => Err(Error::UnknownTensor { path: self.path.clone(), name: name.to_owned() }),
            None => Ok(()),
        }
    }

    /// A tensor that is not packed.
    pub(crate) fn plain(&self, name: &str, shape: &[usize]) -> Result<TensorData> {
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

    fn check_shape(&self, name: &str, got: &[usize], expected: &[usize]) -> Result<()> {
        if got == expected {
            return Ok(());
        }
        let (path, name) = (self.path.clone(), name.to_owned());
        Err(Error::Shape { path, name, got: got.to_vec(), expected: expected.to_vec() })
    }
}

impl<C: ModelConfig> Values for PackedFolder<C> {
    fn contains(&self, name: &str) -> bool {
        self.file.packed_names().chain(self.file.plain_names()).any(|there| there == name)
    }

    fn data(&mut self, name: &str, shape: &[usize]) -> Result<TensorData> {
        self.plain(name, shape)
    }

    fn packed(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<PackedWeights>> {
        if self.file.packed_names().all(|packed| packed != name) {
            return Ok(None);
        }
        let tensor = self.file.packed(name)?;
        self.check_shape(name, &tensor.shape(), &shape)?;
        let sites = self.config.sites();
        let is_embedding =
            name == OUTPUT_MATRIX || sites.embeddings().any(|site| tensor_name::<C>(&sites, site) == name);
        let is_nested = if is_embedding { serves_several(&tensor, self.nested) } else { self.nested };
        Ok(Some(if is_nested { PackedWeights::Nested(self.file.nested(name)?) } else { PackedWeights::Fixed(tensor) }))
    }
}

/// The name of the tensor of a site.
pub(crate) fn tensor_name<C: ModelConfig>(sites: &Sites, site: Site) -> String {
    match site {
        Site { block: None, module: LM_HEAD } => OUTPUT_MATRIX.to_owned(),
        site => format!("{}{}.weight", C::BODY, sites.name(site)),
    }
}

/// The first field in which two configurations compute differently, and its two values.
fn first_difference<C: ModelConfig>(got: &C, expected: &C) -> Option<(String, String, String)> {
    let [Value::Object(got), Value::Object(expected)] = [got, expected].map(|config| {
        let mut json = config.to_json("");
        json.as_object_mut().into_iter().for_each(|fields| config.kept_fields().remove_from(fields));
        json
    }) else {
        return None;
    };
    let (field, value) = got.iter().find(|(field, value)| expected.get(*field) != Some(value))?;
    Some((field.clone(), value.to_string(), expected.get(field)?.to_string()))
}

fn metadata_error(path: &Path, field: &'static str, got: Option<&str>, expected: &str) -> Error {
    let got = got.map_or_else(|| "missing".to_owned(), |got| format!("`{got}`"));
    Error::Config { path: path.into(), field, got, expected: expected.to_owned() }
}
