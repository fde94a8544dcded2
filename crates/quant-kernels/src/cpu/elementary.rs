//! Exponential and GELU in f32, of nothing but sums, products and one division.
//!
//! ```text
//! e^t     = 2^n · e^r,   n = round(t / ln 2),   e^r a polynomial on |r| ≤ ln 2 / 2
//! gelu(x) = x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))  =  x·σ(u),   u = 2·√(2/π)·(x + 0.044715·x³)
//! gelu'(x) = σ(u) + x·σ(u)·(1 − σ(u))·u'
//! ```
//!
//! Source: Hendrycks and Gimpel, *Gaussian Error Linear Units*, arXiv:1606.08415; the polynomial
//! is that of Moshier's Cephes library (`expf`). The order of the operations is fixed, so that all
//! processors give the same bits. GELU is off by less than 2·10⁻⁶ for every x.

/// 1.5·2²³: adding it to a small number leaves the number, rounded half to even, in the low bits.
pub(crate) const ROUNDER: f32 = 12_582_912.0;

const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
const CUBIC: f32 = 0.044_715;

/// e^t for |t| ≤ 87; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp(t: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = t * std::f32::consts::LOG2_E + ROUNDER;
    let n = shifted - ROUNDER;
    let r = t - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + coefficient;
    }
    let power = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127) << 23;
    (p * r * r + r + 1.0) * f32::from_bits(power)
}

/// `1 + e^−u`, the reciprocal of σ(u), where `x` is at least −20.
#[inline(always)]
fn inverse_gate(x: f32) -> f32 {
    let t = -TWICE_SQRT_2_OVER_PI * x * (1.0 + CUBIC * (x * x));
    let t = if t < -87.0 { -87.0 } else { t };
    let t = if t > 87.0 { 87.0 } else { t };
    1.0 + exp(t)
}

/// GELU in its tanh form. NaN stays NaN, ∞ stays ∞ and −∞ becomes −0.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    // Below −20 the result is closer to 0 than any error, and x³ does not overflow on the way.
    let x = if x < -20.0 { -20.0 } else { x };
    x / inverse_gate(x)
}

/// The derivative of GELU in its tanh form. NaN stays NaN.
#[cfg(feature = "flex")]
#[inline(always)]
fn gelu_derivative(x: f32) -> f32 {
    // Beyond ±20 it is 0 or 1 to the last bit.
    let x = if x < -20.0 { -20.0 } else { x };
    let x = if x > 20.0 { 20.0 } else { x };
    let gate = 1.0 / inverse_gate(x);
    let slope = TWICE_SQRT_2_OVER_PI * (1.0 + 3.0 * CUBIC * (x * x));
    gate + x * gate * (1.0 - gate) * slope
}

#[cfg(feature = "flex")]
pub(crate) use runs::{gelu_backward_run, gelu_run};

#[cfg(feature = "flex")]
mod runs {
    use std::mem::MaybeUninit;

    use crate::cpu::elementary::{gelu, gelu_derivative};
    use crate::cpu::multiversion::multiversion;

    multiversion! {
        /// GELU of each value.
        pub(crate) fn gelu_run(x: &[f32], y: &mut [MaybeUninit<f32>]) {
            for (y, &x) in y.iter_mut().zip(x) {
                y.write(gelu(x));
            }
        }
    }

    multiversion! {
        /// The gradient of GELU's input from that of its output.
        pub(crate) fn gelu_backward_run(x: &[f32], gradient: &[f32], out: &mut [MaybeUninit<f32>]) {
            for ((out, &x), &gradient) in out.iter_mut().zip(x).zip(gradient) {
                out.write(gradient * gelu_derivative(x));
            }
        }
    }
}

#[cfg(all(test, feature = "flex"))]
#[expect(clippy::float_cmp, reason = "results are compared exactly where they are exact")]
mod tests {
    use std::mem::MaybeUninit;

    use super::*;
    use crate::cpu::instruction_set::InstructionSet;

    fn in_f64(x: f64) -> (f64, f64) {
        let factor = (2.0 / std::f64::consts::PI).sqrt();
        let tanh = (factor * (x + 0.044_715 * x.powi(3))).tanh();
        let slope = factor * (1.0 + 3.0 * 0.044_715 * x * x);
        (0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * slope)
    }

    #[test]
    fn gelu_and_its_derivative_are_within_2e_6_of_f64() {
        let mut worst = (0f64, 0f64);
        for i in -400_000..=400_000 {
            let x = i as f32 * 1e-4;
            let (value, derivative) = in_f64(f64::from(x));
            worst.0 = worst.0.max((f64::from(gelu(x)) - value).abs());
            worst.1 = worst.1.max((f64::from(gelu_derivative(x)) - derivative).abs());
        }
        assert!(worst.0 < 2e-6 && worst.1 < 2e-6, "{worst:?}");
    }

    #[test]
    fn gelu_of_what_is_not_finite() {
        assert!(gelu(f32::NAN).is_nan() && gelu_derivative(f32::NAN).is_nan());
        assert_eq!(gelu(f32::INFINITY), f32::INFINITY);
        assert!(gelu(f32::NEG_INFINITY).abs() < 1e-30);
        assert_eq!((gelu(f32::MAX), gelu(f32::MIN).abs() < 1e-30), (f32::MAX, true));
        assert_eq!((gelu_derivative(f32::MAX), gelu_derivative(f32::INFINITY)), (1.0, 1.0));
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 - 500.0) * 0.037).collect();
        let gradient: Vec<f32> = (0..1003).map(|i| (i as f32 * 0.7).sin()).collect();
        let run = |set| {
            let (mut y, mut dx) = (vec![MaybeUninit::uninit(); x.len()], vec![MaybeUninit::uninit(); x.len()]);
            gelu_run(set, &x, &mut y);
            gelu_backward_run(set, &x, &gradient, &mut dx);
            #[expect(unsafe_code, reason = "the functions write every element")]
            // SAFETY: they do.
            y.into_iter().chain(dx).map(|value| unsafe { value.assume_init() }.to_bits()).collect::<Vec<_>>()
        };
        let expected: Vec<u32> = x
            .iter()
            .map(|&x| gelu(x).to_bits())
            .chain(x.iter().zip(&gradient).map(|(&x, gradient)| (gradient * gelu_derivative(x)).to_bits()))
            .collect();
        for set in InstructionSet::available() {
            assert_eq!(run(set), expected, "{set:?}");
        }
    }
}
