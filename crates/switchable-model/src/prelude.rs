//! The traits of every model, and the names that most programs need with them:
//! `use switchable_model::prelude::*;`.

pub use crate::adapters::AdapterFolders;
pub use crate::config::ModelConfig;
pub use crate::generate::Generate;
pub use crate::model::{SwitchableModel, TrainableModel};
pub use crate::model_weights::ModelWeights;
pub use crate::named_plans::NamedPlans;
pub use crate::options::ModelOptions;
pub use crate::packed::PackModel;
pub use crate::site_plan::SitePlan;
pub use crate::sites::{Site, Sites, sub_module::SubModule};
