//! The folder that an artefact is going to be.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use whole_files::ReservedName;

use crate::artefact::pack::Pack;
use crate::error::{Error, Result};

/// The folder that an artefact is going to be, which no other command packs to until this is dropped.
///
/// ```
/// use span_reader::artefact::target::ArtefactTarget;
///
/// let dir = tempfile::tempdir()?;
/// let target = ArtefactTarget::reserve(&dir.path().join("small"))?;
/// // Hours of searching for a plan.
/// # #[cfg(unix)]
/// assert!(ArtefactTarget::reserve(&dir.path().join("small")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ArtefactTarget {
    dir: PathBuf,
    name: ReservedName,
}

impl ArtefactTarget {
    /// Reserves the name of a folder, and removes what a command that was killed left of it.
    ///
    /// # Errors
    ///
    /// [`Error::FolderInUse`] when another command packs to it; as [`Pack::check_target`]; and when the folder around
    /// it cannot be written.
    pub fn reserve(dir: &Path) -> Result<Self> {
        Pack::check_target(dir)?;
        let name = ReservedName::new(dir).map_err(|error| match error.source.kind() {
            ErrorKind::ResourceBusy => Error::FolderInUse { path: dir.into() },
            _ => error.into(),
        })?;
        Ok(Self { dir: dir.into(), name })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn name(&self) -> &ReservedName {
        &self.name
    }
}
