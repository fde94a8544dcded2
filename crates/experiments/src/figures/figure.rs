//! A picture as bytes or as a file.

use std::path::Path;

use serde::Serialize;

use super::page::PAGE_WIDTH;
use crate::{Error, Result};

/// Something that can be drawn.
pub trait Figure {
    /// The picture as the bytes of a PNG file; equal data gives equal bytes.
    ///
    /// # Errors
    ///
    /// When the data cannot be drawn; the error names the field.
    fn png(&self) -> Result<Vec<u8>>;

    /// Writes the picture, whole or not at all.
    ///
    /// # Errors
    ///
    /// When the data cannot be drawn, or the folder cannot be made or written.
    fn write(&self, path: &Path) -> Result<()> {
        Ok(whole_files::write(path, &self.png()?)?)
    }
}

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
    pub(super) fn check(self) -> Result<()> {
        if !(400..=3200).contains(&self.width) {
            return Err(Error::option("size.width", self.width, "400 to 3200 pixels"));
        }
        let (least, most) = (self.width.div_ceil(3), self.width * 3);
        if !(least..=most).contains(&self.height) {
            return Err(Error::option("size.height", self.height, format!("{least} to {most} pixels")));
        }
        Ok(())
    }

    /// Pixels of one unit of the page.
    pub(super) fn pixels_per_unit(self) -> f64 {
        f64::from(self.width) / PAGE_WIDTH
    }
}
