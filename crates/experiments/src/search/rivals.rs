//! A plan beside one width everywhere, on questions that no search saw.
//!
//! ```text
//! as accurate   a width that loses no exact match to the plan, or none outside the noise
//! rival         a width that needs no more bytes than the plan and is as accurate
//! ```
//!
//! A plan without a rival betters every width of its size, as it is more accurate, and every width of its accuracy,
//! as it is smaller. A larger width may be more accurate than the plan all the same, which is then said.

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use span_reader::cost::{embedding_bytes, plan_bytes};
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::evaluate::Evaluator;
use span_reader::statistics::PairedComparison;
use span_reader::text::{plan_label, plan_row, points, verdict};
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::Result;

/// One width everywhere, or another plan, beside the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BesidePlan {
    /// `3 bits, without adapters`.
    pub label: String,
    /// The width in bits.
    pub bits: f64,
    /// Bytes of the sites, scales and adapters included, and of the embeddings where those of the plan are others.
    pub bytes: usize,
    /// Its accuracy.
    pub accuracy: Accuracy,
    /// Exact match of the plan minus that of the width, question by question.
    pub comparison: PairedComparison,
}

impl BesidePlan {
    /// Whether the plan is not more accurate outside the noise.
    pub fn is_as_accurate(&self) -> bool {
        self.comparison.difference <= 0.0 || self.comparison.is_noise()
    }

    /// Whether it is more accurate than the plan outside the noise.
    pub fn is_more_accurate(&self) -> bool {
        self.comparison.difference < 0.0 && !self.comparison.is_noise()
    }
}

/// A plan beside one width everywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgainstUniform {
    /// Bytes of the plan, as those of a width.
    pub bytes: usize,
    /// Mean width of the plan in bits, weighted by parameters.
    pub average_bits: f64,
    /// Accuracy of the plan.
    pub accuracy: Accuracy,
    /// The widths by their bytes, up to the first that is larger than the plan and as accurate: what is larger still
    /// is no rival.
    pub widths: Vec<BesidePlan>,
    /// Other plans.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<BesidePlan>,
}

impl AgainstUniform {
    /// Evaluates a plan and one width everywhere after another.
    ///
    /// # Errors
    ///
    /// When an adapter is missing, or the work is stopped.
    pub fn measure<B: QuantBackend, M: SwitchableModel<B>>(
        evaluator: &Evaluator<'_, B, M>,
        plan: &SitePlan,
        widths: &[SitePlan],
        seed: u64,
    ) -> Result<Self> {
        let body = &evaluator.model().transformer;
        let has_other_embeddings = widths.iter().any(|width| !width.embeddings().eq(plan.embeddings()));
        let of_embeddings = |plan: &SitePlan| if has_other_embeddings { embedding_bytes(body, plan) } else { 0 };
        let bytes_of = |plan: &SitePlan| plan_bytes(body, plan) + of_embeddings(plan);
        let mut by_bytes: Vec<(usize, &SitePlan)> = widths.iter().map(|width| (bytes_of(width), width)).collect();
        by_bytes.sort_by_key(|(bytes, _)| *bytes);
        let (accuracy, average_bits) = (evaluator.evaluate(plan)?, plan.average_weight_bits());
        let mut against =
            Self { bytes: bytes_of(plan), average_bits, accuracy, widths: Vec::new(), others: Vec::new() };
        for (bytes, width) in by_bytes {
            let found = evaluator.evaluate(width)?;
            let comparison = found.compare(&against.accuracy, seed);
            let width = BesidePlan {
                label: plan_label(width),
                bits: width.average_weight_bits(),
                bytes,
                accuracy: found,
                comparison,
            };
            let is_last = bytes > against.bytes && width.is_as_accurate();
            against.widths.push(width);
            if is_last {
                break;
            }
        }
        Ok(against)
    }

    /// Sets another plan beside it.
    ///
    /// # Errors
    ///
    /// When an adapter is missing, or the work is stopped.
    pub fn add<B: QuantBackend, M: SwitchableModel<B>>(
        &mut self,
        evaluator: &Evaluator<'_, B, M>,
        (label, plan): (String, &SitePlan),
        seed: u64,
    ) -> Result<()> {
        let (accuracy, bytes) = (evaluator.evaluate(plan)?, plan_bytes(&evaluator.model().transformer, plan));
        let comparison = accuracy.compare(&self.accuracy, seed);
        self.others.push(BesidePlan { label, bits: plan.average_weight_bits(), bytes, accuracy, comparison });
        Ok(())
    }

    /// The most accurate width that needs no more bytes and is as accurate, if there is one.
    pub fn rival(&self) -> Option<&BesidePlan> {
        let smaller = self.widths.iter().filter(|width| width.bytes <= self.bytes && width.is_as_accurate());
        smaller.max_by(|a, b| a.accuracy.exact_match.total_cmp(&b.accuracy.exact_match))
    }

    /// The plan and the widths as rows, and in one line whether the plan betters them.
    pub fn text(&self) -> String {
        let row = |label: &str, (accuracy, bits, bytes): (&Accuracy, f64, usize)| {
            format!("{}  {:>7.1} KiB\n", plan_row(label, accuracy, bits), bytes as f64 / 1024.0)
        };
        let all = self.widths.iter().chain(&self.others);
        let rows = all.map(|other| row(&other.label, (&other.accuracy, other.bits, other.bytes)));
        let rows = row("plan found", (&self.accuracy, self.average_bits, self.bytes)) + &rows.collect::<String>();
        let others =
            self.others.iter().map(|other| format!("{} points over {}\n", points(&other.comparison), other.label));
        rows + &others.collect::<String>() + &self.claim()
    }

    /// One line: the best width that is less accurate and the smallest that is as accurate, with their differences.
    fn claim(&self) -> String {
        let than = |width: &BesidePlan| {
            let (by, verdict) = (points(&width.comparison), verdict(&width.comparison));
            let share = 100.0 * self.bytes as f64 / width.bytes as f64;
            format!("{by} points over {} ({verdict}) with {share:.0} % of its bytes", width.label)
        };
        if let Some(rival) = self.rival() {
            return format!("The plan does not better one width everywhere: {}.\n", than(rival));
        }
        let less_accurate = self.widths.iter().filter(|width| !width.is_as_accurate());
        let best = less_accurate.max_by(|a, b| a.accuracy.exact_match.total_cmp(&b.accuracy.exact_match));
        let as_accurate = self.widths.last().filter(|width| width.is_as_accurate());
        let said: Vec<String> = [best, as_accurate].into_iter().flatten().map(than).collect();
        let claim = match as_accurate {
            Some(larger) if larger.is_more_accurate() => {
                "The plan betters the widths of its bytes, and not those of more"
            }
            _ => "The plan betters one width everywhere",
        };
        format!("{claim}: {}.\n", said.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use squad_data::QuestionScore;

    use super::*;

    /// An accuracy of so many right answers of 100.
    fn accuracy(right: usize) -> Accuracy {
        let score = |at: usize| {
            let exact = f64::from(u8::from(at < right));
            QuestionScore { id: at.to_string(), exact, f1: exact, has_answer: true }
        };
        Accuracy::new(right as f64, right as f64, (0..100).map(score).collect(), None)
    }

    /// A plan of so many right answers and bytes beside widths of others.
    fn against((right, bytes): (usize, usize), widths: &[(usize, usize)]) -> AgainstUniform {
        let found = accuracy(right);
        let width = |&(right, bytes): &(usize, usize)| BesidePlan {
            label: format!("{bytes} bytes"),
            bits: 3.0,
            bytes,
            accuracy: accuracy(right),
            comparison: accuracy(right).compare(&found, 0),
        };
        let widths = widths.iter().map(width).collect();
        AgainstUniform { bytes, average_bits: 2.5, accuracy: found, widths, others: Vec::new() }
    }

    #[test]
    fn a_larger_width_that_is_more_accurate_is_not_said_to_be_bettered() {
        let claim = |plan, widths: &[_]| against(plan, widths).claim();
        let better = claim((90, 10), &[(40, 8), (91, 12)]);
        assert!(better.starts_with("The plan betters one width everywhere: "), "{better}");
        let between = claim((60, 10), &[(40, 8), (91, 12)]);
        assert!(between.starts_with("The plan betters the widths of its bytes, and not those of more: "), "{between}");
        assert!(between.contains("over 12 bytes (outside the noise) with 83 % of its bytes"), "{between}");
        let beaten = claim((60, 10), &[(91, 8)]);
        assert!(beaten.starts_with("The plan does not better one width everywhere: "), "{beaten}");
    }
}
