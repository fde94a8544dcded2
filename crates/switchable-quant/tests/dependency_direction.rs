//! Which crate may depend on what, held against the manifests.
//!
//! ```text
//! quant-kernels ← switchable-lora ← switchable-model ← gpt2-model, llama-model ←┐
//!                        squad-data ←──────┴ span-reader ← experiments ← switchable-quant ← commands, benches ← examples
//! ```
//!
//! `test-support` is below all of them, for their tests alone.
//!
//! Nothing here needs a network: the manifests are read as they are, and the one resolution is
//! that of the build that made this test.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand, Package};

/// Each package of the workspace with those of the workspace that it may use.
const DIRECTION: [(&str, &[&str]); 17] = [
    ("test-support", &[]),
    ("whole-files", &[]),
    ("content-identity", &[]),
    ("quant-kernels", &["test-support", "whole-files"]),
    ("switchable-lora", &["test-support", "whole-files", "quant-kernels"]),
    ("switchable-model", &["test-support", "whole-files", "quant-kernels", "switchable-lora"]),
    ("gpt2-model", &["test-support", "quant-kernels", "switchable-lora", "switchable-model"]),
    ("llama-model", &["test-support", "quant-kernels", "switchable-lora", "switchable-model"]),
    ("squad-data", &["whole-files"]),
    (
        "span-reader",
        &[
            "whole-files",
            "content-identity",
            "quant-kernels",
            "switchable-lora",
            "switchable-model",
            "gpt2-model",
            "squad-data",
        ],
    ),
    ("charts", &["whole-files"]),
    (
        "experiments",
        &[
            "test-support",
            "whole-files",
            "content-identity",
            "quant-kernels",
            "switchable-lora",
            "switchable-model",
            "gpt2-model",
            "llama-model",
            "squad-data",
            "span-reader",
            "charts",
        ],
    ),
    (
        "switchable-quant",
        &[
            "whole-files",
            "content-identity",
            "quant-kernels",
            "switchable-lora",
            "switchable-model",
            "gpt2-model",
            "llama-model",
            "squad-data",
            "span-reader",
            "charts",
            "experiments",
        ],
    ),
    ("command-line", &["switchable-quant"]),
    ("commands", &["switchable-quant", "command-line"]),
    ("switchable-quant-examples", &["switchable-quant", "command-line", "commands"]),
    ("switchable-quant-benches", &["switchable-quant"]),
];

const FACADE: &str = "switchable-quant";
/// What tests of several crates share. It names the backend that they run on, so the rule for
/// libraries about backends is not for it; another rule keeps it out of every build but a test's.
const TEST_SUPPORT: &str = "test-support";
const FAMILIES: [&str; 2] = ["gpt2-model", "llama-model"];
const PROGRAMS: [&str; 4] = ["command-line", "commands", "switchable-quant-examples", "switchable-quant-benches"];

/// The features of burn that bring a backend.
const BACKENDS: [&str; 12] =
    ["flex", "ndarray", "cuda", "wgpu", "vulkan", "metal", "webgpu", "candle", "tch", "cpu", "rocm", "router"];

fn manifests() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata reads the workspace")
}

fn package<'a>(metadata: &'a Metadata, name: &str) -> &'a Package {
    let found = metadata.packages.iter().find(|package| package.name.as_str() == name);
    found.unwrap_or_else(|| panic!("the workspace has no package {name}"))
}

fn libraries(metadata: &Metadata) -> impl Iterator<Item = &Package> {
    let is_library = |package: &&Package| {
        let name = package.name.as_str();
        name != FACADE && !PROGRAMS.contains(&name)
    };
    metadata.packages.iter().filter(is_library)
}

fn is_backend_crate(name: &str) -> bool {
    name.strip_prefix("burn-").is_some_and(|backend| BACKENDS.contains(&backend))
}

/// Everything that the feature `default` turns on, by the names of the manifest.
fn on_by_default(package: &Package) -> BTreeSet<&str> {
    let mut on = BTreeSet::new();
    let mut open = vec!["default"];
    while let Some(feature) = open.pop() {
        if on.insert(feature) {
            open.extend(package.features.get(feature).into_iter().flatten().map(String::as_str));
        }
    }
    on
}

/// Whether a build with default features has the dependency.
fn is_in_default_build(package: &Package, dependency: &Dependency) -> bool {
    let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
    let on = on_by_default(package);
    !dependency.optional
        || on.contains(format!("dep:{name}").as_str())
        || on.iter().any(|feature| *feature == name || feature.starts_with(&format!("{name}/")))
}

#[test]
fn every_crate_uses_only_those_below_it() {
    let metadata = manifests();
    let names: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let allowed: BTreeMap<&str, &[&str]> = DIRECTION.into_iter().collect();
    assert_eq!(names, allowed.keys().copied().collect(), "the packages of the workspace and of this test's table");

    for package in &metadata.packages {
        let below = allowed[package.name.as_str()];
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            assert!(
                !names.contains(name) || below.contains(&name),
                "{} has a {} dependency on {name}, which is not below it",
                package.name,
                dependency.kind
            );
        }
    }
}

#[test]
fn experiments_and_the_facade_join_every_crate_below_them() {
    let metadata = manifests();
    for (name, below) in DIRECTION.into_iter().filter(|(name, _)| ["experiments", FACADE].contains(name)) {
        let has: BTreeSet<&str> = package(&metadata, name)
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal)
            .map(|dependency| dependency.name.as_str())
            .collect();
        // What only writes files is there where files are written; families are tested with, not known.
        let for_tests = |used: &&str| *used == TEST_SUPPORT || name != FACADE && FAMILIES.contains(used);
        for used in below.iter().filter(|used| **used != "whole-files" && !for_tests(used)) {
            assert!(has.contains(used), "{name} does not depend on {used}");
        }
    }
}

#[test]
fn no_library_knows_a_family_of_models() {
    let metadata = manifests();
    for library in libraries(&metadata) {
        let known = library.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        let family = known.map(|dependency| dependency.name.as_str()).find(|name| FAMILIES.contains(name));
        assert_eq!(family, None, "{} knows a family", library.name);
    }
}

#[test]
fn no_library_depends_on_a_program_s_crates() {
    let metadata = manifests();
    for library in libraries(&metadata).chain([package(&metadata, FACADE)]) {
        for dependency in library.dependencies.iter().filter(|used| used.kind != DependencyKind::Development) {
            assert!(
                !["anyhow", "axum", "clap", "criterion", "hyper", "mimalloc", "tokio"]
                    .contains(&dependency.name.as_str()),
                "{} depends on {}",
                library.name,
                dependency.name
            );
        }
    }
}

#[test]
fn only_tests_use_the_support_of_tests() {
    let metadata = manifests();
    let mut users = 0;
    for package in &metadata.packages {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.name == TEST_SUPPORT) {
            users += 1;
            assert_eq!(dependency.kind, DependencyKind::Development, "{} depends on {TEST_SUPPORT}", package.name);
        }
    }
    assert!(users >= 5, "only {users} dependencies on {TEST_SUPPORT} were found");
}

#[test]
fn no_library_brings_a_backend_by_default() {
    let metadata = manifests();
    for library in libraries(&metadata).filter(|library| library.name.as_str() != TEST_SUPPORT) {
        for feature in on_by_default(library) {
            let backend = feature.strip_prefix("burn/").or_else(|| feature.strip_prefix("burn?/"));
            assert!(
                backend.is_none_or(|backend| !BACKENDS.contains(&backend)),
                "{} turns on {feature} by default",
                library.name
            );
        }
        for dependency in library.dependencies.iter().filter(|used| used.kind != DependencyKind::Development) {
            assert!(
                !(is_backend_crate(&dependency.name) && is_in_default_build(library, dependency)),
                "{} depends on {} by default",
                library.name,
                dependency.name
            );
            if dependency.name == "burn" {
                let backend = dependency.features.iter().find(|feature| BACKENDS.contains(&feature.as_str()));
                assert!(backend.is_none(), "{} asks burn for {backend:?}", library.name);
            }
        }
    }
}

#[test]
fn burn_is_pinned_and_without_its_default_features_everywhere() {
    let metadata = manifests();
    let mut users = 0;
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if name == "burn" || name.starts_with("burn-") {
                users += 1;
                assert_eq!(dependency.req.to_string(), "=0.21.0", "{name} in {}", package.name);
                assert!(!dependency.uses_default_features, "{name} in {} has default features", package.name);
            }
        }
    }
    assert!(users >= 5, "only {users} dependencies on burn were found");
}

/// What a build of the facade consists of: a line for each package and version.
fn tree_of(features: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--package", FACADE, "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}"])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo writes UTF-8")
}

#[test]
fn a_build_that_only_answers_has_no_training_search_or_figures() {
    let tree = tree_of(&["--no-default-features", "--features", "flex"]);
    let packages: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains("span-reader") && packages.contains("burn-flex"), "{tree}");
    for name in [
        "ab_glyph",
        "burn-autodiff",
        "charts",
        "dejavu",
        "experiments",
        "indicatif",
        "plotters-backend",
        "plotters-bitmap",
        "png",
        "ruzstd",
    ] {
        assert!(!packages.contains(name), "a build without `experiments` has {name}");
    }
}

#[test]
fn the_default_build_of_the_facade_has_flex_and_no_gpu() {
    let tree = tree_of(&[]);
    let packages: BTreeMap<&str, &str> = tree.lines().filter_map(|line| line.split_once(' ')).collect();

    for name in ["burn", "burn-autodiff", "burn-flex", "quant-kernels"] {
        assert!(packages.contains_key(name), "{name} is not in the tree:\n{tree}");
    }
    for (name, rest) in &packages {
        let gpu = ["cuda", "wgpu", "nvrtc", "nccl", "vulkan"].iter().any(|word| name.contains(word));
        assert!(!gpu && *name != "cudarc", "the default build has {name}");
        assert!(!["clap", "anyhow", "ureq"].contains(name), "the default build has {name}");
        if *name == "burn" || name.starts_with("burn-") {
            assert!(rest.starts_with("v0.21.0"), "{name} is {rest}");
        }
    }
}
