//! The question for a list of measured files. Its answer is the entries, as the kernel has them.

use super::json::{ImaRequestJson, VERSION, check_version};
use crate::node::Refusal;
use crate::node::json::{decode, encode};

/// The server's question for more of the list. Asked only of those who said that they have one, once their quote is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImaRequest {
    /// Entries that the server has seen: the answer begins with the one after these. Empty if there are none.
    pub known: u64,
}

impl ImaRequest {
    /// The message as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        encode(&ImaRequestJson { version: VERSION, ima_from: self.known })
    }

    /// Parses the message; refuses unknown fields and anything over its cap.
    pub fn from_json(json: &[u8]) -> Result<Self, Refusal> {
        let message: ImaRequestJson = decode(json)?;
        check_version(message.version)?;
        Ok(Self { known: message.ima_from })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Challenge;
    use super::*;

    #[test]
    fn a_question_for_files_is_no_challenge_and_is_read_as_it_is_written() {
        let request = ImaRequest { known: u64::MAX };
        assert_eq!(ImaRequest::from_json(&request.to_json()), Ok(request));
        assert!(matches!(Challenge::from_json(&request.to_json()), Err(Refusal::MessageFormat(_))));
        let newer = br#"{"version":2,"ima_from":0}"#;
        assert_eq!(ImaRequest::from_json(newer), Err(Refusal::MessageVersion(2)));
    }
}
