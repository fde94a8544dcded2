use std::path::Path;

use super::*;

fn pixels(png: &[u8]) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    pixels.truncate(info.buffer_size());
    (info.width, info.height, pixels)
}

fn drawn(figure: &impl Figure) -> Vec<u8> {
    pixels(&figure.png().unwrap()).2
}

fn has_colour(pixels: &[u8], colour: [u8; 3]) -> bool {
    pixels.chunks_exact(3).any(|pixel| pixel == colour)
}

fn refused(figure: &impl Figure) -> String {
    figure.png().unwrap_err().to_string()
}

fn around(value: f64) -> Estimate {
    Estimate::new(value, Interval { low: value - 3.0, high: value + 2.0 })
}

fn series(points: impl IntoIterator<Item = (f64, Estimate)>) -> Series {
    Series::new("a", points.into_iter().map(|(x, y)| Point { x, y }).collect::<Vec<_>>())
}

fn line(points: impl IntoIterator<Item = (f64, Estimate)>) -> LineChart {
    LineChart {
        title: "title".into(),
        subtitle: "n = 5".into(),
        x: Axis::new("width", "bits"),
        y: Axis::new("exact match", "%"),
        series: vec![series(points)],
        ..LineChart::default()
    }
}

fn bars(values: impl IntoIterator<Item = Estimate>) -> BarChart {
    let bars: Vec<_> = values.into_iter().collect();
    BarChart {
        title: "title".into(),
        category_label: "block".into(),
        categories: (0..bars.len()).map(|i| i.to_string()).collect(),
        value: Axis::new("exact match", "%"),
        groups: vec![BarGroup::new("a", bars)],
        ..BarChart::default()
    }
}

fn heat<const COLUMNS: usize>(rows: impl IntoIterator<Item = [f64; COLUMNS]>) -> HeatMapChart {
    let panel = Panel::new("a", rows);
    HeatMapChart {
        title: "title".into(),
        rows: (0..panel.cells.len()).map(|i| i.to_string()).collect(),
        columns: (0..COLUMNS).map(|i| i.to_string()).collect(),
        panels: vec![panel],
        value: Axis::new("lost", "points"),
        ..HeatMapChart::default()
    }
}

const SHORT: [(f64, f64); 3] = [(2.0, 23.0), (4.0, 82.0), (8.0, 84.0)];

fn short() -> LineChart {
    line(SHORT.map(|(x, y)| (x, y.into())))
}

#[test]
fn pictures_are_png_files_of_the_stated_size() {
    let size = Size { width: 800, height: 500 };
    let figures: [Box<dyn Figure>; 3] = [
        Box::new(LineChart { size, ..short() }),
        Box::new(BarChart { size, ..bars([around(5.0)]) }),
        Box::new(HeatMapChart { size, ..heat([[1.0, 2.0]]) }),
    ];
    for figure in figures {
        let (width, height, pixels) = pixels(&figure.png().unwrap());
        assert_eq!((width, height, pixels.len()), (800, 500, 800 * 500 * 3));
    }
    let (width, height, _) = pixels(&short().png().unwrap());
    assert_eq!((width, height), (1600, 1000));
}

#[test]
fn equal_data_gives_equal_bytes_and_other_data_another_picture() {
    assert_eq!(short().png().unwrap(), short().png().unwrap());
    assert_ne!(drawn(&short()), drawn(&line([(2.0, 23.0.into()), (4.0, 70.0.into()), (8.0, 84.0.into())])));
    assert_ne!(drawn(&bars([around(5.0), around(7.0)])), drawn(&bars([around(5.0), around(8.0)])));
    let (one, other) = (heat([[1.0, 2.0], [3.0, 4.0]]), heat([[2.0, 1.0], [3.0, 4.0]]));
    assert_ne!(drawn(&one), drawn(&other));
    // Colours alone tell values apart where there is no room for numbers.
    let many = |first: f64| heat((0..80).map(|row| [first * f64::from(row % 2), 1.0]));
    assert_ne!(drawn(&many(0.2)), drawn(&many(0.4)));
}

#[test]
fn intervals_are_drawn() {
    // The axes hold the ends either way, and no name makes room in the legend.
    let chart = |interval: bool, count: usize| {
        let mut chart = line((0..count).map(|i| {
            let value = 50.0 + i as f64;
            (i as f64, if interval { around(value) } else { value.into() })
        }));
        chart.y = chart.y.including([40.0, 90.0]);
        drawn(&chart)
    };
    let band = [199, 224, 239];
    assert_ne!(chart(true, 3), chart(false, 3));
    assert!(has_colour(&chart(true, 20), band) && !has_colour(&chart(false, 20), band));
    assert!(!has_colour(&chart(true, 3), band), "three points have whiskers");

    let without = BarChart { value: Axis::new("v", "").including([9.0]), ..bars([5.0.into()]) };
    let with = BarChart { groups: vec![BarGroup::new("a", [around(5.0)])], ..without.clone() };
    let below_the_legend = |chart: &BarChart| drawn(chart)[1600 * 3 * 200..].to_vec();
    assert_ne!(below_the_legend(&with), below_the_legend(&without));

    let mut cells = heat([[1.0]]);
    let without = drawn(&cells);
    cells.panels[0].cells[0][0] = Some(around(1.0));
    assert_ne!(drawn(&cells), without);
}

#[test]
fn reference_lines_are_drawn() {
    let plain = LineChart { y: Axis::new("v", "").including([0.0, 100.0]), ..short() };
    let level = LineChart { horizontal_marks: vec![Mark::new(75.0, "threshold")], ..plain.clone() };
    let upright = LineChart { vertical_marks: vec![Mark::new(3.0, "crossing")], ..plain.clone() };
    assert_ne!(drawn(&plain), drawn(&level));
    assert_ne!(drawn(&plain), drawn(&upright));
}

#[test]
fn all_series_have_their_own_colour() {
    let chart = LineChart { series: (0..7).map(|i| series([(0.0, f64::from(i).into())])).collect(), ..short() };
    let pixels = drawn(&chart);
    assert!(palette::SERIES.iter().all(|colour| has_colour(&pixels, colour.0)));
}

#[test]
fn every_colour_of_a_cell_has_readable_ink() {
    for step in 0..=1000 {
        for scale in [palette::sequential, palette::diverging] {
            let colour = scale(f64::from(step) / 1000.0);
            assert!(colour.contrast(colour.readable_ink()) >= 4.5, "{colour:?}");
        }
    }
}

#[test]
fn the_sequential_scale_grows_brighter_and_the_diverging_one_is_neutral_at_zero() {
    let luminance = |step| palette::sequential(f64::from(step) / 100.0).luminance();
    assert!((0..100).all(|step| luminance(step) < luminance(step + 1)));
    let [r, g, b] = palette::diverging(0.5).0;
    assert!(r == g && g == b);
    let chart = HeatMapChart { scale: ColourScale::Diverging, ..heat([[-1.0, 0.0, 4.0]]) };
    let pixels = drawn(&chart);
    assert!(has_colour(&pixels, palette::diverging(0.5).0) && has_colour(&pixels, palette::diverging(1.0).0));
    assert!(has_colour(&pixels, palette::diverging(0.375).0), "a quarter of the way to blue");
}

#[test]
fn unusual_data_is_drawn() {
    let styles = [LineStyle::Line, LineStyle::Markers, LineStyle::Both, LineStyle::Step];
    let blank = drawn(&line([(1e3, 0.0.into())]));
    for style in styles {
        let styled = |chart: LineChart| {
            let series = chart.series.iter().map(|s| s.clone().with_style(style)).collect();
            drawn(&LineChart { series, ..chart })
        };
        let blue = palette::SERIES[0].0;
        assert!(has_colour(&styled(line([(3.0, 5.0.into())])), blue), "one point, {style:?}");
        assert!(has_colour(&styled(line([(3.0, 5.0.into()), (3.0, 5.0.into())])), blue), "twice the same, {style:?}");
        assert!(has_colour(&styled(line((0..5).map(|i| (f64::from(i), around(5.0))))), blue), "equal, {style:?}");
        assert_ne!(styled(line((0..5000).map(|i| (f64::from(i), f64::from(i % 7).into())))), blank);
    }
    for extreme in [0.0, -5.0, 1e-40, -1e30, 1e30, 1e9] {
        drawn(&line([(extreme, extreme.into()), (1.0, around(2.0))]));
        drawn(&line([(extreme, extreme.into())]));
        drawn(&bars([extreme.into(), (-extreme).into()]));
        drawn(&heat([[extreme, extreme], [extreme, 0.0]]));
        drawn(&HeatMapChart { scale: ColourScale::Diverging, ..heat([[extreme, 1.0]]) });
    }
    drawn(&bars((0..3000).map(|i| around(f64::from(i)))));
    drawn(&heat((0..3000).map(|i| [f64::from(i); 4])));
    let log = |low: f64, high: f64| LineChart {
        x: Axis::new("x", "").log2(),
        ..line([(low, 1.0.into()), (high, 2.0.into())])
    };
    for (low, high) in [(1.0, 1.0), (90.0, 150.0), (1e-30, 1e30), (2.0, 32.0)] {
        drawn(&log(low, high));
    }
}

#[test]
fn very_long_names_leave_the_plot_in_place() {
    let long = "a name that goes on ".repeat(500);
    let unbroken = "w".repeat(100_000);
    for name in [long, unbroken, "line\nbreak\t\u{0}".into(), "模型 🦀".into(), String::new()] {
        let mut chart = LineChart {
            title: name.clone(),
            subtitle: name.clone(),
            x: Axis::new(&*name, &*name),
            y: Axis::new(&*name, &*name),
            vertical_marks: vec![Mark::new(2.0, &*name), Mark::new(2.1, &*name), Mark::new(8.0, &*name)],
            horizontal_marks: vec![Mark::new(30.0, &*name), Mark::new(31.0, &*name)],
            ..short()
        };
        chart.series[0].name.clone_from(&name);
        assert!(has_colour(&drawn(&chart), palette::SERIES[0].0));
        let categories = vec![name.clone(); 12];
        let mut chart = bars([around(1.0); 12]);
        chart.categories.clone_from(&categories);
        assert!(has_colour(&drawn(&chart), palette::SERIES[0].0));
        let chart = HeatMapChart { rows: categories, columns: vec![name.clone(); 2], ..heat([[1.0, 2.0]; 12]) };
        assert!(has_colour(&drawn(&chart), palette::sequential(1.0).0));
    }
}

#[test]
fn empty_data_is_refused_with_the_field() {
    assert!(refused(&line([])).contains("`points` is empty (series `a`)"));
    assert!(refused(&LineChart::default()).contains("`series`"));
    assert!(refused(&LineChart { series: vec![short().series[0].clone(); 15], ..short() }).contains("15 series"));
    assert!(refused(&bars([])).contains("`categories`"));
    assert!(refused(&BarChart { groups: vec![], ..bars([around(1.0)]) }).contains("`groups`"));
    assert!(refused(&HeatMapChart { rows: vec![], ..heat([[1.0]]) }).contains("`rows`"));
    assert!(refused(&HeatMapChart { columns: vec![], ..heat([[1.0]]) }).contains("`columns`"));
    assert!(refused(&HeatMapChart { panels: vec![], ..heat([[1.0]]) }).contains("`panels`"));
    let unmeasured = Panel { title: String::new(), cells: vec![vec![None]] };
    assert!(refused(&HeatMapChart { panels: vec![unmeasured], ..heat([[1.0]]) }).contains("`panels`"));
}

#[test]
fn numbers_that_are_none_are_refused_with_their_place() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
        let message = refused(&line([(1.0, 1.0.into()), (2.0, bad.into())]));
        assert!(message.contains("`points.y`") && message.contains("series `a`, point 2"), "{message}");
        assert!(refused(&line([(bad, 1.0.into())])).contains("`points.x`"));
        let interval = Interval { low: 0.0, high: bad };
        assert!(refused(&line([(1.0, Estimate::new(1.0, interval))])).contains("`points.y`"));
        assert!(refused(&LineChart { vertical_marks: vec![Mark::new(bad, "m")], ..short() }).contains("mark `m`"));
        assert!(refused(&LineChart { horizontal_marks: vec![Mark::new(bad, "m")], ..short() }).contains("mark `m`"));
        assert!(refused(&LineChart { x: Axis::new("", "").with_ticks([bad]), ..short() }).contains("`x`"));
        assert!(refused(&LineChart { y: Axis::new("", "").including([bad]), ..short() }).contains("`y`"));
        assert!(refused(&bars([1.0.into(), bad.into()])).contains("group `a`, category `1`"));
        assert!(refused(&heat([[1.0, bad]])).contains("panel `a`, row `0`, column `1`"));
        let value = Axis::new("", "").including([bad]);
        let chart = HeatMapChart { value, scale: ColourScale::Diverging, ..heat([[1.0]]) };
        assert!(refused(&chart).contains("`value`"));
    }
    let reversed = Interval { low: 2.0, high: 1.0 };
    assert!(refused(&bars([Estimate::new(1.5, reversed)])).contains("interval 2 to 1"));
}

#[test]
fn log_axes_refuse_zero_and_negative_values() {
    for bad in [0.0, -1.0] {
        let chart = |x: Axis, y: Axis| LineChart { x, y, ..line([(bad, bad.into()), (2.0, 2.0.into())]) };
        let (linear, log) = (|| Axis::new("v", ""), || Axis::new("v", "").log2());
        assert!(refused(&chart(log(), linear())).starts_with("`x` is"));
        assert!(refused(&chart(linear(), log())).starts_with("`y` is"));
    }
    let value = Axis::new("v", "").log2();
    assert!(refused(&BarChart { value: value.clone(), ..bars([around(5.0)]) }).contains("`value.scale` is log2"));
    assert!(refused(&HeatMapChart { value, ..heat([[1.0]]) }).contains("`value.scale` is log2"));
}

#[test]
fn sizes_and_shapes_that_do_not_fit_are_refused() {
    for (width, height) in [(0, 0), (399, 300), (3201, 2000), (1600, 100), (1600, 4801)] {
        let message = refused(&LineChart { size: Size { width, height }, ..short() });
        assert!(message.starts_with("`size."), "{message}");
    }
    let crowded = LineChart {
        size: Size { width: 1500, height: 500 },
        subtitle: "long ".repeat(100),
        series: vec![Series { name: "long ".repeat(100), ..short().series[0].clone() }; 14],
        ..short()
    };
    assert!(refused(&crowded).contains("`size`"));
    let marks = vec![Mark::new(3.0, "label"); 40];
    assert!(refused(&BarChart { horizontal_marks: marks.clone(), ..bars([around(1.0)]) }).contains("40 marks"));
    assert!(refused(&LineChart { horizontal_marks: marks.clone(), ..short() }).contains("40 marks"));
    assert!(refused(&LineChart { vertical_marks: marks, ..short() }).contains("`size`"));
    let chart = BarChart { categories: vec!["a".into(); 2], ..bars([around(1.0)]) };
    assert!(refused(&chart).contains("1 bars (group `a`), expected one for each of 2"));
    let rows = vec!["a".into(); 2];
    assert!(refused(&HeatMapChart { rows, ..heat([[1.0]]) }).contains("1 rows (panel `a`), expected 2 rows"));
    let columns = vec!["a".into(); 2];
    assert!(refused(&HeatMapChart { columns, ..heat([[1.0]]) }).contains("1 cells (panel `a`, row `0`)"));
    assert!(refused(&HeatMapChart { decimals: 7, ..heat([[1.0]]) }).contains("`decimals` is 7"));
}

#[test]
fn a_failing_write_leaves_nothing_partial() {
    let dir = tempfile::tempdir().unwrap();
    let files = |dir: &Path| std::fs::read_dir(dir).unwrap().count();
    let path = dir.path().join("new folder/figure.png");
    short().write(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), short().png().unwrap());

    assert!(line([]).write(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), short().png().unwrap(), "the old picture stays");
    assert_eq!(files(path.parent().unwrap()), 1);

    // A folder stands where the file should go.
    let occupied = dir.path().join("occupied.png");
    std::fs::create_dir_all(occupied.join("inside")).unwrap();
    let message = short().write(&occupied).unwrap_err().to_string();
    assert!(message.contains("occupied.png"), "{message}");
    assert_eq!(files(dir.path()), 2);
}

#[test]
fn a_picture_is_a_document_that_every_reader_of_xml_reads_and_holds_its_text() {
    let odd = "EM < 50 & \"F1\" > 60\u{1}";
    let chart = LineChart { title: odd.into(), subtitle: "a\nb".into(), ..short() };
    let figures: [&dyn Figure; 3] = [&chart, &heat([[1.0, 2.0]]), &short()];
    for figure in figures {
        let document = figure.svg().unwrap();
        assert_eq!(document, figure.svg().unwrap());
        let (mut text, mut lines, mut depth) = (String::new(), 0, 0);
        for event in xml::EventReader::from_str(&document) {
            match event.unwrap() {
                xml::reader::XmlEvent::Characters(characters) => text += &characters,
                xml::reader::XmlEvent::StartElement { name, attributes, .. } => {
                    depth += 1;
                    lines += usize::from(name.local_name == "polyline");
                    for attribute in attributes {
                        assert!(!attribute.value.contains("NaN") && !attribute.value.contains("inf"), "{attribute}");
                    }
                }
                xml::reader::XmlEvent::EndElement { .. } => depth -= 1,
                _ => {}
            }
        }
        assert_eq!(depth, 0);
        assert!(lines > 0 || document.contains("<rect"), "something is drawn");
        assert!(text.len() > 5, "{text}");
    }
    assert!(chart.svg().unwrap().contains("<title>EM &lt; 50 &amp; &quot;F1&quot; &gt; 60 </title>"));
    let dir = tempfile::tempdir().unwrap();
    chart.write(&dir.path().join("figure.SVG")).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("figure.SVG")).unwrap(), chart.svg().unwrap());
}
