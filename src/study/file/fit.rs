//! `fits` of a study as written.

use crate::analysis::forms::{FORMS, Form, Input, lookup};
use crate::analysis::{FitOptions, IntervalMethod, Objective};
use crate::expression::Expression;
use serde::Deserialize;
use std::path::PathBuf;

/// One of `fits`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "keys with values")]
pub struct FitSection {
    /// What figures call it.
    pub name: String,
    /// The law, as `--form` of `fit`.
    pub form: String,
    /// Column of the scale, of a law of one.
    pub x: Option<String>,
    /// Column of the parameters N.
    pub n: Option<String>,
    /// Column of the training tokens D.
    pub d: Option<String>,
    /// Column of the distinct training tokens.
    pub u: Option<String>,
    /// Column of the loss.
    pub y: String,
    /// Column that splits the rows.
    pub group: Option<String>,
    /// What x is, for people; default the column.
    pub x_label: Option<String>,
    /// What N is, for people; default the column.
    pub n_label: Option<String>,
    /// What D is, for people; default the column.
    pub d_label: Option<String>,
    /// What is minimised, as `--loss` of `fit`; default least squares.
    pub loss: Option<String>,
    /// Kind of interval, as `--interval` of `fit`; default that of `fit`.
    pub interval: Option<String>,
    /// The table; default that of the study's runs.
    pub table: Option<PathBuf>,
    /// Rows to take, as `--where` of `fit`.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// Compares the groups with each other.
    pub compare: Option<CompareSection>,
}

/// `compare` of one of `fits`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "keys with values")]
pub struct CompareSection {
    /// Groups, in this order; default all.
    pub groups: Vec<String>,
    /// The group that others are compared with; default the first.
    pub baseline: Option<String>,
    /// Column that says which rows have the same budget; default equal x.
    pub pair: Option<String>,
}

impl FitSection {
    /// The form, which [`Self::check`] has seen.
    pub(in crate::study) fn law(&self) -> &'static dyn Form {
        lookup(&self.form).expect("checked when the file was read")
    }

    /// Whether its law is one of a single scale, which has a curve.
    pub(in crate::study) fn is_of_one_scale(&self) -> bool {
        self.law().inputs() == [Input::X]
    }

    /// The column of an input, and what it is for people.
    fn input(&self, input: Input) -> (Option<&str>, Option<&str>) {
        let (column, label) = match input {
            Input::X => (&self.x, &self.x_label),
            Input::Parameters => (&self.n, &self.n_label),
            Input::Tokens => (&self.d, &self.d_label),
            Input::Unique => (&self.u, &None),
        };
        (column.as_deref(), label.as_deref().or(column.as_deref()))
    }

    /// Columns of the form's inputs, in its order.
    pub(in crate::study) fn columns(&self) -> Vec<String> {
        self.law().inputs().iter().filter_map(|input| self.input(*input).0.map(str::to_owned)).collect()
    }

    /// What an input is, for people.
    pub(in crate::study) fn label(&self, input: Input) -> &str {
        self.input(input).1.unwrap_or_default()
    }

    /// What the inputs are, for people: `x = training FLOPs`, or `N = n, D = d`.
    pub(in crate::study) fn inputs_in_words(&self) -> String {
        let one = |input: &Input| {
            let letter = if *input == Input::X { "x".to_owned() } else { input.letter().to_uppercase() };
            format!("{letter} = {}", self.label(*input))
        };
        self.law().inputs().iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The options of `compare` that give the comparison, where one is asked for.
    pub(in crate::study) fn compare_arguments(&self) -> Option<String> {
        let wanted = self.compare.as_ref()?;
        let quoted = |text: &String| format!("'{text}'");
        let groups = (!wanted.groups.is_empty()).then(|| wanted.groups.join(","));
        let option = |(name, value): (&str, Option<String>)| Some(format!(" --{name} {}", quoted(&value?)));
        let more = [("groups", groups), ("baseline", wanted.baseline.clone()), ("pair", wanted.pair.clone())];
        Some(self.arguments_with(&None) + &more.into_iter().filter_map(option).collect::<String>())
    }

    /// The options of `fit` that give the same fit.
    pub(in crate::study) fn arguments(&self) -> String {
        self.arguments_with(&self.interval)
    }

    fn arguments_with(&self, interval: &Option<String>) -> String {
        let option = |input: &Input| Some(format!("{} {}", input.option(), self.input(*input).0?));
        let mut out = vec![format!("--form {}", self.form)];
        out.extend(self.law().inputs().iter().filter_map(option));
        out.push(format!("--y {}", self.y));
        let more = [("group", &self.group), ("loss", &self.loss), ("interval", interval)];
        out.extend(more.iter().filter_map(|(option, value)| Some(format!("--{option} {}", value.as_ref()?))));
        out.extend(self.condition.as_ref().map(|condition| format!("--where '{condition}'")));
        out.join(" ")
    }

    fn objective(&self) -> Result<Objective, String> {
        self.loss.as_deref().map_or(Ok(Objective::default()), |text| {
            text.parse().map_err(|problem| format!("loss: '{text}' is not {problem}"))
        })
    }

    fn interval(&self, objective: Objective) -> Result<IntervalMethod, String> {
        let asked = self
            .interval
            .as_deref()
            .map(|text| text.parse().map_err(|problem| format!("interval: '{text}' is not {problem}")));
        let interval = asked.transpose()?.unwrap_or(objective.usual_interval());
        interval.suits(objective).map_err(|problem| format!("interval: {problem}"))?;
        Ok(interval)
    }

    /// How it is fitted.
    pub(in crate::study) fn options(&self) -> FitOptions {
        let objective = self.objective().expect("checked when the file was read");
        let interval = self.interval(objective).expect("checked when the file was read");
        FitOptions { objective, interval, ..FitOptions::new(self.law()) }
    }

    /// What is wrong with it by itself.
    pub(super) fn check(&self) -> Result<(), String> {
        let Some(form) = lookup(&self.form) else {
            let known: Vec<&str> = FORMS.iter().map(|form| form.name()).collect();
            return Err(format!("unknown form '{}'; known: {}", self.form, known.join(", ")));
        };
        let lacks = |input: &&Input| self.input(**input).0.is_none();
        if let Some(input) = form.inputs().iter().find(lacks) {
            return Err(format!("form {} needs {}: COLUMN", self.form, input.letter()));
        }
        let all = [Input::X, Input::Parameters, Input::Tokens, Input::Unique];
        let idle = |input: &&Input| self.input(**input).0.is_some() && !form.inputs().contains(input);
        if let Some(input) = all.iter().find(idle) {
            return Err(format!("form {} has no use for {}", self.form, input.letter()));
        }
        if self.compare.is_some() && !self.is_of_one_scale() {
            return Err(format!("compare needs a form of one scale, which {} is not", self.form));
        }
        if let Some(Err(error)) = self.condition.as_deref().map(Expression::parse) {
            return Err(format!("where: {error}"));
        }
        self.interval(self.objective()?).map(|_| ())
    }
}
