//! Questions read under one plan: answers, and the scores that confidences are made of.

use burn::tensor::backend::Backend;
use quant_kernels::QuantBackend;
use squad_data::{BatchConfig, Batches, Decoded, NullRule, SpanDecoder, SpanFeatures};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use super::span_scores::SpanScores;
use crate::error::{Error, Result};
use crate::evaluation::evaluate::EvaluateOptions;
use crate::evaluation::reading::{BatchTensors, scores};

/// Reads questions with a model.
#[derive(Debug)]
pub(super) struct Reader<'a, B: Backend, M> {
    pub(super) model: &'a ForQuestionAnswering<B, M>,
    pub(super) options: &'a EvaluateOptions,
    /// The id that pads windows.
    pub(super) pad: u32,
}

/// What was read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// One for each example of the features.
    pub(super) questions: Vec<QuestionReading>,
    pub(super) windows: usize,
    /// Positions computed, padding included.
    pub(super) positions: usize,
}

#[derive(Debug, Clone)]
pub(super) struct QuestionReading {
    pub(super) decoded: Decoded,
    pub(super) scores: SpanScores,
    /// Tokens of its windows, padding left out.
    pub(super) tokens: usize,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Reader<'_, B, M> {
    /// Reads all examples of some features, of which there is at least one.
    ///
    /// # Errors
    ///
    /// When questions may be answered with nothing, an adapter of the plan is missing, or the work is
    /// stopped.
    pub(super) fn read(&self, features: &SpanFeatures, plan: &SitePlan) -> Result<Reading> {
        let EvaluateOptions { batch_size, workers, decode, stop, .. } = self.options;
        if decode.null != NullRule::Never {
            let expected = "never, as the confidence is that of a span";
            return Err(Error::option("decode.null", format!("{:?}", decode.null), expected));
        }
        self.model.transformer.check_plan(plan)?;
        let device = self.model.transformer.device();
        let batches: Vec<_> =
            Batches::new(features, BatchConfig::evaluation(*batch_size, self.pad))?.epoch(0).collect();
        let computed = workers.map(&batches, |_, batch| {
            stop.check()?;
            let logits = self.model.forward(BatchTensors::<B>::new(batch, &device).ids, None, plan);
            Ok::<_, Error>([scores(logits.start), scores(logits.end)])
        });
        let mut decoder = SpanDecoder::new(features, *decode)?;
        let mut rows = vec![[Vec::new(), Vec::new()]; features.len()];
        let mut positions = 0;
        for (batch, ends) in batches.iter().zip(computed) {
            let ends = ends?;
            decoder.add_batch(batch, &ends[0], &ends[1])?;
            positions += batch.batch * batch.len;
            for (row, &window) in batch.windows.iter().enumerate() {
                rows[window] = ends.each_ref().map(|end| end[row * batch.len..(row + 1) * batch.len].to_vec());
            }
        }
        let mut first = 0;
        let question = |(example, decoded): (usize, Decoded)| {
            let windows = features.windows_of(example);
            let rows = &rows[first..first + windows.len()];
            first += windows.len();
            // A span of one token is always admitted, so there is a best one.
            let best = &decoded.n_best[0];
            let scores = SpanScores::new(features, example, rows, (best.window, best.tokens));
            let tokens = windows.iter().map(|window| window.ids.len()).sum();
            QuestionReading { decoded, scores, tokens }
        };
        let questions = decoder.finish()?.into_iter().enumerate().map(question).collect();
        Ok(Reading { questions, windows: features.len(), positions })
    }
}
