//! A JSON object whose entries keep the order of the file.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::Value;

/// The entries of a JSON object in the order in which they stand, no name twice.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct OrderedMap(pub(super) Vec<(String, Value)>);

impl OrderedMap {
    /// The value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find_map(|(key, value)| (key == name).then_some(value))
    }
}

impl<'de> Deserialize<'de> for OrderedMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = OrderedMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a json object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<OrderedMap, A::Error> {
                let mut map = OrderedMap::default();
                while let Some(name) = entries.next_key::<String>()? {
                    if map.get(&name).is_some() {
                        return Err(A::Error::custom(format_args!("field `{name}` stands there twice")));
                    }
                    map.0.push((name, entries.next_value()?));
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_order_and_none_stands_there_twice() {
        let map: OrderedMap = serde_json::from_str(r#"{"z": 1, "a": {"y": 2}, "m": null}"#).unwrap();
        assert_eq!(map.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["z", "a", "m"]);
        assert_eq!(map.get("a"), Some(&serde_json::json!({ "y": 2 })));
        let message = serde_json::from_str::<OrderedMap>(r#"{"a": 1, "a": 1}"#).unwrap_err().to_string();
        assert!(message.contains("field `a` stands there twice"), "{message}");
    }
}
