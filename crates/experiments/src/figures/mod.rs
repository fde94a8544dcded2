//! Figures of a study as PNG files.
//!
//! | file | what |
//! |---|---|
//! | `figure` | [`Figure`]: a picture as bytes or as a file; [`Size`] |
//! | `estimate` | [`Estimate`]: a value and its 95 % interval |
//! | `axis`, `mark` | [`Axis`]: label, unit, scale, ticks; [`Mark`]: a labelled reference line |
//! | `line_chart` | [`LineChart`]: sweeps, search paths, Pareto fronts |
//! | `bar_chart` | [`BarChart`]: values of categories, in groups |
//! | `heat_map_chart` | [`HeatMapChart`]: tables as colours, several with one scale |
//! | `page`, `plot_frame` | headings and legends; axes, grid and reference lines |
//! | `category_labels`, `marker` | names below columns; markers and whiskers |
//! | `canvas`, `lettering`, `numbers`, `palette` | shapes, text, numbers as text, colours |
//!
//! A figure is plain data and draws the same bytes each time. No font or library of the system is
//! used. Layout is computed on a page 1600 units wide, so that a figure of another width looks the
//! same, larger or smaller.
//!
//! The series' colours are those of Okabe and Ito, *Color universal design*, 2008; series differ in
//! the shape of their markers as well. Sequential colours follow viridis (van der Walt and Smith,
//! 2015), whose lightness rises evenly.

mod axis;
mod bar_chart;
mod canvas;
mod category_labels;
mod estimate;
mod figure;
mod heat_map_chart;
mod lettering;
mod line_chart;
mod mark;
mod marker;
mod numbers;
mod page;
mod palette;
mod plot_frame;
#[cfg(test)]
mod tests;

pub use axis::{Axis, Scale};
pub use bar_chart::{BarChart, BarGroup};
pub use estimate::Estimate;
pub use figure::{Figure, Size};
pub use heat_map_chart::{ColourScale, HeatMapChart, Panel};
pub use line_chart::{LineChart, LineStyle, Point, Series};
pub use mark::Mark;
