//! Which runs of a plan a command is about: by condition, by the beginning of an id, by label, by row.

use super::grid::condition;
use super::plan::{PlannedRun, SweepPlan};
use super::{SweepError, SweepFile};

/// What a user names runs by.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Rows counted from 1, beginnings of ids, or labels; none for all.
    pub names: Vec<String>,
    /// A condition as in `exclude`; `state` is a key too.
    pub condition: Option<String>,
}

/// Shortest beginning of an id.
const SHORTEST_PREFIX: usize = 4;

impl Selection {
    /// Positions in the plan, in its order. A name that names no run, or several, is refused.
    pub fn of(&self, sweep: &SweepFile, plan: &SweepPlan) -> Result<Vec<usize>, SweepError> {
        let mut chosen: Vec<usize> = Vec::new();
        for name in &self.names {
            chosen.push(named(plan, name).map_err(|problem| sweep.layout(&format!("'{name}'"), problem))?);
        }
        if self.names.is_empty() {
            chosen = (0..plan.runs.len()).collect();
        }
        chosen.sort_unstable();
        chosen.dedup();
        let Some(text) = &self.condition else { return Ok(chosen) };
        let mut kept = Vec::new();
        for index in chosen {
            let PlannedRun { point, state, .. } = &plan.runs[index];
            let mut flat = point.flat.clone();
            flat.insert("state".to_owned(), state.name().into());
            let keys = plan.runs.iter().flat_map(|run| run.point.flat.keys().cloned());
            let keys = keys.chain(["state", "tag", "variant"].map(str::to_owned)).collect();
            if condition(sweep, "--where", text, &flat, &keys)? {
                kept.push(index);
            }
        }
        Ok(kept)
    }
}

fn named(plan: &SweepPlan, name: &str) -> Result<usize, String> {
    if let Ok(row) = name.parse::<usize>()
        && (1..=plan.runs.len()).contains(&row)
    {
        return Ok(row - 1);
    }
    let like =
        |run: &PlannedRun| run.config.label == name || (name.len() >= SHORTEST_PREFIX && run.id.0.starts_with(name));
    let found: Vec<usize> = (0..plan.runs.len()).filter(|&index| like(&plan.runs[index])).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => Err(format!(
            "no run of {} is named so; give a row from 1 to {}, four or more digits of an id, or a label",
            plan.name,
            plan.runs.len()
        )),
        several => Err(format!("names {} runs; give more digits of the id", several.len())),
    }
}
