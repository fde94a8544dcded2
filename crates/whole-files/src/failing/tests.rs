use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Fault, with_fault, without_exchange};
use crate::carry_over::carry_over;
use crate::error::Result;
use crate::partial_file::{PartialFile, persist_all, write};
use crate::partial_folder::PartialFolder;

/// A way to write, in a folder where it has been done once with what was there before.
struct Writer {
    name: &'static str,
    write: fn(&Path, &str) -> Result<()>,
    /// What there is to replace, relative to the folder.
    replaced: &'static [&'static str],
}

const WRITERS: [Writer; 5] = [
    Writer { name: "one file", write: one_file, replaced: &["file"] },
    Writer { name: "a file of two pieces in a folder of its own", write: two_pieces, replaced: &["a/b/file"] },
    Writer { name: "two files", write: two_files, replaced: &["first", "second"] },
    Writer { name: "a folder", write: folder, replaced: &["folder"] },
    Writer { name: "a folder that keeps files", write: folder_of_more, replaced: &["folder"] },
];

fn one_file(dir: &Path, text: &str) -> Result<()> {
    write(dir.join("file"), text.as_bytes())
}

fn two_pieces(dir: &Path, text: &str) -> Result<()> {
    use io::Write as _;
    let (start, end) = text.split_at(text.len() / 2);
    let mut file = PartialFile::create(dir.join("a/b/file"))?;
    file.fill(|file| file.write_all(start.as_bytes()))?;
    file.fill(|file| file.write_all(end.as_bytes()))?;
    file.persist()
}

fn two_files(dir: &Path, text: &str) -> Result<()> {
    use io::Write as _;
    let mut files = [PartialFile::create(dir.join("first"))?, PartialFile::create(dir.join("second"))?];
    for file in &mut files {
        file.fill(|file| file.write_all(text.as_bytes()))?;
    }
    persist_all(files)
}

fn folder(dir: &Path, text: &str) -> Result<()> {
    let folder = PartialFolder::create(dir.join("folder"))?;
    for name in ["first", "second"] {
        write(folder.path().join(name), text.as_bytes())?;
    }
    folder.persist()
}

/// A folder with files that are not the writer's.
fn folder_of_more(dir: &Path, text: &str) -> Result<()> {
    let target = dir.join("folder");
    if !target.exists() {
        write(target.join("kept/file"), KEPT.as_bytes())?;
    }
    let folder = PartialFolder::create(&target)?;
    carry_over(&target, folder.path(), &|name| name != "kept")?;
    for name in ["first", "second"] {
        write(folder.path().join(name), text.as_bytes())?;
    }
    folder.persist()
}

/// The texts of a file or of the files in a folder, as one where all are equal.
fn held(path: &Path) -> Vec<String> {
    let files: Vec<PathBuf> =
        if path.is_dir() { ["first", "second"].map(|name| path.join(name)).to_vec() } else { vec![path.to_owned()] };
    let mut texts: Vec<String> =
        files.iter().map(|file| fs::read_to_string(file).unwrap_or_else(|e| e.to_string())).collect();
    texts.dedup();
    texts
}

const OLD: &str = "what was there before";
const NEW: &str = "what takes its place";
const KEPT: &str = "what belongs to others";

/// Asserts that everything has its old contents or all of the new ones.
fn assert_whole(writer: &Writer, dir: &Path, fault: &str) {
    for name in writer.replaced {
        let held = held(&dir.join(name));
        assert!(held == [OLD] || held == [NEW], "{}, {fault}: `{name}` holds {held:?}", writer.name);
    }
    if writer.name == "a folder that keeps files" {
        assert_eq!(fs::read_to_string(dir.join("folder/kept/file")).unwrap(), KEPT, "{fault}");
    }
}

/// Files and folders that nobody asked for.
fn left_over(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with(".partial-") {
            found.push(path);
        } else if path.is_dir() {
            found.extend(left_over(&path));
        }
    }
    found
}

/// Writes anew with a fault at each operation in turn, until there is none left to fail; gives their number.
fn fail_each(writer: &Writer, fault: Fault) -> usize {
    for operation in 0.. {
        let dir = tempfile::tempdir().unwrap();
        (writer.write)(dir.path(), OLD).unwrap();
        let (result, happened) = with_fault(operation, fault, || (writer.write)(dir.path(), NEW));
        assert_whole(writer, dir.path(), &format!("{fault:?} at operation {operation}"));
        if !happened {
            result.unwrap();
            assert!(writer.replaced.iter().all(|name| held(&dir.path().join(name)) == [NEW]), "{}", writer.name);
            return operation;
        }
        if fault == Fault::Error {
            match result {
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.starts_with(dir.path().to_str().unwrap()), "{}: {error}", writer.name);
                }
                // A file that cannot be shared is copied.
                Ok(()) => assert_eq!(writer.name, "a folder that keeps files"),
            }
            let left_over = left_over(dir.path());
            // What took the place of a folder cannot be undone by a failure to remove the old one.
            let tolerated =
                usize::from(writer.name.starts_with("a folder") && held(&dir.path().join("folder")) == [NEW]);
            assert!(left_over.len() <= tolerated, "{}, operation {operation}: {left_over:?}", writer.name);
        }
    }
    unreachable!("a writer does something for ever")
}

#[test]
fn an_operation_that_fails_leaves_the_old_or_the_new_whole() {
    for writer in &WRITERS {
        let operations = fail_each(writer, Fault::Error);
        // At least: make a file, write, sync, rename, sync the names.
        assert!(operations >= 5, "{}: {operations} operations", writer.name);
    }
}

#[test]
fn a_file_system_that_cannot_exchange_names_is_served_otherwise() {
    let exchanged = fail_each(&WRITERS[3], Fault::Error);
    let otherwise = without_exchange(|| fail_each(&WRITERS[3], Fault::Error));
    assert_eq!(otherwise, exchanged + 3, "a folder is made and two are renamed");
}

/// `NAME OPERATION DIR` in the environment: which writer is to die where.
const DEATH: &str = "WHOLE_FILES_DEATH";

#[test]
#[ignore = "the child of the test below"]
fn writer_that_dies() {
    let Ok(death) = std::env::var(DEATH) else { return };
    let mut words = death.splitn(3, ' ');
    let [writer, operation, dir] = [(); 3].map(|()| words.next().unwrap());
    let writer = &WRITERS[writer.parse::<usize>().unwrap()];
    with_fault(operation.parse().unwrap(), Fault::Death, || (writer.write)(Path::new(dir), NEW)).0.unwrap();
}

#[test]
fn a_process_that_dies_at_an_operation_leaves_the_old_or_the_new_whole() {
    let program = std::env::current_exe().unwrap();
    let mut deaths = 0;
    for (number, writer) in WRITERS.iter().enumerate() {
        for operation in 0.. {
            let dir = tempfile::tempdir().unwrap();
            (writer.write)(dir.path(), OLD).unwrap();
            let death = format!("{number} {operation} {}", dir.path().display());
            let arguments = ["--exact", "failing::tests::writer_that_dies", "--ignored"];
            let output = Command::new(&program).args(arguments).env(DEATH, death).output().unwrap();
            assert_whole(writer, dir.path(), &format!("death at operation {operation}"));
            if output.status.success() {
                assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the child did run");
                break;
            }
            deaths += 1;
        }
    }
    assert!(deaths >= 25, "{deaths} deaths");
}
