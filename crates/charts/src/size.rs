//! How large a picture is, and the page that it shows.

use serde::Serialize;

use crate::error::{Error, Result};

/// Units from the left to the right edge of every figure.
pub(crate) const PAGE_WIDTH: f64 = 1600.0;

/// Size of a picture in pixels.
///
/// Text is 28 pixels high at 1600 pixels of width and in proportion at others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Size {
    /// Pixels from left to right, 400 to 3200.
    pub width: u32,
    /// Pixels from top to bottom, a third of the width to three times the width.
    pub height: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self { width: 1600, height: 1000 }
    }
}

impl Size {
    pub(crate) fn check(self) -> Result<()> {
        if !(400..=3200).contains(&self.width) {
            return Err(Error::field("size.width", self.width, "400 to 3200 pixels"));
        }
        let (least, most) = (self.width.div_ceil(3), self.width * 3);
        if !(least..=most).contains(&self.height) {
            return Err(Error::field("size.height", self.height, format!("{least} to {most} pixels")));
        }
        Ok(())
    }

    /// Pixels of one unit of the page.
    pub(crate) fn pixels_per_unit(self) -> f64 {
        f64::from(self.width) / PAGE_WIDTH
    }
}
