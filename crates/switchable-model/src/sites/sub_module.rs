//! The name of a linear sub-module inside its block.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Most bytes of a name.
const CAPACITY: usize = 31;

/// The module path of a linear layer inside its block, such as `attn.c_attn`.
///
/// The name is held inline, in at most 31 bytes, so that a [`Site`](super::Site) is plain data
/// whatever the model. Names are ordered and serialised as strings.
///
/// ```
/// use switchable_model::sites::sub_module::SubModule;
///
/// const GATE: SubModule = SubModule::new("mlp.gate_proj");
/// assert_eq!(GATE.name(), "mlp.gate_proj");
/// assert_eq!(serde_json::to_string(&GATE)?, "\"mlp.gate_proj\"");
/// # Ok::<(), serde_json::Error>(())
/// ```
// Behind the name all bytes are zero: the derived order is that of the strings.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubModule {
    bytes: [u8; CAPACITY],
    len: u8,
}

impl SubModule {
    /// A name known when the program is compiled.
    ///
    /// # Panics
    ///
    /// When it is empty or longer than 31 bytes.
    pub const fn new(name: &'static str) -> Self {
        assert!(fits(name), "the name of a sub-module has 1 to 31 bytes, none of them zero");
        Self::from_fitting(name)
    }

    const fn from_fitting(name: &str) -> Self {
        let (name, mut bytes, mut i) = (name.as_bytes(), [0; CAPACITY], 0);
        while i < name.len() {
            bytes[i] = name[i];
            i += 1;
        }
        Self { bytes, len: name.len() as u8 }
    }

    /// Module path inside the block.
    pub fn name(&self) -> &str {
        match std::str::from_utf8(&self.bytes[..usize::from(self.len)]) {
            Ok(name) => name,
            Err(error) => unreachable!("the bytes are those of a string: {error}"),
        }
    }
}

/// Whether a name can be held.
const fn fits(name: &str) -> bool {
    let (name, mut i) = (name.as_bytes(), 0);
    while i < name.len() {
        if name[i] == 0 {
            return false;
        }
        i += 1;
    }
    !name.is_empty() && name.len() <= CAPACITY
}

impl TryFrom<&str> for SubModule {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        if fits(name) {
            Ok(Self::from_fitting(name))
        } else {
            Err(Error::Option { field: "sub-module", got: format!("{name:?}"), expected: "a name of 1 to 31 bytes" })
        }
    }
}

impl fmt::Debug for SubModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubModule").field(&self.name()).finish()
    }
}

impl fmt::Display for SubModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for SubModule {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for SubModule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::try_from(&*name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_ordered_as_strings() {
        let names = ["attn.c_attn", "attn.c_proj", "mlp", "mlp.c_fc", "mlp.c_proj", "self_attn.q_proj"];
        let modules = names.map(|name| SubModule::try_from(name).unwrap());
        assert!(modules.is_sorted());
        assert_eq!(modules.map(|module| module.to_string()), names);
    }

    #[test]
    fn json_is_the_name_and_refuses_what_does_not_fit() {
        let module = SubModule::new("attn.c_attn");
        assert_eq!(serde_json::to_string(&module).unwrap(), "\"attn.c_attn\"");
        assert_eq!(serde_json::from_str::<SubModule>("\"attn.c_attn\"").unwrap(), module);
        let longest = "m".repeat(31);
        assert_eq!(SubModule::try_from(longest.as_str()).unwrap().name(), longest);
        for bad in ["", &"m".repeat(32), "a\0b"] {
            assert!(SubModule::try_from(bad).unwrap_err().to_string().contains("sub-module"), "{bad:?}");
        }
        assert!(serde_json::from_str::<SubModule>("\"\"").is_err());
    }
}
