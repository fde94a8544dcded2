//! Panics that are wanted.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Asserts that `work` panics with a message that contains `expected`.
///
/// `#[should_panic]` is for a whole test, so that a test that passes early, as one does without its device, would
/// fail.
///
/// # Panics
///
/// If `work` does not panic, or says something else.
#[track_caller]
pub fn assert_panics(expected: &str, work: impl FnOnce()) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(work)) else {
        panic!("there was no panic, expected: {expected}");
    };
    let got = payload.downcast_ref::<String>().map(String::as_str);
    let got = got.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
    assert!(got.contains(expected), "the panic was: {got}\nexpected: {expected}");
}

#[cfg(test)]
mod tests {
    use super::assert_panics;

    #[test]
    fn the_message_is_looked_at() {
        assert_panics("of 3", || panic!("one of {}", 3));
        assert_panics("text", || panic!("a text"));
        assert_panics("there was no panic, expected: x", || assert_panics("x", || ()));
        assert_panics("the panic was: y", || assert_panics("x", || panic!("y")));
    }
}
