//! Numbers that carry their first and second derivatives, for terms whose derivatives nobody wants to write.

use std::ops::{Add, Mul, Sub};

/// A value with its derivatives with respect to `Q` variables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jet<const Q: usize> {
    pub value: f64,
    pub first: [f64; Q],
    pub second: [[f64; Q]; Q],
}

impl<const Q: usize> Jet<Q> {
    pub(super) fn constant(value: f64) -> Self {
        Self { value, first: [0.0; Q], second: [[0.0; Q]; Q] }
    }

    /// The variable `q`.
    pub(super) fn variable(q: usize, value: f64) -> Self {
        let mut out = Self::constant(value);
        out.first[q] = 1.0;
        out
    }

    /// f(self), given f and its two derivatives at the value.
    fn chain(self, f: f64, df: f64, ddf: f64) -> Self {
        let mut out = Self::constant(f);
        for q in 0..Q {
            out.first[q] = df * self.first[q];
            for r in 0..Q {
                out.second[q][r] = df * self.second[q][r] + ddf * self.first[q] * self.first[r];
            }
        }
        out
    }

    pub(super) fn exp(self) -> Self {
        let e = self.value.exp();
        self.chain(e, e, e)
    }

    pub(super) fn ln(self) -> Self {
        self.chain(self.value.ln(), 1.0 / self.value, -1.0 / (self.value * self.value))
    }

    /// ln(1 + e^self)
    pub(super) fn softplus(self) -> Self {
        let x = self.value;
        let s = 1.0 / (1.0 + (-x).exp());
        self.chain(x.max(0.0) + (-x.abs()).exp().ln_1p(), s, s * (1.0 - s))
    }

    pub(super) fn recip(self) -> Self {
        let r = 1.0 / self.value;
        self.chain(r, -r * r, 2.0 * r * r * r)
    }

    pub(super) fn scale(self, factor: f64) -> Self {
        self.chain(factor * self.value, factor, 0.0)
    }
}

impl<const Q: usize> Add for Jet<Q> {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        self.value += other.value;
        for q in 0..Q {
            self.first[q] += other.first[q];
            for r in 0..Q {
                self.second[q][r] += other.second[q][r];
            }
        }
        self
    }
}

impl<const Q: usize> Sub for Jet<Q> {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + other.scale(-1.0)
    }
}

impl<const Q: usize> Mul for Jet<Q> {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let mut out = Self::constant(self.value * other.value);
        for q in 0..Q {
            out.first[q] = self.first[q] * other.value + self.value * other.first[q];
            for r in 0..Q {
                out.second[q][r] = self.second[q][r] * other.value
                    + self.first[q] * other.first[r]
                    + self.first[r] * other.first[q]
                    + self.value * other.second[q][r];
            }
        }
        out
    }
}

/// Writes one point of a term from its jet, whose variables are what the term depends on.
pub(super) fn store<const Q: usize>(jet: Jet<Q>, i: usize, derivatives: bool, out: &mut super::TermValues) {
    out.value[i] = jet.value;
    if derivatives {
        for q in 0..Q {
            out.first[q][i] = jet.first[q];
            for r in 0..=q {
                out.second[q * (q + 1) / 2 + r][i] = jet.second[q][r];
            }
        }
    }
}
