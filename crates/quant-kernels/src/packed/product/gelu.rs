//! GELU in its tanh form, as GPT-2 has it.
//!
//! ```text
//! gelu(x) = x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))  =  x / (1 + e^t)
//! t       = −2·√(2/π)·(x + 0.044715·x³)
//! e^t     = 2^n · e^r,   n = round(t / ln 2),   e^r a polynomial on |r| ≤ ln 2 / 2
//! ```
//!
//! Source: Hendrycks and Gimpel, *Gaussian Error Linear Units*, arXiv:1606.08415; the polynomial
//! is that of Moshier's Cephes library (`expf`). The error is below 2·10⁻⁶ for every x. There are
//! only sums, products and one division, in a fixed order, so that all processors give the same
//! bits.

/// 1.5·2²³: adding it to a small number leaves the number, rounded half to even, in the low bits.
pub(super) const ROUNDER: f32 = 12_582_912.0;

/// e^t for |t| ≤ 87; NaN stays NaN.
#[inline(always)]
fn exp(t: f32) -> f32 {
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

/// GELU in its tanh form. NaN stays NaN, ∞ stays ∞ and −∞ becomes −0.
#[inline(always)]
pub(super) fn gelu(x: f32) -> f32 {
    const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;
    // Below −20 the result is closer to 0 than any error, and x³ does not overflow on the way.
    let x = if x < -20.0 { -20.0 } else { x };
    let t = -TWICE_SQRT_2_OVER_PI * x * (1.0 + 0.044_715 * (x * x));
    let t = if t < -87.0 { -87.0 } else { t };
    let t = if t > 87.0 { 87.0 } else { t };
    x / (1.0 + exp(t))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_within_2e_6_of_f64() {
        let mut worst = 0.0_f64;
        for i in -400_000..=400_000 {
            let x = i as f32 * 1e-4;
            let z = f64::from(x);
            let exact = 0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044_715 * z * z * z)).tanh());
            worst = worst.max((f64::from(gelu(x)) - exact).abs());
        }
        assert!(worst < 2e-6, "{worst:e}");
    }

    #[test]
    fn gelu_of_what_is_not_finite() {
        assert!(gelu(f32::NAN).is_nan());
        assert_eq!(gelu(f32::INFINITY), f32::INFINITY);
        assert!(gelu(f32::NEG_INFINITY).abs() < 1e-30);
        assert_eq!((gelu(f32::MAX), gelu(f32::MIN).abs() < 1e-30), (f32::MAX, true));
    }
}
