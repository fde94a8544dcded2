//! Intervals and paired comparisons, so that noise is not taken for an effect.
//!
//! ```text
//! mean in [0, 1]:  (x̄ + z²/2n ± z·√(s²/n + z²/4n²)) / (1 + z²/n)           z = 1.959964, s² divides by n
//!                  Wilson's interval where every value is 0 or 1, for then s² = p̂(1 − p̂)
//! unseen share:    u = z²/(n + z²)                  what n questions that agree leave open, by Wilson
//! support:         [(1 − u)·x̄ + u·a, (1 − u)·x̄ + u·b]        for values in [a, b]
//! McNemar:         p = 2·P(X ≤ min(b, c)),   X ~ Binomial(b + c, ½)
//! difference:      2.5 % and 97.5 % quantiles of the mean paired difference over resamples, and never
//!                  narrower than the support of values in [−1, 1]
//! over seeds:      x̄ ± √((t·s_seeds/√k)² + q²)      k seeds, t of k − 1 degrees of freedom, q the distance
//!                  to the end of the interval over questions; with one seed there is none
//! ```
//!
//! All intervals of accuracies in this workspace come from here. None has no width: where all questions
//! agree, as many as were asked say how far others could differ, which no resampling shows. Each holds the
//! estimate that it is of, whatever was rounded on the way ([`Interval::holding`]).
//!
//! Sources: Wilson, *Probable inference, the law of succession, and statistical inference*, JASA
//! 1927; McNemar, *Note on the sampling error of the difference between correlated proportions*,
//! Psychometrika 1947 (exact form); Efron, *Bootstrap methods*, Annals of Statistics 1979; Student, *The
//! probable error of a mean*, Biometrika 1908; Zou and Donner, *Construction of confidence limits about
//! effect measures*, Statistics in Medicine 2008 (two sources of variance, each with its own limits).

pub mod clusters;
pub mod holm;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Quantile of the normal distribution for 95 % intervals.
const Z: f64 = 1.959_963_984_540_054;

/// 97.5 % quantiles of Student's distribution for 1, 2, 3, … degrees of freedom.
const T: [f64; 30] = [
    12.706_205, 4.302_653, 3.182_446, 2.776_445, 2.570_582, 2.446_912, 2.364_624, 2.306_004, 2.262_157, 2.228_139,
    2.200_985, 2.178_813, 2.160_369, 2.144_787, 2.131_450, 2.119_905, 2.109_816, 2.100_922, 2.093_024, 2.085_963,
    2.079_614, 2.073_873, 2.068_658, 2.063_899, 2.059_539, 2.055_529, 2.051_831, 2.048_407, 2.045_230, 2.042_272,
];

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
        Self { low, high }.holding(p)
    }

    /// Interval of a mean of values in [0, 1]; that of [`Interval::wilson`] where each is 0 or 1.
    pub fn of_mean(values: &[f64]) -> Self {
        let n = values.len() as f64;
        if values.is_empty() {
            return Self { low: 0.0, high: 1.0 };
        }
        let mean = mean(values);
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let centre = mean + Z * Z / (2.0 * n);
        let half = Z * (variance / n + Z * Z / (4.0 * n * n)).sqrt();
        let scale = 1.0 + Z * Z / n;
        Self { low: ((centre - half) / scale).max(0.0), high: ((centre + half) / scale).min(1.0) }.holding(mean)
    }

    /// Interval of a mean paired difference of values in [−1, 1], by the bootstrap with a seed.
    pub fn of_difference(differences: &[f64], seed: u64) -> Self {
        if differences.is_empty() {
            return Self { low: -1.0, high: 1.0 };
        }
        bootstrap_mean(differences, seed).hull(Self::support(mean(differences), differences.len() as f64))
    }

    /// Where the mean of values in [−1, 1] can lie that `n` independent ones of a mean leave open.
    fn support(mean: f64, n: f64) -> Self {
        let unseen = Z * Z / (n + Z * Z);
        let seen = (1.0 - unseen) * mean;
        Self { low: (seen - unseen).max(-1.0), high: (seen + unseen).min(1.0) }.holding(mean)
    }

    /// Interval of a mean over seeds of values that were measured on the same questions with each.
    ///
    /// `of_seeds` holds the mean with each seed, `over_questions` the interval of their mean that the
    /// questions leave. `None` with fewer than two seeds, which say nothing of how seeds differ.
    pub fn over_seeds(of_seeds: &[f64], over_questions: Self) -> Option<Self> {
        let k = of_seeds.len();
        let t = *T.get(k.checked_sub(2)?).unwrap_or(&T[T.len() - 1]);
        let centre = mean(of_seeds);
        let variance = of_seeds.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (k - 1) as f64;
        let seeds = t * (variance / k as f64).sqrt();
        let Self { low, high } = over_questions;
        Some(Self { low: centre - seeds.hypot(centre - low), high: centre + seeds.hypot(high - centre) })
    }

    /// The narrowest interval that holds both.
    #[must_use]
    pub fn hull(self, other: Self) -> Self {
        Self { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    /// The narrowest interval that holds this one and an estimate. Ends and estimate are rounded each in their own way,
    /// and the resamples of few items may all lie on one side: an estimate outside of its own interval would be read as a
    /// fault.
    ///
    /// ```
    /// use span_reader::statistics::Interval;
    ///
    /// let rounded = Interval { low: 62.0, high: 99.999_999_999_999_99 };
    /// assert_eq!(rounded.holding(100.0), Interval { low: 62.0, high: 100.0 });
    /// ```
    #[must_use]
    pub fn holding(self, estimate: f64) -> Self {
        Self { low: self.low.min(estimate), high: self.high.max(estimate) }
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
    /// Interval of the difference, as [`Interval::of_difference`] has it.
    pub interval: Interval,
    /// Interval of the difference where questions of one paragraph go together, as
    /// [`Clusters::interval`](clusters::Clusters::interval) has it; `None` where paragraphs were not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_paragraphs: Option<Interval>,
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
            interval: Interval::of_difference(&differences, seed),
            over_paragraphs: None,
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

impl Interval {
    /// Interval of a ratio of sums over the same items, by the bootstrap with a seed: the items are resampled, each
    /// with both of its numbers.
    ///
    /// # Panics
    ///
    /// If the numbers of items differ.
    pub fn of_ratio(above: &[f64], below: &[f64], seed: u64) -> Self {
        assert_eq!(above.len(), below.len(), "two numbers of each item");
        if above.is_empty() {
            return Self { low: f64::NEG_INFINITY, high: f64::INFINITY };
        }
        let drawn = resampled(above.len(), seed, |items| {
            let (mut sum, mut of) = (0.0, 0.0);
            for item in items {
                (sum, of) = (sum + above[item], of + below[item]);
            }
            sum / of
        });
        drawn.holding(above.iter().sum::<f64>() / below.iter().sum::<f64>())
    }
}

/// Mean of values; zero for none.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// 95 % interval of a mean by the percentile bootstrap with 2,000 resamples; of no width where all agree.
fn bootstrap_mean(values: &[f64], seed: u64) -> Interval {
    resampled(values.len(), seed, |items| items.map(|item| values[item]).sum::<f64>() / values.len() as f64)
}

/// The middle 95 % of a figure of 2,000 resamples of `n` items, which are drawn with replacement.
fn resampled(n: usize, seed: u64, figure: impl Fn(&mut dyn Iterator<Item = usize>) -> f64) -> Interval {
    const RESAMPLES: usize = 2000;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut figures: Vec<f64> = (0..RESAMPLES).map(|_| figure(&mut (0..n).map(|_| rng.random_range(0..n)))).collect();
    figures.sort_by(f64::total_cmp);
    Interval { low: figures[RESAMPLES / 40], high: figures[RESAMPLES - 1 - RESAMPLES / 40] }
}

/// The quantile of Student's distribution where that of the normal distribution is `z`, from 9 degrees of freedom on.
///
/// Source: Abramowitz and Stegun, *Handbook of Mathematical Functions*, 26.7.5.
pub(crate) fn student(z: f64, freedom: f64) -> f64 {
    let [z3, z5, z7] = [3, 5, 7].map(|power| z.powi(power));
    let first = (z3 + z) / (4.0 * freedom);
    let second = (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * freedom.powi(2));
    let third = (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / (384.0 * freedom.powi(3));
    z + first + second + third
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
    fn quantiles_of_student_are_the_published_ones() {
        for (freedom, one, two) in [(9.0, 1.833_11, 2.262_16), (29.0, 1.699_13, 2.045_23), (120.0, 1.657_65, 1.979_93)]
        {
            assert!((student(1.644_853_626_951_472_2, freedom) - one).abs() < 2e-4, "{freedom}");
            assert!((student(Z, freedom) - two).abs() < 5e-4, "{freedom}");
        }
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
    fn a_mean_of_all_or_nothing_scores_has_the_interval_of_its_proportion() {
        for (right, n) in [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (239, 240), (240, 240), (81, 263)] {
            let scores: Vec<f64> = (0..n).map(|i| f64::from(u8::from(i < right))).collect();
            let (mean, proportion) = (Interval::of_mean(&scores), Interval::wilson(right, n));
            close(mean.low, proportion.low);
            close(mean.high, proportion.high);
        }
        assert_eq!(Interval::of_mean(&[]), Interval { low: 0.0, high: 1.0 });
    }

    /// The largest sample of the test below that is resampled, which takes its time.
    const RESAMPLED_TO: usize = 49;

    /// Values whose means and ends are rounded in every way: equal ones next to the ends of the range, rare others, and
    /// any at all.
    fn samples(rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
        let mut samples = Vec::new();
        for n in [1, 2, 3, 7, 49, RESAMPLED_TO + 1, 1000] {
            for score in [0.0, f64::MIN_POSITIVE, 1e-17, 0.1, 1.0 / 3.0, 2.0 / 3.0, 0.7, 1.0 - f64::EPSILON, 1.0] {
                samples.push(vec![score; n]);
                let mut one_other = vec![score; n];
                one_other[n / 2] = 1.0 - score;
                samples.push(one_other);
            }
            samples.push((0..n).map(|_| rng.random()).collect());
            samples.push((0..n).map(|_| f64::from(u8::from(rng.random_bool(0.97)))).collect());
        }
        samples
    }

    #[track_caller]
    fn assert_holds(interval: Interval, estimate: f64) {
        assert!(interval.low <= estimate && estimate <= interval.high, "{estimate} outside of {interval:?}");
    }

    #[test]
    fn every_interval_holds_its_own_estimate() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        for (seed, values) in samples(&mut rng).into_iter().enumerate() {
            let (n, seed) = (values.len(), seed as u64);
            let of_mean = Interval::of_mean(&values);
            assert_holds(of_mean, mean(&values));
            assert_holds(of_mean.scaled(100.0), 100.0 * mean(&values));
            assert!(of_mean.low >= 0.0 && of_mean.high <= 1.0, "{of_mean:?}");
            let right = values.iter().filter(|value| **value > 0.5).count();
            assert_holds(Interval::wilson(right, n), right as f64 / n as f64);
            if n > RESAMPLED_TO {
                continue;
            }
            // Differences of either sign, most of a sample as large as they may be.
            for sign in [1.0, -1.0] {
                let differences: Vec<f64> = values.iter().map(|value| sign * value).collect();
                let interval = Interval::of_difference(&differences, seed);
                assert_holds(interval, mean(&differences));
                assert!(interval.low >= -1.0 && interval.high <= 1.0, "{interval:?}");
                let paragraphs: Vec<usize> = (0..n).map(|value| value / 3).collect();
                let of_clusters = clusters::Clusters::new(&differences, &paragraphs);
                assert_holds(of_clusters.interval(seed), of_clusters.mean());
                if let Some(over_seeds) = Interval::over_seeds(&differences, interval) {
                    assert_holds(over_seeds, mean(&differences));
                }
                let sizes: Vec<f64> = (0..n).map(|item| (1 + item % 5) as f64).collect();
                let ratio = differences.iter().sum::<f64>() / sizes.iter().sum::<f64>();
                assert_holds(Interval::of_ratio(&differences, &sizes, seed), ratio);
            }
        }
    }

    #[test]
    fn scores_that_agree_leave_open_what_their_number_leaves_open() {
        for n in [1, 2, 10, 240, 5000] {
            let unseen = Z * Z / (n as f64 + Z * Z);
            for score in [0.0, 0.25, 1.0] {
                let interval = Interval::of_mean(&vec![score; n]);
                close(interval.high - interval.low, unseen);
                assert!(interval.low <= score + 1e-12 && score <= interval.high + 1e-12, "{score}: {interval:?}");
            }
            let same = PairedComparison::new(&vec![1.0; n], &vec![1.0; n], 1);
            close(same.interval.low, -unseen);
            close(same.interval.high, unseen);
            let all = PairedComparison::new(&vec![0.0; n], &vec![1.0; n], 1);
            close(all.interval.low, 1.0 - 2.0 * unseen);
            close(all.interval.high, 1.0);
        }
        assert_eq!(Interval::of_difference(&[], 1), Interval { low: -1.0, high: 1.0 });
    }

    #[test]
    fn rare_differences_are_covered_at_the_stated_rate() {
        // One question in 500 differs: of 240, most samples show none, and resamples of those only zero.
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        let covered = (0..400)
            .filter(|&seed| {
                let draws: Vec<f64> = (0..240).map(|_| f64::from(u8::from(rng.random_bool(0.002)))).collect();
                Interval::of_difference(&draws, seed).contains(0.002)
            })
            .count();
        assert!(covered >= 380, "{covered} of 400");
    }

    #[test]
    fn means_over_few_seeds_are_covered_at_the_stated_rate() {
        // Questions are of different difficulty, and a seed shifts all of them: by less than they differ, and by more.
        const DRAWS: usize = 400;
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        for shift in [0.02, 0.2] {
            for k in [2, 3, 5] {
                let covered = (0..DRAWS).filter(|_| {
                    let difficulty: Vec<f64> = (0..150).map(|_| rng.random_range(0.3..0.9)).collect();
                    let of_seeds: Vec<Vec<f64>> = (0..k)
                        .map(|_| {
                            let by = rng.random_range(-shift..shift);
                            difficulty.iter().map(|p| f64::from(u8::from(rng.random::<f64>() < p + by))).collect()
                        })
                        .collect();
                    let means: Vec<f64> = of_seeds.iter().map(|of_seed| mean(of_seed)).collect();
                    let of_question = |q: usize| of_seeds.iter().map(|of_seed| of_seed[q]).sum::<f64>() / f64::from(k);
                    let over_questions = Interval::of_mean(&(0..150).map(of_question).collect::<Vec<_>>());
                    Interval::over_seeds(&means, over_questions).is_some_and(|interval| interval.contains(0.6))
                });
                let coverage = covered.count() as f64 / DRAWS as f64;
                assert!(coverage >= 0.95 - 0.033, "{k} seeds, shift {shift}: {coverage}");
            }
        }
    }

    #[test]
    fn few_seeds_have_wide_intervals_and_one_has_none() {
        let questions = Interval { low: 0.4, high: 0.7 };
        assert_eq!(Interval::over_seeds(&[0.5], questions), None);
        assert_eq!(Interval::over_seeds(&[], questions), None);
        // Seeds that agree leave the interval over questions.
        let same = Interval::over_seeds(&[0.5; 3], questions).unwrap();
        close(same.low, 0.4);
        close(same.high, 0.7);
        // Questions without a width leave Student's: 0.1·4.302653/√3 around the mean.
        let exact = Interval::over_seeds(&[0.4, 0.5, 0.6], Interval { low: 0.5, high: 0.5 }).unwrap();
        close(exact.high - 0.5, 0.1 * 4.302_653 / 3f64.sqrt());
        let both = Interval::over_seeds(&[0.4, 0.5, 0.6], questions).unwrap();
        close(both.low, 0.5 - (0.1 * 4.302_653 / 3f64.sqrt()).hypot(0.1));
        assert!(Interval::over_seeds(&[0.0; 100], questions).is_some());
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
