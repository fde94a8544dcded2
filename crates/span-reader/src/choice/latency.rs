//! How long one question takes under each plan.
//!
//! ```text
//! latency(plan) = median over the questions of the time from tokens to answer
//! ```
//!
//! The plans take turns on each question, so that a machine that slows down slows all of them.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::model::SwitchableModel;
use switchable_model::site_plan::SitePlan;

use crate::error::{Error, Result};
use crate::evaluation::evaluate::Evaluator;
use crate::evaluation::options::EvaluateOptions;
use crate::evaluation::reader::Reader;
use crate::running::workers::Workers;

/// How times are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LatencyOptions {
    /// A name that tells the device from others on which the front may be used.
    pub device: String,
    /// Questions that are timed, the first of the set (16).
    pub questions: usize,
}

impl LatencyOptions {
    /// 16 questions on a device.
    pub fn new(device: impl Into<String>) -> Self {
        Self { device: device.into(), questions: 16 }
    }
}

/// Where and on how many questions times were measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyConditions {
    /// The name of the device.
    pub device: String,
    /// Number of questions.
    pub questions: usize,
}

/// Median time of a question under each plan, in milliseconds.
pub(super) fn median_milliseconds<B: QuantBackend, M: SwitchableModel<B>>(
    evaluator: &Evaluator<'_, B, M>,
    plans: &[SitePlan],
    options: &LatencyOptions,
) -> Result<(LatencyConditions, Vec<f64>)> {
    if options.questions == 0 {
        return Err(Error::option("questions", 0, "at least one question"));
    }
    let task = evaluator.task().spans("the choice of plans at run time")?;
    let questions = options.questions.min(task.dataset.len());
    let alone = EvaluateOptions { workers: Workers::default(), ..evaluator.options().clone() };
    let reader = Reader { model: evaluator.model(), options: &alone };
    let pad = task.special.pad;
    let mut times = vec![Vec::with_capacity(questions); plans.len()];
    for question in 0..questions {
        let features = task.features.select(&[question]);
        for (plan, times) in plans.iter().zip(&mut times) {
            if question == 0 {
                // The first pass of a plan may quantise weights or compile kernels.
                reader.read(&features, pad, plan)?;
            }
            let start = Instant::now();
            reader.read(&features, pad, plan)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    let conditions = LatencyConditions { device: options.device.clone(), questions };
    Ok((conditions, times.into_iter().map(median).collect()))
}

/// The value in the middle, or the mean of the two there.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    if values.len() % 2 == 1 { values[half] } else { f64::midpoint(values[half - 1], values[half]) }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn a_median_stands_in_the_middle() {
        assert!((median(vec![9.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![9.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }
}
