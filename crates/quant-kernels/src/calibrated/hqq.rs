//! Half-quadratic quantisation: scales of small error but for a few weights, without any input.
//!
//! ```text
//! minimise  Σ |r|^p + β/2 Σ (e − r)²,   r = w/s − value(q),  p = 0.7
//! e ← sign(r)·max(|r| − |r|^(p−1)/β, 0)
//! with zero points   z ← ⌊mean(q − (w/s − e))⌉,  β ← 1.01·β
//! without            s ← Σ value(q)·(w − s·e) / Σ value(q)²
//! ```
//!
//! Source: Badri and Shaji, *Half-Quadratic Quantization of Large Machine Learning Models*, 2023, who keep the zero
//! point as a fraction. Here it is a level, as the packed codes have it, so that the scale is fitted too; errors are
//! in units of the scale. What does not lower `Σ |s·r|^p` is not taken.

use crate::{
    calibrated::importance::of_each_scale,
    cpu::range_search::{Params, Shared},
    error::Result,
    packed::packed_spec::PackedSpec,
};

const POWER: f32 = 0.7;
const PENALTY: f32 = 10.0;
const PENALTY_GROWTH: f32 = 1.01;
const ROUNDS: usize = 20;

/// The parameters for each scale, from those that a quantiser found.
pub(super) fn half_quadratic_params(spec: &PackedSpec, weights: &[f32], found: &[Params]) -> Result<Vec<Params>> {
    of_each_scale(spec, weights, |index, shared, _| improved(shared, found[index]))
}

/// The parameters of the least error on the way from those found.
fn improved(shared: &Shared<'_>, found: Params) -> Params {
    let (mut params, mut penalty) = (found, PENALTY);
    let mut best = (found, error(shared, found));
    for _ in 0..ROUNDS {
        let next = step(shared, params, penalty);
        penalty *= PENALTY_GROWTH;
        if !(next.scale > 0.0 && next.scale.is_finite()) || next == params {
            break;
        }
        params = next;
        let error = error(shared, params);
        if error < best.1 {
            best = (params, error);
        }
    }
    best.0
}

/// One round: the errors that count, then the parameters that fit the rest.
fn step(shared: &Shared<'_>, params: Params, penalty: f32) -> Params {
    let Params { scale, zero } = params;
    let (mut product, mut square, mut shift) = (0.0, 0.0, 0.0);
    for &weight in shared.values {
        let value = shared.value(weight, params);
        let kept = weight / scale - shrunk(weight / scale - value, penalty);
        product += f64::from(value) * f64::from(kept);
        square += f64::from(value) * f64::from(value);
        shift += f64::from(value - kept);
    }
    let fitted = if square > 0.0 { scale * (product / square) as f32 } else { scale };
    if !shared.has_zero_point {
        return Params { scale: fitted, zero };
    }
    let highest = shared.book.levels().high as f32;
    let moved = zero + (shift / shared.values.len().max(1) as f64) as f32;
    let moved = moved.round_ties_even().clamp(0.0, highest);
    // One at a time: the scale is fitted to codes that the zero point has no part in changing.
    if moved.to_bits() == zero.to_bits() { Params { scale: fitted, zero } } else { Params { scale, zero: moved } }
}

/// `sign(r)·max(|r| − |r|^(p−1)/β, 0)`.
fn shrunk(residual: f32, penalty: f32) -> f32 {
    let magnitude = residual.abs();
    if magnitude == 0.0 { 0.0 } else { (magnitude - magnitude.powf(POWER - 1.0) / penalty).max(0.0).copysign(residual) }
}

/// `Σ |w − ŵ|^p`.
fn error(shared: &Shared<'_>, params: Params) -> f64 {
    let of = |&weight: &f32| f64::from((weight - shared.value(weight, params) * params.scale).abs().powf(POWER));
    shared.values.iter().map(of).sum()
}
