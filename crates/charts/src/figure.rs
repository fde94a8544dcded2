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

    /// The picture as an SVG document, sharp at every size; equal data gives equal text.
    ///
    /// # Errors
    ///
    /// As [`png`](Self::png).
    fn svg(&self) -> Result<String>;

    /// Writes the picture, whole or not at all: an SVG where the file's name ends so, else a PNG.
    ///
    /// # Errors
    ///
    /// When the data cannot be drawn, or the folder cannot be made or written.
    fn write(&self, path: &Path) -> Result<()> {
        let is_svg = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("svg"));
        let bytes = if is_svg { self.svg()?.into_bytes() } else { self.png()? };
        Ok(whole_files::write(path, &bytes)?)
    }
}
