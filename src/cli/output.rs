//! What commands write: tables, JSON, text. A closed pipe ends output quietly.

use comfy_table::{ContentArrangement, Table, presets};
use std::io::{ErrorKind, IsTerminal, Write};

/// Columns for a table on a terminal that is not.
const PIPE_WIDTH: u16 = 100;

/// An empty table with a header; no rules but one under the header, fitted to the terminal.
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.set_width(PIPE_WIDTH);
    }
    table.set_header(header.iter().copied());
    table
}

/// Writes text and a newline to stdout.
pub fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes one JSON document to stdout.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string_pretty(value)?)
}

/// Writes a line to stderr, where everything but results goes.
pub fn note(text: &str) {
    // Nothing can be done when stderr itself is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}
