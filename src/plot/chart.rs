//! A chart: panels in a grid, one legend below them, and a note.

use plotters::prelude::DrawingBackend;

use super::PlotError;
use super::canvas::{Align, Canvas};
use super::forest::ForestPanel;
use super::geometry::Rect;
use super::heatmap::HeatMapPanel;
use super::legend::{Legend, LegendEntry};
use super::page::{self, Page};
use super::style::{FADED, INK, LABEL, MARGIN, NOTE, Palette, TITLE, Width};
use super::text::wrapped;
use super::xy::XyPanel;
use super::xy_draw::Frame;

/// One panel of a chart.
#[derive(Clone, Debug, PartialEq)]
pub enum Panel {
    /// Points, curves and bands on two axes.
    Xy(XyPanel),
    /// Estimates with intervals.
    Forest(ForestPanel),
    /// Coloured cells.
    HeatMap(HeatMapPanel),
}

impl Panel {
    fn check(&self) -> Result<(), PlotError> {
        match self {
            Self::Xy(panel) => panel.check(),
            Self::Forest(panel) => panel.check(),
            Self::HeatMap(panel) => panel.check(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Xy(panel) => panel.is_empty(),
            Self::Forest(panel) => panel.rows.is_empty(),
            Self::HeatMap(panel) => panel.is_empty(),
        }
    }

    fn joins_above(&self) -> bool {
        matches!(self, Self::Xy(panel) if panel.share_x_with_above)
    }
}

impl From<XyPanel> for Panel {
    fn from(panel: XyPanel) -> Self {
        Self::Xy(panel)
    }
}

impl From<ForestPanel> for Panel {
    fn from(panel: ForestPanel) -> Self {
        Self::Forest(panel)
    }
}

impl From<HeatMapPanel> for Panel {
    fn from(panel: HeatMapPanel) -> Self {
        Self::HeatMap(panel)
    }
}

/// A figure of one or several panels. Its height follows from its content.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chart {
    /// Heading; may be empty.
    pub title: String,
    /// Width on paper.
    pub width: Width,
    /// Row by row. A panel that shares its x axis with the one above belongs to that one's place.
    pub panels: Vec<Panel>,
    /// Panels beside each other; at least one.
    pub columns: usize,
    /// Below all panels.
    pub legend: Vec<LegendEntry>,
    /// At the very bottom, in small type: what symbols mean.
    pub caption_note: Option<String>,
}

const COLUMN_GAP: f64 = 34.0;
const ROW_GAP: f64 = 24.0;
const NOTE_LINE: f64 = 1.35 * NOTE;
const TITLE_LINE: f64 = 1.3 * TITLE;
/// Height of a panel of residuals as a share of the one above.
const RESIDUALS: f64 = 0.36;

/// Panels that stand in one place, and the place.
struct Cell<'a> {
    panels: &'a [Panel],
    area: Rect,
    /// Height above the axes of the first panel, the same for all places in a row.
    head: f64,
    /// Height of axes as a share of the cell's width.
    aspect: f64,
}

struct Layout<'a> {
    height: f64,
    title: Vec<String>,
    cells: Vec<Cell<'a>>,
    legend: Legend,
    legend_top: f64,
    note: Vec<String>,
}

impl Chart {
    /// A chart of one panel.
    pub(super) fn single(
        title: &str,
        width: Width,
        panel: impl Into<Panel>,
        legend: Vec<LegendEntry>,
        caption_note: Option<String>,
    ) -> Self {
        Self { title: title.to_owned(), width, panels: vec![panel.into()], columns: 1, legend, caption_note }
    }

    /// The figure in colour as an SVG document whose text stays text.
    pub fn svg(&self) -> Result<String, PlotError> {
        self.svg_in(Palette::Colour)
    }

    /// The figure in colour as a PNG file.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        self.png_in(Palette::Colour)
    }

    /// The figure as an SVG document whose text stays text.
    pub fn svg_in(&self, palette: Palette) -> Result<String, PlotError> {
        self.check()?;
        page::svg(self, palette)
    }

    /// The figure as a PNG file.
    pub fn png_in(&self, palette: Palette) -> Result<Vec<u8>, PlotError> {
        self.check()?;
        page::png(self, palette)
    }

    fn check(&self) -> Result<(), PlotError> {
        if self.panels.iter().all(Panel::is_empty) {
            return Err(PlotError::NoPoints);
        }
        self.panels.iter().try_for_each(Panel::check)
    }

    /// Panels that belong together, each with those that share its x axis.
    fn groups(&self) -> Vec<&[Panel]> {
        let starts = |i: &usize| !self.panels[*i].joins_above() || !matches!(self.panels[*i - 1], Panel::Xy(_));
        let starts: Vec<usize> = (0..self.panels.len()).filter(|i| *i == 0 || starts(i)).collect();
        let ends = starts.iter().skip(1).copied().chain([self.panels.len()]);
        starts.iter().zip(ends).map(|(from, to)| &self.panels[*from..to]).collect()
    }

    fn layout(&self) -> Layout<'_> {
        let room = f64::from(self.width.pixels()) - 2.0 * MARGIN;
        let title = wrapped(&self.title, " ", TITLE, room, 2);
        let groups = self.groups();
        let columns = self.columns.clamp(1, groups.len().max(1));
        // Three rows and more have to fit on a page.
        let aspect = if groups.len().div_ceil(columns) > 2 { 0.42 } else { 0.6 };
        let cell_width = (room - COLUMN_GAP * (columns - 1) as f64) / columns as f64;
        let mut y = MARGIN + TITLE_LINE * title.len() as f64 + if title.is_empty() { 0.0 } else { 6.0 };
        let mut cells = Vec::new();
        for row in groups.chunks(columns) {
            let above =
                |panels: &&[Panel]| if let Panel::Xy(first) = &panels[0] { first.above(cell_width) } else { 0.0 };
            let head = row.iter().map(above).fold(0.0, f64::max);
            let height = row.iter().map(|panels| natural_height(panels, cell_width, head, aspect)).fold(0.0, f64::max);
            for (i, panels) in row.iter().enumerate() {
                let left = MARGIN + i as f64 * (cell_width + COLUMN_GAP);
                let area = Rect::new(left, y, left + cell_width, y + height);
                cells.push(Cell { panels, area, head, aspect });
            }
            y += height + ROW_GAP;
        }
        let legend = Legend::new(&self.legend, room);
        let legend_top = y - 0.3 * ROW_GAP;
        y = if self.legend.is_empty() { y - 0.4 * ROW_GAP } else { legend_top + legend.height() };
        let note = wrapped(self.caption_note.as_deref().unwrap_or(""), " ", NOTE, room, 6);
        let height = y + NOTE_LINE * note.len() as f64 + if note.is_empty() { 0.0 } else { 6.0 } + MARGIN;
        Layout { height: height.ceil(), title, cells, legend, legend_top, note }
    }
}

/// Height of the axes of panels with two axes in a cell of that width.
fn plot_height(panel: &XyPanel, width: f64, aspect: f64) -> f64 {
    let whole = (aspect * width).clamp(250.0, 540.0);
    if panel.share_x_with_above { RESIDUALS * whole } else { whole }
}

fn natural_height(panels: &[Panel], width: f64, head: f64, aspect: f64) -> f64 {
    let last = panels.len() - 1;
    let heights = panels.iter().enumerate().map(|(i, panel)| match panel {
        Panel::Xy(panel) => {
            let above = if i == 0 { head } else { panel.above(width) };
            above + plot_height(panel, width, aspect) + panel.below(i == last, width)
        }
        Panel::Forest(panel) => panel.height(width),
        Panel::HeatMap(panel) => panel.height(width),
    });
    heights.sum()
}

impl Cell<'_> {
    fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<(), PlotError> {
        let area = &self.area;
        match self.panels {
            [Panel::Forest(panel)] if !panel.rows.is_empty() => panel.draw(canvas, area),
            [Panel::HeatMap(panel)] if !panel.is_empty() => panel.draw(canvas, area),
            [panel] if panel.is_empty() => {
                let middle = ((area.left + area.right) / 2.0, (area.top + area.bottom) / 2.0);
                canvas.text("no data", middle, LABEL, Align::Centre, FADED)
            }
            panels => {
                let panels = panels.iter().filter_map(|panel| if let Panel::Xy(xy) = panel { Some(xy) } else { None });
                self.draw_stacked(canvas, &panels.collect::<Vec<_>>())
            }
        }
    }

    /// Panels on one x axis, whose y axes are aligned.
    fn draw_stacked<B: DrawingBackend>(&self, canvas: &mut Canvas<B>, panels: &[&XyPanel]) -> Result<(), PlotError> {
        let Self { area, head, aspect, .. } = self;
        let ranges = || panels.iter().filter(|panel| !panel.is_empty()).map(|panel| panel.x_range());
        let x_range = (
            ranges().map(|r| r.0).fold(f64::INFINITY, f64::min),
            ranges().map(|r| r.1).fold(f64::NEG_INFINITY, f64::max),
        );
        let last = panels.len() - 1;
        let above = |i: usize| if i == 0 { *head } else { panels[i].above(area.width()) };
        let around = |i: usize| above(i) + panels[i].below(i == last, area.width());
        let mut heights: Vec<f64> = panels.iter().map(|panel| plot_height(panel, area.width(), *aspect)).collect();
        let used: f64 = (0..panels.len()).map(|i| around(i) + heights[i]).sum();
        // A neighbour may be higher than this place; the main panel gets the difference.
        heights[0] += area.height() - used;
        let before = panels.iter().zip(&heights).map(|(panel, height)| panel.before(x_range, *height, area.width()));
        let before = before.fold(0.0, f64::max);
        let beside = panels.iter().map(|panel| panel.beside()).fold(0.0, f64::max);
        let mut top = area.top;
        for (i, panel) in panels.iter().enumerate() {
            let bottom = top + around(i) + heights[i];
            let cell = Rect::new(area.left, top, area.right, bottom);
            let (left, right) = (area.left + before, area.right - beside);
            panel.draw(canvas, &Frame { cell, left, right, x_range, head: above(i), labelled: i == last })?;
            top = bottom;
        }
        Ok(())
    }
}

impl Page for Chart {
    fn size(&self) -> (u32, u32) {
        (self.width.pixels(), self.layout().height as u32)
    }

    fn draw<B: DrawingBackend>(&self, canvas: &mut Canvas<B>) -> Result<(), PlotError> {
        let layout = self.layout();
        canvas.blank(self.size())?;
        let mut y = MARGIN - 0.3 * TITLE;
        for line in &layout.title {
            y += TITLE_LINE;
            canvas.text(line, (f64::from(self.width.pixels()) / 2.0, y), TITLE, Align::Centre, INK)?;
        }
        for cell in &layout.cells {
            cell.draw(canvas)?;
        }
        layout.legend.draw(canvas, MARGIN, layout.legend_top)?;
        let mut y = layout.height - MARGIN - NOTE_LINE * layout.note.len() as f64 - 0.3 * NOTE;
        for line in &layout.note {
            y += NOTE_LINE;
            canvas.text(line, (MARGIN, y), NOTE, Align::Left, FADED)?;
        }
        Ok(())
    }
}
