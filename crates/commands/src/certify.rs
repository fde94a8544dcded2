//! What an artefact costs beside the model that it was made from, proved on questions that did not make it.
//!
//! ```text
//! cargo run --release --example certify
//! cargo run --release --example certify -- --original DIR --artefact DIR --data held-out.json
//! cargo run --release --example certify -- --verify DIR --original DIR --data held-out.json
//! ```
//!
//! Without arguments the built-in model is packed at 4 bits into `--out` and certified on the generated questions.
//!
//! Writes `certificate.json` into the artefact's folder and a section into its model card, `README.md`: contents of both
//! models and of the questions, EM and F1 of both, the paired difference with its interval, and the most that is lost
//! with 95 % certainty; the same in parts of the questions; bytes on disk and resident, times and the machine. Each model
//! is measured in a process of its own, one after the other.
//!
//! Refused are questions that `made_from.json` in the artefact's folder says it was made from. An artefact without that
//! file needs `--assume-unseen`, and the certificate then says that this was asserted.
//!
//! `--verify` checks the contents first, measures both again and fails with the first figure that differs; times, memory
//! and the machine are not compared.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use command_line::arguments::activations::ActivationArgs;
use command_line::arguments::calibration::CalibrationArgs;
use command_line::arguments::count::{parse_count, parse_up_to};
use command_line::arguments::null_threshold::{NullThreshold, null_rule};
use command_line::arguments::plan::{PlanArgs, PlanFile};
use command_line::arguments::reading::ReadingArgs;
use command_line::arguments::run::RunArgs;
use command_line::calibration::CalibrationRequest;
use command_line::contents::name_of;
use command_line::files::{load_questions, resolve_data, resolve_model};
use command_line::measured_apart::{end_with_parent, run_again};
use command_line::model_argument::check_model_folder;
use command_line::next_command::NextCommand;
use command_line::session::{Command, Opening, Session};
use command_line::{finish, outln, output, resumable, stop_on_ctrl_c, stoppable, usage};
use switchable_quant::data::{Format, NullRule};
use switchable_quant::default_model::{self, QuestionSet};
use switchable_quant::experiments::running::progress::Progress;
use switchable_quant::kernels::{BitWidth, QuantAutodiffBackend};
use switchable_quant::reader::artefact::manifest::Manifest;
use switchable_quant::reader::artefact::pack::Pack;
use switchable_quant::reader::artefact::target::ArtefactTarget;
use switchable_quant::reader::certificate::certificate_file::{
    Certificate, CertifiedData, Comparison, ReadingOptions, Side, Unseen,
};
use switchable_quant::reader::certificate::certify::MissingRecord;
use switchable_quant::reader::certificate::file_names::CERTIFICATE;
use switchable_quant::reader::certificate::held_out::HeldOut;
use switchable_quant::reader::certificate::measured_model::{MeasureOptions, MeasuredModel, Process};
use switchable_quant::reader::certificate::model_card;
use switchable_quant::reader::certificate::model_files::ModelFiles;
use switchable_quant::reader::certificate::paired_loss::PairedLoss;
use switchable_quant::reader::certificate::seen_data::{SeenData, SeenRole, SeenSet};
use switchable_quant::reader::model_folder::{OwnAdapters, Quantiser};
use switchable_quant::reader::running::stop::StopFlag;
use switchable_quant::reader::{Error, Evaluator, FolderOptions, text};
use switchable_quant::transformer::model::TrainableModel;
use switchable_quant::transformer::packed::form::PackedForm;
use switchable_quant::transformer::span_head::MissingHead;

/// Where the built-in model is packed without arguments.
const PACKED: &str = "runs/certify";

/// Cost of an artefact beside its original, proved on held-out questions
#[derive(Debug, Parser)]
pub struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    /// Hugging Face folder of the model that the artefact was made from, or a name to download; by default the
    /// built-in model
    #[arg(long, value_name = "DIR|NAME", requires = "data")]
    original: Option<String>,
    /// Folder of the artefact, such as the one that packing writes; by default the built-in model at 4 bits, packed into --out
    #[arg(long, alias = "model", value_name = "DIR")]
    artefact: Option<PathBuf>,
    /// Plan that the artefact runs at, as JSON; by default that of its weights
    #[arg(long, value_name = "FILE", requires = "artefact", conflicts_with = "bits")]
    plan: Option<PathBuf>,
    /// Plan of the artefact that it runs at, by its name
    #[arg(long, value_name = "NAME", requires = "artefact", conflicts_with_all = ["bits", "plan"])]
    plan_name: Option<String>,
    /// Width of every site of the artefact, with its adapter where there is one; by default that of its weights
    #[arg(long, value_name = "BITS", requires = "artefact")]
    bits: Option<BitWidth>,
    /// SQuAD file of questions that the artefact was not made from, or squad to download one; by default the held-out
    /// ones of the built-in model
    #[arg(long, value_name = "FILE")]
    data: Option<String>,
    #[command(flatten)]
    read: ReadingArgs,
    /// Answer a question of v2.0 data with nothing where its null score exceeds that of its best span by more
    /// than this; by default 0
    #[arg(long, value_name = "T", allow_hyphen_values = true)]
    null_threshold: Option<NullThreshold>,
    /// Use at most this many questions
    #[arg(long, value_name = "N", value_parser = parse_count)]
    limit: Option<usize>,
    /// Longest window in tokens; by default the model's positions, at most 384 each time that it holds its context
    #[arg(long, value_name = "N", value_parser = parse_count)]
    window: Option<usize>,
    /// Windows per batch
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = parse_up_to::<65_536>)]
    batch: usize,
    /// Questions that are asked one at a time for their latency
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = parse_count)]
    timed: usize,
    /// Take it as given that no question made the artefact, where it does not say what did; the certificate says so
    #[arg(long)]
    assume_unseen: bool,
    /// Check the certificate in the folder of this artefact, on the same questions
    #[arg(
        long, value_name = "ARTEFACT",
        conflicts_with_all = ["artefact", "plan", "plan_name", "bits", "null_threshold", "window", "batch", "assume_unseen"]
    )]
    verify: Option<PathBuf>,
    /// Measure one of the two and print what it gave
    #[arg(long, hide = true)]
    measure: Option<Which>,
    /// Open it and look whether it can be measured
    #[arg(long, hide = true, requires = "measure")]
    check: bool,
    /// The first questions alone, whatever the limit
    #[arg(long, hide = true, requires = "measure", value_name = "N")]
    first: Option<usize>,
}

/// One of the two models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Original,
    Artefact,
}

/// Runs it as a program of its own.
pub fn main() -> ExitCode {
    finish(|| run(std::env::args_os()))
}

/// Runs it on a command line whose first word names the program.
///
/// # Errors
///
/// Those of the command.
pub fn run(line: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let arguments = output::parse::<Arguments>(line);
    if let Some(which) = arguments.measure {
        end_with_parent();
        return arguments.measure_one(which);
    }
    match (&arguments.verify, &arguments.artefact) {
        (Some(dir), _) => stoppable(|| arguments.verify(dir)),
        (None, Some(_)) => stoppable(|| arguments.certify()),
        (None, None) => resumable(&arguments.run.out_or(PACKED), || arguments.certify()),
    }
}

/// What the process that compares and those that measure read alike.
struct Work {
    held_out: HeldOut,
    reading: ReadingOptions,
    /// The certificate that is checked.
    certificate: Option<Certificate>,
}

impl Arguments {
    /// The folder of the artefact.
    fn artefact(&self) -> PathBuf {
        let named = self.verify.clone().or_else(|| self.artefact.clone());
        named.unwrap_or_else(|| self.run.out_or(PACKED))
    }

    /// The folder of the certificate and the model card.
    fn out(&self) -> PathBuf {
        self.run.out.clone().unwrap_or_else(|| self.artefact())
    }

    fn work(&self) -> anyhow::Result<Work> {
        let certificate = self.verify.is_some().then(|| Certificate::read(self.out())).transpose()?;
        let mut dataset = match self.data.as_deref() {
            None | Some("generated") => default_model::questions(QuestionSet::HeldOut)?,
            Some(name) => load_questions(&resolve_data(name)?, self.read)?.dataset,
        };
        if let Some(questions) = self.first.or(self.limit) {
            dataset = dataset.limited(questions);
        }
        let null_threshold = match self.null_threshold {
            None if dataset.format == Format::V2 => Some(0.0),
            asked => match null_rule(asked, dataset.format)? {
                NullRule::Threshold(threshold) => Some(threshold),
                NullRule::Never => None,
            },
        };
        let mut held_out = HeldOut::new(dataset)?;
        let mut reading = ReadingOptions { window: self.window, batch: self.batch, null_threshold };
        if let Some(certificate) = &certificate {
            reading = certificate.reading;
            let certified = &certificate.data.content;
            if held_out.len() > certified.questions {
                held_out = HeldOut::new(held_out.dataset().limited(certified.questions))?;
            }
        }
        Ok(Work { held_out, reading, certificate })
    }

    fn certify(&self) -> anyhow::Result<()> {
        let stop = stop_on_ctrl_c()?;
        if self.original.is_some() && self.artefact.is_none() {
            return Err(usage("`--original` needs `--artefact`: without it the built-in model is packed"));
        }
        self.run.execution.refuse_bf16("a certificate is of products in f32, in which artefacts run by default")?;
        let work = self.work()?;
        let out = self.out();
        if self.artefact.is_none() {
            ArtefactTarget::check(&out)?;
            opening(self, None, FolderOptions::default()).run(PackBuiltIn { out: &out })?;
        }
        let out = RunArgs { out: Some(out), ..self.run.clone() }.locked_out(PACKED)?;
        model_card::check(&out)?;
        let missing = if self.assume_unseen { MissingRecord::Asserted } else { MissingRecord::Refuse };
        let data = CertifiedData::of(&work.held_out, self.artefact(), missing).map_err(|error| match error {
            Error::NoSeenData { .. } => anyhow::anyhow!(
                "{error} (`pack_gpt2 --search-data FILE` writes it; `--assume-unseen` makes a certificate that says that \
                 this was asserted)"
            ),
            other => other.into(),
        })?;
        let files = self.files()?;
        let artefact = self.artefact();
        if Manifest::is_in(&artefact) {
            let source = Manifest::open(&artefact)?.source;
            if source.hash != files[0].hash {
                let (name, hash, original) = (source.name, source.hash, self.name(Which::Original));
                eprintln!(
                    "the artefact was packed from {name} ({hash:.12}), not from {original} ({:.12})",
                    files[0].hash
                );
            }
        }
        let certificate = self.measure_both(&work, (data, files), &stop)?;
        model_card::write_section(&certificate, &out)?;
        certificate.write(&out)?;
        Self::tell(&certificate);
        outln!("wrote {}", out.join(CERTIFICATE).display());
        NextCommand::new("serve").with_path("--model", &out).say(&self.run);
        output::result(&certificate)
    }

    fn verify(&self, artefact: &Path) -> anyhow::Result<()> {
        let stop = stop_on_ctrl_c()?;
        let work = self.work()?;
        let certificate = work.certificate.as_ref().context("no certificate")?;
        let files = self.files()?;
        certificate.artefact.files.check(&files[1], "artefact").context("the artefact")?;
        certificate.original.files.check(&files[0], "original").context("the original")?;
        let missing = match certificate.data.unseen {
            Unseen::Asserted => MissingRecord::Asserted,
            Unseen::Recorded => MissingRecord::Refuse,
        };
        let data = CertifiedData::of(&work.held_out, artefact, missing)?;
        certificate.check_data(&data)?;
        let again = self.measure_both(&work, (data, files), &stop)?;
        certificate.check_same(&again)?;
        model_card::check_section(certificate, self.out())?;
        Self::tell(&again);
        outln!("verified {}", self.out().join(CERTIFICATE).display());
        output::result(&again)
    }

    /// The files of the original and of the artefact.
    fn files(&self) -> anyhow::Result<[ModelFiles; 2]> {
        let artefact = self.artefact();
        check_model_folder(&artefact)?;
        let original = match &self.original {
            None => ModelFiles::embedded(&default_model::FILES),
            Some(name) => {
                let dir = resolve_model(name)?;
                if dir.canonicalize()? == artefact.canonicalize()? {
                    return Err(usage("`--original` is the artefact itself, expected the model that it was made from"));
                }
                ModelFiles::of_original(dir)?
            }
        };
        Ok([original, ModelFiles::of_folder(artefact)?])
    }

    fn name(&self, which: Which) -> String {
        match which {
            Which::Original => self.original.as_ref().map_or("built-in".into(), |name| name_of(Path::new(name))),
            Which::Artefact => name_of(&self.artefact()),
        }
    }

    /// Has both measured, each in a process of its own. Both are looked at before the first is.
    fn measure_both(
        &self,
        work: &Work,
        (data, files): (CertifiedData, [ModelFiles; 2]),
        stop: &StopFlag,
    ) -> anyhow::Result<Certificate> {
        let questions = work.held_out.dataset().len().to_string();
        let again = |which: Which, more: &[&str]| {
            // What the process says of the model stands below.
            eprintln!("{:<10} {}", which.flag(), self.name(which));
            let side = ["--measure", which.flag(), "--first", &questions];
            run_again(&[&side, more].concat(), stop)
        };
        for which in Which::BOTH {
            again(which, &["--check"])?;
        }
        let side = |which: Which, files: ModelFiles| {
            let measured: MeasuredModel = serde_json::from_str(&again(which, &[])?).context("what was measured")?;
            anyhow::Ok(Side { name: self.name(which), files, measured })
        };
        let [of_original, of_artefact] = files;
        let (original, artefact) = (side(Which::Original, of_original)?, side(Which::Artefact, of_artefact)?);
        let reading = work.reading;
        Ok(Certificate::new(Comparison { original, artefact, held_out: &work.held_out, data, reading })?)
    }

    /// Measures one of the two in this process.
    fn measure_one(&self, which: Which) -> anyhow::Result<()> {
        let work = self.work()?;
        let plan = match (&work.certificate, which) {
            (Some(certificate), Which::Original) => Some(certificate.original.plan.clone()),
            (Some(certificate), Which::Artefact) => Some(certificate.artefact.plan.clone()),
            (None, _) => None,
        };
        let plan_args = PlanArgs {
            rounding: None,
            rotation: None,
            activations: ActivationArgs::default(),
            calibration: CalibrationArgs::default(),
            plan: self.plan.clone().filter(|_| which == Which::Artefact),
            plan_name: self.plan_name.clone().filter(|_| which == Which::Artefact),
            quantizer: None,
            embedding_bits: None,
        };
        let plan = match plan {
            Some(plan) => Some(PlanFile::new(self.out().join(CERTIFICATE), plan)),
            None => plan_args.read()?,
        };
        let names_adapters = plan.as_ref().is_none_or(PlanFile::names_adapters);
        let options = FolderOptions {
            model: plan_args.model_options(plan.as_ref()),
            missing_head: MissingHead::OfAdapters,
            adapters: if names_adapters { OwnAdapters::Used } else { OwnAdapters::LeftOut },
            quantiser: if plan.is_some() { Quantiser::Given } else { Quantiser::OfAdapters },
            activations: None,
        };
        let artefact = self.artefact();
        let model = match which {
            Which::Original => self.original.as_deref(),
            Which::Artefact => Some(artefact.to_str().context("the artefact's path is no Unicode")?),
        };
        opening(self, model, options).run(Measure { arguments: self, which, work: &work, how: plan_args, plan })
    }

    fn tell(certificate: &Certificate) {
        let Certificate { original, artefact, exact_match, f1, mcnemar, .. } = certificate;
        for (which, model) in [("original", original), ("artefact", artefact)] {
            let [exact, f1] = [model.exact_match, model.f1].map(|score| text::interval(score.percent, score.interval));
            let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
            let resident = model.resident.map_or("not measured".into(), |bytes| megabytes(bytes.peak));
            outln!(
                "{which}  EM {exact}  F1 {f1}  {} on disk, {resident} resident, p50 {:.1} ms, {:.0} tokens/s",
                megabytes(model.files.model_bytes()),
                model.timing.p50_milliseconds,
                model.timing.tokens_per_second,
            );
        }
        for (name, loss) in [("EM", exact_match), ("F1", f1)] {
            let PairedLoss { difference, interval, loses_at_most, .. } = loss;
            let (difference, lost) = (text::points_within(*difference, *interval), text::at_most(*loses_at_most));
            outln!("{name} differs by {difference} points; at most {lost} are lost");
        }
        outln!("only the original is right {}, only the artefact {}", mcnemar.only_original, mcnemar.only_artefact);
        let worse = certificate.slices.iter().filter(|slice| slice.is_worse);
        worse.for_each(|slice| outln!("worse: {slice}, {:+.1} points", slice.difference));
        let data = &certificate.data.content;
        let (n, paragraphs) = (data.questions, data.paragraphs);
        outln!("{}, n = {n} questions about {paragraphs} paragraphs", model_card::claim(certificate));
    }
}

impl Which {
    const BOTH: [Self; 2] = [Self::Original, Self::Artefact];

    fn flag(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Artefact => "artefact",
        }
    }
}

fn opening<'a>(arguments: &Arguments, model: Option<&'a str>, options: FolderOptions) -> Opening<'a> {
    let execution = arguments.run.execution;
    let (device, calibration) = (arguments.run.device, CalibrationRequest::default());
    Opening { device, model, adapters: None, options, mixed_head: None, execution, calibration }
}

/// The built-in model at 4 bits with its adapters, as an artefact.
struct PackBuiltIn<'a> {
    out: &'a Path,
}

impl Command for PackBuiltIn<'_> {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let folder = &session.folder;
        let plan = folder.model.transformer.uniform_plan(folder.precision(BitWidth::B4));
        // No plan was searched for; what made the adapters made the artefact.
        let training = default_model::questions(QuestionSet::Train)?;
        let seen = SeenSet::new(SeenRole::Training, "generated (train)", &training)?;
        let seen = Some(SeenData::new(vec![seen]));
        let pack = Pack { seen, ..Pack::new(session.source()?, PackedForm::Plan(&plan)) };
        pack.write(folder, self.out)?;
        Ok(())
    }
}

struct Measure<'a> {
    arguments: &'a Arguments,
    which: Which,
    work: &'a Work,
    how: PlanArgs,
    plan: Option<PlanFile>,
}

impl Command for Measure<'_> {
    fn run<B: QuantAutodiffBackend, M: TrainableModel<B>>(self, session: Session<B, M>) -> anyhow::Result<()> {
        let Self { arguments, which, work, how, plan } = self;
        let (folder, model) = (&session.folder, session.plain());
        let plan = how.choose(folder, plan.as_ref(), arguments.bits.filter(|_| which == Which::Artefact))?;
        model.check_plan(&plan).with_context(|| format!("the plan for {}", session.name))?;
        let task = session.task(work.held_out.dataset().clone(), work.reading.window)?;
        let run = &arguments.run;
        let evaluation = run.evaluate_options(&session.machine, work.reading.batch, &StopFlag::default());
        let evaluation = work.reading.evaluation(evaluation);
        let evaluator = Evaluator::new(&model, &task, evaluation, &session.device)?;
        if arguments.check {
            return Ok(());
        }
        let progress = Mutex::new(Progress::start(which.flag(), 0, evaluator.batches(), run.show()));
        let step = || progress.lock().unwrap_or_else(PoisonError::into_inner).step(String::new());
        let options = MeasureOptions { timed_questions: arguments.timed, process: Process::OfOneModel };
        let measured = MeasuredModel::measure(&evaluator, &plan, options, &step)?;
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).finish();
        println!("{}", serde_json::to_string(&measured)?);
        Ok(())
    }
}
