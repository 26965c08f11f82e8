//! The JSON document that every bench prints with `--json`: `{"device", "ceilings", "rows"}`.

use crate::cli::output;
use serde::Serialize;
use serde_json::json;

/// Prints it. Ceilings are what the device can do at best, `{}` where nothing was measured.
pub(super) fn print(device: &str, ceilings: impl Serialize, rows: &[impl Serialize]) -> anyhow::Result<()> {
    output::json(&json!({ "device": device, "ceilings": ceilings, "rows": rows }))
}
