//! What signs: the chain as a tree, lifetimes as bars, the token.

use ironroot_api::pb::server_status::GetStatusResponse;
use maud::{Markup, html};

use super::frame::{Place, frame};
use super::words::{left, length, moment};
use crate::console::validity::Validity;
use crate::status::why_none_is_next;

/// The page. `x509`: roots, with CAs below them; `jwt`: keys.
pub fn authorities(x509: &[Validity], jwt: &[Validity], status: &GetStatusResponse, now: i64) -> Markup {
    frame(
        "Authorities",
        Place::Authorities,
        None,
        &html! {
            h1 { "Authorities of " (status.trust_domain) }
            (token(status))
            h2 { "X.509" }
            (tree(x509, now))
            @if !jwt.is_empty() { h2 { "JWT-SVIDs" } (tree(jwt, now)) }
            h2 { "Server" }
            dl {
                dt { "Version" } dd { (status.version) ", up " (length(status.uptime)) }
                dt { "Data store" } dd { (status.data_store) }
                @for listener in &status.listeners { dt { (listener.what) } dd { (listener.address) } }
                @if status.federated_bundles > 0 {
                    dt { "Federation" } dd { (status.federated_bundles) " bundles of others, " (status.federation_failing) " cannot be fetched" }
                }
                @for warning in &status.warnings { dt { "Warning" } dd.warn { (warning) } }
            }
        },
    )
}

fn token(status: &GetStatusResponse) -> Markup {
    html! {
        @for trouble in &status.troubles { p.trouble role="alert" { b { (trouble.what) } ": " (trouble.why) } }
        dl {
            dt { "Keys" } dd { (status.keys) }
            dt { "Token" } dd {
                @if status.troubles.iter().any(|trouble| trouble.what == "token") { b.bad { "does not do its work" } } @else { "does its work" }
                ", " (status.token_queue) " requests wait"
            }
            @for (what, name) in [("x509_ca", "Next CA"), ("jwt_key", "Next key of JWT-SVIDs")] {
                @if let Some(next) = status.authorities.iter().find(|authority| authority.purpose == what) {
                    dt { (name) }
                    dd { @if next.prepared_id.is_empty() { (why_none_is_next(next, status)) } @else { "is prepared, good until " (moment(next.prepared_until)) } }
                }
            }
        }
    }
}

fn tree(level: &[Validity], now: i64) -> Markup {
    html! {
        ul.tree { @for one in level {
            li {
                span.id { (one.id) } " " b { (one.role) } @if one.tainted { " " b.bad { "tainted" } }
                (bar(one, now))
                @if !one.below.is_empty() { (tree(&one.below, now)) }
            }
        } }
    }
}

fn bar(one: &Validity, now: i64) -> Markup {
    html! {
        div.lifetime {
            @if let Some(passed) = one.passed(now) { meter min="0" max="100" value=(100 - passed) low="10" title=(format!("{passed} % have passed")) {} }
            span { "left: " (left(one.until, now)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::server_status::get_status_response::Trouble;

    use super::*;

    #[test]
    fn a_ca_is_inside_its_root_with_a_bar_and_a_token_that_is_gone_is_told_first() {
        let ca =
            Validity { id: "ca".into(), role: "signs", since: Some(0), until: 100, tainted: false, below: Vec::new() };
        let root =
            Validity { id: "root".into(), role: "is in the bundle", tainted: true, below: vec![ca.clone()], ..ca };
        let troubles = vec![Trouble { what: "token".into(), why: "gone".into() }];
        let status = GetStatusResponse { troubles, ..GetStatusResponse::default() };
        let shown = authorities(&[root], &[], &status, 25).into_string();
        let at = |text: &str| shown.find(text).unwrap_or_else(|| panic!("{text} in {shown}"));
        assert!(at("gone") < at(">root<") && at(">root<") < at(">ca<") && at("tainted") < at(">ca<"));
        assert!(shown.contains("value=\"75\"") && shown.contains("does not do its work"), "{shown}");
    }
}
