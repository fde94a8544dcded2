//! Rotations of what enters a layer.
//!
//! ```text
//! y = x·W = (x·R)·(Rᵀ·W),   Rᵀ·R = 1
//! ```
//!
//! Quantised after it, both factors have smaller largest values beside their mean ones: a row in which one input stands
//! out becomes one in which all are of a size.
//!
//! Source: Ashkboos et al., *Outlier-Free 4-Bit Inference in Rotated LLMs*, arXiv:2404.00456; for weights,
//! Tseng et al., *Even Better LLM Quantization with Hadamard Incoherence and Lattice Codebooks*, arXiv:2402.04396.

pub mod hadamard;
mod paley;
