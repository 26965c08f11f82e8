//! `lossfloor plan`, `sweep run`, `sweep status`.
