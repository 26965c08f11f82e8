//! Small dense symmetric matrices: solving, eigenvalues, and the inverse of a triangular factor.

/// A square matrix, row by row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Rows and columns.
    pub n: usize,
    /// The elements.
    pub a: Vec<f64>,
}

impl Matrix {
    /// All zeros.
    pub fn zeros(n: usize) -> Self {
        Self { n, a: vec![0.0; n * n] }
    }

    /// The element in row `i` and column `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.a[i * self.n + j]
    }

    /// Adds to two symmetric elements; to a diagonal one once.
    pub fn add(&mut self, i: usize, j: usize, value: f64) {
        self.a[i * self.n + j] += value;
        if i != j {
            self.a[j * self.n + i] += value;
        }
    }

    /// Rows and columns that are listed.
    pub fn part(&self, kept: &[usize]) -> Self {
        let a = kept.iter().flat_map(|i| kept.iter().map(|j| self.at(*i, *j))).collect();
        Self { n: kept.len(), a }
    }

    /// Turns the matrix into its Cholesky factor (lower triangle); false when it is not positive definite.
    fn factor(&mut self) -> bool {
        let n = self.n;
        for j in 0..n {
            let mut d = self.at(j, j);
            for k in 0..j {
                d -= self.at(j, k) * self.at(j, k);
            }
            // What is left of the diagonal has to stand above the rounding of what was taken away.
            if d <= 1e-15 * self.at(j, j).abs() || !d.is_finite() {
                return false;
            }
            let d = d.sqrt();
            self.a[j * n + j] = d;
            for i in j + 1..n {
                let mut s = self.at(i, j);
                for k in 0..j {
                    s -= self.at(i, k) * self.at(j, k);
                }
                self.a[i * n + j] = s / d;
            }
        }
        true
    }

    /// The solution of A·x = b for a positive definite matrix.
    pub fn solve(self, b: &[f64]) -> Option<Vec<f64>> {
        let (n, mut l) = (self.n, self);
        if !l.factor() {
            return None;
        }
        let mut x = b.to_vec();
        for i in 0..n {
            for k in 0..i {
                x[i] -= l.at(i, k) * x[k];
            }
            x[i] /= l.at(i, i);
        }
        for i in (0..n).rev() {
            for k in i + 1..n {
                x[i] -= l.at(k, i) * x[k];
            }
            x[i] /= l.at(i, i);
        }
        Some(x)
    }

    /// Eigenvalues in ascending order (cyclic Jacobi rotations).
    pub fn eigenvalues(&self) -> Vec<f64> {
        let (n, mut m) = (self.n, self.clone());
        for _ in 0..60 {
            let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| m.at(i, j).powi(2)).sum();
            let all: f64 = m.a.iter().map(|v| v * v).sum();
            if off <= 1e-34 * all {
                break;
            }
            for p in 0..n {
                for q in p + 1..n {
                    m.rotate(p, q);
                }
            }
        }
        let mut values: Vec<f64> = (0..n).map(|i| m.at(i, i)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn rotate(&mut self, p: usize, q: usize) {
        let n = self.n;
        let apq = self.at(p, q);
        if apq == 0.0 {
            return;
        }
        let tau = (self.at(q, q) - self.at(p, p)) / (2.0 * apq);
        let t = tau.signum() / (tau.abs() + tau.hypot(1.0));
        let t = if tau == 0.0 { 1.0 } else { t };
        let c = 1.0 / t.hypot(1.0);
        let s = t * c;
        for k in 0..n {
            let (kp, kq) = (self.at(k, p), self.at(k, q));
            self.a[k * n + p] = c * kp - s * kq;
            self.a[k * n + q] = s * kp + c * kq;
        }
        for k in 0..n {
            let (pk, qk) = (self.at(p, k), self.at(q, k));
            self.a[p * n + k] = c * pk - s * qk;
            self.a[q * n + k] = s * pk + c * qk;
        }
    }
}

/// (JᵀJ)⁻¹ of a matrix given by columns, through its QR decomposition (modified Gram-Schmidt, twice), which does not
/// square the condition number; `None` when columns are linearly dependent.
pub fn inverse_gram(mut columns: Vec<Vec<f64>>) -> Option<Matrix> {
    let p = columns.len();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let mut r = Matrix::zeros(p);
    for k in 0..p {
        let before = dot(&columns[k], &columns[k]).sqrt();
        let (done, rest) = columns.split_at_mut(k);
        let column = &mut rest[0];
        for _ in 0..2 {
            for (j, q) in done.iter().enumerate() {
                let share = dot(q, column);
                r.a[j * p + k] += share;
                column.iter_mut().zip(q).for_each(|(value, q)| *value -= share * q);
            }
        }
        let norm = dot(column, column).sqrt();
        if norm <= 1e-13 * before || !norm.is_finite() {
            return None;
        }
        r.a[k * p + k] = norm;
        column.iter_mut().for_each(|value| *value /= norm);
    }
    let mut inverse = Matrix::zeros(p);
    for j in 0..p {
        inverse.a[j * p + j] = 1.0 / r.at(j, j);
        for i in (0..j).rev() {
            let sum: f64 = (i + 1..=j).map(|k| r.at(i, k) * inverse.at(k, j)).sum();
            inverse.a[i * p + j] = -sum / r.at(i, i);
        }
    }
    let mut out = Matrix::zeros(p);
    for i in 0..p {
        for j in 0..=i {
            out.add(i, j, (0..p).map(|k| inverse.at(i, k) * inverse.at(j, k)).sum());
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_and_eigenvalues_of_a_known_matrix() {
        let m = Matrix { n: 3, a: vec![4.0, 1.0, 0.0, 1.0, 3.0, 1.0, 0.0, 1.0, 2.0] };
        let x = m.clone().solve(&[1.0, 2.0, 3.0]).unwrap();
        for (i, b) in [1.0, 2.0, 3.0].iter().enumerate() {
            assert!(((0..3).map(|j| m.at(i, j) * x[j]).sum::<f64>() - b).abs() < 1e-14);
        }
        // Characteristic polynomial: -λ³ + 9λ² - 24λ + 18 = -(λ - 3)(λ² - 6λ + 6).
        let root = 3f64.sqrt();
        for (got, want) in m.eigenvalues().iter().zip([3.0 - root, 3.0, 3.0 + root]) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        let indefinite = Matrix { n: 2, a: vec![1.0, 2.0, 2.0, 1.0] };
        assert_eq!(indefinite.solve(&[1.0, 1.0]), None);
    }

    #[test]
    fn gram_inverse_refuses_dependent_columns() {
        let inverse = inverse_gram(vec![vec![1.0, 0.0, 1.0], vec![0.0, 2.0, 0.0]]).unwrap();
        assert!((inverse.at(0, 0) - 0.5).abs() < 1e-15 && (inverse.at(1, 1) - 0.25).abs() < 1e-15);
        assert_eq!(inverse_gram(vec![vec![1.0, 2.0], vec![2.0, 4.0]]), None);
    }
}
