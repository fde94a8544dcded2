//! Blocks × sub-modules as heat maps.

use charts::{Axis, ColourScale, HeatMapChart, Panel};

use crate::search::sensitivity::{Sensitivity, SiteLosses};

/// Heat maps of several sensitivities on one scale.
pub(crate) fn site_maps(title: String, maps: &[(&str, &Sensitivity)]) -> HeatMapChart {
    let reference = &maps[0].1.reference;
    // A question that changes its answer moves the exact match by this much.
    let half_width = maps.iter().flat_map(|(_, map)| &map.effects).map(|effect| {
        let interval = effect.comparison.interval;
        50.0 * (interval.high - interval.low)
    });
    let half_width = half_width.fold(0.0, f64::max);
    let losses: Vec<_> = maps.iter().filter_map(|(label, map)| Some((*label, map.site_losses()?))).collect();
    let (blocks, modules) = losses.first().map_or((0, &[][..]), |(_, map)| (map.rows.len(), &map.modules));
    let panel = |(label, map): &(&str, SiteLosses)| {
        let cells = map.rows.iter().map(|row| row.iter().map(|&value| Some(value.into())).collect());
        Panel { title: (*label).into(), cells: cells.collect() }
    };
    HeatMapChart {
        title,
        subtitle: format!("n = {} questions, 95 % intervals at most ±{half_width:.1} points", reference.n),
        row_label: "block".into(),
        rows: (0..blocks).map(|block| block.to_string()).collect(),
        column_label: "sub-module".into(),
        columns: modules.iter().map(ToString::to_string).collect(),
        panels: losses.iter().map(panel).collect(),
        value: Axis::new("exact match lost", "percentage points"),
        scale: ColourScale::Diverging,
        decimals: 1,
        ..HeatMapChart::default()
    }
}
