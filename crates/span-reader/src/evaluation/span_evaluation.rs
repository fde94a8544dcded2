//! Evaluation of a plan by the spans that a head points to.

use burn::tensor::{Tensor, backend::Backend};

use quant_kernels::backends::quant_backend::QuantBackend;
use squad_data::{Format, NullAnswers, Predictions, SpanDecoder, evaluate};
use switchable_model::model::SwitchableModel;

use crate::error::Result;
use crate::evaluation::accuracy::Accuracy;
use crate::evaluation::answer_distribution::{AnswerScores, MeanDivergence, MeanLoss};
use crate::evaluation::evaluate::{Evaluated, Evaluator, Keep, KeptStates, Request};
use crate::evaluation::floor::{Tally, Trial};
use crate::evaluation::reader::Reader;
use crate::evaluation::reading::{BatchTensors, ReadingTask, scores};

/// What a batch gives: scores of the span's start and end and, where asked for, the states on the way.
struct BatchOutput<B: Backend> {
    scores: [Vec<f32>; 2],
    states: Vec<Tensor<B, 3>>,
}

impl<B: QuantBackend, M: SwitchableModel<B>> Evaluator<'_, B, M> {
    pub(super) fn run_spans(&self, task: &ReadingTask, request: &Request<'_, B>) -> Result<Trial<Evaluated<B>>> {
        let blocks = request.plan.blocks();
        let kept = |kept: &KeptStates<B>| kept.entry(request.plan).map_or(0, |entry| entry * kept.stride);
        let to_compute = blocks - request.kept.map_or(0, kept);
        self.meter.add_plain(blocks * task.features.len());
        let mut decoder = SpanDecoder::new(&task.features, self.options.decode)?;
        let (mut loss, mut divergence) = (MeanLoss::default(), MeanDivergence::default());
        let (mut kept_scores, mut states) = (Vec::new(), Vec::new());
        let mut read = 0;
        let windows = task.features.windows();
        let asked = || windows.iter().map(|window| (window.id.as_str(), window.example));
        let mut watch = request.floor.map(|floor| (floor, Tally::new(&task.dataset, asked())));
        while read < self.batches.len() {
            let first = read;
            let most = if watch.is_some() { self.options.workers.len() } else { self.batches.len() };
            let chunk = &self.batches[first..self.batches.len().min(first + most)];
            let reader = Reader { model: self.model, options: &self.options };
            let compute = |i: usize, tensors: &BatchTensors<B>| {
                let output = self.run_batch(request, first + i, tensors);
                if let Some(tell) = request.after_batch {
                    tell();
                }
                output
            };
            let mut short = None;
            reader.each(chunk, compute, |batch, output| {
                self.meter.add_computed(to_compute * batch.batch);
                // Decided by a batch before: those computed beside it change nothing, so that the bounds do
                // not depend on the number of workers.
                if short.is_some() {
                    return Ok(());
                }
                let BatchOutput { scores: [start, end], states: kept_states } = output;
                decoder.add_batch(batch, &start, &end)?;
                let scores = AnswerScores { rows: [start, end].into() };
                loss.add(batch, &scores);
                if let Some(kept) = request.kept {
                    divergence.add(batch, &kept.reference[read], &scores);
                }
                if request.is_reference() {
                    kept_scores.push(scores);
                }
                states.push(kept_states);
                read += 1;
                let Some((floor, tally)) = &mut watch else { return Ok(()) };
                let mut answers = Predictions::new();
                for id in batch.windows.iter().map(|&window| windows[window].id.as_str()) {
                    if let Some(decoded) = tally.reads(id).and_then(|example| decoder.decide(example)) {
                        answers.insert(id, decoded.text);
                    }
                }
                tally.count(&answers)?;
                let bounds = tally.bounds();
                match floor.decided_by(bounds) {
                    Some(false) if read < self.batches.len() => short = Some(bounds),
                    Some(true) => watch = None,
                    _ => {}
                }
                Ok(())
            })?;
            if let Some(bounds) = short {
                return Ok(Trial::Short(bounds));
            }
        }
        let decoded = decoder.finish()?;
        let nulls = (task.dataset.format == Format::V2).then(|| NullAnswers::from(decoded.as_slice()));
        let predictions = Predictions::from(decoded.as_slice());
        let evaluation = evaluate(&task.dataset, &predictions)?;
        let mut accuracy = Accuracy::new(evaluation.exact_match, evaluation.f1, evaluation.scores, loss.mean());
        accuracy.divergence = request.kept.map(|_| divergence.mean());
        Ok(Trial::Whole(Evaluated { accuracy, predictions, nulls, scores: kept_scores, states }))
    }

    fn run_batch(&self, request: &Request<'_, B>, index: usize, tensors: &BatchTensors<B>) -> BatchOutput<B> {
        let body = &self.model.transformer;
        let plan = request.plan;
        let blocks = plan.blocks();
        let (mut block, mut states) = match request.kept.and_then(|kept| Some((kept, kept.entry(plan)?))) {
            Some((kept, entry)) => (entry * kept.stride, kept.states[index][..=entry].to_vec()),
            None => (0, vec![body.embed(tensors.ids.clone(), None, plan)]),
        };
        let mut hidden = states.last().cloned().expect("the first state is always kept");
        let stride = match request.keep {
            Keep::Nothing => blocks - block,
            Keep::Every(stride) => stride,
        };
        while block < blocks {
            let next = (block + stride).min(blocks);
            hidden = body.forward_blocks(block..next, hidden, None, plan);
            block = next;
            if block < blocks {
                states.push(hidden.clone());
            }
        }
        if matches!(request.keep, Keep::Nothing) {
            // Those of all batches would be as much as the input of the first block for every window.
            states.clear();
        }
        let logits = self.model.span_logits(body.normalise(hidden), plan);
        BatchOutput { scores: [scores(logits.start), scores(logits.end)], states }
    }
}
