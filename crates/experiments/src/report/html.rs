//! A report as one HTML file that needs no network.
//!
//! ```text
//! Markdown ── pulldown-cmark ──→ HTML     figures as data URIs, tables that a click on a heading sorts
//! ```
//!
//! HTML in the Markdown is shown as text: questions and paragraphs are whatever their authors wrote.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, html};

use crate::error::Result;
use crate::report::layout::{Heading, markdown};
use crate::report::section::{Chart, Section};

const STYLE: &str = include_str!("report.css");
const SORTING: &str = include_str!("sort_tables.js");

/// The page of a report.
///
/// # Errors
///
/// When a figure cannot be drawn.
pub fn page(sections: &[Section], heading: &Heading) -> Result<String> {
    let charts = sections.iter().flat_map(|section| section.charts.iter().chain(&section.closing_charts));
    let figures = charts.map(|chart| Ok((chart.file.as_str(), data_uri(chart)?))).collect::<Result<Vec<_>>>()?;
    let text = markdown(sections, heading);
    let events = Parser::new_ext(&text, Options::ENABLE_TABLES).map(|event| match event {
        Event::Html(html) | Event::InlineHtml(html) => Event::Text(html),
        Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
            let drawn = figures.iter().find(|(file, _)| *file == &*dest_url);
            let dest_url = drawn.map_or(dest_url, |(_, uri)| CowStr::Borrowed(uri));
            Event::Start(Tag::Image { link_type, dest_url, title, id })
        }
        // A link of a report leads within it, or nowhere.
        Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
            let dest_url = if dest_url.contains(':') { CowStr::Borrowed("#") } else { dest_url };
            Event::Start(Tag::Link { link_type, dest_url, title, id })
        }
        other => other,
    });
    let mut body = String::new();
    html::push_html(&mut body, events);
    Ok(format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <title>Switchable quantisation: report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\
         <script>\n{SORTING}</script>\n</body>\n</html>\n"
    ))
}

fn data_uri(chart: &Chart) -> Result<String> {
    Ok(format!("data:image/svg+xml;base64,{}", STANDARD.encode(chart.figure.svg()?)))
}

#[cfg(test)]
mod tests {
    use charts::{Axis, LineChart, Point, Series};

    use super::*;

    fn section() -> Section {
        let chart = LineChart {
            title: "accuracy".into(),
            x: Axis::new("bits", ""),
            y: Axis::new("exact match", "%"),
            series: vec![Series::new("one", vec![Point { x: 2.0, y: 40.0.into() }, Point { x: 4.0, y: 50.0.into() }])],
            ..LineChart::default()
        };
        let text = "\nWhat is <script>alert(1)</script> & why? [no](javascript:alert(2))\n\n| bits | EM |\n|---|---|\n| 2 | 40.1 |\n| 10 | 50.0 |\n";
        Section::new("Widths", text).with_chart(Chart::new("widths.png", "Accuracy by width", chart))
    }

    #[test]
    fn a_page_holds_all_of_it() {
        let heading = Heading { command: "report --seed 1".into(), facts: vec![("seed".into(), "1".into())] };
        let page = page(&[section()], &heading).expect("it is drawn");
        for part in [
            "<h2>Widths</h2>",
            "report --seed 1",
            "<td>40.1</td>",
            "data:image/svg+xml;base64,PHN2Zy",
            "alt=\"Accuracy by width\"",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(
            !page.contains("widths.png") && !page.contains("http://") && !page.contains("https://"),
            "no other file"
        );
        // Nothing that an author wrote is run.
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; why?"), "{page}");
        assert_eq!(page.matches("<script>").count(), 1);
        assert!(!page.contains("javascript:"), "{page}");
    }
}
