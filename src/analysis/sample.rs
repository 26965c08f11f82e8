//! What is fitted: the points of one group.

use super::FitError;
use super::forms::{Form, Inputs};
use super::frame::Row;

/// The points of one group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Values of the form's inputs.
    pub inputs: Inputs,
    /// Losses, nats per token.
    pub y: Vec<f64>,
    /// How much each point counts; 1 for an ordinary one.
    pub weight: Vec<f64>,
    /// Points of one cluster are drawn together by a bootstrap: checkpoints of one run, say.
    pub cluster: Vec<usize>,
}

impl Sample {
    /// Points of one variable, each counting once.
    pub fn of_pairs(points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let (x, y): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
        Self::new(vec![x], y)
    }

    /// Points of several variables (one column each), each counting once.
    pub fn new(columns: Vec<Vec<f64>>, y: Vec<f64>) -> Self {
        let n = y.len();
        Self { inputs: Inputs { columns }, y, weight: vec![1.0; n], cluster: (0..n).collect() }
    }

    /// The rows of a table.
    pub fn of_rows<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let rows: Vec<&Row> = rows.into_iter().collect();
        let width = rows.first().map_or(0, |row| row.inputs.len());
        let mut names: Vec<&str> = Vec::new();
        let mut cluster = Vec::with_capacity(rows.len());
        for (i, row) in rows.iter().enumerate() {
            cluster.push(match &row.cluster {
                None => i,
                Some(name) => names.iter().position(|n| n == name).unwrap_or_else(|| {
                    names.push(name);
                    names.len() - 1
                }),
            });
        }
        let columns = (0..width).map(|k| rows.iter().map(|row| row.inputs[k]).collect()).collect();
        Self {
            inputs: Inputs { columns },
            y: rows.iter().map(|row| row.y).collect(),
            weight: rows.iter().map(|row| row.weight.unwrap_or(1.0)).collect(),
            cluster,
        }
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.y.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.y.is_empty()
    }

    /// The points at these positions, repeats included.
    pub fn pick(&self, at: &[usize]) -> Self {
        let pick = |values: &[f64]| at.iter().map(|i| values[*i]).collect();
        Self {
            inputs: self.inputs.pick(at),
            y: pick(&self.y),
            weight: pick(&self.weight),
            cluster: at.iter().map(|i| self.cluster[*i]).collect(),
        }
    }

    /// All points but one.
    pub fn without(&self, point: usize) -> Self {
        self.pick(&(0..self.len()).filter(|i| *i != point).collect::<Vec<_>>())
    }

    /// Points in the order of an input.
    pub fn order_by(&self, input: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by(|a, b| self.inputs.columns[input][*a].total_cmp(&self.inputs.columns[input][*b]));
        order
    }

    /// Refuses what `form` cannot be fitted to when `given` of its parameters are.
    pub(super) fn check(&self, form: &dyn Form, given: usize) -> Result<(), FitError> {
        for index in 0..self.len() {
            let bad = |value: f64| !(value > 0.0 && value.is_finite());
            if let Some(column) = self.inputs.columns.iter().find(|column| bad(column[index])) {
                return Err(FitError::BadPoint { index, x: column[index], y: self.y[index] });
            }
            if bad(self.y[index]) {
                return Err(FitError::BadPoint { index, x: self.inputs.columns[0][index], y: self.y[index] });
            }
        }
        let parameters = form.size() - given.min(form.size());
        let distinct = self.inputs.distinct(parameters);
        if self.len() <= parameters || distinct < parameters {
            return Err(FitError::TooFewPoints { form: form.name(), parameters, n: self.len(), distinct });
        }
        for (input, column) in form.inputs().iter().zip(&self.inputs.columns) {
            if column.iter().all(|value| *value == column[0]) {
                return Err(FitError::ConstantInput { option: input.option(), value: column[0] });
            }
        }
        Ok(())
    }
}
