//! Inner products of each window's gradient with what precisions change, and their moments.

use burn::module::AutodiffModule as _;
use burn::tensor::Tensor;

use quant_kernels::backends::quant_backend::{QuantAutodiffBackend, QuantBackend};
use quant_kernels::spec::{bit_width::BitWidth, gradient_rule::GradientRule};
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::evaluation::question_task::TaskRef;
use span_reader::evaluation::reading::BatchTensors;
use switchable_lora::linear_settings::{BasePolicy, LinearSettings};
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::{SwitchableModel, TrainableModel};
use switchable_model::site_plan::SitePlan;
use switchable_model::sites::Site;
use switchable_model::span_head::ForQuestionAnswering;
use switchable_model::token_tensor::token_tensor;

use crate::error::{Error, Result};
use crate::running::progress::Progress;
use crate::search::allocation::damage::{DamageMeasure, DamageOptions};
use crate::search::estimates::answer_gradient::AnswerGradient;
use crate::search::estimates::weight_changes::{WeightChanges, effective_weight};
use crate::search::estimates::window::Window;

/// What the inner products of one choice say, on average over the windows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moments {
    /// First order: the inner products themselves.
    first: f64,
    /// Second order: half the curvature of the window's mean divergence along what the choice changes.
    second: f64,
}

impl Moments {
    /// Increase of the loss in nats; `None` where the gradients were of something else.
    pub(super) fn loss(self, measure: DamageMeasure) -> Option<f64> {
        (measure == DamageMeasure::Loss).then_some(self.first + self.second)
    }

    /// Divergence in nats.
    pub(super) fn divergence(self) -> f64 {
        self.second
    }
}

/// What gradients are taken on, and what they are multiplied with.
#[derive(Debug)]
pub(super) struct Windows<'w, B: QuantAutodiffBackend> {
    /// One window, or prompt with its answer, each.
    pub(super) texts: &'w [Window],
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
    let merged = merged_at(evaluator.model(), windows.plan, evaluator.task())?;
    let mut progress = Progress::start("estimates", 0, windows.texts.len(), options.show);
    let empty = |changes: &WeightChanges<_>| vec![Moments::default(); changes.choices()];
    let mut sums: Vec<Vec<Moments>> = windows.changes.iter().map(empty).collect();
    // As few at once as there are workers: each holds a gradient of the whole model.
    for (chunk, some) in windows.texts.chunks(run.workers.len()).enumerate() {
        if run.stop.is_requested() {
            return Err(Error::Stopped);
        }
        let first = chunk * run.workers.len();
        let products = run.workers.map(some, |i, window| {
            let gradient = AnswerGradient { measure: options.measure, seed: options.seed, window: first + i };
            products_of::<B, M>(&merged, windows, window, gradient)
        });
        for (window, products) in some.iter().zip(&products) {
            let factor = second_order(options.measure, window.labels());
            for (sum, product) in sums.iter_mut().flatten().zip(products) {
                sum.first += product;
                sum.second += factor * product * product;
            }
            progress.step(String::new());
        }
    }
    progress.finish();
    let n = windows.texts.len() as f64;
    for sum in sums.iter_mut().flatten() {
        *sum = Moments { first: sum.first / n, second: sum.second / n };
    }
    match sums.iter().flatten().find(|moments| !moments.second.is_finite()) {
        Some(moments) => Err(Error::option("estimate", moments.second, "a finite number: the gradients overflow")),
        None => Ok(sums),
    }
}

/// What the square of an inner product is multiplied by, where the answer of a window is `k` labels.
///
/// ```text
/// ½ · 1/k · Σᵢ Δᵀ Fᵢ Δ  ≈  1/(2k) · u²     u of the sum of random directions of the k distributions
///                       ≈  k/2 · u²        u of the loss, the mean over the labels
/// ```
fn second_order(measure: DamageMeasure, labels: usize) -> f64 {
    match measure {
        DamageMeasure::Divergence => 0.5 / labels as f64,
        DamageMeasure::Loss => 0.5 * labels as f64,
    }
}

/// The model with the weights that a plan multiplies by as its own, and the plan that leaves them as they are.
fn merged_at<B: QuantBackend, M: SwitchableModel<B>>(
    model: &ForQuestionAnswering<B, M>,
    plan: &SitePlan,
    task: TaskRef<'_>,
) -> Result<(ForQuestionAnswering<B, M>, SitePlan)> {
    // Which head answers hangs on the adapters that the plan names.
    let head = match task {
        TaskRef::Span(_) => Some(model.head_of(plan)?),
        TaskRef::Generate(_) => plan.span_head(),
    };
    let (mut merged, mut whole) = (model.clone(), plan.clone().with_span_head(head));
    for (site, precision) in plan.iter().chain(plan.embeddings()) {
        let own = SitePrecision { weights: BitWidth::FULL, adapter: None, rounding: None, ..precision };
        if precision == own {
            continue;
        }
        let weight = effective_weight(&model.transformer, site, &precision)?;
        if site.block.is_some() {
            let linear = merged.transformer.site_mut(site);
            *linear = linear.clone().with_parameters(weight, linear.bias());
        } else {
            let embedding = merged.transformer.embedding_site_mut(site);
            *embedding = embedding.clone().map_values(|_| weight);
        }
        whole = whole.with(site, own);
    }
    Ok((merged, whole))
}

/// The inner products of one window's gradient, choice after choice of site after site.
fn products_of<B: QuantAutodiffBackend, M: TrainableModel<B>>(
    (plain, plan): &(ForQuestionAnswering<B::InnerBackend, M::InnerModule>, SitePlan),
    windows: &Windows<'_, B>,
    window: &Window,
    gradient: AnswerGradient,
) -> Vec<f64> {
    // A copy with leaves of its own: graphs that share leaves would wait for one another.
    let sites = windows.changes.iter().map(|changes| changes.site);
    let model = with_gradients_at::<B, M>(ForQuestionAnswering::from_inner(plain.clone()), sites);
    let body = &model.transformer;
    let scalar = match window {
        Window::Span(batch) => {
            let batch = BatchTensors::<B>::new(batch, &body.device());
            let hidden = body.forward(batch.ids.clone(), None, plan);
            gradient.of_spans(model.span_logits(hidden, plan), &batch)
        }
        Window::Answer { ids, answer } => {
            let hidden = body.forward(token_tensor(ids, [1, ids.len()], &body.device()), None, plan);
            let [_, tokens, width] = hidden.dims();
            let behind = hidden.slice([0..1, tokens - answer.len()..tokens, 0..width]);
            gradient.of_tokens(body.next_token_scores(behind, plan).squeeze_dim(0), answer)
        }
    };
    let gradients = scalar.backward();
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
