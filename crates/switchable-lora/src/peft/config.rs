//! `adapter_config.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The fields that are written, which are those that PEFT needs.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the fields are PEFT's")]
pub(super) struct WrittenConfig<'a> {
    pub(super) peft_type: &'static str,
    pub(super) task_type: Option<&'a str>,
    pub(super) base_model_name_or_path: &'a str,
    pub(super) inference_mode: bool,
    pub(super) r: usize,
    pub(super) lora_alpha: serde_json::Number,
    pub(super) lora_dropout: f64,
    pub(super) target_modules: Vec<String>,
    pub(super) rank_pattern: BTreeMap<String, usize>,
    pub(super) alpha_pattern: BTreeMap<String, serde_json::Number>,
    pub(super) fan_in_fan_out: bool,
    pub(super) bias: &'static str,
    pub(super) use_rslora: bool,
    pub(super) use_dora: bool,
    pub(super) init_lora_weights: bool,
    pub(super) modules_to_save: Option<Vec<String>>,
}

/// The fields that are read. PEFT writes many more, most of which change nothing that is computed.
#[derive(Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the fields are PEFT's")]
pub(super) struct ReadConfig {
    peft_type: String,
    r: usize,
    lora_alpha: f64,
    #[serde(default)]
    rank_pattern: Option<BTreeMap<String, usize>>,
    #[serde(default)]
    alpha_pattern: Option<BTreeMap<String, f64>>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    use_dora: bool,
    #[serde(default)]
    use_qalora: bool,
    #[serde(default)]
    lora_bias: bool,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
}

impl ReadConfig {
    /// Refuses what would compute something other than `s · (x · A) · B`.
    pub(super) fn check(&self) -> Result<()> {
        let refuse = |field, got: &dyn ToString, expected| Err(Error::Field { field, got: got.to_string(), expected });
        if self.peft_type != "LORA" {
            return refuse("peft_type", &self.peft_type, "LORA");
        }
        if self.r == 0 {
            return refuse("r", &self.r, "at least 1");
        }
        if !self.lora_alpha.is_finite() || self.lora_alpha <= 0.0 {
            return refuse("lora_alpha", &self.lora_alpha, "a finite number above 0");
        }
        for (field, is_set) in
            [("use_dora", self.use_dora), ("use_qalora", self.use_qalora), ("lora_bias", self.lora_bias)]
        {
            if is_set {
                return refuse(field, &is_set, "false");
            }
        }
        if let Some(bias) = self.bias.as_ref().filter(|&bias| bias != "none") {
            return refuse("bias", bias, "none");
        }
        if let Some(modules) = self.modules_to_save.as_ref().filter(|modules| !modules.is_empty()) {
            return refuse("modules_to_save", &modules.join(", "), "nothing");
        }
        let patterns = self.rank_pattern.iter().flat_map(BTreeMap::keys).map(|key| ("rank_pattern", key));
        let patterns =
            patterns.chain(self.alpha_pattern.iter().flat_map(BTreeMap::keys).map(|key| ("alpha_pattern", key)));
        for (field, key) in patterns {
            if !key.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-')) {
                return refuse(field, key, "names without regular expressions");
            }
        }
        Ok(())
    }

    /// The rank of a module.
    pub(super) fn rank(&self, module: &str) -> usize {
        matching(self.rank_pattern.as_ref(), module).unwrap_or(self.r)
    }

    /// The alpha of a module such that its scale is `alpha / rank`.
    pub(super) fn alpha(&self, module: &str) -> f64 {
        let alpha = matching(self.alpha_pattern.as_ref(), module).unwrap_or(self.lora_alpha);
        // Rank-stabilised LoRA scales by alpha / √rank.
        if self.use_rslora { alpha * (self.rank(module) as f64).sqrt() } else { alpha }
    }
}

/// The value of the first pattern that is the module's name or ends it at a dot, as in PEFT.
fn matching<T: Copy>(patterns: Option<&BTreeMap<String, T>>, module: &str) -> Option<T> {
    patterns?.iter().find_map(|(pattern, &value)| {
        let start = module.strip_suffix(pattern.as_str())?;
        (start.is_empty() || start.ends_with('.')).then_some(value)
    })
}

/// A number that is written as an integer where it is one, as PEFT's `lora_alpha` mostly is.
pub(super) fn number(value: f64) -> Option<serde_json::Number> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        Some((value as i64).into())
    } else {
        serde_json::Number::from_f64(value)
    }
}
