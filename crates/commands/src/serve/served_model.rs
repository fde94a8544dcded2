//! A model as the server sees it, whatever its backend and its family.

use std::ops::ControlFlow;

use serde::Serialize;

use switchable_quant::kernels::QuantBackend;
use switchable_quant::reader::Error;
use switchable_quant::reader::choice::cascade::Escalation;
use switchable_quant::reader::serving::generation::TextRequest;
use switchable_quant::reader::serving::plan_choice::PlanChoice;
use switchable_quant::reader::serving::service::{Request, Service};
use switchable_quant::transformer;
use switchable_quant::transformer::generate::GenerateOptions;
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::site_plan::SitePlan;

use super::catalogue::Catalogue;
use super::problem::Problem;
use super::requests::Task;

/// A model that does tasks, for several threads at once.
pub(super) trait ServedModel: Sync {
    /// Does a task; one whose `is_abandoned` becomes true may end early.
    fn compute(&self, task: &Task, choice: &PlanChoice, is_abandoned: &dyn Fn() -> bool) -> Result<Said, Problem>;
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Said {
    /// Of a question.
    Answer(SaidAnswer),
    /// Of a prompt.
    Text(SaidText),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SaidAnswer {
    answer: String,
    /// Where it stands in the text: characters `start..end`, counted as Unicode scalar values.
    start: usize,
    end: usize,
    /// How probable it is by the model's own scores.
    probability: f64,
    /// Calibrated, of the cascade alone.
    confidence: Option<f64>,
    plan: SaidPlan,
    /// What cheaper plans would have answered, and were too unsure of.
    escalations: Vec<SaidEscalation>,
}

/// A text without its prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct SaidText {
    text: String,
    /// Number of tokens.
    tokens: usize,
    plan: SaidPlan,
}

/// The plan that was run, as `/plans` knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct SaidPlan {
    id: String,
    average_bits: f64,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct SaidEscalation {
    plan: SaidPlan,
    answer: String,
    confidence: f64,
    threshold: f64,
}

/// A service with its catalogue and its limits.
pub(super) struct Served<'a, B: QuantBackend, M: SwitchableModel<B>> {
    pub(super) service: &'a Service<B, M>,
    pub(super) catalogue: &'a Catalogue,
    /// Tokens of a question and its text, or of a prompt, at most.
    pub(super) most_tokens: usize,
    /// Whether a span head was in the files.
    pub(super) answers_questions: bool,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Served<'_, B, M> {
    fn check_length(&self, texts: &[(&str, &str)]) -> Result<(), Problem> {
        let mut tokens = 0;
        for (field, text) in texts {
            tokens += self
                .service
                .folder()
                .tokenizer
                .encode_ids(text)
                .map_err(|error| Problem::from(Error::from(error)))?
                .len();
            if tokens > self.most_tokens {
                let most = self.most_tokens;
                return Err(Problem::field(
                    *field,
                    "too long",
                    format!("at most {most} tokens, the question's included"),
                ));
            }
        }
        Ok(())
    }

    fn plan(&self, plan: &SitePlan) -> SaidPlan {
        let average_bits = plan.average_weight_bits();
        match self.catalogue.entry(plan) {
            Some(entry) => SaidPlan { id: entry.id.clone(), average_bits, bytes: entry.bytes },
            None => SaidPlan { id: String::new(), average_bits, bytes: 0 },
        }
    }

    fn answer(&self, request: &Request) -> Result<SaidAnswer, Problem> {
        if !self.answers_questions {
            return Err(Problem::field("question", "for a model without a span head", "one that answers questions"));
        }
        self.check_length(&[("question", &request.question), ("context", &request.context)])?;
        let answer = self.service.answer(request)?;
        let stages: Vec<&SitePlan> = self.service.cascade_plans().collect();
        let plan = match request.choice {
            // Each stage before the one that answered has escalated.
            PlanChoice::Confidence => stages[answer.escalations.len()],
            _ => self.service.plan(&request.choice)?,
        };
        let escalation = |(stage, escalation): (usize, Escalation)| SaidEscalation {
            plan: self.plan(stages[stage]),
            answer: escalation.text,
            confidence: escalation.confidence,
            threshold: escalation.threshold,
        };
        let chars = answer.decoded.n_best.first().map(|best| best.chars);
        Ok(SaidAnswer {
            answer: answer.decoded.text,
            start: chars.map_or(0, |chars| chars.start),
            end: chars.map_or(0, |chars| chars.end),
            probability: answer.decoded.probability,
            confidence: answer.confidence,
            plan: self.plan(plan),
            escalations: answer.escalations.into_iter().enumerate().map(escalation).collect(),
        })
    }

    fn generate(
        &self,
        prompt: &str,
        (options, choice): (&GenerateOptions, &PlanChoice),
        is_abandoned: &dyn Fn() -> bool,
    ) -> Result<SaidText, Problem> {
        self.check_length(&[("prompt", prompt)])?;
        let request = TextRequest { prompt: prompt.to_owned(), options: options.clone(), choice: choice.clone() };
        let text = self.service.generate_streaming(&request, |_| {
            if is_abandoned() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let text = text.map_err(|error| of_penalty(error, options.repetition_penalty))?;
        let plan = self.plan(self.service.plan(choice)?);
        Ok(SaidText { text: text.text, tokens: text.tokens.len(), plan })
    }
}

/// A problem of generating. A model's own scores are finite: where they are infinite, the penalty has led there.
fn of_penalty(error: Error, penalty: f32) -> Problem {
    match error {
        Error::Model(transformer::Error::Scores { got, .. }) if got.is_infinite() && (penalty - 1.0).abs() > 0.0 => {
            let expected = format!("one that leaves scores finite: by it one became {got}");
            Problem::field("repetition_penalty", format!("{penalty:e}"), expected)
        }
        other => other.into(),
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> ServedModel for Served<'_, B, M> {
    fn compute(&self, task: &Task, choice: &PlanChoice, is_abandoned: &dyn Fn() -> bool) -> Result<Said, Problem> {
        match task {
            Task::Answer { question, context } => {
                let (question, context) = (question.clone(), context.clone());
                self.answer(&Request { question, context, choice: choice.clone() }).map(Said::Answer)
            }
            Task::Generate { prompt, options } => {
                self.generate(prompt, (options, choice), is_abandoned).map(Said::Text)
            }
        }
    }
}
