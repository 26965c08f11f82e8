//! `lossfloor sweep export`: the runs that are left, for another engine to carry out.

use super::manage::SelectArgs;
use super::out;
use crate::cli::ExitStatus;
use crate::config::load;
use crate::files::write_atomic;
use crate::runs::RunFolder;
use crate::sweep::PlannedRun;
use crate::sweep::slurm::quoted;
use anyhow::Context;
use clap::{Args, ValueEnum};

/// `lossfloor sweep export`
#[derive(Args, Debug)]
pub struct ExportArgs {
    /// What to write
    #[arg(value_enum)]
    engine: Engine,
    #[command(flatten)]
    select: SelectArgs,
}

/// What a sweep can be written for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Engine {
    /// A line of shell for each run, the longest first
    Shell,
    /// A job file of HyperQueue
    Hq,
}

pub(super) fn export(args: &ExportArgs) -> anyhow::Result<ExitStatus> {
    let (_, plan, rows) = args.select.plan()?;
    let left = |run: &&PlannedRun| run.state.is_startable();
    let mut runs: Vec<&PlannedRun> = rows.iter().map(|&row| &plan.runs[row]).filter(left).collect();
    runs.sort_by(|a, b| b.seconds_left().total_cmp(&a.seconds_left()));
    let runs_dir = std::path::absolute(&args.select.sweep.runs)?;
    let program = std::env::current_exe().context("cannot tell where this program lies")?.display().to_string();
    let mut text = String::new();
    for (index, run) in runs.iter().enumerate() {
        let folder = RunFolder::new(&runs_dir, &run.id);
        write_atomic(&folder.config(), load::to_yaml(&run.config.written()).as_bytes())?;
        let (config, dir) = (folder.config().display().to_string(), runs_dir.display().to_string());
        let words = [program.as_str(), "train", &config, "--runs", &dir];
        match args.engine {
            Engine::Shell => {
                let line = words.map(quoted).join(" ");
                text += &format!("{line}   # {}\n", run.config.label);
            }
            Engine::Hq => {
                if index == 0 {
                    text += &format!("name = {}\n", toml_string(&plan.name));
                }
                let command: Vec<String> = words.iter().map(|word| toml_string(word)).collect();
                let need = run.need();
                let gpus = if run.config.exec.device == "cpu" { 0 } else { run.config.exec.gpus };
                text += &format!(
                    "\n[[task]]\nid = {index}\ncommand = [{}]\npriority = {}\ncrash_limit = 5\n\n[[task.request]]\nresources = {{ \"cpus\" = {}{} }}\n",
                    command.join(", "),
                    runs.len() - index,
                    need.cores.max(1),
                    if gpus > 0 { format!(", \"gpus/nvidia\" = {gpus}") } else { String::new() },
                );
            }
        }
    }
    if runs.is_empty() {
        out::note("no run is left");
        return Ok(ExitStatus::Done);
    }
    out::print(text.trim_end())?;
    Ok(ExitStatus::Done)
}

/// A basic string of TOML; its escapes are those of JSON.
fn toml_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
