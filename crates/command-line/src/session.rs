//! A command over a model, written once for every device and every family of models.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use switchable_quant::burn::module::AutodiffModule as _;
use switchable_quant::burn::tensor::backend::Backend;
use switchable_quant::data::{Dataset, QuestionCounts, TextTokenizer};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::device::{Device, DeviceChoice, WithAutodiff};
use switchable_quant::families::{WithTrainableFamily, with_trainable_family};
use switchable_quant::identity::Identity;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend, QuantSpec};
use switchable_quant::lora;
use switchable_quant::reader::certificate::held_out::HeldOut;
use switchable_quant::reader::certificate::seen_data::SeenData;
use switchable_quant::reader::evaluation::prompt_task::PromptTask;
use switchable_quant::reader::evaluation::question_task::QuestionTask;
use switchable_quant::reader::model_folder::OwnAdapters;
use switchable_quant::reader::{FolderOptions, ModelFolder, ReadingTask};
use switchable_quant::transformer::Error;
use switchable_quant::transformer::adapters::AdapterFolders as _;
use switchable_quant::transformer::model::TrainableModel;
use switchable_quant::transformer::options::ModelOptions;
use switchable_quant::transformer::scaling::ScalingChoice;
use switchable_quant::transformer::span_head::{ForQuestionAnswering, MissingHead};
use switchable_quant::transformer::width_heads::HeadChoice;

use crate::adapter_place::AdapterPlace;
use crate::arguments::activations::ActivationArgs;
use crate::arguments::answers::{AnswerArgs, Asking};
use crate::arguments::execution::{ExecutionArg, ExecutionArgs};
use crate::arguments::input::InputArgs;
use crate::arguments::plan::{PlanArgs, PlanFile};
use crate::arguments::run::RunArgs;
use crate::calibration::{CalibratedOn, CalibrationRequest, calibrate};
use crate::contents::{backend, name_of, of_built_in, of_folder, of_questions};
use crate::files::{LoadedQuestions, resolve_model};
use crate::reported::Reported;

/// What a command does with a model.
pub trait Command {
    /// What its results are reported on, which nothing may be calibrated on: asked for before a calibration.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged.
    fn reported(&self, _tokenizer: &TextTokenizer) -> anyhow::Result<Vec<Reported>> {
        Ok(Vec::new())
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of the command.
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()>;
}

/// Which model a command works on, and where.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    /// The device.
    pub device: DeviceChoice,
    /// Folder or name of the model; by default the one that is part of the program.
    pub model: Option<&'a str>,
    /// Folder of adapters in the place of the model's own.
    pub adapters: Option<&'a Path>,
    /// How the folder is opened.
    pub options: FolderOptions,
    /// The span head for plans whose adapters came with different ones.
    pub mixed_head: Option<HeadChoice>,
    /// How quantised weights are held and products are computed.
    pub execution: ExecutionArgs,
    /// What the model is calibrated on where it has to be.
    pub calibration: CalibrationRequest,
}

/// Which language model a command works on, and where.
#[derive(Debug, Clone, Copy)]
pub struct LanguageModel<'a> {
    /// The device.
    pub device: DeviceChoice,
    /// As in [`Opening`].
    pub model: Option<&'a str>,
    /// As in [`Opening`].
    pub adapters: Option<&'a Path>,
    /// Whether adapters are left out.
    pub no_adapter: bool,
    /// As in [`Opening`].
    pub execution: ExecutionArgs,
}

impl InputArgs {
    /// The model that the flags name, built with some options; without a span head of its own it answers where
    /// adapters brought one.
    pub fn opening(&self, run: &RunArgs, model: ModelOptions) -> Opening<'_> {
        Opening {
            device: run.device,
            model: self.model.as_deref(),
            adapters: self.adapters.as_deref(),
            options: FolderOptions {
                model,
                missing_head: MissingHead::OfAdapters,
                adapters: if self.no_adapter { OwnAdapters::LeftOut } else { OwnAdapters::Used },
                ..FolderOptions::default()
            },
            mixed_head: self.span_head,
            execution: run.execution,
            calibration: CalibrationRequest::default(),
        }
    }
}

/// An open model on a device.
#[derive(Debug)]
pub struct Session<B: Backend, M> {
    /// Model, tokenizer, adapters.
    pub folder: ModelFolder<B, M>,
    /// The model's name, for artefacts.
    pub name: String,
    /// The model's folder; `None` for the one that is part of the program.
    pub dir: Option<PathBuf>,
    /// Whether its span head is random: the folder of the language model has none.
    pub has_random_head: bool,
    /// The adapters of its widths.
    pub adapters: AdaptersUsed,
    /// What the model was calibrated on, if it was.
    pub calibrated: Option<CalibratedOn>,
    /// The device as burn knows it.
    pub device: B::Device,
    /// The device as the user knows it.
    pub machine: Device,
}

/// The adapters that a command runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdaptersUsed {
    /// The model or folder that they come from.
    pub source: String,
    /// Where the files lie.
    pub place: AdapterPlace,
    /// The widths that have one, ascending.
    pub widths: Vec<BitWidth>,
    /// How many sites of the model have one of each width.
    pub sites: Vec<usize>,
    /// How many sites the model has.
    pub all_sites: usize,
}

impl AdaptersUsed {
    /// Says on standard error which of some widths run without an adapter, where others have one.
    pub fn say_bare(&self, widths: &[BitWidth]) {
        let bare = widths.iter().filter(|width| !self.widths.contains(width)).map(ToString::to_string);
        let bare: Vec<String> = bare.collect();
        if !bare.is_empty() && !self.widths.is_empty() {
            eprintln!("{} bits run without an adapter: {} has none", bare.join(", "), self.source);
        }
    }
}

/// `runs/bank/adapters: 2, 4 (at 12 of 48 sites), 8 bits, none at other widths`
impl fmt::Display for AdaptersUsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |(width, &sites): (&BitWidth, &usize)| {
            let all = self.all_sites;
            if sites == all { width.to_string() } else { format!("{width} (at {sites} of {all} sites)") }
        };
        let widths: Vec<String> = self.widths.iter().zip(&self.sites).map(width).collect();
        if widths.is_empty() {
            return f.write_str("none");
        }
        write!(f, "{}: {} bits, none at other widths", self.source, widths.join(", "))
    }
}

/// Questions, and where they and the model come from.
#[derive(Debug)]
pub struct Questions<T = ReadingTask> {
    /// The questions in the windows of the model, or as prompts.
    pub task: T,
    /// The files and counts, for artefacts.
    pub source: Value,
    /// The questions there are, and those left out.
    pub counts: QuestionCounts,
    /// What results depend on: the contents of the model and of the questions.
    pub identity: Identity,
}

impl<T> Questions<T> {
    /// The name of the questions, for messages and records.
    pub fn name(&self) -> String {
        let name = self.source["data"].as_str().unwrap_or_default();
        name_of(Path::new(name))
    }
}

impl<'a> Opening<'a> {
    /// A language model, which needs no head, quantised as flags and plan say.
    pub fn of_language_model(
        LanguageModel { device, model, adapters, no_adapter, execution }: LanguageModel<'a>,
        how: &PlanArgs,
        plan: Option<&PlanFile>,
        calibration: CalibrationRequest,
    ) -> Self {
        let options = how.language_model_options(plan, no_adapter);
        Self { device, model, adapters, options, mixed_head: None, execution, calibration }
    }
}

impl Opening<'_> {
    /// The same with what the model is calibrated on.
    #[must_use]
    pub fn calibrated_on(self, calibration: CalibrationRequest) -> Self {
        Self { calibration, ..self }
    }

    /// The same for answers of a form: what a language model writes needs no span head.
    #[must_use]
    pub fn answering(mut self, answers: &AnswerArgs) -> Self {
        if answers.generates() {
            self.options.missing_head = MissingHead::Random(0);
        }
        self
    }

    /// The same with activations at a width, if one is asked for.
    #[must_use]
    pub fn with_activations(mut self, ActivationArgs { activations }: ActivationArgs) -> Self {
        self.options.activations = activations;
        self
    }

    /// Adapters that others take the place of are not read: they may be for another quantiser.
    fn own_adapters(&self) -> OwnAdapters {
        if self.adapters.is_some() { OwnAdapters::LeftOut } else { self.options.adapters }
    }

    /// Opens the model and runs a command on it.
    ///
    /// # Errors
    ///
    /// When the device does not answer, a file is missing or damaged, or the command fails.
    pub fn run(self, command: impl Command) -> anyhow::Result<()> {
        let machine = self.device.resolve()?;
        machine.dispatch_autodiff(OnDevice { opening: self, command, machine: &machine }).map_err(with_flag)
    }
}

/// Names the flag by which adapters of another quantiser run, and the one that leaves them out.
fn with_flag(error: anyhow::Error) -> anyhow::Error {
    let trained = error.chain().find_map(|cause| match in_lora(cause) {
        Some(lora::Error::TrainedFor { field, trained, .. }) => Some((*field, trained.clone())),
        _ => None,
    });
    let flag = match trained {
        Some(("weight", trained)) => format!("`--quantizer {trained}`"),
        Some((field @ ("rounding" | "rotation"), trained)) => format!("`--{field} {trained}`"),
        _ => return error,
    };
    error.context(format!("the adapters of the model run with {flag}; without them it runs with `--no-adapter`"))
}

/// An error of the adapters: that of a file holds another in a box, which is what its chain shows.
fn in_lora<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a lora::Error> {
    cause.downcast_ref().or_else(|| cause.downcast_ref::<Box<lora::Error>>().map(Box::as_ref))
}

struct OnDevice<'a, C> {
    opening: Opening<'a>,
    command: C,
    machine: &'a Device,
}

impl<C: Command> WithAutodiff for OnDevice<'_, C> {
    type Output = anyhow::Result<()>;

    fn run<B: QuantAutodiffBackend>(mut self, device: B::Device) -> anyhow::Result<()> {
        let linear = &mut self.opening.options.model.linear;
        *linear = self.opening.execution.settings::<B>(*linear, self.machine);
        let Some(name) = self.opening.model else {
            let options = &self.opening.options;
            let folder = match self.opening.own_adapters() {
                OwnAdapters::Used => default_model::load::<B>(&options.model, &device)?,
                OwnAdapters::LeftOut => default_model::load_without_adapters::<B>(&options.model, &device)?,
            };
            return self.start(folder, None, device);
        };
        let dir = resolve_model(name)?;
        with_trainable_family::<B, _>(&dir, InFolder { on: &device, dir: &dir, task: self })?
    }
}

struct InFolder<'a, B: Backend, C> {
    on: &'a B::Device,
    dir: &'a Path,
    task: OnDevice<'a, C>,
}

impl<B: QuantAutodiffBackend, C: Command> WithTrainableFamily<B> for InFolder<'_, B, C> {
    type Output = anyhow::Result<()>;

    fn run<M: TrainableModel<B>>(self) -> anyhow::Result<()> {
        let Self { on, dir, task } = self;
        let options = FolderOptions { adapters: task.opening.own_adapters(), ..task.opening.options.clone() };
        let folder = ModelFolder::<B, M>::open(dir, &options, on)?;
        task.start(folder, Some(dir), on.clone())
    }
}

impl<C: Command> OnDevice<'_, C> {
    fn start<B: QuantAutodiffBackend, M: TrainableModel<B>>(
        self,
        mut folder: ModelFolder<B, M>,
        dir: Option<&Path>,
        device: B::Device,
    ) -> anyhow::Result<()> {
        folder.activations = self.opening.options.activations;
        let is_random = matches!(self.opening.options.missing_head, MissingHead::Random(_));
        let holds_head = dir.map_or(Ok(true), |dir| ForQuestionAnswering::<B, M>::holds_head(dir))?;
        let name = self.opening.model.unwrap_or("built-in").to_owned();
        let (mut source, mut place) = (name.clone(), AdapterPlace::Own);
        if let Some(adapters) = self.opening.adapters {
            // In the place of the model's own: widths that the folder lacks run without one.
            folder.load_adapters(adapters)?;
            (source, place) = (adapters.display().to_string(), AdapterPlace::Folder(adapters.into()));
        }
        if self.opening.options.adapters == OwnAdapters::LeftOut && self.opening.adapters.is_none() {
            place = AdapterPlace::LeftOut;
        }
        let body = &folder.model.transformer;
        let widths = body.served_widths();
        let served = |width: &BitWidth| body.adapter_sites(body.precision_at(*width).adapter.unwrap_or(*width));
        let sites = widths.iter().map(served).collect();
        let adapters = AdaptersUsed { source, place, widths, sites, all_sites: body.sites().len() };
        eprintln!("quantiser  {}", folder.model.transformer.settings().quantisation());
        eprintln!("adapters   {adapters}");
        let body = &folder.model.transformer;
        if self.opening.execution.execution == Some(ExecutionArg::Simulated)
            && body.sites().iter().any(|site| body.site(site).packed_weights().is_some())
        {
            eprintln!("execution  packed all the same: the weights are only there as codes");
        }
        folder.notes.iter().for_each(|note| eprintln!("{note}"));
        if let Some(HeadChoice::Width(bits)) = self.opening.mixed_head
            && folder.model.width_head(bits).is_none()
        {
            let available = folder.model.head_widths().to_vec();
            return Err(Error::NoHeadOfWidth { bits, available }).context("--span-head");
        }
        folder.model = folder.model.with_mixed_head(self.opening.mixed_head);
        let reported = |tokenizer: &_| self.command.reported(tokenizer);
        let (folder, calibrated) = calibrate(folder, dir, &self.opening.calibration, reported)?;
        let (dir, machine) = (dir.map(Into::into), self.machine.clone());
        let has_random_head = is_random && !holds_head;
        self.command.run(Session { folder, name, dir, has_random_head, adapters, calibrated, device, machine })
    }
}

impl<B: QuantAutodiffBackend, M: TrainableModel<B>> Session<B, M> {
    /// The weight quantiser of the model: that of the flags, or of the codes of a packed folder.
    pub fn quantizer(&self) -> QuantSpec {
        self.folder.model.transformer.settings().weight
    }

    /// How the factors that are folded into the model were chosen, if any are.
    pub fn scaling(&self) -> Option<ScalingChoice> {
        self.calibrated.as_ref().and_then(|calibrated| calibrated.scaling)
    }

    /// What a search says first: device, model and questions, quantiser, a line each.
    pub fn heading(&self, source: &Value) -> String {
        let (machine, quantizer) = (&self.machine, self.quantizer());
        let (model, questions) = (&source["model"], &source["questions"]);
        format!("device     {machine}\nmodel      {model}, questions {questions}\nquantiser  {quantizer}\n")
    }

    /// The model as it answers, without gradients.
    pub fn plain(&self) -> ForQuestionAnswering<B::InnerBackend, M::InnerModule> {
        self.folder.model.valid()
    }

    /// Questions in the windows of the model.
    ///
    /// # Errors
    ///
    /// When there are none, or they do not fit the model.
    pub fn task(&self, questions: Dataset, window: Option<usize>) -> anyhow::Result<ReadingTask> {
        Ok(ReadingTask::new(questions, &self.folder.tokenizer, self.folder.model.config(), window)?)
    }

    /// What results of this model depend on: the contents of its files, its quantiser and the backend.
    ///
    /// # Errors
    ///
    /// When a file cannot be read.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        let files = match &self.dir {
            Some(dir) => of_folder(dir, &self.adapters.place)?,
            None => of_built_in(&self.adapters.place)?,
        };
        let settings = self.folder.model.transformer.settings();
        let (quantizer, how) = (json!(settings.weight), format!("{settings:?}"));
        let identity =
            files.with_option("quantizer", quantizer).with_option("layers", how).with_option("backend", backend::<B>());
        let identity = match &self.calibrated {
            Some(calibrated) => identity.with_content("calibration", calibrated.name.as_str(), calibrated.hash),
            None => identity,
        };
        let identity = match self.scaling() {
            Some(choice) => identity.with_option("scaling", choice.to_string()),
            None => identity,
        };
        Ok(match self.folder.model.mixed_head() {
            Some(head) => identity.with_option("span_head", json!(head)),
            None => identity,
        })
    }

    /// Says on standard error which questions made the artefact that is run: nothing unseen is measured on them.
    fn say_seen(&self, questions: &Dataset) -> anyhow::Result<()> {
        let record = self.dir.as_deref().map(SeenData::read).transpose()?.flatten();
        let Some(record) = record else { return Ok(()) };
        let held_out = HeldOut::new(questions.clone())?;
        for (set, seen) in record.overlaps(&held_out) {
            let (all, name) = (held_out.len(), &self.name);
            eprintln!(
                "{seen} of {all} questions are of the {} of {name}, {}: they are not held out",
                set.role, set.name
            );
        }
        Ok(())
    }

    /// The questions that the flags name; `set` are the generated ones used without `--data`.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged, or the questions do not fit the model.
    pub fn questions(&self, input: &InputArgs, set: QuestionSet) -> anyhow::Result<Questions> {
        let (loaded, data_name) = input.load(set)?;
        let task = self
            .task(loaded.dataset.clone(), input.window)
            .with_context(|| format!("{data_name} with the model {}", self.name))?;
        let (counts, identity) = (task.measured_counts(), of_questions("data", &data_name, &task));
        self.told(task, input, (&loaded, &data_name), &counts, &identity)
    }

    /// The same in the form in which they are to be answered, as prompts behind the shots that are drawn for them and for
    /// the `others` that are measured on or searched in the same command.
    ///
    /// # Errors
    ///
    /// As [`questions`](Self::questions), and when there are too few shots or a prompt does not fit.
    pub fn questions_as<'a>(
        &self,
        answers: &'a AnswerArgs,
        input: &InputArgs,
        seed: u64,
        set: QuestionSet,
        others: &[&Dataset],
    ) -> anyhow::Result<(Questions<QuestionTask>, Asking<'a>)> {
        let (loaded, data_name) = input.load(set)?;
        let measured: Vec<&Dataset> = std::iter::once(&loaded.dataset).chain(others.iter().copied()).collect();
        let asking = answers.asking(&measured, input.window, seed, input.reading)?;
        let task = self
            .task_as(&asking, loaded.dataset.clone())
            .with_context(|| format!("{data_name} with the model {}", self.name))?;
        if let Some(text) = task.cut_text() {
            eprintln!("{data_name}: {text}");
        }
        let (counts, identity) = (task.measured_counts(), of_questions("data", &data_name, &task));
        let mut questions = self.told(task, input, (&loaded, &data_name), &counts, &identity)?;
        if answers.generates() {
            questions.source["answers"] = json!(answers);
        }
        Ok((questions, asking))
    }

    /// Questions in the windows of the model, or as prompts behind some shots.
    ///
    /// # Errors
    ///
    /// When there are none, or they do not fit the model.
    pub fn task_as(&self, asking: &Asking<'_>, questions: Dataset) -> anyhow::Result<QuestionTask> {
        if !asking.answers.generates() {
            return Ok(QuestionTask::Span(self.task(questions, asking.window)?));
        }
        let options = asking.prompt_options()?;
        let shape = self.folder.model.transformer.shape();
        let (room, shots) = (options.room(&shape), asking.shots.len());
        let task = PromptTask::new(questions, &self.folder.tokenizer, &shape, &options)
            .with_context(|| format!("prompts of {room} tokens with {shots} shots"))?;
        ensure!(
            !task.lost_every_answer(),
            "no prompt holds the part of its context that answers it: `--window {room}` is too little for {shots} shots \
             (`--shots`), the contexts and {} tokens of an answer (`--answer-tokens`)",
            asking.answers.answer_tokens
        );
        Ok(QuestionTask::Generate(task))
    }

    /// Questions that were made ready, once it is said which of them are not new to the model.
    fn told<T>(
        &self,
        task: T,
        input: &InputArgs,
        (loaded, data_name): (&LoadedQuestions, &str),
        measured: &QuestionCounts,
        identity: &Identity,
    ) -> anyhow::Result<Questions<T>> {
        self.say_seen(&loaded.dataset)?;
        let counts = loaded.counts_with(measured);
        if !counts.left_out.is_empty() {
            eprintln!("{data_name}: {}", counts.text("questions"));
        }
        let source = json!({
            "model": self.name, "adapters": input.adapters, "adapter_widths": self.adapters.widths, "data": data_name,
            "questions": loaded.dataset.len(), "counts": counts,
        });
        let identity = self.identity()?.with(identity).with_option("window", input.window);
        Ok(Questions { task, source, counts, identity })
    }
}
