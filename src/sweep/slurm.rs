//! From a plan to Slurm's jobs: one array for each shape of resources, runs of several nodes as jobs of their own, and the
//! scripts, which a person can read and submit by hand.
//!
//! A script runs one run. It makes the attempt's folder, starts a rank for each task with torchrun's variables, and decides
//! by the status that comes back: 75 (saved, not finished) goes back into the queue, a crash does so as often as the sweep
//! allows, anything else is final. Slurm's own accounting is not needed: what became of a run, its folder says.

use super::file::SlurmBackend;
use super::home::SweepHome;
use super::plan::{PlannedRun, SweepPlan};
use super::{SweepError, SweepFile};
use crate::config::{RunId, load};
use crate::files;
use crate::runs::RunFolder;
use crate::slurm;
use crate::units;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What jobs have to be told of the place they are submitted from.
#[derive(Clone, Debug)]
pub struct Site {
    /// This program, by its absolute path.
    pub program: PathBuf,
    /// The folder of the runs, absolute.
    pub runs_dir: PathBuf,
    /// Where relative paths of data begin.
    pub work_dir: PathBuf,
    /// Tasks that one array can have.
    pub largest_array: usize,
}

/// What the runs of one job take.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    nodes: usize,
    /// Processes on each node.
    processes: usize,
    /// Whether each of them has a GPU.
    on_gpu: bool,
    threads: Option<usize>,
    /// A job of several nodes is no task of an array.
    alone: Option<RunId>,
}

/// One job, or one array.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Names it among the sweep's.
    pub tag: String,
    /// Positions of its runs in the plan.
    pub runs: Vec<usize>,
    /// What `sbatch` gets.
    pub script: String,
}

const LEAD: &str = "5 min";
const SIGNAL: &str = "USR2";
/// Signals by which a run saves itself and makes room.
const LISTENED: [&str; 2] = ["USR2", "TERM"];

/// The jobs that do the runs at `positions` of a plan.
pub fn submissions(
    sweep: &SweepFile,
    plan: &SweepPlan,
    positions: &[usize],
    site: &Site,
) -> Result<Vec<Submission>, SweepError> {
    let backend = backend(sweep)?;
    let mut shapes: BTreeMap<Shape, Vec<usize>> = BTreeMap::new();
    for &position in positions {
        shapes.entry(shape(&plan.runs[position])).or_default().push(position);
    }
    let mut out = Vec::new();
    for (shape, mut runs) in shapes {
        // Longest first: tasks start in the order of their numbers.
        runs.sort_by(|&a, &b| plan.runs[b].seconds_left().total_cmp(&plan.runs[a].seconds_left()));
        for part in runs.chunks(site.largest_array.max(1)) {
            let ids: Vec<&str> = part.iter().map(|&run| plan.runs[run].id.0.as_str()).collect();
            let tag = tag(&ids);
            let script = script(sweep, plan, backend, &shape, part, &tag, site)?;
            out.push(Submission { tag, runs: part.to_vec(), script });
        }
    }
    Ok(out)
}

/// `backends.slurm`, checked.
pub fn backend(sweep: &SweepFile) -> Result<&SlurmBackend, SweepError> {
    let backend = sweep.backends.slurm.as_ref();
    let backend =
        backend.ok_or_else(|| sweep.layout("backends.slurm", "missing; hint: write `backends: {slurm: {}}`"))?;
    for (key, written) in [("time", &backend.time), ("signal_lead", &backend.signal_lead)] {
        if let Some(text) = written
            && units::seconds(text).is_none()
        {
            let place = format!("backends.slurm.{key}");
            return Err(sweep.layout(&place, format!("'{text}' is no time such as 12h or 30 min")));
        }
    }
    if let (Some(time), lead) = (backend.time.as_deref().and_then(units::seconds), lead_s(backend))
        && time <= lead
    {
        let problem = format!("{time} s are not longer than the lead of {lead} s in which a run saves itself");
        return Err(sweep.layout("backends.slurm.time", problem));
    }
    if let Some(signal) = backend.signal.as_deref().filter(|signal| !LISTENED.contains(signal)) {
        let problem = format!("runs do not listen to '{signal}'; use one of {}", LISTENED.join(", "));
        return Err(sweep.layout("backends.slurm.signal", problem));
    }
    if backend.max_running == Some(0) {
        return Err(sweep.layout("backends.slurm.max_running", "must be at least 1"));
    }
    Ok(backend)
}

fn lead_s(backend: &SlurmBackend) -> f64 {
    units::seconds(backend.signal_lead.as_deref().unwrap_or(LEAD)).unwrap_or(300.0)
}

fn shape(run: &PlannedRun) -> Shape {
    let exec = &run.config.exec;
    Shape {
        nodes: exec.nodes,
        processes: exec.gpus,
        on_gpu: exec.device != "cpu",
        threads: exec.threads,
        alone: (exec.nodes > 1).then(|| run.id.clone()),
    }
}

/// Eight hex digits, different for each submission of the same runs.
fn tag(ids: &[&str]) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
    let digest = Sha256::new().chain_update(ids.join(" ")).chain_update(now.to_le_bytes()).finalize();
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Slurm's way of writing a time.
fn clock(seconds: f64) -> String {
    let s = seconds.round() as u64;
    format!("{}-{:02}:{:02}:{:02}", s / 86_400, s % 86_400 / 3600, s % 3600 / 60, s % 60)
}

/// A word that a shell takes as it is.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The options of `sbatch`, in the order in which they are written; those of the file win.
fn options(
    sweep: &SweepFile,
    backend: &SlurmBackend,
    shape: &Shape,
    count: usize,
    tag: &str,
    home: &SweepHome,
) -> Result<Vec<(String, Option<String>)>, SweepError> {
    let is_array = shape.alone.is_none();
    let mut options: Vec<(&str, Option<String>)> = vec![
        ("job-name", Some(home.job_name(tag))),
        ("comment", Some(format!("{}/{}", sweep.sweep, shape.alone.as_ref().map_or(tag, |id| &id.0)))),
    ];
    if is_array {
        let throttle = backend.max_running.map_or(String::new(), |most| format!("%{most}"));
        options.push(("array", Some(format!("0-{}{throttle}", count - 1))));
    }
    let name = if is_array { "%A_%a.log" } else { "%j.log" };
    options.push(("output", Some(home.slurm().join(name).display().to_string())));
    options.push(("open-mode", Some("append".to_owned())));
    options.push(("nodes", Some(shape.nodes.to_string())));
    options.push(("ntasks-per-node", Some(shape.processes.to_string())));
    if shape.on_gpu {
        options.push(("gres", Some(format!("gpu:{}", shape.processes))));
    }
    if let Some(cpus) = backend.cpus_per_gpu.or(shape.threads) {
        options.push(("cpus-per-task", Some(cpus.to_string())));
    }
    if let Some(time) = backend.time.as_deref().and_then(units::seconds) {
        options.push(("time", Some(clock(time))));
    }
    let signal = backend.signal.as_deref().unwrap_or(SIGNAL);
    options.push(("signal", Some(format!("{signal}@{}", lead_s(backend).round()))));
    options.push(("requeue", None));
    for (key, value) in [("partition", &backend.partition), ("account", &backend.account), ("qos", &backend.qos)] {
        if let Some(value) = value {
            options.push((key, Some(value.clone())));
        }
    }
    let mut options: Vec<(String, Option<String>)> =
        options.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    for (key, value) in &backend.sbatch.0 {
        use serde_json::Value;
        let key = key.trim_start_matches('-').to_owned();
        let value = match value {
            Value::Bool(true) | Value::Null => None,
            Value::Bool(false) => {
                options.retain(|(known, _)| *known != key);
                continue;
            }
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => {
                let place = format!("backends.slurm.sbatch.{key}");
                return Err(sweep.layout(&place, "expected one value, or true for an option without one"));
            }
        };
        match options.iter_mut().find(|(known, _)| *known == key) {
            Some(known) => known.1 = value,
            None => options.push((key, value)),
        }
    }
    Ok(options)
}

fn script(
    sweep: &SweepFile,
    plan: &SweepPlan,
    backend: &SlurmBackend,
    shape: &Shape,
    runs: &[usize],
    tag: &str,
    site: &Site,
) -> Result<String, SweepError> {
    let home = SweepHome::new(&site.runs_dir, &sweep.sweep);
    let what = if shape.on_gpu { "GPU" } else { "process" };
    let each = format!("{} node x {} {what} each", shape.nodes, shape.processes);
    let mut text = format!(
        "#!/bin/bash\n# Sweep {}: {} runs, {each}. `lossfloor sweep submit` wrote this.\n",
        plan.name,
        runs.len()
    );
    for (key, value) in options(sweep, backend, shape, runs.len(), tag, &home)? {
        let value = value.map_or(String::new(), |value| format!("={value}"));
        text += &format!("#SBATCH --{key}{value}\n");
    }
    text += "set -u\n";
    for line in &backend.setup {
        text += &format!("{line}\n");
    }
    let path = |path: &Path| quoted(&path.display().to_string());
    let list = path(&home.slurm().join(format!("{tag}.runs")));
    let id = match &shape.alone {
        Some(id) => format!("id={id}\n"),
        None => format!("id=$(sed -n \"$((SLURM_ARRAY_TASK_ID + 1))p\" {list})\n"),
    };
    let retries = sweep.run.retries.unwrap_or(1);
    let oom = if sweep.run.refuses(super::file::NoRetry::Oom) { " | 76" } else { "" };
    let requeues = match backend.max_requeues {
        Some(most) => format!("[ \"${{SLURM_RESTART_COUNT:-0}}\" -lt {most} ] || again=\n"),
        None => String::new(),
    };
    text += &format!(
        r#"cd {work} || exit 1
runs={runs}
{id}run=$runs/$id

# A folder for this attempt, which no other can get.
mkdir -p "$run/attempts" || exit 1
attempt=1
until mkdir "$run/attempts/$(printf %03d $attempt)" 2>/dev/null; do
  attempt=$((attempt + 1))
  [ $attempt -lt 10000 ] || exit 1
done
here=$run/attempts/$(printf %03d $attempt)

# A task of an array has an id of its own beside that of the array, by which all of its tasks are meant.
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
job=${{job:-$SLURM_JOB_ID}}

# The ranks meet at the first node, and know how much time is left.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
left=$(squeue --noheader --job "$job" --format %L 2>/dev/null)
# Signals to save come up to a minute early: until a rank listens to them they are ignored, not deadly.
srun --kill-on-bad-exit=1 --output="$here/log" --error="$here/log" --open-mode=append bash -c '
  trap "" {signal} TERM
  export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID LOCAL_WORLD_SIZE={processes}
  exec "$@"
' rank {program} train "$run/config.yaml" --runs "$runs" --attempt $attempt \
  --time-left "${{left:-unlimited}}" --lead '{lead} s'
status=$?
echo $status >"$here/status"

# 75: saved, not finished. Done, refused, diverged, cannot run here{oom_words}, interrupted: final. Anything else is a crash.
again=
case $status in
  75) again=yes ;;
  0 | 2 | 3 | 6 | 130{oom}) ;;
  *) [ "$(grep -lvxE '75' "$run"/attempts/*/status | wc -l)" -le {retries} ] && again=yes ;;
esac
{requeues}# A job that leaves by itself is not put back: ask for it. Slurm then ends this script.
[ -n "$again" ] && timeout 60 scontrol requeue "$job" && sleep 120
exit $status
"#,
        work = path(&site.work_dir),
        runs = path(&site.runs_dir),
        processes = shape.processes,
        program = path(&site.program),
        lead = lead_s(backend).round(),
        signal = backend.signal.as_deref().unwrap_or(SIGNAL),
        oom_words = if oom.is_empty() { "" } else { ", out of memory" },
    );
    Ok(text)
}

/// Writes what a submission needs before it is made: lists, scripts, and the configurations of its runs.
pub fn prepare(plan: &SweepPlan, submission: &Submission, home: &SweepHome, site: &Site) -> Result<(), SweepError> {
    let list: String = submission.runs.iter().map(|&run| format!("{}\n", plan.runs[run].id)).collect();
    let configs: Vec<(PathBuf, String)> = submission
        .runs
        .iter()
        .map(|&run| &plan.runs[run])
        .map(|run| (RunFolder::new(&site.runs_dir, &run.id).config(), load::to_yaml(&run.config.written())))
        .collect();
    // Each waits for the disk: many at once wait hardly longer.
    const WRITERS: usize = 32;
    std::thread::scope(|scope| {
        let write = |part: &[(PathBuf, String)]| {
            part.iter().try_for_each(|(path, text)| files::write_atomic(path, text.as_bytes()))
        };
        let parts = configs.chunks(configs.len().div_ceil(WRITERS).max(1));
        let writers: Vec<_> = parts.map(|part| scope.spawn(move || write(part))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("a writer does not panic"))
    })?;
    let file = |ending: &str| home.slurm().join(format!("{}.{ending}", submission.tag));
    files::write_atomic(&file("runs"), list.as_bytes())?;
    Ok(files::write_atomic(&file("sh"), submission.script.as_bytes())?)
}

/// The job that makes the table of results and does what follows, once all of `jobs` have ended, however they ended.
pub fn analysis_script(
    sweep: &SweepFile,
    backend: &SlurmBackend,
    jobs: &[String],
    command: &[String],
    site: &Site,
) -> String {
    let home = SweepHome::new(&site.runs_dir, &sweep.sweep);
    let mut text = format!(
        "#!/bin/bash\n# What follows sweep {}. `lossfloor sweep submit` wrote this.\n#SBATCH --job-name={}\n",
        sweep.sweep,
        home.job_name("after")
    );
    text += &format!("#SBATCH --dependency=afterany:{}\n", jobs.join(":"));
    text += &format!("#SBATCH --output={}\n#SBATCH --open-mode=append\n", home.slurm().join("after-%j.log").display());
    text += "#SBATCH --nodes=1 --ntasks=1\n";
    for (key, value) in [("partition", &backend.partition), ("account", &backend.account), ("qos", &backend.qos)] {
        if let Some(value) = value {
            text += &format!("#SBATCH --{key}={value}\n");
        }
    }
    text += "set -u\n";
    for line in &backend.setup {
        text += &format!("{line}\n");
    }
    let words: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    text += &format!("cd {} || exit 1\nexec {}\n", quoted(&site.work_dir.display().to_string()), words.join(" "));
    text
}

/// Submits a script; the id of the job.
pub fn submit(script: &str) -> Result<String, SweepError> {
    Ok(slurm::submit(script, &[])?)
}
