//! Which factors make a model easy to quantise.
//!
//! ```text
//! AWQ           s = x^α,  α of 0, 0.05 .. 1 of least  Σ tr((W − Ŵ)ᵀ H (W − Ŵ))  over the consumers of the pair
//! SmoothQuant   s = max|x|^α / max|w|^(1−α)
//! ```
//!
//! The error is that of rounding to the nearest level at one width by the quantiser of the site, with the moments of
//! the inputs as they are before anything is folded. With `α = 0` nothing is scaled, so that by this measure a pair is
//! never worse than it was. Where several heads of queries share one of values, its magnitudes are those of all of
//! them.

use std::fmt;

use burn::tensor::Tensor;

use quant_kernels::backends::quant_backend::QuantBackend;
use quant_kernels::calibrated::codes::Calibrated;
use quant_kernels::calibrated::input_moments::InputMoments;
use quant_kernels::calibrated::scaled_rows::{awq_factors, smooth_factors};
use quant_kernels::spec::bit_width::BitWidth;
use quant_kernels::spec::rounding_method::RoundingMethod;
use quant_kernels::spec::scaling_method::ScalingMethod;
use switchable_lora::switchable_linear::SwitchableLinear;

use super::fold::ScaledPair;
use super::pair::FoldablePair;
use crate::config::ModelConfig as _;
use crate::error::{Error, Result, at_site};
use crate::model::SwitchableModel;
use crate::sites::Site;

/// The steps between `α = 0` and `α = 1`.
const STEPS: u8 = 20;

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
    /// The factors of every pair of every block; none for [`ScalingMethod::None`]. `done` is told the blocks that are
    /// done, and may end the work by an error.
    ///
    /// # Errors
    ///
    /// [`Error::NoMoments`] for a site whose inputs are not known, an error that names the site where its quantiser
    /// cannot do the width, and that of `done`.
    fn choose_scaling(
        &self,
        choice: ScalingChoice,
        done: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Vec<ChosenPair>> {
        if choice.method == ScalingMethod::None {
            return Ok(Vec::new());
        }
        let (pairs, mut chosen) = (self.config().foldable_pairs(), Vec::new());
        for block in 0..self.sites().blocks() {
            for &pair in &pairs {
                let readers = readers(self, block, pair)?;
                let (alpha, factors) = match choice.method {
                    ScalingMethod::None => continue,
                    ScalingMethod::Awq => of_least_error(pair, &readers, choice.bits)?,
                    ScalingMethod::Smooth(strength) => {
                        let alpha = strength.alpha();
                        (alpha, smoothed(pair, &readers, alpha))
                    }
                };
                chosen.push(ChosenPair { alpha, scaled: ScaledPair { block, pair, factors } });
            }
            done(block + 1)?;
        }
        Ok(chosen)
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> ChooseScaling<B> for M {}

/// A consumer of a pair.
struct Reader<'a, B: QuantBackend> {
    name: String,
    layer: &'a SwitchableLinear<B>,
    moments: &'a InputMoments,
}

fn readers<B: QuantBackend, M: SwitchableModel<B>>(
    model: &M,
    block: usize,
    pair: FoldablePair,
) -> Result<Vec<Reader<'_, B>>> {
    let reader = |&module| {
        let site = Site::in_block(block, module);
        let (layer, name) = (model.site(site), model.sites().name(site));
        match layer.moments() {
            Some(moments) => Ok(Reader { name, layer, moments }),
            None => Err(Error::NoMoments { site: name }),
        }
    };
    pair.consumers.iter().map(reader).collect()
}

/// The exponent of least error, and its factors. What all consumers read is the same: the first one's inputs are those
/// of all.
fn of_least_error<B: QuantBackend>(
    pair: FoldablePair,
    readers: &[Reader<'_, B>],
    bits: BitWidth,
) -> Result<(f32, Vec<f32>)> {
    let importance: Vec<f32> = readers[0].moments.importance().collect();
    let magnitudes: Vec<f32> = per_factor(pair, &importance, |sum, square| sum + square);
    let magnitudes: Vec<f32> = magnitudes.into_iter().map(f32::sqrt).collect();
    let mut best: Option<(f32, Vec<f32>, f64)> = None;
    for step in 0..=STEPS {
        let alpha = f32::from(step) / f32::from(STEPS);
        let factors = awq_factors(&magnitudes, alpha);
        let of_inputs = pair.of_inputs(&factors);
        let errors = readers.iter().map(|reader| reader.error(bits, &of_inputs));
        let error = errors.sum::<Result<f64>>()?;
        if best.as_ref().is_none_or(|(.., least)| error < *least) {
            best = Some((alpha, factors, error));
        }
    }
    let nothing = || (0.0, vec![1.0; pair.factors]);
    Ok(best.map_or_else(nothing, |(alpha, factors, _)| (alpha, factors)))
}

impl<B: QuantBackend> Reader<'_, B> {
    fn error(&self, bits: BitWidth, factors: &[f32]) -> Result<f64> {
        let (spec, method) = (self.layer.settings().weight, RoundingMethod::Nearest);
        let how = Calibrated { bits, spec, method, moments: Some(self.moments) };
        let error = how.scaled_error(&self.layer.weight().set_require_grad(false), factors);
        error.map_err(|error| at_site(self.name.clone(), error.into()).into())
    }
}

/// Factors by the largest inputs and weights.
fn smoothed<B: QuantBackend>(pair: FoldablePair, readers: &[Reader<'_, B>], alpha: f32) -> Vec<f32> {
    let inputs = per_factor(pair, readers[0].moments.largest(), f32::max);
    let largest = |reader: &Reader<'_, B>| {
        let rows: Tensor<B, 2> = reader.layer.weight().set_require_grad(false).abs().max_dim(1);
        let rows: Vec<f32> = rows.into_data().iter::<f32>().collect();
        per_factor(pair, &rows, f32::max)
    };
    let of_all = readers.iter().map(largest);
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
