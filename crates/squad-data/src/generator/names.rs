//! Full names of fictional people, and which of them are held out.

use super::Split;

/// Given names: all different, and none of them a family name or a value.
pub(super) const GIVEN: [&str; 60] = [
    "Ada", "Alma", "Anton", "Aron", "Bela", "Bruno", "Cara", "Clara", "Colin", "Dana", "Dario", "Edda", "Elsa", "Emil",
    "Enzo", "Erik", "Felix", "Fiona", "Freya", "Gina", "Greta", "Gus", "Hanna", "Hugo", "Ida", "Igor", "Iris", "Ivan",
    "Jana", "Jonas", "Karl", "Kira", "Lara", "Leo", "Lina", "Luca", "Magda", "Mara", "Max", "Mina", "Mira", "Nadia",
    "Nils", "Nora", "Olga", "Oscar", "Otto", "Petra", "Rita", "Rolf", "Sara", "Silas", "Tara", "Theo", "Tilda", "Uma",
    "Vera", "Viktor", "Wanda", "Zora",
];

/// Family names: all different, and none of them a given name or a value.
pub(super) const FAMILY: [&str; 60] = [
    "Abbot", "Alder", "Ashby", "Barrow", "Birch", "Blake", "Bolt", "Brand", "Brook", "Castle", "Cliff", "Crane",
    "Dale", "Drake", "Dunn", "Fell", "Finch", "Flint", "Ford", "Fox", "Frost", "Glen", "Grant", "Hart", "Hawk",
    "Heath", "Hill", "Holt", "Hood", "Keller", "Kestrel", "Lake", "Lamb", "Lang", "Marsh", "Moor", "Moss", "Nash",
    "Noble", "North", "Park", "Pike", "Pond", "Quill", "Reed", "Ridge", "Rook", "Sharp", "Shaw", "Slate", "Stark",
    "Stone", "Swan", "Thorn", "Vale", "Ward", "West", "Wolf", "Wood", "York",
];

/// One name in [`HELD_OUT_ONE_IN`] belongs to the dev split.
const HELD_OUT_ONE_IN: u32 = 5;

/// The split that may use the name `GIVEN[given] FAMILY[family]`.
///
/// A hash of the two positions decides, never the seed: a train and a dev corpus share no full
/// name whatever their seeds, while every given name and every family name occurs in both.
pub(super) fn split_of(given: usize, family: usize) -> Split {
    let position = (given * FAMILY.len() + family) as u32;
    // Two rounds of a multiply-and-shift mixer: neighbouring positions fall independently.
    let mut hash = position.wrapping_add(0x9e37_79b9);
    for multiplier in [0x85eb_ca6b_u32, 0xc2b2_ae35] {
        hash ^= hash >> 16;
        hash = hash.wrapping_mul(multiplier);
    }
    hash ^= hash >> 16;
    if hash.is_multiple_of(HELD_OUT_ONE_IN) { Split::Dev } else { Split::Train }
}
