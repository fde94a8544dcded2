//! Adapters of a model with a span head on disk: those of its body, with the heads that they bring.

use std::path::Path;

use quant_kernels::{backends::quant_backend::QuantBackend, spec::bit_width::BitWidth};
use switchable_lora::linear_settings::BasePolicy;

use crate::adapters::{
    AdapterFolder, LoadedAdapters, peft_options, read_folder, read_widths, save_widths, take_adapter,
};
use crate::config::ModelConfig;
use crate::error::{Result, in_file};
use crate::model::SwitchableModel;
use crate::span_head::ForQuestionAnswering;
use crate::width_heads::{HEAD_MODULE, SpanHead};

/// What PEFT calls the task of such a model.
const TASK: &str = "QUESTION_ANS";

impl<B: QuantBackend, M: SwitchableModel<B>> ForQuestionAnswering<B, M> {
    /// Saves the adapters of every width, each with the head that belongs to it, in the place of all that
    /// the folder has; names are those of the family's class with a span head.
    ///
    /// # Errors
    ///
    /// When a folder cannot be written; what was there before stays.
    pub fn save_adapters(&self, dir: impl AsRef<Path>, base_model: &str) -> Result<()> {
        save_widths(&self.transformer, dir.as_ref(), |width| {
            let mut options = peft_options(&self.transformer, M::Config::SPAN_BODY, base_model, width);
            if let Some(head) = self.width_head(width) {
                options.task_type = Some(TASK.into());
                options.saved_modules.push(head.to_saved_module());
            }
            options
        })
    }

    /// Loads the adapters of every width found in a folder, replacing those of the same width; a head that an
    /// adapter brings (`modules_to_save: ["qa_outputs"]`) becomes the head of its width.
    ///
    /// # Errors
    ///
    /// As [`AdapterFolders::load_adapters`](crate::adapters::AdapterFolders::load_adapters), and when an adapter
    /// brings another module, which is named, or a head of another size.
    pub fn load_adapters(&mut self, dir: impl AsRef<Path>) -> Result<LoadedAdapters> {
        let (loaded, folders) = read_widths::<B, M>(&self.transformer, dir.as_ref(), &[HEAD_MODULE])?;
        self.take(folders)?;
        Ok(loaded)
    }

    /// Loads one adapter folder, as PEFT writes it, for a width.
    ///
    /// # Errors
    ///
    /// As [`load_adapters`](Self::load_adapters).
    pub fn load_adapter(&mut self, dir: impl AsRef<Path>, width: BitWidth) -> Result<LoadedAdapters> {
        let folder = read_folder::<B, M>(&self.transformer, dir.as_ref(), width, &[HEAD_MODULE])?;
        let loaded = folder.as_loaded();
        self.take([folder])?;
        Ok(loaded)
    }

    /// Takes out the adapters of all widths, with the heads that they brought.
    pub fn drop_adapters(&mut self) {
        self.keep_adapters(&[]);
    }

    /// Takes out the adapters of all other widths, with the heads that they brought.
    pub fn keep_adapters(&mut self, widths: &[BitWidth]) {
        let others = |all: &[BitWidth]| all.iter().copied().filter(|width| !widths.contains(width)).collect::<Vec<_>>();
        for site in self.transformer.sites().clone().iter() {
            let layer = self.transformer.site_mut(site);
            for width in others(layer.bank().widths()) {
                layer.remove_adapter(width);
            }
        }
        for width in others(self.head_widths()) {
            self.set_width_head(width, None);
        }
    }

    /// Takes adapters and heads, all or none.
    fn take(&mut self, folders: impl IntoIterator<Item = AdapterFolder<B>>) -> Result<()> {
        let mut changed = self.clone();
        let shape = [2, self.transformer.shape().width];
        let train = self.transformer.settings().base == BasePolicy::Trainable;
        for mut folder in folders {
            // Only this module is let through when the folder is read.
            let head = folder.adapter.saved_modules.pop();
            if let Some(head) = &head {
                head.check_shape(shape).map_err(|error| in_file(&folder.path, error))?;
            }
            let device = self.transformer.device();
            let head = head.map(|head| SpanHead::new(head.weight, head.bias, &device).with_gradients(train));
            changed.set_width_head(folder.width, head);
            take_adapter(&mut changed.transformer, folder)?;
        }
        *self = changed;
        Ok(())
    }
}
