//! The metadata of a file: keys with typed values.
//!
//! Texts and lists stay where they are in the file: a vocabulary of 100,000 tokens is walked once, to check its
//! lengths, and read where somebody asks for it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::cursor::{Cursor, utf8};
use super::fault::fault;
use crate::error::{Error, Result};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Whole(i128),
    Float(f64),
    Flag(bool),
    Text(Range<usize>),
    List(List),
}

/// Values of one kind, one behind the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct List {
    kind: Kind,
    len: usize,
    bytes: Range<usize>,
}

/// The kinds of values, by their numbers in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    List,
    U64,
    I64,
    F64,
}

const KINDS: [Kind; 13] = [
    Kind::U8,
    Kind::I8,
    Kind::U16,
    Kind::I16,
    Kind::U32,
    Kind::I32,
    Kind::F32,
    Kind::Bool,
    Kind::Text,
    Kind::List,
    Kind::U64,
    Kind::I64,
    Kind::F64,
];

impl Kind {
    fn read(cursor: &mut Cursor<'_>, path: &Path, place: &str) -> Result<Self> {
        let number = cursor.u32(place)?;
        let kind = usize::try_from(number).ok().and_then(|number| KINDS.get(number));
        kind.copied().ok_or_else(|| {
            fault(path, place, format!("of type {number}"), format!("a type from 0 to {}", KINDS.len() - 1))
        })
    }

    /// The bytes of a value, where all have as many.
    fn bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::List => None,
        }
    }
}

/// The longest key, in bytes, that the format allows.
const LONGEST_KEY: usize = 65_535;

/// A key, the kind of its value and a value of one byte.
const SHORTEST_PAIR: usize = 8 + 1 + 4 + 1;

/// The metadata of a file, by key.
#[derive(Debug)]
pub(super) struct Metadata(BTreeMap<String, Value>);

impl Metadata {
    /// Reads `count` pairs.
    pub(super) fn read(cursor: &mut Cursor<'_>, count: usize, path: &Path) -> Result<Self> {
        let mut values = BTreeMap::new();
        for index in 0..count {
            let key = cursor.checked_text(&format!("metadata {index}: key"))?;
            let place = place_of(key);
            if key.is_empty() || key.len() > LONGEST_KEY {
                let expected = format!("a key of 1 to {LONGEST_KEY} bytes");
                return Err(fault(
                    path,
                    &format!("metadata {index}"),
                    format!("a key of {} bytes", key.len()),
                    expected,
                ));
            }
            let value = read_value(cursor, path, &place)?;
            if values.insert(key.to_owned(), value).is_some() {
                return Err(fault(path, &place, "there twice".into(), "each key once".into()));
            }
        }
        Ok(Self(values))
    }

    /// How many pairs the bytes that follow have room for.
    pub(super) const fn shortest_pair() -> usize {
        SHORTEST_PAIR
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// What errors call a key.
pub(super) fn place_of(key: &str) -> String {
    format!("metadata `{key}`")
}

fn read_value(cursor: &mut Cursor<'_>, path: &Path, place: &str) -> Result<Value> {
    let kind = Kind::read(cursor, path, place)?;
    Ok(match kind {
        Kind::Text => {
            let end = cursor.checked_text(place)?.len();
            Value::Text(cursor.position() - end..cursor.position())
        }
        Kind::List => Value::List(read_list(cursor, path, place)?),
        Kind::Bool => match cursor.array(place)? {
            [0] => Value::Flag(false),
            [1] => Value::Flag(true),
            [other] => return Err(fault(path, place, other.to_string(), "0 or 1, for false or true".into())),
        },
        Kind::U8 => Value::Whole(u8::from_le_bytes(cursor.array(place)?).into()),
        Kind::I8 => Value::Whole(i8::from_le_bytes(cursor.array(place)?).into()),
        Kind::U16 => Value::Whole(u16::from_le_bytes(cursor.array(place)?).into()),
        Kind::I16 => Value::Whole(i16::from_le_bytes(cursor.array(place)?).into()),
        Kind::U32 => Value::Whole(u32::from_le_bytes(cursor.array(place)?).into()),
        Kind::I32 => Value::Whole(i32::from_le_bytes(cursor.array(place)?).into()),
        Kind::U64 => Value::Whole(u64::from_le_bytes(cursor.array(place)?).into()),
        Kind::I64 => Value::Whole(i64::from_le_bytes(cursor.array(place)?).into()),
        Kind::F32 => Value::Float(f32::from_le_bytes(cursor.array(place)?).into()),
        Kind::F64 => Value::Float(f64::from_le_bytes(cursor.array(place)?)),
    })
}

fn read_list(cursor: &mut Cursor<'_>, path: &Path, place: &str) -> Result<List> {
    let kind = Kind::read(cursor, path, place)?;
    if kind == Kind::List {
        return Err(fault(path, place, "a list of lists".into(), "a list of numbers or texts".into()));
    }
    let len = cursor.count(kind.bytes().unwrap_or(size_of::<u64>()), place)?;
    let start = cursor.position();
    match kind.bytes() {
        // The count is of what the file has room for.
        Some(bytes) => _ = cursor.range(len * bytes, place)?,
        None => {
            for _ in 0..len {
                cursor.text(place)?;
            }
        }
    }
    Ok(List { kind, len, bytes: start..cursor.position() })
}

impl List {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The texts of a list of texts.
    pub(super) fn texts<'a>(&self, bytes: &'a [u8], path: &Path, place: &str) -> Result<Vec<&'a str>> {
        if self.kind != Kind::Text {
            return Err(self.other(path, place, "texts"));
        }
        let bytes = &bytes[self.bytes.clone()];
        let mut cursor = Cursor::new(bytes, path);
        let text = |index| {
            let range = cursor.text(place)?;
            utf8(path, &bytes[range], &format!("{place}[{index}]"))
        };
        (0..self.len).map(text).collect()
    }

    /// The numbers of a list of whole numbers of 32 bits.
    pub(super) fn numbers(&self, bytes: &[u8], path: &Path, place: &str) -> Result<Vec<i64>> {
        let (numbers, _) = bytes[self.bytes.clone()].as_chunks::<4>();
        match self.kind {
            Kind::I32 => Ok(numbers.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect()),
            Kind::U32 => Ok(numbers.iter().map(|bytes| u32::from_le_bytes(*bytes).into()).collect()),
            _ => Err(self.other(path, place, "whole numbers of 32 bits")),
        }
    }

    fn other(&self, path: &Path, place: &str, expected: &str) -> Error {
        fault(path, place, format!("a list of {:?}", self.kind), format!("a list of {expected}"))
    }
}
