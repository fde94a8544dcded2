//! The names of files and tensors that model folders of every family have in common.

/// The output matrix.
pub(crate) const OUTPUT_MATRIX: &str = "lm_head.weight";

/// The weight of the span head.
pub(crate) const SPAN_HEAD: &str = "qa_outputs.weight";

/// The file of packed weights.
pub(crate) const PACKED_FILE: &str = "packed.safetensors";
