//! What a family of models knows of its `config.json` and of the names in its files.

pub mod context_reads;
pub mod fields;
pub mod kept_fields;

use std::fmt;
use std::path::Path;

use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use self::fields::ConfigFields;
use self::kept_fields::KeptFields;
use crate::error::{Error, Result};
use crate::gguf::{GgufFamily, GgufFile, is_gguf};
use crate::initial::InitialWeights;
use crate::json_text::{parse_json, read_text};
use crate::parameters::WeightLayout;
use crate::scaling::pair::FoldablePair;
use crate::shape::ModelShape;
use crate::sites::Sites;

/// Shape and constants of a model, as `config.json` of a Hugging Face folder gives them, and the names
/// that the files of its family use.
pub trait ModelConfig: fmt::Debug + Clone + PartialEq + Send + Sync + 'static {
    /// What `model_type` of its `config.json` is.
    const MODEL_TYPE: &'static str;
    /// The class of `transformers` that is the body with its language-model head.
    const LANGUAGE_MODEL: &'static str;
    /// The class of `transformers` that is the body with a span head.
    const QUESTION_ANSWERING: &'static str;
    /// What stands before the names of the body in files of the language model, such as
    /// `transformer.`; files of the bare body leave it out.
    const BODY: &'static str;
    /// The same in files of the model with a span head.
    const SPAN_BODY: &'static str = Self::BODY;
    /// How the names of tensors end that files may hold and that are computed anew, such as masks.
    const BUFFERS: &'static [&'static str] = &[];
    /// The field of `config.json` that counts blocks.
    const BLOCKS_FIELD: &'static str;
    /// How files hold the weights of the sites.
    const LAYOUT: WeightLayout;

    /// How the family's GGUF files are read; `None` where they are not.
    const GGUF: Option<&'static GgufFamily<Self>> = None;

    /// Reads the fields of a parsed `config.json`; `path` stands in the errors.
    ///
    /// # Errors
    ///
    /// When it lacks a field, or asks for something that the family does not have.
    fn from_json(value: &Value, path: &Path) -> Result<Self>;

    /// The fields as `config.json` holds them; `architecture` is the class that loads the weights.
    fn to_json(&self, architecture: &str) -> Value;

    /// The fields that the file had beside those that are computed with.
    fn kept_fields(&self) -> &KeptFields;

    /// The same, to be changed.
    fn kept_fields_mut(&mut self) -> &mut KeptFields;

    /// Checks that the numbers fit together; `path` stands in the error.
    ///
    /// # Errors
    ///
    /// When they do not, which names the field.
    fn check(&self, path: &Path) -> Result<()>;

    /// The numbers that every transformer has.
    fn shape(&self) -> ModelShape;

    /// The quantisable matrices.
    fn sites(&self) -> Sites;

    /// The pairs of every block that factors fold into, in the order in which the block applies them; none by default.
    fn foldable_pairs(&self) -> Vec<FoldablePair> {
        Vec::new()
    }

    /// All parameters of the language model, a tied output matrix counted once.
    fn parameters(&self) -> usize;

    /// Standard deviation of random initial weights.
    fn initializer_range(&self) -> f64;

    /// Random initial values of a parameter by its Hugging Face name and shape.
    ///
    /// # Errors
    ///
    /// When the family has no such way to draw weights.
    fn initial_values(
        &self,
        initial: InitialWeights,
        rng: &mut ChaCha8Rng,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<f32>>;

    /// Reads `config.json`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, is not JSON, or is not a configuration of this family.
    fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_json(&read_json(path)?, path)
    }

    /// Parameters in the quantisable matrices, biases not counted.
    fn site_parameters(&self) -> usize {
        self.sites().all_parameters()
    }
}

/// The `model_type` of a `config.json`: it says which of some families reads the folder.
///
/// # Errors
///
/// When the file cannot be read, is not a JSON object, or its `model_type` is none of the families, which the
/// error lists.
pub fn read_model_type(path: impl AsRef<Path>, families: &[&str]) -> Result<String> {
    let path = path.as_ref();
    let value = read_json(path)?;
    let fields = ConfigFields::new(&value, path)?;
    match fields.get("model_type") {
        Some(Value::String(family)) if families.contains(&family.as_str()) => Ok(family.clone()),
        Some(other) => Err(fields.error("model_type", other, &listed(families))),
        None => Err(fields.missing("model_type", &listed(families))),
    }
}

/// The family of the model in a folder, or in a GGUF file: what `model_type` of its `config.json` or the architecture
/// of the file is.
///
/// # Errors
///
/// As [`read_model_type`]; and when the file is damaged, or its architecture is none of the families.
pub fn read_family(model: impl AsRef<Path>, families: &[&str]) -> Result<String> {
    let model = model.as_ref();
    if !is_gguf(model) {
        return read_model_type(model.join("config.json"), families);
    }
    let file = GgufFile::open(model)?;
    let architecture = file.architecture()?;
    if families.contains(&architecture) {
        return Ok(architecture.to_owned());
    }
    Err(file.refused_architecture(&listed(families)))
}

/// The most parameters that a configuration may have: their bytes in f32 fit into the address space.
const MOST_PARAMETERS: u128 = 1 << 44;

/// Refuses a configuration of more parameters than can be, before anything is computed from its sizes.
///
/// # Errors
///
/// When there are more.
pub fn most_parameters(parameters: u128, path: &Path) -> Result<()> {
    if parameters <= MOST_PARAMETERS {
        return Ok(());
    }
    Err(Error::Config {
        path: path.into(),
        field: "<sizes>",
        got: format!("together {parameters} parameters"),
        expected: format!("at most {MOST_PARAMETERS}"),
    })
}

fn listed(families: &[&str]) -> String {
    families.iter().map(|family| format!("{family:?}")).collect::<Vec<_>>().join(" or ")
}

fn read_json(path: &Path) -> Result<Value> {
    parse_json(&read_text(path)?, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_a_folder_is_its_model_type() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"model_type": "llama"}"#).unwrap();
        let families = ["gpt2", "llama"];
        assert_eq!(read_model_type(&path, &families).unwrap(), "llama");
        for (text, word) in [("{}", "missing"), (r#"{"model_type": 3}"#, "3"), ("[]", "<root>"), ("{", "EOF")] {
            std::fs::write(&path, text).unwrap();
            let message = read_model_type(&path, &families).unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(word), "{message}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read_model_type(&path, &families).unwrap_err().to_string().contains("config.json"));
    }

    #[test]
    fn an_unknown_family_is_refused_with_those_there_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for (text, got) in [(r#"{"model_type": "mamba"}"#, "\"mamba\""), ("{}", "missing")] {
            std::fs::write(&path, text).unwrap();
            let message = read_model_type(&path, &["gpt2", "llama"]).unwrap_err().to_string();
            let expected = format!("{}: field `model_type` is {got}, expected \"gpt2\" or \"llama\"", path.display());
            assert_eq!(message, expected);
        }
    }
}
