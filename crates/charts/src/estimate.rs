//! A value and how sure it is.

use serde::Serialize;

use crate::error::{Error, Result};

/// Largest magnitude that is drawn; differences of larger numbers may exceed what `f64` holds.
const LARGEST: f64 = 1e30;

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// A value with its 95 % interval where one is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// The value, finite.
    pub value: f64,
    /// Its 95 % interval.
    pub interval: Option<Interval>,
}

impl Estimate {
    /// A value with its interval.
    pub fn new(value: f64, interval: Interval) -> Self {
        Self { value, interval: Some(interval) }
    }

    pub(crate) fn check(&self, field: &'static str, place: impl Fn() -> String) -> Result<()> {
        check_number(field, self.value, &place)?;
        if let Some(Interval { low, high }) = self.interval {
            check_number(field, low, &place)?;
            check_number(field, high, &place)?;
            if low > high {
                let got = format!("the interval {low} to {high} ({})", place());
                return Err(Error::field(field, got, "an interval whose low end is not above its high end"));
            }
        }
        Ok(())
    }

    /// The value and the ends of its interval.
    pub(crate) fn extent(&self) -> impl Iterator<Item = f64> + use<> {
        let ends = self.interval.map(|i| [i.low, i.high]);
        std::iter::once(self.value).chain(ends.into_iter().flatten())
    }
}

impl From<f64> for Estimate {
    fn from(value: f64) -> Self {
        Self { value, interval: None }
    }
}

pub(crate) fn check_number(field: &'static str, value: f64, place: impl Fn() -> String) -> Result<()> {
    if value.abs() <= LARGEST {
        return Ok(());
    }
    Err(Error::field(field, format!("{value} ({})", place()), format!("a number of magnitude up to {LARGEST:e}")))
}
