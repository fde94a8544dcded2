//! Results that are written at once, when all is done.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use switchable_quant::experiments::running::memory::check_identity;
use switchable_quant::identity::Identity;
use switchable_quant::reader::running::json_file::read_json;

/// Refuses to write over a result of other work: one that does not say in `made_from` that it is of this one.
///
/// # Errors
///
/// When there is such a file, with the first difference, or it cannot be read.
pub fn refuse_other_work(path: &Path, identity: &Identity) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Made {
        made_from: Option<Identity>,
    }
    if !path.exists() {
        return Ok(());
    }
    let made = read_json::<Made>(path).context("this file would be written over")?;
    let Some(made_from) = made.made_from else {
        bail!("{}: does not say what it was made from; name another folder, or remove it", path.display());
    };
    Ok(check_identity(path, &made_from, identity)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use switchable_quant::reader::running::json_file::write_json;

    use super::*;

    #[test]
    fn a_result_is_written_over_by_that_of_the_same_work_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evaluate.json");
        let of = |bits: u32| Identity::default().with_option("bits", bits);
        refuse_other_work(&path, &of(4)).unwrap();
        write_json(&path, &json!({ "made_from": of(4), "exact_match": 99.5 })).unwrap();
        refuse_other_work(&path, &of(4)).unwrap();
        let message = refuse_other_work(&path, &of(3)).unwrap_err().to_string();
        assert!(message.contains("evaluate.json") && message.contains("option `bits` was 4, is 3"), "{message}");
        write_json(&path, &json!({ "exact_match": 99.5 })).unwrap();
        assert!(refuse_other_work(&path, &of(4)).unwrap_err().to_string().contains("does not say"));
        std::fs::write(&path, "{").unwrap();
        assert!(format!("{:#}", refuse_other_work(&path, &of(4)).unwrap_err()).contains("evaluate.json"));
    }
}
