//! Elementary functions and inner products of whole slices, as fast as the processor's vectors allow.
//!
//! Reductions keep eight partial sums in a fixed order, so that a result does not depend on the machine.

use multiversion::multiversion;

const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// 1.5·2^52: adding it rounds to a whole number, which then stands in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;
/// 1/k! from 13 down to 2.
const EXP: [f64; 12] = [
    1.605_904_383_682_161_3e-10,
    2.087_675_698_786_81e-9,
    2.505_210_838_544_172e-8,
    2.755_731_922_398_589_3e-7,
    2.755_731_922_398_589e-6,
    2.480_158_730_158_73e-5,
    1.984_126_984_126_984e-4,
    1.388_888_888_888_889e-3,
    8.333_333_333_333_333e-3,
    4.166_666_666_666_666_4e-2,
    1.666_666_666_666_666_6e-1,
    0.5,
];

#[inline(always)]
fn exp_one(x: f64) -> f64 {
    let x = x.clamp(-708.0, 709.0);
    let rounded = x * std::f64::consts::LOG2_E + ROUNDER;
    let k = rounded - ROUNDER;
    let r = k.mul_add(-LN2_LOW, k.mul_add(-LN2_HIGH, x));
    let mut p = EXP[0];
    for c in &EXP[1..] {
        p = p.mul_add(r, *c);
    }
    let value = p.mul_add(r * r, r) + 1.0;
    f64::from_bits(value.to_bits().wrapping_add(rounded.to_bits() << 52))
}

/// out = exp(x), each within two units of the last place; below -708 and above 709 the values at these ends.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn exp(x: &[f64], out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = exp_one(*x);
    }
}

/// out = exp(factor · x).
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn exp_scaled(factor: f64, x: &[f64], out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = exp_one(factor * x);
    }
}

/// 2/(2k + 1) from 10 down to 1: ln((1+s)/(1-s)) = 2s + 2s³/3 + ...
const LN: [f64; 10] = [
    2.0 / 21.0,
    2.0 / 19.0,
    2.0 / 17.0,
    2.0 / 15.0,
    2.0 / 13.0,
    2.0 / 11.0,
    2.0 / 9.0,
    2.0 / 7.0,
    2.0 / 5.0,
    2.0 / 3.0,
];

/// x = ln(x), for positive, normal numbers.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn ln(x: &mut [f64]) {
    for x in x {
        let bits = x.to_bits();
        let mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
        let large = mantissa > std::f64::consts::SQRT_2;
        let m = if large { 0.5 * mantissa } else { mantissa };
        // The exponent as a number: its bits below those of 2^52.
        let biased = f64::from_bits(0x4330_0000_0000_0000 | (bits >> 52)) - 4_503_599_627_370_496.0;
        let e = biased - if large { 1022.0 } else { 1023.0 };
        let s = (m - 1.0) / (m + 1.0);
        let z = s * s;
        let mut p = LN[0];
        for c in &LN[1..] {
            p = p.mul_add(z, *c);
        }
        *x = e.mul_add(LN2_HIGH, s.mul_add(2.0, (s * z).mul_add(p, e * LN2_LOW)));
    }
}

const LANES: usize = 8;
/// Numbers that are worked on at once.
type Lanes = [f64; LANES];

/// The numbers by whole lanes, and what is left over.
#[inline(always)]
fn chunks(a: &[f64]) -> (&[Lanes], &[f64]) {
    a.as_chunks()
}

#[inline(always)]
fn lanes(value: impl Fn(usize) -> f64) -> Lanes {
    std::array::from_fn(value)
}

/// The sum over the lanes, in a fixed order.
#[inline(always)]
fn total(s: Lanes) -> f64 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

/// Σ term(a, b, ...) over columns of one length. One sum at a time: of several that grow together the compiler makes
/// vectors across the sums, which is three times as slow.
#[inline(always)]
pub(in crate::analysis) fn accumulate<const N: usize>(columns: [&[f64]; N], term: impl Fn([f64; N]) -> f64) -> f64 {
    let n = columns[0].len();
    let columns = columns.map(|column| chunks(&column[..n]));
    let mut sum = [0.0; LANES];
    for i in 0..n / LANES {
        let terms = lanes(|l| term(columns.map(|(whole, _)| whole[i][l])));
        sum = lanes(|l| sum[l] + terms[l]);
    }
    let rest: f64 = (0..n % LANES).map(|i| term(columns.map(|(_, rest)| rest[i]))).sum();
    total(sum) + rest
}

/// Σ a
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn sum(a: &[f64]) -> f64 {
    accumulate([a], |[a]| a)
}

/// Σ a·b
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    accumulate([a, b], |[a, b]| a * b)
}

/// Weights of the points in sums of derivatives; see [`Weights`].
#[derive(Clone, Copy)]
pub struct PointWeights<'a> {
    /// Of first derivatives.
    pub linear: &'a [f64],
    /// Of products of two.
    pub outer: &'a [f64],
    /// Of squares, positive.
    pub scale: &'a [f64],
}

/// One row of a weighted Gram matrix: Σ `outer`·c·o into `out` for every one o of the others. Returns Σ `linear`·c and
/// Σ `scale`·c². All columns have one length, that of the memory `weighted`.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn gram_row(
    weights: PointWeights,
    column: &[f64],
    others: &[&[f64]],
    weighted: &mut [f64],
    out: &mut [f64],
) -> [f64; 2] {
    for ((weighted, w), c) in weighted.iter_mut().zip(weights.outer).zip(column) {
        *weighted = w * c;
    }
    for (other, out) in others.iter().zip(out) {
        *out = accumulate([weighted, other], |[w, o]| w * o);
    }
    let influence = accumulate([weights.linear, column], |[w, c]| w * c);
    [influence, accumulate([weights.scale, column], |[w, c]| w * c * c)]
}

/// y += a·x
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn add_scaled(a: f64, x: &[f64], y: &mut [f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

/// out = a·b, element by element.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn product(a: &[f64], b: &[f64], out: &mut [f64]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a * b;
    }
}

/// What residuals weigh; see [`weigh_linear`].
pub struct Weights<'a> {
    /// Weight of each point.
    pub points: &'a [f64],
    /// Influence, the weight of first derivatives.
    pub linear: &'a mut [f64],
    /// Weight of products of first derivatives.
    pub outer: &'a mut [f64],
    /// A positive bound of that.
    pub scale: &'a mut [f64],
}

/// Huber's loss of the residuals, each times its weight, summed.
#[inline(always)]
fn huber(residual: &[f64], weight: &[f64], delta: f64) -> f64 {
    accumulate([residual, weight], |[r, w]| {
        let psi = r.max(-delta).min(delta);
        w * psi * (r - 0.5 * psi)
    })
}

/// Huber's loss of the residuals, summed; fills the weights of the derivatives of L - f.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn weigh_linear(residual: &[f64], delta: f64, out: Weights) -> f64 {
    let n = residual.len();
    let Weights { points, linear, outer, scale } = out;
    let (points, linear, outer, scale) = (&points[..n], &mut linear[..n], &mut outer[..n], &mut scale[..n]);
    for i in 0..n {
        let (r, w) = (residual[i], points[i]);
        let inside = if r.abs() <= delta { 1.0 } else { 0.0 };
        linear[i] = w * r.max(-delta).min(delta);
        outer[i] = w * inside;
        scale[i] = if r.abs() <= delta { w } else { w * delta / r.abs() };
    }
    huber(residual, points, delta)
}

/// Huber's loss of the residuals, summed; fills the weights of the derivatives of ln L - ln f.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn weigh_log(residual: &[f64], fitted: &[f64], delta: f64, out: Weights) -> f64 {
    let n = residual.len();
    let Weights { points, linear, outer, scale } = out;
    let (points, fitted) = (&points[..n], &fitted[..n]);
    let (linear, outer, scale) = (&mut linear[..n], &mut outer[..n], &mut scale[..n]);
    // Divisions are slow: one gives both 1/f and δ/|r|, which beyond the threshold is what Huber's weight is.
    let finite = delta.is_finite();
    for i in 0..n {
        let (r, f) = (residual[i], fitted[i]);
        let (psi, inside) = (r.max(-delta).min(delta), if r.abs() <= delta { 1.0 } else { 0.0 });
        let size = if finite { r.abs().max(delta) } else { 1.0 };
        let quotient = 1.0 / (f * size);
        let inverse = quotient * size;
        let (w, majorant) = (points[i] * inverse, if finite { delta * (quotient * f) } else { 1.0 });
        linear[i] = w * psi;
        outer[i] = w * inverse * (inside + psi);
        scale[i] = w * inverse * majorant;
    }
    huber(residual, points, delta)
}

/// Whether every value is positive and finite: between the bits of zero and of infinity, as whole numbers.
#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
pub fn all_positive(a: &[f64]) -> bool {
    const INFINITE: i64 = f64::INFINITY.to_bits() as i64;
    a.iter().fold(true, |all, value| {
        let bits = value.to_bits() as i64;
        all & (bits > 0) & (bits < INFINITE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_ln_are_within_two_units_of_the_last_place() {
        let xs: Vec<f64> = (0..40_001).map(|i| -700.0 + 0.035 * f64::from(i)).collect();
        let mut out = vec![0.0; xs.len()];
        exp(&xs, &mut out);
        for (x, got) in xs.iter().zip(&out) {
            assert!((got / x.exp() - 1.0).abs() < 4.5e-16, "exp({x})");
        }
        let mut back = out.clone();
        ln(&mut back);
        for (got, value) in back.iter().zip(&out) {
            assert!((got - value.ln()).abs() <= 4.5e-16 * value.ln().abs(), "ln({value}) = {got}");
        }
        let mut near_one: Vec<f64> = (-1000..1000).map(|i| 1.0 + 1e-9 * f64::from(i)).collect();
        let want: Vec<f64> = near_one.iter().map(|x| x.ln()).collect();
        ln(&mut near_one);
        assert!(near_one.iter().zip(want).all(|(got, want)| (got - want).abs() <= 4.5e-16 * want.abs()));
    }

    #[test]
    fn sums_take_every_element() {
        let a: Vec<f64> = (1..=19).map(f64::from).collect();
        let ones = vec![1.0; 19];
        assert_eq!((sum(&a), dot(&a, &ones)), (190.0, 190.0));
        for others in 1..=5 {
            let mut row = vec![0.0; others];
            let weights = PointWeights { linear: &ones, outer: &a, scale: &a };
            // Sums of k, k² and k³ to 19.
            let sums = gram_row(weights, &a, &vec![&ones[..]; others], &mut [0.0; 19], &mut row);
            assert_eq!(sums, [190.0, 36_100.0]);
            assert_eq!(row, vec![2470.0; others]);
        }
    }

    #[test]
    fn positive_is_neither_zero_nor_infinite_nor_undefined() {
        for (value, positive) in
            [(1e-300, true), (1e300, true), (0.0, false), (-1.0, false), (f64::INFINITY, false), (f64::NAN, false)]
        {
            let mut values = vec![1.0; 11];
            values[9] = value;
            assert_eq!(all_positive(&values), positive, "{value}");
        }
    }
}
