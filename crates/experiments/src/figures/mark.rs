//! Labelled reference lines, such as a threshold or a crossing.

use serde::Serialize;

use super::estimate::check_number;
use crate::Result;

/// A dashed line across the plot, labelled at its edge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mark {
    /// Where it stands on its axis.
    pub at: f64,
    /// What it means.
    pub label: String,
}

impl Mark {
    /// A line at a value.
    pub fn new(at: f64, label: impl Into<String>) -> Self {
        Self { at, label: label.into() }
    }

    pub(super) fn check(&self, field: &'static str) -> Result<()> {
        check_number(field, self.at, || format!("mark `{}`", self.label))
    }
}
