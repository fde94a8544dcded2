//! Frequencies of the rotations, and how they are stretched for contexts longer than the trained ones.
//!
//! ```text
//! default   ωᵢ = θ^(−2i/w)
//! linear    ωᵢ / f                                     positions divided by f
//! llama3    ωᵢ               where λᵢ < L/h            wavelength λᵢ = 2π/ωᵢ
//!           ωᵢ / f           where λᵢ > L/l
//!           (1 − s)·ωᵢ/f + s·ωᵢ   between,   s = (L/λᵢ − l) / (h − l)
//! ```
//!
//! `w` is the width of a head, `f` the factor, `l` and `h` the low and the high frequency factor, `L`
//! the context that the model was trained on before. Sources: Su et al., *RoFormer*,
//! arXiv:2104.09864, section 3.2; Chen et al., *Position Interpolation*, arXiv:2306.15595 (linear);
//! Grattafiori et al., *The Llama 3 Herd of Models*, arXiv:2407.21783 (llama3).

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// How the frequencies of the rotations are stretched, as `rope_scaling` of `config.json` has it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "snake_case")]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// Every position is divided by a factor.
    Linear {
        /// `f`.
        factor: f64,
    },
    /// Low frequencies are divided by a factor, high ones are kept.
    Llama3 {
        /// `f`.
        factor: f64,
        /// `l`: wavelengths above `L/l` are stretched by the whole factor.
        low_freq_factor: f64,
        /// `h`: wavelengths below `L/h` are kept.
        high_freq_factor: f64,
        /// `L`, in tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// The kinds that are implemented, by their names in `config.json`.
    pub(crate) const KINDS: &'static str = "default, linear or llama3";

    /// The radians by which a position turns each pair of numbers of a head, `head_dim / 2` of them.
    ///
    /// ```
    /// use llama_model::rotary::scaling::RopeScaling;
    ///
    /// let plain = RopeScaling::Default.frequencies(10_000.0, 4);
    /// assert_eq!(plain, [1.0, 0.01]);
    /// let half = RopeScaling::Linear { factor: 2.0 }.frequencies(10_000.0, 4);
    /// assert_eq!(half, [0.5, 0.005]);
    /// ```
    pub fn frequencies(self, theta: f64, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|i| theta.powf(-((2 * i) as f64) / head_dim as f64));
        plain.map(|frequency| self.stretched(frequency) as f32).collect()
    }

    /// The first number that is out of its range: its field, what it is, and what was expected.
    pub(crate) fn fault(self) -> Option<(&'static str, f64, &'static str)> {
        let factor_fault = |factor: f64| {
            let fits = factor >= 1.0 && factor.is_finite();
            (!fits).then_some(("factor", factor, "a number from 1 on"))
        };
        match self {
            Self::Default => None,
            Self::Linear { factor } => factor_fault(factor),
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, .. } => factor_fault(factor).or_else(|| {
                let low_fits = low_freq_factor > 0.0 && low_freq_factor.is_finite();
                let high_fits = high_freq_factor > low_freq_factor && high_freq_factor.is_finite();
                match (low_fits, high_fits) {
                    (false, _) => Some(("low_freq_factor", low_freq_factor, "a positive number")),
                    (_, false) => Some(("high_freq_factor", high_freq_factor, "a number above low_freq_factor")),
                    _ => None,
                }
            }),
        }
    }

    fn stretched(self, frequency: f64) -> f64 {
        match self {
            Self::Default => frequency,
            Self::Linear { factor } => frequency / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                // How often a wave fits into the context.
                let waves = original_max_position_embeddings as f64 * frequency / TAU;
                let kept = ((waves - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_frequencies_fall_from_one_by_equal_ratios() {
        let got = RopeScaling::Default.frequencies(500.0, 6);
        let expected = [1.0, 500f64.powf(-1.0 / 3.0), 500f64.powf(-2.0 / 3.0)];
        assert_eq!(got, expected.map(|frequency| frequency as f32));
    }

    #[test]
    fn llama3_keeps_high_frequencies_divides_low_ones_and_is_continuous_between() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let at = |wavelength: f64| scaling.stretched(TAU / wavelength) * wavelength / TAU;
        for wavelength in [6.0, 100.0, 2047.9] {
            assert!((at(wavelength) - 1.0).abs() < 1e-12, "{wavelength}");
        }
        for wavelength in [8192.1, 1e5, 1e7] {
            assert!((at(wavelength) - 0.125).abs() < 1e-12, "{wavelength}");
        }
        // 8192 / 3276.8 = 2.5 waves lie half way between 1 and 4.
        assert!((at(3276.8) - (0.5 * 0.125 + 0.5)).abs() < 1e-12);
        assert!((at(2048.1) - 1.0).abs() < 1e-3 && (at(8191.9) - 0.125).abs() < 1e-3);
    }
}
