//! Labelled reference lines, such as a threshold or a crossing.

use serde::Serialize;

use crate::error::Result;
use crate::estimate::check_number;

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

    pub(crate) fn check(&self, field: &'static str) -> Result<()> {
        check_number(field, self.at, || format!("mark `{}`", self.label))
    }
}
