//! A change as a collector reads it. Source: go-metrics, statsd.go and datadog/dogstatsd.go; datadog-go, statsd/format.go.

use super::Form;
use super::since::{Change, Value};

impl Form {
    /// The lines, each with its end, which are to be in one datagram: of most changes there is one.
    pub(super) fn lines(self, change: &Change) -> String {
        match self {
            Self::Statsd => statsd(change),
            Self::DogStatsd => dogstatsd(change),
        }
    }
}

/// The values of labels are further parts of the name.
fn statsd(Change { name, labels, value }: &Change) -> String {
    let labels: String = labels.iter().map(|(_, value)| format!(".{value}")).collect();
    let name = plain(&format!("{name}{labels}"));
    match *value {
        Value::Count(more) => format!("{name}:{more:.6}|c\n"),
        // A gauge with a sign is a change of what it was. Source: statsd, docs/metric_types.md, "Gauges".
        Value::Gauge(is) if is < 0.0 => format!("{name}:0|g\n{name}:{is:.6}|g\n"),
        Value::Gauge(is) => format!("{name}:{is:.6}|g\n"),
        Value::Took { mean, times } => format!("{name}:{mean:.6}|ms{}\n", rate(times)),
    }
}

/// Labels are tags; a count is a whole number.
fn dogstatsd(Change { name, labels, value }: &Change) -> String {
    let tags: Vec<String> = labels.iter().map(tag).collect();
    let tags = if tags.is_empty() { String::new() } else { format!("|#{}", tags.join(",")) };
    let name = plain(name);
    match *value {
        Value::Count(more) => format!("{name}:{more:.0}|c{tags}\n"),
        Value::Gauge(is) => format!("{name}:{is}|g{tags}\n"),
        Value::Took { mean, times } => format!("{name}:{mean:.6}|ms{}{tags}\n", rate(times)),
    }
}

fn tag((name, value): &(&'static str, String)) -> String {
    let tag = if value.is_empty() { (*name).to_owned() } else { format!("{}:{}", plain(name), plain(value)) };
    tag.replace(['\n', ',', '|', '#'], "_")
}

/// One time stands for so many: as if only it had been sampled.
fn rate(times: f64) -> String {
    if times > 1.0 { format!("|@{}", 1.0 / times) } else { String::new() }
}

/// What ends a name is no part of it.
fn plain(text: &str) -> String {
    text.replace([':', ' ', '\n', '|'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(labels: &[(&'static str, &str)], value: Value) -> Change {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Change { name: "spire_server.rpc.x".to_owned(), labels, value }
    }

    // Vectors: what SPIRE 1.15's sinks send, but for the rate: SPIRE sends each time by itself.
    #[test]
    fn lines_are_those_of_spires_sinks() {
        let labels = [("status", "OK"), ("host", "a b:c")];
        for (value, statsd, dogstatsd) in [
            (Value::Count(3.0), "3.000000|c", "3|c|#status:OK,host:a_b_c"),
            (Value::Gauge(0.5), "0.500000|g", "0.5|g|#status:OK,host:a_b_c"),
            (Value::Took { mean: 1.5, times: 1.0 }, "1.500000|ms", "1.500000|ms|#status:OK,host:a_b_c"),
            (Value::Took { mean: 1.5, times: 4.0 }, "1.500000|ms|@0.25", "1.500000|ms|@0.25|#status:OK,host:a_b_c"),
        ] {
            let change = change(&labels, value);
            assert_eq!(Form::Statsd.lines(&change), format!("spire_server.rpc.x.OK.a_b_c:{statsd}\n"));
            assert_eq!(Form::DogStatsd.lines(&change), format!("spire_server.rpc.x:{dogstatsd}\n"));
        }
        assert_eq!(Form::DogStatsd.lines(&change(&[], Value::Count(1.0))), "spire_server.rpc.x:1|c\n");
    }

    /// Plays a collector of statsd, to which a gauge with a sign is a change.
    #[test]
    fn a_gauge_below_zero_is_what_it_is_whatever_it_was() {
        let mut gauge = 7.0;
        for is in [-5.0, -5.0, -2.0, 3.0, 0.0] {
            for line in Form::Statsd.lines(&change(&[], Value::Gauge(is))).lines() {
                let (_, value) = line.strip_suffix("|g").and_then(|line| line.split_once(':')).expect("a gauge");
                let number: f64 = value.parse().expect("a number");
                gauge = if value.starts_with(['-', '+']) { gauge + number } else { number };
            }
            assert_eq!(gauge, is);
        }
        assert_eq!(Form::DogStatsd.lines(&change(&[], Value::Gauge(-5.0))), "spire_server.rpc.x:-5|g\n");
    }
}
