//! What a stage adds to a report.

use std::fmt;

use charts::Figure;

/// A part of a report under a title of its own.
#[derive(Debug, Default)]
pub struct Section {
    /// The title.
    pub title: String,
    /// Charts before the text.
    pub charts: Vec<Chart>,
    /// The text, Markdown that ends with a line break.
    pub text: String,
    /// Charts after the text.
    pub closing_charts: Vec<Chart>,
}

impl Section {
    /// A section of text alone.
    pub fn new(title: impl Into<String>, text: impl Into<String>) -> Self {
        Self { title: title.into(), text: text.into(), ..Self::default() }
    }

    /// The section with a chart before its text.
    #[must_use]
    pub fn with_chart(mut self, chart: Chart) -> Self {
        self.charts.push(chart);
        self
    }

    /// The section with a chart after its text.
    #[must_use]
    pub fn closed_by(mut self, chart: Chart) -> Self {
        self.closing_charts.push(chart);
        self
    }
}

/// A figure with its file.
pub struct Chart {
    /// File name, such as `layers.png`.
    pub file: String,
    /// What it shows, in a line.
    pub caption: String,
    /// The picture.
    pub figure: Box<dyn Figure>,
}

impl Chart {
    /// A figure, its file name and its caption.
    pub fn new(file: impl Into<String>, caption: impl Into<String>, figure: impl Figure + 'static) -> Self {
        Self { file: file.into(), caption: caption.into(), figure: Box::new(figure) }
    }
}

impl fmt::Debug for Chart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chart").field("file", &self.file).field("caption", &self.caption).finish_non_exhaustive()
    }
}
