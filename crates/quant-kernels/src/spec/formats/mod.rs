//! Number formats: which real numbers codes stand for.
//!
//! | format | file |
//! |---|---|
//! | which formats there are | `format` |
//! | what a format gives to kernels: `nearest(x / s)` and `value(code)` | `code_book` |

pub mod code_book;
pub mod format;
