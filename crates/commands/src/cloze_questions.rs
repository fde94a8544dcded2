//! Makes reading-comprehension questions from text files, to train on before real questions.
//!
//! ```text
//! cargo run --release --example cloze_questions -- --text wiki-0.txt.zst --questions 100000 \
//!     --out runs/cloze
//! ```
//!
//! Writes `OUT/cloze.json` in SQuAD v1.1 format (arXiv:1906.04980, noisy cloze). Train on it with
//! `train_bank --train OUT/cloze.json --base-steps N`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Parser;
use serde_json::json;

use command_line::arguments::count::parse_count;
use command_line::files::flag_of;
use command_line::{finish, outln, output};
use switchable_quant::data::{Article, ClozeConfig, Dataset, Format, TextFiles, cloze_questions};

/// Cloze questions in SQuAD format from text files
#[derive(Debug, Parser)]
pub struct Arguments {
    /// Text files, .txt or .txt.zst
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    text: Vec<PathBuf>,
    /// Questions to make
    #[arg(long, default_value_t = 50_000, value_name = "N", value_parser = parse_count)]
    questions: usize,
    /// Documents to pass over first, such as those that another file was made from
    #[arg(long, default_value_t = 0, value_name = "N")]
    skip_documents: usize,
    /// Seed of answers and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most words of a context
    #[arg(long, default_value_t = 110, value_name = "N")]
    words: usize,
    /// Folder for cloze.json
    #[arg(long, default_value = "runs/cloze", value_name = "DIR")]
    out: PathBuf,
}

/// Runs it as a program of its own.
pub fn main() -> ExitCode {
    finish(|| run(std::env::args_os()))
}

/// Runs it on a command line whose first word names the program.
///
/// # Errors
///
/// Those of the command.
pub fn run(line: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let arguments = output::parse::<Arguments>(line);
    let config = ClozeConfig { seed: arguments.seed, words_per_context: arguments.words, ..ClozeConfig::default() };
    let mut articles = Vec::new();
    let (mut made, mut lines, mut asked) = (0, 0, 0);
    for (number, document) in TextFiles::new(&arguments.text)?.documents().enumerate().skip(arguments.skip_documents) {
        if made >= arguments.questions {
            break;
        }
        let document = document?;
        let paragraphs = cloze_questions(&document, &format!("cloze-{number}"), &config)?;
        lines += document.lines().filter(|line| !line.trim().is_empty()).count();
        asked += paragraphs.len();
        made += paragraphs.iter().map(|paragraph| paragraph.questions.len()).sum::<usize>();
        if !paragraphs.is_empty() {
            articles.push(Article { title: format!("document {number}"), paragraphs });
        }
    }
    if made == 0 {
        let behind = match arguments.skip_documents {
            0 => String::new(),
            skipped => format!(" behind its first {skipped} documents (`--skip-documents`)"),
        };
        let text = flag_of("--text", &arguments.text);
        bail!("{text}: no paragraph of 20 words with a span to ask for{behind}");
    }
    let dataset = Dataset { format: Format::V1, articles }.limited(arguments.questions);
    let path = arguments.out.join("cloze.json");
    dataset.write(&path)?;
    outln!(
        "{} questions about {} documents, {asked} of {lines} paragraphs (the others are shorter than 20 words or hold \
         no span to ask for); wrote {}",
        dataset.len(),
        dataset.articles.len(),
        path.display()
    );
    output::result(&json!({
        "file": path, "questions": dataset.len(), "documents": dataset.articles.len(), "paragraphs": asked, "of_paragraphs": lines,
    }))
}
