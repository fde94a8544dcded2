//! What the inputs of a model are like, for roundings and ranges that go by it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde_json::json;

use switchable_quant::data::{Dataset, TextFiles, TextTokenizer};
use switchable_quant::experiments::running::progress::{Progress, ShowProgress};
use switchable_quant::hub::Hub;
use switchable_quant::identity::{ContentHash, Hasher};
use switchable_quant::kernels::{BitWidth, QuantBackend, RangeEstimator, Rotation, RoundingMethod, ScalingMethod};
use switchable_quant::lora::{Compute, LinearSettings};
use switchable_quant::reader::certificate::seen_data::{SeenRole, SeenSet};
use switchable_quant::reader::{ModelFolder, ReadingTask};
use switchable_quant::transformer::adapters::AdapterFolders as _;
use switchable_quant::transformer::calibration::{Calibrate as _, ModelMoments};
use switchable_quant::transformer::model::SwitchableModel;
use switchable_quant::transformer::scaling::{ChooseScaling as _, ScalingChoice};

use crate::adapter_place::AdapterPlace;
use crate::contents::{name_of, of_built_in, of_folder};
use crate::ending::usage;
use crate::files::{GENERATED, calibration_questions, is_text};
use crate::reported::{Reported, check_apart};

/// The longest window that a model is calibrated on.
const WINDOW: usize = 384;

/// So many times the windows that are asked for are read of a file of text, and chosen among.
const WINDOWS_PER_SAMPLE: usize = 8;

/// Fewer tokens than this say little of any input.
const LEAST_TOKENS: usize = 512;

/// What a model is to be calibrated on.
#[derive(Debug, Clone)]
pub struct CalibrationRequest {
    /// Files of questions or of text; none for the training questions of the built-in model.
    pub files: Vec<String>,
    /// How many windows.
    pub samples: usize,
    /// Which of them.
    pub seed: u64,
    /// The first flag that says any of this, where one does.
    pub given: Option<&'static str>,
    /// Whether a plan asks for it, whatever the flags of the quantiser say.
    pub is_needed: bool,
    /// Which factors are folded in by it.
    pub scaling: ScalingChoice,
    /// Whether progress is shown.
    pub show: ShowProgress,
}

impl CalibrationRequest {
    /// The windows without `--calibration-samples`.
    pub const SAMPLES: usize = 128;
}

impl Default for CalibrationRequest {
    fn default() -> Self {
        let scaling = ScalingChoice { method: ScalingMethod::None, bits: BitWidth::B4 };
        Self {
            files: Vec::new(),
            samples: Self::SAMPLES,
            seed: 0,
            given: None,
            is_needed: false,
            scaling,
            show: ShowProgress::No,
        }
    }
}

/// What a model was calibrated on.
#[derive(Debug, Clone)]
pub struct CalibratedOn {
    /// The names of the files.
    pub name: String,
    /// The windows and the model.
    pub hash: ContentHash,
    /// The questions and the documents among them.
    pub seen: Vec<SeenSet>,
    /// The factors that were folded in by it, if any.
    pub scaling: Option<ScalingChoice>,
}

/// Whether a plan asks for moments at any site, as far as its text tells.
///
/// # Errors
///
/// When the file cannot be read.
pub fn plan_needs_moments(plan: &Path) -> anyhow::Result<bool> {
    let text = std::fs::read_to_string(plan).with_context(|| plan.display().to_string())?;
    let words = [format!("\"{}\"", RoundingMethod::Gptq), format!(",{}\"", RangeEstimator::Importance)];
    Ok(words.iter().any(|word| text.contains(word.as_str())))
}

/// Calibrates a model of floats where its quantiser, a plan or the flags ask for it, and folds factors in.
///
/// # Errors
///
/// When there is nothing to calibrate on, or too little; when a flag says how and nothing goes by it; when a file is
/// missing or damaged, or shares a paragraph with what is reported on; when the model cannot take factors.
pub fn calibrate<B: QuantBackend, M: SwitchableModel<B>>(
    folder: ModelFolder<B, M>,
    dir: Option<&Path>,
    request: &CalibrationRequest,
    reported: impl FnOnce(&TextTokenizer) -> anyhow::Result<Vec<Reported>>,
) -> anyhow::Result<(ModelFolder<B, M>, Option<CalibratedOn>)> {
    let body = &folder.model.transformer;
    let settings = body.settings();
    // A packed folder may hold no code where its plan leaves all in floats; it is what was found all the same.
    let is_coded = folder.plan.is_some() || body.sites().iter().any(|site| body.site(site).packed_weights().is_some());
    if is_coded && let Some(flag) = request.given {
        bail!("`{flag}` is for a model in floats, and this one is packed: calibrate the model that it was made from");
    }
    let is_scaled = request.scaling.method != ScalingMethod::None;
    if is_coded && is_scaled {
        bail!(
            "`--scaling {}` is for a model in floats, and this one is packed: scale the model that it was made from, and pack that",
            request.scaling.method
        );
    }
    if request.scaling.method == ScalingMethod::Awq && settings.rotation != Rotation::None {
        bail!(
            "`--scaling awq` chooses factors for inputs as they stand, and `--rotation {}` turns them",
            settings.rotation
        );
    }
    let is_needed = request.is_needed || is_scaled || settings.rounding.needs_moments(settings.weight);
    if is_coded || !is_needed {
        return match request.given {
            Some(flag) => Err(usage(format!(
                "`{flag}` is for what goes by the inputs of the model, and nothing here does: expected `--rounding gptq`, \
                 a `--quantizer` with the range importance, `--scaling`, or a plan with one of them"
            ))),
            None => Ok((folder, None)),
        };
    }
    let files = files_of(dir, request)?;
    check_apart(&reported(&folder.tokenizer)?, &files)?;
    let Chosen { windows, questions, documents, name } = chosen(&folder, &files, request)?;
    let tokens: usize = windows.iter().map(Vec::len).sum();
    ensure!(
        tokens >= LEAST_TOKENS,
        "`--calibration {name}` is too short: {} windows of {tokens} tokens in all, expected at least {LEAST_TOKENS}",
        windows.len()
    );
    let hash = hash_of(&windows, dir)?;
    let moments = moments(&folder, &windows, &hash, request)?;
    eprintln!("calibrated {} windows, {tokens} tokens of {name}", windows.len());
    let mut folder = folder;
    let made_from = format!("{hash}/{}", hash_of_windows(&windows));
    folder.model.transformer = moments.made_from(&made_from).given_to(folder.model.transformer)?;
    if let others @ [_, ..] = folder.model.transformer.widths_of_other_calibrations().as_slice() {
        let others = others.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        eprintln!(
            "the adapters of {others} bits were trained with another calibration than that of {name}: its codes are not those \
             that they repair. Name the files, samples and seed of the training, or --no-adapter"
        );
    }
    if is_scaled {
        say_trained_unscaled(&folder.model.transformer, request.scaling);
        folder.model.transformer = scaled(folder.model.transformer, request)?;
    }
    let scaling = is_scaled.then_some(request.scaling);
    let seen = |questions: &Dataset| SeenSet::new(SeenRole::Calibration, name.as_str(), questions);
    let mut seen = questions.iter().map(seen).collect::<Result<Vec<_>, _>>()?;
    if !documents.is_empty() {
        seen.push(SeenSet::of_texts(SeenRole::Calibration, name.as_str(), documents.iter().map(String::as_str)));
    }
    Ok((folder, Some(CalibratedOn { name, hash, seen, scaling })))
}

/// Says which adapters repair the codes of the weights as they were before the factors.
fn say_trained_unscaled<B: QuantBackend, M: SwitchableModel<B>>(model: &M, scaling: ScalingChoice) {
    let widths = model.adapter_widths().into_iter().filter(|width| !width.is_full());
    let widths: Vec<String> = widths.map(|width| width.to_string()).collect();
    if !widths.is_empty() {
        eprintln!(
            "the adapters of {} bits were trained on the weights without `--scaling {}`: the codes here are not those that \
             they repair. Train them with it, or --no-adapter",
            widths.join(", "),
            scaling.method
        );
    }
}

/// The model with factors of every pair folded in.
fn scaled<B: QuantBackend, M: SwitchableModel<B>>(model: M, request: &CalibrationRequest) -> anyhow::Result<M> {
    let choice = request.scaling;
    let mut progress = Progress::start("scaling", 0, model.sites().blocks(), request.show);
    let done = &mut |block| {
        progress.step(format!("block {block}"));
        Ok(())
    };
    let (model, chosen) = model.scaled_by(choice, done).with_context(|| format!("--scaling {}", choice.method))?;
    progress.finish();
    let count = chosen.len();
    let mean = chosen.iter().map(|pair| pair.alpha).sum::<f32>() / count.max(1) as f32;
    eprintln!("scaled     {count} pairs by {choice}, exponent {mean:.2} in the mean");
    Ok(model)
}

/// The windows that the seed chooses, what they are of, and the names of the files.
struct Chosen {
    windows: Vec<Vec<u32>>,
    questions: Vec<Dataset>,
    documents: Vec<String>,
    name: String,
}

/// The files that are calibrated on.
fn files_of(dir: Option<&Path>, request: &CalibrationRequest) -> anyhow::Result<Vec<String>> {
    let files = &request.files;
    if files.is_empty() && dir.is_some() {
        bail!(
            "a rounding or range that goes by inputs needs `--calibration FILE`: questions or text that no result is \
             reported on; where adapters were trained with one, the same, with the same `--calibration-samples` and \
             `--calibration-seed`"
        );
    }
    if let Some(twice) = files.iter().enumerate().find(|(index, file)| files[..*index].contains(file)) {
        bail!("`--calibration` names {} twice", twice.1);
    }
    Ok(if files.is_empty() { vec![GENERATED.to_owned()] } else { files.clone() })
}

fn chosen<B: QuantBackend, M: SwitchableModel<B>>(
    folder: &ModelFolder<B, M>,
    files: &[String],
    request: &CalibrationRequest,
) -> anyhow::Result<Chosen> {
    let (mut windows, mut questions, mut documents) = (Vec::new(), Vec::new(), Vec::new());
    let longest = WINDOW.min(folder.model.transformer.shape().positions);
    for file in files {
        let before = windows.len();
        if is_text(file) {
            let most = windows.len() + WINDOWS_PER_SAMPLE * request.samples;
            let files = TextFiles::new([file])?;
            let mut all = files.documents();
            while windows.len() < most
                && let Some(document) = all.next().transpose()?
            {
                let ids = folder.tokenizer.encode_ids(&document)?;
                windows.extend(ids.chunks(longest).map(<[u32]>::to_vec));
                documents.push(document);
            }
            ensure!(windows.len() > before, "`--calibration {file}` holds no text");
            continue;
        }
        let dataset = calibration_questions(file)?;
        let dataset = dataset.sampled(request.samples, request.seed);
        let task = ReadingTask::new(dataset.clone(), &folder.tokenizer, folder.model.config(), None)
            .with_context(|| format!("--calibration {file}"))?;
        windows.extend(task.features.windows().iter().map(|window| window.ids.clone()));
        questions.push(dataset);
    }
    windows.shuffle(&mut ChaCha8Rng::seed_from_u64(request.seed));
    windows.truncate(request.samples);
    let name = files.iter().map(|file| name_of(Path::new(file))).collect::<Vec<_>>().join(", ");
    Ok(Chosen { windows, questions, documents, name })
}

/// The contents that moments depend on: the base weights and the windows.
fn hash_of(windows: &[Vec<u32>], dir: Option<&Path>) -> anyhow::Result<ContentHash> {
    let model = match dir {
        Some(dir) => of_folder(dir, &AdapterPlace::LeftOut)?,
        None => of_built_in(&AdapterPlace::LeftOut)?,
    };
    let mut hasher = Hasher::default();
    hasher.bytes("model", serde_json::to_string(&model)?.as_bytes());
    for window in windows {
        let bytes: Vec<u8> = window.iter().flat_map(|id| id.to_le_bytes()).collect();
        hasher.bytes("window", &bytes);
    }
    Ok(hasher.finish())
}

/// The windows alone, which are the same for a model that was written again.
fn hash_of_windows(windows: &[Vec<u32>]) -> ContentHash {
    let mut hasher = Hasher::default();
    for window in windows {
        hasher.numbers("window", window.iter().map(|&id| u64::from(id)));
    }
    hasher.finish()
}

/// The moments, kept from an earlier run or collected.
fn moments<B: QuantBackend, M: SwitchableModel<B>>(
    folder: &ModelFolder<B, M>,
    windows: &[Vec<u32>],
    hash: &ContentHash,
    request: &CalibrationRequest,
) -> anyhow::Result<ModelMoments> {
    let made_from = json!({ "contents": hash.to_string() }).to_string();
    let kept = kept_at(hash);
    // A damaged file is made anew, as one that is not there.
    let whole = kept.as_ref().filter(|path| is_whole(path));
    if let Some(moments) = whole.and_then(|path| ModelMoments::load(path, &made_from).ok().flatten()) {
        return Ok(moments);
    }
    let body = &folder.model.transformer;
    let mut progress = Progress::start("calibration", 0, body.sites().blocks(), request.show);
    // What is kept is of f32, whatever the run that collects it computes in.
    let settings = body.settings();
    let in_f32 = match settings.compute {
        Compute::F32 => body.clone(),
        Compute::Bf16 => body.clone().with_linear_settings(LinearSettings { compute: Compute::F32, ..settings }),
    };
    let moments = in_f32.collect_moments(windows, &mut |block| {
        progress.step(format!("block {block}"));
        Ok(())
    })?;
    progress.finish();
    if let Some(path) = kept
        && let Err(error) = keep(&moments, &path, &made_from)
    {
        eprintln!("the moments are not kept for the next run: {error}");
    }
    Ok(moments)
}

/// Where moments are kept, if the environment names a folder.
fn kept_at(hash: &ContentHash) -> Option<PathBuf> {
    let cache = Hub::from_env().ok()?.cache().join("calibration");
    Some(cache.join(format!("{hash}.safetensors")))
}

fn keep(moments: &ModelMoments, path: &Path, made_from: &str) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    moments.save(path, made_from)?;
    Ok(std::fs::write(checksum_of(path), ContentHash::of_file(path)?.to_string())?)
}

/// The file beside moments that says what they hold.
fn checksum_of(path: &Path) -> PathBuf {
    path.with_extension("blake3")
}

/// Whether a file of moments holds what was written: a number that changed would change codes in silence.
fn is_whole(path: &Path) -> bool {
    let said = std::fs::read_to_string(checksum_of(path));
    said.is_ok_and(|said| ContentHash::of_file(path).is_ok_and(|hash| hash.to_string() == said))
}
