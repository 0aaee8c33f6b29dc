//! Calls, and who was refused.

use ironroot_shell::telemetry::{Kind, Page, call_name};

use super::Sources;

pub(super) fn write(page: &mut Page, sources: &Sources) {
    let tally = &sources.server.tally;
    for (path, calls) in tally.by_method() {
        page.spire_calls(&call_name(path), "Calls of this method, by how they ended", calls);
    }
    let mut by_role =
        page.own("calls_total", Kind::Counter, "Calls that were let in, by who called and how they ended");
    for (role, calls) in tally.by_role() {
        for (status, elapsed) in calls.by_code() {
            by_role.sample(&[("caller", role.word()), ("status", status)], elapsed.times() as f64);
        }
    }
    let mut refused = page.own("refused_calls_total", Kind::Counter, "Calls of who may not, or holds too much already");
    for (status, elapsed) in tally.all_refused().by_code() {
        refused.sample(&[("status", status)], elapsed.times() as f64);
    }
    let mut exchanges = page.own("token_exchanges_total", Kind::Counter, "Tokens of other issuers that were shown");
    for (status, elapsed) in tally.exchanges().by_code() {
        exchanges.sample(&[("status", status)], elapsed.times() as f64);
    }
    if let Some(file) = sources.server.audit.file() {
        page.own("audit_lines_lost_total", Kind::Counter, "Lines of the audit that could not be written to its file")
            .sample(&[], file.lost() as f64);
    }
}
