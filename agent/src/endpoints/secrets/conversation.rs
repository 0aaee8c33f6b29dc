//! What an Envoy says on a stream, and what it was told: which answer a message is about, and whether it asks for something else.
//!
//! Source: Envoy, "xDS REST and gRPC protocol", ACK and NACK; SPIRE, pkg/agent/endpoints/sdsv3/handler.go.

use std::collections::BTreeSet;

use ironroot_api::pb::discovery::DiscoveryRequest;
use ironroot_api::pb::envoy_core::Node;
use ironroot_api::pb::envoy_core::node::UserAgentVersionType;
use prost_types::value::Kind;
use tonic::Status;

use crate::endpoints::door::VALIDATION_KEY;

/// The one type of resource there is.
pub(super) const SECRET_TYPE: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// How a bundle is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validation {
    /// With Envoy's validator of SPIFFE certificates: each trust domain by its own authorities.
    Spiffe,
    /// As a plain list of authorities, for an Envoy that is told or too old to know better.
    TrustedCa,
}

/// What is wanted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// None: everything.
    pub names: BTreeSet<String>,
    /// As the caller says it.
    pub type_url: String,
    pub validation: Validation,
}

impl Wanted {
    /// What `request` wants, of an Envoy of which `validation` was known before.
    pub fn by(request: DiscoveryRequest, validation: Validation) -> Result<Self, Status> {
        if !matches!(request.type_url.as_str(), "" | SECRET_TYPE) {
            let text = format!("only resources of type {SECRET_TYPE} are served");
            return Err(Status::invalid_argument(text));
        }
        let names = request.resource_names.into_iter().filter(|name| !name.is_empty()).collect();
        let validation = request.node.as_ref().map_or(validation, |node| validation_of(node, validation));
        Ok(Self { names, type_url: request.type_url, validation })
    }
}

/// What a message came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It wants an answer.
    Asked,
    /// It took the last answer, or none that matters.
    Took,
    /// It is about an older answer than the last one, and says nothing of this one.
    Stale,
}

/// See the module. Its first message asks.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    /// Where neither the Envoy nor its version says otherwise.
    default: Validation,
    wanted: Option<Wanted>,
    /// Rises with each answer that is new to the Envoy, from 1.
    version: u64,
    /// Of the last answer.
    nonce: Option<String>,
    /// The next answer is about other names, and not about a change.
    asked_anew: bool,
}

impl Conversation {
    pub fn new(default: Validation) -> Self {
        Self { default, wanted: None, version: 1, nonce: None, asked_anew: false }
    }

    /// What is wanted; none before the first message.
    pub fn wanted(&self) -> Option<&Wanted> {
        self.wanted.as_ref()
    }

    /// Whether `request` says that the last answer was not taken.
    pub fn is_rejection(&self, request: &DiscoveryRequest) -> bool {
        let is_about_the_last = self.nonce.as_deref() == Some(&request.response_nonce);
        request.error_detail.is_some() || is_about_the_last && request.version_info != self.version.to_string()
    }

    /// Takes a message in.
    pub fn hear(&mut self, request: DiscoveryRequest) -> Result<Said, Status> {
        if self.nonce.as_ref().is_some_and(|nonce| *nonce != request.response_nonce) {
            return Ok(Said::Stale);
        }
        let known = self.wanted.as_ref().map_or(self.default, |wanted| wanted.validation);
        let default = if request.node.is_some() { self.default } else { known };
        let wanted = Wanted::by(request, default)?;
        let is_new = self.wanted.as_ref().is_none_or(|before| before.names != wanted.names);
        self.asked_anew |= is_new;
        self.wanted = Some(wanted);
        Ok(if is_new { Said::Asked } else { Said::Took })
    }

    /// The version of the next answer, which carries `nonce`.
    pub fn answer(&mut self, nonce: String) -> u64 {
        if !std::mem::take(&mut self.asked_anew) {
            self.version += 1;
        }
        self.nonce = Some(nonce);
        self.version
    }
}

/// What an Envoy says of itself, by a key of its metadata or by its version.
fn validation_of(node: &Node, default: Validation) -> Validation {
    if is_too_old(node) {
        return Validation::TrustedCa;
    }
    let said = node.metadata.as_ref().and_then(|metadata| metadata.fields.get(VALIDATION_KEY)?.kind.as_ref());
    match said.and_then(truth) {
        Some(true) => Validation::TrustedCa,
        Some(false) => Validation::Spiffe,
        None => default,
    }
}

/// Envoy knows the validator from 1.18 on.
fn is_too_old(node: &Node) -> bool {
    let Some(UserAgentVersionType::UserAgentBuildVersion(version)) = &node.user_agent_version_type else {
        return false;
    };
    version.version.as_ref().is_some_and(|version| (version.major_number, version.minor_number) < (1, 18))
}

/// A truth value in the forms that SPIRE reads; others say nothing.
fn truth(kind: &Kind) -> Option<bool> {
    match kind {
        Kind::BoolValue(value) => Some(*value),
        // Source: Go, strconv.ParseBool.
        Kind::StringValue(text) => match text.as_str() {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::envoy_core::BuildVersion;
    use ironroot_api::pb::envoy_type::SemanticVersion;
    use ironroot_api::pb::google::rpc;
    use prost_types::{Struct, Value};

    use super::*;

    fn naming(names: &[&str], version: &str, nonce: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            type_url: SECRET_TYPE.to_owned(),
            ..DiscoveryRequest::default()
        }
    }

    fn hear(conversation: &mut Conversation, request: DiscoveryRequest) -> Said {
        conversation.hear(request).expect("wants secrets")
    }

    #[test]
    fn an_answer_is_taken_or_not_and_other_names_ask_again() {
        let mut talk = Conversation::new(Validation::Spiffe);
        assert!(talk.wanted().is_none());
        assert_eq!(hear(&mut talk, naming(&["default"], "", "")), Said::Asked);
        assert_eq!(talk.answer("a".into()), 1);
        assert_eq!(hear(&mut talk, naming(&["default"], "1", "a")), Said::Took);
        assert_eq!(talk.answer("b".into()), 2, "something changed");
        assert_eq!(hear(&mut talk, naming(&["ROOTCA"], "1", "a")), Said::Stale);
        assert_eq!(talk.wanted().expect("asked").names, ["default".to_owned()].into());
        assert_eq!(hear(&mut talk, naming(&["default", "", "ROOTCA"], "2", "b")), Said::Asked);
        assert_eq!(talk.answer("c".into()), 2, "other names, nothing changed");
        assert_eq!(hear(&mut talk, naming(&["ROOTCA", "default"], "2", "c")), Said::Took, "in another order");
    }

    #[test]
    fn a_rejection_is_noticed_and_its_names_count_all_the_same() {
        let mut talk = Conversation::new(Validation::Spiffe);
        assert!(!talk.is_rejection(&naming(&["default"], "", "")), "there was no answer yet");
        hear(&mut talk, naming(&["default"], "", ""));
        talk.answer("a".into());
        let rejected = naming(&["ALL"], "", "a");
        assert!(talk.is_rejection(&rejected), "the version is not the one that was sent");
        assert!(!talk.is_rejection(&naming(&["ALL"], "1", "a")));
        let complaint = rpc::Status { code: 3, message: "no".into() };
        assert!(talk.is_rejection(&DiscoveryRequest { error_detail: Some(complaint), ..naming(&[], "1", "a") }));
        assert_eq!(hear(&mut talk, rejected), Said::Asked);
    }

    #[test]
    fn another_type_of_resource_is_refused() {
        let mut talk = Conversation::new(Validation::Spiffe);
        let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
        let refusal = talk.hear(DiscoveryRequest { type_url: cluster, ..naming(&[], "", "") }).expect_err("refused");
        assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
        assert!(talk.hear(DiscoveryRequest { type_url: String::new(), ..naming(&[], "", "") }).is_ok());
    }

    fn node(key: &str, kind: Kind, version: Option<(u32, u32)>) -> Node {
        let version = version.map(|(major_number, minor_number)| {
            let version = Some(SemanticVersion { major_number, minor_number, patch: 0 });
            UserAgentVersionType::UserAgentBuildVersion(BuildVersion { version })
        });
        let metadata = Struct { fields: [(key.to_owned(), Value { kind: Some(kind) })].into() };
        Node { metadata: Some(metadata), user_agent_version_type: version, ..Node::default() }
    }

    #[test]
    fn an_envoy_says_by_metadata_or_version_how_it_wants_bundles() {
        use Validation::{Spiffe, TrustedCa};
        let text = |text: &str| Kind::StringValue(text.to_owned());
        for (default, key, kind, version, wanted) in [
            (Spiffe, VALIDATION_KEY, Kind::BoolValue(true), None, TrustedCa),
            (TrustedCa, VALIDATION_KEY, Kind::BoolValue(false), None, Spiffe),
            (Spiffe, VALIDATION_KEY, text("T"), None, TrustedCa),
            (TrustedCa, VALIDATION_KEY, text("False"), Some((1, 40)), Spiffe),
            (Spiffe, VALIDATION_KEY, text("yes"), None, Spiffe),
            (TrustedCa, VALIDATION_KEY, Kind::NumberValue(0.0), None, TrustedCa),
            (Spiffe, "other", Kind::BoolValue(true), None, Spiffe),
            (Spiffe, VALIDATION_KEY, Kind::BoolValue(false), Some((1, 17)), TrustedCa),
            (Spiffe, "other", Kind::BoolValue(true), Some((1, 18)), Spiffe),
            (Spiffe, "other", Kind::BoolValue(true), Some((2, 0)), Spiffe),
        ] {
            assert_eq!(validation_of(&node(key, kind.clone(), version), default), wanted, "{key} {kind:?} {version:?}");
        }
    }

    #[test]
    fn what_an_envoy_said_of_itself_stays_true_of_messages_that_do_not_say_it_again() {
        let mut talk = Conversation::new(Validation::Spiffe);
        let first = node(VALIDATION_KEY, Kind::BoolValue(true), None);
        hear(&mut talk, DiscoveryRequest { node: Some(first), ..naming(&["ROOTCA"], "", "") });
        talk.answer("a".into());
        hear(&mut talk, naming(&["ALL"], "1", "a"));
        assert_eq!(talk.wanted().expect("asked").validation, Validation::TrustedCa);
        hear(&mut talk, DiscoveryRequest { node: Some(Node::default()), ..naming(&["x"], "1", "a") });
        assert_eq!(talk.wanted().expect("asked").validation, Validation::Spiffe, "it says nothing of it any more");
    }
}
