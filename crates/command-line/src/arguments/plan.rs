//! A plan that a command runs at, and the quantiser that goes with it.

use std::path::{Path, PathBuf};

use clap::Args;

use switchable_quant::experiments::running::progress::ShowProgress;
use switchable_quant::kernels::{BitWidth, QuantBackend, QuantSpec, Rotation, RoundingMethod};
use switchable_quant::lora::site_precision::SiteRounding;
use switchable_quant::lora::switchable_linear::windows_of;
use switchable_quant::lora::{LinearSettings, PrecisionPlan, SitePrecision};
use switchable_quant::reader::model_folder::{OwnAdapters, Quantiser};
use switchable_quant::reader::{FolderOptions, ModelFolder};
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::site_plan::SitePlan;
use switchable_quant::transformer::span_head::{ForQuestionAnswering, MissingHead};
use switchable_quant::transformer::width_heads::HeadChoice;

use crate::arguments::{activations::ActivationArgs, calibration::CalibrationArgs};
use crate::calibration::CalibrationRequest;
use crate::ending::usage;

/// Width or plan of every site, and how weights are quantised.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// Plan as JSON, instead of --bits; it says how its sites are quantised, unless it is of version 1
    #[arg(long, value_name = "FILE", conflicts_with = "bits")]
    pub plan: Option<PathBuf>,
    /// Plan of an artefact, by its name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["bits", "plan"])]
    pub plan_name: Option<String>,
    /// Weight quantiser: granularity,mapping,range; by default that of the plan, of the packed weights or of the
    /// adapters in the folder of the model, else per-tensor,symmetric,min-max
    #[arg(long, value_name = "SPEC")]
    pub quantizer: Option<QuantSpec>,
    /// How weights are rounded where no learned step does: nearest, hqq (scales of small error but for a few
    /// weights), nested (the highest bits of the codes of 8 bits) or gptq (each input makes up for the error of those
    /// before it, by a calibration); by default as
    /// the plan or the adapters have it, else nearest
    #[arg(long, value_name = "METHOD")]
    pub rounding: Option<RoundingMethod>,
    /// How inputs and weights of a layer are rotated before they are quantised: none, hadamard, or hadamard:SEED for
    /// other signs; by default as the plan or the adapters have it, else none
    #[arg(long, value_name = "ROTATION")]
    pub rotation: Option<Rotation>,
    /// Activations.
    #[command(flatten)]
    pub activations: ActivationArgs,
    /// What the model is calibrated on.
    #[command(flatten)]
    pub calibration: CalibrationArgs,
    /// Width of the embeddings and of the output matrix, a scale for each row, in place of what the plan says;
    /// without a plan they are at full precision, or at the width of their codes
    #[arg(long, value_name = "BITS")]
    pub embedding_bits: Option<BitWidth>,
}

/// A plan from a file.
#[derive(Debug, Clone)]
pub struct PlanFile {
    path: PathBuf,
    plan: PrecisionPlan,
}

impl PlanArgs {
    /// Reads the plan, if there is one.
    ///
    /// # Errors
    ///
    /// When the file is missing or no plan, or `--quantizer` is another quantiser than that of its sites.
    pub fn read(&self) -> anyhow::Result<Option<PlanFile>> {
        if let (Some(bits), true) = (self.activations.activations, self.plan.is_some() || self.plan_name.is_some()) {
            return Err(usage(format!(
                "`--activations {bits}` is for plans of one width: a plan says those of its sites"
            )));
        }
        let Some(path) = &self.plan else { return Ok(None) };
        let file = PlanFile { plan: PrecisionPlan::load(path)?, path: path.clone() };
        if let Some(asked) = self.quantizer {
            file.check(asked)?;
        }
        if let Some(asked) = self.rounding {
            file.check_rounding(asked)?;
        }
        if let Some(asked) = self.rotation {
            file.check_rotation(asked)?;
        }
        Ok(Some(file))
    }

    /// Options to build the model with: the settings of the plan, which its sites may differ from, with the
    /// quantiser that is asked for.
    pub fn model_options(&self, plan: Option<&PlanFile>) -> ModelOptions {
        let own = LinearSettings::default();
        let of_plan = plan.map(|file| file.plan.default_precision().quantisation(own.quantisation()));
        let settings = own.with_quantisation(of_plan.unwrap_or(own.quantisation()));
        let weight = self.quantizer.unwrap_or(settings.weight);
        let rounding = self.rounding.unwrap_or(settings.rounding);
        let rotation = self.rotation.unwrap_or(settings.rotation);
        let linear = LinearSettings { weight, rounding, rotation, ..settings };
        ModelOptions { linear, ..ModelOptions::default() }
    }

    /// What the model is calibrated on, for the widths of the plan and others that are asked for.
    ///
    /// # Errors
    ///
    /// When the plan cannot be read, or the flags do not fit.
    pub fn calibration_request(
        &self,
        plan: Option<&PlanFile>,
        bits: impl IntoIterator<Item = BitWidth>,
        show: ShowProgress,
    ) -> anyhow::Result<CalibrationRequest> {
        let asked = plan.into_iter().flat_map(PlanFile::widths).chain(bits);
        self.calibration.request(self.plan.as_deref(), asked, show)
    }

    /// Options to open a language model with, which needs no head. Adapters that the plan does not ask for need not be
    /// those of its quantiser: they are left out, as they are by `--no-adapter`.
    pub fn language_model_options(&self, plan: Option<&PlanFile>, no_adapter: bool) -> FolderOptions {
        let is_bare = no_adapter || plan.is_some_and(|plan| !plan.names_adapters());
        let adapters = if is_bare { OwnAdapters::LeftOut } else { OwnAdapters::Used };
        FolderOptions {
            model: self.model_options(plan),
            missing_head: MissingHead::Random(0),
            adapters,
            quantiser: self.quantiser(),
            activations: self.activations.activations,
        }
    }

    /// Whose quantisers a folder of floats has: where neither a plan nor a flag says them, those that its adapters were
    /// trained for.
    pub fn quantiser(&self) -> Quantiser {
        let is_said = [self.quantizer.is_some(), self.rounding.is_some(), self.rotation.is_some(), self.plan.is_some()]
            .contains(&true);
        if is_said { Quantiser::Given } else { Quantiser::OfAdapters }
    }

    /// The plan that a folder runs at: of the file, of the artefact by its name, of one width with its adapters, or
    /// the folder's own; with the embeddings at the width that is asked for.
    ///
    /// # Errors
    ///
    /// When a plan is not one of the model, or the artefact has none of the name.
    pub fn choose<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        folder: &ModelFolder<B, M>,
        file: Option<&PlanFile>,
        bits: Option<BitWidth>,
    ) -> anyhow::Result<SitePlan> {
        let body = &folder.model.transformer;
        self.check_model(body)?;
        let plan = match (file, &self.plan_name, bits) {
            (Some(file), ..) => file.resolve(&folder.model)?,
            (None, Some(name), _) => folder.plan_of(name)?.clone(),
            (None, None, Some(bits)) => body.uniform_plan(folder.precision(bits)),
            (None, None, None) => folder.default_plan(),
        };
        Ok(self.with_embeddings(body, plan))
    }

    /// The plan with the embeddings at the width that is asked for.
    pub fn with_embeddings<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &M, plan: SitePlan) -> SitePlan {
        match self.embedding_bits {
            Some(bits) => model.with_embedding_bits(plan, bits),
            None => plan,
        }
    }

    /// Checks that a model of packed weights is of the quantiser that is asked for.
    ///
    /// # Errors
    ///
    /// When it is another.
    pub fn check_model<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &M) -> anyhow::Result<()> {
        self.check_rounding(model)?;
        let Some(asked) = self.quantizer else { return Ok(()) };
        for site in model.sites().iter() {
            let layer = model.site(site);
            let got = layer.settings().weight;
            if layer.packed_weights().is_some_and(|codes| codes.quantizer(asked) != asked) {
                let name = model.sites().name(site);
                return Err(usage(format!(
                    "`--quantizer {asked}` contradicts the packed weights: `{name}` was packed by {got}"
                )));
            }
        }
        Ok(())
    }
}

impl PlanArgs {
    /// Checks that a packed folder, which keeps how its weights are rounded and rotated, was packed by what is asked
    /// for.
    fn check_rounding<B: QuantBackend, M: SwitchableModel<B>>(&self, model: &M) -> anyhow::Result<()> {
        for site in model.sites().iter() {
            let (layer, name) = (model.site(site), model.sites().name(site));
            let LinearSettings { rounding, rotation, .. } = layer.settings();
            if let Some(asked) = self.rounding.filter(|asked| *asked != rounding) {
                return Err(usage(format!(
                    "`--rounding {asked}` contradicts the packed weights: `{name}` was packed by {rounding}"
                )));
            }
            if let Some(asked) = self.rotation.filter(|asked| *asked != rotation) {
                return Err(usage(format!(
                    "`--rotation {asked}` contradicts the packed weights: `{name}` was packed with {rotation}"
                )));
            }
        }
        Ok(())
    }
}

impl PlanFile {
    /// A plan that stands in a file of other things too.
    pub fn new(path: impl Into<PathBuf>, plan: PrecisionPlan) -> Self {
        Self { path: path.into(), plan }
    }

    /// The plan for a model. A plan that leaves its quantiser to the run is said to do so.
    ///
    /// # Errors
    ///
    /// When it is not one of the model, or says a span head that the model lacks; the error names the file.
    pub fn resolve<B: QuantBackend, M: SwitchableModel<B>>(
        &self,
        model: &ForQuestionAnswering<B, M>,
    ) -> anyhow::Result<SitePlan> {
        let plan = model.resolve(&self.plan).map_err(|error| error.in_file(&self.path))?;
        if !self.plan.is_explicit() {
            let (path, run) = (self.path.display(), model.transformer.settings().quantisation());
            eprintln!("{path} does not say how every site is quantised; where it does not: {run}");
        }
        if let (Some(said), Some(here)) = (self.plan.calibration(), model.transformer.calibration())
            && said != here
        {
            let other =
                if windows_of(said) == windows_of(here) { "on another model" } else { "with another calibration" };
            eprintln!("{} was found {other}: its codes here are not those of then", self.path.display());
        }
        let other = |(_, precision): &(_, SitePrecision)| {
            precision.adapter.is_some() && (precision.quantizer.is_some() || precision.activation_quantizer.is_some())
        };
        match plan.iter().filter(other).count() {
            0 => {}
            sites => eprintln!("{sites} sites have an adapter beside another quantiser than that of the model"),
        }
        Ok(plan)
    }

    /// Checks `--span-head` against the head that the plan says.
    ///
    /// # Errors
    ///
    /// When they are different ones.
    pub fn check_span_head(&self, asked: Option<HeadChoice>) -> anyhow::Result<()> {
        match (asked, self.plan.span_head()) {
            (Some(asked), Some(said)) if asked != said => {
                let path = self.path.display();
                Err(usage(format!("`--span-head {asked}` contradicts {path}, whose `span_head` is {said}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether some site asks for an adapter, or the plan for the head that an adapter brings.
    pub fn names_adapters(&self) -> bool {
        let of_sites = self.plan.entries().any(|(_, precision)| precision.adapter.is_some());
        of_sites || matches!(self.plan.span_head(), Some(HeadChoice::Width(_)))
    }

    /// The widths of the weights that it names.
    fn widths(&self) -> impl Iterator<Item = BitWidth> {
        self.plan.entries().map(|(_, precision)| precision.weights)
    }

    /// Where the plan is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check_rounding(&self, asked: RoundingMethod) -> anyhow::Result<()> {
        let entries = self.plan.entries().filter(|(_, precision)| precision.weights != BitWidth::FULL);
        for (name, precision) in entries {
            let said = precision.rounding.and_then(SiteRounding::method);
            if let Some(got) = said.filter(|got| *got != asked) {
                let (path, name) = (self.path.display(), if name.is_empty() { "default" } else { name });
                return Err(usage(format!("`--rounding {asked}` contradicts {path}, which rounds `{name}` {got}")));
            }
        }
        Ok(())
    }

    fn check_rotation(&self, asked: Rotation) -> anyhow::Result<()> {
        let is_quantised = |precision: &SitePrecision| {
            !(precision.weights.is_full() && precision.activations.is_full()) && precision.quantizer.is_some()
        };
        for (name, precision) in self.entries_of_blocks().filter(|(_, precision)| is_quantised(precision)) {
            let got = precision.rotation.unwrap_or_default();
            if got != asked {
                let (path, name) = (self.path.display(), if name.is_empty() { "default" } else { name });
                return Err(usage(format!("`--rotation {asked}` contradicts {path}, which has `{name}` at {got}")));
            }
        }
        Ok(())
    }

    /// The entries but those of embeddings, which have a quantiser of their own and stand outside of the blocks.
    fn entries_of_blocks(&self) -> impl Iterator<Item = (&str, SitePrecision)> {
        let is_in_block = |name: &str| name.split('.').any(|part| part.parse::<usize>().is_ok());
        let of_embedding: Vec<&str> =
            self.plan.sites().map(|(name, _)| name).filter(|name| !is_in_block(name)).collect();
        self.plan.entries().filter(move |(name, _)| !of_embedding.contains(name))
    }

    fn check(&self, asked: QuantSpec) -> anyhow::Result<()> {
        for (name, precision) in self.entries_of_blocks() {
            let is_quantised = precision.weights != BitWidth::FULL;
            if let Some(got) = precision.quantizer.filter(|got| is_quantised && *got != asked) {
                let (path, name) = (self.path.display(), if name.is_empty() { "default" } else { name });
                return Err(usage(format!("`--quantizer {asked}` contradicts {path}, which quantises `{name}` {got}")));
            }
        }
        Ok(())
    }
}
