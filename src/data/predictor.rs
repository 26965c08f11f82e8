//! The probability of every next token given the source's state: what an ideal model would say.

use super::source::{DEFINE, EOS, Law, REFER, Slot, State};

/// Kinds of validation token, by what the tokens before it call for.
pub(super) const KINDS: [&str; 5] = ["text", "definition_key", "definition_value", "reference_key", "reference_value"];

/// One token under the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assessment {
    /// Index into [`KINDS`].
    pub(super) kind: usize,
    /// -ln p(token | past), nats.
    pub(super) nats: f64,
    /// Entropy of p(. | past), nats.
    pub(super) entropy: f64,
}

/// Computes exact probabilities; keeps what can be computed once and a work array.
#[derive(Debug)]
pub(super) struct Predictor<'a> {
    law: &'a Law,
    /// Order-0 weight of all symbols when a context is available, and the sum of p ln p it would give.
    base_weight: f64,
    base_plogp: f64,
    /// The same when none is.
    unigram_plogp: f64,
    added: Vec<f64>,
    touched: Vec<usize>,
}

fn plogp(p: f64) -> f64 {
    if p > 0.0 { p * p.ln() } else { 0.0 }
}

impl<'a> Predictor<'a> {
    pub(super) fn new(law: &'a Law) -> Self {
        let base_weight = law.order_weights[0];
        Self {
            law,
            base_weight,
            base_plogp: law.base.iter().map(|u| plogp(base_weight * u)).sum(),
            unigram_plogp: law.base.iter().copied().map(plogp).sum(),
            added: vec![0.0; law.base.len()],
            touched: Vec::new(),
        }
    }

    /// Probability of `token`, which the source can emit in `state`, and the entropy of its distribution.
    pub(super) fn assess(&mut self, state: &State, token: u32) -> Assessment {
        let law = self.law;
        let (kind, probability, entropy) = match state.slot {
            Slot::Text => {
                let (probability, entropy) = self.text(state, token);
                (0, probability, entropy)
            }
            Slot::DefinitionKey => (1, 1.0 / law.keys.len() as f64, (law.keys.len() as f64).ln()),
            Slot::DefinitionValue { .. } => (2, 1.0 / law.values.len() as f64, (law.values.len() as f64).ln()),
            Slot::ReferenceKey => {
                let weight = |key: u32| law.distance_weight(state.distance(key));
                let total: f64 = state.defined.iter().map(|&key| weight(key)).sum();
                let entropy = -state.defined.iter().map(|&key| plogp(weight(key) / total)).sum::<f64>();
                (3, weight(token - law.keys.start) / total, entropy)
            }
            Slot::ReferenceValue { .. } => (4, 1.0, 0.0),
        };
        Assessment { kind, nats: -probability.ln(), entropy: entropy.max(0.0) }
    }

    fn text(&mut self, state: &State, token: u32) -> (f64, f64) {
        let law = self.law;
        let refer = law.refer_now(state);
        let prose = 1.0 - law.end - law.define - refer;
        let symbol = token.checked_sub(law.prose.start).map(|s| s as usize);
        let (symbol_probability, prose_plogp) = self.prose(state, symbol);
        let probability = match token {
            EOS => law.end,
            DEFINE => law.define,
            REFER => refer,
            _ => prose * symbol_probability,
        };
        // Entropy of choosing between markers and prose, plus that of the symbol where it is prose.
        let choice = plogp(law.end) + plogp(law.define) + plogp(refer) + plogp(prose);
        (probability, -choice - prose * prose_plogp)
    }

    /// Probability of a prose symbol among prose, and the sum of p ln p over all of them.
    fn prose(&mut self, state: &State, symbol: Option<usize>) -> (f64, f64) {
        let law = self.law;
        if state.available == 0 {
            return (symbol.map_or(0.0, |s| law.base[s]), self.unigram_plogp);
        }
        let longest = state.available.min(law.order_weights.len() - 1);
        for order in 1..=longest {
            // Orders that would look further back than the prose goes fall back on all of it.
            let weight: f64 = match order == longest {
                true => law.order_weights[order..].iter().sum(),
                false => law.order_weights[order],
            };
            let context = law.context(state, order);
            for (index, share) in law.candidate_weights.iter().enumerate() {
                let symbol = law.candidate(context, index);
                if self.added[symbol] == 0.0 {
                    self.touched.push(symbol);
                }
                self.added[symbol] += weight * share;
            }
        }
        let probability = symbol.map_or(0.0, |s| self.base_weight * law.base[s] + self.added[s]);
        let mut sum = self.base_plogp;
        // A weight of zero may list a symbol twice; the second time nothing is added to it.
        for symbol in self.touched.drain(..) {
            let base = self.base_weight * law.base[symbol];
            sum += plogp(base + self.added[symbol]) - plogp(base);
            self.added[symbol] = 0.0;
        }
        (probability, sum)
    }
}
