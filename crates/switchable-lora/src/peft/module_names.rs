//! How PEFT finds modules by names and regular expressions.

use regex::bytes::{Regex, RegexBuilder};

use crate::error::{Error, Result};

/// A regular expression that a whole name has to match.
///
/// Names of modules are ASCII, so `\d` and its like mean the same here as in Python. What Python has and
/// this engine has not, such as looking ahead, is an error.
#[derive(Debug, Clone)]
struct WholeName(Regex);

impl WholeName {
    fn new(field: &'static str, pattern: &str, around: impl Fn(&str) -> String) -> Result<Self> {
        // By itself first, so that no parenthesis of it closes one around it.
        let compile = |pattern: &str| RegexBuilder::new(pattern).unicode(false).build();
        compile(pattern).and_then(|_| compile(&around(pattern))).map(Self).map_err(|source| Error::Pattern {
            field,
            pattern: pattern.to_owned(),
            reason: source.to_string(),
        })
    }

    fn matches(&self, name: &str) -> bool {
        self.0.is_match(name.as_bytes())
    }
}

/// An entry of `rank_pattern` or `alpha_pattern`: the value of the modules whose name is what the key
/// describes or ends in it behind a dot, `^(.*\.)?(key)$`.
#[derive(Debug, Clone)]
struct Entry<T> {
    key: String,
    names: WholeName,
    value: T,
}

/// The values of `rank_pattern` or `alpha_pattern`, of which the first that matches counts.
#[derive(Debug, Clone)]
pub(super) struct NamePatterns<T> {
    field: &'static str,
    entries: Vec<Entry<T>>,
}

impl<T: Copy> NamePatterns<T> {
    /// From the keys and values of the field in the order of the file.
    pub(super) fn new(field: &'static str, entries: impl IntoIterator<Item = (String, T)>) -> Result<Self> {
        let entry = |(key, value): (String, T)| {
            let names = WholeName::new(field, &key, |key| format!(r"^(?:.*\.)?(?:{key})$"))?;
            Ok(Entry { key, names, value })
        };
        Ok(Self { field, entries: entries.into_iter().map(entry).collect::<Result<_>>()? })
    }

    /// The value of the first key that matches a module.
    pub(super) fn get(&self, module: &str) -> Option<T> {
        self.entries.iter().find(|entry| entry.names.matches(module)).map(|entry| entry.value)
    }

    /// Refuses a key that matches none of the modules.
    pub(super) fn check_used<'a>(&self, modules: &(impl Iterator<Item = &'a str> + Clone)) -> Result<()> {
        match self.entries.iter().find(|entry| !modules.clone().any(|module| entry.names.matches(module))) {
            Some(entry) => Err(Error::UnmatchedPattern { field: self.field, pattern: entry.key.clone() }),
            None => Ok(()),
        }
    }
}

/// Names as `target_modules` and `exclude_modules` give them.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// Names, or what they end in behind a dot.
    Listed(Vec<String>),
    /// A regular expression of the whole name.
    Pattern(Box<WholePattern>),
    /// Every linear layer.
    AllLinear,
}

/// A regular expression of a whole name.
#[derive(Debug, Clone)]
pub(super) struct WholePattern(WholeName);

impl Names {
    /// A regular expression, or PEFT's word for every linear layer.
    pub(super) fn pattern(field: &'static str, pattern: &str) -> Result<Self> {
        if pattern == "all-linear" {
            return Ok(Self::AllLinear);
        }
        let names = WholeName::new(field, pattern, |pattern| format!("^(?:{pattern})$"))?;
        Ok(Self::Pattern(Box::new(WholePattern(names))))
    }

    /// Whether they name a module.
    pub(super) fn contain(&self, module: &str) -> bool {
        match self {
            Self::Listed(names) => names.iter().any(|name| is_name_or_end(module, name)),
            Self::Pattern(pattern) => pattern.0.matches(module),
            Self::AllLinear => true,
        }
    }
}

/// Whether a module has a name, or one that ends in it behind a dot.
fn is_name_or_end(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|start| start.is_empty() || start.ends_with('.'))
}

/// The blocks that `layers_to_transform` leaves, and the word before a block's number.
#[derive(Debug, Clone)]
pub(super) struct Layers {
    pub(super) indices: Vec<u64>,
    /// With the number as its only group.
    before: Vec<Regex>,
}

impl Layers {
    /// Without `words`, any module of any number.
    pub(super) fn new(field: &'static str, indices: Vec<u64>, words: &[String]) -> Result<Self> {
        let compile = |pattern: &str, whole: &str| {
            RegexBuilder::new(whole).unicode(false).build().map_err(|source| Error::Pattern {
                field,
                pattern: pattern.to_owned(),
                reason: source.to_string(),
            })
        };
        let before = if words.is_empty() {
            vec![compile("", r"^.*?\.[^.]*\.([0-9]+)\.")?]
        } else {
            let word = |word: &String| compile(word, &format!(r"^(?:|.*?\.){word}\.(?P<block>[0-9]+)\."));
            words.iter().map(word).collect::<Result<_>>()?
        };
        Ok(Self { indices, before })
    }

    /// Whether a module stands in one of the blocks.
    pub(super) fn contain(&self, module: &str) -> bool {
        let captured = self.before.iter().find_map(|before| before.captures(module.as_bytes()));
        let block = captured.and_then(|groups| {
            let number = groups.name("block").or_else(|| groups.get(1))?;
            std::str::from_utf8(number.as_bytes()).ok()?.parse().ok()
        });
        block.is_some_and(|block| self.indices.contains(&block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(entries: &[(&str, u32)]) -> NamePatterns<u32> {
        NamePatterns::new("rank_pattern", entries.iter().map(|&(key, value)| (key.to_owned(), value))).unwrap()
    }

    /// What `peft.utils.other.get_pattern_key` of PEFT 0.21 answers.
    #[test]
    fn the_first_key_that_matches_counts_as_in_peft() {
        for (entries, module, expected) in [
            (&[("c_proj", 16), ("attn.c_proj", 64)][..], "transformer.h.0.attn.c_proj", Some(16)),
            (&[("attn.c_proj", 64), ("c_proj", 16)], "transformer.h.0.attn.c_proj", Some(64)),
            (&[("attn.c_proj", 64), ("c_proj", 16)], "transformer.h.0.mlp.c_proj", Some(16)),
            (&[("^h.0.attn.c_attn", 2)], "h.0.attn.c_attn", Some(2)),
            (&[("^h.0.attn.c_attn", 2)], "transformer.h.0.attn.c_attn", None),
            (&[(r".*\.h\.[01]\..*", 2)], "transformer.h.1.mlp.c_fc", Some(2)),
            (&[(r"h\.\d+\.mlp\.c_fc", 2)], "transformer.h.11.mlp.c_fc", Some(2)),
            (&[("c_fc|c_attn", 2)], "transformer.h.1.attn.c_attn", Some(2)),
            (&[("attn", 2)], "transformer.h.0.attn.c_attn", None),
            (&[("x_attn", 2)], "h.0.attn", None),
            // A dot of a key is any character, as in PEFT.
            (&[("attn.c_attn", 2)], "h.0.attn_c_attn", Some(2)),
        ] {
            assert_eq!(patterns(entries).get(module), expected, "{entries:?} of {module}");
        }
    }

    #[test]
    fn keys_that_are_no_expressions_or_match_nothing_are_errors_that_name_them() {
        for key in ["c_(fc", "c_fc)|(x", "(?=c_fc)", r"\Zx"] {
            let message = NamePatterns::new("rank_pattern", [(key.to_owned(), 1)]).unwrap_err().to_string();
            assert!(message.contains("rank_pattern") && message.contains(key), "{message}");
        }
        let modules = ["h.0.attn.c_attn"];
        let message =
            patterns(&[("c_attn", 1), ("c_atn", 1)]).check_used(&modules.into_iter()).unwrap_err().to_string();
        assert_eq!(message, "field `rank_pattern` has `c_atn`, which matches no module of the adapter");
    }

    #[test]
    fn layers_are_found_by_their_numbers() {
        let any = Layers::new("layers_pattern", vec![1], &[]).unwrap();
        let [named, other] =
            ["h", "layers"].map(|word| Layers::new("layers_pattern", vec![1], &[word.into()]).unwrap());
        for (module, expected) in [("transformer.h.1.attn.c_attn", true), ("transformer.h.11.attn.c_attn", false)] {
            assert_eq!(
                (any.contain(module), named.contain(module), other.contain(module)),
                (expected, expected, false)
            );
        }
    }
}
