//! Changes of the learning rate, condensed: of a smooth schedule, few with weights stand for the many that lie far enough
//! before a point for their effect there to be smooth in their number. That takes the sum over all changes from tens of
//! thousands of terms to hundreds, with ten digits.

use super::Schedule;
use crate::analysis::ends;
use std::collections::HashMap;

/// Changes that stand for a block.
const NODES: usize = 16;
/// Blocks of up to this many changes are summed one by one.
const LEAF: usize = 2 * NODES;
/// The highest rate within a block is at most this many times the lowest: η^-γ is smooth then.
const RATE_RATIO: f64 = 2.0;
/// How closely a block's rates (in logarithms) and sums (in shares of the run's) have to follow from its nodes.
const SMOOTH: f64 = 1e-11;
/// Where the rate has gone to nothing, η^-γ is that of this share of the highest rate.
const LEAST_SHARE: f64 = 1e-6;

/// Changes of a rate, each with a weight.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// By how much, in shares of the highest rate.
    pub gaps: Vec<f64>,
    /// ln of the rate afterwards, in the same shares.
    pub log_rates: Vec<f64>,
    /// S1 before.
    pub before: Vec<f64>,
}

impl Changes {
    fn push(&mut self, gap: f64, log_rate: f64, before: f64) {
        self.gaps.push(gap);
        self.log_rates.push(log_rate);
        self.before.push(before);
    }
}

/// All changes of a schedule, and the blocks that were condensed so far.
pub(super) struct Condenser<'a> {
    schedule: &'a Schedule,
    steps: Vec<usize>,
    all: Changes,
    blocks: HashMap<(usize, usize), Option<Changes>>,
    /// By the length of a block.
    rules: HashMap<usize, Rule>,
}

impl<'a> Condenser<'a> {
    /// Of a schedule; shares are those of `peak`.
    pub(super) fn new(schedule: &'a Schedule, peak: f64) -> Self {
        let (mut steps, mut all) = (Vec::new(), Changes::default());
        for (step, from, to) in schedule.changes() {
            steps.push(step);
            all.push((to - from) / peak, (to / peak).max(LEAST_SHARE).ln(), schedule.summed(step - 1));
        }
        Self { schedule, steps, all, blocks: HashMap::new(), rules: HashMap::new() }
    }

    /// The changes up to `step`, condensed.
    pub(super) fn up_to(&mut self, step: usize) -> Changes {
        let count = self.steps.partition_point(|at| *at <= step);
        let mut out = Changes::default();
        self.cover(0, count.next_power_of_two(), (count, self.schedule.summed(step)), &mut out);
        out
    }

    /// Adds the changes from `from` on, at most `length` and those before `count`, for a point with S1 of `sum`.
    fn cover(&mut self, from: usize, length: usize, (count, sum): (usize, f64), out: &mut Changes) {
        let to = from + length;
        if from >= count {
            return;
        }
        if length <= LEAF {
            for k in from..to.min(count) {
                out.push(self.all.gaps[k], self.all.log_rates[k], self.all.before[k]);
            }
            return;
        }
        // As far from the point as it is long: wherever the saturation bends, that is no closer than the point.
        let is_far = to <= count && {
            let (first, last) = (self.all.before[from], self.all.before[to - 1]);
            sum - last >= last - first
        };
        if is_far {
            let all = &self.all;
            let rule = self.rules.entry(length).or_insert_with(|| Rule::new(length));
            let block = self.blocks.entry((from, length)).or_insert_with(|| condense(all, from, rule));
            if let Some(block) = block {
                out.gaps.extend_from_slice(&block.gaps);
                out.log_rates.extend_from_slice(&block.log_rates);
                out.before.extend_from_slice(&block.before);
                return;
            }
        }
        self.cover(from, length / 2, (count, sum), out);
        self.cover(from + length / 2, length / 2, (count, sum), out);
    }
}

/// The changes of a block at a few of its places, weighted so that polynomials through them sum to the same; `None` where
/// rates or sums are not smooth enough for that.
fn condense(all: &Changes, from: usize, rule: &Rule) -> Option<Changes> {
    let to = from + rule.shares.len();
    let rates = &all.log_rates[from..to];
    let (low, high) = ends(rates);
    if high - low > RATE_RATIO.ln() {
        return None;
    }
    let mut out = Changes::default();
    for node in &rule.nodes {
        out.push(0.0, rates[*node], all.before[from + node]);
    }
    let total = all.before[to - 1];
    for (k, shares) in rule.shares.iter().enumerate() {
        let at = |values: &[f64]| shares.iter().zip(values).map(|(share, value)| share * value).sum::<f64>();
        let off_rate = (at(&out.log_rates) - rates[k]).abs();
        let off_sum = (at(&out.before) - all.before[from + k]).abs();
        if off_rate > SMOOTH || off_sum > SMOOTH * total {
            return None;
        }
        out.gaps.iter_mut().zip(shares).for_each(|(weight, share)| *weight += all.gaps[from + k] * share);
    }
    Some(out)
}

/// Interpolation within blocks of one length.
struct Rule {
    /// Places that lie as Chebyshev's points do.
    nodes: [usize; NODES],
    /// For each place, what the value at each node counts there: the polynomials that are one at one node and zero at
    /// the others.
    shares: Vec<[f64; NODES]>,
}

impl Rule {
    fn new(length: usize) -> Self {
        let half = 0.5 * (length - 1) as f64;
        let angle = |j: usize| std::f64::consts::PI * j as f64 / (NODES - 1) as f64;
        let nodes: [usize; NODES] = std::array::from_fn(|j| (half * (1.0 - angle(j).cos())).round() as usize);
        // In halves of the block, which keeps the products in range.
        let distance = |a: usize, b: usize| (a as f64 - b as f64) / half;
        let product =
            |j: usize, k: usize| (0..NODES).filter(|i| *i != j).map(|i| distance(k, nodes[i])).product::<f64>();
        let at_own: [f64; NODES] = std::array::from_fn(|j| product(j, nodes[j]));
        let shares = (0..length).map(|k| std::array::from_fn(|j| product(j, k) / at_own[j])).collect();
        Self { nodes, shares }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warm(t: usize, after: f64) -> f64 {
        if t < 500 { 1e-3 * t as f64 / 499.0 } else { after }
    }

    /// Σ gap·(1 + c·η^-γ·(S - S_k))^-β
    fn sum(changes: &Changes, sum: f64, [c, beta, gamma]: [f64; 3]) -> f64 {
        let of = |k: usize| {
            let scale = c * (-gamma * changes.log_rates[k]).exp();
            changes.gaps[k] * (1.0 + scale * (sum - changes.before[k])).powf(-beta)
        };
        (0..changes.gaps.len()).map(of).sum()
    }

    #[test]
    fn condensed_changes_sum_to_the_same() {
        let cosine = |t: usize| warm(t, 1e-4 + 4.5e-4 * (1.0 + (std::f64::consts::PI * t as f64 / 9000.0).cos()));
        let to_nothing = |t: usize| warm(t, if t < 7000 { 1e-3 } else { 1e-3 * (9000 - t) as f64 / 2000.0 });
        let jagged = |t: usize| warm(t, 1e-3 * (1.0 - 0.3 * (t as f64 * 0.7).sin().abs()));
        let schedules: [(&dyn Fn(usize) -> f64, bool); 3] = [(&cosine, true), (&to_nothing, true), (&jagged, false)];
        for (rate, smooth) in schedules {
            let schedule = Schedule::new((0..=9000).map(rate).collect()).unwrap();
            let mut condenser = Condenser::new(&schedule, schedule.peak());
            for step in [700, 2000, 7300, 9000] {
                let few = condenser.up_to(step);
                let count = condenser.steps.partition_point(|at| *at <= step);
                let all = &condenser.all;
                let part = |values: &[f64]| values[..count].to_vec();
                let many =
                    Changes { gaps: part(&all.gaps), log_rates: part(&all.log_rates), before: part(&all.before) };
                assert!(!smooth || few.gaps.len() < 600, "{} of {count}", few.gaps.len());
                for shapes in [[300.0, 0.6, 0.7], [1e5, 0.1, 0.9], [2.0, 3.0, 1.5], [1e-2, 0.5, 0.3]] {
                    let (got, want) =
                        (sum(&few, schedule.summed(step), shapes), sum(&many, schedule.summed(step), shapes));
                    // Gaps add up to one on the way up: this is ten digits of the largest part.
                    assert!((got - want).abs() < 1e-10, "step {step} {shapes:?}: {got} {want}");
                }
            }
        }
    }
}
