//! The command line: what can be asked, and how an answer ends.

pub mod data;
mod doctor;
mod exchange;
mod fits;
mod model;
pub mod output;
mod picture;
pub mod reproduce;
pub mod sweep;

mod bench;
#[cfg(feature = "torch")]
mod device;
#[cfg(feature = "torch")]
mod eval;
#[cfg(feature = "torch")]
mod generate;
#[cfg(feature = "torch")]
mod inference;
#[cfg(feature = "torch")]
mod provenance;
#[cfg(feature = "torch")]
mod ranks;
#[cfg(feature = "torch")]
mod runtime;
#[cfg(feature = "torch")]
mod train;
#[cfg(feature = "torch")]
mod verify;

use clap::{Parser, Subcommand};

/// Exit statuses, public and documented in the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done.
    Done = 0,
    /// An internal error, or the system refused something (a full disk, say).
    Internal = 1,
    /// Bad usage, configuration or input.
    Usage = 2,
    /// A run diverged.
    Diverged = 3,
    /// Some runs of a sweep failed.
    SweepFailed = 4,
    /// No group has a usable fit, or a fit reached no optimum.
    NoFit = 5,
    /// This build or machine lacks what was asked.
    Unavailable = 6,
    /// A run was asked to make room; it is saved, and the same command carries on.
    Saved = 75,
    /// A run asked for more memory than there is.
    OutOfMemory = 76,
    /// Stopped by a signal; what was done is kept.
    Interrupted = 130,
}

impl ExitStatus {
    /// The status that a process of this program ended with.
    pub fn from_code(code: i32) -> Option<Self> {
        use ExitStatus::*;
        [Done, Internal, Usage, Diverged, SweepFailed, NoFit, Unavailable, Saved, OutOfMemory, Interrupted]
            .into_iter()
            .find(|status| *status as i32 == code)
    }
}

impl From<ExitStatus> for std::process::ExitCode {
    fn from(status: ExitStatus) -> Self {
        (status as u8).into()
    }
}

/// An error of which `cli` knows the exit status.
#[derive(Debug)]
pub struct Exit {
    /// What the process will end with.
    pub status: ExitStatus,
    /// One line for the user.
    pub message: String,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}
impl std::error::Error for Exit {}

/// An error that ends the process with `status`.
pub fn exit(status: ExitStatus, message: impl std::fmt::Display) -> anyhow::Error {
    Exit { status, message: message.to_string() }.into()
}

/// Bad usage, configuration or input: exit status 2.
pub fn usage(message: impl std::fmt::Display) -> anyhow::Error {
    exit(ExitStatus::Usage, message)
}

/// Scaling studies of language-model architectures.
#[derive(Parser, Debug)]
#[command(name = "lossfloor", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(subcommand)]
    Model(model::ModelCommand),
    /// Make corpora: synthetic text with a known loss floor, or your own text
    #[command(subcommand)]
    Data(data::DataCommand),
    /// Show every run of a sweep with its cost, before anything starts
    Plan(sweep::PlanArgs),
    /// Run a sweep, or see how far it is
    #[command(subcommand)]
    Sweep(sweep::SweepCommand),
    /// Do a whole study: data, sweep, fits, figures, report; what is done already is not repeated
    Reproduce(reproduce::ReproduceArgs),
    /// Fit a scaling law to a table of results
    Fit(fits::fit::FitArgs),
    /// Tell whether groups differ: nested tests, floors, losses at equal budget, compute at equal loss
    Compare(fits::compare::CompareArgs),
    Curves(fits::curves::CurvesArgs),
    Rollout(fits::rollout::RolloutArgs),
    Design(fits::design::DesignArgs),
    Isoflop(fits::isoflop::IsoflopArgs),
    Calibrate(fits::calibrate::CalibrateArgs),
    Robustness(fits::robustness::RobustnessArgs),
    /// Draw a scaling figure
    Plot(fits::plot::PlotArgs),
    Doctor(doctor::DoctorArgs),
    Import(exchange::ImportArgs),
    Export(exchange::ExportArgs),
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    #[cfg(feature = "torch")]
    Train(train::TrainArgs),
    #[cfg(feature = "torch")]
    Generate(generate::GenerateArgs),
    #[cfg(feature = "torch")]
    Eval(eval::EvalArgs),
    #[cfg(feature = "torch")]
    Verify(verify::VerifyArgs),
}

/// Runs the command line of this process.
pub fn main() -> ExitStatus {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let status = if error.use_stderr() { ExitStatus::Usage } else { ExitStatus::Done };
            // A closed pipe while printing help is no error of ours.
            let _ = error.print();
            return status;
        }
    };
    #[cfg(feature = "torch")]
    if matches!(
        cli.command,
        Command::Bench(_)
            | Command::Train(_)
            | Command::Generate(_)
            | Command::Eval(_)
            | Command::Verify(_)
            | Command::Reproduce(_)
    ) {
        runtime::settle();
        runtime::keep_kernels();
    }
    let result = match cli.command {
        Command::Model(command) => model::run(command),
        Command::Doctor(args) => doctor::run(args),
        Command::Import(args) => exchange::import(&args),
        Command::Export(args) => exchange::export(&args),
        Command::Bench(command) => bench::run(command),
        Command::Data(command) => data::run(command),
        Command::Plan(args) => sweep::plan(args),
        Command::Sweep(command) => sweep::sweep(command),
        Command::Reproduce(args) => reproduce::reproduce(&args),
        Command::Fit(args) => fits::fit::run(args),
        Command::Compare(args) => fits::compare::run(args),
        Command::Curves(args) => fits::curves::run(&args),
        Command::Design(args) => fits::design::run(args),
        Command::Isoflop(args) => fits::isoflop::run(args),
        Command::Calibrate(args) => fits::calibrate::run(args),
        Command::Rollout(args) => fits::rollout::run(args),
        Command::Robustness(args) => fits::robustness::run(args),
        Command::Plot(args) => fits::plot::run(args),
        #[cfg(feature = "torch")]
        Command::Train(args) => train::run(args),
        #[cfg(feature = "torch")]
        Command::Generate(args) => generate::run(args),
        #[cfg(feature = "torch")]
        Command::Eval(args) => eval::run(args),
        #[cfg(feature = "torch")]
        Command::Verify(args) => verify::run(args),
    };
    match result {
        Ok(status) => status,
        Err(error) => report(&error),
    }
}

/// Prints an error as one chain on stderr. A cause that its error already quotes is not said twice.
fn report(error: &anyhow::Error) -> ExitStatus {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    output::note(&format!("error: {text}"));
    status_of(error)
}

/// What a process ends with because of `error`.
fn status_of(error: &anyhow::Error) -> ExitStatus {
    // The first finds one that was added as context, the second one further down.
    let exit = error.downcast_ref::<Exit>();
    exit.or_else(|| error.chain().find_map(|cause| cause.downcast_ref()))
        .map_or(ExitStatus::Internal, |exit| exit.status)
}
