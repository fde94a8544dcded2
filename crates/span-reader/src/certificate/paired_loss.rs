//! How much less one model gets right than another on the same questions, and at most.
//!
//! ```text
//! lᵢ        = score of the original − score of the artefact at question i, in [−1, 1];  l̄ its mean over n
//! effect    = design effect of the K paragraphs         (`statistics::clusters`)
//! n*        = ⌊ n / effect · (z / t)² ⌋                  z, t: quantiles of normal and of Student with K − 1
//! bound     = Δ⁺ of n* questions with ⌈n*·mean |l|⌉ discordant and ⌈n*·l̄⌉ lost        (`trinomial_bound`)
//! interval  = [−bound of l, bound of −l], each at 2.5 %                                of artefact − original
//! ```
//!
//! Questions of one paragraph are not independent: what is read wrongly once may be so for each of them. Where there
//! are ten paragraphs or more the bound counts how much they agree, as so many fewer questions (Kish, *Survey
//! Sampling*, 1965; Korn and Graubard, *Confidence intervals for proportions with small expected number of positive
//! counts estimated from survey data*, Survey Methodology 1998). Few differences say little of that, so one more
//! paragraph is added whose questions were all lost: with no difference at all, every paragraph counts as a single
//! question. With fewer paragraphs the questions are taken as independent, and `taken` says so.
//!
//! Where scores are partial, as F1 is, `Σ|l|` stands for the number of discordant questions. That is a question
//! lost or won whole with the probability of what was lost or won of it: of the same mean, and of no smaller
//! variance.

use serde::{Deserialize, Serialize};

use crate::certificate::text_hash::TextHash;
use crate::certificate::trinomial_bound::PairCounts;
use crate::statistics::clusters::Clusters;
use crate::statistics::{Interval, student};

/// Paragraphs from which on they are what is sampled.
const PARAGRAPHS: usize = 10;

/// An error probability, with its quantile of the normal distribution.
#[derive(Debug, Clone, Copy)]
struct Level {
    alpha: f64,
    z: f64,
}

const ONE_SIDED: Level = Level { alpha: 0.05, z: 1.644_853_626_951_472_2 };
/// On each side.
const TWO_SIDED: Level = Level { alpha: 0.025, z: 1.959_963_984_540_054 };

/// A question with what was lost at it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QuestionLoss {
    /// Score of the original minus that of the artefact, −1 to 1.
    pub loss: f64,
    /// The paragraph that is asked about.
    pub paragraph: TextHash,
}

/// What is taken as independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Independent {
    /// Paragraphs, with all questions about each.
    Paragraphs,
    /// Single questions: there are fewer than ten paragraphs.
    Questions,
}

/// The difference of two models on the same questions, in percent points.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairedLoss {
    /// Artefact minus original.
    pub difference: f64,
    /// 95 % interval of the difference, two-sided.
    pub interval: Interval,
    /// Original minus artefact is at most this, one-sided with 95 %.
    pub loses_at_most: f64,
    /// What the interval and the bound take as independent.
    pub independent: Independent,
    /// Paragraphs.
    pub paragraphs: usize,
    /// How many times as many questions say as much as independent ones would.
    pub design_effect: f64,
}

impl PairedLoss {
    /// Compares two models question by question.
    ///
    /// ```
    /// use span_reader::certificate::paired_loss::{PairedLoss, QuestionLoss};
    /// use span_reader::certificate::text_hash::TextHash;
    ///
    /// // No difference at 1,000 questions, each about a paragraph of its own: not "loses nothing".
    /// let questions = (0..1000).map(|i| TextHash::of_context(&i.to_string()));
    /// let losses: Vec<_> = questions.map(|paragraph| QuestionLoss { loss: 0.0, paragraph }).collect();
    /// let loss = PairedLoss::new(&losses);
    /// assert_eq!(loss.difference, 0.0);
    /// assert!(loss.loses_at_most > 0.3 && loss.loses_at_most < 0.5);
    /// ```
    pub fn new(losses: &[QuestionLoss]) -> Self {
        let sample = Sample::new(losses);
        let bound = |level, sign| 100.0 * sample.counts(level, sign).loss_bound(level.alpha);
        // Not −0 where nothing differs.
        let difference = 0.0 - 100.0 * sample.mean;
        Self {
            difference,
            interval: Interval { low: -bound(TWO_SIDED, 1.0), high: bound(TWO_SIDED, -1.0) }.holding(difference),
            loses_at_most: bound(ONE_SIDED, 1.0).max(-difference),
            independent: sample.independent,
            paragraphs: sample.paragraphs,
            design_effect: sample.design_effect,
        }
    }
}

/// What the bound needs of the questions.
#[derive(Debug, Clone, Copy)]
struct Sample {
    questions: f64,
    mean: f64,
    mean_size: f64,
    paragraphs: usize,
    independent: Independent,
    design_effect: f64,
}

impl Sample {
    fn new(losses: &[QuestionLoss]) -> Self {
        let values: Vec<f64> = losses.iter().map(|question| question.loss).collect();
        let paragraphs: Vec<TextHash> = losses.iter().map(|question| question.paragraph).collect();
        let clusters = Clusters::new(&values, &paragraphs);
        let independent = if clusters.len() < PARAGRAPHS { Independent::Questions } else { Independent::Paragraphs };
        let design_effect = match independent {
            Independent::Questions => 1.0,
            Independent::Paragraphs => clusters.design_effect(),
        };
        let (questions, paragraphs) = (losses.len() as f64, clusters.len());
        let (mean, mean_size) = (clusters.mean(), clusters.mean_size());
        Self { questions, mean, mean_size, paragraphs, independent, design_effect }
    }

    /// The independent questions that say as much, of losses times a sign.
    fn counts(&self, level: Level, sign: f64) -> PairCounts {
        let inflation = match self.independent {
            Independent::Questions => 1.0,
            Independent::Paragraphs => (student(level.z, (self.paragraphs - 1) as f64) / level.z).powi(2),
        };
        let n = (self.questions / self.design_effect / inflation).floor();
        // A product that is whole but for rounding is.
        let up = |mean: f64| (mean * n - 1e-9).ceil();
        let discordant = (up(self.mean_size) as usize).min(n as usize);
        let most = discordant as i64;
        PairCounts { questions: n as usize, discordant, lost: (up(sign * self.mean) as i64).clamp(-most, most) }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn paragraph(number: usize) -> TextHash {
        TextHash::of_context(&number.to_string())
    }

    fn of(losses: &[f64], size: usize) -> PairedLoss {
        let question = |(i, loss): (usize, &f64)| QuestionLoss { loss: *loss, paragraph: paragraph(i / size) };
        PairedLoss::new(&losses.iter().enumerate().map(question).collect::<Vec<_>>())
    }

    #[test]
    fn the_difference_has_the_sign_of_the_artefact_and_lies_in_its_interval() {
        let mut losses = vec![0.0; 400];
        losses[..30].fill(1.0);
        losses[30..40].fill(-1.0);
        let loss = of(&losses, 1);
        assert!((loss.difference + 5.0).abs() < 1e-12);
        assert!(loss.interval.low < -5.0 && loss.interval.high > -5.0 && loss.interval.high < 0.0, "{loss:?}");
        assert!(loss.loses_at_most > 5.0 && loss.loses_at_most < -loss.interval.low, "{loss:?}");
        for loss in &mut losses {
            *loss = -*loss;
        }
        let gain = of(&losses, 1);
        assert!((gain.interval.low + loss.interval.high).abs() < 1e-9 && gain.loses_at_most < 0.0, "{gain:?}");
    }

    #[test]
    fn questions_that_go_together_say_less_than_as_many_apart() {
        let mut losses = vec![0.0; 600];
        losses[..30].fill(1.0);
        let (apart, together) = (of(&losses, 1), of(&losses, 6));
        assert!((apart.design_effect - 1.0).abs() < 0.01);
        assert!(together.design_effect > 4.0 && together.loses_at_most > apart.loses_at_most, "{together:?}");
        assert_eq!((together.independent, together.paragraphs), (Independent::Paragraphs, 100));
        // With no difference a paragraph counts as a question.
        let (none, of_paragraphs) = (of(&[0.0; 600], 6), of(&[0.0; 100], 1));
        assert!((none.design_effect - 6.0).abs() < 1e-12);
        assert!((none.loses_at_most - of_paragraphs.loses_at_most).abs() < 1e-9 && none.loses_at_most > 3.0);
        // Too few paragraphs to count how they differ.
        assert_eq!(of(&losses, 100).independent, Independent::Questions);
        assert!((PairedLoss::new(&[]).loses_at_most - 100.0).abs() < f64::EPSILON);
    }

    #[test]
    fn partial_scores_count_by_what_was_lost_of_them() {
        let mut whole = vec![0.0; 500];
        whole[..20].fill(1.0);
        let mut half = vec![0.0; 500];
        half[..40].fill(0.5);
        let (half, whole) = (of(&half, 1), of(&whole, 1));
        assert!((half.difference - whole.difference).abs() < 1e-9);
        // The same but for the rounding of counts.
        assert!((half.loses_at_most - whole.loses_at_most).abs() < 0.2, "{half:?} {whole:?}");
    }

    /// Draws in which questions of a paragraph follow it with some probability, and partial scores.
    #[test]
    fn the_true_loss_is_below_the_bound_of_paragraphs_as_often_as_promised() {
        const DRAWS: usize = 400;
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        for paragraphs in [12, 60] {
            for largest in [1, 8] {
                for agreement in [0.0, 0.3, 1.0] {
                    for (rate, share) in [(0.02, 0.6), (0.1, 1.0), (0.3, 0.7)] {
                        for part in [1.0, 0.4] {
                            let truth = 100.0 * part * rate * (2.0 * share - 1.0);
                            let mut covered = 0;
                            for _ in 0..DRAWS {
                                let mut losses = Vec::new();
                                for number in 0..paragraphs {
                                    let mut draw = || {
                                        let drawn: f64 = rng.random();
                                        part * if drawn < rate * share {
                                            1.0
                                        } else if drawn < rate {
                                            -1.0
                                        } else {
                                            0.0
                                        }
                                    };
                                    let shared = draw();
                                    let own: Vec<f64> = (0..largest).map(|_| draw()).collect();
                                    let size = rng.random_range(1..=largest);
                                    for &own in &own[..size] {
                                        let loss = if rng.random_bool(agreement) { shared } else { own };
                                        losses.push(QuestionLoss { loss, paragraph: paragraph(number) });
                                    }
                                }
                                let sample = Sample::new(&losses);
                                let bound = 100.0 * sample.counts(ONE_SIDED, 1.0).loss_bound(ONE_SIDED.alpha);
                                covered += usize::from(bound >= truth);
                            }
                            let coverage = covered as f64 / DRAWS as f64;
                            let error = 3.0 * (0.95 * 0.05 / DRAWS as f64).sqrt();
                            let case = format!("{paragraphs} of {largest}, {agreement}, {rate}, {share}, {part}");
                            assert!(coverage >= 0.95 - error, "{case}: {coverage}");
                        }
                    }
                }
            }
        }
    }
}
