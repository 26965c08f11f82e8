//! A report as Markdown.

use super::content::{Block, escaped};

pub(super) fn render(blocks: &[Block]) -> String {
    let mut out = String::new();
    for block in blocks {
        match block {
            Block::Heading(level, text) => out += &format!("{} {}", "#".repeat(usize::from(*level)), escape(text)),
            Block::Paragraph(text) => out += &escape(text),
            Block::Warning(text, items) => {
                out += &format!("> **{}**\n>\n{}", escape(text), list("> - ", items));
            }
            Block::List(items) => out += &list("- ", items),
            Block::Table(header, rows, text_columns) => {
                out += &format!("| {} |\n", header.join(" | "));
                let rule = |i: usize| if i < *text_columns { "---" } else { "---:" };
                out += &format!("|{}|", (0..header.len()).map(rule).collect::<Vec<_>>().join("|"));
                for row in rows {
                    let cells: Vec<String> = row.iter().map(|cell| escape(cell)).collect();
                    out += &format!("\n| {} |", cells.join(" | "));
                }
            }
            Block::Figure(figure) => {
                let path = figure.svg_path.to_string_lossy().replace('\\', "/");
                out += &format!("![{}](<{path}>)\n\n{}", escape(&figure.caption), escape(&figure.caption));
                if let Some(png) = &figure.png_path {
                    out += &format!(" ([PNG](<{}>))", png.to_string_lossy().replace('\\', "/"));
                }
            }
            Block::Command(what, command) => {
                // Longer than any fence inside.
                let fence = "`".repeat(3.max(longest_backticks(command) + 1));
                out += &format!("{}:\n\n{fence}sh\n{command}\n{fence}", escape(what));
            }
        }
        out += "\n\n";
    }
    out.truncate(out.trim_end().len());
    out + "\n"
}

fn list(bullet: &str, items: &[String]) -> String {
    items.iter().map(|item| format!("{bullet}{}", escape(item))).collect::<Vec<_>>().join("\n")
}

fn longest_backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// Plain text that Markdown shows as it is, on one line.
fn escape(text: &str) -> String {
    escaped(text, |c| match c {
        '\\' => Some(r"\\"),
        '|' => Some(r"\|"),
        '*' => Some(r"\*"),
        '_' => Some(r"\_"),
        '`' => Some(r"\`"),
        '[' => Some(r"\["),
        ']' => Some(r"\]"),
        '\n' | '\r' => Some(" "),
        _ => None,
    })
}
