//! The data sets that `rollout` and `robustness` try forms on.

use super::input::ColumnArgs;
use super::sheet::Sheet;
use crate::analysis::forms::{FORMS, Form, Input};
use crate::analysis::rollout::Points;
use crate::cli::{output, usage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// In N and D it is the tied form with other letters, so it is fitted only when it is asked for.
const SAME_AS_TIED: &str = "over-training";

/// The rows of one group of one file.
pub(super) struct DataSet {
    /// File and group, as far as they tell data sets apart.
    pub name: String,
    pub file: PathBuf,
    pub group: Option<String>,
    pub points: Points,
}

/// The data sets of some files, with every input that has a column.
pub(super) fn data_sets(files: &[PathBuf], columns: &ColumnArgs, quiet: bool) -> anyhow::Result<Vec<DataSet>> {
    let named = [
        (Input::X, &columns.x),
        (Input::Parameters, &columns.n),
        (Input::Tokens, &columns.d),
        (Input::Unique, &columns.u),
    ];
    let (known, wanted): (Vec<Input>, Vec<String>) =
        named.into_iter().filter_map(|(input, column)| Some((input, column.clone()?))).unzip();
    if columns.x.is_none() && (columns.n.is_none() || columns.d.is_none()) {
        return Err(usage("--x, or --n and --d, have to name the columns of the scale"));
    }
    let stem = |file: &Path| file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut out = Vec::new();
    for file in files {
        let source = columns.read(file, wanted.clone())?;
        if !quiet {
            source.say();
        }
        let alike = files.iter().filter(|other| stem(other) == stem(file)).count() > 1;
        let of_file = if alike { file.display().to_string() } else { stem(file) };
        for group in source.groups().into_iter().filter(|group| !group.rows.is_empty()) {
            let name = match &group.name {
                None => of_file.clone(),
                Some(name) if files.len() == 1 => name.clone(),
                Some(name) => format!("{of_file}/{name}"),
            };
            let points = Points::new(known.clone(), group.sample());
            out.push(DataSet { name, file: file.clone(), group: group.name, points });
        }
    }
    Ok(out)
}

/// The forms asked for, or all that can be fitted to these points.
pub(super) fn applicable(asked: &[&'static dyn Form], points: &Points) -> anyhow::Result<Vec<&'static dyn Form>> {
    let fits = |form: &&'static dyn Form| points.sample(*form).is_some();
    if let Some(form) = asked.iter().find(|form| !fits(form)) {
        let unknown = form.inputs().iter().filter(|input| points.input(**input).is_none());
        let options: Vec<&str> = unknown.map(|input| input.option()).collect();
        return Err(usage(format!("--forms {} needs {} as well", form.name(), options.join(" and "))));
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    Ok(FORMS.iter().copied().filter(|form| form.name() != SAME_AS_TIED).filter(fits).collect())
}

/// A sheet for a terminal, without the columns `wide`, nor those of `constant` that say the same in every row.
pub(super) fn brief(sheet: &Sheet, constant: &[&str], wide: &[&str]) -> Sheet {
    sheet.keep(|at, name| !wide.contains(&name) && (!constant.contains(&name) || sheet.varies(at)))
}

/// Says why fits are missing, each reason once.
pub(super) fn say_reasons<'a>(reasons: impl Iterator<Item = &'a str>) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in reasons {
        *counts.entry(reason).or_insert(0) += 1;
    }
    for (reason, count) in counts {
        output::note(&format!("{count} fit{} left out: {reason}", if count == 1 { "" } else { "s" }));
    }
}
