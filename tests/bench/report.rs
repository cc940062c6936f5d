//! From samples to markdown.

use crate::loads::{Load, Sample};
use std::fmt::Write;

/// How the rounds of a column become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fold {
    /// Measurements.
    Median,
    /// Counts of what should not be: a median would hide one bad round.
    Worst,
    /// Counts of what should be.
    Least,
}

/// Whether a column is held against raw-spawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ratio {
    /// Not.
    No,
    /// Always.
    Always,
    /// In rounds in which neither lost anything: who does less work is not faster.
    IfNothingLost,
}

/// A column of a load's table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Heading, unit last.
    pub(crate) name: &'static str,
    /// Digits after the point.
    pub(crate) decimals: usize,
    /// Over the rounds.
    pub(crate) fold: Fold,
    /// Against raw-spawn.
    pub(crate) ratio: Ratio,
}

/// A row: a peer and its rounds, `None` where a round failed.
pub(crate) struct Row {
    /// The peer's name.
    pub(crate) name: &'static str,
    /// By round.
    pub(crate) rounds: Vec<Option<Sample>>,
}

/// The table of one load.
pub(crate) fn table(load: &Load, rows: &[Row], notes: &[String]) -> String {
    let mut cells: Vec<Vec<String>> = Vec::new();
    let mut head = vec!["peer".to_string()];
    for column in load.columns {
        head.push(column.name.to_string());
        if column.ratio != Ratio::No {
            head.push("x raw".to_string());
        }
    }
    head.push("runs".to_string());
    cells.push(head);
    let raw = rows.iter().find(|row| row.name == "raw-spawn");
    for row in rows {
        let mut line = vec![row.name.to_string()];
        for (at, column) in load.columns.iter().enumerate() {
            let values: Vec<f64> = row
                .rounds
                .iter()
                .flatten()
                .filter_map(|sample| *sample.get(at)?)
                .collect();
            line.push(show(fold(column.fold, &values), column.decimals));
            if column.ratio != Ratio::No {
                line.push(show(
                    raw.and_then(|raw| median(&ratios(load, *column, at, row, raw))),
                    2,
                ));
            }
        }
        line.push(row.rounds.iter().flatten().count().to_string());
        cells.push(line);
    }
    let mut out = format!(
        "## {}: {}\n\n{}\n{}\n",
        load.id,
        load.title,
        aligned(&cells),
        load.remark
    );
    for note in notes {
        let _infallible = writeln!(out, "- {note}");
    }
    out
}

/// Round by round, since peers of one round ran side by side in time.
fn ratios(load: &Load, column: Column, at: usize, row: &Row, raw: &Row) -> Vec<f64> {
    let lost = load.columns.iter().position(|column| column.name == "lost");
    let whole = |sample: &Sample| lost.and_then(|at| *sample.get(at)?) == Some(0.0);
    let mut all = Vec::new();
    for (own, base) in row.rounds.iter().zip(&raw.rounds) {
        let (Some(own), Some(base)) = (own, base) else {
            continue;
        };
        if column.ratio == Ratio::IfNothingLost && !(whole(own) && whole(base)) {
            continue;
        }
        if let (Some(Some(own)), Some(Some(base))) = (own.get(at), base.get(at))
            && *base > 0.0
        {
            all.push(own / base);
        }
    }
    all
}

fn fold(how: Fold, values: &[f64]) -> Option<f64> {
    match how {
        Fold::Median => median(values),
        Fold::Worst => values.iter().copied().reduce(f64::max),
        Fold::Least => values.iter().copied().reduce(f64::min),
    }
}

fn show(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "-".to_string(), |value| format!("{value:.decimals$}"))
}

fn aligned(cells: &[Vec<String>]) -> String {
    let columns = cells.first().map_or(0, Vec::len);
    let width = |at: usize| {
        cells
            .iter()
            .filter_map(|line| line.get(at))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, line) in cells.iter().enumerate() {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            out.push_str("| ");
            out.push_str(&if at == 0 {
                format!("{cell:<width$} ")
            } else {
                format!("{cell:>width$} ")
            });
        }
        out.push_str("|\n");
        if number == 0 {
            for (at, width) in widths.iter().enumerate() {
                out.push_str(&format!(
                    "|{}{}",
                    "-".repeat(width + 1),
                    if at == 0 { "-" } else { ":" }
                ));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// The middle one; the mean of the two middle ones of an even number.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let high = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        Some(high)
    } else {
        Some((sorted.get(middle.checked_sub(1)?)? + high) / 2.0)
    }
}

/// Of sorted values, by nearest rank.
pub(crate) fn percentile(sorted: &[f64], part: f64) -> Option<f64> {
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}
