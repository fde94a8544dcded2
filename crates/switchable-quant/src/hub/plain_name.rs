//! Names that are safe in paths and addresses.

/// Whether a text can only be one part of a path and of an address, the same in both.
pub(super) fn is_plain_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}
