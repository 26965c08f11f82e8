//! Published fits by name: the form, the criterion and the rule for outliers that a paper's numbers came from.

use super::forms::{self, Form};
use super::{Given, IntervalMethod, Objective};

/// How a published fit was made.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The spelling on the command line.
    pub name: &'static str,
    /// What it reproduces.
    pub source: &'static str,
    /// The law.
    form: fn() -> &'static dyn Form,
    /// The criterion.
    pub objective: Objective,
    /// The kind of interval.
    pub interval: IntervalMethod,
    /// Rows with the highest losses that were left out.
    pub drop_highest: usize,
    /// Parameters that were not fitted.
    given: &'static [(&'static str, f64)],
}

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset {
        name: "arch-scale",
        source: "the legends of Ren et al. 2025, arXiv:2507.06607, figures 2 and 7",
        form: forms::power_floor,
        objective: Objective::LeastSquares,
        interval: IntervalMethod::Profile,
        drop_highest: 0,
        given: &[],
    },
    Preset {
        name: "epoch2024",
        source: "the point estimate of Besiroglu et al. 2024, arXiv:2404.10102, which minimises absolute deviations",
        form: forms::chinchilla,
        objective: Objective::AbsoluteDeviation,
        interval: IntervalMethod::Bootstrap(4000),
        drop_highest: 5,
        given: &[],
    },
    Preset {
        name: "hoffmann",
        source: "approach 3 of Hoffmann et al. 2022, arXiv:2203.15556, brought to its optimum",
        form: forms::chinchilla,
        objective: Objective::Huber(1e-3),
        interval: IntervalMethod::Bootstrap(4000),
        drop_highest: 0,
        given: &[],
    },
    Preset {
        name: "gadre",
        source: "Gadre et al. 2024, arXiv:2403.08540",
        form: forms::over_training,
        objective: Objective::LeastSquares,
        interval: IntervalMethod::Profile,
        drop_highest: 0,
        given: &[],
    },
    Preset {
        name: "muennighoff",
        source: "Muennighoff et al. 2023, arXiv:2305.16264, repetition alone, on their single-epoch law",
        form: forms::data_constrained,
        objective: Objective::Huber(1e-3),
        interval: IntervalMethod::Bootstrap(1000),
        drop_highest: 0,
        // The published law to all its digits: ln A = 6.255414, ln B = 7.3049974, ln E = 0.6254804.
        given: &[
            ("A", 520.824_951_659_918_7),
            ("B", 1_487.716_093_782_861),
            ("E", 1.869_143_678_405_485_8),
            ("alpha", 0.352_659_6),
            ("beta", 0.352_659_6),
        ],
    },
    Preset {
        name: "porian",
        source: "Porian et al. 2024, arXiv:2406.19146: optimal sizes or tokens by compute, weights 1/std²",
        form: forms::growth,
        objective: Objective::LogLeastSquares,
        interval: IntervalMethod::Wald,
        drop_highest: 0,
        given: &[],
    },
];

impl Preset {
    /// The form.
    pub fn form(&self) -> &'static dyn Form {
        (self.form)()
    }

    /// Parameters that were not fitted.
    pub fn given(&self) -> Vec<Given> {
        self.given.iter().map(|(name, value)| Given { name: (*name).to_owned(), value: *value }).collect()
    }
}

/// The preset of that name.
pub fn lookup(name: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_hold_parameters_of_their_form() {
        for preset in PRESETS {
            let form = preset.form();
            assert!(preset.given().iter().all(|given| form.parameters().contains(&&*given.name)), "{}", preset.name);
        }
    }
}
