//! Tables damaged in every way that users find: never a panic, always rows or one line that says what is wrong.

use lossfloor::analysis::{Columns, FitOptions, IntervalMethod, Sample, Table, fit, forms};
use lossfloor::expression::Expression;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::time::{Duration, Instant};

/// What stands in cells that are no good losses or scales.
const ODD: &[&str] = &[
    "",
    " ",
    "NaN",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e308",
    "1e-320",
    "-",
    "-1",
    "0",
    "0x10",
    "2^21",
    "2^-2000",
    "1K",
    "1T",
    "K",
    "^",
    "1e5000000T",
    "1,5",
    "1_000",
    "\u{feff}1",
    "\u{2212}1",
    "\u{661}\u{662}",
    "\u{1f4a9}",
    "a\"b",
    "\"",
    "'",
    "\"\"",
    "\n",
    "\r",
    "\r\n",
    "\t",
    "\0",
    "a,b",
    "{}",
    "[1]",
    "null",
    "true",
    "completed",
    "diverged",
    "#",
    "99999999999999999999999999999999999999999999",
    "0.000000000000000000000000000000000000000000000001",
];
/// Names of columns; some come twice.
const HEADERS: &[&str] =
    &["flops", "loss", "name", "n", "d", "status", "State", "", "flops", "los\ns", "device", "\u{e9}"];

/// A table before it is written.
#[derive(Clone, Debug)]
struct Draft {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    json: bool,
    /// Whether cells of a CSV are quoted as they should be.
    quoted: bool,
    mark: bool,
    ending: &'static str,
}

impl Draft {
    fn csv(&self) -> String {
        let cell =
            |text: &String| if self.quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.clone() };
        let line = |cells: &[String]| cells.iter().map(cell).collect::<Vec<_>>().join(",");
        let header: Vec<String> = self.headers.iter().map(|name| (*name).to_owned()).collect();
        std::iter::once(&header).chain(&self.rows).map(|row| line(row) + self.ending).collect()
    }

    fn jsonl(&self) -> String {
        let value = |text: &String| match text.parse::<f64>() {
            // As a number, or as other JSON where it is that.
            Ok(number) if number.is_finite() => text.clone(),
            _ if serde_json::from_str::<serde_json::Value>(text).is_ok() => text.clone(),
            _ => serde_json::json!(text).to_string(),
        };
        let line = |row: &Vec<String>| {
            let pairs = self.headers.iter().zip(row).map(|(key, cell)| {
                format!("{}:{}", serde_json::json!(key), if self.quoted { value(cell) } else { cell.clone() })
            });
            format!("{{{}}}{}", pairs.collect::<Vec<_>>().join(","), self.ending)
        };
        self.rows.iter().map(line).collect()
    }

    /// The file's name and bytes.
    fn file(&self) -> (&'static str, Vec<u8>) {
        let (name, text) = if self.json { ("t.jsonl", self.jsonl()) } else { ("t.csv", self.csv()) };
        (name, format!("{}{text}", if self.mark { "\u{feff}" } else { "" }).into_bytes())
    }
}

/// A falling loss with a little noise, so that most undamaged tables have a fit.
fn good_cell(header: &str, row: usize, noise: u32) -> String {
    let x = 10f64.powf(15.0 + 0.5 * row as f64);
    match header {
        "flops" => format!("{x:e}"),
        "loss" => format!("{}", 2.0 + 100.0 * x.powf(-0.12) + f64::from(noise) * 1e-4),
        "n" | "d" => format!("{}", x.sqrt()),
        "name" => ["a", "b"][row % 2].to_owned(),
        "status" => "completed".to_owned(),
        "State" => "finished".to_owned(),
        _ => noise.to_string(),
    }
}

fn odd_cell() -> impl Strategy<Value = String> {
    prop_oneof![3 => select(ODD).prop_map(str::to_owned), 1 => any::<f64>().prop_map(|x| x.to_string()), 1 => "\\PC{0,8}"]
}

fn draft() -> impl Strategy<Value = Draft> {
    let headers = prop_oneof![
        3 => Just(vec!["flops", "loss", "name"]),
        1 => Just(vec!["name", "status", "loss", "flops", "n", "d"]),
        1 => proptest::collection::vec(select(HEADERS), 0..8),
    ];
    let damage = proptest::collection::vec((any::<usize>(), any::<usize>(), odd_cell()), 0..5);
    let ragged = proptest::option::weighted(0.2, (any::<usize>(), 0usize..9));
    let sizes = (0usize..13, proptest::collection::vec(0u32..20, 13));
    let style =
        (any::<bool>(), prop::bool::weighted(0.7), prop::bool::weighted(0.2), select(&["\n", "\r\n", "\r"][..]));
    (headers, sizes, damage, ragged, style).prop_map(|(headers, (count, noise), damage, ragged, style)| {
        let row = |i: usize| headers.iter().map(|header| good_cell(header, i, noise[i])).collect::<Vec<String>>();
        let mut rows: Vec<Vec<String>> = (0..count).map(row).collect();
        for (at, column, cell) in damage {
            let at = at % rows.len().max(1);
            let Some(row) = rows.get_mut(at).filter(|row| !row.is_empty()) else { continue };
            let column = column % row.len();
            row[column] = cell;
        }
        if let Some((at, length)) = ragged.filter(|_| count > 0) {
            rows[at % count].resize(length, "1".to_owned());
        }
        let (json, quoted, mark, ending) = style;
        Draft { headers, rows, json, quoted, mark, ending }
    })
}

/// A file's name and bytes: noise, a table, or a table of which some bytes are lost or others.
fn file() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let noise = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200));
    let torn = (draft(), proptest::collection::vec((any::<usize>(), any::<u8>()), 1..4), any::<usize>());
    prop_oneof![
        1 => noise.prop_map(|(json, bytes)| (if json { "t.jsonl" } else { "t.csv" }, bytes)),
        6 => draft().prop_map(|draft| draft.file()),
        2 => torn.prop_map(|(draft, changes, end)| {
            let (name, mut bytes) = draft.file();
            for (at, byte) in changes {
                let at = at % bytes.len().max(1);
                bytes.get_mut(at).into_iter().for_each(|old| *old = byte);
            }
            bytes.truncate(end % (4 * bytes.len() + 1));
            (name, bytes)
        }),
    ]
}

/// How far a file came: no table, groups without a fit, groups with one.
#[derive(Default, Debug)]
struct Seen {
    refused: usize,
    without: usize,
    fitted: usize,
}

fn one_line(text: &str) -> Result<(), TestCaseError> {
    prop_assert!(!text.is_empty() && !text.contains(|c: char| c.is_control()), "{:?}", text);
    Ok(())
}

fn check(name: &str, bytes: &[u8], seen: &mut Seen) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).expect("written");
    let column = |name: &str| Some(name.to_owned());
    let one = Columns { inputs: vec!["flops".to_owned()], y: "loss".to_owned(), ..Columns::default() };
    let condition = Expression::parse("not (name == b) and flops > 1e14").expect("parses");
    let wanted = [
        Columns { group: column("name"), ..one.clone() },
        Columns { seed: column("name"), weight: column("flops"), condition: Some(condition), ..one.clone() },
        Columns { inputs: vec!["n".to_owned(), "d".to_owned()], y_se: column("loss"), ..one },
    ];
    for columns in &wanted {
        let table = match Table::read(&path, columns) {
            Ok(table) => table,
            Err(error) => {
                seen.refused += 1;
                one_line(&error.to_string())?;
                continue;
            }
        };
        prop_assert!(!table.rows.is_empty());
        prop_assert!(table.rows.iter().all(|row| row.y > 0.0 && row.y.is_finite()));
        let (_, _) = (table.duplicates(), table.replicate_sd(true));
        let groups = table.groups();
        let in_groups = |name: &Option<String>| table.rows.iter().filter(|row| row.group == *name).count();
        prop_assert_eq!(groups.iter().map(in_groups).sum::<usize>(), table.rows.len());
        for group in groups {
            let rows: Vec<_> = table.rows.iter().filter(|row| row.group == group).cloned().collect();
            let form = if columns.inputs.len() == 1 { forms::power_floor() } else { forms::chinchilla() };
            let cheap = FitOptions { interval: IntervalMethod::Wald, leave_one_out: false, ..FitOptions::new(form) };
            match fit(&Sample::of_rows(&rows), &cheap) {
                Ok(fit) => {
                    seen.fitted += 1;
                    prop_assert!(fit.objective.is_finite(), "{:?}", fit);
                    prop_assert!(fit.estimates.iter().all(|estimate| estimate.value.is_finite()), "{:?}", fit);
                }
                Err(error) => {
                    seen.without += 1;
                    one_line(&error.to_string())?;
                }
            }
        }
    }
    Ok(())
}

/// Runs as many cases, and says what was seen.
fn run(runner: &mut TestRunner, seen: &std::cell::RefCell<Seen>) {
    let result = runner.run(&file(), |(name, bytes)| check(name, &bytes, &mut seen.borrow_mut()));
    result.unwrap_or_else(|failure| panic!("{failure}"));
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// Files that were once read badly.
const FOUND: &[(&str, &[u8])] = &[
    // The library's message quotes the cell.
    ("t.csv", b"flops,loss,name\n1e15,3,a\n1e16,2.9,\"b\"\r\0"),
    // So does a condition's.
    ("t.csv", b"flops,loss,name\n1e15,3,a\n\x7f1e16,2.9,c\n"),
    ("t.csv", b"flops,loss,name\r\n\"1e15\",\"3\",\"a\"\r\n\"1e16\",\"2.9\",\"b\"\r\0"),
];

#[test]
fn files_once_read_badly_are_read_or_refused() {
    for (name, bytes) in FOUND {
        let mut seen = Seen::default();
        check(name, bytes, &mut seen).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(seen.refused > 0, "{seen:?}");
    }
}

#[test]
fn damaged_tables_are_read_or_refused() {
    let seen = std::cell::RefCell::new(Seen::default());
    run(&mut TestRunner::new_with_rng(config(150), TestRng::deterministic_rng(RngAlgorithm::ChaCha)), &seen);
    let seen = seen.into_inner();
    // Otherwise the tables are so bad, or so good, that little is tried.
    assert!(seen.refused > 30 && seen.without > 10 && seen.fitted > 10, "{seen:?}");
}

#[test]
#[ignore = "takes the number of seconds in FUZZ_SECONDS, 600 by default; other tables each time"]
fn damaged_tables_for_long() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(600);
    let until = Instant::now() + Duration::from_secs(seconds);
    let seen = std::cell::RefCell::new(Seen::default());
    let mut cases = 0;
    while Instant::now() < until {
        run(&mut TestRunner::new(config(100)), &seen);
        cases += 100;
    }
    println!("{cases} files: {:?}", seen.into_inner());
}
