//! From what was measured to panels: latency against throughput, time against tokens generated, time against prompts read.
//! Every row is in at least one panel.

use super::measured::{Measured, Row};
use crate::analysis::isoflop::loglog_fit;
use crate::plot::figures::{Latency, LatencyPanel, LatencySeries};
use crate::plot::{Axis, Note, Ticks, Width};
use crate::units;
use std::collections::BTreeSet;

/// A row with its times.
struct Timed<'a> {
    row: &'a Row,
    /// To the last token, or to the first one where only prompts were read.
    seconds: f64,
    /// The least that the steps take.
    floor: Option<f64>,
}

/// The figure of all rows; they are of one device.
pub(super) fn figure(measured: &[Measured], width: Width) -> Latency {
    let (mut generated, mut read) = (Vec::new(), Vec::new());
    for part in measured {
        for row in &part.rows {
            match row.seconds() {
                Some(seconds) => generated.push(Timed { row, seconds, floor: row.floor_s(part.copy_tbps) }),
                None => read.push(Timed { row, seconds: row.first_token_s, floor: None }),
            }
        }
    }
    let mut panels = [throughput(&generated), generation(&generated), reading(&read)].concat();
    if panels.len() > 1 {
        for (panel, letter) in panels.iter_mut().zip('a'..='z') {
            panel.title = panel.title.take().map(|title| format!("({letter}) {title}"));
        }
    }
    let note = note(measured, &panels);
    let device = measured.first().map_or("", |part| part.device.as_str());
    Latency { title: format!("Decoding on {device}"), panels, note, width }
}

/// What numbers and hollow markers are, where there are some.
fn note(measured: &[Measured], panels: &[LatencyPanel]) -> String {
    let mut sentences = Vec::new();
    if panels.iter().any(|panel| !panel.notes.is_empty()) {
        sentences.push("Numbers: sequences at once.".to_owned());
    }
    if panels.iter().flat_map(|panel| &panel.series).any(|series| !series.floor.is_empty()) {
        let speeds: BTreeSet<String> =
            measured.iter().filter_map(|part| part.copy_tbps).map(|speed| format!("{speed:.1}")).collect();
        let speeds = speeds.into_iter().collect::<Vec<_>>().join(" to ");
        sentences.push(format!(
            "Hollow, dotted: the floor of the steps, their bytes at the speed of a copy ({speeds} TB/s), prompts not counted."
        ));
    }
    sentences.join(" ")
}

/// One panel for each length of prompts and of what is generated: seconds against sequences per second, joined by the
/// number of sequences. Lengths at which no more was measured than at a longer one are points of [`generation`] alone.
fn throughput(all: &[Timed]) -> Vec<LatencyPanel> {
    let lengths: BTreeSet<(usize, usize)> = all.iter().map(|timed| (timed.row.prompt, timed.row.new)).collect();
    let at = |(prompt, new): (usize, usize)| {
        all.iter().filter(move |timed| (timed.row.prompt, timed.row.new) == (prompt, new))
    };
    let jobs = |lengths: (usize, usize)| -> BTreeSet<(&str, usize)> {
        at(lengths).map(|timed| (timed.row.model.as_str(), timed.row.batch)).collect()
    };
    let covers = |other: (usize, usize), own: (usize, usize)| {
        let (more, fewer) = (jobs(other), jobs(own));
        other != own && other.0 == own.0 && more.is_superset(&fewer) && (more != fewer || other.1 > own.1)
    };
    let shown = lengths.iter().filter(|own| !lengths.iter().any(|other| covers(*other, **own)));
    shown.map(|lengths| of_throughput(*lengths, &at(*lengths).collect::<Vec<_>>())).collect()
}

fn of_throughput((prompt, new): (usize, usize), timed: &[&Timed]) -> LatencyPanel {
    let place = |row: &Row, seconds: f64| (row.batch as f64 / seconds, seconds);
    let title = format!("{} new tokens after {}", units::grouped(new as u64), units::grouped(prompt as u64));
    let y = Axis::log("latency of a sequence (s)");
    LatencyPanel {
        title: Some(title),
        x: Axis::log("throughput (sequences/s)"),
        y: Axis { range: with_room(timed), ..y },
        series: series(timed, |row| row.batch, place),
        notes: batches(timed, place),
    }
}

/// From the least floor to the slowest, with room for a number above; `None` where that is no range.
fn with_room(timed: &[&Timed]) -> Option<(f64, f64)> {
    let times = || timed.iter().flat_map(|timed| [Some(timed.seconds), timed.floor]).flatten();
    let (lo, hi) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    let room = (hi / lo).powf(0.2);
    (room.is_finite() && room > 1.0 && lo > 0.0).then_some((lo / room, hi * room))
}

/// How many sequences there were at once, beside the slowest point of as many, and the fastest where it is far from that.
fn batches(timed: &[&Timed], place: impl Fn(&Row, f64) -> (f64, f64)) -> Vec<Note> {
    const NEAR: f64 = 0.8;
    let mut sorted = timed.to_vec();
    sorted.sort_by(|a, b| a.row.batch.cmp(&b.row.batch).then(b.seconds.total_cmp(&a.seconds)));
    let mut notes = Vec::new();
    for same in sorted.chunk_by(|a, b| a.row.batch == b.row.batch) {
        let fastest = same.last().filter(|last| last.seconds < NEAR * same[0].seconds);
        for timed in [Some(&same[0]), fastest].into_iter().flatten() {
            let (x, y) = place(timed.row, timed.seconds);
            notes.push(Note { x, y, text: timed.row.batch.to_string(), look: None });
        }
    }
    notes
}

/// One panel for each prompt and number of sequences where a model was measured at several lengths: seconds against tokens
/// generated.
fn generation(all: &[Timed]) -> Vec<LatencyPanel> {
    let keys: BTreeSet<(usize, usize)> = all.iter().map(|timed| (timed.row.prompt, timed.row.batch)).collect();
    let mut panels = Vec::new();
    for (prompt, batch) in keys {
        let here: Vec<&Timed> =
            all.iter().filter(|timed| (timed.row.prompt, timed.row.batch) == (prompt, batch)).collect();
        let points: BTreeSet<(&str, usize)> =
            here.iter().map(|timed| (timed.row.model.as_str(), timed.row.new)).collect();
        let models: BTreeSet<&str> = points.iter().map(|(model, _)| *model).collect();
        if points.len() == models.len() {
            continue;
        }
        let title = format!("{}, prompts of {}", sequences(batch), units::grouped(prompt as u64));
        panels.push(LatencyPanel {
            title: Some(title),
            x: Axis::log("tokens generated").with_ticks(at_values(&here, |row| row.new)),
            y: Axis::log("time (s)"),
            series: series(&here, |row| row.new, |row, seconds| (row.new as f64, seconds)),
            notes: Vec::new(),
        });
    }
    panels
}

/// One panel for each number of prompts: seconds to the first token against their length.
fn reading(all: &[Timed]) -> Vec<LatencyPanel> {
    let counts: BTreeSet<usize> = all.iter().map(|timed| timed.row.batch).collect();
    let panel = |batch: usize| {
        let here: Vec<&Timed> = all.iter().filter(|timed| timed.row.batch == batch).collect();
        let mut series = series(&here, |row| row.prompt, |row, seconds| (row.prompt as f64, seconds));
        let (what, token) = match batch {
            1 => ("one prompt".to_owned(), "first token".to_owned()),
            _ => (format!("{batch} prompts"), format!("first tokens of {batch}")),
        };
        for one in &mut series {
            if let Some((exponent, from)) = growth(&one.measured) {
                let from = units::grouped(from as u64);
                one.detail = format!("{token} ∝ length^{exponent:.2} from {from} on");
            }
        }
        LatencyPanel {
            title: Some(format!("reading {what}")),
            x: Axis::log("length of a prompt (tokens)").with_ticks(at_values(&here, |row| row.prompt)),
            y: Axis::log("time to the first token (s)"),
            series,
            notes: Vec::new(),
        }
    };
    counts.into_iter().map(panel).collect()
}

/// Ticks at the numbers of tokens that were measured.
fn at_values(timed: &[&Timed], tokens: impl Fn(&Row) -> usize) -> Ticks {
    let values: BTreeSet<usize> = timed.iter().map(|timed| tokens(timed.row)).collect();
    Ticks::Values(values.into_iter().map(|value| value as f64).collect())
}

/// The exponent with which times grow with lengths, and the length from which it holds: least squares on logarithms over
/// lengths from an eighth of the longest on, since short prompts do not fill a device.
fn growth(points: &[(f64, f64)]) -> Option<(f64, f64)> {
    let longest = points.iter().map(|(length, _)| *length).fold(0.0, f64::max);
    let (lengths, times): (Vec<f64>, Vec<f64>) =
        points.iter().copied().filter(|(length, time)| 8.0 * length >= longest && *time > 0.0).unzip();
    let shortest = lengths.iter().copied().fold(f64::INFINITY, f64::min);
    let fit = loglog_fit(&lengths, &times, &vec![1.0; lengths.len()])?;
    Some((fit.exponent, shortest))
}

/// The points of each model, by rising `order`; models as they come.
fn series<K: Ord>(
    timed: &[&Timed],
    order: impl Fn(&Row) -> K,
    place: impl Fn(&Row, f64) -> (f64, f64),
) -> Vec<LatencySeries> {
    let mut sorted = timed.to_vec();
    sorted.sort_by_key(|timed| order(timed.row));
    let mut models: Vec<&str> = Vec::new();
    for timed in timed {
        if !models.contains(&timed.row.model.as_str()) {
            models.push(&timed.row.model);
        }
    }
    let one = |model: &&str| {
        let own = || sorted.iter().filter(|timed| timed.row.model == *model);
        LatencySeries {
            name: named(model),
            detail: String::new(),
            measured: own().map(|timed| place(timed.row, timed.seconds)).collect(),
            floor: own().filter_map(|timed| timed.floor.map(|floor| place(timed.row, floor))).collect(),
        }
    };
    models.iter().map(one).collect()
}

fn sequences(batch: usize) -> String {
    if batch == 1 { "1 sequence".to_owned() } else { format!("{batch} sequences") }
}

/// ARCH:DEPTH as words.
fn named(model: &str) -> String {
    model.split_once(':').map_or_else(|| model.to_owned(), |(name, depth)| format!("{name}, depth {depth}"))
}

#[cfg(test)]
mod tests {
    use super::super::measured::row;
    use super::*;

    fn titles(rows: Vec<Row>, copy_tbps: Option<f64>) -> (Latency, Vec<String>) {
        let figure = figure(&[Measured { device: "a GPU".to_owned(), copy_tbps, rows }], Width::Full);
        let titles = figure.panels.iter().filter_map(|panel| panel.title.clone()).collect();
        (figure, titles)
    }

    #[test]
    fn latency_is_drawn_against_sequences_per_second() {
        // 100 steps of 10 ms after half a second, of 20 ms for four sequences; their floors are half of the steps.
        let rows = vec![row("sambay:16", 4, 2000, 101, 1.0, 20.0), row("sambay:16", 1, 2000, 101, 0.5, 10.0)];
        let (figure, titles) = titles(rows, Some(1.0));
        assert_eq!(titles, ["101 new tokens after 2,000"]);
        let series = &figure.panels[0].series[0];
        assert_eq!(series.name, "sambay, depth 16");
        assert_eq!(series.measured, [(1.0 / 1.5, 1.5), (4.0 / 3.0, 3.0)]);
        assert_eq!(series.floor, [(1.0 / 0.5, 0.5), (4.0, 1.0)]);
        let notes: Vec<_> = figure.panels[0].notes.iter().map(|note| (note.text.as_str(), note.y)).collect();
        assert_eq!(notes, [("1", 1.5), ("4", 3.0)]);
        assert!(figure.note.contains("1.0 TB/s"), "{}", figure.note);
    }

    #[test]
    fn numbers_of_sequences_stand_at_the_slowest_and_a_far_fastest() {
        let rows = ["a:8", "b:8", "c:8"].iter().zip([10.0, 6.0, 4.0]);
        let rows = rows.map(|(model, ms)| row(model, 8, 100, 1001, 0.0, ms)).collect();
        let (figure, _) = titles(rows, None);
        let notes: Vec<f64> = figure.panels[0].notes.iter().map(|note| note.y).collect();
        assert_eq!(notes, [10.0, 4.0]);
        let near = vec![row("a:8", 8, 100, 1001, 0.0, 9.0), row("b:8", 8, 100, 1001, 0.0, 10.0)];
        assert_eq!(titles(near, None).0.panels[0].notes.len(), 1);
        assert_eq!(figure.note, "Numbers: sequences at once.", "a CPU has no floor");
    }

    #[test]
    fn every_row_is_in_a_panel_and_lengths_that_add_nothing_are_in_one() {
        let at = |model: &str, batch: usize, new: usize| row(model, batch, 2000, new, 0.1, 2.0);
        let rows = vec![at("a:8", 1, 1000), at("a:8", 16, 1000), at("b:8", 16, 1000), at("a:8", 16, 4000)];
        let (figure, found) = titles(rows, None);
        assert_eq!(found, ["(a) 1,000 new tokens after 2,000", "(b) 16 sequences, prompts of 2,000"]);
        let points: Vec<usize> = figure.panels[1].series.iter().map(|series| series.measured.len()).collect();
        assert_eq!(points, [2, 1]);
        // Equal at all lengths: the longest stands for throughput.
        let rows = [1000, 2000, 4000].into_iter().flat_map(|new| [at("a:8", 1, new), at("a:8", 4, new)]).collect();
        let expected = [
            "(a) 4,000 new tokens after 2,000",
            "(b) 1 sequence, prompts of 2,000",
            "(c) 4 sequences, prompts of 2,000",
        ];
        assert_eq!(titles(rows, None).1, expected);
    }

    #[test]
    fn exponents_are_those_of_long_prompts() {
        let lengths = [1024, 2048, 4096, 8192, 16_384, 32_768];
        let seconds = |length: usize| if length < 4096 { 1.0 } else { (length as f64 / 4096.0).powi(2) };
        let rows = lengths.map(|length| row("a:8", 1, length, 1, seconds(length), 0.0)).to_vec();
        let (figure, found) = titles(rows, Some(4.0));
        assert_eq!(found, ["reading one prompt"]);
        assert_eq!(figure.panels[0].series[0].detail, "first token ∝ length^2.00 from 4,096 on");
        assert_eq!(figure.note, "");
        assert_eq!(growth(&[(1024.0, 1.0)]), None);
    }
}
