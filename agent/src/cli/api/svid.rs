//! The Workload API's answer, checked and shown.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Display, Write};
use std::time::Duration;

use ironroot_api::SpiffeId;
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::workload::{X509svid, X509svidResponse};
use ironroot_api::tls::{SvidRefusal, TrustAnchors};
use ironroot_api::{spire_time, utc};
use ironroot_shell::command_line::{CommandError, base64, counted, shown};
use prost::bytes::Bytes;
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use webpki::KeyUsage;
use zeroize::Zeroizing;

/// A workload's SVIDs, each verified against the bundle that came with it.
#[derive(Debug)]
pub(in crate::cli) struct WorkloadSvids {
    pub(in crate::cli) svids: Vec<WorkloadSvid>,
    pub(in crate::cli) federated: BTreeMap<String, Vec<Certificate>>,
}

pub(in crate::cli) struct WorkloadSvid {
    pub(in crate::cli) id: SpiffeId,
    hint: String,
    /// The SVID first, then its intermediates.
    pub(in crate::cli) chain: Vec<Certificate>,
    /// PKCS#8.
    pub(in crate::cli) key: Zeroizing<Vec<u8>>,
    pub(in crate::cli) bundle: Vec<Certificate>,
}

// Not derived: the key stays out of logs.
impl fmt::Debug for WorkloadSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSvid").field("id", &self.id).finish_non_exhaustive()
    }
}

impl WorkloadSvids {
    /// Parses `response` and verifies each SVID at `now_unix`, UNIX seconds by this machine's clock; one that begins later, at
    /// its begin: nobody signs ahead, so it is the clock that is wrong, as the agent judges too (docs/trusted_time.md, 5).
    pub(in crate::cli) fn verified(response: &X509svidResponse, now_unix: i64) -> Result<Self, CommandError> {
        if response.svids.is_empty() {
            return Err(CommandError::Malformed("the agent's answer has no SVID".to_owned()));
        }
        let svids =
            response.svids.iter().map(|svid| WorkloadSvid::verified(svid, now_unix)).collect::<Result<_, _>>()?;
        Ok(Self { svids, federated: read_federated(&response.federated_bundles)? })
    }

    /// A line for people if this machine's clock is before what was received; else nothing.
    pub(super) fn early_clock(&self, now_unix: i64) -> String {
        let Some(begin) = self.svids.iter().map(|svid| begin(&svid.chain)).max().filter(|begin| *begin > now_unix)
        else {
            return String::new();
        };
        format!(
            "Warning: this machine's clock shows {}, but what was received begins on {}. The agent serves by trusted time; \
             programs that verify by this clock will refuse it: set the clock\n",
            utc(now_unix),
            utc(begin)
        )
    }

    /// The answer for people; `waited` is how long it took.
    pub(super) fn describe(&self, waited: Duration) -> String {
        let mut text = format!("Received {} after {waited:?}\n", counted(self.svids.len(), "svid", "svids"));
        for svid in &self.svids {
            text.push('\n');
            svid.describe(&mut text);
            for (trust_domain, bundle) in &self.federated {
                authorities(&mut text, &format!("[{}] ", shown(trust_domain)), bundle);
            }
        }
        text.push('\n');
        text
    }
}

impl WorkloadSvid {
    /// The same of one; what it says of a key is not looked at.
    pub(in crate::cli) fn verified(svid: &X509svid, now_unix: i64) -> Result<Self, CommandError> {
        let id = SpiffeId::parse(&svid.spiffe_id).map_err(|error| wrong(&svid.spiffe_id, &error))?;
        let parse = |der: &[u8]| Certificate::parse_concatenated(der).map_err(|error| wrong(&id, &error));
        let (chain, bundle) = (parse(&svid.x509_svid)?, parse(&svid.bundle)?);
        let ders = |certificates: &[Certificate]| -> Vec<CertificateDer<'static>> {
            certificates.iter().map(|certificate| certificate.der().clone()).collect()
        };
        let anchors = TrustAnchors::new(id.trust_domain(), &ders(&bundle)).map_err(|error| wrong(&id, &error))?;
        let (leaf, intermediates) = chain.split_first().ok_or_else(|| wrong(&id, &"there is no certificate"))?;
        let intermediates = ders(intermediates);
        let verified = anchors
            .verify(leaf.der(), &intermediates, KeyUsage::client_auth(), now_unix.max(begin(&chain)))
            .map_err(|refusal| refused(&id, refusal, &chain, now_unix))?;
        if *verified.spiffe_id() != id {
            return Err(wrong(&id, &format_args!("its certificate is for {}", verified.spiffe_id())));
        }
        let key = Zeroizing::new(svid.x509_svid_key.to_vec());
        Ok(Self { id, hint: svid.hint.clone(), chain, key, bundle })
    }

    /// When the first certificate of the chain ends, UNIX seconds.
    pub(in crate::cli) fn end(&self) -> i64 {
        self.chain.iter().map(Certificate::not_after_unix).min().unwrap_or(i64::MAX)
    }

    fn describe(&self, text: &mut String) {
        line(text, "SPIFFE ID:\t\t", &self.id);
        if !self.hint.is_empty() {
            line(text, "Hint:\t\t\t", &self.hint);
        }
        for (index, certificate) in self.chain.iter().enumerate() {
            let name = if index == 0 { "SVID".to_owned() } else { format!("Intermediate #{index}") };
            validity(text, &name, certificate);
        }
        authorities(text, "", &self.bundle);
    }
}

/// Bundles of other trust domains, by their SPIFFE IDs.
pub(in crate::cli) fn read_federated(
    told: &HashMap<String, Bytes>,
) -> Result<BTreeMap<String, Vec<Certificate>>, CommandError> {
    let each = told.iter().map(|(trust_domain, bundle)| {
        let bundle = Certificate::parse_concatenated(bundle).map_err(|error| wrong(trust_domain, &error))?;
        Ok((trust_domain.clone(), bundle))
    });
    each.collect()
}

/// The answer in the JSON form of protocol buffers, the private keys included, as SPIRE prints it.
pub(super) fn to_json(response: &X509svidResponse) -> Value {
    let svid = |svid: &X509svid| {
        json!({
            "spiffe_id": svid.spiffe_id,
            "x509_svid": base64(&svid.x509_svid),
            "x509_svid_key": base64(&svid.x509_svid_key),
            "bundle": base64(&svid.bundle),
            "hint": svid.hint,
        })
    };
    let federated: serde_json::Map<String, Value> =
        response.federated_bundles.iter().map(|(name, bundle)| (name.clone(), base64(bundle))).collect();
    json!({
        "svids": response.svids.iter().map(svid).collect::<Value>(),
        "crl": response.crl.iter().map(|crl| base64(crl)).collect::<Value>(),
        "federated_bundles": federated,
    })
}

fn authorities(text: &mut String, prefix: &str, bundle: &[Certificate]) {
    for (index, authority) in bundle.iter().enumerate() {
        validity(text, &format!("{prefix}CA #{}", index + 1), authority);
    }
}

fn validity(text: &mut String, name: &str, certificate: &Certificate) {
    line(text, &format!("{name} Valid After:\t"), spire_time(certificate.not_before_unix()));
    line(text, &format!("{name} Valid Until:\t"), spire_time(certificate.not_after_unix()));
}

fn line(text: &mut String, label: &str, value: impl Display) {
    writeln!(text, "{label}{}", shown(value)).expect("writing to a string cannot fail");
}

/// When the last certificate of `chain` begins, UNIX seconds.
fn begin(chain: &[Certificate]) -> i64 {
    chain.iter().map(Certificate::not_before_unix).max().unwrap_or(i64::MIN)
}

/// What a clock that is ahead looks like is said with both times: which of them is wrong, nobody here can know.
fn refused(id: &SpiffeId, refusal: SvidRefusal, chain: &[Certificate], now_unix: i64) -> CommandError {
    let end = chain.iter().map(Certificate::not_after_unix).min();
    match (refusal, end) {
        (SvidRefusal::Expired, Some(end)) if end <= now_unix => wrong(
            id,
            &format_args!(
                "it ended on {}, and this machine's clock shows {}: set the clock if it is wrong; the agent serves by trusted time",
                utc(end),
                utc(now_unix)
            ),
        ),
        (refusal, _) => wrong(id, &refusal),
    }
}

fn wrong(what: &dyn Display, why: &dyn Display) -> CommandError {
    CommandError::Malformed(format!("the agent's answer for {} is not usable: {}", shown(what), shown(why)))
}

#[cfg(test)]
mod tests;
