//! What has been counted since the last time: pages have the whole sums.

use std::collections::HashMap;

use crate::telemetry::page::{Series, Written};
use crate::telemetry::{Kind, Page};

/// The sums of the page before.
#[derive(Debug, Default)]
pub(super) struct Since(HashMap<String, f64>);

/// What there is to tell of one series.
#[derive(Debug)]
pub(super) struct Change {
    /// Its parts, with dots between them.
    pub name: String,
    /// In the order of go-metrics: those of every series last.
    pub labels: Vec<(&'static str, String)>,
    pub value: Value,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// So many more.
    Count(f64),
    /// As it is now.
    Gauge(f64),
    /// So many more, which took so many milliseconds each.
    Took { mean: f64, times: f64 },
}

impl Since {
    /// What is new in the page. Histograms are ours alone, in classes that no such collector has: they are left out.
    pub fn changes(&mut self, page: Page) -> Vec<Change> {
        page.into_families().flat_map(|family| self.of(family)).collect()
    }

    fn of(&mut self, family: Written) -> Vec<Change> {
        let Written { name, kind, series, .. } = family;
        let mut changes = Vec::new();
        let mut sum = 0.0;
        for one in series {
            let value = match (kind, one.suffix) {
                (Kind::Gauge, _) => Some(Value::Gauge(one.value)),
                (Kind::Counter, _) => Some(self.more(&name, &one)).filter(|more| *more > 0.0).map(Value::Count),
                // Each sum stands before its number.
                (Kind::Summary, "_sum") => {
                    sum = self.more(&name, &one);
                    None
                }
                (Kind::Summary, _) => {
                    let times = self.more(&name, &one);
                    (times > 0.0).then(|| Value::Took { mean: sum / times, times })
                }
                (Kind::Histogram, _) => None,
            };
            changes.extend(value.map(|value| Change { name: name.clone(), labels: one.labels_in_order(), value }));
        }
        changes
    }

    fn more(&mut self, name: &str, series: &Series) -> f64 {
        let key = format!("{name}{}{:?}", series.suffix, series.labels);
        series.value - self.0.insert(key, series.value).unwrap_or_default()
    }
}

impl Series {
    /// Those of the call, then what every series has, the host last.
    fn labels_in_order(self) -> Vec<(&'static str, String)> {
        let mut labels = self.labels;
        let own = labels.split_off(self.constants);
        own.into_iter().chain(labels.into_iter().rev()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;
    use crate::telemetry::Calls;

    #[test]
    fn what_did_not_change_is_not_told_again_but_how_something_is() {
        let mut since = Since::default();
        let calls = Calls::default();
        let mut told = || {
            let mut page = Page::new("s", "i", &[("host", "h".to_owned()), ("trust_domain", "t".to_owned())]);
            page.spire_calls("rpc.x", "Calls", &calls);
            page.own("ready", Kind::Gauge, "Ready").sample(&[], 1.0);
            let changes = since.changes(page);
            changes.into_iter().map(|it| (it.name, it.labels.len(), it.value)).collect::<Vec<_>>()
        };
        let ready = || ("i.ready".to_owned(), 2, Value::Gauge(1.0));
        assert_eq!(told(), [ready()]);
        calls.ended(Code::Ok, Duration::from_millis(2));
        calls.ended(Code::Ok, Duration::from_millis(4));
        let counted = ("s.rpc.x".to_owned(), 3, Value::Count(2.0));
        let took = ("s.rpc.x.elapsed_time".to_owned(), 3, Value::Took { mean: 3.0, times: 2.0 });
        assert_eq!(told(), [counted, took, ready()]);
        assert_eq!(told(), [ready()]);
    }

    #[test]
    fn the_labels_of_every_series_stand_last_and_the_host_behind_the_trust_domain() {
        let mut page = Page::new("s", "i", &[("host", "h".to_owned()), ("trust_domain", "t".to_owned())]);
        page.own("ready", Kind::Gauge, "Ready").sample(&[("what", "w")], 1.0);
        let changes = Since::default().changes(page);
        let names: Vec<_> = changes[0].labels.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["what", "trust_domain", "host"]);
    }
}
