//! The text of metrics, in two dialects that differ in the heads of families alone.

use super::families::{Family, Kind};
use crate::core::counts::Histogram;
use std::fmt::{Display, Write};

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus 0.0.4, which is what node_exporter reads from files: to it a counter is called what its sample is.
    Prometheus,
}

/// Writes families, each with its samples.
#[derive(Debug)]
pub(super) struct Text {
    dialect: Dialect,
    out: String,
}

impl Text {
    pub(super) fn new(dialect: Dialect) -> Text {
        Text {
            dialect,
            out: String::new(),
        }
    }

    /// The head of a family.
    pub(super) fn head(&mut self, family: &Family) {
        let name = family.name;
        let (name, kind) = match (self.dialect, family.kind) {
            (Dialect::OpenMetrics, kind) => (name.to_owned(), kind.word()),
            (Dialect::Prometheus, Kind::Counter) => (format!("{name}_total"), "counter"),
            (Dialect::Prometheus, Kind::Info) => (format!("{name}_info"), "gauge"),
            (Dialect::Prometheus, kind) => (name.to_owned(), kind.word()),
        };
        self.line(format_args!("# TYPE {name} {kind}"));
        if self.dialect == Dialect::OpenMetrics && !family.unit().is_empty() {
            self.line(format_args!("# UNIT {name} {}", family.unit()));
        }
        self.line(format_args!("# HELP {name} {}.", family.help));
    }

    /// Its samples, some at a time.
    pub(super) fn samples(&mut self, family: &'static Family) -> Samples<'_> {
        Samples {
            family,
            out: &mut self.out,
        }
    }

    /// After the last family.
    pub(super) fn end(&mut self) {
        if self.dialect == Dialect::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn line(&mut self, text: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.out, "{text}");
    }
}

/// Takes the samples of one family.
pub(super) struct Samples<'a> {
    family: &'static Family,
    out: &'a mut String,
}

impl Samples<'_> {
    /// One number. `values` are those of the family's labels, in order.
    pub(super) fn add(&mut self, values: &[&str], number: impl Display) {
        let suffix = match self.family.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.sample(suffix, values, None, number);
    }

    /// A histogram of durations.
    pub(super) fn histogram(&mut self, values: &[&str], histogram: &Histogram) {
        for (le, count) in histogram.within() {
            let le = seconds(le);
            self.sample("_bucket", values, Some(&le), count);
        }
        self.sample("_bucket", values, Some("+Inf"), histogram.count());
        self.sample("_sum", values, None, seconds(histogram.sum_ns()));
        self.sample("_count", values, None, histogram.count());
    }

    fn sample(&mut self, suffix: &str, values: &[&str], le: Option<&str>, number: impl Display) {
        self.out.push_str(self.family.name);
        self.out.push_str(suffix);
        let labels = self
            .family
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied());
        let mut before = '{';
        for (label, value) in labels.chain(le.map(|le| ("le", le))) {
            self.out.push(before);
            before = ',';
            self.out.push_str(label);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if before == ',' {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {number}");
    }
}

/// Nanoseconds as seconds, exactly, with a point: OpenMetrics wants bounds to look like floating-point numbers.
pub(super) fn seconds(ns: u64) -> String {
    let (whole, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
    let digits = format!("{rest:09}");
    let digits = digits.trim_end_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    format!("{whole}.{digits}")
}

#[cfg(test)]
mod tests {
    use super::super::families::FAMILIES;
    use super::*;

    #[test]
    fn seconds_are_exact() {
        for (ns, text) in [
            (0, "0.0"),
            (1, "0.000000001"),
            (1_500_000_000, "1.5"),
            (86_400_000_000_000, "86400.0"),
            (u64::MAX, "18446744073.709551615"),
        ] {
            assert_eq!(seconds(ns), text);
        }
    }

    #[test]
    fn labels_are_escaped_and_a_counter_is_named_as_its_reader_wants() {
        let text = |dialect| {
            let mut text = Text::new(dialect);
            let answers = |family: &&Family| family.name == "settled_mount_answers";
            let family = FAMILIES.iter().find(answers).expect("a family");
            text.head(family);
            text.samples(family).add(&["/a \"b\"\\\nc"], 7);
            text.end();
            text.finish()
        };
        let sample = "settled_mount_answers_total{mount=\"/a \\\"b\\\"\\\\\\nc\"} 7\n";
        assert_eq!(
            text(Dialect::OpenMetrics),
            format!(
                "# TYPE settled_mount_answers counter\n# HELP settled_mount_answers Answers of the mount's \
                 scout.\n{sample}# EOF\n"
            )
        );
        assert_eq!(
            text(Dialect::Prometheus),
            format!(
                "# TYPE settled_mount_answers_total counter\n# HELP settled_mount_answers_total Answers of the \
                 mount's scout.\n{sample}"
            )
        );
    }
}
