//! The quantisable matrices of a model.
//!
//! A *site* is one linear sub-module of one block, or an embedding or output matrix that stands outside of the
//! blocks. Its name is its module path in the Hugging Face model without the prefix of the body:
//! `h.3.attn.c_attn`, `layers.3.self_attn.q_proj`, `wte`, `lm_head`.

pub mod sub_module;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::sub_module::SubModule;

/// The output matrix of a language model, where it is not the token embedding.
pub const LM_HEAD: SubModule = SubModule::new("lm_head");

/// One quantisable matrix of a model, by its place.
///
/// Its name has the word of the family for a block in it: [`Sites::name`] gives it.
///
/// As JSON `{"block":3,"module":"attn.c_attn"}`, and `{"module":"wte"}` outside of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// Block, counted from 0; `None` for embeddings and output matrices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// Sub-module of the block, or of the body.
    pub module: SubModule,
}

impl Site {
    /// A linear sub-module of a block.
    pub const fn in_block(block: usize, module: SubModule) -> Self {
        Self { block: Some(block), module }
    }

    /// An embedding or output matrix.
    pub const fn embedding(module: SubModule) -> Self {
        Self { block: None, module }
    }

    /// Its name in a model whose word for a block is `block_word`, such as `h`.
    pub fn name(self, block_word: &str) -> String {
        match self.block {
            Some(block) => format!("{block_word}.{block}.{}", self.module),
            None => self.module.to_string(),
        }
    }
}

/// All sites of a model: the same sub-modules in every block, and the embeddings. Cheap to clone.
///
/// [`iter`](Self::iter), [`len`](Self::len) and [`all_parameters`](Self::all_parameters) are of the linear sites
/// in the blocks, which have adapters and which searches change; [`embeddings`](Self::embeddings) are the others.
///
/// ```
/// use switchable_model::sites::{Site, Sites, sub_module::SubModule};
///
/// const UP: SubModule = SubModule::new("mlp.up");
/// const WTE: SubModule = SubModule::new("wte");
/// let sites = Sites::new("h", 12, [(UP, [8, 32]), (SubModule::new("mlp.down"), [32, 8])]);
/// let sites = sites.with_embeddings([(WTE, [97, 8])]);
/// assert_eq!(sites.len(), 24);
/// assert_eq!(sites.name(Site::in_block(3, UP)), "h.3.mlp.up");
/// assert_eq!(sites.parameters(Site::in_block(3, UP)), 256);
/// assert_eq!(sites.find("wte"), Some(Site::embedding(WTE)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sites(Arc<Table>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Table {
    block_word: &'static str,
    blocks: usize,
    /// In the order in which a block applies them.
    modules: Vec<(SubModule, [usize; 2])>,
    /// Embeddings and the output matrix, `[rows, width]`.
    embeddings: Vec<(SubModule, [usize; 2])>,
}

impl Sites {
    /// The sites of `blocks` equal blocks: their sub-modules in the order in which a block applies
    /// them, each with the shape `[d_in, d_out]` of its weight.
    pub fn new(
        block_word: &'static str,
        blocks: usize,
        modules: impl IntoIterator<Item = (SubModule, [usize; 2])>,
    ) -> Self {
        let modules = modules.into_iter().collect();
        Self(Arc::new(Table { block_word, blocks, modules, embeddings: Vec::new() }))
    }

    /// The same with embeddings and output matrices, each with its shape `[rows, width]`, in the order of the
    /// forward pass.
    #[must_use]
    pub fn with_embeddings(self, embeddings: impl IntoIterator<Item = (SubModule, [usize; 2])>) -> Self {
        let embeddings = embeddings.into_iter().collect();
        Self(Arc::new(Table { embeddings, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Number of linear sites.
    pub fn len(&self) -> usize {
        self.0.blocks * self.0.modules.len()
    }

    /// Whether there is no linear site.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The word for a block in names, such as `h`.
    pub fn block_word(&self) -> &'static str {
        self.0.block_word
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.0.blocks
    }

    /// The sub-modules of a block, in the order in which it applies them.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = SubModule> + '_ {
        self.0.modules.iter().map(|&(module, _)| module)
    }

    /// The linear sites, block by block.
    pub fn iter(&self) -> impl Iterator<Item = Site> + use<> {
        let table = Arc::clone(&self.0);
        let sites = self.len();
        (0..sites).map(move |index| {
            let modules = table.modules.len();
            Site::in_block(index / modules, table.modules[index % modules].0)
        })
    }

    /// Embeddings and output matrices, in the order of the forward pass.
    pub fn embeddings(&self) -> impl ExactSizeIterator<Item = Site> + use<> {
        let table = Arc::clone(&self.0);
        (0..table.embeddings.len()).map(move |index| Site::embedding(table.embeddings[index].0))
    }

    /// Where a sub-module stands in its block; `None` if the blocks have no such sub-module.
    pub fn module_index(&self, module: SubModule) -> Option<usize> {
        self.0.modules.iter().position(|&(other, _)| other == module)
    }

    /// Where a linear site stands in [`iter`](Self::iter), and an embedding in [`embeddings`](Self::embeddings).
    ///
    /// # Panics
    ///
    /// When there is no such site.
    pub fn index(&self, site: Site) -> usize {
        let index = match site.block {
            Some(block) if block < self.0.blocks => {
                self.module_index(site.module).map(|module| block * self.0.modules.len() + module)
            }
            Some(_) => None,
            None => self.0.embeddings.iter().position(|&(module, _)| module == site.module),
        };
        index.unwrap_or_else(|| panic!("the model has no site `{}`", self.name(site)))
    }

    /// Shape of a site's weight, `[d_in, d_out]`, and of an embedding, `[rows, width]`.
    ///
    /// # Panics
    ///
    /// When there is no such site.
    pub fn shape(&self, site: Site) -> [usize; 2] {
        let index = self.index(site);
        let (_, shape) = match site.block {
            Some(_) => self.0.modules[index % self.0.modules.len()],
            None => self.0.embeddings[index],
        };
        shape
    }

    /// Number of weights of a site, biases not counted.
    ///
    /// # Panics
    ///
    /// When there is no such site.
    pub fn parameters(&self, site: Site) -> usize {
        self.shape(site).iter().product()
    }

    /// Number of weights of all linear sites, biases not counted.
    pub fn all_parameters(&self) -> usize {
        let block: usize = self.0.modules.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        self.0.blocks * block
    }

    /// The name of a site, such as `h.3.attn.c_attn`.
    pub fn name(&self, site: Site) -> String {
        site.name(self.0.block_word)
    }

    /// The name of a block, such as `h.3`.
    pub fn block_name(&self, block: usize) -> String {
        format!("{}.{block}", self.0.block_word)
    }

    /// The names of the embeddings and output matrices.
    pub fn embedding_names(&self) -> Vec<String> {
        self.embeddings().map(|site| self.name(site)).collect()
    }

    /// The site of a name; `None` if there is none.
    pub fn find(&self, name: &str) -> Option<Site> {
        self.iter().chain(self.embeddings()).find(|&site| self.name(site) == name)
    }

    /// The block that a name of a parameter stands in, whether the model has that block or not; `None`
    /// if it stands in no block.
    pub(crate) fn block_of(&self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(self.0.block_word)?.strip_prefix('.')?;
        rest.split('.').next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: SubModule = SubModule::new("self_attn.q_proj");
    const DOWN: SubModule = SubModule::new("mlp.down_proj");

    fn sites() -> Sites {
        Sites::new("layers", 3, [(QUERY, [8, 16]), (DOWN, [24, 8])])
    }

    #[test]
    fn sites_stand_block_by_block_in_the_order_of_their_modules() {
        let sites = sites();
        let names: Vec<String> = sites.iter().map(|site| sites.name(site)).collect();
        assert_eq!(names.len(), sites.len());
        assert_eq!(names[..3], ["layers.0.self_attn.q_proj", "layers.0.mlp.down_proj", "layers.1.self_attn.q_proj"]);
        for (index, site) in sites.iter().enumerate() {
            assert_eq!(sites.index(site), index);
            assert_eq!(sites.find(&sites.name(site)), Some(site));
        }
        assert_eq!(sites.find("layers.3.mlp.down_proj"), None);
        assert_eq!(sites.all_parameters(), sites.iter().map(|site| sites.parameters(site)).sum::<usize>());
    }

    #[test]
    fn the_block_of_a_parameter_is_read_from_its_name() {
        let sites = sites();
        assert_eq!(sites.block_of("layers.7.input_layernorm.weight"), Some(7));
        for name in ["embed_tokens.weight", "layers", "layersx.1.mlp", "layers.x.mlp"] {
            assert_eq!(sites.block_of(name), None, "{name}");
        }
    }

    #[test]
    fn json_of_a_site_is_its_block_and_its_module() {
        let site = Site::in_block(3, QUERY);
        let json = r#"{"block":3,"module":"self_attn.q_proj"}"#;
        assert_eq!(serde_json::to_string(&site).unwrap(), json);
        assert_eq!(serde_json::from_str::<Site>(json).unwrap(), site);
        let embedding = Site::embedding(SubModule::new("wte"));
        assert_eq!(serde_json::to_string(&embedding).unwrap(), r#"{"module":"wte"}"#);
        assert_eq!(serde_json::from_str::<Site>(r#"{"module":"wte"}"#).unwrap(), embedding);
    }

    #[test]
    fn embeddings_stand_outside_of_the_blocks() {
        let wte = SubModule::new("wte");
        let sites = sites().with_embeddings([(wte, [97, 8]), (LM_HEAD, [97, 8])]);
        assert_eq!((sites.len(), sites.all_parameters()), (6, 3 * (8 * 16 + 24 * 8)));
        assert_eq!(sites.embedding_names(), ["wte", "lm_head"]);
        let head = Site::embedding(LM_HEAD);
        assert_eq!((sites.find("lm_head"), sites.index(head)), (Some(head), 1));
        assert_eq!((sites.shape(head), sites.parameters(head)), ([97, 8], 97 * 8));
    }

    #[test]
    #[should_panic(expected = "the model has no site `layers.3.self_attn.q_proj`")]
    fn a_site_beyond_the_last_block_has_no_index() {
        sites().index(Site::in_block(3, QUERY));
    }
}
