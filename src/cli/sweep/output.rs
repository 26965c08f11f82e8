//! What `plan` and `sweep` show: tables, events, progress bars.

use super::out as output;
use crate::runs::RunFolder;
use crate::sweep::price::Price;
use crate::sweep::run::{End, Event};
use crate::sweep::{Outcome, PlannedRun, RunState, SweepPlan};
use crate::units;
use comfy_table::{CellAlignment, Table};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::collections::HashMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Column = (&'static str, fn(&PlannedRun) -> String);

/// Columns of `plan`; those that are the same in every row stand above the table.
const COLUMNS: [Column; 11] = [
    ("run", |run| run.id.0.chars().take(8).collect()),
    ("label", |run| run.config.label.clone()),
    ("width", |run| run.config.model.shape.d_model.to_string()),
    ("params", |run| units::si(run.params as f64)),
    ("tokens", |run| units::si(run.config.tokens as f64)),
    ("FLOPs", |run| format!("{:.1e}", run.flops)),
    ("lr", |run| short(run.config.lr)),
    ("matrix lr", |run| short(run.lr_matrix)),
    ("time", |run| brief_duration(run.seconds)),
    ("memory", |run| units::bytes(run.memory).replace("iB", "").replace(' ', "")),
    ("state", |run| run.state.name().to_owned()),
];

/// A rate in three digits.
fn short(value: f64) -> String {
    let rounded: f64 = format!("{value:.2e}").parse().unwrap_or(value);
    if rounded >= 1e-3 { rounded.to_string() } else { format!("{rounded:e}") }
}

/// `45s`, `12m`, `3h05`, `2d04`.
fn brief_duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..90 => format!("{s}s"),
        90..3600 => format!("{}m", (s + 30) / 60),
        3600..86_400 => format!("{}h{:02}", s / 3600, s % 3600 / 60),
        86_400..8_640_000 => format!("{}d{:02}", s / 86_400, s % 86_400 / 3600),
        _ => format!("{}d", s / 86_400),
    }
}

fn plain_table(header: &[&str]) -> Table {
    let mut table = output::table(header);
    if !std::io::stdout().is_terminal() {
        table.set_width(80);
    }
    table
}

fn align(table: &mut Table, left: &[&str], header: &[&str]) {
    for (column, name) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 1));
        if !left.contains(name) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The plan for people.
pub(super) fn plan_text(plan: &SweepPlan, price: &Price) -> String {
    let mut shared = Vec::new();
    let mut shown: Vec<Column> = Vec::new();
    for (index, column) in COLUMNS.into_iter().enumerate() {
        let first = plan.runs.first().map(column.1);
        let same = plan.runs.iter().all(|run| Some((column.1)(run)) == first);
        match first {
            Some(value) if same && index > 1 && plan.runs.len() > 1 => shared.push(format!("{} {value}", column.0)),
            _ => shown.push(column),
        }
    }
    let header: Vec<&str> = shown.iter().map(|(name, _)| *name).collect();
    let mut table = plain_table(&header);
    for run in &plan.runs {
        table.add_row(shown.iter().map(|(_, cell)| cell(run)));
    }
    align(&mut table, &["run", "label", "state"], &header);
    let mut text = format!("{}: {} runs\n", plan.name, plan.runs.len());
    if !shared.is_empty() {
        text += &format!("every run: {}\n", shared.join(", "));
    }
    text += &format!("\n{table}\n\n");
    let total = |f: fn(&PlannedRun) -> f64| plan.runs.iter().map(f).sum::<f64>();
    let (all, left) = plan.gpu_hours();
    text += &format!(
        "total: {} tokens, {:.2e} FLOPs, {} of one GPU or process, {} of it left\n",
        units::si(total(|run| run.config.tokens as f64)),
        total(|run| run.flops),
        units::duration(all * 3600.0),
        units::duration(left * 3600.0),
    );
    text += &format!("{}\n", counts(plan));
    let notes: Vec<String> =
        price.lines(plan).into_iter().chain(plan.basis.clone()).chain(plan.notes.clone()).collect();
    text + &notes.join("\n")
}

/// `12 done, 1 failed, 3 pending`.
fn counts(plan: &SweepPlan) -> String {
    let counted = RunState::ALL.iter().filter_map(|state| {
        let count = plan.runs.iter().filter(|run| run.state == *state).count();
        (count > 0).then(|| format!("{count} {}", state.name()))
    });
    counted.collect::<Vec<_>>().join(", ")
}

/// How far a sweep is, for people.
pub(super) fn status_text(plan: &SweepPlan) -> String {
    let rows: Vec<usize> = (0..plan.runs.len()).collect();
    status_rows(plan, &rows)
}

/// The same for some of its rows.
pub(super) fn status_rows(plan: &SweepPlan, rows: &[usize]) -> String {
    let with_jobs = rows.iter().any(|&row| plan.runs[row].job.is_some());
    let mut header = vec!["", "run", "label", "state", "step", "loss", "tok/s", "left"];
    if with_jobs {
        header.push("job");
    }
    let mut table = plain_table(&header);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for &row in rows {
        let run = &plan.runs[row];
        let at_work = run.state == RunState::Running;
        let left = run.tokens_per_s.filter(|_| at_work).map(|pace| {
            let tokens = run.config.tokens.saturating_sub(run.step * run.config.batch_tokens());
            brief_duration(tokens as f64 / pace.max(1e-9))
        });
        let mut cells = vec![
            (row + 1).to_string(),
            run.id.0.chars().take(8).collect(),
            run.config.label.clone(),
            run.state.name().to_owned(),
            format!("{}/{}", run.step, run.config.steps()),
            or_dash(run.val_loss.or(run.loss).map(|loss| format!("{loss:.4}"))),
            or_dash(run.tokens_per_s.filter(|_| at_work).map(units::si)),
            or_dash(left),
        ];
        if with_jobs {
            cells.push(or_dash(run.job.clone()));
        }
        table.add_row(cells);
    }
    align(&mut table, &["run", "label", "state", "job"], &header);
    let (_, left) = plan.gpu_hours();
    let left = if left > 0.0 {
        format!("; {} left, one after another", units::duration(left * 3600.0))
    } else {
        String::new()
    };
    let notes: String = plan.notes.iter().map(|note| format!("\n{note}")).collect();
    format!("{table}\n\n{}: {}{left}{notes}", plan.name, counts(plan))
}

/// What to say of runs that did not end well.
pub(super) fn ending_lines(plan: &SweepPlan, outcome: &Outcome, runs_dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for (run, end) in plan.runs.iter().zip(&outcome.ends) {
        let log = RunFolder::new(runs_dir, &run.id).log();
        let label = &run.config.label;
        match end {
            End::Failed(reason) => lines.push(format!("failed: {label}: {reason} (log: {})", log.display())),
            End::Diverged(reason) => lines.push(format!("diverged: {label}: {reason} (log: {})", log.display())),
            End::Elsewhere => lines.push(format!("still running in another process: {label}")),
            End::Completed | End::Interrupted | End::NotStarted => {}
        }
    }
    if outcome.interrupted {
        lines.push("interrupted: the same command carries on".to_owned());
    }
    lines
}

/// Shows events: bars on a terminal, lines in a pipe.
pub(super) struct EventLog<'a> {
    plan: &'a SweepPlan,
    runs_dir: PathBuf,
    bars: Option<Bars>,
    began: Instant,
    looked: Option<Instant>,
    ended: usize,
    /// Estimated seconds of what has ended since the beginning.
    over_s: f64,
}

struct Bars {
    all: MultiProgress,
    total: ProgressBar,
    runs: HashMap<usize, ProgressBar>,
}

fn label_width(plan: &SweepPlan) -> usize {
    const WIDEST: usize = 32;
    plan.runs.iter().map(|run| run.config.label.chars().count()).max().unwrap_or(0).min(WIDEST)
}

impl<'a> EventLog<'a> {
    /// Shows what happens to the runs of `plan`.
    pub(super) fn new(plan: &'a SweepPlan, runs_dir: &Path) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| {
            let all = MultiProgress::new();
            let width = label_width(plan);
            let style = ProgressStyle::with_template(&format!(
                "{{prefix:<{width}!}} {{wide_bar}} {{pos}}/{{len}} runs  {{msg}}"
            ));
            let total = all.add(ProgressBar::new(plan.runs.len() as u64).with_style(style.expect("well-formed")));
            total.set_prefix(plan.name.clone());
            Bars { all, total, runs: HashMap::new() }
        });
        Self { plan, runs_dir: runs_dir.to_owned(), bars, began: Instant::now(), looked: None, ended: 0, over_s: 0.0 }
    }

    fn say(&self, line: &str) {
        match &self.bars {
            // The bars make room; where they cannot, the terminal is gone and with it the reader.
            Some(bars) => drop(bars.all.println(line)),
            None => output::note(line),
        }
    }

    fn label(&self, run: usize) -> &str {
        &self.plan.runs[run].config.label
    }

    /// Shows one event.
    pub(super) fn show(&mut self, event: &Event) {
        match event {
            Event::Already(..) => self.count(),
            Event::Started { run, attempt, gpus } => {
                let gpu = match gpus {
                    [] => String::new(),
                    [one] => format!(" on GPU {one}"),
                    several => format!(" on GPUs {}", several.join(", ")),
                };
                let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
                let resumed =
                    if self.plan.runs[*run].state == RunState::Resumable { ", from its checkpoint" } else { "" };
                self.add_bar(*run);
                if self.bars.is_none() {
                    self.say(&format!("started {}{gpu}{again}{resumed}", self.label(*run)));
                }
            }
            Event::Elsewhere(run) => {
                self.say(&format!("waiting for {}: another process is at work on it", self.label(*run)));
            }
            Event::Retrying { run, reason } => {
                self.remove_bar(*run);
                self.say(&format!("crashed, will be tried again: {}: {reason}", self.label(*run)));
            }
            Event::Saved(run) => {
                self.remove_bar(*run);
                self.say(&format!("saved itself and will go on: {}", self.label(*run)));
            }
            Event::Ended(run, end) => {
                self.remove_bar(*run);
                self.over_s += self.plan.runs[*run].seconds_left();
                self.count();
                self.say(&self.ending(*run, end));
            }
            Event::Halted(failures) => self.say(&format!("{failures} runs failed: starting nothing new")),
            Event::Stopping => self.say("stopping: runs save themselves; once more kills them"),
            Event::Tick(at_work) => self.tick(at_work),
        }
    }

    fn ending(&self, run: usize, end: &End) -> String {
        let folder = RunFolder::new(&self.runs_dir, &self.plan.runs[run].id);
        let (label, log) = (self.label(run), folder.log());
        let progress = format!("[{}/{}]", self.ended, self.plan.runs.len());
        match end {
            End::Completed => {
                let loss = folder.record().ok().flatten().and_then(|record| record.val_loss);
                let loss = loss.map_or(String::new(), |loss| format!(", validation loss {loss:.4}"));
                format!("{progress} done {label}{loss}")
            }
            End::Diverged(reason) => format!("{progress} diverged {label}: {reason} (log: {})", log.display()),
            End::Failed(reason) => format!("{progress} failed {label}: {reason} (log: {})", log.display()),
            End::Interrupted => format!("interrupted {label}"),
            End::Elsewhere | End::NotStarted => String::new(),
        }
    }

    fn count(&mut self) {
        self.ended += 1;
        if let Some(bars) = &self.bars {
            bars.total.set_position(self.ended as u64);
        }
    }

    fn add_bar(&mut self, run: usize) {
        let planned = &self.plan.runs[run];
        if let Some(bars) = &mut self.bars {
            let width = label_width(self.plan);
            let style =
                ProgressStyle::with_template(&format!("{{prefix:<{width}!}} {{bar:10}} {{pos}}/{{len}}  {{msg}}"));
            // Nothing that draws comes before the bar has its place among the others.
            let bar = ProgressBar::new(planned.config.steps())
                .with_style(style.expect("well-formed"))
                .with_prefix(planned.config.label.clone());
            bars.runs.insert(run, bars.all.insert_before(&bars.total, bar));
        }
    }

    fn remove_bar(&mut self, run: usize) {
        if let Some(bars) = &mut self.bars
            && let Some(bar) = bars.runs.remove(&run)
        {
            bar.finish_and_clear();
            bars.all.remove(&bar);
        }
    }

    /// Reads the metrics of the runs at work, twice a second.
    fn tick(&mut self, at_work: &[usize]) {
        let Some(bars) = &self.bars else { return };
        if self.looked.is_some_and(|looked| looked.elapsed() < Duration::from_millis(500)) {
            return;
        }
        self.looked = Some(Instant::now());
        let mut done: f64 = 0.0;
        for (&run, bar) in at_work.iter().filter_map(|run| Some((run, bars.runs.get(run)?))) {
            let planned = &self.plan.runs[run];
            let Some(last) = RunFolder::new(&self.runs_dir, &planned.id).last_metrics() else { continue };
            bar.set_position(last.step);
            let left = planned.config.tokens.saturating_sub(last.tokens) as f64 / last.tokens_per_s.max(1e-9);
            bar.set_message(format!(
                "loss {:.4}  {} tok/s  {} left",
                last.loss,
                units::si(last.tokens_per_s),
                units::duration(left)
            ));
            done += planned.seconds_left() * last.tokens as f64 / planned.config.tokens as f64;
        }
        // Runs that are over by now count whole; what is known of the pace corrects the estimates.
        let all: f64 = self.plan.runs.iter().map(PlannedRun::seconds_left).sum();
        let share = (done + self.over_s) / all.max(1e-9);
        if share > 0.01 {
            let left = self.began.elapsed().as_secs_f64() * (1.0 - share) / share;
            bars.total.set_message(format!("{} left", units::duration(left)));
        }
    }

    /// Takes the bars away.
    pub(super) fn clear(&self) {
        if let Some(bars) = &self.bars {
            // Nothing can be done where the terminal is gone.
            let _ = bars.all.clear();
        }
    }
}
