//! A report as one HTML page: inline style and figures, no scripts, nothing loaded from elsewhere.

use super::content::{Block, escaped};

const STYLE: &str = "\
body{font:16px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;color:#1e1e1e;background:#fff;max-width:75rem;\
margin:0 auto;padding:1rem}\
h1{font-size:1.6rem;line-height:1.25}h2{font-size:1.25rem;margin-top:2rem}\
.scroll{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.9rem;white-space:nowrap}\
th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:left;vertical-align:top}\
th.n,td.n{text-align:right;font-variant-numeric:tabular-nums}th{border-bottom:2px solid #888}\
.warning{border-left:.4rem solid #d55e00;background:#fdf1e7;padding:.5rem 1rem;margin:1rem 0;overflow-wrap:anywhere}\
figure{margin:1.5rem 0}figure svg{max-width:100%;height:auto;display:block}figcaption{color:#555;font-size:.9rem}\
pre{background:#f4f4f4;padding:.6rem .8rem;overflow-x:auto;font-size:.85rem}";

pub(super) fn render(title: &str, blocks: &[Block]) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
        escape(title)
    );
    for block in blocks {
        out += &render_block(block);
        out.push('\n');
    }
    out + "</body>\n</html>\n"
}

fn items(items: &[String]) -> String {
    format!("<ul>{}</ul>", items.iter().map(|item| format!("<li>{}</li>", escape(item))).collect::<String>())
}

fn render_block(block: &Block) -> String {
    match block {
        Block::Heading(level, text) => format!("<h{level}>{}</h{level}>", escape(text)),
        Block::Paragraph(text) => format!("<p>{}</p>", escape(text)),
        Block::Warning(text, list) => {
            format!("<div class=\"warning\" role=\"alert\"><strong>{}</strong>{}</div>", escape(text), items(list))
        }
        Block::List(list) => items(list),
        Block::Table(header, rows, text_columns) => {
            let class = |i: usize| if i < *text_columns { "" } else { " class=\"n\"" };
            let head: String =
                header.iter().enumerate().map(|(i, name)| format!("<th{}>{}</th>", class(i), escape(name))).collect();
            let row = |cells: &Vec<String>| {
                let cells: String =
                    cells.iter().enumerate().map(|(i, c)| format!("<td{}>{}</td>", class(i), escape(c))).collect();
                format!("<tr>{cells}</tr>\n")
            };
            let body: String = rows.iter().map(row).collect();
            format!(
                "<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>"
            )
        }
        Block::Figure(figure) => {
            format!(
                "<figure>\n{}\n<figcaption>{}</figcaption></figure>",
                inline_svg(&figure.svg),
                escape(&figure.caption)
            )
        }
        Block::Command(what, command) => {
            format!("<p>{}:</p>\n<pre><code>{}</code></pre>", escape(what), escape(command))
        }
    }
}

/// The `<svg>` element of an SVG document, without what may stand before it.
fn inline_svg(document: &str) -> &str {
    document.find("<svg").map_or("", |at| document[at..].trim_end())
}

fn escape(text: &str) -> String {
    escaped(text, |c| match c {
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    })
}
