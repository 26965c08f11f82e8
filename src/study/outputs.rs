//! What a study makes of its runs: fits, figures, the report.

use super::file::FigureTable;
use super::{Evaluated, FigureSection, FitSection, Step, Study, StudyError, Unmeasured, drawing, fit_table};
use crate::analysis::compare::{CompareGroup, CompareOptions, Comparison, compare};
use crate::analysis::document::{FitEntry, SCHEMA};
use crate::analysis::{self, Columns, Fit, FitError, FitOptions, FrameError, Row, Sample, Table};
use crate::data::CorpusInfo;
use crate::expression::Expression;
use crate::files::{ReadError, WriteError, write_atomic};
use crate::plot::{Curve, PlotError};
use crate::record::RunRecord;
use crate::report::{CorpusSummary, GroupResult, MissingRun, ReportFigure, ReportFit, ReportInput, RerunCommand};
use crate::sweep::{SweepPlan, plan};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Changes whenever outputs of equal inputs would differ, in part by the program's version.
const MAKER: &str = concat!("lossfloor ", env!("CARGO_PKG_VERSION"));

/// Writes `path` unless it says just that already.
pub(super) fn write_if_changed(path: &Path, contents: &[u8]) -> Result<Step, StudyError> {
    if std::fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(Step::Current);
    }
    write_atomic(path, contents)?;
    Ok(Step::Made)
}

/// One group of one fit.
pub(super) struct Fitted {
    pub group: String,
    pub rows: Vec<Row>,
    pub curve: Option<Curve>,
    pub outcome: Result<Fit, FitError>,
}

/// A comparison of groups and what it amounts to; none where too few of them have a fit.
pub(super) struct Compared {
    pub comparison: Option<Comparison>,
    pub verdict: String,
}

/// The comparison that a fit asks for, of those of its groups that have a fit.
pub(super) fn comparison(section: &FitSection, groups: &[Fitted]) -> Result<Option<Compared>, StudyError> {
    let Some(wanted) = &section.compare else { return Ok(None) };
    let (usable, lost): (Vec<&Fitted>, Vec<&Fitted>) = groups.iter().partition(|group| group.outcome.is_ok());
    let is_lost = |name: &String| lost.iter().any(|group| group.group == *name);
    let groups: Vec<CompareGroup> =
        usable.iter().map(|group| CompareGroup { name: group.group.clone(), rows: group.rows.clone() }).collect();
    let chosen: Vec<String> = wanted.groups.iter().filter(|name| !is_lost(name)).cloned().collect();
    let left = if wanted.groups.is_empty() { groups.len() } else { chosen.len() };
    let without = |group: &&Fitted| Some(format!("{} has no fit: {}", group.group, group.outcome.as_ref().err()?));
    let without = lost.iter().filter_map(without).collect::<Vec<_>>().join("; ");
    if !lost.is_empty() && (left < 2 || wanted.baseline.as_ref().is_some_and(is_lost)) {
        return Ok(Some(Compared { comparison: None, verdict: format!("Not compared: {without}.") }));
    }
    let options = CompareOptions { fit: section.options(), groups: chosen, baseline: wanted.baseline.clone() };
    let comparison =
        compare(&groups, &options).map_err(|source| StudyError::Compare { fit: section.name.clone(), source })?;
    let missing = if lost.is_empty() { String::new() } else { format!(" Left out: {without}.") };
    Ok(Some(Compared { verdict: comparison.verdict.clone() + &missing, comparison: Some(comparison) }))
}

impl Study {
    /// Each group of a fit, its curve with a confidence band where `band`.
    pub(super) fn fitted(&self, section: &FitSection, band: bool) -> Result<Vec<Fitted>, StudyError> {
        self.fitted_by(section, &section.options(), band)
    }

    /// The same with other options.
    pub(super) fn fitted_by(
        &self,
        section: &FitSection,
        options: &FitOptions,
        band: bool,
    ) -> Result<Vec<Fitted>, StudyError> {
        self.try_fitted(section, options, band).map_err(|error| error.of("fit", &section.name))
    }

    fn try_fitted(&self, section: &FitSection, options: &FitOptions, band: bool) -> Result<Vec<Fitted>, StudyError> {
        let columns = Columns {
            inputs: section.columns(),
            y: section.y.clone(),
            // Every results table has it, for the loss that runs report as theirs.
            y_se: (section.y == "val_loss").then(|| "val_loss_se".to_owned()),
            group: section.group.clone(),
            pair: section.compare.as_ref().and_then(|compare| compare.pair.clone()),
            condition: section.condition.as_deref().map(Expression::parse).transpose().map_err(FrameError::from)?,
            ..Columns::default()
        };
        let table = Table::read(section.table.as_ref().unwrap_or(&self.table()), &columns)?;
        let fitted = |sample: &Sample| match section.is_of_one_scale() {
            true => drawing::fitted(sample, options, band).map(|(fit, curve)| (fit, Some(curve))),
            false => analysis::fit(sample, options).map(|fit| (fit, None)),
        };
        let group = |name: Option<String>| {
            let rows: Vec<Row> = table.rows.iter().filter(|row| row.group == name).cloned().collect();
            let group = name.unwrap_or_else(|| "all".to_owned());
            match fitted(&Sample::of_rows(&rows)) {
                Ok((fit, curve)) => Fitted { group, rows, curve, outcome: Ok(fit) },
                Err(error) => Fitted { group, rows, curve: None, outcome: Err(error) },
            }
        };
        Ok(table.groups().into_iter().map(group).collect())
    }

    /// Whether any run has completed, so that there is something to fit.
    fn has_points(&self, plan: Option<&SweepPlan>) -> bool {
        plan.is_none_or(|plan| plan.runs.iter().any(|run| run.val_loss.is_some()))
    }

    /// The tables that fits and figures read.
    fn tables(&self) -> Vec<PathBuf> {
        let fits = self.file.fits.iter().map(|fit| fit.table.clone().unwrap_or_else(|| self.table()));
        let shown = self.file.figures.iter().filter_map(|figure| figure.table().map(|table| self.shown_table(table)));
        let evaluations = self.file.evaluations.iter().map(|section| self.evaluation_table(&section.name));
        let mut out: Vec<PathBuf> = fits.chain(shown).chain(evaluations).collect();
        out.sort();
        out.dedup();
        out
    }

    /// Where a table that a figure shows lies.
    pub(super) fn shown_table(&self, table: FigureTable) -> PathBuf {
        match table {
            FigureTable::File(path) => path.to_owned(),
            FigureTable::Runs => self.table(),
            FigureTable::Metrics => self.metrics_table(),
        }
    }

    /// Refuses a table that the study's file names and that cannot be read.
    fn check_tables(&self) -> Result<(), StudyError> {
        let fits = self.file.fits.iter().filter_map(|fit| Some(("fit", &fit.name, fit.table.as_deref()?)));
        let figures = self.file.figures.iter().filter_map(|figure| match figure.table()? {
            FigureTable::File(path) => Some(("figure", &figure.name, path)),
            FigureTable::Runs | FigureTable::Metrics => None,
        });
        for (kind, name, path) in fits.chain(figures) {
            File::open(path).map_err(|error| StudyError::from(ReadError::of(path)(error)).of(kind, name))?;
        }
        Ok(())
    }

    /// Fits every law, to `fits.json` and `fits.csv`. The flag tells whether all groups of some fit are without one.
    pub fn fit(&self, plan: Option<&SweepPlan>) -> Result<(Step, bool), StudyError> {
        self.check_tables()?;
        let paths = [self.folder.join("fits.json"), self.folder.join("fits.csv")];
        let inputs = self.inputs(&[&format!("{:?}", self.file.fits)], &self.tables())?;
        if let Some(nothing_fits) = self.is_current("fit", &inputs, &paths) {
            return Ok((Step::Current, nothing_fits));
        }
        let (mut fits, mut entries, mut nothing_fits) = (Vec::new(), Vec::new(), false);
        for section in self.file.fits.iter().filter(|_| self.has_points(plan)) {
            let groups = self.fitted(section, false)?;
            nothing_fits |= groups.iter().all(|group| group.outcome.is_err());
            entries.extend(groups.iter().map(|group| entry(section, group)));
            fits.extend(groups.into_iter().map(|group| (section, group)));
        }
        nothing_fits |= !self.file.fits.is_empty() && fits.is_empty();
        let document = serde_json::to_string_pretty(&json!({ "schema": SCHEMA, "fits": entries }));
        let document = document.expect("string keys and finite numbers") + "\n";
        write_atomic(&paths[0], document.as_bytes())?;
        write_atomic(&paths[1], fit_table::to_csv(&fits)?.as_bytes())?;
        self.set_current("fit", &inputs, nothing_fits)?;
        Ok((Step::Made, nothing_fits))
    }

    fn figure_paths(&self, figure: &FigureSection) -> [PathBuf; 2] {
        ["svg", "png"].map(|ending| self.folder.join(format!("{}.{ending}", figure.name)))
    }

    /// The figures that there is something to show in.
    fn shown(&self, plan: Option<&SweepPlan>, evaluated: &[Evaluated]) -> Vec<&FigureSection> {
        let found = |name: &str| evaluated.iter().any(|one| one.name == name && !one.table.rows().is_empty());
        let shows = |figure: &&FigureSection| figure.evaluation().is_none_or(found);
        self.file.figures.iter().filter(|_| self.has_points(plan)).filter(shows).collect()
    }

    /// Draws every figure as .svg and .png.
    pub fn draw(&self, plan: Option<&SweepPlan>, evaluated: &[Evaluated]) -> Result<Step, StudyError> {
        let shown = self.shown(plan, evaluated);
        if shown.is_empty() {
            return Ok(Step::Current);
        }
        let floor = self.floor(&self.records(plan)?)?;
        let specs = format!("{:?}{shown:?}{floor:?}", self.file.fits);
        let inputs = self.inputs(&[&specs], &self.tables())?;
        // What was found to have nothing to show has no files.
        let empty = |figure: &FigureSection| format!("no figure {}", figure.name);
        let is_empty = |figure: &&&FigureSection| self.is_current(&empty(figure), &inputs, &[]).is_some();
        let paths: Vec<PathBuf> =
            shown.iter().filter(|figure| !is_empty(figure)).flat_map(|figure| self.figure_paths(figure)).collect();
        if self.is_current("figure", &inputs, &paths).is_some() {
            return Ok(Step::Current);
        }
        for section in shown {
            let chart = self.chart(section, floor, evaluated).map_err(|error| error.of("figure", &section.name))?;
            let draw = |source| StudyError::Plot { name: section.name.clone(), source };
            let [svg, png] = self.figure_paths(section);
            match chart.svg_in(section.palette) {
                Err(PlotError::NoPoints) => {
                    for path in [svg, png].into_iter().filter(|path| path.exists()) {
                        std::fs::remove_file(&path).map_err(|source| WriteError { path, source })?;
                    }
                    self.set_current(&empty(section), &inputs, true)?;
                    continue;
                }
                text => write_atomic(&svg, text.map_err(draw)?.as_bytes())?,
            }
            write_atomic(&png, &chart.png_in(section.palette).map_err(draw)?)?;
        }
        self.set_current("figure", &inputs, false)?;
        Ok(Step::Made)
    }

    /// The figures that have nothing to show, such as a law of groups without a fit.
    pub fn empty_figures(&self, plan: Option<&SweepPlan>, evaluated: &[Evaluated]) -> Vec<&str> {
        let is_empty = |figure: &&FigureSection| !self.figure_paths(figure)[0].exists();
        self.shown(plan, evaluated).into_iter().filter(is_empty).map(|figure| figure.name.as_str()).collect()
    }

    /// Writes `report.md` and `report.html`.
    pub fn report(
        &self,
        plan: Option<&SweepPlan>,
        evaluated: &[Evaluated],
        unmeasured: &[Unmeasured],
    ) -> Result<Step, StudyError> {
        let corpus = self.corpus()?;
        let records = self.records(plan)?;
        let floor = self.floor(&records)?;
        let planned = plan.map_or(&[][..], |plan| &plan.runs);
        let missing = planned.iter().filter(|run| !records.iter().any(|record| record.run_id == run.id.0));
        let missing = missing.map(|run| MissingRun {
            run_id: run.id.0.clone(),
            label: run.config.label.clone(),
            state: run.state.name().to_owned(),
        });
        let missing: Vec<MissingRun> = missing.collect();
        let drawn = self.shown(plan, evaluated).into_iter();
        let svg = |figure| (figure, self.figure_paths(figure)[0].clone());
        let figures: Vec<(&FigureSection, PathBuf)> = drawn.map(svg).filter(|(_, path)| path.exists()).collect();
        let (file, origin) = (&self.file, self.origin.display());
        let specs = format!("{file:?}{missing:?}{unmeasured:?}{corpus:?}{floor:?}{origin}{:?}", self.assignments);
        let sources: Vec<PathBuf> = figures.iter().map(|(_, svg)| svg.clone()).chain(self.tables()).collect();
        let inputs = self.inputs(&[&specs], &sources)?;
        let paths = [self.folder.join("report.md"), self.report_path()];
        if self.is_current("report", &inputs, &paths).is_some() {
            return Ok(Step::Current);
        }
        let mut shown = Vec::new();
        for (figure, path) in figures {
            let svg = std::fs::read_to_string(&path).map_err(ReadError::of(&path))?;
            shown.push(ReportFigure {
                caption: figure.caption.clone().unwrap_or_default(),
                svg_path: format!("{}.svg", figure.name).into(),
                png_path: Some(format!("{}.png", figure.name).into()),
                svg,
            });
        }
        let mut fits = Vec::new();
        for section in self.file.fits.iter().filter(|_| self.has_points(plan)) {
            let groups = self.fitted(section, false)?;
            let verdict = comparison(section, &groups)?.map(|compared| compared.verdict);
            fits.push(ReportFit {
                name: section.name.clone(),
                inputs: section.inputs_in_words(),
                law: section.law(),
                objective: section.options().objective,
                groups: groups.into_iter().map(|fit| GroupResult { group: fit.group, outcome: fit.outcome }).collect(),
                verdict,
            });
        }
        let report = ReportInput {
            title: self.file.report.title.clone().unwrap_or_else(|| self.file.study.clone()),
            study: self.file.study.clone(),
            generated_by: MAKER.to_owned(),
            records,
            missing,
            fits,
            figures: shown,
            evaluations: evaluated.iter().filter(|one| !one.last.is_empty()).map(Evaluated::for_report).collect(),
            unmeasured: unmeasured.iter().map(ToString::to_string).collect(),
            corpus: corpus.map(|info| self.summary(&info)),
            floor,
            commands: self.commands(),
        };
        write_atomic(&paths[0], report.markdown().as_bytes())?;
        write_atomic(&paths[1], report.html().as_bytes())?;
        self.set_current("report", &inputs, false)?;
        Ok(Step::Made)
    }

    fn records(&self, plan: Option<&SweepPlan>) -> Result<Vec<RunRecord>, StudyError> {
        Ok(plan.map(|plan| plan::collect(plan, &self.runs_dir)).transpose()?.unwrap_or_default())
    }

    /// The true floor of the loss that runs report: the one that all of them were evaluated against, which may have
    /// been on a part of the corpus only; without a run that of the corpus.
    fn floor(&self, records: &[RunRecord]) -> Result<Option<f64>, StudyError> {
        let mut floors = records.iter().filter_map(|record| record.floor);
        match floors.next() {
            Some(first) => Ok(floors.all(|floor| floor == first).then_some(first)),
            None => Ok(self.corpus()?.and_then(|info| info.floor_nats)),
        }
    }

    fn summary(&self, info: &CorpusInfo) -> CorpusSummary {
        let folder = self.corpus_folder().unwrap_or_default();
        let description = self.file.report.corpus.clone().unwrap_or_else(|| folder.display().to_string());
        CorpusSummary {
            description,
            train_tokens: info.train_tokens,
            validation_tokens: info.validation_tokens,
            vocab_size: info.vocab_size,
            floor: info.floor_nats,
        }
    }

    /// How to get each number of the report again.
    fn commands(&self) -> Vec<RerunCommand> {
        let command = |what: &str, command: String| RerunCommand { what: what.to_owned(), command };
        let set: String = self.assignments.iter().map(|assignment| format!(" --set '{assignment}'")).collect();
        let mut out = vec![command("The whole study", format!("lossfloor reproduce {}{set}", self.origin.display()))];
        if self.file.sweep.is_some() {
            out.push(command("One run", format!("lossfloor train {}/RUN_ID/config.yaml", self.runs_dir.display())));
        }
        for section in &self.file.evaluations {
            let checkpoint = format!("{}/RUN_ID/checkpoint/step-STEP.safetensors", self.runs_dir.display());
            let line = format!("lossfloor eval {checkpoint} {}", section.measurement.arguments().join(" "));
            out.push(command(&format!("Evaluation {} of one checkpoint", section.name), line));
        }
        for fit in &self.file.fits {
            let table = fit.table.clone().unwrap_or_else(|| self.table());
            let line = format!("lossfloor fit {} {}", table.display(), fit.arguments());
            out.push(command(&format!("Fit {}", fit.name), line));
            if let Some(compared) = fit.compare_arguments() {
                let line = format!("lossfloor compare {} {compared}", table.display());
                out.push(command(&format!("Comparison of {}", fit.name), line));
            }
        }
        out
    }

    /// A hash of what a step is made from.
    fn inputs(&self, words: &[&str], files: &[PathBuf]) -> Result<String, StudyError> {
        let mut hash = Sha256::new();
        for word in [MAKER].iter().chain(words) {
            hash.update(word.as_bytes());
            hash.update([0]);
        }
        for path in files {
            let bytes = std::fs::read(path).map_err(ReadError::of(path))?;
            hash.update(Sha256::digest(&bytes));
        }
        Ok(hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect())
    }

    fn state_path(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    fn state(&self) -> BTreeMap<String, (String, bool)> {
        let text = std::fs::read_to_string(self.state_path()).unwrap_or_default();
        // A state that cannot be read says that nothing is current.
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The flag that was kept with a step whose outputs are there and whose inputs are the same.
    fn is_current(&self, step: &str, inputs: &str, outputs: &[PathBuf]) -> Option<bool> {
        let (kept, flag) = self.state().remove(step)?;
        (kept == inputs && outputs.iter().all(|path| path.exists())).then_some(flag)
    }

    fn set_current(&self, step: &str, inputs: &str, flag: bool) -> Result<(), StudyError> {
        let mut state = self.state();
        state.insert(step.to_owned(), (inputs.to_owned(), flag));
        let text = serde_json::to_string_pretty(&state).expect("plain strings and flags") + "\n";
        Ok(write_atomic(&self.state_path(), text.as_bytes())?)
    }
}

/// One entry of `fits.json`, laid out as `fit --json` does.
fn entry(section: &FitSection, group: &Fitted) -> serde_json::Value {
    let options = section.options();
    let how = (options.objective, options.interval);
    let name = Some(group.group.clone());
    let entry = FitEntry::new(name, section.law().name(), how, group.rows.len(), BTreeMap::new(), &group.outcome);
    let mut value = serde_json::to_value(entry).expect("string keys and finite numbers");
    value["fit"] = json!(section.name);
    value
}
