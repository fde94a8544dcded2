//! The folder that an artefact is going to be.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use whole_files::ReservedName;

use crate::artefact::manifest::Manifest;
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
    /// Checks that a folder may take the name of an artefact: it is not there, is empty, or is one.
    ///
    /// # Errors
    ///
    /// When it holds something else, which would be lost.
    pub fn check(dir: &Path) -> Result<()> {
        let [here, there] = [Path::new("."), dir].map(|path| path.canonicalize().ok());
        if here.is_some() && here.zip(there).is_some_and(|(here, there)| here.starts_with(there)) {
            return Err(Error::option("folder", dir.display(), "another folder than the one that the program runs in"));
        }
        let is_free = match std::fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none() || Manifest::is_in(dir),
            Err(error) if error.kind() == ErrorKind::NotFound => true,
            Err(error) => return Err(Error::io(dir, error)),
        };
        if is_free { Ok(()) } else { Err(Error::NoArtefact { path: dir.into() }) }
    }

    /// Reserves the name of a folder, and removes what a command that was killed left of it.
    ///
    /// # Errors
    ///
    /// [`Error::FolderInUse`] when another command packs to it; as [`check`](Self::check); and when the folder around
    /// it cannot be written.
    pub fn reserve(dir: &Path) -> Result<Self> {
        Self::check(dir)?;
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
