//! A picture as bytes or as a file.

use std::path::Path;

use crate::error::Result;

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
