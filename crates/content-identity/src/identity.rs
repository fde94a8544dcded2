//! Which work a result belongs to, and in what it differs from another.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::content_hash::ContentHash;

/// What a program means by its computations: raised when numbers come to mean something else, so that
/// none from before is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Computation(pub u32);

/// The contents and options that decide a result, in the order in which they are compared.
///
/// What does not decide it stays out: paths, the number of workers, how progress is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    computation: Computation,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Part {
    Content {
        /// What it is for, such as `weights`.
        content: String,
        /// The file's name, for messages.
        name: String,
        hash: ContentHash,
    },
    Option {
        option: String,
        value: Value,
    },
}

impl Part {
    /// Parts of one key are compared with one another.
    fn key(&self) -> (u8, &str) {
        match self {
            Self::Content { content, .. } => (0, content),
            Self::Option { option, .. } => (1, option),
        }
    }
}

/// The first thing in which two identities differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The numbers mean something else.
    Computation {
        /// The version that made the result.
        found: Computation,
        /// That of the program at hand.
        expected: Computation,
    },
    /// A content has other bytes, is missing or has been added.
    Content {
        /// What it is for, such as `weights`.
        content: String,
        /// The name of what the result was made from; `None` where there was none.
        found: Option<String>,
        /// The name of what is at hand; `None` where there is none.
        expected: Option<String>,
    },
    /// An option has another value.
    Option {
        /// Its name, with the path to the field that differs: `train.steps`.
        option: String,
        /// The value of the result; `None` where it had none.
        found: Option<Value>,
        /// The value at hand; `None` where it has none.
        expected: Option<Value>,
    },
}

impl Identity {
    /// The same for a version of the computation.
    #[must_use]
    pub fn computed_by(mut self, computation: Computation) -> Self {
        self.computation = computation;
        self
    }

    /// The same with a content: what it is for, its name, its hash. Several of one kind are compared in
    /// their order.
    #[must_use]
    pub fn with_content(mut self, content: impl Into<String>, name: impl Into<String>, hash: ContentHash) -> Self {
        self.parts.push(Part::Content { content: content.into(), name: name.into(), hash });
        self
    }

    /// The same with an option.
    #[must_use]
    pub fn with_option(mut self, option: impl Into<String>, value: impl Into<Value>) -> Self {
        self.parts.push(Part::Option { option: option.into(), value: value.into() });
        self
    }

    /// The same with the fields of a JSON object as options. Null adds none; another value is the option
    /// `options`.
    #[must_use]
    pub fn with_options(self, options: Value) -> Self {
        match options {
            Value::Null => self,
            Value::Object(fields) => {
                fields.into_iter().fold(self, |all, (option, value)| all.with_option(option, value))
            }
            other => self.with_option("options", other),
        }
    }

    /// The same with the parts of another.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        self.parts.extend(other.parts.iter().cloned());
        self
    }

    /// One hash of it all. Names do not count.
    ///
    /// ```
    /// use content_identity::{ContentHash, Identity};
    ///
    /// let named = |name: &str| Identity::default().with_content("weights", name, ContentHash::of_bytes(b"m"));
    /// assert_eq!(named("a").fingerprint(), named("b").fingerprint());
    /// assert_ne!(named("a").fingerprint(), named("a").with_option("seed", 1).fingerprint());
    /// ```
    pub fn fingerprint(&self) -> ContentHash {
        let nameless = |part: &Part| match part.clone() {
            Part::Content { content, hash, .. } => Part::Content { content, name: String::new(), hash },
            option @ Part::Option { .. } => option,
        };
        let nameless = Self { parts: self.parts.iter().map(nameless).collect(), ..*self };
        ContentHash::of_bytes(serde_json::to_string(&nameless).unwrap_or_default().as_bytes())
    }

    /// Whether another identity is this one with more parts behind it. Names do not count.
    ///
    /// ```
    /// use content_identity::{ContentHash, Identity};
    ///
    /// let model = Identity::default().with_content("weights", "m.safetensors", ContentHash::of_bytes(b"m"));
    /// assert!(model.is_start_of(&model.clone().with_option("seed", 1)));
    /// assert!(!model.clone().with_option("seed", 1).is_start_of(&model.with_option("seed", 2)));
    /// ```
    pub fn is_start_of(&self, other: &Self) -> bool {
        self.computation == other.computation
            && self.parts.len() <= other.parts.len()
            && self
                .parts
                .iter()
                .zip(&other.parts)
                .all(|(part, other)| part.key() == other.key() && difference(Some(part), Some(other)).is_none())
    }

    /// The first thing in which what a result was made from differs from what is at hand; `None` where both
    /// are the same work. Names do not count.
    pub fn first_difference(&self, at_hand: &Self) -> Option<Difference> {
        if self.computation != at_hand.computation {
            return Some(Difference::Computation { found: self.computation, expected: at_hand.computation });
        }
        let mut keys: Vec<_> = Vec::new();
        for part in at_hand.parts.iter().chain(&self.parts) {
            if !keys.contains(&part.key()) {
                keys.push(part.key());
            }
        }
        keys.into_iter().find_map(|key| {
            let mut found = self.parts.iter().filter(|part| part.key() == key);
            let mut expected = at_hand.parts.iter().filter(|part| part.key() == key);
            loop {
                match (found.next(), expected.next()) {
                    (None, None) => return None,
                    (found, expected) => {
                        if let Some(difference) = difference(found, expected) {
                            return Some(difference);
                        }
                    }
                }
            }
        })
    }
}

impl From<Value> for Identity {
    /// The fields of a JSON object as options, as [`Identity::with_options`] takes them.
    fn from(options: Value) -> Self {
        Self::default().with_options(options)
    }
}

/// How two parts of one key differ.
fn difference(found: Option<&Part>, expected: Option<&Part>) -> Option<Difference> {
    match found.or(expected)? {
        Part::Content { content, .. } => {
            let of = |part: Option<&Part>| match part {
                Some(Part::Content { name, hash, .. }) => Some((name.clone(), *hash)),
                _ => None,
            };
            let [found, expected] = [of(found), of(expected)];
            let hash = |of: &Option<(String, ContentHash)>| of.as_ref().map(|(_, hash)| *hash);
            let name = |of: Option<(String, ContentHash)>| of.map(|(name, _)| name);
            (hash(&found) != hash(&expected)).then(|| Difference::Content {
                content: content.clone(),
                found: name(found),
                expected: name(expected),
            })
        }
        Part::Option { option, .. } => {
            let of = |part: Option<&Part>| match part {
                Some(Part::Option { value, .. }) => Some(value.clone()),
                _ => None,
            };
            option_difference(option, of(found).as_ref(), of(expected).as_ref())
        }
    }
}

/// The first field in which two values differ.
fn option_difference(path: &str, found: Option<&Value>, expected: Option<&Value>) -> Option<Difference> {
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (found, expected) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        return keys.into_iter().find_map(|key| option_difference(&format!("{path}.{key}"), a.get(key), b.get(key)));
    }
    (found != expected).then(|| Difference::Option {
        option: path.to_owned(),
        found: found.cloned(),
        expected: expected.cloned(),
    })
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Computation { found, expected } => write!(
                f,
                "computation changed: version {} made the saved result, this program is version {}",
                found.0, expected.0
            ),
            Self::Content { content, found: Some(found), expected: Some(expected) }
                if found.is_empty() || expected.is_empty() =>
            {
                write!(f, "{content} changed")
            }
            Self::Content { content, found, expected } => match (found, expected) {
                (Some(found), Some(expected)) if found != expected => {
                    write!(f, "{content} changed: {expected}, was {found}")
                }
                (_, Some(name)) if found.is_some() => write!(f, "{content} changed: {name}"),
                (None, Some(name)) => write!(f, "{content} changed: {name} has been added"),
                (Some(name), None) => write!(f, "{content} changed: {name} is missing"),
                _ => write!(f, "{content} changed"),
            },
            Self::Option { option, found, expected } => {
                let text = |value: &Option<Value>| value.as_ref().map_or_else(|| "not given".into(), Value::to_string);
                write!(f, "option `{option}` was {}, is {}", text(found), text(expected))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hash(byte: u8) -> ContentHash {
        ContentHash::of_bytes(&[byte])
    }

    fn identity() -> Identity {
        Identity::default()
            .computed_by(Computation(3))
            .with_content("weights", "model-1.safetensors", hash(1))
            .with_content("weights", "model-2.safetensors", hash(2))
            .with_content("data", "dev.json", hash(3))
            .with_options(json!({ "tolerance": 0.1, "train": { "steps": 4, "seed": 1 } }))
    }

    fn message(at_hand: &Identity) -> String {
        identity().first_difference(at_hand).expect("they differ").to_string()
    }

    #[test]
    fn the_first_difference_is_named() {
        let base = || Identity::default().computed_by(Computation(3));
        let weights = |one, two| {
            base().with_content("weights", "model-1.safetensors", hash(one)).with_content(
                "weights",
                "model-2.safetensors",
                hash(two),
            )
        };
        assert_eq!(message(&weights(9, 2)), "weights changed: model-1.safetensors");
        assert_eq!(message(&weights(1, 9)), "weights changed: model-2.safetensors");
        let data = |name: &str, of| weights(1, 2).with_content("data", name, hash(of));
        assert_eq!(message(&data("dev.json", 9)), "data changed: dev.json");
        assert_eq!(message(&data("other.json", 9)), "data changed: other.json, was dev.json");
        let options = |options| data("dev.json", 3).with_options(options);
        assert_eq!(
            message(&options(json!({ "tolerance": 0.2, "train": { "steps": 4, "seed": 1 } }))),
            "option `tolerance` was 0.1, is 0.2"
        );
        assert_eq!(
            message(&options(json!({ "tolerance": 0.1, "train": { "steps": 5, "seed": 1 } }))),
            "option `train.steps` was 4, is 5"
        );
        assert_eq!(
            message(&options(json!({ "tolerance": 0.1, "train": {} }))),
            "option `train.seed` was 1, is not given"
        );
        assert!(message(&identity().computed_by(Computation(4))).contains("version 3 made the saved result"));
    }

    #[test]
    fn what_is_missing_or_added_differs() {
        let added = identity().with_content("adapter", "bits-4/adapter_model.safetensors", hash(7));
        assert_eq!(message(&added), "adapter changed: bits-4/adapter_model.safetensors has been added");
        let difference = added.first_difference(&identity()).expect("one is missing");
        assert_eq!(difference.to_string(), "adapter changed: bits-4/adapter_model.safetensors is missing");
        assert!(identity().first_difference(&identity().with_option("seed", 1)).is_some());
        assert!(Identity::default().first_difference(&identity()).is_some());
    }

    #[test]
    fn names_and_the_order_of_different_kinds_do_not_count() {
        let moved = Identity::default()
            .computed_by(Computation(3))
            .with_options(json!({ "train": { "seed": 1, "steps": 4 }, "tolerance": 0.1 }))
            .with_content("data", "renamed.json", hash(3))
            .with_content("weights", "a", hash(1))
            .with_content("weights", "b", hash(2));
        assert_eq!(identity().first_difference(&moved), None);
        // Of one kind the order counts: questions are read in it.
        let swapped = Identity::default()
            .computed_by(Computation(3))
            .with_content("weights", "b", hash(2))
            .with_content("weights", "a", hash(1))
            .with(&identity());
        assert!(identity().first_difference(&swapped).is_some());
    }

    #[test]
    fn an_identity_is_read_as_it_was_written_and_a_path_is_none() {
        let text = serde_json::to_string(&identity()).unwrap();
        assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), identity());
        for wrong in [r#"{"model": "a"}"#, r#"{"computation": 1, "parts": [{"path": "a"}]}"#] {
            assert!(serde_json::from_str::<Identity>(wrong).is_err(), "{wrong}");
        }
    }
}
