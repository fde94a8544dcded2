//! What a search down a ladder found.

use serde::{Deserialize, Serialize};

use quant_kernels::spec::bit_width::BitWidth;
use span_reader::evaluation::accuracy::Accuracy;
use span_reader::evaluation::floor::Bounds;
use span_reader::evaluation::work::Work;

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LadderStep {
    /// The site.
    pub site: String,
    /// Its width before.
    pub from: BitWidth,
    /// Its width after.
    pub to: BitWidth,
    /// Accuracy with this and all earlier accepted steps; `None` for a step that was undone before every question
    /// was read.
    pub accuracy: Option<Accuracy>,
    /// What is certain of its exact match.
    pub exact_match: Bounds,
    /// Mean width of the weights in bits, weighted by parameters.
    pub average_bits: f64,
    /// Bytes of all that the sites take, and the embeddings where the search lowers these.
    pub bytes: usize,
    /// Whether the step was kept.
    pub accepted: bool,
    /// Plans evaluated to find it, its own among them.
    pub evaluations: usize,
}

/// Result of the search.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LadderResult {
    /// Accuracy of the reference.
    pub reference: Accuracy,
    /// Exact match in percent that a plan must stay above; `None` for a search by size.
    pub threshold: Option<f64>,
    /// Every step tried, in order.
    pub path: Vec<LadderStep>,
    /// Accuracy of the final plan.
    pub accuracy: Accuracy,
    /// Plans evaluated.
    pub evaluations: usize,
    /// Work of the search.
    pub work: Work,
}
