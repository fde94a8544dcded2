//! Sections laid out as one report: a Markdown file with its figures, and a page that holds all.

use std::fmt::Write as _;
use std::path::Path;

use span_reader::running::json_file::write_text;

use crate::error::Result;
use crate::report::html;
use crate::report::section::{Chart, Section};

/// What stands at the top of a report.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heading {
    /// The command that made it.
    pub command: String,
    /// Lines about model, data, quantiser, device and seed: name and value.
    pub facts: Vec<(String, String)>,
}

/// The text of a report.
pub fn markdown(sections: &[Section], heading: &Heading) -> String {
    let mut text = format!("# Switchable quantisation: report\n\n```sh\n{}\n```\n\n", heading.command);
    text += "| | |\n|---|---|\n";
    for (name, value) in &heading.facts {
        let _ = writeln!(text, "| {name} | {value} |");
    }
    text += "\nAccuracy in percent with 95 % intervals. Differences are paired, question by question; one whose \
             interval or test holds zero is called noise.\n";
    for Section { title, charts, text: body, closing_charts } in sections {
        let _ = write!(text, "\n## {title}\n\n");
        for Chart { file, caption, .. } in charts {
            let _ = write!(text, "![{caption}]({file})\n\n");
        }
        text += body;
        for Chart { file, caption, .. } in closing_charts {
            let _ = writeln!(text, "\n![{caption}]({file})");
        }
    }
    text
}

/// Writes every figure of some sections, as PNG and as SVG; returns the names of the former.
///
/// # Errors
///
/// When a figure cannot be drawn or written.
pub fn write_figures(sections: &[Section], dir: &Path) -> Result<Vec<String>> {
    let mut written = Vec::new();
    for chart in sections.iter().flat_map(|section| section.charts.iter().chain(&section.closing_charts)) {
        let file = dir.join(&chart.file);
        chart.figure.write(&file)?;
        chart.figure.write(&file.with_extension("svg"))?;
        written.push(chart.file.clone());
    }
    Ok(written)
}

/// Writes `report.md`, `report.html` and the figures of some sections; returns the file names of the figures.
///
/// # Errors
///
/// As [`write_figures`], and when the text cannot be written.
pub fn write_report(sections: &[Section], heading: &Heading, dir: &Path) -> Result<Vec<String>> {
    let figures = write_figures(sections, dir)?;
    write_text(dir.join("report.md"), &markdown(sections, heading))?;
    write_text(dir.join("report.html"), &html::page(sections, heading)?)?;
    Ok(figures)
}
