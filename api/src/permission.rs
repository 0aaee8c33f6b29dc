//! PermissionDenied with SPIRE's machine-readable reason, from which agents decide to attest again or to stop.

use prost::Message;
use prost_types::Any;
use tonic::{Code, Status};

use crate::pb::types::permission_denied_details::Reason;
use crate::pb::types::{PermissionDeniedDetails, StatusWithDetails};

/// The detail's type URL, as SPIRE's agents expect it.
const TYPE_URL: &str = "type.googleapis.com/spire.api.types.PermissionDeniedDetails";

/// A PermissionDenied status that carries `reason`.
pub fn permission_denied(reason: Reason, message: &str) -> Status {
    let detail = PermissionDeniedDetails { reason: reason.into() };
    let status = StatusWithDetails {
        code: Code::PermissionDenied.into(),
        message: message.to_owned(),
        details: vec![Any { type_url: TYPE_URL.to_owned(), value: detail.encode_to_vec() }],
    };
    Status::with_details(Code::PermissionDenied, message, status.encode_to_vec().into())
}

/// The reason that a status carries, if it is PermissionDenied and carries one.
pub fn denial_reason(status: &Status) -> Option<Reason> {
    if status.code() != Code::PermissionDenied {
        return None;
    }
    let details = StatusWithDetails::decode(status.details()).ok()?.details;
    let detail = details.into_iter().find(|any| any.type_url == TYPE_URL)?;
    Reason::try_from(PermissionDeniedDetails::decode(&*detail.value).ok()?.reason).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_survives_the_wire_form() {
        for reason in [Reason::AgentExpired, Reason::AgentNotActive, Reason::AgentBanned, Reason::AgentMustReattest] {
            assert_eq!(denial_reason(&permission_denied(reason, "no")), Some(reason));
        }
        assert_eq!(denial_reason(&Status::permission_denied("plain")), None);
        assert_eq!(denial_reason(&Status::unavailable("other")), None);
    }

    #[test]
    fn bytes_are_those_that_spire_sends() {
        let status = permission_denied(Reason::AgentBanned, "x");
        let url = TYPE_URL.as_bytes();
        let mut expected = b"\x08\x07\x12\x01x\x1a".to_vec();
        expected.extend([url.len() as u8 + 6, 0x0a, url.len() as u8]);
        expected.extend_from_slice(url);
        expected.extend_from_slice(b"\x12\x02\x08\x04");
        assert_eq!(status.details(), expected);
    }
}
