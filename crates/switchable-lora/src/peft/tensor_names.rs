//! The names that PEFT and those who save its models by other means give to tensors.
//!
//! ```text
//! base_model.model.<module>.lora_A.weight              PEFT's own saves
//! base_model.model.<module>.lora_A.default.weight      the state dictionary of a live model
//! base_model.model.qa_outputs.weight                   a module that is saved as a whole
//! base_model.model.qa_outputs.modules_to_save.default.weight
//! ```
//!
//! The wrapper may be missing, stand there twice, or have that of parallel training or of a compiled
//! model around it.

use std::collections::BTreeMap;

use super::WRAPPER;

/// What stands before a module's name without being part of it.
const WRAPPERS: [&str; 4] = [WRAPPER, "module.", "_orig_mod.", "_fsdp_wrapped_module."];

/// One of the two factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FactorName {
    A,
    B,
}

impl FactorName {
    /// The name of a module's factor in PEFT's own files.
    pub(super) fn tensor(self, module: &str) -> String {
        format!("{WRAPPER}{module}.lora_{self:?}.weight")
    }
}

/// A parameter of a module that is saved as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SavedPart {
    Weight,
    Bias,
}

/// What a tensor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NamedTensor<'a> {
    Factor { module: &'a str, factor: FactorName },
    Saved { module: &'a str, part: SavedPart },
}

/// What a name says, if it is that of a factor or of one of the modules that are saved as a whole.
pub(super) fn parse_name<'a, T>(name: &'a str, saved: &BTreeMap<&str, T>) -> Option<NamedTensor<'a>> {
    let name = unwrapped(name);
    let (rest, part) = name.rsplit_once('.')?;
    let part = match part {
        "weight" => SavedPart::Weight,
        "bias" => SavedPart::Bias,
        _ => return None,
    };
    let module = without_adapter_name(rest, "modules_to_save").unwrap_or(rest);
    if saved.contains_key(module) {
        return Some(NamedTensor::Saved { module, part });
    }
    let factor = |(suffix, factor)| {
        let module = without_adapter_name(rest, suffix)?;
        Some(NamedTensor::Factor { module, factor })
    };
    let factors = [("lora_A", FactorName::A), ("lora_B", FactorName::B)];
    factors.into_iter().find_map(factor).filter(|_| part == SavedPart::Weight)
}

fn unwrapped(mut name: &str) -> &str {
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}

/// What stands before `.part` or `.part.<name of the adapter>`.
fn without_adapter_name<'a>(name: &'a str, part: &str) -> Option<&'a str> {
    let before = |name: &'a str| name.strip_suffix(part)?.strip_suffix('.');
    before(name).or_else(|| before(name.rsplit_once('.')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_kind_of_save_are_read() {
        let saved = BTreeMap::from([("qa_outputs", "the span head")]);
        let factor = |factor| Some(NamedTensor::Factor { module: "transformer.h.0.mlp.c_fc", factor });
        let weight = Some(NamedTensor::Saved { module: "qa_outputs", part: SavedPart::Weight });
        for (name, expected) in [
            ("base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight", factor(FactorName::A)),
            ("base_model.model.transformer.h.0.mlp.c_fc.lora_B.default.weight", factor(FactorName::B)),
            ("base_model.model.base_model.model.transformer.h.0.mlp.c_fc.lora_B.weight", factor(FactorName::B)),
            ("module.base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight", factor(FactorName::A)),
            ("base_model.model.module.transformer.h.0.mlp.c_fc.lora_A.weight", factor(FactorName::A)),
            ("_orig_mod.transformer.h.0.mlp.c_fc.lora_A.squad.weight", factor(FactorName::A)),
            ("base_model.model.qa_outputs.weight", weight),
            ("base_model.model.qa_outputs.modules_to_save.weight", weight),
            ("base_model.model.qa_outputs.modules_to_save.default.weight", weight),
            ("base_model.model.score.weight", None),
            ("base_model.model.transformer.h.0.mlp.c_fc.lora_A.bias", None),
            ("base_model.model.transformer.wte.lora_embedding_A", None),
            ("base_model.model.qa_outputs.original_module.weight", None),
            ("weight", None),
        ] {
            assert_eq!(parse_name(name, &saved), expected, "{name}");
        }
    }
}
