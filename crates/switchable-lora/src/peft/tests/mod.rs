mod configurations;
mod learned_steps;
mod saves;
mod tensors;

use std::collections::BTreeMap;

use burn::{
    backend::Flex,
    tensor::{Tensor, TensorData, bf16, f16},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use quant_kernels::{spec::granularity::Granularity, tensor::learned_step::LearnedStep};

use super::*;
use crate::peft::{
    learned_steps::{LEARNED_STEPS_FILE, parse_learned_steps},
    load::{AdapterNames, load_peft, read_adapter},
    save::{WidthAdapters, save_bank, save_peft},
    trained_for::TRAINED_FOR_FILE,
};
use crate::{
    adapter_pair::LoraAdapterPair, lora_config::LoraConfig, placement::Placement,
    quantisation_settings::QuantisationSettings,
};

type Pairs = BTreeMap<String, LoraAdapterPair<Flex>>;

const PREFIX: &str = "transformer.";

/// A pair whose factors are both filled.
fn pair(rank: usize, alpha: f64, [d_in, d_out]: [usize; 2], seed: u64) -> LoraAdapterPair<Flex> {
    let config = LoraConfig::new(rank, alpha).unwrap();
    let device = Default::default();
    let a = LoraAdapterPair::<Flex>::adding_nothing(&config, [d_in, 1], seed, &device).a.val();
    let b = LoraAdapterPair::<Flex>::adding_nothing(&config, [d_out, 1], seed + 1, &device).a.val();
    LoraAdapterPair::from_factors(a, b.transpose(), alpha).unwrap()
}

fn pairs() -> Pairs {
    let attn = (0..3).map(|block| (format!("h.{block}.attn.c_attn"), pair(4, 8.0, [6, 18], block)));
    let odd = [
        ("h.1.mlp.c_fc".to_owned(), pair(2, 8.0, [6, 24], 11)),
        ("h.2.mlp.c_fc".to_owned(), pair(4, 2.5, [6, 24], 12)),
    ];
    attn.chain(odd).collect()
}

fn options() -> PeftOptions {
    PeftOptions {
        prefix: PREFIX.into(),
        base_model: "openai-community/gpt2".into(),
        task_type: Some("QUESTION_ANS".into()),
        base_layer: BaseLayer::Conv1d,
        saved_modules: Vec::new(),
        trained_for: None,
    }
}

fn saved(pairs: &Pairs) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    save_peft(&dir, pairs.iter().map(|(site, pair)| (site.as_str(), pair)), &options()).unwrap();
    dir
}

fn load(dir: &TempDir) -> Result<Pairs> {
    load_peft(dir, PREFIX, &Default::default())
}

fn message(dir: &TempDir) -> String {
    load(dir).unwrap_err().to_string()
}

fn values<const D: usize>(tensor: Tensor<Flex, D>) -> Vec<f32> {
    tensor.into_data().to_vec().unwrap()
}

fn edit_config(dir: &TempDir, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.path().join(CONFIG_FILE);
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
}

type OwnedTensor = (Dtype, Vec<usize>, Vec<u8>);

fn edit_tensors(dir: &TempDir, edit: impl FnOnce(&mut BTreeMap<String, OwnedTensor>)) {
    edit_tensors_of(dir, MODEL_FILE, edit, |_| ());
}

type Metadata = std::collections::HashMap<String, String>;

fn edit_tensors_of(
    dir: &TempDir,
    file: &str,
    edit: impl FnOnce(&mut BTreeMap<String, OwnedTensor>),
    edit_metadata: impl FnOnce(&mut Metadata),
) {
    let path = dir.path().join(file);
    let bytes = fs::read(&path).unwrap();
    let mut metadata = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    edit_metadata(&mut metadata);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = file
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    edit(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    fs::write(&path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

/// The names that `expected` accepts, and the sites that have an adapter.
fn read(dir: &TempDir, saved_modules: &[&str]) -> Result<crate::peft::load::PeftAdapter<Flex>> {
    let names = AdapterNames { prefixes: &["model.", PREFIX, ""], saved_modules };
    read_adapter(dir, names, &Default::default())
}

fn head(name: &str) -> SavedModule {
    let weight = (0..12).map(|index| index as f32 / 8.0).collect::<Vec<_>>();
    SavedModule { name: name.into(), weight: TensorData::new(weight, [2, 6]), bias: TensorData::from([0.5f32, -1.0]) }
}

fn trained_for(bits: BitWidth) -> TrainedFor {
    TrainedFor {
        bits,
        settings: QuantisationSettings::default(),
        shared_by: vec![BitWidth::B2],
        calibration: Some("of the windows".into()),
        base: Some("of the base".into()),
    }
}

fn bank<'a>(pairs: &'a Pairs, widths: &'a [BitWidth]) -> impl Iterator<Item = WidthAdapters<'a, Flex>> {
    widths.iter().map(|&width| WidthAdapters {
        width,
        pairs: pairs.iter().map(|(site, pair)| (site.as_str(), pair)).collect(),
        options: PeftOptions { trained_for: Some(trained_for(width)), ..options() },
    })
}

fn names_in(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.sort();
    names
}

/// The pairs with steps of every granularity at all sites but the first.
fn pairs_with_steps() -> Pairs {
    let group = Granularity::per_group(4).unwrap();
    let shapes = [
        (Granularity::PerTensor, [1, 1]),
        (Granularity::PerChannel, [1, 18]),
        (group, [2, 24]),
        (Granularity::PerChannel, [1, 24]),
    ];
    let mut pairs = pairs();
    let sites = ["h.1.attn.c_attn", "h.2.attn.c_attn", "h.1.mlp.c_fc", "h.2.mlp.c_fc"];
    for (site, (granularity, [rows, columns])) in sites.into_iter().zip(shapes) {
        let values: Vec<f32> = (0..rows * columns).map(|index| 0.01 + 0.1 * index as f32).collect();
        let values = Tensor::<Flex, 1>::from_floats(&values[..], &Default::default()).reshape([rows, columns]);
        let step = LearnedStep::from_steps(values, BitWidth::B3, granularity).unwrap();
        let pair = pairs.remove(site).unwrap().with_step(step);
        pairs.insert(site.to_owned(), pair);
    }
    pairs
}
