//! What commands write: tables, JSON, text. A closed pipe ends output quietly.

use anyhow::Context;
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

/// Writes text and a newline to stdout; on a terminal, lines that are too long break between words.
pub fn print(text: &str) -> anyhow::Result<()> {
    // Tables pad their last column.
    let lines: Vec<&str> = text.split('\n').map(str::trim_end).collect();
    write(&wrapped(&lines.join("\n"), Table::new().width()))
}

/// Writes one JSON document to stdout.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    write(&serde_json::to_string_pretty(value)?)
}

fn write(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

/// Writes a line to stderr, where everything but results goes.
pub fn note(text: &str) {
    // Nothing can be done when stderr itself is closed.
    let _ = writeln!(std::io::stderr(), "{}", wrapped(text, Table::new().use_stderr().width()));
}

/// Breaks lines of more than `width` characters at spaces, keeping their indentation. What has no space stays whole.
fn wrapped(text: &str, width: Option<u16>) -> String {
    let Some(width) = width.map(usize::from) else { return text.to_owned() };
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let indentation = &line[..line.len() - line.trim_start_matches(' ').len()];
        let mut rest = line.to_owned();
        while let Some((limit, _)) = rest.char_indices().nth(width) {
            let from = indentation.len();
            let fits = rest[from..].match_indices(' ').map(|(at, _)| from + at).take_while(|at| *at <= limit).last();
            let Some(at) = fits.or_else(|| rest[from..].find(' ').map(|at| from + at)) else { break };
            let next = format!("{indentation}{}", rest[at..].trim_start());
            rest.truncate(at);
            lines.push(std::mem::replace(&mut rest, next));
        }
        lines.push(rest);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_lines_break_between_words() {
        let text = "decode cache: 2.0 KiB per token\n  κ is κ κκκκκ of it\n\n/a/path/longer/than/the/width and more\n";
        assert_eq!(wrapped(text, None), text);
        let expected = "decode cache:\n2.0 KiB per\ntoken\n  κ is κ κκκκκ\n  of it\n\n\
                        /a/path/longer/than/the/width\nand more\n";
        assert_eq!(wrapped(text, Some(14)), expected);
        assert_eq!(wrapped("a b", Some(3)), "a b");
    }
}
