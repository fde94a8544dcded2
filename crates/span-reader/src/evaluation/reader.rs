//! The loop from windows to answers: batches, tensors, the model, scores, the decoder.

use burn::tensor::backend::Backend;

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Batch, BatchConfig, Batches, Decoded, SpanDecoder, SpanFeatures};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reading::{BatchTensors, scores};

/// Reads questions with a model.
#[derive(Debug)]
pub struct Reader<'a, B: Backend, M> {
    /// The model.
    pub model: &'a ForQuestionAnswering<B, M>,
    /// Batch size, workers, decoding, and when to stop.
    pub options: &'a EvaluateOptions,
}

/// What was read.
#[derive(Debug, Clone)]
pub struct ReadQuestions {
    /// One for each example of the features.
    pub questions: Vec<ReadQuestion>,
    /// Windows computed.
    pub windows: usize,
    /// Positions computed, padding included.
    pub positions: usize,
}

/// One question, read.
#[derive(Debug, Clone)]
pub struct ReadQuestion {
    /// Its answer.
    pub decoded: Decoded,
    /// Start and end scores of each of its windows.
    pub rows: Vec<[Vec<f32>; 2]>,
    /// Tokens of its windows, padding left out.
    pub tokens: usize,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Reader<'_, B, M> {
    /// Computes something of each batch, several at once, and takes the results in the order of the
    /// batches.
    ///
    /// # Errors
    ///
    /// When the work is stopped, or taking a result fails.
    pub fn each<T: Send>(
        &self,
        batches: &[(Batch, BatchTensors<B>)],
        compute: impl Fn(usize, &BatchTensors<B>) -> T + Sync,
        mut take: impl FnMut(&Batch, T) -> Result<()>,
    ) -> Result<()> {
        let computed = self.options.workers.map(batches, |i, (_, tensors)| {
            self.options.stop.check()?;
            Ok::<_, Error>(compute(i, tensors))
        });
        batches.iter().zip(computed).try_for_each(|((batch, _), output)| take(batch, output?))
    }

    /// Reads all examples of some features, of which there is at least one; `pad` fills batches.
    ///
    /// # Errors
    ///
    /// When an adapter of the plan is missing, or the work is stopped.
    pub fn read(&self, features: &SpanFeatures, pad: u32, plan: &SitePlan) -> Result<ReadQuestions> {
        self.model.check_plan(plan)?;
        let device = self.model.transformer.device();
        let batches = Batches::new(
            features,
            BatchConfig::evaluation(self.options.windows_per_batch(self.model.transformer.sites(), features), pad),
        )?;
        let with_tensors = |batch: Batch| {
            let tensors = BatchTensors::new(&batch, &device);
            (batch, tensors)
        };
        let batches: Vec<_> = batches.epoch(0).map(with_tensors).collect();
        let mut decoder = SpanDecoder::new(features, self.options.decode)?;
        let mut rows = vec![[Vec::new(), Vec::new()]; features.len()];
        let mut positions = 0;
        let compute = |_, tensors: &BatchTensors<B>| {
            let logits = self.model.forward(tensors.ids.clone(), None, plan);
            [scores(logits.start), scores(logits.end)]
        };
        self.each(&batches, compute, |batch, ends| {
            decoder.add_batch(batch, &ends[0], &ends[1])?;
            positions += batch.batch * batch.len;
            for (row, &window) in batch.windows.iter().enumerate() {
                rows[window] = ends.each_ref().map(|end| end[row * batch.len..(row + 1) * batch.len].to_vec());
            }
            Ok(())
        })?;
        let mut rows = rows.into_iter();
        let question = |(example, decoded): (usize, Decoded)| {
            let windows = features.windows_of(example);
            let rows = rows.by_ref().take(windows.len()).collect();
            ReadQuestion { decoded, rows, tokens: windows.iter().map(|window| window.ids.len()).sum() }
        };
        let questions = decoder.finish()?.into_iter().enumerate().map(question).collect();
        Ok(ReadQuestions { questions, windows: features.len(), positions })
    }
}
