//! Access to the model under one plan or several, with every query counted.
//!
//! ```text
//! L(x)      = mean over plans p of ½·(ℓ(start_p, s) + ℓ(end_p, e))
//! ℓ(z, t)   = log Σ_w Σ_i exp z[w, i] − log Σ_{w ∋ answer} exp z[w, t_w]
//! ∇L(x)     = mean over plans p of ∂L_p/∂h₀            h₀ = wte[ids] + wpe[positions]
//! ```
//!
//! `s`, `e` are the ends of the gold answer; `w` are the windows that the item is cut into and `i` the positions of each that may
//! be answered with. An answer is the best span of all windows, so that the loss is normalised over all of them, as in the
//! shared normalisation of Clark and Gardner, arXiv:1710.10723: an edit that makes another window win counts, and one window
//! gives the loss of training. The gradient is that of the embedded tokens of the first window that holds the answer; those of
//! the question stand in every window, and have the sum. With several plans the loss and its gradient are those of the
//! adaptive attack on a model whose precision is drawn at random; the idea of attacking the expectation is that of Athalye,
//! Carlini and Wagner, *Obfuscated Gradients Give a False Sense of Security*, arXiv:1802.00420.

use std::cell::Cell;

use burn::tensor::{Bool, ElementConversion as _, Int, Tensor, TensorData, activation};

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

/// The gradient of the loss of an item with respect to the embedded tokens of a window.
#[derive(Debug, Clone)]
pub struct EmbeddingGradient<B: QuantAutodiffBackend> {
    /// The window it is of.
    pub gold: GoldWindow,
    /// Loss of the item in nats, over all its windows.
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
        let mut losses: Vec<Option<f64>> = vec![None; items.len()];
        let mut exact = vec![Vec::with_capacity(self.plans.len()); items.len()];
        for plan in self.plans {
            let mut decoder = SpanDecoder::new(&features, victim.options.decode)?;
            let mut sums = vec![WindowSums::default(); items.len()];
            let compute = |_, tensors: &BatchTensors<B::InnerBackend>| {
                let logits = victim.model.forward(tensors.ids.clone(), None, plan);
                let ends = [scores(logits.start.clone()), scores(logits.end.clone())];
                (ends, window_sums(logits, tensors).map(|sums| scores(sums.unsqueeze())))
            };
            reader.each(&batches, compute, |batch, (ends, of_windows)| {
                decoder.add_batch(batch, &ends[0], &ends[1])?;
                for (row, (&window, &start)) in batch.windows.iter().zip(&batch.starts).enumerate() {
                    let [all, loss] = of_windows.each_ref().map(|sums| [sums[row], sums[batch.batch + row]]);
                    sums[features.windows()[window].example].add(all, (start >= 0).then_some(loss));
                }
                Ok(())
            })?;
            for (sums, loss) in sums.iter().zip(&mut losses) {
                // Whether a window holds the answer does not depend on the plan.
                *loss = sums.loss().map(|of_plan| loss.unwrap_or(0.0) + of_plan / self.plans.len() as f64);
            }
            for ((item, decoded), exact) in examples.iter().zip(decoder.finish()?).zip(&mut exact) {
                exact.push(item.answers.iter().any(|answer| exact_match(&decoded.text, &answer.text)));
            }
        }
        self.count(items.len());
        Ok(losses.into_iter().zip(exact).map(|(loss, exact)| Reading { loss, exact }).collect())
    }

    /// The gradient of the loss of one item; `None` when no window holds the whole answer.
    ///
    /// # Errors
    ///
    /// When the question is longer than the window.
    pub fn gradient(&self, item: &ProtectedExample) -> Result<Option<EmbeddingGradient<B>>> {
        let Some(Windows { gold, place, features }) = self.windows(item)? else { return Ok(None) };
        // As they are, so that the place is the row.
        let in_order = BatchConfig::evaluation(features.windows().len(), self.victim.special.pad);
        let batches = Batches::new(&features, BatchConfig { bucket: 0, ..in_order })?;
        let Some(all) = batches.epoch(0).next() else { return Ok(None) };
        let model = &self.victim.differentiable;
        let tensors = BatchTensors::<B>::new(&all, &self.victim.device);
        let holds_answer = all.starts.iter().map(|&start| start >= 0).collect::<Vec<_>>();
        let holds_answer = Tensor::from_data(TensorData::new(holds_answer, [all.batch]), &self.victim.device);
        let share = 1.0 / self.plans.len() as f64;
        let (mut loss, mut sum) = (0.0, None);
        for plan in self.plans {
            let embedded = model.transformer.embed(tensors.ids.clone(), None, plan).detach().require_grad();
            let logits = model.span_logits(model.transformer.forward_from(0, embedded.clone(), None, plan), plan);
            let of_plan = item_loss(logits, &tensors, holds_answer.clone());
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
        Ok(sum.map(|sum: Tensor<B::InnerBackend, 3>| {
            let (tokens, question) = (gold.window.ids.len(), gold.question.len());
            let [_, _, d] = sum.dims();
            let own = sum.clone().slice([place..place + 1, question..tokens, 0..d]).squeeze_dim(0);
            let of_question = sum.slice([0..all.batch, 0..question, 0..d]).sum_dim(0).squeeze_dim(0);
            EmbeddingGradient { gold, loss, gradient: Tensor::cat(vec![of_question, own], 0) }
        }))
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

    /// The first window that holds the whole gold answer.
    ///
    /// # Errors
    ///
    /// When the question is longer than the window.
    pub fn gold_window(&self, item: &ProtectedExample) -> Result<Option<GoldWindow>> {
        Ok(self.windows(item)?.map(|windows| windows.gold))
    }

    /// The windows of an item; `None` where none holds the whole gold answer.
    fn windows(&self, item: &ProtectedExample) -> Result<Option<Windows>> {
        let victim = self.victim;
        let features = SpanFeatures::new(victim.tokenizer, &[item.example().clone()], &victim.span)?;
        let targets = features.windows().iter().enumerate();
        let Some((place, target)) = targets.into_iter().find_map(|(i, window)| Some((i, window.target?))) else {
            return Ok(None);
        };
        let question = victim.tokenizer.encode(&item.example().question)?.offsets;
        let gold = GoldWindow { window: features.windows()[place].clone(), target, question };
        Ok(Some(Windows { gold, place, features }))
    }
}

/// The windows of an item.
struct Windows {
    gold: GoldWindow,
    /// The place of the window that holds the answer among them.
    place: usize,
    features: SpanFeatures,
}

/// What the windows of an item that were read come to, for starts and for ends: `log Σ exp` over all positions, and over the
/// targets of those that hold the answer.
#[derive(Debug, Clone, Copy)]
struct WindowSums {
    all: [f64; 2],
    targets: Option<[f64; 2]>,
}

impl Default for WindowSums {
    fn default() -> Self {
        Self { all: Self::OF_NONE, targets: None }
    }
}

impl WindowSums {
    const OF_NONE: [f64; 2] = [f64::NEG_INFINITY; 2];

    /// Adds a window: its sums over positions, and where it holds the answer its losses alone.
    fn add(&mut self, all: [f32; 2], losses: Option<[f32; 2]>) {
        let add = |sum: &mut f64, term: f64| {
            let most = sum.max(term);
            *sum = most + ((*sum - most).exp() + (term - most).exp()).ln();
        };
        let all = all.map(f64::from);
        self.all.iter_mut().zip(all).for_each(|(sum, term)| add(sum, term));
        if let Some(losses) = losses {
            // In f64, so that of one window the loss comes out as it was.
            let targets = all.iter().zip(losses).map(|(all, loss)| all - f64::from(loss));
            self.targets.get_or_insert(Self::OF_NONE).iter_mut().zip(targets).for_each(|(sum, term)| add(sum, term));
        }
    }

    /// The loss in nats; `None` where no window held the answer.
    fn loss(&self) -> Option<f64> {
        let targets = self.targets?;
        Some(self.all.iter().zip(targets).map(|(all, target)| 0.5 * (all - target)).sum())
    }
}

/// Of every window `log Σ exp` over the positions that may be answered with, and the cross-entropy of its targets, which of
/// windows without one means nothing.
///
/// # Shapes
///
/// `[2 · batch]` each: those of starts, then those of ends.
fn window_sums<B: QuantBackend>(logits: SpanLogits<B>, batch: &BatchTensors<B>) -> [Tensor<B, 1>; 2] {
    let side = |logits: Tensor<B, 2>, target: Tensor<B, 1, Int>| {
        let masked = logits.mask_fill(batch.unanswerable.clone(), IMPOSSIBLE);
        let targets = activation::log_softmax(masked.clone(), 1).gather(1, target.unsqueeze_dim(1)).squeeze_dim::<1>(1);
        (log_sum_exp(masked).squeeze_dim::<1>(1), targets.neg())
    };
    let (start, end) = (side(logits.start, batch.starts.clone()), side(logits.end, batch.ends.clone()));
    [Tensor::cat(vec![start.0, end.0], 0), Tensor::cat(vec![start.1, end.1], 0)]
}

/// The loss of one item in nats, from all its windows and which of them hold the answer.
///
/// # Shapes
///
/// `[1]` out.
fn item_loss<B: QuantBackend>(
    logits: SpanLogits<B>,
    batch: &BatchTensors<B>,
    holds_answer: Tensor<B, 1, Bool>,
) -> Tensor<B, 1> {
    let windows = batch.ids.dims()[0];
    let [all, losses] = window_sums(logits, batch).map(|sums| sums.reshape([2, windows]));
    let targets = all.clone() - losses;
    let others = holds_answer.bool_not().unsqueeze_dim::<2>(0).expand([2, windows]);
    (log_sum_exp(all) - log_sum_exp(targets.mask_fill(others, IMPOSSIBLE))).sum() * 0.5
}

/// `log Σ exp` of every row, `[rows, 1]`.
fn log_sum_exp<B: QuantBackend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let most = rows.clone().max_dim(1).detach();
    (rows - most.clone()).exp().sum_dim(1).log() + most
}
