//! Metrics in Prometheus's text form, under SPIRE's names where SPIRE has one.
//!
//! ```text
//!  a room counts what it does (Counter, Elapsed, Calls, Histogram: a few atomics, nothing else) ─┐
//!  a room says how it is when it is asked (gauges) ──────────────────────────────────────────────┼─► Page ─► MetricsListener
//!                                        a scrape, at most one page a second ────────────────────┘      └─► statsd, every 10 s
//! ```
//! Nothing is kept by name: labels are words of the program (`&'static str`), so that no caller, identity or
//! address can make a series.

mod counted;
mod filters;
mod listener;
mod names;
pub mod otlp;
mod page;
mod process;
mod settings;
pub mod statsd;
mod tls;

pub use counted::{Calls, Counter, Elapsed, Histogram};
pub use filters::Filters;
pub use listener::{MetricsError, MetricsListener};
pub use names::call_name;
pub use page::{Family, Kind, Label, Page};
pub use settings::{MetricsTls, Prometheus, Telemetry, read_telemetry, sanitised};
