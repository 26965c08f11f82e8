//! Figures that commands write.

use super::{output, usage};
use crate::plot::{Chart, Palette};
use std::path::Path;

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
