//! The same precision at every site and in every block's KV cache, one after another.
//!
//! ```text
//! accuracy(b)   = EM(b) / EM(widest)
//! efficiency(b) = 1 − bytes of the sites at b bits / bytes of the sites in f32
//! crossing      = the most bits b at which accuracy(b) ≤ efficiency(b), linear between the widths
//! suggested     = the narrowest width measured that is no narrower than the crossing
//! ```
//!
//! Both curves are shares of 1, over the widths of the weights. The bytes are those of the quantised
//! matrices alone ([`Cost::sites`]), so that the curve does not depend on how much of a model stands
//! outside of them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use span_reader::cost::Cost;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::PairedComparison;
use squad_data::QuestionScore;
use switchable_lora::site_precision::SitePrecision;
use switchable_model::model::SwitchableModel;

use crate::error::Result;
use crate::running::memory::Memory;
use crate::running::progress::{EvaluationProgress, ShowProgress};

/// What a whole model runs at.
///
/// A [`SitePrecision`] alone is one with keys and values at full precision.
///
/// ```
/// use experiments::search::uniform::UniformPoint;
/// use quant_kernels::BitWidth;
/// use switchable_lora::SitePrecision;
///
/// let w4a8 = SitePrecision::FULL.with_weights(BitWidth::B4).with_activations(BitWidth::B8);
/// assert_eq!(UniformPoint::from(w4a8), UniformPoint { precision: w4a8, kv_cache: BitWidth::FULL });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UniformPoint {
    /// The precision of every site.
    pub precision: SitePrecision,
    /// The bits of every block's keys and values.
    pub kv_cache: BitWidth,
}

impl From<SitePrecision> for UniformPoint {
    fn from(precision: SitePrecision) -> Self {
        Self { precision, kv_cache: BitWidth::FULL }
    }
}

/// Accuracy and cost with every site at one precision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UniformRow {
    /// The precision of every site.
    pub precision: SitePrecision,
    /// The bits of every block's keys and values; full precision where a file has none.
    #[serde(default = "full")]
    pub kv_cache: BitWidth,
    /// Sites that run without the adapter of the precision, as they have none of its width.
    #[serde(default)]
    pub bare_sites: usize,
    /// Accuracy on the evaluator's questions.
    pub accuracy: Accuracy,
    /// Against the first row of the sweep, question by question.
    pub comparison: PairedComparison,
    /// Memory and work.
    pub cost: Cost,
}

fn full() -> BitWidth {
    BitWidth::FULL
}

impl UniformRow {
    /// Whether the row loses exact match, and more than the noise.
    pub fn is_costly(&self) -> bool {
        self.comparison.difference < 0.0 && !self.comparison.is_noise()
    }
}

/// The precisions of the study, without adapters: weights at 32, 16, 8, 6, 5, 4, 3 and 2 bits, then
/// W8A8, W4A8 and W4A4, then W8A8KV8, W4A8KV8 and W4A8KV4.
pub fn sweep_precisions() -> Vec<UniformPoint> {
    use BitWidth as Bits;
    let weights = [Bits::FULL, Bits::B16, Bits::B8, Bits::B6, Bits::B5, Bits::B4, Bits::B3, Bits::B2];
    let pairs = [(Bits::B8, Bits::B8), (Bits::B4, Bits::B8), (Bits::B4, Bits::B4)];
    let caches = [(Bits::B8, Bits::B8, Bits::B8), (Bits::B4, Bits::B8, Bits::B8), (Bits::B4, Bits::B8, Bits::B4)];
    let weights = weights.map(|weights| (weights, Bits::FULL, Bits::FULL)).into_iter();
    let pairs = pairs.map(|(weights, activations)| (weights, activations, Bits::FULL));
    let point = |(weights, activations, kv_cache)| UniformPoint {
        precision: SitePrecision::FULL.with_weights(weights).with_activations(activations),
        kv_cache,
    };
    weights.chain(pairs).chain(caches).map(point).collect()
}

/// How a sweep runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SweepOptions {
    /// Seed of the bootstraps.
    pub seed: u64,
    /// Whether progress is shown.
    pub show: ShowProgress,
    /// Rows known from before, one by one. They are made from the point.
    pub known: Memory,
}

/// A row as it is known again: the scores of its questions, which a saved [`Accuracy`] has not, beside it.
#[derive(Serialize, Deserialize)]
struct KnownAccuracy {
    accuracy: Accuracy,
    scores: Vec<QuestionScore>,
}

/// Evaluates uniform plans; the first point is what the others are compared with.
///
/// A point is a [`UniformPoint`], or a [`SitePrecision`] with keys and values at full precision.
///
/// # Errors
///
/// When an adapter is missing, a known row is of other work, or the work is stopped; where processes share the work, when
/// any row is left to another.
pub fn uniform_sweep<B: QuantBackend, M: SwitchableModel<B>, P: Into<UniformPoint> + Copy>(
    evaluator: &Evaluator<'_, B, M>,
    points: &[P],
    options: &SweepOptions,
) -> Result<Vec<UniformRow>> {
    let body = &evaluator.model().transformer;
    let plan_of = |UniformPoint { precision, kv_cache }| body.uniform_plan(precision).with_kv_cache(kv_cache);
    let points: Vec<UniformPoint> = points.iter().map(|&point| point.into()).collect();
    let progress = EvaluationProgress::start("one width everywhere", evaluator, points.len(), options.show);
    let made_from: Vec<(String, Value)> =
        points.iter().enumerate().map(|(i, point)| (format!("row-{:03}", i + 1), json!(point))).collect();
    let known = options.known.each(made_from.iter().map(|(name, point)| (name.as_str(), point)), |i| {
        let (mut accuracy, _) = progress.predict(evaluator, &plan_of(points[i]))?;
        let scores = std::mem::take(&mut accuracy.scores);
        Ok(KnownAccuracy { accuracy, scores })
    })?;
    let mut rows: Vec<UniformRow> = Vec::with_capacity(points.len());
    for (point, KnownAccuracy { mut accuracy, scores }) in points.into_iter().zip(known) {
        accuracy.scores = scores;
        let (UniformPoint { precision, kv_cache }, plan) = (point, plan_of(point));
        let comparison = rows.first().map_or(&accuracy, |first| &first.accuracy).compare(&accuracy, options.seed);
        let bare_sites = plan.iter().filter(|(_, of_site)| of_site.adapter != precision.adapter).count();
        rows.push(UniformRow { precision, kv_cache, bare_sites, accuracy, comparison, cost: Cost::of(body, &plan) });
    }
    progress.finish();
    Ok(rows)
}

/// One width on the normalised curves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Width of the weights.
    pub bits: BitWidth,
    /// Exact match over that at the widest.
    pub accuracy: f64,
    /// Share of the sites' bytes in f32 that is saved.
    pub efficiency: f64,
}

/// Where the normalised curves cross.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Crossing {
    /// Width in bits, between those measured.
    pub bits: f64,
    /// Height of both curves there.
    pub share: f64,
    /// The narrowest width measured that is no narrower.
    pub suggested: BitWidth,
}

/// The normalised curves of a sweep, widest first.
///
/// Rows with other activations or another KV cache than the widest row are left out, and of rows of
/// one width all but the first. Empty where the widest row answers nothing exactly.
pub fn normalised_curves(rows: &[UniformRow]) -> Vec<CurvePoint> {
    let mut rows: Vec<&UniformRow> = rows.iter().collect();
    // Stable: rows of one width stay in their order.
    rows.sort_by_key(|row| std::cmp::Reverse(row.precision.weights));
    let Some(&widest) = rows.first().filter(|widest| widest.accuracy.exact_match > 0.0) else { return Vec::new() };
    rows.retain(|row| row.precision.activations == widest.precision.activations && row.kv_cache == widest.kv_cache);
    rows.dedup_by_key(|row| row.precision.weights);
    let point = |row: &UniformRow| CurvePoint {
        bits: row.precision.weights,
        accuracy: row.accuracy.exact_match / widest.accuracy.exact_match,
        efficiency: row.cost.sites.saved,
    };
    rows.into_iter().map(point).collect()
}

/// The crossing of [`normalised_curves`], given widest first; the widest crossing where there are
/// several.
///
/// `None` where accuracy stays above efficiency at every width, or is below it from the start.
///
/// ```
/// use experiments::search::uniform::{CurvePoint, crossing};
/// use quant_kernels::BitWidth;
///
/// let point = |bits, accuracy, efficiency| CurvePoint { bits, accuracy, efficiency };
/// let curves = [point(BitWidth::FULL, 1.0, 0.0), point(BitWidth::B4, 0.95, 0.875), point(BitWidth::B2, 0.5, 0.9375)];
/// let crossing = crossing(&curves).expect("accuracy falls below efficiency between 4 and 2 bits");
/// // The distance falls from 0.075 to −0.4375.
/// assert!((crossing.bits - (4.0 - 2.0 * 0.075 / 0.5125)).abs() < 1e-12);
/// assert_eq!(crossing.suggested, BitWidth::B4);
/// ```
pub fn crossing(curves: &[CurvePoint]) -> Option<Crossing> {
    let distance = |point: &CurvePoint| point.accuracy - point.efficiency;
    let pair = curves.windows(2).find(|pair| distance(&pair[0]) > 0.0 && distance(&pair[1]) <= 0.0)?;
    let [wide, narrow] = [pair[0], pair[1]];
    let t = distance(&wide) / (distance(&wide) - distance(&narrow));
    let between = |from: f64, to: f64| from + t * (to - from);
    Some(Crossing {
        bits: between(f64::from(wide.bits.bits()), f64::from(narrow.bits.bits())),
        share: between(wide.accuracy, narrow.accuracy),
        suggested: if t >= 1.0 { narrow.bits } else { wide.bits },
    })
}

#[cfg(test)]
mod tests {
    use span_reader::cost::Bytes;

    use super::*;

    fn point(bits: BitWidth, accuracy: f64) -> CurvePoint {
        CurvePoint { bits, accuracy, efficiency: 1.0 - f64::from(bits.bits()) / 32.0 }
    }

    /// A row that answers so many of 100 questions exactly.
    fn row(weights: BitWidth, activations: BitWidth, right: usize) -> UniformRow {
        let score = |i: usize| {
            let exact = f64::from(u8::from(i < right));
            QuestionScore { id: i.to_string(), exact, f1: exact, has_answer: true }
        };
        let right = right as f64;
        let accuracy = Accuracy::new(right, right, (0..100).map(score).collect(), None);
        let bytes = Bytes { bytes: 0, baseline: 1, saved: 1.0 - f64::from(weights.bits()) / 32.0 };
        UniformRow {
            precision: SitePrecision::FULL.with_weights(weights).with_activations(activations),
            kv_cache: BitWidth::FULL,
            bare_sites: 0,
            comparison: accuracy.compare(&accuracy, 1),
            accuracy,
            cost: Cost {
                sites: bytes,
                embeddings: bytes,
                whole_vs_fp32: bytes,
                whole_vs_fp16: bytes,
                stored: bytes,
                adapters: 0,
                average_bits: f64::from(weights.bits()),
                bit_ops_per_token: 0.0,
                kv_cache_bytes_per_token: 0,
            },
        }
    }

    #[test]
    fn the_sweep_is_that_of_the_study() {
        let widths = |point: &UniformPoint| {
            [point.precision.weights, point.precision.activations, point.kv_cache].map(BitWidth::bits)
        };
        let points: Vec<[u8; 3]> = sweep_precisions().iter().map(widths).collect();
        let weights = [32, 16, 8, 6, 5, 4, 3, 2].map(|bits| [bits, 32, 32]);
        let pairs = [[8, 8, 32], [4, 8, 32], [4, 4, 32]];
        let caches = [[8, 8, 8], [4, 8, 8], [4, 8, 4]];
        assert_eq!(points, [&weights[..], &pairs[..], &caches[..]].concat());
    }

    #[test]
    fn a_row_without_bits_of_keys_and_values_is_read_as_one_at_full_precision() {
        let mut expected = row(BitWidth::B4, BitWidth::B8, 60);
        // Scores of single questions are not saved.
        expected.accuracy.scores.clear();
        let mut json = serde_json::to_value(&expected).unwrap();
        assert_eq!(json.as_object_mut().unwrap().remove("kv_cache"), Some(32.into()));
        assert_eq!(serde_json::from_value::<UniformRow>(json).unwrap(), expected);
    }

    #[test]
    fn curves_that_cross_at_a_measured_width_suggest_it() {
        // 8 bits save 3/4, and 3/4 of the exact match is left.
        let curves = [point(BitWidth::FULL, 1.0), point(BitWidth::B8, 0.75), point(BitWidth::B4, 0.5)];
        let found = crossing(&curves).unwrap();
        assert!((found.bits - 8.0).abs() < 1e-12 && (found.share - 0.75).abs() < 1e-12, "{found:?}");
        assert_eq!(found.suggested, BitWidth::B8);
    }

    #[test]
    fn the_widest_of_several_crossings_counts() {
        let curves =
            [point(BitWidth::FULL, 1.0), point(BitWidth::B8, 0.5), point(BitWidth::B4, 1.0), point(BitWidth::B2, 0.0)];
        let found = crossing(&curves).unwrap();
        // The distance falls from 1 at 32 bits to −1/4 at 8.
        assert!((found.bits - (32.0 - 24.0 * 0.8)).abs() < 1e-12, "{found:?}");
        assert_eq!(found.suggested, BitWidth::FULL);
    }

    #[test]
    fn curves_that_do_not_cross_have_no_crossing() {
        assert_eq!(crossing(&[]), None);
        assert_eq!(crossing(&[point(BitWidth::FULL, 1.0)]), None);
        assert_eq!(crossing(&[point(BitWidth::FULL, 1.0), point(BitWidth::B2, 0.99)]), None);
    }

    #[test]
    fn curves_are_of_the_widest_row_with_its_activations_and_cache_and_one_row_a_width() {
        let rows = [
            UniformRow { kv_cache: BitWidth::B8, ..row(BitWidth::B4, BitWidth::FULL, 10) },
            row(BitWidth::B4, BitWidth::FULL, 60),
            row(BitWidth::FULL, BitWidth::FULL, 80),
            row(BitWidth::B4, BitWidth::B4, 20),
            row(BitWidth::B4, BitWidth::FULL, 60),
            row(BitWidth::B2, BitWidth::FULL, 60),
        ];
        let expected = [point(BitWidth::FULL, 1.0), point(BitWidth::B4, 0.75), point(BitWidth::B2, 0.75)];
        assert_eq!(normalised_curves(&rows), expected);
        assert_eq!(crossing(&normalised_curves(&rows)).unwrap().suggested, BitWidth::FULL);
        assert_eq!(normalised_curves(&rows[1..2]), [CurvePoint { accuracy: 1.0, ..expected[1] }]);
        assert_eq!(normalised_curves(&[row(BitWidth::FULL, BitWidth::FULL, 0)]), []);
        assert_eq!(normalised_curves(&[]), []);
    }
}
