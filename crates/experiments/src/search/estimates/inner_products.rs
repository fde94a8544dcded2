//! Inner products of each window's gradient with what precisions change, and their moments.

use burn::module::AutodiffModule as _;
use burn::tensor::Tensor;

use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use quant_kernels::spec::gradient_rule::GradientRule;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::reading::BatchTensors;
use squad_data::Batch;
use switchable_lora::linear_settings::{BasePolicy, LinearSettings};
use switchable_model::model::TrainableModel;
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;
use switchable_model::span_head::ForQuestionAnswering;

use crate::error::{Error, Result};
use crate::running::progress::Progress;
use crate::search::allocation::damage::{DamageMeasure, DamageOptions};
use crate::search::estimates::answer_gradient::AnswerGradient;
use crate::search::estimates::weight_changes::WeightChanges;

/// Mean and mean square of the inner products of one choice.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    mean: f64,
    square: f64,
}

impl Moments {
    /// Increase of the loss in nats; `None` where the gradients were of something else.
    pub(super) fn loss(self, measure: DamageMeasure) -> Option<f64> {
        (measure == DamageMeasure::Loss).then_some(self.mean + self.square)
    }

    /// Divergence in nats. The loss is half of what two labels say: its gradient is half of theirs.
    pub(super) fn divergence(self, measure: DamageMeasure) -> f64 {
        match measure {
            DamageMeasure::Divergence => 0.25 * self.square,
            DamageMeasure::Loss => self.square,
        }
    }
}

/// What gradients are taken on, and what they are multiplied with.
#[derive(Debug)]
pub(super) struct Windows<'w, B: QuantAutodiffBackend> {
    /// One window each.
    pub(super) batches: &'w [Batch],
    pub(super) plan: &'w SitePlan,
    pub(super) changes: &'w [WeightChanges<B::InnerBackend>],
}

/// The moments of every choice of every site over all windows.
///
/// # Errors
///
/// When the work is stopped, or a product is not finite.
pub(super) fn moments<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    evaluator: &Evaluator<'_, B::InnerBackend, M::InnerModule>,
    windows: &Windows<'_, B>,
    options: &DamageOptions,
) -> Result<Vec<Vec<Moments>>> {
    let run = evaluator.options();
    let mut progress = Progress::start("estimates", 0, windows.batches.len(), options.show);
    let empty = |changes: &WeightChanges<_>| vec![Moments::default(); changes.choices()];
    let mut sums: Vec<Vec<Moments>> = windows.changes.iter().map(empty).collect();
    // As few at once as there are workers: each holds a gradient of the whole model.
    for (chunk, batches) in windows.batches.chunks(run.workers.len()).enumerate() {
        if run.stop.is_requested() {
            return Err(Error::Stopped);
        }
        let first = chunk * run.workers.len();
        let products = run.workers.map(batches, |i, batch| {
            let gradient = AnswerGradient { measure: options.measure, seed: options.seed, window: first + i };
            products_of::<B, M>(evaluator.model(), windows, batch, gradient)
        });
        for window in &products {
            for (sum, product) in sums.iter_mut().flatten().zip(window) {
                sum.mean += product;
                sum.square += product * product;
            }
        }
        batches.iter().for_each(|_| progress.step(String::new()));
    }
    progress.finish();
    let n = windows.batches.len() as f64;
    for sum in sums.iter_mut().flatten() {
        *sum = Moments { mean: sum.mean / n, square: sum.square / n };
    }
    match sums.iter().flatten().find(|moments| !moments.square.is_finite()) {
        Some(moments) => Err(Error::option("estimate", moments.square, "a finite number: the gradients overflow")),
        None => Ok(sums),
    }
}

/// The inner products of one window's gradient, choice after choice of site after site.
fn products_of<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    plain: &ForQuestionAnswering<B::InnerBackend, M::InnerModule>,
    windows: &Windows<'_, B>,
    batch: &Batch,
    gradient: AnswerGradient,
) -> Vec<f64> {
    // A copy with leaves of its own: graphs that share leaves would wait for one another.
    let sites = windows.changes.iter().map(|changes| changes.site);
    let model = with_gradients_at::<B, M>(ForQuestionAnswering::from_inner(plain.clone()), sites);
    let body = &model.transformer;
    let batch = BatchTensors::<B>::new(batch, &body.device());
    let hidden = body.forward(batch.ids.clone(), None, windows.plan);
    let gradients = gradient.of(model.span_logits(hidden, windows.plan), &batch).backward();
    let of_weight = |site: Site| match site.block {
        Some(_) => body.site(site).weight_param(),
        None => body.embedding_site(site).param(),
    };
    let products = |changes: &WeightChanges<B::InnerBackend>| {
        let found: Option<Tensor<B::InnerBackend, 2>> =
            of_weight(changes.site).and_then(|weight| weight.val().grad(&gradients));
        // An output matrix that answers do not use has none.
        found.map_or_else(|| vec![0.0; changes.choices()], |found| changes.products(found))
    };
    windows.changes.iter().flat_map(products).collect()
}

/// The model with gradients of the weights of some sites and of nothing that they do not need.
fn with_gradients_at<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    mut model: ForQuestionAnswering<B, M>,
    sites: impl Iterator<Item = Site>,
) -> ForQuestionAnswering<B, M> {
    for site in sites {
        if site.block.is_some() {
            let linear = model.transformer.site_mut(site);
            let (base, gradient) = (BasePolicy::Trainable, GradientRule::Identity);
            *linear = linear.clone().with_settings(LinearSettings { base, gradient, ..linear.settings() });
        } else {
            let embedding = model.transformer.embedding_site_mut(site);
            *embedding = embedding.clone().set_require_grad(true);
        }
    }
    model
}
