//! Codes that are chosen with what is known of a layer's inputs, or of its weights as a whole.
//!
//! ```text
//! importance   s: the range of least  Σᵢ hᵢ (wᵢ − ŵᵢ)²,          h = diag(H)
//! GPTQ         q: one input after another, of small  tr((W − Ŵ)ᵀ H (W − Ŵ))
//! HQQ          s, z: of small  Σ |w − ŵ|^0.7,  without any input
//! AWQ          factors of the inputs, which what comes before the layer is divided by
//! ```
//!
//! `H = XᵀX / n` are the second moments of the inputs ([`InputMoments`](input_moments::InputMoments)). All of this
//! happens once for each weight, on the processor and in f64 where sums are long; results do not depend on the
//! number of threads.

mod cholesky;
pub mod codes;
mod gptq;
mod hqq;
mod importance;
pub mod input_moments;
mod level_grid;
mod output_range;
pub mod scaled_rows;
#[cfg(test)]
mod tests;
