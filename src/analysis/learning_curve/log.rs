//! Logged runs from tables: a row has a step, its learning rate and, where it was measured, its loss.
//!
//! Laws take the rate of every step, tables have that of some. Between two rows it is on the straight line through them,
//! which is exact for constant and linear pieces. Before the first row it is on the line through the first two as far
//! as one interval between rows goes; a longer warm-up has to be said. Step 0 without a row has the rate 0.

use super::{Curve, CurveError, Schedule};
use crate::analysis::frame::cells::{Cells, POSITIVE, TextRow};
use crate::analysis::{FrameError, ends};
use crate::expression::Expression;
use std::path::{Path, PathBuf};

/// A run has fewer steps than this.
const MOST_STEPS: f64 = 5e7;

/// The columns of a table of logged steps.
#[derive(Clone, Debug)]
pub struct LogColumns {
    /// Step, a whole number.
    pub step: String,
    /// Learning rate of the step.
    pub lr: String,
    /// Loss, nats per token; empty where none was measured.
    pub loss: String,
    /// What tells the runs of one table apart.
    pub curve: Option<String>,
    /// Which rows take part.
    pub condition: Option<Expression>,
}

/// How rates and losses of a log are understood.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// Step by which the rate has risen, in a line from 0 at step 0, to that of the first row.
    pub warm_up: Option<usize>,
    /// Losses before this step are left out; by default those before the first step of the highest rate.
    pub from: Option<usize>,
    /// Whether a table may lack the columns of losses and of curves.
    pub schedule_alone: bool,
}

/// One logged run.
#[derive(Clone, Debug)]
pub struct RunLog {
    /// What its column says, or the name of the table.
    pub name: String,
    /// The rate of every step.
    pub schedule: Schedule,
    /// Logged steps after the first positive rate, ascending.
    pub steps: Vec<usize>,
    /// Its losses, where it has any.
    pub curve: Option<Curve>,
    /// Losses left out because they come too early.
    pub early: usize,
    /// Largest number of steps between neighbouring rows.
    pub widest_gap: usize,
}

/// A log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The table.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Rows of one run are not in the order of their steps.
    #[error("{} line {line}: step {step} does not come after step {before}; hint: {hint}", path.display())]
    Order {
        /// The file.
        path: PathBuf,
        /// One-based line.
        line: usize,
        /// Its step.
        step: usize,
        /// The step of the row before.
        before: usize,
        /// What may help.
        hint: &'static str,
    },
    /// The rates before the first row are unknown.
    #[error(
        "{}, curve '{curve}': it begins at step {first}, so that the rates before are unknown; hint: --warmup STEPS, or \
         rows with an empty loss", path.display()
    )]
    UnknownStart {
        /// The file.
        path: PathBuf,
        /// The run.
        curve: String,
        /// Its first step.
        first: usize,
    },
    /// No row has a loss.
    #[error("{}, curve '{curve}': no loss {place}", path.display())]
    NoLoss {
        /// The file.
        path: PathBuf,
        /// The run.
        curve: String,
        /// Where there is none.
        place: String,
    },
    /// Rates or losses that cannot be a curve.
    #[error("{}, curve '{curve}': {source}", path.display())]
    Curve {
        /// The file.
        path: PathBuf,
        /// The run.
        curve: String,
        /// Why.
        source: CurveError,
    },
}

const STEP: (&str, fn(f64) -> bool) =
    ("whole number below 5e7", |value| value >= 0.0 && value.fract() == 0.0 && value < MOST_STEPS);
const RATE: (&str, fn(f64) -> bool) = ("number that is not negative", |value| value.is_finite() && value >= 0.0);

/// One row.
struct LogRow {
    line: usize,
    step: usize,
    rate: f64,
    loss: Option<f64>,
}

/// The runs of a table in the order of their first rows; without a column of curves it has one, called `name`.
pub fn read(path: &Path, name: &str, columns: &LogColumns, options: LogOptions) -> Result<Vec<RunLog>, LogError> {
    let cells = Cells::read(path)?;
    let (step, lr) = (cells.column(&columns.step)?, cells.column(&columns.lr)?);
    let optional = |name: &str| match options.schedule_alone {
        true => Ok(cells.find(name)),
        false => cells.column(name).map(Some),
    };
    let loss = optional(&columns.loss)?;
    let curve = columns.curve.as_deref().map(optional).transpose()?.flatten();
    let mut runs: Vec<(String, Vec<LogRow>)> = Vec::new();
    for row in cells.rows_where(columns.condition.as_ref())? {
        let text = |at: usize| row.1[at].as_deref().unwrap_or_default();
        let name = curve.map_or(name, text);
        let measured = loss.filter(|at| !text(*at).is_empty());
        let read = LogRow {
            line: row.0,
            step: number(&cells, row, step, STEP)? as usize,
            rate: number(&cells, row, lr, RATE)?,
            loss: measured.map(|at| number(&cells, row, at, POSITIVE)).transpose()?,
        };
        match runs.iter_mut().find(|(known, _)| known == name) {
            Some((_, rows)) => rows.push(read),
            None => runs.push((name.to_owned(), vec![read])),
        }
    }
    if runs.is_empty() {
        return Err(FrameError::NoRows { path: path.to_owned(), excluded: 0 }.into());
    }
    let hint = match curve {
        None => "--curve COL tells the runs of a table apart",
        Some(_) => "the rows of a curve stand in the order of their steps",
    };
    runs.into_iter().map(|(name, rows)| run(path, name, &rows, options, hint)).collect()
}

fn number(cells: &Cells, row: &TextRow, at: usize, expected: (&'static str, fn(f64) -> bool)) -> Result<f64, LogError> {
    Ok(cells.number(row, at, expected)?)
}

fn run(
    path: &Path,
    name: String,
    rows: &[LogRow],
    options: LogOptions,
    hint: &'static str,
) -> Result<RunLog, LogError> {
    let path = path.to_owned();
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].step >= pair[1].step) {
        return Err(LogError::Order { path, line: pair[1].line, step: pair[1].step, before: pair[0].step, hint });
    }
    let logged: Vec<(usize, f64)> = rows.iter().map(|row| (row.step, row.rate)).collect();
    let Some(rates) = every_rate(&logged, options.warm_up) else {
        return Err(LogError::UnknownStart { path, curve: name, first: logged[0].0 });
    };
    let refused = |source| LogError::Curve { path: path.clone(), curve: name.clone(), source };
    let schedule = Schedule::new(rates).map_err(refused)?;
    let from = options.from.unwrap_or_else(|| schedule.first_peak());
    let learnt = |step: usize| schedule.summed(step) > 0.0;
    let measured: Vec<(usize, f64)> = rows.iter().filter_map(|row| Some((row.step, row.loss?))).collect();
    let used: Vec<(usize, f64)> = measured.iter().copied().filter(|(step, _)| *step >= from && learnt(*step)).collect();
    if used.is_empty() && !options.schedule_alone {
        let place = if measured.is_empty() { "at all".to_owned() } else { format!("from step {from} on") };
        return Err(LogError::NoLoss { path, curve: name, place });
    }
    let (steps, losses): (Vec<usize>, Vec<f64>) = used.into_iter().unzip();
    let early = measured.len() - losses.len();
    let curve = (!losses.is_empty()).then(|| Curve::new(schedule.clone(), steps, losses)).transpose();
    Ok(RunLog {
        curve: curve.map_err(refused)?,
        steps: logged.iter().map(|(step, _)| *step).filter(|step| learnt(*step)).collect(),
        early,
        widest_gap: logged.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or(0),
        name,
        schedule,
    })
}

/// The rate of every step from 0 to the last logged one; `None` where those before the first row are unknown.
fn every_rate(logged: &[(usize, f64)], warm_up: Option<usize>) -> Option<Vec<f64>> {
    let (first, rate) = logged[0];
    let mut rates = vec![0.0; first];
    match (warm_up, logged.get(1)) {
        _ if first <= 1 => {}
        (Some(steps), _) => {
            let steps = steps.clamp(1, first) as f64;
            rates.iter_mut().enumerate().for_each(|(t, out)| *out = rate * (t as f64 / steps).min(1.0));
        }
        (None, Some((second, next))) if first <= second - first => {
            let slope = (next - rate) / (second - first) as f64;
            let before = |t: usize| (rate - slope * (first - t) as f64).max(0.0);
            rates.iter_mut().enumerate().skip(1).for_each(|(t, out)| *out = before(t));
        }
        _ => return None,
    }
    for pair in logged.windows(2) {
        let ((from, low), (to, high)) = (pair[0], pair[1]);
        let slope = (high - low) / (to - from) as f64;
        rates.extend((from..to).map(|t| if t == from { low } else { low + slope * (t - from) as f64 }));
    }
    rates.push(logged[logged.len() - 1].1);
    Some(rates)
}

impl RunLog {
    /// Whether rates between rows can differ much from the straight lines: the largest change between neighbouring rows
    /// that are not neighbouring steps, as a share of the highest rate.
    pub fn largest_unseen_change(&self) -> f64 {
        let rate = |step: usize| self.schedule.rate(step);
        let pairs = self.steps.windows(2).filter(|pair| pair[1] - pair[0] > 1);
        let changes: Vec<f64> = pairs.map(|pair| (rate(pair[1]) - rate(pair[0])).abs()).collect();
        if changes.is_empty() { 0.0 } else { ends(&changes).1 / self.schedule.peak() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(curve: Option<&str>) -> LogColumns {
        LogColumns {
            step: "step".to_owned(),
            lr: "lr".to_owned(),
            loss: "loss".to_owned(),
            curve: curve.map(str::to_owned),
            condition: None,
        }
    }

    fn read_text(text: &str, curve: Option<&str>, options: LogOptions) -> Result<Vec<RunLog>, LogError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        read(&path, "t", &columns(curve), options)
    }

    #[test]
    fn rates_lie_on_lines_through_the_rows() {
        let rates = |logged: &[(usize, f64)], warm_up| every_rate(logged, warm_up);
        assert_eq!(rates(&[(0, 2.0), (2, 4.0), (3, 1.0)], None).unwrap(), [2.0, 3.0, 4.0, 1.0]);
        assert_eq!(rates(&[(1, 2.0), (2, 2.0)], None).unwrap(), [0.0, 2.0, 2.0]);
        assert_eq!(rates(&[(2, 2.0), (4, 4.0)], None).unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(rates(&[(2, 1.0), (4, 4.0)], None).unwrap(), [0.0, 0.0, 1.0, 2.5, 4.0]);
        assert_eq!(rates(&[(4, 2.0), (5, 2.0)], Some(2)).unwrap(), [0.0, 1.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(rates(&[(4, 2.0), (5, 2.0)], None), None);
        assert_eq!(rates(&[(4, 2.0)], None), None);
    }

    #[test]
    fn curves_are_told_apart_and_begin_where_the_rate_is_highest() {
        let text = "run,step,lr,loss\na,0,0,9\na,1,1,8\nb,0,1,7\na,2,2,3\nb,1,0.5,\na,3,1,2\nb,2,0,1\n";
        let runs = read_text(text, Some("run"), LogOptions::default()).unwrap();
        let of = |run: &RunLog| {
            let curve = run.curve.as_ref().unwrap();
            (run.name.clone(), run.early, curve.steps().to_vec(), curve.losses().to_vec())
        };
        assert_eq!(of(&runs[0]), ("a".to_owned(), 2, vec![2, 3], vec![3.0, 2.0]));
        assert_eq!(of(&runs[1]), ("b".to_owned(), 0, vec![0, 2], vec![7.0, 1.0]));
        assert_eq!((runs[1].steps.clone(), runs[1].widest_gap), (vec![0, 1, 2], 1));
        let all = LogOptions { from: Some(0), ..LogOptions::default() };
        assert_eq!(of(&read_text(text, Some("run"), all).unwrap()[0]).2, [1, 2, 3]);
        let schedule = LogOptions { schedule_alone: true, ..LogOptions::default() };
        let runs = read_text("step,lr\n0,1\n10,0.5\n", Some("run"), schedule).unwrap();
        assert!(runs[0].name == "t" && runs[0].curve.is_none() && runs[0].largest_unseen_change() == 0.5);
    }

    #[test]
    fn refusals_say_where_and_what_to_do() {
        let cases = [
            ("step,lr,loss\n1,1,2\n1,1,2\n", "line 3: step 1 does not come after step 1; hint: --curve COL"),
            ("step,lr,loss\n1.5,1,2\n", "line 2, column 'step': '1.5' is not a whole number"),
            ("step,lr,loss\n1,-1,2\n", "line 2, column 'lr': '-1' is not a number that is not negative"),
            ("step,lr,loss\n1,1,x\n", "line 2, column 'loss': 'x' is not a positive number"),
            ("step,lr,loss\n1,0,2\n", "curve 't': no step has a positive learning rate"),
            ("step,lr,loss\n1,1,\n", "curve 't': no loss at all"),
            ("step,lr,loss\n1,1,2\n2,2,\n", "curve 't': no loss from step 2 on"),
            ("step,lr,loss\n500,1,2\n600,1,2\n", "it begins at step 500, so that the rates before are unknown; hint"),
            ("step,rate,loss\n1,1,2\n", "no column 'lr'"),
            ("step,lr,loss\n", "no rows to use"),
        ];
        for (text, expected) in cases {
            let error = read_text(text, None, LogOptions::default()).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{text:?} gave {error:?}");
        }
    }
}
