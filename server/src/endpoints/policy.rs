//! The one table: which methods there are, whom each is for, and what its request may be. `gate` enforces
//! it before a byte of a body is read; a method that does not stand here does not exist.

use std::mem::size_of;

use ironroot_api::bundle::{MAX_BUNDLE_BYTES, MAX_X509_AUTHORITIES};
use ironroot_api::jwt::MAX_JWT_AUTHORITIES;
use ironroot_api::pb::device::NewDevice;
use ironroot_api::pb::issued::IssuedSvid;
use ironroot_api::pb::pcr_policy::Alternative;
use ironroot_api::pb::svid::{NewWitsvidParams, NewX509svidParams};
use ironroot_api::pb::types::{Bundle, Entry, FederationRelationship, JwtKey, Selector};

use super::body::{FieldLimits, RequestShape};
use crate::devices::{MAX_ALTERNATIVES, MAX_IMPORT, MAX_LABELS};
use crate::federation::MAX_TRUST_DOMAINS;

/// Whom a method is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Strangers too.
    Anyone,
    /// Attested agents with their current certificate.
    Agents,
    /// Servers below this one: identities of entries with `downstream`.
    Downstream,
    /// Attested agents, and administrators.
    Insiders,
    /// The admin socket, admin IDs of the configuration, identities of entries with `admin`.
    Administrators,
    /// The admin socket alone: over TCP the method does not exist.
    AdminSocket,
}

/// A line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// The HTTP/2 path: package, service, method.
    pub path: &'static str,
    /// The callers that may: all others are refused before a byte of the body is read.
    pub who: Who,
    /// How large its request may be, in bytes and in what it decodes to.
    pub request: RequestShape,
    /// Whether its answer grows with the registry: few of them at once per caller.
    pub has_large_answer: bool,
    /// Whether it may change something: then it is done to its end when its caller hangs up, and has its audit line.
    pub changes: bool,
}

/// Items that a batch of entries may have.
pub const MAX_ENTRIES: usize = 10_000;
/// CSRs that a batch may have: SPIRE's agents send at most 500.
pub const MAX_CSRS: usize = 500;
/// SVIDs of its own that an agent may report at once.
pub const MAX_ISSUED: usize = 100;
/// Audiences that a JWT-SVID may have, and bytes of a request for one: a token with more fits into no HTTP header.
const MAX_AUDIENCES: usize = 256;
const MAX_AUDIENCE_BYTES: usize = 16 * 1024;
/// Largest batch, bytes: 10,000 entries, or as many devices as one import may have, each with its hash, a serial and a few labels.
pub const MAX_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// Entry IDs that a sync may ask for at once. SPIRE's agents ask for at most 500.
const MAX_SYNC_IDS: usize = 2000;
/// Bytes of a batch of bundles, or of relationships with their bundles: a few of the largest, or as many small ones as there may be.
const MAX_BUNDLES_BYTES: usize = 1024 * 1024;
const MAX_BUNDLES: usize = MAX_TRUST_DOMAINS as usize;
/// Fields beside the items of a batch: masks, filters, page tokens. Room for those of later versions.
const OTHER_FIELDS: usize = 16;
/// What one item of a kind holds beside its own fields' texts, a few of each kind: see [`FieldLimits`].
const FIELDS_PER_ENTRY: usize = 40;
const FIELDS_PER_DEVICE: usize = 8;
const FIELDS_PER_BUNDLE: usize = 32;
const FIELDS_PER_ISSUED: usize = 8;
/// Registers of one bank, at most.
const MAX_PCRS: usize = 24;

/// A message of fixed fields.
const fn fixed(bytes: usize) -> RequestShape {
    let fields = FieldLimits { outer: OTHER_FIELDS, inner: None };
    RequestShape { bytes, fields, item_bytes: size_of::<Selector>(), streaming: false }
}

/// A message with up to `items` of `item_bytes` each.
const fn batch(bytes: usize, items: usize, item_bytes: usize, inner: Option<usize>) -> RequestShape {
    let fields = FieldLimits { outer: items + OTHER_FIELDS, inner };
    RequestShape { bytes, fields, item_bytes, streaming: false }
}

const fn stream(shape: RequestShape) -> RequestShape {
    RequestShape { streaming: true, ..shape }
}

const fn method(path: &'static str, who: Who, request: RequestShape) -> Method {
    Method { path, who, request, has_large_answer: false, changes: true }
}

/// A method that changes nothing: work for a caller that hung up ends with the call. An SVID that is signed by then is nobody's.
const fn question(method: Method) -> Method {
    Method { changes: false, ..method }
}

const fn large_answer(method: Method) -> Method {
    Method { has_large_answer: true, ..method }
}

/// An ID, a mask, a token.
const SMALL: RequestShape = fixed(4 * 1024);
/// Selectors, labels, IDs to filter by. Its page token is a text: what its fields hold is bounded by its bytes.
const FILTER: RequestShape = batch(64 * 1024, 1000, size_of::<Selector>(), None);
/// The first message is at most 64 kB, and the CSR beside it; the second at most 240 kB, a boot log among it.
const EVIDENCE: RequestShape = stream(fixed(256 * 1024));
const CSR: RequestShape = fixed(16 * 1024);
const CSRS: RequestShape = batch(1024 * 1024, MAX_CSRS, size_of::<NewX509svidParams>(), None);
const ISSUED: RequestShape =
    batch(256 * 1024, MAX_ISSUED, size_of::<IssuedSvid>(), Some(MAX_ISSUED * FIELDS_PER_ISSUED));
const AUDIENCES: RequestShape = batch(MAX_AUDIENCE_BYTES, MAX_AUDIENCES, size_of::<String>(), None);
const SYNC: RequestShape = stream(batch(256 * 1024, MAX_SYNC_IDS, size_of::<String>(), None));
const ENTRIES: RequestShape =
    batch(MAX_BATCH_BYTES, MAX_ENTRIES, size_of::<Entry>(), Some(MAX_ENTRIES * FIELDS_PER_ENTRY));
const ENTRY_IDS: RequestShape = batch(4 * 1024 * 1024, MAX_ENTRIES, size_of::<String>(), None);
/// A policy with its labels and alternatives. Its name is a text beside them: what they hold is bounded by its bytes.
const PCR_POLICY: RequestShape = batch(256 * 1024, MAX_ALTERNATIVES + MAX_LABELS, size_of::<Alternative>(), None);
/// A device's key, a name, labels, registers by number.
const LEARNT_POLICY: RequestShape = batch(64 * 1024, MAX_LABELS + MAX_PCRS, size_of::<String>(), None);
const DEVICES: RequestShape =
    batch(MAX_BATCH_BYTES, MAX_IMPORT, size_of::<NewDevice>(), Some(MAX_IMPORT * FIELDS_PER_DEVICE));

/// As many keys as CSRs, which are longer: an RSA key of 8192 bits takes about a thousand bytes.
const WIT_KEYS: RequestShape = batch(640 * 1024, MAX_CSRS, size_of::<NewWitsvidParams>(), None);
/// As much as a bundle holds.
const AUTHORITIES: RequestShape =
    batch(MAX_BUNDLE_BYTES, MAX_X509_AUTHORITIES + MAX_JWT_AUTHORITIES, size_of::<JwtKey>(), None);
const BUNDLES: RequestShape =
    batch(MAX_BUNDLES_BYTES, MAX_BUNDLES, size_of::<Bundle>(), Some(MAX_BUNDLES * FIELDS_PER_BUNDLE));
const RELATIONSHIPS: RequestShape =
    batch(MAX_BUNDLES_BYTES, MAX_BUNDLES, size_of::<FederationRelationship>(), Some(MAX_BUNDLES * FIELDS_PER_BUNDLE));
const TRUST_DOMAINS: RequestShape = batch(96 * 1024, MAX_BUNDLES, size_of::<String>(), None);

use Who::{AdminSocket, Administrators, Agents, Anyone, Downstream, Insiders};

/// The table. Source of whom: SPIRE's policy_data.json; the services of devices and of policies are for administrators, those of changes and of what was issued for agents.
pub const POLICY: &[Method] = &[
    question(method("/spire.api.server.bundle.v1.Bundle/GetBundle", Anyone, SMALL)),
    method("/spire.api.server.agent.v1.Agent/AttestAgent", Anyone, EVIDENCE),
    method("/spire.api.server.agent.v1.Agent/RenewAgent", Agents, CSR),
    method("/spire.api.server.agent.v1.Agent/PostStatus", Agents, SMALL),
    large_answer(question(method("/spire.api.server.entry.v1.Entry/GetAuthorizedEntries", Agents, SMALL))),
    large_answer(question(method("/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries", Agents, SYNC))),
    question(method("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", Agents, CSRS)),
    question(method("/spire.api.server.svid.v1.SVID/NewJWTSVID", Agents, AUDIENCES)),
    question(method("/spire.api.server.svid.v1.SVID/MintJWTSVID", Administrators, AUDIENCES)),
    question(method("/spire.api.server.svid.v1.SVID/BatchNewWITSVID", Agents, WIT_KEYS)),
    question(method("/spire.api.server.svid.v1.SVID/MintWITSVID", Administrators, SMALL)),
    question(method("/ironroot.api.server.change.v1.Change/WatchChanges", Agents, SMALL)),
    method("/ironroot.api.server.issued.v1.Issued/ReportIssued", Agents, ISSUED),
    question(method("/spire.api.server.svid.v1.SVID/NewDownstreamX509CA", Downstream, CSR)),
    method("/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority", Downstream, SMALL),
    method("/spire.api.server.bundle.v1.Bundle/PublishWITAuthority", Downstream, SMALL),
    method("/spire.api.server.bundle.v1.Bundle/AppendBundle", Administrators, AUTHORITIES),
    question(method("/spire.api.server.agent.v1.Agent/CountAgents", Administrators, FILTER)),
    large_answer(question(method("/spire.api.server.agent.v1.Agent/ListAgents", Administrators, FILTER))),
    question(method("/spire.api.server.agent.v1.Agent/GetAgent", Administrators, SMALL)),
    method("/spire.api.server.agent.v1.Agent/DeleteAgent", Administrators, SMALL),
    method("/spire.api.server.agent.v1.Agent/BanAgent", Administrators, SMALL),
    method("/spire.api.server.agent.v1.Agent/CreateJoinToken", Administrators, SMALL),
    question(method("/spire.api.server.entry.v1.Entry/CountEntries", Administrators, FILTER)),
    large_answer(question(method("/spire.api.server.entry.v1.Entry/ListEntries", Administrators, FILTER))),
    question(method("/spire.api.server.entry.v1.Entry/GetEntry", Administrators, SMALL)),
    large_answer(method("/spire.api.server.entry.v1.Entry/BatchCreateEntry", Administrators, ENTRIES)),
    large_answer(method("/spire.api.server.entry.v1.Entry/BatchUpdateEntry", Administrators, ENTRIES)),
    method("/spire.api.server.entry.v1.Entry/BatchDeleteEntry", Administrators, ENTRY_IDS),
    large_answer(method("/ironroot.api.server.device.v1.Device/ImportDevices", Administrators, DEVICES)),
    large_answer(question(method("/ironroot.api.server.device.v1.Device/ListDevices", Administrators, FILTER))),
    question(method("/ironroot.api.server.device.v1.Device/GetDevice", Administrators, SMALL)),
    method("/ironroot.api.server.device.v1.Device/ApproveDevice", Administrators, SMALL),
    method("/ironroot.api.server.device.v1.Device/BanDevice", Administrators, SMALL),
    method("/ironroot.api.server.device.v1.Device/DeleteDevice", Administrators, SMALL),
    large_answer(question(method("/ironroot.api.server.device.v1.Device/AdviseOnEntries", Administrators, ENTRIES))),
    large_answer(question(method("/ironroot.api.server.device.v1.Device/CountDependents", Administrators, ENTRY_IDS))),
    question(method("/ironroot.api.server.pcrpolicy.v1.PcrPolicy/ListPolicies", Administrators, SMALL)),
    question(method("/ironroot.api.server.pcrpolicy.v1.PcrPolicy/GetPolicy", Administrators, SMALL)),
    method("/ironroot.api.server.pcrpolicy.v1.PcrPolicy/SetPolicy", Administrators, PCR_POLICY),
    method("/ironroot.api.server.pcrpolicy.v1.PcrPolicy/DeletePolicy", Administrators, SMALL),
    method("/ironroot.api.server.pcrpolicy.v1.PcrPolicy/LearnPolicy", Administrators, LEARNT_POLICY),
    method("/spire.api.server.svid.v1.SVID/MintX509SVID", Administrators, CSR),
    question(method("/spire.api.server.localauthority.v1.LocalAuthority/GetX509AuthorityState", Administrators, SMALL)),
    method("/spire.api.server.localauthority.v1.LocalAuthority/PrepareX509Authority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/ActivateX509Authority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/TaintX509Authority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509Authority", Administrators, SMALL),
    question(method("/spire.api.server.localauthority.v1.LocalAuthority/GetJWTAuthorityState", Administrators, SMALL)),
    method("/spire.api.server.localauthority.v1.LocalAuthority/PrepareJWTAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/ActivateJWTAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/TaintJWTAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/RevokeJWTAuthority", Administrators, SMALL),
    question(method("/spire.api.server.localauthority.v1.LocalAuthority/GetWITAuthorityState", Administrators, SMALL)),
    method("/spire.api.server.localauthority.v1.LocalAuthority/PrepareWITAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/ActivateWITAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/TaintWITAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/RevokeWITAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/TaintX509UpstreamAuthority", Administrators, SMALL),
    method("/spire.api.server.localauthority.v1.LocalAuthority/RevokeX509UpstreamAuthority", Administrators, SMALL),
    question(method("/ironroot.api.server.root.v1.Root/GetRootState", Administrators, SMALL)),
    method("/ironroot.api.server.root.v1.Root/PrepareRoot", Administrators, SMALL),
    method("/ironroot.api.server.root.v1.Root/ActivateRoot", Administrators, SMALL),
    question(method("/spire.api.server.bundle.v1.Bundle/CountBundles", Administrators, SMALL)),
    large_answer(question(method("/spire.api.server.bundle.v1.Bundle/ListFederatedBundles", Administrators, SMALL))),
    question(method("/spire.api.server.bundle.v1.Bundle/GetFederatedBundle", Insiders, SMALL)),
    large_answer(method("/spire.api.server.bundle.v1.Bundle/BatchCreateFederatedBundle", Administrators, BUNDLES)),
    large_answer(method("/spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle", Administrators, BUNDLES)),
    large_answer(method("/spire.api.server.bundle.v1.Bundle/BatchSetFederatedBundle", Administrators, BUNDLES)),
    method("/spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle", Administrators, TRUST_DOMAINS),
    large_answer(question(method(
        "/spire.api.server.trustdomain.v1.TrustDomain/ListFederationRelationships",
        Administrators,
        SMALL,
    ))),
    question(method("/spire.api.server.trustdomain.v1.TrustDomain/GetFederationRelationship", Administrators, SMALL)),
    large_answer(method(
        "/spire.api.server.trustdomain.v1.TrustDomain/BatchCreateFederationRelationship",
        Administrators,
        RELATIONSHIPS,
    )),
    large_answer(method(
        "/spire.api.server.trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship",
        Administrators,
        RELATIONSHIPS,
    )),
    method(
        "/spire.api.server.trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship",
        Administrators,
        TRUST_DOMAINS,
    ),
    method("/spire.api.server.trustdomain.v1.TrustDomain/RefreshBundle", Administrators, SMALL),
    question(method("/ironroot.api.server.status.v1.Status/GetStatus", AdminSocket, SMALL)),
    question(method("/spire.api.server.debug.v1.Debug/GetInfo", AdminSocket, SMALL)),
    question(method("/spire.api.server.logger.v1.Logger/GetLogger", AdminSocket, SMALL)),
    method("/spire.api.server.logger.v1.Logger/SetLogLevel", AdminSocket, SMALL),
    method("/spire.api.server.logger.v1.Logger/ResetLogLevel", AdminSocket, SMALL),
    question(method("/grpc.health.v1.Health/Check", AdminSocket, SMALL)),
    question(method("/grpc.health.v1.Health/Watch", AdminSocket, SMALL)),
];

/// The line of that path.
pub fn find(path: &str) -> Option<&'static Method> {
    POLICY.iter().find(|method| method.path == path)
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::device::ImportDevicesRequest;
    use prost::Message;

    use super::super::body::{Counted, FieldCounter};
    use super::super::roles::{Role, RoleLimits};
    use super::*;

    /// Memory of the largest message of that shape, bytes, as it is charged.
    fn largest(shape: &RequestShape) -> usize {
        let FieldLimits { outer, inner } = shape.fields;
        let counted = Counted { outer, inner: inner.unwrap_or(0) };
        shape.memory_of_texts(shape.bytes) + shape.memory_of_items(counted)
    }

    /// What one source of that role may hold, bytes.
    fn share(role: Role) -> usize {
        let RoleLimits { body_bytes, portion, .. } = role.limits();
        body_bytes / (portion + 1)
    }

    #[test]
    fn every_method_stands_once() {
        for (index, method) in POLICY.iter().enumerate() {
            assert!(POLICY.iter().skip(index + 1).all(|other| other.path != method.path), "{} twice", method.path);
        }
        assert_eq!(find("/spire.api.server.debug.v1.Debug/GetOut"), None);
    }

    #[test]
    fn what_is_no_question_goes_on_when_its_caller_hangs_up() {
        let signed =
            ["BatchNewX509SVID", "NewJWTSVID", "MintJWTSVID", "BatchNewWITSVID", "MintWITSVID", "NewDownstreamX509CA"];
        let questions = [&["Get", "List", "Count", "Sync", "Check", "Watch", "Advise"][..], &signed].concat();
        for Method { path, changes, .. } in POLICY {
            let name = path.rsplit('/').next().expect("a name");
            let is_question = questions.iter().any(|question| name.starts_with(question));
            assert_eq!(*changes, !is_question, "{path}");
        }
    }

    #[test]
    fn a_request_of_each_kind_has_its_own_bounds() {
        // Bytes, fields of the message, fields of its items, whether it streams, whether its answer grows with the registry.
        for (method, bounds) in [
            ("/GetBundle", (4_096, 16, None, false, false)),
            ("/AttestAgent", (262_144, 16, None, true, false)),
            ("/RenewAgent", (16_384, 16, None, false, false)),
            ("/BatchNewX509SVID", (1_048_576, 516, None, false, false)),
            ("/NewJWTSVID", (16_384, 272, None, false, false)),
            ("/MintJWTSVID", (16_384, 272, None, false, false)),
            ("/GetAuthorizedEntries", (4_096, 16, None, false, true)),
            ("/SyncAuthorizedEntries", (262_144, 2_016, None, true, true)),
            ("/ListEntries", (65_536, 1_016, None, false, true)),
            ("/BatchCreateEntry", (16_777_216, 10_016, Some(400_000), false, true)),
            ("/BatchDeleteEntry", (4_194_304, 10_016, None, false, false)),
            ("/ImportDevices", (16_777_216, 100_016, Some(800_000), false, true)),
        ] {
            let line = POLICY.iter().find(|line| line.path.ends_with(method)).expect("a line");
            let RequestShape { bytes, fields, streaming, .. } = line.request;
            assert_eq!((bytes, fields.outer, fields.inner, streaming, line.has_large_answer), bounds, "{method}");
            assert_eq!(find(line.path), Some(line));
        }
    }

    #[test]
    fn every_role_can_send_the_largest_request_it_may() {
        for method in POLICY {
            let roles: &[Role] = match method.who {
                Who::Anyone => &Role::ALL,
                Who::Agents => &[Role::Agent],
                Who::Downstream => &[Role::Downstream],
                Who::Insiders => &[Role::Agent, Role::RemoteAdministrator, Role::LocalAdministrator],
                Who::Administrators => &[Role::RemoteAdministrator, Role::LocalAdministrator],
                Who::AdminSocket => &[Role::LocalAdministrator],
            };
            for role in roles {
                let (needed, share) = (largest(&method.request), share(*role));
                assert!(needed <= share, "{} by {role:?}: {needed} bytes of {share}", method.path);
            }
        }
    }

    #[test]
    fn both_administrators_can_import_as_many_devices_as_there_may_be_with_serials_and_labels() {
        let labels = ["site", "line", "model"].map(|name| (name.to_owned(), "hall 2, west".to_owned()));
        let device = |number: usize| NewDevice {
            ek_sha256: format!("{number:064x}"),
            serial: Some(format!("SN-{number:09}")),
            labels: labels.clone().into_iter().collect(),
            ..NewDevice::default()
        };
        let devices = (0..MAX_IMPORT).map(device).collect();
        let message = ImportDevicesRequest { devices, ..ImportDevicesRequest::default() }.encode_to_vec();
        assert!(message.len() <= DEVICES.bytes, "{} bytes", message.len());
        let counted = FieldCounter::new(DEVICES.fields).feed(&message).expect("no more items than there may be");
        let needed = DEVICES.memory_of_texts(message.len()) + DEVICES.memory_of_items(counted);
        for role in [Role::RemoteAdministrator, Role::LocalAdministrator] {
            assert!(needed <= share(role), "{role:?}: {needed} bytes of {}", share(role));
        }
    }

    #[test]
    fn nobody_but_administrators_can_send_a_megabyte_of_anything_but_csrs() {
        let with_certificates = [Who::Anyone, Who::Agents, Who::Downstream, Who::Insiders];
        for method in POLICY.iter().filter(|method| with_certificates.contains(&method.who)) {
            assert!(method.request.bytes <= 256 * 1024 || method.path.contains("BatchNew"), "{}", method.path);
        }
    }
}
