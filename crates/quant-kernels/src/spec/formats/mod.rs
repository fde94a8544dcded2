//! Number formats: which real numbers codes stand for.
//!
//! | format | file |
//! |---|---|
//! | which formats there are | `format` |
//! | the table of NF4 | `normal_float` |
//! | what a format gives to kernels: `nearest(x / s)` and `value(code)` | `code_book` |

pub mod code_book;
pub mod format;
pub(crate) mod normal_float;
