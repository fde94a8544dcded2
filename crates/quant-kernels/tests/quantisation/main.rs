//! Quantisation as a whole: against a scalar reference, on two backends, on broken input, with
//! gradients, and by random properties.

#![expect(clippy::float_cmp, reason = "results are compared exactly where they are exact")]

mod backends;
mod exhaustive;
mod extremes;
mod given_scales;
mod gradients;
mod half_precision;
mod kernels;
mod learned_step;
mod learned_step_kernels;
mod non_finite;
mod normal_float;
mod properties;
mod range_estimators;
mod rotation;
mod scalar_reference;
mod support;
mod surroundings;
