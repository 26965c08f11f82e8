//! Every builder, at both widths: texts stand on the page and do not overlap.

use super::canvas::Placed;
use super::figures::*;
use super::geometry::Rect;
use super::samples::{all, grid, scaling};
use super::style::MARGIN;
use super::*;
use std::collections::BTreeMap;

/// Texts off the page, and pairs that overlap.
fn faults(chart: &Chart) -> Vec<String> {
    let texts = page::texts(chart).unwrap();
    let size = page::Page::size(chart);
    let sheet = Rect::new(MARGIN - 2.0, 2.0, f64::from(size.0) - MARGIN + 2.0, f64::from(size.1) - 2.0);
    let off = texts.iter().filter(|placed| !sheet.contains(&placed.area));
    let mut faults: Vec<String> = off.map(|placed| format!("off the page: {placed:?}")).collect();
    // Ascenders of one line may come as near as this to descenders of the other.
    let tight = |placed: &Placed| Rect { top: placed.area.top + 1.0, bottom: placed.area.bottom - 1.0, ..placed.area };
    for (i, a) in texts.iter().enumerate() {
        let over = texts[i + 1..].iter().filter(|b| tight(a).overlaps(&tight(b)));
        faults.extend(over.map(|b| format!("overlap: {a:?} {b:?}")));
    }
    faults
}

#[test]
fn texts_stand_on_the_page_and_do_not_overlap() {
    let faults: Vec<String> = all()
        .iter()
        .flat_map(|(name, chart)| faults(chart).into_iter().map(move |fault| format!("{name}: {fault}")))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn all_references_and_notes_find_a_place() {
    for (name, chart) in all() {
        let texts = page::texts(&chart).unwrap();
        let stands = |label: &str| {
            label.is_empty() || {
                let start: String = label.chars().take(12).collect();
                texts.iter().any(|placed| placed.text.starts_with(&start))
            }
        };
        for panel in &chart.panels {
            let Panel::Xy(panel) = panel else { continue };
            let labels = panel.references.iter().map(|reference| &reference.label);
            for label in labels.chain(panel.notes.iter().map(|note| &note.text)) {
                assert!(stands(label), "{name}: {label}");
            }
        }
    }
}

#[test]
fn legends_name_all_series() {
    for (name, chart) in all() {
        let texts = page::texts(&chart).unwrap();
        for entry in &chart.legend {
            let start: String = entry.name.chars().take(12).collect();
            assert!(texts.iter().any(|placed| placed.text.starts_with(&start)), "{name}: {}", entry.name);
        }
    }
}

#[test]
fn documents_are_whole_and_repeat() {
    for (name, chart) in all() {
        let svg = chart.svg().unwrap();
        assert!(svg.trim_end().ends_with("</svg>") && !svg.contains("NaN") && !svg.contains("inf"), "{name}");
        assert_eq!(svg, chart.svg().unwrap(), "{name}");
        assert!(svg.starts_with(&format!("<svg width=\"{}\" height=\"", chart.width.pixels())), "{name}");
    }
}

/// More colours than these are a scale's.
const MOST_COLOURS: usize = 24;

/// What an SVG says and draws, without where: its texts in their order, and by colour how many shapes of each kind; by
/// kind alone where cells have more colours than [`MOST_COLOURS`]. Of lines it says only whether there are any, for
/// dashes are lines too.
fn outline(svg: &str) -> String {
    let attribute = |tag: &str, name: &str| {
        let rest = tag.split_once(&format!(" {name}=\""))?.1;
        Some(rest[..rest.find('"')?].to_owned())
    };
    let mut shapes: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut texts = Vec::new();
    for element in svg.split('<').skip(1) {
        let (tag, content) = element.split_once('>').unwrap();
        let kind = tag.split(' ').next().unwrap();
        if kind == "text" {
            texts.push(content.trim().to_owned());
        } else if !kind.starts_with('/') && kind != "svg" {
            let fill = attribute(tag, "fill").filter(|fill| fill != "none");
            let colour = fill.or_else(|| attribute(tag, "stroke")).unwrap_or_default();
            *shapes.entry((kind.to_owned(), colour)).or_insert(0) += 1;
        }
    }
    let many = |kind: &str| shapes.keys().filter(|(other, _)| other == kind).count() > MOST_COLOURS;
    let mut by_colour: BTreeMap<(String, String), usize> = BTreeMap::new();
    for ((kind, colour), count) in &shapes {
        let colour = if many(kind) { "of many colours".to_owned() } else { colour.clone() };
        *by_colour.entry((kind.clone(), colour)).or_insert(0) += count;
    }
    let mut out = format!("texts:\n  {}\nshapes:\n", texts.join("\n  "));
    for ((kind, colour), count) in by_colour {
        let count = if kind == "polyline" { "some".to_owned() } else { count.to_string() };
        out += &format!("  {kind} {colour}: {count}\n");
    }
    out
}

/// One outline for each kind of figure, in tests/data/outlines.
#[test]
fn figures_say_and_draw_what_they_did() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/outlines");
    insta::with_settings!({ snapshot_path => folder, prepend_module_to_snapshot => false, omit_expression => true }, {
        for (name, chart) in all().into_iter().filter(|(name, _)| name.ends_with("_full")) {
            let panels = chart.panels.len();
            insta::assert_snapshot!(name, format!("panels: {panels}\n{}", outline(&chart.svg().unwrap())));
        }
    });
}

#[test]
fn greys_have_no_colour() {
    let png = scaling(Width::Column, true).png_in(Palette::Grey).unwrap();
    let image = image::load_from_memory(&png).unwrap().to_rgb8();
    assert!(image.pixels().all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
    assert_eq!(image.width(), 680);
}

#[test]
fn nothing_to_draw_is_an_error() {
    let empty: Vec<Chart> = vec![
        Chart::default(),
        Figure::default().chart(),
        Reducible::default().chart(),
        ProfileCurves::default().chart(),
        Isoflop::default().chart(),
        Allocation::default().chart(),
        forest("", Width::Full, vec![ForestPanel::default()]),
        SettingGrid::default().chart(),
        Evaluation::default().chart(),
        LossCurves::default().chart(),
        Coverage::default().chart(),
        Latency::default().chart(),
        Surface::default().chart(),
        CurveFits::default().chart(),
    ];
    for chart in empty {
        assert!(matches!(chart.svg(), Err(PlotError::NoPoints)), "{chart:?}");
        assert!(matches!(chart.png(), Err(PlotError::NoPoints)), "{chart:?}");
    }
    let mut uneven = grid(Width::Full);
    if let Panel::HeatMap(panel) = &mut uneven.panels[0] {
        panel.values[1].pop();
    }
    assert!(matches!(uneven.svg(), Err(PlotError::BadTable { rows: 5, columns: 8 })));
}

#[test]
#[ignore = "writes all figures to target/figures, to be looked at"]
fn gallery() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/figures");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, chart) in all() {
        std::fs::write(folder.join(format!("{name}.svg")), chart.svg().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), chart.png().unwrap()).unwrap();
        std::fs::write(folder.join(format!("{name}_grey.png")), chart.png_in(Palette::Grey).unwrap()).unwrap();
    }
}
