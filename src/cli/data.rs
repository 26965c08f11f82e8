//! `lossfloor data synth|pack`.

use super::ExitStatus;
use clap::Subcommand;

#[derive(Subcommand, Debug)]
pub enum DataCommand {}

pub fn run(command: DataCommand) -> anyhow::Result<ExitStatus> {
    match command {}
}
