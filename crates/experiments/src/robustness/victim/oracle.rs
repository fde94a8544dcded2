//! Access to the model under one plan or several, with every query counted.
//!
//! ```text
//! L(x)      = mean over plans p of ½·(−log softmax(start_p)[s] − log softmax(end_p)[e])
//! ∇L(x)     = mean over plans p of ∂L_p/∂h₀            h₀ = wte[ids] + wpe[positions]
//! ```
//!
//! `s`, `e` are the ends of the gold answer; the softmax runs over the positions that may be answered
//! with. With several plans the loss and its gradient are those of the adaptive attack on a model
//! whose precision is drawn at random; the idea of attacking the expectation is that of Athalye,
//! Carlini and Wagner, *Obfuscated Gradients Give a False Sense of Security*, arXiv:1802.00420.

use std::cell::Cell;

use burn::tensor::{ElementConversion as _, Int, Tensor, activation};

use quant_kernels::backends::quant_backend::{QuantAutodiffBackend, QuantBackend};
use span_reader::evaluation::options::EvaluateOptions;
use span_reader::evaluation::reader::Reader;
use span_reader::evaluation::reading::{BatchTensors, scores};
use squad_data::{
    Batch, BatchConfig, Batches, CharSpan, Example, SpanDecoder, SpanFeatures, TokenSpan, Window, exact_match,
};
use switchable_model::model::{SwitchableModel, TrainableModel};
use switchable_model::site_plan::SitePlan;
use switchable_model::span_head::SpanLogits;
use switchable_model::token_tensor::token_tensor;

use crate::error::Result;
use crate::robustness::protected_example::{Place, ProtectedExample};
use crate::robustness::victim::model_under_attack::Victim;

/// Score of a position where no answer can start or end: its probability is zero in f32.
const IMPOSSIBLE: f64 = -1e9;

/// What the model makes of one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Loss of the gold answer in nats, the mean over plans; `None` when no window holds it whole.
    pub loss: Option<f64>,
    /// Whether the answer is right, plan by plan.
    pub exact: Vec<bool>,
}

impl Reading {
    /// Whether no plan gives the right answer.
    pub fn is_fooled(&self) -> bool {
        !self.exact.iter().any(|&exact| exact)
    }
}

/// The first window that holds the whole gold answer, and where its tokens stand in the texts.
#[derive(Debug, Clone)]
pub struct GoldWindow {
    /// The window.
    pub window: Window,
    /// The gold answer's tokens.
    pub target: TokenSpan,
    /// The characters of the question's tokens.
    question: Vec<CharSpan>,
}

impl GoldWindow {
    /// The text that a token of the window belongs to and its characters; `None` for the separator.
    pub fn chars(&self, position: usize) -> Option<(Place, CharSpan)> {
        if let Some(&chars) = self.question.get(position) {
            return Some((Place::Question, chars));
        }
        let in_context = position.checked_sub(self.window.context_start)?;
        self.window.offsets().get(in_context).map(|&chars| (Place::Context, chars))
    }

    /// The tokens that a piece of a text touches, as positions in the window; empty when there are none.
    pub fn positions(&self, place: Place, chars: CharSpan) -> std::ops::Range<usize> {
        let (offsets, first) = match place {
            Place::Question => (self.question.as_slice(), 0),
            Place::Context => (self.window.offsets(), self.window.context_start),
        };
        let start = offsets.partition_point(|token| token.end <= chars.start);
        let end = offsets.partition_point(|token| token.start < chars.end);
        first + start..first + end.max(start)
    }
}

/// The gradient of the loss with respect to the embedded tokens.
#[derive(Debug, Clone)]
pub struct EmbeddingGradient<B: QuantAutodiffBackend> {
    /// The window it is of.
    pub gold: GoldWindow,
    /// Loss of the window in nats.
    pub loss: f64,
    /// `[tokens, n_embd]`.
    pub gradient: Tensor<B::InnerBackend, 2>,
}

/// A victim under some plans.
#[derive(Debug)]
pub struct Oracle<'v, B: QuantAutodiffBackend, M: TrainableModel<B>> {
    victim: &'v Victim<'v, B, M>,
    plans: &'v [SitePlan],
    queries: Cell<usize>,
}

impl<'v, B: QuantAutodiffBackend, M: TrainableModel<B>> Oracle<'v, B, M> {
    /// Access to a victim under plans that it has the adapters for.
    pub fn new(victim: &'v Victim<'v, B, M>, plans: &'v [SitePlan]) -> Self {
        Self { victim, plans, queries: Cell::new(0) }
    }

    /// The victim.
    pub fn victim(&self) -> &'v Victim<'v, B, M> {
        self.victim
    }

    /// Queries so far: one per item and plan, whether for an answer, a gradient or proposals.
    pub fn queries(&self) -> usize {
        self.queries.get()
    }

    /// Queries of each plan so far.
    pub fn readings(&self) -> usize {
        self.queries.get() / self.plans.len().max(1)
    }

    fn count(&self, items: usize) {
        self.queries.set(self.queries.get() + items * self.plans.len());
    }

    /// Answers items and computes the losses of their gold answers.
    ///
    /// # Errors
    ///
    /// When there is no item, a question is longer than the window, or the model's scores are not
    /// numbers.
    pub fn read(&self, items: &[&ProtectedExample]) -> Result<Vec<Reading>> {
        let victim = self.victim;
        let examples: Vec<Example> = items.iter().map(|item| item.example().clone()).collect();
        let features = SpanFeatures::new(victim.tokenizer, &examples, &victim.span)?;
        let config = BatchConfig::evaluation(victim.options.batch_size, victim.special.pad);
        let with_tensors = |batch: Batch| {
            let tensors = BatchTensors::<B::InnerBackend>::new(&batch, &victim.device);
            (batch, tensors)
        };
        let batches: Vec<_> = Batches::new(&features, config)?.epoch(0).map(with_tensors).collect();
        // One worker: attacks are made side by side already.
        let options = EvaluateOptions { decode: victim.options.decode, ..EvaluateOptions::default() };
        let reader = Reader { model: &victim.model, options: &options };
        let mut losses = vec![(0.0, 0_usize); items.len()];
        let mut exact = vec![Vec::with_capacity(self.plans.len()); items.len()];
        for plan in self.plans {
            let mut decoder = SpanDecoder::new(&features, victim.options.decode)?;
            let compute = |_, tensors: &BatchTensors<B::InnerBackend>| {
                let logits = victim.model.forward(tensors.ids.clone(), None, plan);
                let ends = [scores(logits.start.clone()), scores(logits.end.clone())];
                (ends, scores(window_losses(logits, tensors).unsqueeze()))
            };
            reader.each(&batches, compute, |batch, (ends, of_windows)| {
                decoder.add_batch(batch, &ends[0], &ends[1])?;
                for ((&window, loss), &start) in batch.windows.iter().zip(of_windows).zip(&batch.starts) {
                    if start < 0 {
                        continue;
                    }
                    let (sum, n) = &mut losses[features.windows()[window].example];
                    *sum += f64::from(loss);
                    *n += 1;
                }
                Ok(())
            })?;
            for ((item, decoded), exact) in examples.iter().zip(decoder.finish()?).zip(&mut exact) {
                exact.push(item.answers.iter().any(|answer| exact_match(&decoded.text, &answer.text)));
            }
        }
        self.count(items.len());
        let reading = |((sum, n), exact)| Reading { loss: (n > 0).then(|| sum / n as f64), exact };
        Ok(losses.into_iter().zip(exact).map(reading).collect())
    }

    /// The gradient of the loss of one item; `None` when no window holds the whole answer.
    ///
    /// # Errors
    ///
    /// When the question is longer than the window.
    pub fn gradient(&self, item: &ProtectedExample) -> Result<Option<EmbeddingGradient<B>>> {
        let Some((gold, batch)) = self.gold_window(item)? else { return Ok(None) };
        let model = &self.victim.differentiable;
        let tensors = BatchTensors::<B>::new(&batch, &self.victim.device);
        let share = 1.0 / self.plans.len() as f64;
        let (mut loss, mut sum) = (0.0, None);
        for plan in self.plans {
            let embedded = model.transformer.embed(tensors.ids.clone(), None, plan).detach().require_grad();
            let logits = model.span_logits(model.transformer.forward_from(0, embedded.clone(), None, plan), plan);
            let of_plan = window_losses(logits, &tensors);
            let gradients = of_plan.backward();
            loss += of_plan.into_scalar().elem::<f64>() * share;
            let Some(gradient) = embedded.grad(&gradients) else {
                unreachable!("the loss is computed from the embedded tokens")
            };
            let gradient = gradient * share;
            sum = Some(match sum {
                Some(sum) => sum + gradient,
                None => gradient,
            });
        }
        self.count(1);
        Ok(sum.map(|sum: Tensor<B::InnerBackend, 3>| EmbeddingGradient { gold, loss, gradient: sum.squeeze_dim(0) }))
    }

    /// Probability that the model itself gives each of some tokens at the place of a token of the
    /// window, having read what stands before it; the mean over plans. `None` for the first position.
    ///
    /// # Panics
    ///
    /// When a token is not in the vocabulary, or the position lies behind the window.
    pub fn next_token_probabilities(&self, gold: &GoldWindow, position: usize, tokens: &[u32]) -> Option<Vec<f64>> {
        if position == 0 || tokens.is_empty() {
            return None;
        }
        let ids = token_tensor::<B::InnerBackend>(&gold.window.ids[..position], [1, position], &self.victim.device);
        let mut mean = vec![0.0; tokens.len()];
        for plan in self.plans {
            let body = &self.victim.model.transformer;
            let d = body.shape().width;
            let hidden = body.forward(ids.clone(), None, plan).slice([0..1, position - 1..position, 0..d]);
            let logits = body.next_token_scores(hidden, plan);
            let probabilities = scores(activation::softmax(logits, 2).squeeze_dim::<2>(0));
            for (mean, &token) in mean.iter_mut().zip(tokens) {
                *mean += f64::from(probabilities[token as usize]) / self.plans.len() as f64;
            }
        }
        self.count(1);
        Some(mean)
    }

    /// The first window that holds the whole gold answer, and a batch of it alone.
    ///
    /// # Errors
    ///
    /// When the question is longer than the window.
    pub fn gold_window(&self, item: &ProtectedExample) -> Result<Option<(GoldWindow, Batch)>> {
        let victim = self.victim;
        let features = SpanFeatures::new(victim.tokenizer, &[item.example().clone()], &victim.span)?;
        let config = BatchConfig::evaluation(1, victim.special.pad);
        let batches = Batches::new(&features, config)?;
        let Some(batch) = batches.epoch(0).find(|batch| batch.starts[0] >= 0) else { return Ok(None) };
        let window = features.windows()[batch.windows[0]].clone();
        let Some(target) = window.target else { return Ok(None) };
        let question = victim.tokenizer.encode(&item.example().question)?.offsets;
        Ok(Some((GoldWindow { window, target, question }, batch)))
    }
}

/// Cross-entropy of the targets of every window in nats; of windows without one it means nothing.
///
/// # Shapes
///
/// `[batch]` out.
fn window_losses<B: QuantBackend>(logits: SpanLogits<B>, batch: &BatchTensors<B>) -> Tensor<B, 1> {
    let side = |logits: Tensor<B, 2>, target: Tensor<B, 1, Int>| {
        let masked = logits.mask_fill(batch.unanswerable.clone(), IMPOSSIBLE);
        activation::log_softmax(masked, 1).gather(1, target.unsqueeze_dim(1)).squeeze_dim::<1>(1)
    };
    (side(logits.start, batch.starts.clone()) + side(logits.end, batch.ends.clone())) * -0.5
}
