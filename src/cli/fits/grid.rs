//! Runs as a user writes them: values of inputs, lists, ranges, and every combination of them.

use crate::analysis::forms::{Form, Input};
use crate::cli::usage;
use crate::units::parse_quantity;

/// Values of some inputs: `x=1e18,1e19`, `n=1e8,2e8:d=2e9`, `n=1e8..1e10/5:tpp=20,40`.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// For each name its values.
    axes: Vec<(String, Vec<f64>)>,
}

/// A list of numbers, any of which may be a range LO..HI/K of K numbers in geometric progression.
pub(super) fn parse_list(text: &str) -> Result<Vec<f64>, String> {
    let mut out = Vec::new();
    for part in text.split(',') {
        let range = part.split_once("..").and_then(|(lo, rest)| {
            let (hi, count) = rest.split_once('/')?;
            let (lo, hi, count) = (parse_quantity(lo)?, parse_quantity(hi)?, count.trim().parse::<usize>().ok()?);
            (lo > 0.0 && hi > lo && (2..=10_000).contains(&count)).then_some((lo, hi, count))
        });
        match (range, parse_quantity(part)) {
            (Some((lo, hi, count)), _) => {
                out.extend((0..count).map(|i| lo * (hi / lo).powf(i as f64 / (count - 1) as f64)));
            }
            (None, Some(value)) if value > 0.0 => out.push(value),
            _ => return Err(format!("'{part}' is neither a positive number nor a range LO..HI/COUNT")),
        }
    }
    Ok(out)
}

/// `--grid` and `--candidates`
pub(super) fn parse_grid(text: &str) -> Result<Grid, String> {
    let axis = |part: &str| {
        let (name, values) = part.split_once('=').ok_or_else(|| format!("'{part}' is not INPUT=VALUE,..."))?;
        let name = name.trim().to_owned();
        if !["x", "n", "d", "u", "tpp"].contains(&name.as_str()) {
            return Err(format!("'{name}' is none of x, n, d, u and tpp (tokens per parameter)"));
        }
        Ok((name, parse_list(values)?))
    };
    Ok(Grid { axes: text.split(':').map(axis).collect::<Result<_, String>>()? })
}

impl Grid {
    /// Every combination of its values, as inputs of `form`.
    pub(super) fn points(&self, form: &dyn Form) -> anyhow::Result<Vec<Vec<f64>>> {
        let mut combinations: Vec<Vec<f64>> = vec![Vec::new()];
        for (_, values) in &self.axes {
            let longer = |before: Vec<f64>| values.iter().map(move |value| [&before[..], &[*value]].concat());
            combinations = combinations.into_iter().flat_map(longer).collect();
        }
        let at = |name: &str| self.axes.iter().position(|(axis, _)| axis == name);
        let input = |input: &Input, values: &[f64]| {
            let name = input.letter();
            match (at(name), at("n"), at("tpp")) {
                (Some(own), _, _) => Some(values[own]),
                (None, Some(n), Some(tpp)) if *input == Input::Tokens => Some(values[n] * values[tpp]),
                _ => None,
            }
        };
        let missing = || {
            let names: Vec<&str> = form.inputs().iter().map(|i| i.letter()).collect();
            usage(format!("a grid of {} gives {}, such as {}", form.name(), names.join(" and "), example(form)))
        };
        let point = |values: Vec<f64>| {
            form.inputs().iter().map(|i| input(i, &values).ok_or_else(missing)).collect::<anyhow::Result<Vec<f64>>>()
        };
        combinations.into_iter().map(point).collect()
    }
}

pub(super) fn example(form: &dyn Form) -> &'static str {
    if form.inputs().contains(&Input::X) { "x=1e18,1e19,1e20" } else { "n=1e8,3e8:tpp=10,20,40" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analysis::forms;

    #[test]
    fn grids_give_every_combination() {
        let of = |text: &str, form: &dyn Form| parse_grid(text).unwrap().points(form);
        assert_eq!(of("x=1e18,1e19", forms::power_floor()).unwrap(), [[1e18], [1e19]]);
        let two = of("n=1e8,2e8:d=2B,4B", forms::chinchilla()).unwrap();
        assert_eq!(two, [[1e8, 2e9], [1e8, 4e9], [2e8, 2e9], [2e8, 4e9]]);
        assert_eq!(of("n=1e8:tpp=20", forms::chinchilla()).unwrap(), [[1e8, 2e9]]);
        let range = of("x=1e18..1e20/3", forms::power_floor()).unwrap();
        assert!(range.len() == 3 && (range[1][0] / 1e19 - 1.0).abs() < 1e-12);
        assert!(of("n=1e8", forms::chinchilla()).is_err());
        for bad in ["x", "y=1", "x=-1", "x=1e18..1e20", "x="] {
            assert!(parse_grid(bad).is_err(), "{bad}");
        }
    }
}
