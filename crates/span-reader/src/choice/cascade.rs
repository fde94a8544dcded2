//! Answers at few bits, and at more where the confidence is low.
//!
//! ```text
//! read every question at the first stage
//! repeat   questions with confidence below the stage's threshold go to the next stage, in new batches
//! until    none is left or the last stage has read
//! BitOps   = Σ over stages of tokens read · BitOps per token
//! ```
//!
//! Sources: Viola and Jones, *Rapid object detection using a boosted cascade of simple features*, CVPR
//! 2001 (cascades); Chow, *On optimum recognition error and reject tradeoff*, IEEE Transactions on
//! Information Theory 1970 (thresholds on the probability of the answer).

use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Decoded, SpanFeatures, TextTokenizer};
use switchable_model::model::SwitchableModel;
use switchable_model::span_head::ForQuestionAnswering;

use super::cascade_table::{CascadeStage, accuracy_of, check_stages};
use super::span_scores::{SpanScores, refuse_no_answer};
use crate::cost::Cost;
use crate::error::{Error, Result};
use crate::evaluation::accuracy::Accuracy;
use crate::evaluation::answer::request_features;
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reader::Reader;
use crate::evaluation::reading::ReadingTask;

/// Plans of one model, cheapest first, and when to go on to the next.
#[derive(Debug)]
pub struct ConfidenceCascade<'a, B: Backend, M> {
    model: &'a ForQuestionAnswering<B, M>,
    stages: Vec<CascadeStage>,
    bit_ops_per_token: Vec<f64>,
    thresholds: Vec<f64>,
}

/// An answer and where it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct CascadeAnswer {
    /// The answer. Its own probabilities are those at a temperature of 1.
    pub decoded: Decoded,
    /// Calibrated probability of the answer.
    pub confidence: f64,
    /// The stage that gave it, counted from 0.
    pub stage: usize,
    /// What the stages before it would have answered, in their order.
    pub escalations: Vec<Escalation>,
}

/// An answer that its stage was too unsure of, so that the next one read the question again.
#[derive(Debug, Clone, PartialEq)]
pub struct Escalation {
    /// The answer.
    pub text: String,
    /// Its calibrated probability.
    pub confidence: f64,
    /// The confidence that would have been enough.
    pub threshold: f64,
}

/// What one stage did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StageWork {
    /// Questions read.
    pub questions: usize,
    /// Windows read.
    pub windows: usize,
    /// Tokens read, padding left out.
    pub tokens: usize,
    /// Positions computed, padding included; they depend on the batches.
    pub positions: usize,
    /// Bit operations of the sites on the tokens.
    pub bit_ops: f64,
}

/// Answers to questions and the work of each stage.
#[derive(Debug, Clone, PartialEq)]
pub struct CascadeRun {
    /// One for each question, in their order.
    pub answers: Vec<CascadeAnswer>,
    /// One for each stage; zero where no question came.
    pub work: Vec<StageWork>,
}

impl<'a, B: QuantBackend, M: SwitchableModel<B>> ConfidenceCascade<'a, B, M> {
    /// A cascade; a question leaves stage `k` for the next where its confidence is below threshold `k`.
    ///
    /// # Errors
    ///
    /// When there is not one threshold, 0 to 1, for each stage but the last; when the stages do not rise
    /// in BitOps; or a plan is not one of the model.
    pub fn new(model: &'a ForQuestionAnswering<B, M>, stages: Vec<CascadeStage>, thresholds: Vec<f64>) -> Result<Self> {
        for stage in &stages {
            model.check_plan(&stage.plan)?;
        }
        let cost = |stage: &CascadeStage| Cost::of(&model.transformer, &stage.plan).bit_ops_per_token;
        let bit_ops_per_token: Vec<f64> = stages.iter().map(cost).collect();
        check_stages(bit_ops_per_token.iter().copied(), &thresholds)?;
        Ok(Self { model, stages, bit_ops_per_token, thresholds })
    }

    /// The stages.
    pub fn stages(&self) -> &[CascadeStage] {
        &self.stages
    }

    /// Answers all questions of a task, those that escalate in new batches.
    ///
    /// # Errors
    ///
    /// When questions may be answered with nothing, or the work is stopped.
    pub fn answer_all(&self, task: &ReadingTask, options: &EvaluateOptions) -> Result<CascadeRun> {
        self.answer_features(&task.features, task.special.pad, options)
    }

    /// Answers one question about a text, which may be longer than the model's window.
    ///
    /// # Errors
    ///
    /// When the question or the text is empty, or the question does not fit the window.
    pub fn answer(
        &self,
        tokenizer: &TextTokenizer,
        question: &str,
        context: &str,
    ) -> Result<(CascadeAnswer, Vec<StageWork>)> {
        let (features, pad) = request_features(tokenizer, question, context, &self.model.transformer.shape())?;
        let mut run = self.answer_features(&features, pad, &EvaluateOptions::default())?;
        let answer = run.answers.pop().ok_or_else(|| Error::NoQuestions { what: "the request".into() })?;
        Ok((answer, run.work))
    }

    /// Answers the examples of some features, whose batches `pad` fills.
    ///
    /// # Errors
    ///
    /// As [`answer_all`](Self::answer_all).
    pub fn answer_features(&self, features: &SpanFeatures, pad: u32, options: &EvaluateOptions) -> Result<CascadeRun> {
        refuse_no_answer(options)?;
        let reader = Reader { model: self.model, options };
        let mut answers: Vec<Option<CascadeAnswer>> = vec![None; features.examples().len()];
        let mut escalations: Vec<Vec<Escalation>> = vec![Vec::new(); answers.len()];
        let mut waiting: Vec<usize> = (0..answers.len()).collect();
        let mut work = Vec::with_capacity(self.stages.len());
        for (index, stage) in self.stages.iter().enumerate() {
            if waiting.is_empty() {
                work.push(StageWork { questions: 0, windows: 0, tokens: 0, positions: 0, bit_ops: 0.0 });
                continue;
            }
            let asked = features.select(&waiting);
            let reading = reader.read(&asked, pad, &stage.plan)?;
            let tokens = reading.questions.iter().map(|question| question.tokens).sum();
            work.push(StageWork {
                questions: waiting.len(),
                windows: reading.windows,
                tokens,
                positions: reading.positions,
                bit_ops: tokens as f64 * self.bit_ops_per_token[index],
            });
            let mut escalated = Vec::new();
            for (example, (question, read)) in waiting.into_iter().zip(reading.questions).enumerate() {
                let confidence = SpanScores::new(&asked, example, &read).confidence(stage.temperature);
                match self.thresholds.get(index) {
                    Some(&threshold) if confidence < threshold => {
                        escalations[question].push(Escalation { text: read.decoded.text, confidence, threshold });
                        escalated.push(question);
                    }
                    _ => {
                        let escalations = std::mem::take(&mut escalations[question]);
                        let decoded = read.decoded;
                        answers[question] = Some(CascadeAnswer { decoded, confidence, stage: index, escalations });
                    }
                }
            }
            waiting = escalated;
        }
        // The last stage keeps every question.
        Ok(CascadeRun { answers: answers.into_iter().flatten().collect(), work })
    }
}

impl CascadeRun {
    /// Accuracy on the questions of the task that was answered.
    ///
    /// # Errors
    ///
    /// When the answers are of other questions.
    pub fn accuracy(&self, task: &ReadingTask) -> Result<Accuracy> {
        let decoded: Vec<Decoded> = self.answers.iter().map(|answer| answer.decoded.clone()).collect();
        accuracy_of(task, &decoded)
    }

    /// Bit operations of all stages.
    pub fn bit_ops(&self) -> f64 {
        self.work.iter().map(|work| work.bit_ops).sum()
    }
}
