//! Moments as a file.
//!
//! ```text
//! {site}.second_moment   f32 [d_in, d_in]
//! {site}.mean            f32 [d_in]
//! {site}.largest         f32 [d_in]
//! metadata               calibration: "1",  made_from: JSON,  {site}: rows
//! ```

use std::path::Path;

use quant_kernels::calibrated::input_moments::InputMoments;
use quant_kernels::packed::file::{plain::PlainData, reader::PackedFile, writer::PackedFileWriter};

use super::ModelMoments;
use crate::error::{Error, Result, at_site};

const VERSION_FIELD: &str = "calibration";
const VERSION: &str = "1";
const MADE_FROM: &str = "made_from";
const SECOND: &str = "second_moment";
const MEAN: &str = "mean";
const LARGEST: &str = "largest";

impl ModelMoments {
    /// Writes them, with what they were made from, whole or not at all.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>, made_from: &str) -> Result<()> {
        let mut writer = PackedFileWriter::new();
        writer.metadata(VERSION_FIELD, VERSION.to_owned()).metadata(MADE_FROM, made_from.to_owned());
        for (site, moments) in self.iter() {
            let d_in = moments.d_in();
            writer.metadata(site, moments.rows().to_string());
            writer.plain(format!("{site}.{SECOND}"), &[d_in, d_in], PlainData::F32(moments.second()));
            writer.plain(format!("{site}.{MEAN}"), &[d_in], PlainData::F32(moments.mean()));
            writer.plain(format!("{site}.{LARGEST}"), &[d_in], PlainData::F32(moments.largest()));
        }
        Ok(writer.write(path.as_ref())?)
    }

    /// Reads a file; `None` where it was made from something else.
    ///
    /// # Errors
    ///
    /// When the file is damaged or of another version; the error names file and field.
    pub fn load(path: impl AsRef<Path>, made_from: &str) -> Result<Option<Self>> {
        let path = path.as_ref();
        let file = PackedFile::open(path)?;
        let metadata = file.metadata();
        let fault = |field: &str, got: Option<&String>, expected: &str| Error::ConfigField {
            path: path.to_owned(),
            field: field.to_owned(),
            got: got.map_or_else(|| "missing".to_owned(), |got| format!("`{got}`")),
            expected: expected.to_owned(),
        };
        if metadata.get(VERSION_FIELD).map(String::as_str) != Some(VERSION) {
            return Err(fault(VERSION_FIELD, metadata.get(VERSION_FIELD), "`1`"));
        }
        if metadata.get(MADE_FROM).map(String::as_str) != Some(made_from) {
            return Ok(None);
        }
        let mut all = Self::default();
        let suffix = format!(".{MEAN}");
        for site in file.plain_names().filter_map(|name| name.strip_suffix(&suffix)) {
            let rows = metadata.get(site).and_then(|rows| rows.parse().ok());
            let rows = rows.ok_or_else(|| fault(site, metadata.get(site), "a number of rows"))?;
            let [mean, largest] = [MEAN, LARGEST].map(|what| file.plain(&format!("{site}.{what}")));
            let (mean, largest, second) = (mean?, largest?, file.plain(&format!("{site}.{SECOND}"))?);
            let d_in = mean.to_f32().len();
            for (what, shape, expected) in
                [(LARGEST, largest.shape(), vec![d_in]), (SECOND, second.shape(), vec![d_in; 2])]
            {
                if shape != expected {
                    let (path, name) = (path.to_owned(), format!("{site}.{what}"));
                    return Err(Error::Shape { path, name, got: shape.to_vec(), expected });
                }
            }
            let moments = InputMoments::new(second.to_f32(), mean.to_f32(), largest.to_f32(), rows);
            let named = |error| at_site(site.to_owned(), switchable_lora::Error::from(error));
            all.insert(site.to_owned(), moments.map_err(named).map_err(|error| crate::error::in_file(path, error))?);
        }
        Ok(Some(all))
    }
}
