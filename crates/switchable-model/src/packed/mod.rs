//! Packed models: in memory, and in folders that are written once, mapped into memory, and run from
//! their codes.

pub(crate) mod codes;
pub(crate) mod folder;
pub mod form;
mod quantization_config;

use std::path::Path;

use quant_kernels::backends::quant_backend::QuantBackend;

use self::codes::{as_embedding, merged, packed_embeddings, packed_plan, packed_sites};
use self::folder::{PackedFolder, PackedWriter};
use self::form::{PackOptions, PackedForm};
use crate::config::ModelConfig;
use crate::error::{Result, at_site};
use crate::model::SwitchableModel;
use crate::options::ModelOptions;
use crate::site_plan::SitePlan;

/// A model as codes.
///
/// It is implemented for every model.
pub trait PackModel<B: QuantBackend>: SwitchableModel<B> {
    /// The model with its sites packed, embeddings among them as far as they are below 16 bits, in memory: they
    /// run from their codes and keep no float copy.
    /// Adapters stay, each on the codes of its site; merged ones are in the codes, as
    /// [`save_packed`](Self::save_packed) has them.
    ///
    /// # Errors
    ///
    /// As [`save_packed`](Self::save_packed), and when an adapter has a learned step that is not the
    /// scale of the codes at its width, which names the site.
    fn pack(mut self, form: PackedForm<'_>, options: &PackOptions) -> Result<Self> {
        let plan = packed_plan(&self, form, *options)?;
        if let Some((merged, plan)) = merged(&self, form)? {
            return merged.pack(PackedForm::Plan(&plan), options);
        }
        let sites = self.sites().clone();
        for (site, weights) in packed_sites(&self, form, *options)? {
            let layer = self.site_mut(site);
            let settings = match form {
                // What the plan says is what the site does of itself, as in a folder.
                PackedForm::Plan(plan) => layer.settings().with_quantisation(layer.quantisation(&plan.get(site))),
                PackedForm::Nested => layer.settings(),
            };
            let packed = layer.clone().with_settings(settings).with_packed_weights(weights);
            *layer = packed.map_err(|error| at_site(sites.name(site), error))?;
        }
        for (site, tensor) in packed_embeddings(&self, &plan, *options)? {
            let codes = as_embedding(tensor, matches!(form, PackedForm::Nested))?;
            let embedding = self.embedding_site_mut(site);
            *embedding = embedding.clone().with_packed(codes);
        }
        Ok(self)
    }

    /// Writes a packed folder.
    ///
    /// Adapters are not part of it: they are saved by
    /// [`save_adapters`](crate::adapters::AdapterFolders::save_adapters). Where the
    /// plan names an adapter with a learned step, the step is the scale of the codes: the folder's weight
    /// at that width is then the one that goes with the adapter, which loads onto these codes and no
    /// others. Nested codes have the learned steps of all widths as scales of those widths.
    ///
    /// Where placement is merged, the adapters that the plan names are in the folder's weights, and its plan
    /// names none.
    ///
    /// # Errors
    ///
    /// When a site cannot be packed, which names it: nested codes serve several widths, so that they cannot have
    /// adapters merged into them, and their scales at a width are more than half of those at 8 bits (a quarter
    /// at 7 bits); an adapter with a learned step is not merged. When the
    /// folder cannot be written. No file is left
    /// half written; a folder in which only one of the two was replaced does not load.
    fn save_packed(&self, dir: impl AsRef<Path>, form: PackedForm<'_>, options: &PackOptions) -> Result<()> {
        packed_plan(self, form, *options)?;
        if let Some((merged, plan)) = merged(self, form)? {
            return merged.save_packed(dir, PackedForm::Plan(&plan), options);
        }
        let writer = PackedWriter::new(self, form, *options)?;
        writer.write(dir.as_ref(), Self::Config::LANGUAGE_MODEL, self.named_parameters())
    }

    /// The plan that [`save_packed`](Self::save_packed) packs by and [`load_packed`](Self::load_packed) gives back
    /// for a form: of nested codes every site at 8 bits, with its adapter where that has a learned step.
    ///
    /// # Errors
    ///
    /// When the model cannot run at the form's plan, which names the site.
    fn plan_of(&self, form: PackedForm<'_>, options: &PackOptions) -> Result<SitePlan> {
        packed_plan(self, form, *options)
    }

    /// Opens a packed folder, and gives the plan that it was packed by. The codes stay in the file
    /// and are mapped into memory.
    ///
    /// # Errors
    ///
    /// When a file is missing, damaged or of another version, or does not fit the configuration; the
    /// error names the file and the tensor or field.
    fn load_packed(dir: impl AsRef<Path>, options: &ModelOptions, device: &B::Device) -> Result<(Self, SitePlan)> {
        PackedFolder::<Self::Config>::open(dir.as_ref())?.body(options, device)
    }

    /// Bytes that embeddings and output matrix occupy: codes and scales where they are packed, 4 for each weight
    /// where they are not.
    fn embedding_bytes(&self) -> usize {
        let bytes = |site| match self.embedding_site(site).packed_weights() {
            Some(codes) => codes.bytes(),
            None => self.sites().parameters(site) * size_of::<f32>(),
        };
        self.sites().embeddings().map(bytes).sum()
    }

    /// Bytes that the weights of the linear sites occupy: codes and scales where they are packed, 4 for each
    /// weight where they are not.
    fn site_bytes(&self) -> usize {
        self.sites()
            .iter()
            .map(|site| match self.site(site).packed_weights() {
                Some(weights) => weights.bytes(),
                None => self.sites().parameters(site) * size_of::<f32>(),
            })
            .sum()
    }
}

impl<B: QuantBackend, M: SwitchableModel<B>> PackModel<B> for M {}
