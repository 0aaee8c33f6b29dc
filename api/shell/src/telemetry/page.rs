//! One page of metrics. Source of the form: Prometheus, "Exposition formats", text format 0.0.4.

use std::fmt::Write;

use super::counted::{Calls, Elapsed, Histogram};

/// A label and its value: words of the program, never of a caller.
pub type Label = (&'static str, &'static str);

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

/// The page that is being written.
#[derive(Debug)]
pub struct Page {
    /// Before the names of SPIRE's metrics: `spire_server`, or what the operator wants there.
    spire: String,
    /// Before our own: `ironroot_server`.
    own: &'static str,
    /// Labels that every series has, written, and with a comma behind each.
    constants: String,
    text: String,
}

impl Page {
    /// An empty one. `constants`: labels of every series with their values, the process's own words.
    pub fn new(spire: &str, own: &'static str, constants: &[(&'static str, String)]) -> Self {
        let constants = constants.iter().map(|(name, value)| format!("{name}=\"{}\",", escaped(value))).collect();
        Self { spire: spire.to_owned(), own, constants, text: String::new() }
    }

    /// A family under SPIRE's name, without the prefix.
    pub fn spire(&mut self, name: &str, kind: Kind, help: &'static str) -> Family<'_> {
        let name = format!("{}_{name}", self.spire);
        self.family(name, kind, help)
    }

    /// A family of ours, without the prefix.
    pub fn own(&mut self, name: &str, kind: Kind, help: &'static str) -> Family<'_> {
        let name = format!("{}_{name}", self.own);
        self.family(name, kind, help)
    }

    /// A family under a name of its own, such as those that every process has.
    pub fn family(&mut self, name: String, kind: Kind, help: &'static str) -> Family<'_> {
        let Self { constants, text, .. } = self;
        Family { name, kind, help, constants, text, has_header: false }
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
        let mut summary = self.spire(&format!("{name}_elapsed_time"), Kind::Summary, "How long these took, ms");
        calls.by_code().for_each(|(code, elapsed)| summary.elapsed(&with(code), elapsed));
    }

    /// The text.
    pub fn into_text(self) -> String {
        self.text
    }
}

/// A family that is being written. One without a sample leaves nothing on the page.
#[derive(Debug)]
pub struct Family<'a> {
    name: String,
    kind: Kind,
    help: &'static str,
    constants: &'a str,
    text: &'a mut String,
    has_header: bool,
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
            let labels: Vec<Label> = labels.iter().copied().chain([("le", bound)]).collect();
            self.line("_bucket", &labels, count as f64);
        }
        self.line("_sum", labels, histogram.all().milliseconds() / 1e3);
        self.line("_count", labels, times as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&'static str, &str)], value: f64) {
        let Self { name, kind, help, constants, text, has_header } = self;
        if !std::mem::replace(has_header, true) {
            write_to(text, format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.word()));
        }
        write_to(text, format_args!("{name}{suffix}"));
        if !constants.is_empty() || !labels.is_empty() {
            let labels: String = labels.iter().map(|(name, value)| format!("{name}=\"{}\",", escaped(value))).collect();
            let all = format!("{constants}{labels}");
            write_to(text, format_args!("{{{}}}", all.trim_end_matches(',')));
        }
        write_to(text, format_args!(" {value}\n"));
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
        page.spire_calls("rpc_x", "Calls", &calls);
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
