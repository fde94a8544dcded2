//! The model under attack.
//!
//! | file | what |
//! |---|---|
//! | `model_under_attack` | [`Victim`](model_under_attack::Victim): the model, with what attacks need to know about its tokens |
//! | `oracle` | [`Oracle`](oracle::Oracle): access to it under some plans, with every query counted |

pub mod model_under_attack;
pub mod oracle;
