//! From a sweep file to its points: pure, in the order of the file, nothing resolved yet.

use super::file::{Entries, SweepFile};
use super::{IncludeBlock, SweepError};
use crate::config::load;
use crate::expression::{Expression, Scope};
use crate::units::parse_quantity;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// More points than this are a typing mistake.
const MOST_POINTS: usize = 100_000;

/// One point: the config tree of a run and what sets it apart.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Keys beyond `base` in the order of the file, `exec` left out.
    pub values: Vec<(String, Value)>,
    /// The name of its set of overrides, where the sweep has `variants`.
    pub variant: Option<String>,
    /// The tag of its block.
    pub tag: Option<String>,
    /// Everything, as a training config would say it.
    pub tree: Value,
    /// Every leaf of `tree` by dotted key, with `variant` and `tag`.
    pub flat: BTreeMap<String, Value>,
}

impl Point {
    /// The values that make this point, for messages.
    pub fn name(&self) -> String {
        let variant = self.variant.iter().map(|name| format!("variant={name}"));
        let values = self.values.iter().map(|(key, value)| format!("{key}={}", shown(value)));
        let parts: Vec<String> = variant.chain(values).collect();
        if parts.is_empty() { "the only run".to_owned() } else { parts.join(" ") }
    }
}

/// Values that are set together: one step along one axis.
type Step = Vec<(String, Value)>;

/// Every point of `sweep`, duplicates included.
pub fn expand(sweep: &SweepFile) -> Result<Vec<Point>, SweepError> {
    let top = IncludeBlock {
        grid: sweep.grid.clone(),
        zip: sweep.zip.clone(),
        variants: sweep.variants.clone(),
        ..IncludeBlock::default()
    };
    let mut combinations = Vec::new();
    // A sweep of include blocks alone has no product; one of nothing at all is its base, once.
    if sweep.include.is_empty() || !(top.grid.0.is_empty() && top.zip.0.is_empty() && top.variants.0.is_empty()) {
        combinations.extend(product(sweep, &top, "")?.into_iter().map(|values| (values, None)));
    }
    for (index, block) in sweep.include.iter().enumerate() {
        let place = format!("include[{index}].");
        combinations.extend(product(sweep, block, &place)?.into_iter().map(|values| (values, block.tag.clone())));
        if combinations.len() > MOST_POINTS {
            return Err(too_many(sweep));
        }
    }
    let mut points = Vec::with_capacity(combinations.len());
    for (values, tag) in combinations {
        points.push(point(sweep, values, tag)?);
    }
    let keys: BTreeSet<String> =
        points.iter().flat_map(|p| p.flat.keys().cloned()).chain(["tag".to_owned(), "variant".to_owned()]).collect();
    let points = exclude(sweep, points, &keys)?;
    points.into_iter().map(|point| with_exec(sweep, point, &keys)).collect()
}

fn too_many(sweep: &SweepFile) -> SweepError {
    sweep.layout("grid", format!("the axes multiply to more than {MOST_POINTS} runs"))
}

/// Base, values and overrides as one tree.
fn point(sweep: &SweepFile, values: Step, tag: Option<String>) -> Result<Point, SweepError> {
    let mut tree = if sweep.base.is_null() { Value::Object(serde_json::Map::new()) } else { sweep.base.clone() };
    let mut variant = None;
    let mut kept: Step = Vec::new();
    for (key, value) in values {
        match (key.as_str(), &value) {
            ("variant", Value::String(name)) => variant = Some(name.clone()),
            _ => {
                load::set(&mut tree, &key, value.clone())?;
                kept.retain(|(old, _)| *old != key);
                kept.push((key, value));
            }
        }
    }
    for (key, value) in sweep.overrides.iter().filter(|(key, _)| !key.starts_with("exec.")) {
        load::set(&mut tree, key, value.clone())?;
        kept.retain(|(old, _)| old != key);
    }
    if let Some(tag) = &tag {
        load::set(&mut tree, "tag", Value::String(tag.clone()))?;
    }
    let mut flat = BTreeMap::new();
    flatten(&tree, "", &mut flat);
    if let Some(name) = &variant {
        flat.insert("variant".to_owned(), Value::String(name.clone()));
    }
    Ok(Point { values: kept, variant, tag, tree, flat })
}

/// All combinations of a block's axes. The last axis moves fastest.
fn product(sweep: &SweepFile, block: &IncludeBlock, place: &str) -> Result<Vec<Step>, SweepError> {
    let mut axes: Vec<Vec<Step>> = Vec::new();
    for (key, written) in &block.grid.0 {
        let values = axis(sweep, &format!("{place}grid.{key}"), written)?;
        axes.push(values.into_iter().map(|value| vec![(key.clone(), value)]).collect());
    }
    if !block.zip.0.is_empty() {
        axes.push(zip(sweep, &block.zip, place)?);
    }
    if !block.variants.0.is_empty() {
        axes.push(variants(sweep, &block.variants, place)?);
    }
    let mut set = BTreeMap::new();
    match &block.set {
        Value::Null | Value::Object(_) => flatten(&block.set, "", &mut set),
        _ => return Err(sweep.layout(&format!("{place}set"), "expected a map of keys and values")),
    }
    if axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.len())).is_none_or(|n| n > MOST_POINTS) {
        return Err(too_many(sweep));
    }
    let mut points: Vec<Step> = vec![set.into_iter().collect()];
    for axis in &axes {
        points = points.iter().flat_map(|point| axis.iter().map(|step| [&point[..], &step[..]].concat())).collect();
    }
    Ok(points)
}

fn variants(sweep: &SweepFile, variants: &Entries<Value>, place: &str) -> Result<Vec<Step>, SweepError> {
    let mut steps = Vec::new();
    for (name, overrides) in &variants.0 {
        let mut flat = BTreeMap::new();
        match overrides {
            Value::Null | Value::Object(_) => flatten(overrides, "", &mut flat),
            _ => {
                let place = format!("{place}variants.{name}");
                return Err(sweep.layout(&place, "expected a map of keys and values, {} for none"));
            }
        }
        let mut step: Step = vec![("variant".to_owned(), Value::String(name.clone()))];
        step.extend(flat);
        steps.push(step);
    }
    Ok(steps)
}

fn zip(sweep: &SweepFile, lists: &Entries<Value>, place: &str) -> Result<Vec<Step>, SweepError> {
    let mut columns = Vec::new();
    for (key, written) in &lists.0 {
        columns.push((key, axis(sweep, &format!("{place}zip.{key}"), written)?));
    }
    let lengths: BTreeSet<usize> = columns.iter().map(|(_, values)| values.len()).collect();
    if lengths.len() > 1 {
        let each: Vec<String> = columns.iter().map(|(key, values)| format!("{key} has {}", values.len())).collect();
        let problem = format!("lists that move together must be equally long: {}", each.join(", "));
        return Err(sweep.layout(&format!("{place}zip"), problem));
    }
    let rows = lengths.first().copied().unwrap_or(0);
    Ok((0..rows)
        .map(|row| columns.iter().map(|(key, values)| ((*key).clone(), values[row].clone())).collect())
        .collect())
}

/// The values of one axis: a list, one value, `{log: [a, b], num: n}` or `{range: [a, b, step]}`.
fn axis(sweep: &SweepFile, place: &str, written: &Value) -> Result<Vec<Value>, SweepError> {
    let refuse = |problem: &str| Err(sweep.layout(place, problem));
    let numbers = |list: &Value| -> Option<Vec<f64>> { list.as_array()?.iter().map(quantity).collect() };
    let map = match written {
        Value::Array(items) if items.is_empty() => return refuse("an empty list leaves no run; hint: remove the axis"),
        Value::Array(items) => return Ok(items.clone()),
        Value::Object(map) => map,
        single => return Ok(vec![single.clone()]),
    };
    let keys: Vec<&str> = map.keys().map(String::as_str).collect();
    match keys.as_slice() {
        ["log", "num"] => {
            let Some([a, b]) = numbers(&map["log"]).and_then(|ends| <[f64; 2]>::try_from(ends).ok()) else {
                return refuse("log takes two numbers, such as {log: [1e-4, 1e-2], num: 5}");
            };
            let count = map["num"].as_u64().unwrap_or(0) as usize;
            if a <= 0.0 || b <= 0.0 || !(2..=MOST_POINTS).contains(&count) {
                return refuse("log takes two positive ends, and num of at least 2");
            }
            let step = (b / a).ln() / (count - 1) as f64;
            Ok((0..count).map(|i| generated(a * (step * i as f64).exp())).collect())
        }
        ["range"] => {
            let (a, b, step) = match numbers(&map["range"]).as_deref() {
                Some([a, b]) => (*a, *b, 1.0),
                Some([a, b, step]) => (*a, *b, *step),
                _ => return refuse("range takes two or three numbers: {range: [first, last, step]}"),
            };
            let steps = ((b - a) / step + 1e-9).floor();
            if !(steps >= 0.0 && steps < MOST_POINTS as f64) {
                return refuse("the range's step does not lead from its first value to its last");
            }
            Ok((0..=steps as usize).map(|i| generated(a + step * i as f64)).collect())
        }
        _ => refuse("an axis is a list, one value, {log: [a, b], num: n} or {range: [a, b, step]}"),
    }
}

fn quantity(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => parse_quantity(text),
        _ => None,
    }
}

/// A computed value with the digits that count in a run's identity; whole where it is whole.
fn generated(value: f64) -> Value {
    let nearest = value.round();
    let near = (value - nearest).abs() <= 1e-9 * value.abs().max(1.0);
    let value = if near { nearest } else { format!("{value:.5e}").parse().unwrap_or(value) };
    if value.fract() == 0.0 && value.abs() < 2f64.powi(53) { (value as i64).into() } else { value.into() }
}

/// Leaves of a tree by dotted key; keys may themselves be written with dots.
fn flatten(tree: &Value, prefix: &str, out: &mut BTreeMap<String, Value>) {
    match tree {
        Value::Object(map) => {
            for (key, value) in map {
                flatten(value, &if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") }, out);
            }
        }
        Value::Null if prefix.is_empty() => {}
        leaf => {
            out.insert(prefix.to_owned(), leaf.clone());
        }
    }
}

struct PointScope<'a> {
    flat: &'a BTreeMap<String, Value>,
    keys: &'a BTreeSet<String>,
}

impl Scope for PointScope<'_> {
    fn value(&self, key: &str) -> Option<&Value> {
        self.flat.get(key)
    }
    fn knows(&self, key: &str) -> bool {
        self.keys.contains(key)
    }
    fn keys(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).collect()
    }
}

/// Whether a condition of this sweep holds for the values of a point; `keys` are those that some point has.
pub(super) fn condition(
    sweep: &SweepFile,
    place: &str,
    text: &str,
    flat: &BTreeMap<String, Value>,
    keys: &BTreeSet<String>,
) -> Result<bool, SweepError> {
    let scope = PointScope { flat, keys };
    Expression::parse(text).and_then(|condition| condition.holds(&scope)).map_err(|error| SweepError::Expression {
        origin: sweep.origin.clone(),
        place: place.to_owned(),
        text: text.to_owned(),
        error,
    })
}

fn exclude(sweep: &SweepFile, points: Vec<Point>, keys: &BTreeSet<String>) -> Result<Vec<Point>, SweepError> {
    let mut kept = Vec::with_capacity(points.len());
    for point in points {
        let mut out = false;
        for (index, text) in sweep.exclude.iter().enumerate() {
            out |= condition(sweep, &format!("exclude[{index}]"), text, &point.flat, keys)?;
        }
        if !out {
            kept.push(point);
        }
    }
    if kept.is_empty() {
        return Err(sweep.layout("exclude", "every run is excluded"));
    }
    Ok(kept)
}

/// Adds `exec` and the rules that match, then what the command line says about it.
fn with_exec(sweep: &SweepFile, mut point: Point, keys: &BTreeSet<String>) -> Result<Point, SweepError> {
    let mut blocks = vec![&sweep.exec];
    for (index, rule) in sweep.exec.rules.iter().enumerate() {
        let when = rule.when.as_deref().unwrap_or_default();
        if condition(sweep, &format!("exec.rules[{index}].when"), when, &point.flat, keys)? {
            blocks.push(rule);
        }
    }
    for block in blocks {
        let mut flat = BTreeMap::new();
        flatten(&load::to_tree(block), "exec", &mut flat);
        for (key, value) in flat.iter().filter(|(_, value)| value.as_object().is_none_or(|map| !map.is_empty())) {
            load::set(&mut point.tree, key, value.clone())?;
        }
    }
    if let Some(stop) = &sweep.run.stop_run {
        load::set(&mut point.tree, "exec.stop", load::to_tree(stop))?;
    }
    for (key, value) in sweep.overrides.iter().filter(|(key, _)| key.starts_with("exec.")) {
        load::set(&mut point.tree, key, value.clone())?;
    }
    Ok(point)
}

/// A value as a label shows it: `1e-4`, `2^19`, `sambay`.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(real) if number.is_f64() && real != 0.0 && !(1e-3..1e6).contains(&real.abs()) => format!("{real:e}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// Fills `{key}` in a label's template.
pub fn label(sweep: &SweepFile, template: &str, point: &Point) -> Result<String, SweepError> {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((key, tail)) = after.split_once('}') else {
            return Err(sweep.layout("label", format!("'{{' is never closed in \"{template}\"")));
        };
        let Some(value) = point.flat.get(key) else {
            let near = point
                .flat
                .keys()
                .map(|known| (strsim::jaro_winkler(known, key), known))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(score, _)| *score > 0.8)
                .map_or(String::new(), |(_, known)| format!("; hint: did you mean '{known}'?"));
            return Err(sweep.layout("label", format!("{} has no '{key}'{near}", point.name())));
        };
        out.push_str(before);
        out.push_str(&shown(value));
        rest = tail;
    }
    Ok(out + rest)
}
