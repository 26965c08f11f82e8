//! Figures that commands write.

use crate::cli::{output, usage};
use crate::plot::{Chart, Palette, Width};
use std::path::{Path, PathBuf};

/// How a figure is printed.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct PaperArgs {
    /// As wide as one column of a paper instead of a page
    #[arg(long)]
    column: bool,
    /// Without colours
    #[arg(long)]
    grey: bool,
}

impl PaperArgs {
    /// Width on paper.
    pub fn width(self) -> Width {
        if self.column { Width::Column } else { Width::Full }
    }

    /// Colours or greys.
    pub fn palette(self) -> Palette {
        if self.grey { Palette::Grey } else { Palette::Colour }
    }
}

/// A figure that a command draws beside what it prints.
#[derive(clap::Args, Clone, Debug)]
pub struct BesideArgs {
    /// Also draw it: .svg or .png
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    paper: PaperArgs,
}

impl BesideArgs {
    /// Refuses what no figure can come of.
    pub fn check(&self) -> anyhow::Result<()> {
        match &self.plot {
            Some(file) => check("--plot", file),
            None if self.paper.column || self.paper.grey => {
                Err(usage("--column and --grey are of a figure; hint: add --plot FILE"))
            }
            None => Ok(()),
        }
    }

    /// Draws the figure if it was asked for.
    pub fn draw(&self, chart: impl FnOnce(Width) -> Chart) -> anyhow::Result<()> {
        self.plot.as_ref().map_or(Ok(()), |file| write(file, &chart(self.paper.width()), self.paper.palette()))
    }
}

fn ending(file: &Path) -> String {
    file.extension().and_then(|ending| ending.to_str()).unwrap_or("").to_ascii_lowercase()
}

/// Refuses the file of an option that is not one of a figure.
pub fn check(option: &str, file: &Path) -> anyhow::Result<()> {
    if ["svg", "png"].contains(&ending(file).as_str()) {
        return Ok(());
    }
    Err(usage(format!("{option} {}: a figure is written as .svg or .png", file.display())))
}

/// Writes a chart in the format of the file's ending, and says so.
pub fn write(file: &Path, chart: &Chart, palette: Palette) -> anyhow::Result<()> {
    let bytes = match ending(file).as_str() {
        "svg" => chart.svg_in(palette).map(String::into_bytes),
        _ => chart.png_in(palette),
    };
    crate::files::write_atomic(file, &bytes.map_err(usage)?)?;
    output::note(&format!("wrote {}", file.display()));
    Ok(())
}
