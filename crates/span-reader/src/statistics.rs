//! Intervals and paired comparisons, so that noise is not taken for an effect.
//!
//! ```text
//! Wilson:     (p̂ + z²/2n ± z·√(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n),   z = 1.959964
//! mean:       x̄ ± z·s/√n
//! McNemar:    p = 2·P(X ≤ min(b, c)),   X ~ Binomial(b + c, ½)
//! bootstrap:  2.5 % and 97.5 % quantiles of the mean paired difference over resamples
//! ```
//!
//! Sources: Wilson, *Probable inference, the law of succession, and statistical inference*, JASA
//! 1927; McNemar, *Note on the sampling error of the difference between correlated proportions*,
//! Psychometrika 1947 (exact form); Efron, *Bootstrap methods*, Annals of Statistics 1979.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Quantile of the normal distribution for 95 % intervals.
const Z: f64 = 1.959_963_984_540_054;

/// A 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Interval of a proportion by Wilson's score.
    ///
    /// # Panics
    ///
    /// When there are more successes than trials.
    pub fn wilson(successes: usize, trials: usize) -> Self {
        assert!(successes <= trials, "{successes} successes in {trials} trials");
        if trials == 0 {
            return Self { low: 0.0, high: 1.0 };
        }
        let n = trials as f64;
        let p = successes as f64 / n;
        let centre = p + Z * Z / (2.0 * n);
        let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        // At 0 and 1 the ends are exact; rounding would miss them by an ulp.
        let low = if successes == 0 { 0.0 } else { (centre - half) / scale };
        let high = if successes == trials { 1.0 } else { (centre + half) / scale };
        Self { low, high }
    }

    /// Interval of a mean of values in [0, 1] by the normal approximation, cut to [0, 1].
    pub fn of_mean(values: &[f64]) -> Self {
        let n = values.len() as f64;
        if values.len() < 2 {
            return Self { low: 0.0, high: 1.0 };
        }
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let half = Z * (variance / n).sqrt();
        Self { low: (mean - half).max(0.0), high: (mean + half).min(1.0) }
    }

    /// Both ends times a factor, such as 100 for percent.
    pub fn scaled(self, factor: f64) -> Self {
        Self { low: self.low * factor, high: self.high * factor }
    }

    /// Whether the interval holds a value.
    pub fn contains(self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

/// Two configurations on the same questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairedComparison {
    /// Mean of the second minus mean of the first.
    pub difference: f64,
    /// Bootstrap interval of the difference.
    pub interval: Interval,
    /// Questions that only the first answers exactly.
    pub only_first: usize,
    /// Questions that only the second answers exactly.
    pub only_second: usize,
    /// Two-sided p-value of McNemar's exact test.
    pub p_value: f64,
}

impl PairedComparison {
    /// Compares exact-match scores (0 or 1 each) question by question.
    ///
    /// # Panics
    ///
    /// When the two are not of the same length.
    pub fn new(first: &[f64], second: &[f64], seed: u64) -> Self {
        assert_eq!(first.len(), second.len(), "paired scores must be of the same questions");
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| b - a).collect();
        let only_first = differences.iter().filter(|d| **d < -0.5).count();
        let only_second = differences.iter().filter(|d| **d > 0.5).count();
        Self {
            difference: mean(&differences),
            interval: bootstrap_mean(&differences, seed),
            only_first,
            only_second,
            p_value: mcnemar(only_first, only_second),
        }
    }

    /// Whether the difference lies inside the noise at the 95 % level.
    pub fn is_noise(&self) -> bool {
        self.p_value >= 0.05
    }
}

/// Mean of values; zero for none.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// 95 % interval of a mean by the percentile bootstrap with 2,000 resamples.
pub fn bootstrap_mean(values: &[f64], seed: u64) -> Interval {
    const RESAMPLES: usize = 2000;
    if values.is_empty() {
        return Interval { low: 0.0, high: 0.0 };
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = (0..values.len()).map(|_| values[rng.random_range(0..values.len())]).sum();
            sum / values.len() as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    Interval { low: means[RESAMPLES / 40], high: means[RESAMPLES - 1 - RESAMPLES / 40] }
}

/// Two-sided p-value of McNemar's exact test on the discordant pairs.
pub fn mcnemar(only_first: usize, only_second: usize) -> f64 {
    let n = only_first + only_second;
    if n == 0 {
        return 1.0;
    }
    // Terms of the binomial distribution in logarithms, so that hundreds of pairs do not underflow.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = log_term.exp();
    for k in 1..=only_first.min(only_second) {
        log_term += ((n - k + 1) as f64 / k as f64).ln();
        tail += log_term.exp();
    }
    (2.0 * tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn wilson_gives_the_published_values() {
        // Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
        for (r, n, low, high) in
            [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]
        {
            let interval = Interval::wilson(r, n);
            assert!((interval.low - low).abs() < 5e-5 && (interval.high - high).abs() < 5e-5, "{r}/{n}: {interval:?}");
        }
        assert_eq!(Interval::wilson(0, 0), Interval { low: 0.0, high: 1.0 });
        assert_eq!(Interval::wilson(7, 7).high.to_bits(), 1f64.to_bits());
    }

    #[test]
    fn mcnemar_gives_binomial_tails() {
        close(mcnemar(0, 0), 1.0);
        close(mcnemar(0, 5), 2.0 / 32.0);
        close(mcnemar(1, 5), 2.0 * 7.0 / 64.0);
        close(mcnemar(4, 4), 1.0);
        assert!(mcnemar(100, 900) < 1e-100 && mcnemar(100, 900) > 0.0);
    }

    #[test]
    fn interval_of_a_mean_covers_it_at_the_stated_rate() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let covered = (0..1000)
            .filter(|_| {
                let draws: Vec<f64> = (0..200).map(|_| rng.random::<f64>()).collect();
                Interval::of_mean(&draws).contains(0.5)
            })
            .count();
        // 950 expected; three standard deviations are 21.
        assert!((929..=971).contains(&covered), "{covered}");
    }

    #[test]
    fn paired_comparison_sees_what_unpaired_intervals_hide() {
        let first: Vec<f64> = (0..200).map(|i| f64::from(i % 2)).collect();
        let mut second = first.clone();
        for score in second.iter_mut().step_by(2).take(12) {
            *score = 1.0;
        }
        let paired = PairedComparison::new(&first, &second, 1);
        close(paired.difference, 0.06);
        assert_eq!((paired.only_first, paired.only_second), (0, 12));
        assert!(!paired.is_noise() && paired.interval.low > 0.0);
        assert!(PairedComparison::new(&first, &first, 1).is_noise());
    }
}
