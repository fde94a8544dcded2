//! Which factors make a model easy to quantise.
//!
//! ```text
//! AWQ           s = x^α,  α of 0, 0.05 .. 1 of least  e(α)/e(0) + p(α)/p(0)
//!               e = Σ tr((W − Ŵ)ᵀ H (W − Ŵ))  over the consumers of the pair,  p the same of the producer
//! SmoothQuant   s = max|x|^α / max|w|^(1−α)
//! ```
//!
//! Where each output has scales of its own, errors are those of at most 256 outputs of a matrix, evenly taken, times what
//! stands for the rest. The error is that of rounding to the nearest level at one width by the quantiser of the site, in units of the outputs
//! without factors. `p` counts where the producer is a matrix whose columns share a scale: elsewhere factors change
//! nothing of it, and the choice is AWQ's. One pair is folded in before the next is chosen, in the order of the block.
//! With `α = 0` nothing is scaled, so that by this measure a pair is never worse than it was. Where several heads of
//! queries share one of values, its magnitudes are those of all of them.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::calibrated::codes::Calibrated;
use quant_kernels::calibrated::input_moments::InputMoments;
use quant_kernels::calibrated::scaled_rows::{Between, awq_factors, smooth_factors};
use quant_kernels::spec::bit_width::BitWidth;
use quant_kernels::spec::granularity::Granularity;
use quant_kernels::spec::rounding_method::RoundingMethod;
use quant_kernels::spec::scaling_method::ScalingMethod;
use switchable_lora::switchable_linear::SwitchableLinear;

use super::fold::{FoldScaling, ScaledPair};
use super::pair::{FoldablePair, Producer};
use crate::config::ModelConfig as _;
use crate::error::{Error, Result, at_site};
use crate::model::SwitchableModel;
use crate::sites::Site;

/// The steps between `α = 0` and `α = 1`.
const STEPS: u8 = 20;

/// The outputs of a matrix that errors are measured at where each has scales of its own.
const OUTPUTS: usize = 256;

/// How the factors of every pair are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScalingChoice {
    /// The method.
    pub method: ScalingMethod,
    /// The width of the weights at which errors are compared; only [`ScalingMethod::Awq`] asks.
    pub bits: BitWidth,
}

/// `awq at 4 bits`, `smooth:0.5`
impl fmt::Display for ScalingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.method {
            ScalingMethod::Awq => write!(f, "{} at {} bits", self.method, self.bits),
            ScalingMethod::None | ScalingMethod::Smooth(_) => write!(f, "{}", self.method),
        }
    }
}

/// A pair with the factors that were chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct ChosenPair {
    /// The exponent.
    pub alpha: f32,
    /// The pair.
    pub scaled: ScaledPair,
}

/// A model that knows the inputs of its sites, whose factors can be chosen. It is implemented for every model.
pub trait ChooseScaling<B: QuantBackend>: SwitchableModel<B> {
    /// The model with the factors of every pair of every block chosen and folded in, and what was chosen: nothing for
    /// [`ScalingMethod::None`]. `done` is told the blocks that are done, and may end the work by an error.
    ///
    /// # Errors
    ///
    /// [`Error::NoMoments`] for a site whose inputs are not known, an error that names the site where its quantiser
    /// cannot do the width, those of [`FoldScaling::folded`], and that of `done`.
    fn scaled_by(
        self,
        choice: ScalingChoice,
        done: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<(Self, Vec<ChosenPair>)> {
        let (mut model, mut chosen) = (self, Vec::new());
        if choice.method == ScalingMethod::None {
            return Ok((model, chosen));
        }
        let pairs = model.config().foldable_pairs();
        for block in 0..model.sites().blocks() {
            for &pair in &pairs {
                let found = choose(&model, choice, (block, pair))?;
                model = model.folded(std::slice::from_ref(&found.scaled))?;
                chosen.push(found);
            }
            done(block + 1)?;
        }
        let (sites, scaling) = (model.sites().clone(), Arc::from(choice.to_string()));
        for site in sites.iter() {
            let layer = model.site_mut(site);
            *layer = layer.clone().with_scaling(Some(Arc::clone(&scaling)));
        }
        Ok((model, chosen))
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> ChooseScaling<B> for M {}

/// The factors of a pair of a block.
fn choose<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    choice: ScalingChoice,
    (block, pair): (usize, FoldablePair),
) -> Result<ChosenPair> {
    let known = |module| KnownLayer::of(model, Site::in_block(block, module));
    let consumers = pair.consumers.iter().map(|&module| known(module)).collect::<Result<Vec<_>>>()?;
    let (alpha, factors) = match (choice.method, pair.producer) {
        (ScalingMethod::None, _) => (0.0, vec![1.0; pair.factors]),
        (ScalingMethod::Smooth(strength), _) => (strength.alpha(), smoothed(pair, &consumers, strength.alpha())),
        (ScalingMethod::Awq, Producer::Normalisation(_)) => {
            PairError { pair, consumers, producer: None, bits: choice.bits }.least()?
        }
        (ScalingMethod::Awq, Producer::Outputs { module, first }) => {
            let producer = Some((known(module)?, first)).filter(|(known, _)| shares_scales(known.layer));
            PairError { pair, consumers, producer, bits: choice.bits }.least()?
        }
    };
    Ok(ChosenPair { alpha, scaled: ScaledPair { block, pair, factors } })
}

/// A layer whose inputs are known.
struct KnownLayer<'a, B: QuantBackend> {
    name: String,
    layer: &'a SwitchableLinear<B>,
    moments: &'a InputMoments,
    /// The outputs that errors are measured at, and how many each of them stands for.
    outputs: (Tensor<B, 2>, f64),
}

impl<'a, B: QuantBackend> KnownLayer<'a, B> {
    fn of<M: SwitchableModel<B>>(model: &'a M, site: Site) -> Result<Self> {
        let (layer, name) = (model.site(site), model.sites().name(site));
        match layer.moments() {
            Some(moments) => Ok(Self { name, layer, moments, outputs: some_outputs(layer) }),
            None => Err(Error::NoMoments { site: name }),
        }
    }

    fn error(&self, bits: BitWidth, between: Between<'_>) -> Result<f64> {
        let (spec, method) = (self.layer.settings().weight, RoundingMethod::Nearest);
        let how = Calibrated { bits, spec, method, moments: Some(self.moments) };
        let (weight, times) = &self.outputs;
        let error = how.scaled_error(weight, between);
        Ok(times * error.map_err(|error| at_site(self.name.clone(), error.into()))?)
    }
}

/// Whether the levels of a column depend on the others.
fn shares_scales<B: QuantBackend>(layer: &SwitchableLinear<B>) -> bool {
    layer.settings().weight.granularity == Granularity::PerTensor
}

/// Some columns of a weight, and how many each of them stands for; all where they share a scale.
fn some_outputs<B: QuantBackend>(layer: &SwitchableLinear<B>) -> (Tensor<B, 2>, f64) {
    let (weight, d_out) = (layer.weight().set_require_grad(false), layer.d_out());
    if d_out <= OUTPUTS || shares_scales(layer) {
        return (weight, 1.0);
    }
    let columns: Vec<i32> = (0..OUTPUTS).map(|index| (index * d_out / OUTPUTS) as i32).collect();
    let columns = Tensor::<B, 1, Int>::from_data(TensorData::new(columns, [OUTPUTS]), &weight.device());
    (weight.select(1, columns), d_out as f64 / OUTPUTS as f64)
}

/// What a pair costs at a width.
struct PairError<'a, B: QuantBackend> {
    pair: FoldablePair,
    consumers: Vec<KnownLayer<'a, B>>,
    /// The producer where its error depends on the factors, and the first output that they divide.
    producer: Option<(KnownLayer<'a, B>, usize)>,
    bits: BitWidth,
}

impl<B: QuantBackend> PairError<'_, B> {
    /// The exponent of least error, and its factors. What all consumers read is the same: the first one's inputs are
    /// those of all.
    fn least(&self) -> Result<(f32, Vec<f32>)> {
        let importance: Vec<f32> = self.consumers[0].moments.importance().collect();
        let squares = per_factor(self.pair, &importance, |sum, square| sum + square);
        let magnitudes: Vec<f32> = squares.into_iter().map(f32::sqrt).collect();
        let unscaled = self.at(&vec![1.0; self.pair.factors])?;
        let (mut best, mut least) = ((0.0, vec![1.0; self.pair.factors]), f64::INFINITY);
        for step in 0..=STEPS {
            let alpha = f32::from(step) / f32::from(STEPS);
            let factors = awq_factors(&magnitudes, alpha);
            let error: f64 = self.at(&factors)?.iter().zip(unscaled).map(|(error, of)| share(*error, of)).sum();
            if error < least {
                (best, least) = ((alpha, factors), error);
            }
        }
        Ok(best)
    }

    /// The errors of the consumers together, and of the producer.
    fn at(&self, factors: &[f32]) -> Result<[f64; 2]> {
        let rows = self.pair.of_inputs(factors);
        let between = Between { rows: Some(&rows), ..Between::default() };
        let errors = self.consumers.iter().map(|consumer| consumer.error(self.bits, between));
        let consumers = errors.sum::<Result<f64>>()?;
        let Some((producer, first)) = &self.producer else { return Ok([consumers, 0.0]) };
        let mut columns = vec![1.0; producer.layer.d_out()];
        columns[*first..first + factors.len()].copy_from_slice(factors);
        Ok([consumers, producer.error(self.bits, Between { columns: Some(&columns), ..Between::default() })?])
    }
}

/// An error in units of another; of nothing it is the same everywhere.
fn share(error: f64, of: f64) -> f64 {
    if of > 0.0 { error / of } else { 0.0 }
}

/// Factors by the largest inputs and weights.
fn smoothed<B: QuantBackend>(pair: FoldablePair, consumers: &[KnownLayer<'_, B>], alpha: f32) -> Vec<f32> {
    let inputs = per_factor(pair, consumers[0].moments.largest(), f32::max);
    let largest = |consumer: &KnownLayer<'_, B>| {
        let rows: Tensor<B, 2> = consumer.layer.weight().set_require_grad(false).abs().max_dim(1);
        let rows: Vec<f32> = rows.into_data().iter::<f32>().collect();
        per_factor(pair, &rows, f32::max)
    };
    let of_all = consumers.iter().map(largest);
    let weights = of_all.reduce(|all, next| all.iter().zip(&next).map(|(a, b)| a.max(*b)).collect());
    smooth_factors(&inputs, &weights.unwrap_or_default(), alpha)
}

/// Numbers of the inputs as numbers of the factors, those that share one joined.
fn per_factor(pair: FoldablePair, of_inputs: &[f32], join: impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let mut joined = vec![0.0; pair.factors];
    for (input, &number) in of_inputs.iter().enumerate() {
        let factor = &mut joined[pair.factor_of(input)];
        *factor = join(*factor, number);
    }
    joined
}
