#![doc = include_str!("../README.md")]

mod axis;
mod bar_chart;
mod bitmap;
mod canvas;
mod category_labels;
mod error;
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
mod shapes;
mod size;
mod svg;
#[cfg(test)]
mod tests;

pub use axis::{Axis, Scale};
pub use bar_chart::{BarChart, BarGroup};
pub use error::{Error, Result};
pub use estimate::{Estimate, Interval};
pub use figure::Figure;
pub use heat_map_chart::{ColourScale, HeatMapChart, Panel};
pub use line_chart::{LineChart, LineStyle, Point, Series};
pub use mark::Mark;
pub use size::Size;
