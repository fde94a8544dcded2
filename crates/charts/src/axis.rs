//! Axes: label, unit, scale, range and ticks.
//!
//! ```text
//! linear:  share(v) = (v − low) / (high − low)
//! log₂:    share(v) = (log₂ v − log₂ low) / (log₂ high − log₂ low)
//! ticks:   k·s,  s = the smallest of {1, 2, 5}·10ⁿ that gives no more ticks than there is room for
//! ```

use serde::Serialize;

use super::numbers;
use crate::error::{Error, Result};
use crate::estimate::check_number;

/// How values become positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub enum Scale {
    /// Equal differences are equally far apart.
    #[default]
    Linear,
    /// Equal ratios are equally far apart; every value is above zero.
    Log2,
}

/// What an axis shows. Its range holds all of the data.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Axis {
    /// What is measured.
    pub label: String,
    /// In what unit; nothing where empty.
    pub unit: String,
    /// How values become positions.
    pub scale: Scale,
    /// Values that the range must hold beside the data, such as 0 and 100.
    pub includes: Vec<f64>,
    /// Where labels stand; chosen from the range where empty.
    pub ticks: Vec<f64>,
}

/// How far a range goes beyond the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Padding {
    /// A little, except where an end was asked for.
    AroundData,
    Exact,
}

/// Share of the range that is free at an end.
const PADDING: f64 = 0.04;
const MOST_GIVEN_TICKS: usize = 100;
/// Smallest number on a logarithmic axis, and smallest width of a range.
const SMALLEST: f64 = 1e-30;

impl Axis {
    /// A linear axis over the data.
    pub fn new(label: impl Into<String>, unit: impl Into<String>) -> Self {
        Self { label: label.into(), unit: unit.into(), ..Self::default() }
    }

    /// The same with an equal distance for equal ratios.
    pub fn log2(self) -> Self {
        Self { scale: Scale::Log2, ..self }
    }

    /// The same with values that the range must hold.
    pub fn including(self, values: impl Into<Vec<f64>>) -> Self {
        Self { includes: values.into(), ..self }
    }

    /// The same with labels at these values.
    pub fn with_ticks(self, ticks: impl Into<Vec<f64>>) -> Self {
        Self { ticks: ticks.into(), ..self }
    }

    pub(crate) fn caption(&self) -> String {
        if self.unit.is_empty() { self.label.clone() } else { format!("{} ({})", self.label, self.unit) }
    }

    pub(crate) fn require_linear(&self, field: &'static str) -> Result<()> {
        match self.scale {
            Scale::Linear => Ok(()),
            Scale::Log2 => Err(Error::field(field, "log2", "a linear scale")),
        }
    }

    /// The range that holds the values, with about `room` labels at most.
    pub(crate) fn resolve(
        &self,
        field: &'static str,
        values: impl Iterator<Item = f64>,
        (padding, room): (Padding, usize),
    ) -> Result<ResolvedAxis> {
        if self.ticks.len() > MOST_GIVEN_TICKS {
            return Err(Error::field(field, format!("{} ticks", self.ticks.len()), "100 at most"));
        }
        let asked = || self.includes.iter().chain(&self.ticks).copied();
        for value in asked() {
            check_number(field, value, || "a tick or included value".to_owned())?;
        }
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.chain(asked()) {
            low = low.min(value);
            high = high.max(value);
        }
        if self.scale == Scale::Log2 && low < SMALLEST {
            return Err(Error::field(field, low, format!("values of {SMALLEST:e} or more on a log2 axis")));
        }
        let is_asked = |end: f64| padding == Padding::Exact || self.includes.contains(&end);
        let (fixed_low, fixed_high) = (is_asked(low), is_asked(high));
        let mut range = ResolvedAxis { scale: self.scale, low, high, ticks: Vec::new() };
        range.stretch(fixed_low, fixed_high);
        range.ticks = if self.ticks.is_empty() {
            range.chosen_ticks(room)
        } else {
            self.ticks.iter().copied().zip(numbers::labels(&self.ticks)).collect()
        };
        Ok(range)
    }
}

/// A range that is not empty, and where its labels stand.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResolvedAxis {
    scale: Scale,
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) ticks: Vec<(f64, String)>,
}

impl ResolvedAxis {
    /// Position of a value between the ends of the range, 0 to 1.
    pub(crate) fn share(&self, value: f64) -> f64 {
        let at = |v: f64| match self.scale {
            Scale::Linear => v,
            Scale::Log2 => v.log2(),
        };
        (at(value) - at(self.low)) / (at(self.high) - at(self.low))
    }

    fn stretch(&mut self, fixed_low: bool, fixed_high: bool) {
        // Below this width neighbouring positions would be the same number.
        let least = (self.low.abs().max(self.high.abs()) * 1e-9).max(SMALLEST);
        match self.scale {
            Scale::Linear if self.high - self.low <= least => {
                let half = (self.low.abs() * 0.05).max(0.5);
                (self.low, self.high) = (self.low - half, self.high + half);
            }
            Scale::Log2 if self.high - self.low <= least => {
                (self.low, self.high) = (self.low / 2.0, self.high * 2.0);
            }
            Scale::Linear => {
                let pad = (self.high - self.low) * PADDING;
                self.low -= if fixed_low { 0.0 } else { pad };
                self.high += if fixed_high { 0.0 } else { pad };
            }
            Scale::Log2 => {
                let pad = (self.high / self.low).powf(PADDING);
                self.low /= if fixed_low { 1.0 } else { pad };
                self.high *= if fixed_high { 1.0 } else { pad };
            }
        }
    }

    fn chosen_ticks(&self, room: usize) -> Vec<(f64, String)> {
        if self.scale == Scale::Log2 {
            let (first, last) = (self.low.log2().ceil() as i32, self.high.log2().floor() as i32);
            if last - first >= 2 {
                let step = (last - first) as usize / room + 1;
                let exponents: Vec<i32> = (first..=last).step_by(step).collect();
                let values = exponents.iter().map(|&e| 2_f64.powi(e));
                return values.zip(numbers::powers_of_two(&exponents)).collect();
            }
        }
        let step = tick_step(self.high - self.low, room);
        let (first, last) = ((self.low / step - 1e-9).ceil(), (self.high / step + 1e-9).floor());
        let values: Vec<f64> = (0..=(last - first) as usize).map(|k| (first + k as f64) * step).collect();
        let labels = numbers::labels(&values);
        values.into_iter().zip(labels).collect()
    }
}

fn tick_step(width: f64, room: usize) -> f64 {
    let least = width / room as f64;
    let decade = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|m| m * decade).find(|&step| step >= least).unwrap_or(10.0 * decade)
}
