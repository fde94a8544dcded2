//! `adapter_config.json`.
//!
//! What a folder of PEFT computes is decided by this file as much as by its tensors. Fields that are
//! not known to change nothing, and not at the value that changes nothing, are refused by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    module_names::{Layers, NamePatterns, Names},
    ordered_map::OrderedMap,
};
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

/// What a field may be without changing what is computed.
enum Neutral {
    /// This module reads it.
    Read,
    /// Anything: it is about training, loading or where the files come from.
    Anything,
    /// `false`.
    False(&'static str),
    /// Nothing.
    Null(&'static str),
    /// Nothing, or a list of nothing.
    Empty(&'static str),
}

/// The fields of PEFT 0.21 and of the releases before it.
fn neutral(field: &str) -> Option<Neutral> {
    Some(match field {
        "peft_type"
        | "r"
        | "lora_alpha"
        | "use_rslora"
        | "rank_pattern"
        | "alpha_pattern"
        | "target_modules"
        | "exclude_modules"
        | "layers_to_transform"
        | "layers_pattern"
        | "modules_to_save"
        | "init_lora_weights"
        | "bias" => Neutral::Read,
        // The options of starts that are refused where they are chosen; of the layers of another library
        // that are refused with its configuration; of what happens in training; and of the base model, whose
        // matrices a model's own folder lays out.
        "task_type"
        | "auto_mapping"
        | "peft_version"
        | "base_model_name_or_path"
        | "revision"
        | "inference_mode"
        | "lora_dropout"
        | "fan_in_fan_out"
        | "megatron_core"
        | "loftq_config"
        | "eva_config"
        | "corda_config"
        | "lora_ga_config"
        | "qalora_group_size"
        | "runtime_config"
        | "merge_weights" => Neutral::Anything,
        "use_dora" => Neutral::False("false: DoRA scales the columns of the weight"),
        "use_qalora" => Neutral::False("false: QA-LoRA adds up groups of inputs"),
        "lora_bias" => Neutral::False("false: adapters have no bias here"),
        "ensure_weight_tying" => Neutral::False("false: tied matrices have no adapter here"),
        "alora_invocation_tokens" => Neutral::Null("null: an activated LoRA leaves out what stands before its tokens"),
        "arrow_config" => Neutral::Null("null: Arrow chooses among adapters token by token"),
        "use_bdlora" => Neutral::Null("null: BD-LoRA has factors of blocks"),
        "kasa_config" => Neutral::Null("null: KaSA changes the base"),
        "velora_config" => Neutral::Null("null: VeLoRA is not supported"),
        "monteclora_config" => Neutral::Null("null: MonteCLoRA adds random terms"),
        "megatron_config" => Neutral::Null("null: layers of Megatron are not supported"),
        "layer_replication" => Neutral::Null("null: the adapter is for a model with repeated blocks"),
        "trainable_token_indices" => Neutral::Null("null: the adapter replaces rows of the token embedding"),
        "enable_lora" => Neutral::Null("null: adapters of parts of a matrix are not supported"),
        "target_parameters" => Neutral::Empty("nothing: only modules can have an adapter"),
        _ => return None,
    })
}

impl Neutral {
    /// Refuses a value that changes what is computed.
    fn check(&self, field: &str, value: &Value) -> Result<()> {
        let (accepts, expected) = match *self {
            Self::Read | Self::Anything => (true, ""),
            Self::False(expected) => (*value == Value::Bool(false), expected),
            Self::Null(expected) => (false, expected),
            Self::Empty(expected) => (value.as_array().is_some_and(Vec::is_empty), expected),
        };
        if accepts || value.is_null() { Ok(()) } else { Err(refused(field, value, expected)) }
    }
}

fn refused(field: &str, got: &Value, expected: impl Into<String>) -> Error {
    let got = got.as_str().map_or_else(|| got.to_string(), str::to_owned);
    Error::AdapterField { field: field.to_owned(), got, expected: expected.into() }
}

/// What the files of an adapter say of its modules.
#[derive(Debug, Clone)]
pub(super) struct AdapterConfig {
    rank: usize,
    alpha: f64,
    /// Whether the scale is alpha / √rank.
    rank_stabilised: bool,
    ranks: NamePatterns<usize>,
    alphas: NamePatterns<f64>,
    targets: Option<Names>,
    excluded: Option<Names>,
    layers: Option<Layers>,
    saved_modules: Vec<String>,
}

impl AdapterConfig {
    /// Reads the file, and refuses what would compute something other than `s · (x · A) · B`.
    pub(super) fn from_json(text: &[u8]) -> Result<Self> {
        let fields: OrderedMap = serde_json::from_slice(text)?;
        for (field, value) in fields.0.iter().filter(|(_, value)| !value.is_null()) {
            match neutral(field) {
                Some(neutral) => neutral.check(field, value)?,
                None => return Err(refused(field, value, "null: what it changes is not known here")),
            }
        }
        let fields = Fields(&fields);
        fields.expect("peft_type", |value| value == "LORA", "LORA")?;
        fields.check("bias", |value| value == "none", "none")?;
        check_start(&fields)?;
        for field in ["rank_pattern", "alpha_pattern"] {
            fields.check(field, Value::is_object, "an object of names of modules")?;
        }
        let patterns: Patterns = serde_json::from_slice(text)?;
        let config = Self {
            rank: rank_of(fields.expect("r", |value| rank_of(value).is_some(), RANK)?).unwrap_or_default(),
            alpha: alpha_of(fields.expect("lora_alpha", |value| alpha_of(value).is_some(), ALPHA)?).unwrap_or_default(),
            rank_stabilised: fields.flag("use_rslora")?,
            ranks: name_patterns("rank_pattern", patterns.rank_pattern, rank_of, RANK)?,
            alphas: name_patterns("alpha_pattern", patterns.alpha_pattern, alpha_of, ALPHA)?,
            targets: fields.names("target_modules")?,
            excluded: fields.names("exclude_modules")?,
            layers: layers(&fields)?,
            saved_modules: fields.list("modules_to_save")?,
        };
        Ok(config)
    }

    /// The rank of a module.
    pub(super) fn rank(&self, module: &str) -> usize {
        self.ranks.get(module).unwrap_or(self.rank)
    }

    /// The alpha of a module such that its scale is `alpha / rank`.
    pub(super) fn alpha(&self, module: &str) -> f64 {
        let alpha = self.alphas.get(module).unwrap_or(self.alpha);
        // Rank-stabilised LoRA scales by alpha / √rank.
        if self.rank_stabilised { alpha * (self.rank(module) as f64).sqrt() } else { alpha }
    }

    /// The modules that are in the adapter's file as a whole, each once.
    pub(super) fn saved_modules(&self) -> &[String] {
        &self.saved_modules
    }

    /// Whether PEFT gives a linear layer an adapter; where the file does not say, none has to have one.
    pub(super) fn targets(&self, module: &str) -> bool {
        let holds = |names: &Option<Names>| names.as_ref().is_some_and(|names| names.contain(module));
        // Block numbers count only where targets are listed.
        let in_layers = match (&self.targets, &self.layers) {
            (Some(Names::Listed(_)), Some(layers)) => layers.contain(module),
            _ => true,
        };
        holds(&self.targets) && !holds(&self.excluded) && in_layers
    }

    /// Whether the configuration says which modules have an adapter, and this one is not among them.
    pub(super) fn leaves_out(&self, module: &str) -> bool {
        match &self.targets {
            Some(_) => !self.targets(module),
            // PEFT's targets of the model's family, a list of which the file says nothing.
            None => {
                self.excluded.as_ref().is_some_and(|names| names.contain(module))
                    || self.layers.as_ref().is_some_and(|layers| !layers.contain(module))
            }
        }
    }

    /// Refuses what the configuration says of modules that are not in the file.
    pub(super) fn check_modules<'a>(&self, modules: &(impl Iterator<Item = &'a str> + Clone)) -> Result<()> {
        self.ranks.check_used(modules)?;
        self.alphas.check_used(modules)
    }

    /// Refuses a listed target that none of the modules has.
    pub(super) fn check_targets<'a>(&self, modules: &(impl Iterator<Item = &'a str> + Clone)) -> Result<()> {
        let Some(Names::Listed(targets)) = &self.targets else { return Ok(()) };
        let is_there = |target: &&String| {
            let target = Names::Listed(vec![(*target).clone()]);
            modules.clone().any(|module| target.contain(module))
        };
        match targets.iter().find(|target| !is_there(target)) {
            Some(target) => Err(Error::UnmatchedPattern { field: "target_modules", pattern: target.clone() }),
            None => Ok(()),
        }
    }
}

const RANK: &str = "a whole number of at least 1";
const ALPHA: &str = "a finite number above 0";

fn rank_of(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|rank| usize::try_from(rank).ok()).filter(|&rank| rank > 0)
}

fn alpha_of(value: &Value) -> Option<f64> {
    value.as_f64().filter(|alpha| alpha.is_finite() && *alpha > 0.0)
}

/// The fields whose entries count in the order of the file.
#[derive(Deserialize)]
struct Patterns {
    #[serde(default)]
    rank_pattern: Option<OrderedMap>,
    #[serde(default)]
    alpha_pattern: Option<OrderedMap>,
}

fn name_patterns<T: Copy>(
    field: &'static str,
    entries: Option<OrderedMap>,
    read: fn(&Value) -> Option<T>,
    expected: &str,
) -> Result<NamePatterns<T>> {
    let entry = |(key, value): (String, Value)| match read(&value) {
        Some(value) => Ok((key, value)),
        None => Err(refused(&format!("{field}.{key}"), &value, expected)),
    };
    let entries = entries.unwrap_or_default().0.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
    NamePatterns::new(field, entries)
}

/// Refuses starts of training that take from the base what they put into the adapter: PEFT does so again
/// when it loads the folder.
fn check_start(fields: &Fields<'_>) -> Result<()> {
    let harmless = |value: &Value| match value {
        Value::Bool(_) => true,
        Value::String(start) => matches!(start.to_lowercase().as_str(), "gaussian" | "eva" | "orthogonal" | "mica"),
        _ => false,
    };
    fields.check(
        "init_lora_weights",
        harmless,
        "true, false, gaussian, eva, orthogonal or mica: a start that changes the base, or is not known here, is \
         converted in Python by `PeftModel.save_pretrained(.., path_initial_model_for_weight_conversion=..)`, or \
         merged into the base by `merge_and_unload()`",
    )
}

fn layers(fields: &Fields<'_>) -> Result<Option<Layers>> {
    const FIELD: &str = "layers_to_transform";
    let indices = match fields.get(FIELD) {
        None => return Ok(None),
        Some(Value::Array(indices)) => indices.iter().map(Value::as_u64).collect(),
        Some(index) => index.as_u64().map(|index| vec![index]),
    };
    let Some(indices) = indices else {
        return Err(refused(FIELD, fields.get(FIELD).unwrap_or(&Value::Null), "numbers of blocks"));
    };
    let words = match fields.get("layers_pattern") {
        Some(Value::String(word)) => vec![word.clone()],
        _ => fields.list("layers_pattern")?,
    };
    // No numbers are all numbers, as in PEFT.
    if indices.is_empty() { Ok(None) } else { Layers::new("layers_pattern", indices, &words).map(Some) }
}

/// The fields by name; null counts as not there.
struct Fields<'a>(&'a OrderedMap);

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    /// A field that has to be there.
    fn expect(&self, field: &str, accepts: impl Fn(&Value) -> bool, expected: &str) -> Result<&'a Value> {
        match self.get(field) {
            Some(value) if accepts(value) => Ok(value),
            Some(value) => Err(refused(field, value, expected)),
            None => Err(refused(field, &Value::String("missing".into()), expected)),
        }
    }

    fn check(&self, field: &str, accepts: impl Fn(&Value) -> bool, expected: &str) -> Result<()> {
        match self.get(field) {
            Some(value) if !accepts(value) => Err(refused(field, value, expected)),
            _ => Ok(()),
        }
    }

    fn flag(&self, field: &str) -> Result<bool> {
        self.check(field, Value::is_boolean, "true or false")?;
        Ok(self.get(field).and_then(Value::as_bool).unwrap_or_default())
    }

    /// A list of names, each once.
    fn list(&self, field: &str) -> Result<Vec<String>> {
        let Some(value) = self.get(field) else { return Ok(Vec::new()) };
        let names = value.as_array().and_then(|names| names.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let Some(names) = names else { return Err(refused(field, value, "a list of names")) };
        let mut once = Vec::with_capacity(names.len());
        for name in names {
            if !once.iter().any(|there| there == name) {
                once.push(name.to_owned());
            }
        }
        Ok(once)
    }

    /// Names, or an expression for them.
    fn names(&self, field: &'static str) -> Result<Option<Names>> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(pattern)) => Names::pattern(field, pattern).map(Some),
            Some(_) => self.list(field).map(|names| Some(Names::Listed(names))),
        }
    }
}

/// A number that is written as an integer where it is one, as PEFT's `lora_alpha` mostly is.
pub(super) fn number(value: f64) -> Option<serde_json::Number> {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        Some((value as i64).into())
    } else {
        serde_json::Number::from_f64(value)
    }
}
