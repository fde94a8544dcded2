//! Plans by name: `plans/NAME.json`.

use std::collections::BTreeMap;
use std::path::Path;

use switchable_lora::precision_plan::PrecisionPlan;

use crate::error::{Error, Result};

/// The folder in that of the artefact.
pub const PLANS: &str = "plans";

/// The plans of an artefact by their names; none where it has none.
///
/// # Errors
///
/// When a file cannot be read, is no plan, or is not called `NAME.json`; the error names it.
pub fn read_plans(artefact: &Path) -> Result<BTreeMap<String, PrecisionPlan>> {
    let dir = artefact.join(PLANS);
    let mut plans = BTreeMap::new();
    if !dir.is_dir() {
        return Ok(plans);
    }
    for entry in std::fs::read_dir(&dir).map_err(|error| Error::io(&dir, error))? {
        let path = entry.map_err(|error| Error::io(&dir, error))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = name.strip_suffix(".json") else {
            return Err(Error::option("plan", name, "a file of the name NAME.json").in_file(dir));
        };
        check_name(name).map_err(|error| error.in_file(&path))?;
        plans.insert(name.to_owned(), PrecisionPlan::load(&path)?);
    }
    Ok(plans)
}

/// Writes plans into the folder of an artefact.
///
/// # Errors
///
/// When a name cannot be that of a file, or a file cannot be written.
pub fn write_plans(artefact: &Path, plans: &BTreeMap<String, PrecisionPlan>) -> Result<()> {
    for (name, plan) in plans {
        check_name(name)?;
        plan.save(artefact.join(PLANS).join(format!("{name}.json")))?;
    }
    Ok(())
}

/// Checks that a plan can have a name: letters, digits, `-`, `_` and `.`, of which the first is a letter or digit.
///
/// # Errors
///
/// When it cannot.
pub fn check_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && name.len() <= 64 && name.bytes().all(is_plain) {
        return Ok(());
    }
    Err(Error::option(
        "plan name",
        format!("{name:?}"),
        "1 to 64 letters, digits, `-`, `_` and `.`, a letter or digit first",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_are_read_as_they_were_written_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read_plans(dir.path()).unwrap().is_empty());
        let plans: BTreeMap<_, _> =
            ["small", "w4a8.best"].map(|name| (name.to_owned(), PrecisionPlan::default())).into();
        write_plans(dir.path(), &plans).unwrap();
        assert_eq!(read_plans(dir.path()).unwrap(), plans);
        for name in ["", "../up", ".hidden", "a/b", "é"] {
            let plans = BTreeMap::from([(name.to_owned(), PrecisionPlan::default())]);
            assert!(write_plans(dir.path(), &plans).unwrap_err().to_string().contains("plan name"), "{name}");
        }
        std::fs::write(dir.path().join("plans/notes.txt"), "").unwrap();
        assert!(read_plans(dir.path()).unwrap_err().to_string().contains("notes.txt"));
    }
}
