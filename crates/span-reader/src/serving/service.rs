//! A model that answers each request by a plan of its own.

use burn::tensor::backend::Backend;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Dataset, Decoded, Example, SpanFeatures, SpecialTokens};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::choice::cascade::{ConfidenceCascade, Escalation};
use crate::choice::cascade_table::CascadeStage;
use crate::choice::controller::PrecisionController;
use crate::choice::latency::LatencyOptions;
use crate::error::{Error, Result};
use crate::evaluation::evaluate::Evaluator;
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reader::Reader;
use crate::evaluation::reading::{ReadingTask, span_config};
use crate::model_folder::ModelFolder;
use crate::serving::plan_choice::PlanChoice;

/// A question about a text, and how its plan is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The question.
    pub question: String,
    /// The text that holds the answer, which may be longer than the model's window.
    pub context: String,
    /// How the plan is chosen.
    pub choice: PlanChoice,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The span, and how probable it is.
    pub decoded: Decoded,
    /// Calibrated confidence, of the cascade alone.
    pub confidence: Option<f64>,
    /// Mean width of the weights of the plan that answered, in bits.
    pub average_bits: f64,
    /// What the stages of the cascade before the one that answered were too unsure of; empty under any other choice.
    pub escalations: Vec<Escalation>,
}

/// A model that answers each request by a plan of its own: shared between threads, it is never changed by an
/// answer.
///
/// ```
/// # use quant_kernels::backends::quant_backend::QuantBackend;
/// # use span_reader::{ModelFolder, serving::{plan_choice::PlanChoice, service::{Request, Service}}};
/// # use switchable_model::model::SwitchableModel;
/// # fn answer<B: QuantBackend, M: SwitchableModel<B>>(folder: ModelFolder<B, M>) -> span_reader::Result<()> {
/// let service = Service::new(folder)?;
/// let choice = PlanChoice::Named("small".into());
/// let request = Request { question: "Where is it?".into(), context: "It is in Riga.".into(), choice };
/// println!("{}", service.answer(&request)?.decoded.text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Service<B: Backend, M> {
    folder: ModelFolder<B, M>,
    default: SitePlan,
    controller: Option<PrecisionController>,
    cascade: Option<(Vec<CascadeStage>, Vec<f64>)>,
    special: SpecialTokens,
    options: EvaluateOptions,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Service<B, M> {
    /// A service of an open folder: of its plans, its front and its cascade where it is an artefact that has them.
    ///
    /// # Errors
    ///
    /// When the tokenizer has no separator, or a plan is not one of the model.
    pub fn new(folder: ModelFolder<B, M>) -> Result<Self> {
        let default = folder.default_plan();
        folder.model.check_plan(&default)?;
        let special = SpecialTokens::of(&folder.tokenizer)?;
        let (mut controller, mut cascade) = (None, None);
        if let Some(artefact) = &folder.artefact {
            let front = artefact.front.clone();
            controller = front.map(|front| PrecisionController::new(&folder.model, front, "")).transpose()?;
            if let Some(saved) = &artefact.cascade {
                let opened = saved.open(&folder.model)?;
                cascade = Some((opened.stages().to_vec(), saved.chosen.thresholds.clone()));
            }
        }
        let options = EvaluateOptions { batch_size: 8, ..EvaluateOptions::default() };
        Ok(Self { folder, default, controller, cascade, special, options })
    }

    /// The same, reading with other batches and workers.
    #[must_use]
    pub fn with_options(self, options: EvaluateOptions) -> Self {
        Self { options, ..self }
    }

    /// The same with the plans of its front timed here, on some questions, so that plans can be asked for by
    /// latency.
    ///
    /// # Errors
    ///
    /// When the artefact has no front, or the questions do not fit the model.
    pub fn timed(self, questions: Dataset, options: &LatencyOptions) -> Result<Self> {
        let Some(front) = self.folder.artefact.as_ref().and_then(|artefact| artefact.front.clone()) else {
            return Err(self.no("front", "an artefact that was packed with a measured front"));
        };
        let shape = self.folder.model.transformer.shape();
        let task = ReadingTask::for_shape(questions, &self.folder.tokenizer, &shape, None)?;
        let device = self.folder.model.transformer.device();
        let evaluator = Evaluator::new(&self.folder.model, &task, self.options.clone(), &device)?;
        let front = front.with_latencies(&evaluator, options)?;
        let controller = PrecisionController::new(&self.folder.model, front, options.device.clone())?;
        Ok(Self { controller: Some(controller), ..self })
    }

    /// The folder that it answers from.
    pub fn folder(&self) -> &ModelFolder<B, M> {
        &self.folder
    }

    /// The names of the plans.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let plans = self.folder.artefact.iter().flat_map(|artefact| artefact.plans.keys());
        plans.map(String::as_str)
    }

    /// The plans of the cascade; 0 where there is none.
    pub fn stages(&self) -> usize {
        self.cascade.as_ref().map_or(0, |(stages, _)| stages.len())
    }

    /// The plans of the cascade, rising in cost; none where there is no cascade.
    pub fn cascade_plans(&self) -> impl Iterator<Item = &SitePlan> {
        self.cascade.iter().flat_map(|(stages, _)| stages.iter().map(|stage| &stage.plan))
    }

    /// The confidence below which each plan of the cascade but the last escalates; none where there is no cascade.
    pub fn thresholds(&self) -> &[f64] {
        self.cascade.as_ref().map_or(&[], |(_, thresholds)| thresholds)
    }

    /// What picks plans by what was measured of them; `None` where there is no front.
    pub fn controller(&self) -> Option<&PrecisionController> {
        self.controller.as_ref()
    }

    /// The plan of a choice; that of the cascade is the one of its last stage.
    ///
    /// # Errors
    ///
    /// When there is none of the name, none that fits what was asked of it, or the artefact was packed without
    /// what the choice goes by.
    pub fn plan(&self, choice: &PlanChoice) -> Result<&SitePlan> {
        match choice {
            PlanChoice::Default => Ok(&self.default),
            PlanChoice::Named(name) => self.folder.plan_of(name),
            PlanChoice::Measured(request) => match &self.controller {
                Some(controller) => Ok(controller.pick(*request)?.plan),
                None => Err(self.no("front", "an artefact that was packed with a measured front")),
            },
            PlanChoice::Confidence => match self.cascade.as_ref().and_then(|(stages, _)| stages.last()) {
                Some(stage) => Ok(&stage.plan),
                None => Err(self.no("cascade", "an artefact that was packed with a cascade")),
            },
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    ///
    /// As [`answer_all`](Self::answer_all).
    pub fn answer(&self, request: &Request) -> Result<Answer> {
        let mut answers = self.answer_all(std::slice::from_ref(request))?;
        answers.pop().ok_or_else(|| Error::NoQuestions { what: "the request".into() })
    }

    /// Answers requests, those of one plan together; answers are in the order of the requests, and each is the one
    /// that its request gets alone, but for the rounding of sums.
    ///
    /// # Errors
    ///
    /// When a question or text is empty or a question longer than the window, or as [`plan`](Self::plan); the
    /// error says which request.
    pub fn answer_all(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        let mut groups: Vec<(&SitePlan, bool, Vec<usize>)> = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            let check = || {
                for (field, text) in [("question", &request.question), ("context", &request.context)] {
                    if text.trim().is_empty() {
                        return Err(Error::option(field, "empty", "some text"));
                    }
                }
                self.plan(&request.choice)
            };
            let plan = check().map_err(|source| Error::Request { index, source: Box::new(source) })?;
            let escalates = request.choice == PlanChoice::Confidence;
            match groups.iter_mut().find(|(other, cascade, _)| *other == plan && *cascade == escalates) {
                Some((.., members)) => members.push(index),
                None => groups.push((plan, escalates, vec![index])),
            }
        }
        let mut answers: Vec<Option<Answer>> = vec![None; requests.len()];
        for (plan, escalates, members) in groups {
            let features = self.features(requests, &members)?;
            let read = if escalates { self.by_confidence(&features) } else { self.by_plan(&features, plan) };
            for (index, answer) in members.into_iter().zip(read?) {
                answers[index] = Some(answer);
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The windows of some requests.
    fn features(&self, requests: &[Request], members: &[usize]) -> Result<SpanFeatures> {
        let examples: Vec<Example> = members
            .iter()
            .map(|&index| Example {
                id: index.to_string(),
                context: requests[index].context.as_str().into(),
                question: requests[index].question.clone(),
                answers: Vec::new(),
                is_impossible: false,
            })
            .collect();
        let span = span_config(&self.folder.model.transformer.shape(), None, &self.special);
        Ok(SpanFeatures::new(&self.folder.tokenizer, &examples, &span)?)
    }

    fn by_plan(&self, features: &SpanFeatures, plan: &SitePlan) -> Result<Vec<Answer>> {
        let reader = Reader { model: &self.folder.model, options: &self.options };
        let average_bits = plan.average_weight_bits();
        let read = reader.read(features, self.special.pad, plan)?.questions.into_iter();
        let answers = read.map(|question| Answer {
            decoded: question.decoded,
            confidence: None,
            average_bits,
            escalations: Vec::new(),
        });
        Ok(answers.collect())
    }

    fn by_confidence(&self, features: &SpanFeatures) -> Result<Vec<Answer>> {
        let Some((stages, thresholds)) = self.cascade.clone() else {
            return Err(self.no("cascade", "an artefact that was packed with a cascade"));
        };
        let bits: Vec<f64> = stages.iter().map(|stage| stage.plan.average_weight_bits()).collect();
        let cascade = ConfidenceCascade::new(&self.folder.model, stages, thresholds)?;
        let run = cascade.answer_features(features, self.special.pad, &self.options)?;
        let answers = run.answers.into_iter().map(|answer| Answer {
            decoded: answer.decoded,
            confidence: Some(answer.confidence),
            average_bits: bits[answer.stage],
            escalations: answer.escalations,
        });
        Ok(answers.collect())
    }

    fn no(&self, field: &'static str, expected: &str) -> Error {
        let got = if self.folder.artefact.is_some() {
            "missing in the artefact"
        } else {
            "missing: the model is no artefact"
        };
        Error::option(field, got, expected)
    }
}
