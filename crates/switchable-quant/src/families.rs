//! The families of models, by the `model_type` of a folder's `config.json` or the architecture of a GGUF file.
//!
//! A family is a type, a folder is a path; [`with_family`] leads from one to the other: it calls the task
//! with the right model as its type parameter. A family of a crate of its own needs a row in
//! [`FAMILIES`] only to be found by name; every function of the libraries takes its model as it is.

use std::path::Path;

use gpt2_model::Gpt2;
use llama_model::model::Llama;
#[cfg(feature = "experiments")]
use quant_kernels::backends::quant_backend::QuantAutodiffBackend;
use quant_kernels::backends::quant_backend::QuantBackend;
use switchable_model::config::read_family;
use switchable_model::model::SwitchableModel;
#[cfg(feature = "experiments")]
use switchable_model::model::TrainableModel;

use crate::error::Result;

/// Work that is written once for every family.
pub trait WithFamily<B: QuantBackend> {
    /// What the work gives back. It does not depend on the family.
    type Output;

    /// Does the work with models of type `M`.
    fn run<M: SwitchableModel<B>>(self) -> Self::Output;
}

/// Work that is written once for every family and trains.
#[cfg(feature = "experiments")]
pub trait WithTrainableFamily<B: QuantAutodiffBackend> {
    /// What the work gives back. It does not depend on the family.
    type Output;

    /// Does the work with models of type `M`.
    fn run<M: TrainableModel<B>>(self) -> Self::Output;
}

macro_rules! families {
    ($($name:literal => $model:ident,)*) => {
        /// What `model_type` may be, and the architecture of a GGUF file.
        pub const FAMILIES: &[&str] = &[$($name),*];

        /// Runs a task on the family of the model in a folder or a GGUF file.
        ///
        /// # Errors
        ///
        /// When `config.json` cannot be read, or its `model_type` is none of [`FAMILIES`], which the error
        /// lists. The task's own failures are in its output.
        pub fn with_family<B: QuantBackend, T: WithFamily<B>>(dir: impl AsRef<Path>, task: T) -> Result<T::Output> {
            match read_family(dir, FAMILIES)?.as_str() {
                $($name => Ok(task.run::<$model<B>>()),)*
                _ => unreachable!("a family is one of those that are listed"),
            }
        }

        /// Runs a task that trains on the family of the model in a folder or a GGUF file.
        ///
        /// # Errors
        ///
        /// As [`with_family`].
        #[cfg(feature = "experiments")]
        pub fn with_trainable_family<B: QuantAutodiffBackend, T: WithTrainableFamily<B>>(
            dir: impl AsRef<Path>,
            task: T,
        ) -> Result<T::Output> {
            match read_family(dir, FAMILIES)?.as_str() {
                $($name => Ok(task.run::<$model<B>>()),)*
                _ => unreachable!("a family is one of those that are listed"),
            }
        }
    };
}

families! {
    "gpt2" => Gpt2,
    "llama" => Llama,
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::backend::Flex;

    struct Blocks;

    impl WithFamily<Flex> for Blocks {
        type Output = usize;

        fn run<M: SwitchableModel<Flex>>(self) -> usize {
            size_of::<M>()
        }
    }

    #[test]
    fn a_folder_of_no_known_family_is_an_error_that_lists_the_families() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
        let message = with_family::<Flex, _>(dir.path(), Blocks).unwrap_err().to_string();
        assert!(message.contains("config.json") && message.contains("\"bert\""), "{message}");
        for family in FAMILIES {
            assert!(message.contains(family), "{message}");
            std::fs::write(dir.path().join("config.json"), format!(r#"{{"model_type": "{family}"}}"#)).unwrap();
            assert!(with_family::<Flex, _>(dir.path(), Blocks).unwrap() > 0);
        }
    }

    #[test]
    fn a_folder_without_a_configuration_is_an_error_that_names_it() {
        let message = with_family::<Flex, _>("no/such/folder", Blocks).unwrap_err().to_string();
        assert!(message.contains("no/such/folder/config.json"), "{message}");
    }
}
