//! Downloads from a server on this machine: whole, wrong, missing, cut, and none at all.

use std::fs;
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use http_server::{Answer, HttpServer};

mod http_server;

const COMMIT: &str = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
const WEIGHTS: &[u8] = b"not really weights, but enough of them to be sent";

fn sha256(content: &[u8]) -> String {
    format!("{:x}", Sha256::digest(content))
}

fn git_sha1(content: &[u8]) -> String {
    let blob = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    format!("{:x}", Sha1::digest(blob))
}

/// A small file as the Hub answers it.
fn small(content: &str) -> Answer {
    Answer::ok(content).with("etag", format!("W/\"{}\"", git_sha1(content.as_bytes()))).with("x-repo-commit", COMMIT)
}

/// A server with a model, its weights behind a redirect as on the Hub.
fn server_with_model() -> HttpServer {
    let server = HttpServer::start();
    server.set("/owner/tiny/resolve/main/config.json", Answer::redirect("/api/config.json"));
    server.set("/api/config.json", small("{}"));
    let at_commit = |file: &str| format!("/owner/tiny/resolve/{COMMIT}/{file}");
    server.set(&at_commit("tokenizer.json"), small("{\"tokens\": 1}"));
    server.set(&at_commit("vocab.json"), small("{\"a\": 0}"));
    server.set(&at_commit("merges.txt"), small("#version: 0.2"));
    server.set(
        &at_commit("model.safetensors"),
        Answer::redirect(format!("{}/storage/weights", server.url()))
            .with("x-linked-etag", format!("\"{}\"", sha256(WEIGHTS))),
    );
    server.set("/storage/weights", Answer::ok(WEIGHTS).with("etag", "\"another store's own tag\""));
    server
}

fn hub(server: &HttpServer, cache: &TempDir) -> Hub {
    Hub::new(cache.path()).with_hub_address(server.url() + "/").with_squad_address(server.url())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The folder of the model, and that of its files.
fn folders(cache: &TempDir) -> (PathBuf, PathBuf) {
    let root = cache.path().join("hub/models--owner--tiny");
    let files = root.join("snapshots").join(COMMIT);
    (root, files)
}

/// Whether a call reports that it used `what` from the folder.
fn uses_cached(what: &Path, call: impl FnOnce(&mut dyn FnMut(&DownloadEvent<'_>))) -> bool {
    let mut cached = false;
    call(&mut |event| {
        cached |= matches!(event, DownloadEvent::Cached { path } if *path == what);
    });
    cached
}

#[test]
fn a_model_is_fetched_once_and_then_used_without_a_network() {
    let server = server_with_model();
    for file in TOKENIZER_NOTES {
        server.set(&format!("/owner/tiny/resolve/{COMMIT}/{file}"), small("{}"));
    }
    let cache = TempDir::new().unwrap();
    let hub = hub(&server, &cache);
    let mut lines = Vec::new();
    let folder = hub.model("owner/tiny", &mut |event| lines.push(event.to_string())).unwrap();

    let model = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json", "vocab.json"];
    let mut expected = [model.as_slice(), &TOKENIZER_NOTES].concat();
    expected.sort_unstable();
    assert_eq!(names(&folder), expected);
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    let log = lines.join("\n");
    assert!(log.contains(&format!("sha256:{} is right", sha256(WEIGHTS))), "{log}");
    assert!(log.contains(&format!("{0} of {0} bytes", WEIGHTS.len())), "{log}");

    drop(server);
    assert!(uses_cached(&folder, |report| assert_eq!(hub.model("owner/tiny", report).unwrap(), folder)));
}

#[test]
fn every_file_comes_from_the_commit_of_the_first() {
    let server = server_with_model();
    let cache = TempDir::new().unwrap();
    hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap();
    let on_main: Vec<String> = server.requests().into_iter().filter(|path| path.contains("/main/")).collect();
    assert_eq!(on_main, ["/owner/tiny/resolve/main/config.json"]);
}

#[test]
fn a_wrong_checksum_leaves_no_file_and_names_both_sums() {
    let server = server_with_model();
    server.set("/storage/weights", Answer::ok("something else"));
    let cache = TempDir::new().unwrap();
    let hub = hub(&server, &cache);
    let error = hub.model("owner/tiny", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(&format!("/owner/tiny/resolve/{COMMIT}/model.safetensors")), "{message}");
    assert!(message.contains(&format!("checksum sha256:{}", sha256(b"something else"))), "{message}");
    assert!(message.contains(&format!("expected sha256:{}", sha256(WEIGHTS))), "{message}");
    let (root, folder) = folders(&cache);
    assert_eq!(names(&folder), ["config.json", "merges.txt", "tokenizer.json", "vocab.json"]);
    assert!(!root.join("refs").exists());

    // What was right is kept, and the next try mends the rest.
    server.set("/storage/weights", Answer::ok(WEIGHTS));
    assert!(uses_cached(&root.join("blobs").join(git_sha1(b"{\"a\": 0}")), |report| {
        hub.model("owner/tiny", report).unwrap();
    }));
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn a_small_file_that_was_changed_on_the_way_is_refused() {
    let server = server_with_model();
    server.set("/api/config.json", small("{}").with("x-linked-etag", format!("\"{}\"", git_sha1(b"[]"))));
    let cache = TempDir::new().unwrap();
    let error = hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains(&format!("expected git-sha1:{}", git_sha1(b"[]"))), "{error}");
    let (root, folder) = folders(&cache);
    assert!(names(&root.join("blobs")).is_empty() && !folder.exists());
}

#[test]
fn a_cut_connection_leaves_no_file_and_says_how_much_arrived() {
    let server = server_with_model();
    server.set("/storage/weights", Answer::ok(WEIGHTS).cut_after(7));
    let cache = TempDir::new().unwrap();
    let error = hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Incomplete { got: 7, .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains("model.safetensors"), "{message}");
    assert!(message.contains("after 7 bytes"), "{message}");
    assert!(message.contains(&format!("expected {}", WEIGHTS.len())), "{message}");
    assert_eq!(names(&folders(&cache).1), ["config.json", "merges.txt", "tokenizer.json", "vocab.json"]);
}

#[test]
fn a_model_that_is_not_there_is_an_error_with_its_address() {
    let server = HttpServer::start();
    let cache = TempDir::new().unwrap();
    let error = hub(&server, &cache).model("owner/none", &mut |_| {}).unwrap_err();
    let url = format!("{}/owner/none/resolve/main/config.json", server.url());
    assert_eq!(error.to_string(), format!("{url}: the server answers with status 404, expected the file"));
    assert!(names(cache.path()).is_empty());
}

#[test]
fn a_model_without_a_tokenizer_is_an_error_before_its_weights_are_fetched() {
    let server = HttpServer::start();
    server.set("/owner/tiny/resolve/main/config.json", small("{}"));
    let cache = TempDir::new().unwrap();
    let error = hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoTokenizer { .. }), "{error}");
    assert!(!server.requests().iter().any(|path| path.contains("safetensors")));
}

#[test]
fn a_file_without_a_checksum_is_refused() {
    let server = HttpServer::start();
    server.set("/owner/tiny/resolve/main/config.json", Answer::ok("{}").with("etag", "\"1234\""));
    let cache = TempDir::new().unwrap();
    let error = hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NoChecksum { .. }), "{error}");
}

#[test]
fn no_network_is_an_error_that_says_what_to_do() {
    let address = HttpServer::start().url();
    let cache = TempDir::new().unwrap();
    let error = Hub::new(cache.path()).with_hub_address(address).model("owner/tiny", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Offline { .. }), "{error}");
    assert!(error.to_string().ends_with("expected a network, or a path instead of a name"), "{error}");
}

#[test]
fn shards_are_those_of_the_index() {
    let server = server_with_model();
    let at_commit = |file: &str| format!("/owner/tiny/resolve/{COMMIT}/{file}");
    server.set(&at_commit("model.safetensors"), not_found());
    server.set(
        &at_commit("model.safetensors.index.json"),
        small(r#"{"metadata": {}, "weight_map": {"a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors"}}"#),
    );
    server.set(&at_commit("m-1.safetensors"), small("one"));
    server.set(&at_commit("m-2.safetensors"), small("two"));
    let cache = TempDir::new().unwrap();
    let folder = hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap();
    assert_eq!(fs::read_to_string(folder.join("m-1.safetensors")).unwrap(), "one");
    assert_eq!(fs::read_to_string(folder.join("m-2.safetensors")).unwrap(), "two");
    assert!(!folder.join("model.safetensors").exists());
}

#[test]
fn an_index_cannot_write_outside_its_folder() {
    let server = server_with_model();
    let at_commit = |file: &str| format!("/owner/tiny/resolve/{COMMIT}/{file}");
    server.set(&at_commit("model.safetensors"), not_found());
    for shard in ["../../evil.safetensors", "/tmp/evil.safetensors", "run.sh", ""] {
        let index = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
        server.set(&at_commit("model.safetensors.index.json"), small(&index));
        let cache = TempDir::new().unwrap();
        let error = hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("weight_map") && message.contains(&format!("`{shard}`")), "{message}");
    }
    server.set(&at_commit("model.safetensors.index.json"), small("{\"weight_map\": {}}"));
    let cache = TempDir::new().unwrap();
    assert!(matches!(hub(&server, &cache).model("owner/tiny", &mut |_| {}), Err(Error::ShardIndex { .. })));
}

/// An answer with status 404.
fn not_found() -> Answer {
    Answer::status(404)
}

#[test]
fn a_redirect_to_itself_ends() {
    let server = HttpServer::start();
    server.set("/owner/tiny/resolve/main/config.json", Answer::redirect("/owner/tiny/resolve/main/config.json"));
    let cache = TempDir::new().unwrap();
    let error = hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
    assert_eq!(server.requests().len(), 11);
}

#[test]
fn the_folder_is_laid_out_as_the_hubs_own_tools_have_it() {
    let server = server_with_model();
    let cache = TempDir::new().unwrap();
    let (root, files) = folders(&cache);
    assert_eq!(hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap(), files);
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(fs::read(root.join("blobs").join(sha256(WEIGHTS))).unwrap(), WEIGHTS);
    // The model has none of these, and nobody needs to ask again.
    let mut absent = TOKENIZER_NOTES.to_vec();
    absent.sort_unstable();
    assert_eq!(names(&root.join(".no_exist").join(COMMIT)), absent);
    #[cfg(unix)]
    assert_eq!(fs::read_link(files.join("config.json")).unwrap(), Path::new("../../blobs").join(git_sha1(b"{}")));
}

#[test]
fn what_another_tool_fetched_is_used_without_a_network() {
    let cache = TempDir::new().unwrap();
    let (root, files) = folders(&cache);
    for (path, content) in [
        (root.join("refs/main"), COMMIT),
        (files.join("config.json"), "{}"),
        (files.join("tokenizer.json"), "{}"),
        (files.join("model.safetensors"), "weights"),
    ] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let offline = Hub::new(cache.path()).offline(true);
    assert!(uses_cached(&files, |report| assert_eq!(offline.model("owner/tiny", report).unwrap(), files)));

    // Which tokens are special is asked once, where that is allowed; files that are there already need not be.
    let server = server_with_model();
    hub(&server, &cache).model("owner/tiny", &mut |_| {}).unwrap();
    drop(server);
    hub(&HttpServer::start(), &cache).model("owner/tiny", &mut |_| {}).unwrap();

    fs::remove_file(files.join("model.safetensors")).unwrap();
    let message = offline.model("owner/tiny", &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("model.safetensors") && message.contains("HF_HUB_OFFLINE"), "{message}");
    let message = offline.model("owner/other", &mut |_| {}).unwrap_err().to_string();
    assert!(message.contains("`owner/other`") && message.contains("refs/main"), "{message}");
    assert!(matches!(offline.data("squad", &mut |_| {}), Err(Error::NotFetched { .. })));
}

#[test]
fn damaged_contents_are_fetched_anew_where_a_file_is_missing() {
    let server = server_with_model();
    let cache = TempDir::new().unwrap();
    let hub = hub(&server, &cache);
    let folder = hub.model("owner/tiny", &mut |_| {}).unwrap();
    let root = folders(&cache).0;
    for damage in ["damaged", ""] {
        fs::write(root.join("blobs").join(sha256(WEIGHTS)), damage).unwrap();
        fs::remove_file(folder.join("config.json")).unwrap();
        hub.model("owner/tiny", &mut |_| {}).unwrap();
        assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    }
    // An empty file is like none; so is a link to nothing.
    fs::write(root.join("blobs").join(sha256(WEIGHTS)), "").unwrap();
    hub.model("owner/tiny", &mut |_| {}).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
    fs::remove_dir_all(root.join("blobs")).unwrap();
    hub.model("owner/tiny", &mut |_| {}).unwrap();
    assert_eq!(fs::read(folder.join("model.safetensors")).unwrap(), WEIGHTS);
}

#[test]
fn a_path_that_exists_is_used_as_it_is() {
    let cache = TempDir::new().unwrap();
    let folder = cache.path().to_str().unwrap();
    let hub = Hub::new(cache.path().join("unused"));
    assert_eq!(hub.model(folder, &mut |_| {}).unwrap(), cache.path());
    let file = cache.path().join("questions.json");
    fs::write(&file, "{}").unwrap();
    assert_eq!(hub.data(file.to_str().unwrap(), &mut |_| {}).unwrap(), file);
    assert!(!hub.cache().exists());
}

#[test]
fn an_argument_that_is_neither_path_nor_name_is_an_error() {
    let cache = TempDir::new().unwrap();
    let hub = Hub::new(cache.path());
    for argument in ["", "gpt2", "../x", "a/b/c", "owner/", "/name", "owner/na me", "owner/..", "owner/a?b"] {
        let error = hub.model(argument, &mut |_| {}).unwrap_err();
        assert!(matches!(&error, Error::ModelArgument { got } if got == argument), "{error}");
    }
    let error = hub.data("squad3", &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("`squad3`"), "{error}");
}

#[test]
fn squad_must_have_its_known_length_and_checksum() {
    let server = HttpServer::start();
    let cache = TempDir::new().unwrap();
    let hub = hub(&server, &cache);
    server.set("/dev-v1.1.json", Answer::ok("{}"));
    let error = hub.data("squad", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Length { got: 2, expected: 4_854_279, .. }), "{error}");

    server.set("/dev-v1.1.json", Answer::ok(vec![b' '; 4_854_279]));
    let error = hub.data("squad", &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Checksum { .. }), "{error}");
    assert!(names(&cache.path().join("squad")).is_empty());
}

#[test]
fn a_data_file_is_fetched_once_and_again_if_it_was_damaged() {
    let server = HttpServer::start();
    server.set("/questions.json", Answer::ok("all of it"));
    let cache = TempDir::new().unwrap();
    let hub = hub(&server, &cache);
    let digits = sha256(b"all of it");
    let file = SquadFile { argument: "questions", name: "questions.json", bytes: 9, sha256: digits.leak() };
    let path = hub.squad_file(&file, &mut |_| {}).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "all of it");

    fs::write(&path, "allofit!!").unwrap();
    hub.squad_file(&file, &mut |_| {}).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "all of it");

    drop(server);
    assert!(uses_cached(&path, |report| {
        hub.squad_file(&file, report).unwrap();
    }));
}

#[test]
fn checksums_are_the_published_ones() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("file");
    // FIPS 180-2 appendix B.1, and the blobs of git's own documentation.
    for (content, sha256, git) in [
        (
            "abc",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "f2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f",
        ),
        (
            "",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
        ),
    ] {
        fs::write(&path, content).unwrap();
        for digits in [sha256, git] {
            let checksum = Checksum::from_etag(&format!("\"{digits}\"")).unwrap();
            assert!(checksum.matches(&path).unwrap(), "{checksum} of `{content}`");
        }
    }
    for tag in ["", "\"\"", "\"12\"", &format!("\"{}\"", "g".repeat(40)), &format!("\"{}-2\"", "0".repeat(32))] {
        assert_eq!(Checksum::from_etag(tag), None, "{tag}");
    }
}
