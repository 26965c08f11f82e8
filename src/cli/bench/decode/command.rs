//! `bench decode`: prompts read and tokens generated, with random weights. A step cannot take less time than reading the
//! weights and what is kept of the sequences: that floor stands beside the time.

use super::figure::figure;
use super::job::Job;
use super::measured::{Measured, Row};
use super::table::table;
use crate::cli::bench::child::{in_children, is_child};
use crate::cli::bench::document;
use crate::cli::bench::model::{ComputeArgs, at_least_one};
use crate::cli::bench::timing::Ceilings;
use crate::cli::inference::{guarded, token_count};
use crate::cli::picture;
use crate::cli::{ExitStatus, output};
use crate::train::device_name;

/// `bench decode`
#[derive(clap::Args, Debug)]
pub struct DecodeArgs {
    /// Models and batches as ARCH:DEPTH[:BATCH], e.g. sambay:16:4; without a batch, each of --batches
    #[arg(default_values_t = ["transformer:16", "sambay:16"].map(String::from))]
    models: Vec<String>,
    /// Sequences at once
    #[arg(long, value_delimiter = ',', value_parser = at_least_one, default_value = "1,2,4,8,16")]
    pub(super) batches: Vec<usize>,
    /// Tokens of a prompt
    #[arg(long, value_parser = token_count::<1>, default_value = "2000")]
    pub(super) prompt: usize,
    /// Tokens generated after it; of several, as in 1000,8000,32000, the means up to each in one go
    #[arg(long, value_delimiter = ',', value_parser = token_count::<1>, default_value = "32000")]
    pub(super) new: Vec<usize>,
    /// Time the reading of prompts of these lengths instead, e.g. 1024,8192,131072; nothing is generated
    #[arg(long, value_delimiter = ',', value_parser = token_count::<1>, value_name = "TOKENS")]
    pub(super) prefill: Vec<usize>,
    #[command(flatten)]
    pub(super) compute: ComputeArgs,
    /// Width of the model, heads of 64 channels, instead of the published shape
    #[arg(long)]
    pub(super) width: Option<usize>,
    /// Launch one by one instead of as a recorded graph
    #[arg(long)]
    pub(super) eager: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    figure: picture::BesideArgs,
}

/// Runs `lossfloor bench decode`.
pub fn run(args: &DecodeArgs) -> anyhow::Result<ExitStatus> {
    args.figure.check()?;
    let device = args.compute.device()?;
    let mut jobs = Vec::new();
    for text in &args.models {
        jobs.extend(Job::parse(text, args)?);
    }
    if is_child() {
        output::json(&guarded(|| jobs[0].run(args, device))?)?;
        return Ok(ExitStatus::Done);
    }
    let words: Vec<String> = jobs.iter().map(Job::word).collect();
    let (parts, status) = in_children::<Vec<Row>>(&words, &args.models);
    let rows = parts.concat();
    let ceilings = Ceilings::of(device);
    let measured = Measured { device: device_name(device), copy_tbps: ceilings.map(|c| c.copy_tbps), rows };
    if args.json {
        document::print(&measured.device, Ceilings::listed(ceilings), &measured.rows)?;
    } else {
        output::print(&table(&measured))?;
    }
    if !measured.rows.is_empty() {
        args.figure.draw(|width| figure(&[measured], width).chart())?;
    }
    Ok(status)
}
