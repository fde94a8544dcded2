//! What a model answered, and what that took.
//!
//! ```text
//! tokens/s = tokens of all windows, padding left out / seconds of reading them in batches
//! p50, p95 = the smallest time that 50 %, 95 % of the questions, asked one at a time, did not exceed
//! ```

use std::fmt;
use std::time::Instant;

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::QuestionScore;
use switchable_lora::precision_plan::PrecisionPlan;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::certificate::machine::{Machine, Resident, resident_bytes};
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::evaluation::evaluate::Evaluator;
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::question_task::QuestionTask;
use crate::evaluation::reader::Reader;
use crate::running::workers::Workers;

/// Times of reading.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Questions that were asked one at a time.
    pub questions: usize,
    /// Their median time in milliseconds.
    pub p50_milliseconds: f64,
    /// The time in milliseconds that 95 % of them did not exceed.
    pub p95_milliseconds: f64,
    /// Tokens per second, read in batches by all workers.
    pub tokens_per_second: f64,
    /// Batches at once.
    pub workers: usize,
}

/// What one model gave and took on some questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredModel {
    /// The plan that it ran at.
    pub plan: PrecisionPlan,
    /// Scores of the questions in the order of the data set.
    pub scores: Vec<QuestionScore>,
    /// Bytes of its weights, scales and adapters as they are stored, computed.
    pub weight_bytes: usize,
    /// Bytes that its process held; `None` where the system does not say it, or where the process held other
    /// models as well.
    pub resident: Option<Resident>,
    /// Times.
    pub timing: Timing,
    /// The machine.
    pub machine: Machine,
}

impl Timing {
    /// The times of an evaluation that took some seconds, and of some of its questions asked one at a time.
    ///
    /// # Errors
    ///
    /// When an adapter of the plan is missing, or the work is stopped.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        evaluator: &Evaluator<'_, B, M>,
        plan: &SitePlan,
        questions: usize,
        seconds: f64,
    ) -> Result<Self> {
        let tokens = evaluator.task().tokens();
        let mut times = single_milliseconds(evaluator, plan, questions)?;
        times.sort_by(f64::total_cmp);
        Ok(Self {
            questions: times.len(),
            p50_milliseconds: quantile(&times, 0.5),
            p95_milliseconds: quantile(&times, 0.95),
            tokens_per_second: tokens as f64 / seconds,
            workers: evaluator.options().workers.len(),
        })
    }
}

/// `1234 tokens/s with 2 workers; a question alone: p50 12.3 ms, p95 20.1 ms (n = 16)`
impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { questions, p50_milliseconds: p50, p95_milliseconds: p95, tokens_per_second, workers } = self;
        let plural = if *workers == 1 { "" } else { "s" };
        write!(f, "{tokens_per_second:.0} tokens/s with {workers} worker{plural}; ")?;
        write!(f, "a question alone: p50 {p50:.1} ms, p95 {p95:.1} ms (n = {questions})")
    }
}

/// Whether a process has one model alone, so that its memory is that model's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Process {
    /// It has opened this model and no other.
    OfOneModel,
    /// It holds others as well.
    Shared,
}

/// How a model is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasureOptions {
    /// Questions that are asked one at a time, the first of the set.
    pub timed_questions: usize,
    /// Whose memory is counted.
    pub process: Process,
}

impl MeasuredModel {
    /// Reads all questions of an evaluator under a plan, then some of them one at a time; `after_batch` is told of
    /// every batch that was read.
    ///
    /// # Errors
    ///
    /// When an adapter of the plan is missing, no question is to be timed, or the work is stopped.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        evaluator: &Evaluator<'_, B, M>,
        plan: &SitePlan,
        options: MeasureOptions,
        after_batch: &(dyn Fn() + Sync),
    ) -> Result<Self> {
        if options.timed_questions == 0 {
            return Err(Error::option("timed_questions", 0, "at least one question"));
        }
        let loaded = resident_bytes().map(|resident| resident.loaded);
        let model = evaluator.model();
        let start = Instant::now();
        let (accuracy, _) = evaluator.predict_telling(plan, after_batch)?;
        let seconds = start.elapsed().as_secs_f64();
        let timing = Timing::measure(evaluator, plan, options.timed_questions, seconds)?;
        let resident = match options.process {
            Process::OfOneModel => resident_bytes().zip(loaded).map(|(all, loaded)| Resident { loaded, ..all }),
            Process::Shared => None,
        };
        Ok(Self {
            plan: model.named_plan(plan),
            scores: accuracy.scores,
            weight_bytes: Cost::of(&model.transformer, plan).stored.bytes,
            resident,
            timing,
            machine: Machine::at_hand(backend::<B>()),
        })
    }
}

fn backend<B: Backend>() -> String {
    B::name(&B::Device::default())
}

/// Times of questions that are asked one at a time, each alone on the machine.
fn single_milliseconds<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    plan: &SitePlan,
    questions: usize,
) -> Result<Vec<f64>> {
    let task = evaluator.task();
    let alone = EvaluateOptions { workers: Workers::callers_thread(), ..evaluator.options().clone() };
    let reader = Reader { model: evaluator.model(), options: &alone };
    let time = |question| {
        let one = task.select(question);
        let start = Instant::now();
        match &one {
            QuestionTask::Span(one) => drop(reader.read(&one.features, one.special.pad, plan)?),
            QuestionTask::Generate(one) => {
                let device = evaluator.model().transformer.device();
                drop(Evaluator::new(evaluator.model(), one, alone.clone(), &device)?.evaluate(plan)?);
            }
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    };
    // The first pass may still make what later ones find.
    time(0)?;
    (0..questions.min(task.dataset().len())).map(time).collect()
}

/// The smallest of ascending values that a share of them does not exceed.
fn quantile(ascending: &[f64], share: f64) -> f64 {
    let place = (share * ascending.len() as f64).ceil() as usize;
    ascending.get(place.clamp(1, ascending.len().max(1)) - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::quantile;

    #[test]
    fn quantiles_are_times_that_were_measured() {
        let times: Vec<f64> = (1..=20).map(f64::from).collect();
        for (share, expected) in [(0.5, 10.0), (0.95, 19.0), (1.0, 20.0), (0.0, 1.0)] {
            assert!((quantile(&times, share) - expected).abs() < f64::EPSILON, "{share}");
        }
        assert!((quantile(&[7.0], 0.95) - 7.0).abs() < f64::EPSILON);
    }
}
