//! The two factors of a low-rank adapter.
//!
//! ```text
//! Δ = s · A · B        A [d_in, rank]   B [rank, d_out]   s = alpha / rank
//! ```
//!
//! LoRA, Hu et al., arXiv:2106.09685.

use burn::{
    module::Param,
    tensor::{Tensor, TensorData, backend::Backend},
};
use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use quant_kernels::tensor::learned_step::LearnedStep;

use crate::{
    adapter_step::AdapterStep,
    error::{Error, Result},
    lora_config::LoraConfig,
    low_rank::{Component, Matrix, largest_components},
    low_rank_update::LowRankUpdate,
};

/// The two factors of a low-rank adapter, and the learned step of the weight that it adapts, if there
/// is one.
///
/// Build it on an autodiff backend to train it: burn's plain backends do not remember which
/// parameters need gradients.
///
/// A record of it holds alpha and the step's granularity beside the factors, and loading one makes it
/// what was recorded; a record without them, as they were written up to version 0.1.0, leaves alpha as
/// it is.
#[derive(Debug, Clone)]
pub struct LoraAdapterPair<B: Backend> {
    /// The first factor, `[d_in, rank]`.
    pub a: Param<Tensor<B, 2>>,
    /// The second factor, `[rank, d_out]`.
    pub b: Param<Tensor<B, 2>>,
    pub(crate) alpha: f64,
    pub(crate) step: Option<AdapterStep<B>>,
}

impl<B: Backend> LoraAdapterPair<B> {
    /// A pair from its factors.
    ///
    /// # Shapes
    ///
    /// - `a` `[d_in, rank]`
    /// - `b` `[rank, d_out]`
    ///
    /// # Errors
    ///
    /// [`Error::AdapterRanks`] if the ranks differ, and those of [`LoraConfig::new`].
    pub fn from_factors(a: Tensor<B, 2>, b: Tensor<B, 2>, alpha: f64) -> Result<Self> {
        let (a_shape, b_shape) = (a.dims(), b.dims());
        if a_shape[1] != b_shape[0] {
            return Err(Error::AdapterRanks { a: a_shape, b: b_shape });
        }
        LoraConfig::new(a_shape[1], alpha)?;
        let parameter = |factor: Tensor<B, 2>| Param::from_tensor(factor.set_require_grad(false));
        Ok(Self { a: parameter(a), b: parameter(b), alpha, step: None })
    }

    /// A pair that adds nothing: A normal with variance 1 / `d_in`, B zero. The seed alone decides
    /// the numbers, on every backend.
    pub fn adding_nothing(config: &LoraConfig, [d_in, d_out]: [usize; 2], seed: u64, device: &B::Device) -> Self {
        let mut normal = Normal::new(seed, d_in);
        let rank = config.rank();
        let a = (0..d_in * rank).map(|_| normal.sample()).collect();
        Self::from_host(config, a, vec![0.0; rank * d_out], [d_in, d_out], device)
    }

    /// The pair whose product comes closest to `residual`, typically `W − Qw(W)`.
    ///
    /// Where the residual has less than the full rank, the columns of A that are left over are
    /// normal and the rows of B zero: two zeros would never get a gradient.
    ///
    /// # Shapes
    ///
    /// - `residual` `[d_in, d_out]`
    pub fn from_residual(config: &LoraConfig, residual: &Tensor<B, 2>, iterations: usize, seed: u64) -> Self {
        let [d_in, d_out] = residual.dims();
        let matrix = Matrix { values: residual.to_data().iter::<f64>().collect(), rows: d_in, columns: d_out };
        let components = largest_components(&matrix, config.rank(), iterations);
        let largest = components.first().map_or(0.0, |component| component.singular_value);
        let counts = |component: &Component| component.singular_value > largest * 1e-12;

        let rank = config.rank();
        let mut normal = Normal::new(seed, d_in);
        let mut a = vec![0.0; d_in * rank];
        let mut b = vec![0.0; rank * d_out];
        for index in 0..rank {
            let column = a.iter_mut().skip(index).step_by(rank);
            match components.get(index).filter(|&component| counts(component)) {
                Some(Component { left, singular_value, right }) => {
                    let share = (singular_value / config.scaling()).sqrt();
                    column.zip(left).for_each(|(a, left)| *a = (share * left) as f32);
                    let row = &mut b[index * d_out..][..d_out];
                    row.iter_mut().zip(right).for_each(|(b, right)| *b = (share * right) as f32);
                }
                None => column.for_each(|a| *a = normal.sample()),
            }
        }
        Self::from_host(config, a, b, [d_in, d_out], &residual.device())
    }

    fn from_host(config: &LoraConfig, a: Vec<f32>, b: Vec<f32>, [d_in, d_out]: [usize; 2], device: &B::Device) -> Self {
        let rank = config.rank();
        let parameter = |values, shape: [usize; 2]| Param::from_data(TensorData::new(values, shape), device);
        Self { a: parameter(a, [d_in, rank]), b: parameter(b, [rank, d_out]), alpha: config.alpha(), step: None }
    }

    /// The number of columns of A and rows of B.
    pub fn rank(&self) -> usize {
        let [_, rank] = self.a.dims();
        rank
    }

    /// The numerator of the scale.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// `alpha / rank`.
    pub fn scaling(&self) -> f64 {
        self.alpha / self.rank() as f64
    }

    /// The step by which the weight is quantised at the adapter's width in place of what its quantiser
    /// finds.
    pub fn step(&self) -> Option<&LearnedStep<B>> {
        self.step.as_ref().map(AdapterStep::get)
    }

    /// The pair with a learned step. That it fits the layer and the width is checked where the pair is
    /// given to a layer.
    #[must_use]
    pub fn with_step(self, step: LearnedStep<B>) -> Self {
        Self { step: Some(AdapterStep::new(step)), ..self }
    }

    /// The pair without a learned step.
    #[must_use]
    pub fn without_step(self) -> Self {
        Self { step: None, ..self }
    }

    /// The learned step with its version.
    pub(crate) fn adapter_step(&self) -> Option<&AdapterStep<B>> {
        self.step.as_ref()
    }

    /// The shape `[d_in, d_out]` of the weight that the pair adapts.
    pub fn adapts(&self) -> [usize; 2] {
        let ([d_in, _], [_, d_out]) = (self.a.dims(), self.b.dims());
        [d_in, d_out]
    }

    /// What it adds.
    pub(crate) fn update(&self) -> LowRankUpdate<B> {
        LowRankUpdate { a: self.a.val(), b: self.b.val(), scaling: self.scaling() }
    }

    /// `s · (x · A) · B`, in which nothing is as large as the weight.
    ///
    /// # Shapes
    ///
    /// - `x` `[rows, d_in]`
    /// - output `[rows, d_out]`
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.update().forward(x)
    }

    /// `s · A · B`, what the pair adds to the weight.
    ///
    /// # Shapes
    ///
    /// - output `[d_in, d_out]`
    pub fn product(&self) -> Tensor<B, 2> {
        self.update().product()
    }
}

/// Normal numbers with variance 1 / `d_in` from a seed.
struct Normal {
    rng: ChaCha8Rng,
    deviation: f64,
}

impl Normal {
    fn new(seed: u64, d_in: usize) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), deviation: (d_in.max(1) as f64).sqrt().recip() }
    }

    /// By Box and Muller's transform.
    fn sample(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.rng.random::<f64>();
        (self.deviation * radius * angle.cos()) as f32
    }
}
