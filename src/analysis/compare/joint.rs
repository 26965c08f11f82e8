//! Fits of several groups that share some of their parameters.

use crate::analysis::fit::Fitted;
use crate::analysis::forms::{Form, Inputs};
use crate::analysis::solver::matrix::{Matrix, inverse_gram};
use crate::analysis::solver::{Block, Held, Minimum, Problem, newton};

/// What groups have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The floor.
    Floor,
    /// Exponents and other shapes.
    Shapes,
    /// Floor and shapes; only the amplitudes differ.
    FloorAndShapes,
    /// Everything.
    All,
}

impl Shared {
    /// Whether the variable at `local` is shared.
    fn covers(self, form: &dyn Form, local: usize) -> bool {
        let (floor, shape) = (form.floor() == Some(local), local >= form.terms().len());
        match self {
            Self::Floor => floor,
            Self::Shapes => shape,
            Self::FloorAndShapes => floor || shape,
            Self::All => true,
        }
    }

    /// Parameters that groups share.
    pub(super) fn count(self, form: &dyn Form) -> usize {
        (0..form.size()).filter(|local| self.covers(form, *local)).count()
    }
}

/// Groups fitted together.
pub(super) struct Joint {
    pub problem: Problem,
    pub optimum: Minimum,
    reference: Vec<f64>,
}

impl Joint {
    /// The best fit with `shared` in common. Each group's own optimum serves as a start for what is shared.
    pub(super) fn new(groups: &[&Fitted], shared: Shared) -> Self {
        let (problem, starts) = Self::problem(groups, shared);
        let ends = starts.iter().map(|start| newton::minimise(&problem, start, &Held::default()));
        let optimum = ends.min_by(|a, b| a.value.total_cmp(&b.value)).unwrap_or_default();
        Self { problem, optimum, reference: pooled_reference(groups) }
    }

    /// Parameters that people read, of one group.
    pub(super) fn natural(&self, form: &dyn Form, group: usize) -> Vec<f64> {
        let p = self.of_group(group);
        let (coefficients, shapes) = p.split_at(form.terms().len());
        form.natural(coefficients, shapes, &self.reference)
    }

    /// The problem, and for each group a start from its own optimum.
    pub(super) fn problem(groups: &[&Fitted], shared: Shared) -> (Problem, Vec<Vec<f64>>) {
        let form = groups[0].form;
        let reference = pooled_reference(groups);
        let mut bounds: Vec<(f64, f64)> = Vec::new();
        let mut common: Vec<Option<usize>> = vec![None; form.size()];
        let mut blocks = Vec::new();
        let k = form.terms().len();
        for group in groups {
            let sample = group.sample;
            let mut block = Block::new(form, &sample.inputs, &sample.y, &sample.weight, &reference);
            for (local, common) in common.iter_mut().enumerate() {
                let fresh = bounds.len();
                let place = if shared.covers(form, local) { *common.get_or_insert(fresh) } else { fresh };
                if place == fresh {
                    bounds.push(if local < k { (0.0, f64::INFINITY) } else { form.shapes()[local - k].range });
                }
                block.map[local] = place;
            }
            blocks.push(block);
        }
        let own: Vec<Vec<f64>> = groups
            .iter()
            .map(|group| {
                let (c, s) = form.internal(&group.natural, &reference);
                c.into_iter().chain(s).collect()
            })
            .collect();
        let start = |first: usize| {
            let mut p = vec![0.0; bounds.len()];
            for (block, own) in blocks.iter().zip(&own) {
                block.map.iter().zip(own).for_each(|(place, value)| p[*place] = *value);
            }
            blocks[first].map.iter().zip(&own[first]).for_each(|(place, value)| p[*place] = *value);
            p
        };
        let starts = (0..groups.len()).map(start).collect();
        (Problem { blocks, bounds, criterion: groups[0].problem.criterion }, starts)
    }

    /// The variables of one group.
    pub(super) fn of_group(&self, group: usize) -> Vec<f64> {
        self.problem.blocks[group].map.iter().map(|place| self.optimum.p[*place]).collect()
    }

    /// (JᵀWJ)⁻¹ of all variables.
    pub(super) fn unit_covariance(&self) -> Option<Matrix> {
        let points: usize = self.problem.blocks.iter().map(Block::points).sum();
        let mut columns = vec![vec![0.0; points]; self.optimum.p.len()];
        let mut from = 0;
        for block in &self.problem.blocks {
            for (column, place) in self.problem.jacobian(block, &self.optimum.p).iter().zip(&block.map) {
                let part = &mut columns[*place][from..from + column.len()];
                part.iter_mut().zip(column).for_each(|(sum, value)| *sum += value);
            }
            from += block.points();
        }
        inverse_gram(columns)
    }
}

/// The middle of the points of all groups.
fn pooled_reference(groups: &[&Fitted]) -> Vec<f64> {
    let form = groups[0].form;
    let mut all = Inputs { columns: vec![Vec::new(); form.inputs().len()] };
    for group in groups {
        for (all, column) in all.columns.iter_mut().zip(&group.sample.inputs.columns) {
            all.extend(column);
        }
    }
    form.centre(&all)
}
