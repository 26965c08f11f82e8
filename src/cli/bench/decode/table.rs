//! What was measured, as a table of at most 80 columns.

use super::measured::{Measured, Row};
use crate::cli::output;
use crate::units;

/// A line for each row, below the device and its ceiling. Rows are alike: tokens were generated in all of them, after prompts
/// of one length, or in none.
pub(super) fn table(measured: &Measured) -> String {
    let head = measured.copy_tbps.map_or_else(String::new, |copy| format!("; copy {copy:.2} TB/s"));
    let head = format!("{}{head}", measured.device);
    match measured.rows.iter().find(|row| row.new > 1) {
        None => format!("{head}\n{}", reading(&measured.rows)),
        Some(row) => {
            let prompts = units::grouped(row.prompt as u64);
            format!("{head}; prompts of {prompts} tokens\n{}", generating(&measured.rows, measured.copy_tbps))
        }
    }
}

fn reading(rows: &[Row]) -> comfy_table::Table {
    let mut table = output::table(&["model", "batch", "prompt", "first token s", "peak GiB", "expected GiB"]);
    for row in rows {
        table.add_row([
            row.model.clone(),
            row.batch.to_string(),
            row.prompt.to_string(),
            format!("{:.3}", row.first_token_s),
            gib(row.peak_gib),
            gib(Some(row.expected_gib)),
        ]);
    }
    table
}

fn generating(rows: &[Row], copy_tbps: Option<f64>) -> comfy_table::Table {
    let mut table = output::table(&[
        "model",
        "batch",
        "new",
        "first\ns",
        "tokens\nper s",
        "step\nms",
        "floor\nms",
        "of\nfloor",
        "peak\nGiB",
        "expected\nGiB",
    ]);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 1));
    });
    for row in rows {
        let floor = row.floor_ms(copy_tbps);
        table.add_row([
            row.model.clone(),
            row.batch.to_string(),
            row.new.to_string(),
            format!("{:.3}", row.first_token_s),
            row.tokens_per_s.map_or_else(dash, |rate| units::grouped(rate as u64)),
            row.step_ms.map_or_else(dash, |ms| format!("{ms:.3}")),
            floor.map_or_else(dash, |ms| format!("{ms:.3}")),
            floor.zip(row.step_ms).map_or_else(dash, |(floor, ms)| format!("{:.0} %", 100.0 * floor / ms)),
            gib(row.peak_gib),
            gib(Some(row.expected_gib)),
        ]);
    }
    table
}

fn gib(size: Option<f64>) -> String {
    size.map_or_else(dash, |gib| format!("{gib:.2}"))
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::measured::row;
    use super::*;

    fn shown(copy_tbps: Option<f64>, rows: Vec<Row>) -> String {
        let table = table(&Measured { device: "NVIDIA H200".to_owned(), copy_tbps, rows });
        table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    /// What stands in a line, counted from the last one.
    fn fields(table: &str, line: usize) -> String {
        table.lines().rev().nth(line).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_floor_and_its_share_stand_beside_the_steps_in_80_columns() {
        let long = row("sambayattnall:16", 16, 2000, 32_000, 10.111, 13.625);
        let short = row("sambay:16", 1, 2000, 2, 0.007, 1.0);
        let table = shown(Some(1.0), vec![long, short]);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert_eq!(fields(&table, 1), "sambayattnall:16 16 32000 10.111 1,174 13.625 6.812 50 % - 1.00");
        assert_eq!(fields(&table, 0), "sambay:16 1 2 0.007 - - - - - 1.00");
        assert_eq!(table.lines().next(), Some("NVIDIA H200; copy 1.00 TB/s; prompts of 2,000 tokens"));
    }

    #[test]
    fn of_prompts_only_the_time_of_reading_is_shown() {
        let table = shown(None, vec![row("sambay:16", 1, 131_072, 1, 0.334, 0.0)]);
        assert!(table.starts_with("NVIDIA H200\n") && !table.contains("floor"), "{table}");
        assert_eq!(fields(&table, 0), "sambay:16 1 131072 0.334 - 1.00");
    }
}
