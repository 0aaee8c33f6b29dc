//! One page of metrics. Source of the form: Prometheus, "Exposition formats", text format 0.0.4.

use std::fmt::Write;

use super::counted::{Calls, Elapsed, Histogram};
use super::filters::Filters;

/// A label and its value: words of the program, never of a caller.
pub type Label = (&'static str, &'static str);

/// The label of a histogram's classes: the form has it, and no operator takes it away.
const CLASS: &str = "le";

/// What kind of metric a family is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what it is now.
    Gauge,
    /// A sum and a number of times.
    Summary,
    /// The same in classes.
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }
}

/// The page that is being written. Names have the parts of SPIRE's keys, with dots between them: `rpc.agent.v1.agent.attest_agent`.
#[derive(Debug)]
pub struct Page {
    /// Before the names of SPIRE's metrics: `spire_server`, or what the operator wants there.
    spire: String,
    /// Before our own: `ironroot_server`.
    own: &'static str,
    /// Labels that every series has.
    constants: Vec<(&'static str, String)>,
    filters: Filters,
    families: Vec<Written>,
}

/// What was written of a family.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) name: String,
    pub(super) kind: Kind,
    help: &'static str,
    pub(super) series: Vec<Series>,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) suffix: &'static str,
    pub(super) labels: Vec<(&'static str, String)>,
    /// How many of them every series has; they are the first.
    pub(super) constants: usize,
    pub(super) value: f64,
}

impl Page {
    /// An empty one. `constants`: labels of every series with their values, the process's own words.
    pub fn new(spire: &str, own: &'static str, constants: &[(&'static str, String)]) -> Self {
        let (spire, constants) = (spire.to_owned(), constants.to_vec());
        Self { spire, own, constants, filters: Filters::default(), families: Vec::new() }
    }

    /// The same, which is to show no more than that.
    pub fn filtered(self, filters: Filters) -> Self {
        Self { filters, ..self }
    }

    /// A family under SPIRE's name, without the prefix.
    pub fn spire(&mut self, name: &str, kind: Kind, help: &'static str) -> Family<'_> {
        let name = format!("{}.{name}", self.spire);
        self.family(name, kind, help)
    }

    /// A family of ours, without the prefix.
    pub fn own(&mut self, name: &str, kind: Kind, help: &'static str) -> Family<'_> {
        let name = format!("{}.{name}", self.own);
        self.family(name, kind, help)
    }

    /// A family under a name of its own, such as those that every process has.
    pub fn family(&mut self, name: String, kind: Kind, help: &'static str) -> Family<'_> {
        let Self { constants, filters, families, .. } = self;
        let is_shown = filters.shows(&name);
        families.push(Written { name, kind, help, series: Vec::new() });
        let written = families.last_mut().expect("just pushed");
        Family { constants, filters, is_shown, written }
    }

    /// What SPIRE shows of calls: a counter, and the time in milliseconds, by code.
    pub fn spire_calls(&mut self, name: &str, help: &'static str, calls: &Calls) {
        self.spire_calls_of(name, help, &[], calls);
    }

    /// The same with further labels.
    pub fn spire_calls_of(&mut self, name: &str, help: &'static str, labels: &[Label], calls: &Calls) {
        let with = |code| labels.iter().copied().chain([("status", code)]).collect::<Vec<Label>>();
        let mut counter = self.spire(name, Kind::Counter, help);
        calls.by_code().for_each(|(code, elapsed)| counter.sample(&with(code), elapsed.times() as f64));
        let mut summary = self.spire(&format!("{name}.elapsed_time"), Kind::Summary, "How long these took, ms");
        calls.by_code().for_each(|(code, elapsed)| summary.elapsed(&with(code), elapsed));
    }

    /// All that was written, in order.
    pub(super) fn into_families(self) -> impl Iterator<Item = Written> {
        self.families.into_iter()
    }

    /// The text.
    pub fn into_text(self) -> String {
        let mut text = String::new();
        // Each is dropped once it stands there.
        self.into_families().for_each(|family| family.write_to(&mut text));
        text
    }
}

impl Written {
    /// One without a sample leaves nothing on the page.
    fn write_to(self, text: &mut String) {
        let (name, kind, help) = (self.name.replace('.', "_"), self.kind.word(), self.help);
        if !self.series.is_empty() {
            write_to(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        for Series { suffix, labels, value, .. } in &self.series {
            write_to(text, format_args!("{name}{suffix}"));
            for (at, (label, value)) in labels.iter().enumerate() {
                let before = if at == 0 { '{' } else { ',' };
                write_to(text, format_args!("{before}{label}=\"{}\"", escaped(value)));
            }
            let end = if labels.is_empty() { "" } else { "}" };
            write_to(text, format_args!("{end} {value}\n"));
        }
    }
}

/// A family that is being written. One without a sample leaves nothing on the page.
#[derive(Debug)]
pub struct Family<'a> {
    constants: &'a [(&'static str, String)],
    filters: &'a Filters,
    is_shown: bool,
    written: &'a mut Written,
}

impl Family<'_> {
    /// The value of the series with these labels.
    pub fn sample(&mut self, labels: &[Label], value: f64) {
        self.line("", labels, value);
    }

    /// A value that is asked with its own words instead of the process's: what is running, in SPIRE's `started`.
    pub fn about(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.line("", labels, value);
    }

    /// Times and milliseconds.
    pub fn elapsed(&mut self, labels: &[Label], elapsed: &Elapsed) {
        self.line("_sum", labels, elapsed.milliseconds());
        self.line("_count", labels, elapsed.times() as f64);
    }

    /// Classes, seconds and times.
    pub fn histogram(&mut self, labels: &[Label], histogram: &Histogram) {
        let times = histogram.all().times();
        for (bound, count) in histogram.up_to().chain([("+Inf", times)]) {
            let labels: Vec<Label> = labels.iter().copied().chain([(CLASS, bound)]).collect();
            self.line("_bucket", &labels, count as f64);
        }
        self.line("_sum", labels, histogram.all().milliseconds() / 1e3);
        self.line("_count", labels, times as f64);
    }

    fn line(&mut self, suffix: &'static str, labels: &[(&'static str, &str)], value: f64) {
        if !self.is_shown {
            return;
        }
        let is_kept = |name: &str| name == CLASS || self.filters.shows_label(name);
        let constants = self.constants.iter().filter(|(name, _)| is_kept(name)).cloned();
        let kept = labels.iter().filter(|(name, _)| is_kept(name)).map(|(name, value)| (*name, (*value).to_owned()));
        let was_told_apart = !labels.iter().all(|(name, _)| is_kept(name));
        let mut labels: Vec<_> = constants.collect();
        let constants = labels.len();
        labels.extend(kept);
        self.written.add(Series { suffix, labels, constants, value }, was_told_apart);
    }
}

impl Written {
    /// Series that only a label told apart that is not shown are one: what is counted is added up, and of the rest the last one counts.
    /// Source: go-metrics, whose Prometheus sink knows a series by the labels that are left.
    fn add(&mut self, series: Series, was_told_apart: bool) {
        let is_same = |known: &&mut Series| (known.suffix, &known.labels) == (series.suffix, &series.labels);
        match self.series.iter_mut().find(|known| was_told_apart && is_same(known)) {
            Some(known) if self.kind == Kind::Gauge => known.value = series.value,
            Some(known) => known.value += series.value,
            None => self.series.push(series),
        }
    }
}

fn write_to(text: &mut String, words: std::fmt::Arguments<'_>) {
    text.write_fmt(words).expect("writing to a string cannot fail");
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;

    #[test]
    fn a_page_has_the_form_that_prometheus_reads() {
        let mut page = Page::new("spire_server", "ironroot_server", &[("host", "a\"b\\c\nd".to_owned())]);
        page.own("agents", Kind::Gauge, "Agents").sample(&[("state", "late")], 2.0);
        page.own("nothing", Kind::Gauge, "Never shown");
        let calls = Calls::default();
        calls.ended(Code::PermissionDenied, Duration::from_micros(1500));
        page.spire_calls("rpc.x", "Calls", &calls);
        let wanted = r#"# HELP ironroot_server_agents Agents
# TYPE ironroot_server_agents gauge
ironroot_server_agents{host="a\"b\\c\nd",state="late"} 2
# HELP spire_server_rpc_x Calls
# TYPE spire_server_rpc_x counter
spire_server_rpc_x{host="a\"b\\c\nd",status="PermissionDenied"} 1
# HELP spire_server_rpc_x_elapsed_time How long these took, ms
# TYPE spire_server_rpc_x_elapsed_time summary
spire_server_rpc_x_elapsed_time_sum{host="a\"b\\c\nd",status="PermissionDenied"} 1.5
spire_server_rpc_x_elapsed_time_count{host="a\"b\\c\nd",status="PermissionDenied"} 1
"#;
        assert_eq!(page.into_text(), wanted);
    }

    #[test]
    fn a_histogram_ends_with_all_of_them_and_no_label_leaves_no_braces() {
        let mut page = Page::new("spire_agent", "ironroot_agent", &[]);
        let histogram = Histogram::default();
        histogram.took(Duration::from_secs(60));
        page.own("x_seconds", Kind::Histogram, "X").histogram(&[], &histogram);
        let text = page.into_text();
        let lines: Vec<_> = text.lines().rev().take(4).collect();
        let wanted = [
            "ironroot_agent_x_seconds_count 1",
            "ironroot_agent_x_seconds_sum 60",
            "ironroot_agent_x_seconds_bucket{le=\"+Inf\"} 1",
            "ironroot_agent_x_seconds_bucket{le=\"30\"} 0",
        ];
        assert_eq!(lines, wanted);
    }
}
