//! `bench plot`: the figure of documents that `bench decode` printed before. Nothing is measured.

use super::figure::figure;
use super::measured::Measured;
use crate::cli::{ExitStatus, picture, usage};
use std::path::PathBuf;

/// Arguments of `lossfloor bench plot`.
#[derive(clap::Args, Debug)]
pub struct PlotArgs {
    /// What `bench decode --json` printed, on one device; one figure shows all of it
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The figure to write: .svg or .png
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    paper: picture::PaperArgs,
}

/// Runs `lossfloor bench plot`.
pub fn run(args: &PlotArgs) -> anyhow::Result<ExitStatus> {
    picture::check("--out", &args.out)?;
    let measured = args.files.iter().map(|file| Measured::read(file)).collect::<anyhow::Result<Vec<_>>>()?;
    for (file, part) in args.files.iter().zip(&measured) {
        let first = &measured[0].device;
        if part.device != *first {
            let (file, other) = (file.display(), &part.device);
            return Err(usage(format!("{file}: measured on {other}, not on {first}; hint: a figure for each device")));
        }
    }
    picture::write(&args.out, &figure(&measured, args.paper.width()).chart(), args.paper.palette())?;
    Ok(ExitStatus::Done)
}
