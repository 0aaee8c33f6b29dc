//! The CA: what it signs, how long, and when it ends; the token under it.

use ironroot_api::certificate::Certificate;
use ironroot_shell::telemetry::{Kind, Page, sanitised};

use super::Sources;
use crate::ca::{CertificateAuthority, Purpose, SignedFor};
use crate::web_shown::{ShownCertificate, WebShown};

pub(super) fn write(page: &mut Page, sources: &Sources, now_unix: i64) {
    let ca = &sources.server.ca;
    write_signed(page, ca);
    write_steps(page, ca);
    write_ends(page, sources, now_unix);
    write_web(page, sources, now_unix);
    write_bundle(page, ca);
    page.spire_calls("svid.rotate", "Renewals of the server's own certificate", &sources.svid_rotations);
    let waiting = sources.waiting_for_token();
    page.own("token_queue", Kind::Gauge, "Requests that wait for a session of the PKCS#11 token")
        .sample(&[], waiting as f64);
}

/// SPIRE's three counters, and ours by what was signed for.
fn write_signed(page: &mut Page, ca: &CertificateAuthority) {
    let signed = |what| ca.signed().of(what).signed.all().times();
    let x509: u64 = SignedFor::ALL.into_iter().filter(|what| what.is_x509_svid()).map(signed).sum();
    for (name, count) in [
        ("server_ca.sign.x509_svid", x509),
        ("server_ca.sign.jwt_svid", signed(SignedFor::JwtSvid)),
        ("server_ca.sign.x509_ca_svid", signed(SignedFor::DownstreamCa)),
    ] {
        if count > 0 {
            page.spire(name, Kind::Counter, "What the CA has signed").sample(&[], count as f64);
        }
    }
    let help = "How long it took to sign: the token's queue, the token, and the look at the result";
    let mut seconds = page.own("sign_seconds", Kind::Histogram, help);
    SignedFor::ALL
        .into_iter()
        .for_each(|what| seconds.histogram(&[("for", what.word())], &ca.signed().of(what).signed));
    let mut failed = page.own(
        "sign_failures_total",
        Kind::Counter,
        "What was asked for and not signed: the CA, the token, or its result",
    );
    SignedFor::ALL.into_iter().for_each(|what| {
        failed.sample(&[("for", what.word())], ca.signed().of(what).failed.count() as f64);
    });
}

fn write_steps(page: &mut Page, ca: &CertificateAuthority) {
    let steps = ca.steps_done();
    for (purpose, prepare, activate) in [
        (Purpose::X509Ca, "ca.manager.x509_ca.prepare", "ca.manager.x509_ca.activate"),
        (Purpose::Jwt, "ca.manager.jwt_key.prepare", "manager.jwt_key.activate"),
        (Purpose::Wit, "ca.manager.wit_key.prepare", "manager.wit_key.activate"),
    ] {
        page.spire_calls(prepare, "Authorities that were made", &steps.of(purpose).prepared);
        let activated = steps.of(purpose).activated.count();
        if activated > 0 {
            page.spire(activate, Kind::Counter, "Authorities that began to sign").sample(&[], activated as f64);
        }
    }
    let mut failed =
        page.own("rotation_failures_total", Kind::Counter, "Steps of the rotation that failed; they are tried again");
    for purpose in Purpose::ALL {
        failed.sample(&[("authority", purpose.word())], steps.of(purpose).failed.count() as f64);
    }
}

fn write_ends(page: &mut Page, sources: &Sources, now_unix: i64) {
    let ca = &sources.server.ca;
    let active = |purpose| ca.local_authorities(purpose).active.map(|active| active.expires_at_unix);
    if let Some(end) = active(Purpose::X509Ca) {
        let trust_domain = sanitised(sources.server.trust_domain.as_str());
        let own = [("trust_domain_id", trust_domain.as_str())];
        page.spire("manager.x509_ca.rotate.expiration", Kind::Gauge, "When the CA that signs ends, UNIX time")
            .about(&own, end as f64);
        page.spire("manager.x509_ca.rotate.ttl", Kind::Gauge, "How long that is from now, s")
            .about(&own, (end - now_unix) as f64);
    }
    let mut left =
        page.own("authority_ends_seconds", Kind::Gauge, "How long the authority that signs is good for still, s");
    for purpose in Purpose::ALL {
        active(purpose)
            .into_iter()
            .for_each(|end| left.sample(&[("authority", purpose.word())], (end - now_unix) as f64));
    }
    let mut life = page.own("authority_life_seconds", Kind::Gauge, "How long such an authority is to live in all, s");
    for purpose in Purpose::ALL {
        ca.lifetime_seconds(purpose)
            .into_iter()
            .for_each(|life_s| life.sample(&[("authority", purpose.word())], life_s as f64));
    }
    let own = sources.server.svid.chain().first().and_then(|leaf| Certificate::parse(leaf).ok());
    if let Some(own) = own {
        page.own("svid_ends_seconds", Kind::Gauge, "How long the server's own certificate is good for still, s")
            .sample(&[], (own.not_after_unix() - now_unix) as f64);
    }
}

/// Where there is none yet, it has ended.
fn write_web(page: &mut Page, sources: &Sources, now_unix: i64) {
    let shown: Vec<_> = sources.web.iter().flat_map(WebShown::certificates).collect();
    if shown.is_empty() {
        return;
    }
    let help = "How long a web listener's certificate is good for still, s; 0 where there is none yet";
    let mut left = page.own("web_certificate_ends_seconds", Kind::Gauge, help);
    for ShownCertificate { listener, name, until } in &shown {
        let seconds = until.map_or(0, |until| until - now_unix);
        left.about(&[("listener", listener), ("name", name)], seconds as f64);
    }
}

fn write_bundle(page: &mut Page, ca: &CertificateAuthority) {
    let bundle = ca.bundle().borrow().clone();
    page.own("bundle_sequence_number", Kind::Gauge, "Grows with each change of the trust bundle")
        .sample(&[], bundle.sequence_number as f64);
    let [(jwt, jwt_tainted), (wit, wit_tainted)] = [&bundle.jwt_authorities, &bundle.wit_authorities].map(|keys| {
        let tainted = keys.iter().filter(|key| key.tainted).count();
        (keys.len() - tainted, tainted)
    });
    let mut authorities = page.own("bundle_authorities", Kind::Gauge, "Authorities of the trust bundle");
    for (kind, state, count) in [
        ("x509", "trusted", bundle.authorities.len().saturating_sub(bundle.tainted_authorities.len())),
        ("x509", "tainted", bundle.tainted_authorities.len()),
        ("jwt", "trusted", jwt),
        ("jwt", "tainted", jwt_tainted),
        ("wit", "trusted", wit),
        ("wit", "tainted", wit_tainted),
    ] {
        authorities.sample(&[("kind", kind), ("state", state)], count as f64);
    }
}
