//! The distribution of the answer over all windows of a question.
//!
//! ```text
//! p(w, i, j) = exp((start_w[i] + end_w[j]) / T) / Σ_v (Σᵢ exp(start_v[i] / T)) · (Σⱼ exp(end_v[j] / T))
//! confidence = Σ p over the windows that show the answer
//! ```
//!
//! Windows `v`, `w`; positions `i`, `j` of their contexts; temperature `T`. With one window and T = 1
//! the confidence is the product of the two softmaxes, which
//! [`Decoded::probability`](squad_data::Decoded::probability) is. Candidates of all windows compete by
//! score, so the probabilities run over all of them too.

use squad_data::{NullRule, SpanFeatures, TokenSpan};

use super::temperature::Temperature;
use crate::error::{Error, Result};
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reader::ReadQuestion;

/// Refuses questions that may be answered with nothing.
pub(super) fn refuse_no_answer(options: &EvaluateOptions) -> Result<()> {
    let null = options.decode.null;
    if null == NullRule::Never {
        return Ok(());
    }
    Err(Error::option("decode.null", format!("{null:?}"), "never, as the confidence is that of a span"))
}

/// Scores of the ends of spans in all windows of one question, and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct SpanScores {
    /// Start and end scores of the context's tokens.
    windows: Vec<[Vec<f32>; 2]>,
    answer: Vec<ShownSpan>,
}

/// A span in a window, counted from its first token of the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ShownSpan {
    window: usize,
    start: usize,
    end: usize,
}

impl SpanScores {
    /// Scores of an example that was read.
    pub(super) fn new(features: &SpanFeatures, example: usize, read: &ReadQuestion) -> Self {
        // A span of one token is always admitted, so there is a best one.
        let best = &read.decoded.n_best[0];
        Self::of_span(features, example, &read.rows, (best.window, best.tokens))
    }

    /// Scores of the windows of an example, whole rows from the model; the answer is a span of one of
    /// the windows, counted over all windows of the features.
    fn of_span(
        features: &SpanFeatures,
        example: usize,
        rows: &[[Vec<f32>; 2]],
        (window, tokens): (usize, TokenSpan),
    ) -> Self {
        let windows = features.windows_of(example);
        let chars = features.windows()[window].chars(tokens);
        let mut shown = Vec::new();
        for (index, window) in windows.iter().enumerate() {
            let offsets = window.offsets();
            let start = offsets.iter().position(|token| chars.is_some_and(|chars| token.start == chars.start));
            let end = offsets.iter().rposition(|token| chars.is_some_and(|chars| token.end == chars.end));
            if let (Some(start), Some(end)) = (start, end) {
                shown.push(ShownSpan { window: index, start, end });
            }
        }
        let context = |(window, row): (&squad_data::Window, &[Vec<f32>; 2])| {
            row.each_ref().map(|scores| scores[window.context_start..window.ids.len()].to_vec())
        };
        Self { windows: windows.iter().zip(rows).map(context).collect(), answer: shown }
    }

    /// Probability of the answer, 0 to 1.
    pub fn confidence(&self, temperature: Temperature) -> f64 {
        self.log_probability(&self.answer, temperature).exp().min(1.0)
    }

    fn log_probability(&self, places: &[ShownSpan], temperature: Temperature) -> f64 {
        let inverse = temperature.get().recip();
        let scaled = |score: &f32| f64::from(*score) * inverse;
        let total = self.windows.iter().map(|ends| ends.iter().map(|end| log_sum_exp(end.iter().map(scaled))).sum());
        let shown = places.iter().map(|place| {
            let [start, end] = &self.windows[place.window];
            scaled(&start[place.start]) + scaled(&end[place.end])
        });
        log_sum_exp(shown) - log_sum_exp(total.collect::<Vec<f64>>().into_iter())
    }

    /// One window; the answer is a single token.
    #[cfg(test)]
    pub(super) fn of_one_window(start: &[f32], end: &[f32], answer: usize) -> Self {
        let answer = vec![ShownSpan { window: 0, start: answer, end: answer }];
        Self { windows: vec![[start.to_vec(), end.to_vec()]], answer }
    }
}

fn log_sum_exp(terms: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = terms.clone().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + terms.map(|term| (term - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(temperature: f64) -> Temperature {
        Temperature::new(temperature).unwrap()
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() < 1e-7, "{got} is not {expected}");
    }

    #[test]
    fn one_window_gives_the_product_of_two_softmaxes() {
        // Starts 3 : 1, ends 1 : 1.
        let scores = SpanScores::of_one_window(&[3f32.ln(), 0.0], &[5.0, 5.0], 0);
        close(scores.confidence(Temperature::ONE), 0.75 * 0.5);
        // At half the temperature 9 : 1.
        close(scores.confidence(at(0.5)), 0.9 * 0.5);
    }

    #[test]
    fn windows_share_one_distribution_and_a_place_in_two_counts_twice() {
        let window = |first: f32| [vec![first, 0.0], vec![0.0]];
        let places = [0, 1].map(|window| ShownSpan { window, start: 0, end: 0 });
        let mut scores =
            SpanScores { windows: vec![window(3f32.ln()), window(2f32.ln())], answer: places[..1].to_vec() };
        // Totals 4 and 3.
        close(scores.confidence(Temperature::ONE), 3.0 / 7.0);
        scores.answer = places.to_vec();
        close(scores.confidence(Temperature::ONE), 5.0 / 7.0);
    }

    #[test]
    fn probabilities_do_not_depend_on_the_level_of_the_scores() {
        let low = SpanScores::of_one_window(&[1.0, 2.0], &[0.0, 3.0], 1);
        let high = SpanScores::of_one_window(&[4001.0, 4002.0], &[-4000.0, -3997.0], 1);
        close(low.confidence(at(0.7)), high.confidence(at(0.7)));
        let masked = SpanScores::of_one_window(&[f32::NEG_INFINITY, 2.0], &[0.0, 0.0], 1);
        close(masked.confidence(at(3.0)), 0.5);
    }
}
