//! The section of a model card that says what its artefact costs.
//!
//! ```text
//! <!-- certificate -->
//! … replaced by every certificate …
//! <!-- /certificate -->
//! ```
//!
//! What stands before and behind the marks is kept to the byte.

use std::fmt::Write as _;
use std::path::Path;

use crate::certificate::certificate_file::{Certificate, CertifiedModel, Score, Unseen};
use crate::certificate::file_names::MODEL_CARD;
use crate::certificate::paired_loss::Independent;
use crate::certificate::slices::{Slice, SlicedBy};
use crate::error::{Error, Result};
use crate::running::json_file::write_text;
use crate::text::{at_most, p_value, points_within};

const BEGIN: &str = "<!-- certificate -->";
const END: &str = "<!-- /certificate -->";

/// Puts the section of a certificate into the model card of a folder: in the place of the one before, or at its
/// end. A card that is missing is made.
///
/// # Errors
///
/// When the card cannot be read or written, or its marks are not a pair.
pub fn write_section(certificate: &Certificate, dir: impl AsRef<Path>) -> Result<()> {
    let path = dir.as_ref().join(MODEL_CARD);
    let card = read(&path)?.unwrap_or_else(|| "# A switchable model\n".to_owned());
    write_text(&path, &with_section(&card, &section(certificate), &path)?)
}

/// Checks that the model card of a folder can take a section, before anything is computed for it.
///
/// # Errors
///
/// When it cannot be read, or its marks are not a pair.
pub fn check(dir: impl AsRef<Path>) -> Result<()> {
    let path = dir.as_ref().join(MODEL_CARD);
    read(&path)?.map_or(Ok(()), |card| with_section(&card, "", &path).map(drop))
}

/// Checks that the model card of a folder says what its certificate does.
///
/// # Errors
///
/// When it cannot be read, has no section of a certificate, or one that says something else.
pub fn check_section(certificate: &Certificate, dir: impl AsRef<Path>) -> Result<()> {
    let path = dir.as_ref().join(MODEL_CARD);
    let card = read(&path)?.unwrap_or_default();
    let section = format!("{BEGIN}\n{}{END}", section(certificate));
    if card.contains(&section) && card.matches(BEGIN).count() == 1 {
        return Ok(());
    }
    let expected = "the section that the certificate gives".to_owned();
    Err(Error::OtherFile {
        file: MODEL_CARD.into(),
        field: "certificate.json".into(),
        got: "another text".into(),
        expected,
    })
}

fn read(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(card) => Ok(Some(card)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, error)),
    }
}

fn with_section(card: &str, section: &str, path: &Path) -> Result<String> {
    let section = format!("{BEGIN}\n{section}{END}");
    let unpaired = || Error::CardSection { path: path.into(), begin: BEGIN, end: END };
    let Some((before, rest)) = card.split_once(BEGIN) else {
        if card.contains(END) {
            return Err(unpaired());
        }
        let gap = if card.is_empty() || card.ends_with("\n\n") {
            ""
        } else if card.ends_with('\n') {
            "\n"
        } else {
            "\n\n"
        };
        return Ok(format!("{card}{gap}{section}\n"));
    };
    let (_, behind) = rest.split_once(END).ok_or_else(unpaired)?;
    Ok(format!("{before}{section}{behind}"))
}

/// The most that is lost, in words.
///
/// ```text
/// loses at most 0.9 points of exact match and 0.7 of F1 (one-sided, 95 %)
/// ```
pub fn claim(certificate: &Certificate) -> String {
    let [exact, f1] = [certificate.exact_match, certificate.f1].map(|loss| at_most(loss.loses_at_most));
    format!("loses at most {exact} points of exact match and {f1} of F1 (one-sided, 95 %)")
}

/// The section as Markdown, without its marks.
pub fn section(certificate: &Certificate) -> String {
    let Certificate { original, artefact, data, exact_match, f1, mcnemar, machine, .. } = certificate;
    let mut text = format!(
        "## Certificate of cost\n\nThis model {}, at the plan that `certificate.json` holds.\n\n",
        claim(certificate)
    );
    let unseen = match data.unseen {
        Unseen::Recorded => "none of them is among the questions that `made_from.json` says the model was made from",
        Unseen::Asserted => "that the model was not made from them was **asserted by the caller**, not shown",
    };
    let independent = match exact_match.independent {
        Independent::Paragraphs => "Paragraphs are taken as independent, not questions",
        Independent::Questions => "Questions are taken as independent: there are fewer than ten paragraphs",
    };
    let content = &data.content;
    push(
        &mut text,
        format_args!(
            "Measured on {} questions about {} paragraphs (SQuAD {}, content `{:.12}`); {unseen}. {independent} (design effect \
         {:.2} of exact match, {:.2} of F1).\n",
            content.questions,
            content.paragraphs,
            content.format,
            content.hash,
            exact_match.design_effect,
            f1.design_effect,
        ),
    );
    if data.of_seen_paragraphs > 0 {
        let n = data.of_seen_paragraphs;
        push(&mut text, format_args!("{n} of them are about paragraphs that other questions were seen of.\n"));
    }
    text.push_str("\n| | original | this model | difference, points | at most lost |\n|---|---|---|---|---|\n");
    for (name, of, loss) in [
        ("exact match", [original.exact_match, artefact.exact_match], exact_match),
        ("F1", [original.f1, artefact.f1], f1),
    ] {
        let [first, second] = of.map(|Score { percent, interval }| crate::text::interval(percent, interval));
        let (difference, at_most) = (points_within(loss.difference, loss.interval), at_most(loss.loses_at_most));
        push(&mut text, format_args!("| {name} | {first} | {second} | {difference} | {at_most} |\n"));
    }
    push(
        &mut text,
        format_args!(
            "\n{} questions are answered exactly by the original alone, {} by this model alone (McNemar's p = {}).\n",
            mcnemar.only_original,
            mcnemar.only_artefact,
            p_value(mcnemar.p_value),
        ),
    );
    text.push_str("\n| | original | this model |\n|---|---|---|\n");
    let mut row = |name: &str, value: &dyn Fn(&CertifiedModel) -> String| {
        push(&mut text, format_args!("| {name} | {} | {} |\n", value(original), value(artefact)));
    };
    row("content of its files", &|model| format!("`{:.12}`", model.files.hash));
    row("bytes on disk", &|model| megabytes(model.files.model_bytes()));
    row("bytes of weights, computed", &|model| megabytes(model.weight_bytes as u64));
    let resident = |of: fn(&crate::certificate::machine::Resident) -> u64| {
        move |model: &CertifiedModel| {
            model.resident.as_ref().map_or("not measured".into(), |bytes| megabytes(of(bytes)))
        }
    };
    row("resident once loaded", &resident(|bytes| bytes.loaded));
    row("resident at most", &resident(|bytes| bytes.peak));
    row("p50 of a question", &|model| format!("{:.1} ms", model.timing.p50_milliseconds));
    row("p95 of a question", &|model| format!("{:.1} ms", model.timing.p95_milliseconds));
    row("tokens per second", &|model| format!("{:.0}", model.timing.tokens_per_second));
    let processor = machine.processor.as_deref().unwrap_or("a processor of no known name");
    push(
        &mut text,
        format_args!(
            "\nMemory and times are those of one process for each model, one after the other, on {processor} ({}, {}, {} \
         threads, {}). Each of the first {} questions is asked alone; tokens per second are of batches, {} at once.\n",
            machine.target,
            machine.instructions,
            machine.threads,
            machine.backend,
            artefact.timing.questions,
            artefact.timing.workers,
        ),
    );
    slices(&mut text, &certificate.slices);
    push(
        &mut text,
        format_args!(
            "\n`certify --verify` checks all of it again but memory and times. Certificate by {}.\n",
            certificate.made_by
        ),
    );
    text
}

fn slices(text: &mut String, slices: &[Slice]) {
    text.push_str(
        "\n| part | n | original | this model | difference, points | p (Holm) |\n|---|---|---|---|---|---|\n",
    );
    for slice in slices {
        let by = match slice.by {
            SlicedBy::AnswerWords => "answer of words: ",
            SlicedBy::QuestionWord => "question: ",
            SlicedBy::Answerable => "",
        };
        let flag = if slice.is_worse { " **worse**" } else { "" };
        let difference = points_within(slice.difference, slice.interval);
        push(
            text,
            format_args!(
                "| {by}{} | {} | {:.1} | {:.1} | {difference} | {}{flag} |\n",
                slice.part,
                slice.questions,
                slice.original,
                slice.artefact,
                p_value(slice.holm_p_value),
            ),
        );
    }
    push(
        text,
        format_args!(
            "\nThese are {} comparisons: intervals are of each part alone, p is adjusted for all of them, and only a part marked \
         as worse is.\n",
            slices.len()
        ),
    );
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string never fails.
    _ = text.write_fmt(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_put_in_and_replaced_and_the_rest_is_kept_to_the_byte() {
        let path = Path::new("README.md");
        for (card, before) in [("", ""), ("# A\n", "# A\n\n"), ("# A", "# A\n\n"), ("# A\n\n", "# A\n\n")] {
            let first = with_section(card, "one\n", path).unwrap();
            assert_eq!(first, format!("{before}{BEGIN}\none\n{END}\n"));
            let longer = format!("{first}\n  behind\r\n");
            let second = with_section(&longer, "two\n", path).unwrap();
            assert_eq!(second, longer.replace("one\n", "two\n"));
        }
        for card in [format!("a {BEGIN} b"), format!("a {END} b"), format!("{END}{BEGIN}")] {
            let message = with_section(&card, "", path).unwrap_err().to_string();
            assert!(message.starts_with("README.md: `<!-- certificate -->` stands without"), "{message}");
        }
    }
}
