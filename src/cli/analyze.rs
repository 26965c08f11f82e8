//! `lossfloor fit` and `lossfloor plot`.

use super::ExitStatus;

#[derive(clap::Args, Debug)]
pub struct FitArgs {}
#[derive(clap::Args, Debug)]
pub struct PlotArgs {}

pub fn fit(_args: FitArgs) -> anyhow::Result<ExitStatus> {
    Ok(ExitStatus::Done)
}
pub fn plot(_args: PlotArgs) -> anyhow::Result<ExitStatus> {
    Ok(ExitStatus::Done)
}
