//! Figures of questions that are not independent, because they are about the same paragraph.
//!
//! ```text
//! sum of a cluster  Sₖ = Σ v over the nₖ values of cluster k, K clusters, n values, mean v̄
//! between           K/(K − 1) · Σₖ (Sₖ − nₖ·v̄)²
//! apart             Σᵢ |vᵢ| − n·v̄²                       the same were every value a cluster of its own
//! ñ                 Σₖ nₖ² / n                            values that share a cluster, as a value sees it
//! design effect     max(1, (between + ñ²) / (apart + ñ))
//! difference        v̄ + t/z·√(K/(K − 1)) · (the 2.5 % and 97.5 % quantiles of Σ S / Σ n over resamples of K clusters − v̄),
//!                   and never narrower than the support of n / effect independent values in [−1, 1]
//! ```
//!
//! `t` is Student's quantile for `K − 1` degrees of freedom, `z` that of the normal distribution: resampled, few clusters
//! vary less than new ones would. The design effect adds one cluster whose values are all ±1, since few differences say
//! little of how clusters agree: with no difference at all, a cluster counts as a single value.
//!
//! Sources: Field and Welsh, *Bootstrapping clustered data*, Journal of the Royal Statistical Society B 2007; Kish, *Survey
//! Sampling*, 1965; Korn and Graubard, *Confidence intervals for proportions with small expected number of positive counts
//! estimated from survey data*, Survey Methodology 1998.

use std::collections::HashMap;
use std::hash::Hash;

use super::{Interval, PairedComparison, T, Z, mean, resampled, student};

/// Values in [−1, 1] and which of them belong together.
///
/// ```
/// use span_reader::statistics::clusters::Clusters;
///
/// // Forty questions about ten paragraphs: those of a paragraph are lost together, or not at all.
/// let losses: Vec<f64> = (0..40).map(|question| f64::from(u8::from(question < 8))).collect();
/// let paragraphs: Vec<usize> = (0..40).map(|question| question / 4).collect();
/// let together = Clusters::new(&losses, &paragraphs);
/// assert_eq!(together.len(), 10);
/// assert!(together.design_effect() > 3.0);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// Each with the sum and the number of its values, in the order in which they come first.
    groups: Vec<Group>,
    mean: f64,
    /// `Σ |v|`.
    sizes: f64,
    values: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Group {
    sum: f64,
    size: f64,
}

impl Clusters {
    /// From values and the cluster of each.
    ///
    /// # Panics
    ///
    /// When the two are not of the same length.
    pub fn new<K: Hash + Eq>(values: &[f64], clusters: &[K]) -> Self {
        assert_eq!(values.len(), clusters.len(), "each value has a cluster");
        let mut position: HashMap<&K, usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for (&value, cluster) in values.iter().zip(clusters) {
            let next = groups.len();
            let index = *position.entry(cluster).or_insert(next);
            if index == next {
                groups.push(Group::default());
            }
            groups[index].sum += value;
            groups[index].size += 1.0;
        }
        let sizes = values.iter().map(|value| value.abs()).sum();
        Self { groups, mean: mean(values), sizes, values: values.len() as f64 }
    }

    /// Number of clusters.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Mean of the values; 0 where there is none.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Mean size of the values, `Σ |v| / n`; 0 where there is none.
    pub fn mean_size(&self) -> f64 {
        if self.values > 0.0 { self.sizes / self.values } else { 0.0 }
    }

    /// How many times as many values say as much as independent ones would; 1 for fewer than two clusters, which say
    /// nothing of how they differ.
    pub fn design_effect(&self) -> f64 {
        let (n, k) = (self.values, self.groups.len() as f64);
        if self.groups.len() < 2 {
            return 1.0;
        }
        let squares: f64 = self.groups.iter().map(|Group { sum, size }| (sum - size * self.mean).powi(2)).sum();
        let between = k / (k - 1.0) * squares;
        let apart = self.sizes - n * self.mean * self.mean;
        let shared = self.groups.iter().map(|Group { size, .. }| size * size).sum::<f64>() / n;
        ((between + shared * shared) / (apart + shared)).max(1.0)
    }

    /// 95 % interval of the mean of values in [−1, 1], by the bootstrap of whole clusters with a seed; everything for fewer than
    /// two clusters.
    pub fn interval(&self, seed: u64) -> Interval {
        let k = self.groups.len();
        if k < 2 {
            return Interval { low: -1.0, high: 1.0 };
        }
        let drawn = resampled(k, seed, |clusters| {
            let (mut sum, mut size) = (0.0, 0.0);
            for cluster in clusters {
                (sum, size) = (sum + self.groups[cluster].sum, size + self.groups[cluster].size);
            }
            sum / size
        });
        let quantile = T.get(k - 2).copied().unwrap_or_else(|| student(Z, (k - 1) as f64));
        let wider = quantile / Z * (k as f64 / (k - 1) as f64).sqrt();
        let from_mean = |end: f64| (self.mean + wider * (end - self.mean)).clamp(-1.0, 1.0);
        let widened = Interval { low: from_mean(drawn.low), high: from_mean(drawn.high) };
        widened.hull(Interval::support(self.mean, self.values / self.design_effect()))
    }
}

impl PairedComparison {
    /// Compares exact-match scores question by question, and says which questions are about the same paragraph.
    ///
    /// # Panics
    ///
    /// When the three are not of the same length.
    pub fn over_paragraphs<P: Hash + Eq>(first: &[f64], second: &[f64], paragraphs: &[P], seed: u64) -> Self {
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| b - a).collect();
        let of_paragraphs = Clusters::new(&differences, paragraphs).interval(seed);
        Self { over_paragraphs: Some(of_paragraphs), ..Self::new(first, second, seed) }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Questions lost and won at a rate, about paragraphs of which some agree.
    struct Population {
        paragraphs: usize,
        largest: usize,
        agreement: f64,
        lost: f64,
        won: f64,
    }

    impl Population {
        fn draw(&self, rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<usize>) {
            let (mut values, mut of) = (Vec::new(), Vec::new());
            let answer = |rng: &mut ChaCha8Rng| match rng.random::<f64>() {
                drawn if drawn < self.lost => -1.0,
                drawn if drawn < self.lost + self.won => 1.0,
                _ => 0.0,
            };
            for paragraph in 0..self.paragraphs {
                let shared = answer(rng);
                for _ in 0..rng.random_range(1..=self.largest) {
                    let own = answer(rng);
                    values.push(if rng.random_bool(self.agreement) { shared } else { own });
                    of.push(paragraph);
                }
            }
            (values, of)
        }

        /// Shares of the draws whose interval holds the truth: over clusters, and over values.
        fn coverage(&self, draws: u64, seed: u64) -> [f64; 2] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let (truth, mut covered) = (self.won - self.lost, [0.0; 2]);
            for seed in 0..draws {
                let (values, of) = self.draw(&mut rng);
                let intervals = [Clusters::new(&values, &of).interval(seed), Interval::of_difference(&values, seed)];
                for (covered, interval) in covered.iter_mut().zip(intervals) {
                    *covered += f64::from(u8::from(interval.contains(truth))) / draws as f64;
                }
            }
            covered
        }
    }

    #[test]
    fn intervals_cover_as_often_as_promised_where_paragraphs_agree() {
        const DRAWS: u64 = 300;
        for paragraphs in [8, 12, 40] {
            for agreement in [0.0, 0.4, 1.0] {
                for [lost, won] in [[0.15, 0.05], [0.02, 0.0]] {
                    let population = Population { paragraphs, largest: 8, agreement, lost, won };
                    let [of_clusters, _] = population.coverage(DRAWS, 3);
                    let error = 3.0 * (0.95 * 0.05 / DRAWS as f64).sqrt();
                    let case = format!("{paragraphs} paragraphs, agreement {agreement}, {lost} lost, {won} won");
                    assert!(of_clusters >= 0.95 - error, "{case}: {of_clusters}");
                }
            }
        }
    }

    #[test]
    fn questions_taken_as_independent_are_covered_too_rarely() {
        let population = Population { paragraphs: 40, largest: 8, agreement: 1.0, lost: 0.15, won: 0.05 };
        let [of_clusters, of_values] = population.coverage(200, 4);
        assert!(of_values < 0.75 && of_clusters > 0.9, "{of_clusters} {of_values}");
    }

    #[test]
    fn values_apart_have_about_the_interval_of_values() {
        let values: Vec<f64> = (0..600).map(|i| if i % 10 == 0 { -1.0 } else { 0.0 }).collect();
        let apart: Vec<usize> = (0..600).collect();
        let [of_clusters, of_values] =
            [Clusters::new(&values, &apart).interval(1), Interval::of_difference(&values, 1)];
        assert!((of_clusters.low - of_values.low).abs() < 0.004, "{of_clusters:?} {of_values:?}");
        assert!((of_clusters.high - of_values.high).abs() < 0.004, "{of_clusters:?} {of_values:?}");
    }

    #[test]
    fn two_configurations_are_compared_over_their_paragraphs_too() {
        let (first, second) = ([1.0; 40], [[0.0; 8].as_slice(), &[1.0; 32]].concat());
        let paragraphs: Vec<usize> = (0..40).map(|question| question / 4).collect();
        let compared = PairedComparison::over_paragraphs(&first, &second, &paragraphs, 1);
        let losses: Vec<f64> = second.iter().map(|score| score - 1.0).collect();
        assert_eq!(compared.over_paragraphs, Some(Clusters::new(&losses, &paragraphs).interval(1)));
        // Two of ten paragraphs are less certain than eight of forty questions.
        let [together, apart] = [compared.over_paragraphs.unwrap(), compared.interval];
        assert!(together.low < apart.low && together.high > apart.high, "{compared:?}");
        assert_eq!(PairedComparison { over_paragraphs: None, ..compared }, PairedComparison::new(&first, &second, 1));
    }

    #[test]
    fn too_few_clusters_say_nothing_and_equal_ones_leave_open_what_their_number_does() {
        let everything = Interval { low: -1.0, high: 1.0 };
        assert_eq!(Clusters::new::<u8>(&[], &[]).interval(1), everything);
        assert_eq!(Clusters::new(&[0.0, 0.0], &[1, 1]).interval(1), everything);
        // With no difference a cluster counts as a value.
        let paragraphs: Vec<usize> = (0..600).map(|i| i / 6).collect();
        let none = Clusters::new(&[0.0; 600], &paragraphs).interval(1);
        assert_eq!(none, Interval::of_difference(&[0.0; 100], 1));
    }

    #[test]
    fn clusters_need_not_stand_together_and_their_names_do_not_matter() {
        let (values, near) = ([1.0, 1.0, 0.0, 0.0, -1.0, -1.0], ["a", "a", "b", "b", "c", "c"]);
        let (mixed, far) = ([1.0, 0.0, -1.0, 1.0, 0.0, -1.0], [7, 8, 9, 7, 8, 9]);
        assert_eq!(Clusters::new(&values, &near).interval(2), Clusters::new(&mixed, &far).interval(2));
    }
}
