//! Names of what an agent holds, by which server and agent know without listing it that they mean the same. They are those of
//! `ironroot.api.server.change.v1`.

use aws_lc_rs::digest::{Context, SHA256, digest};
use prost::Message;

use crate::pb::types::Bundle;

/// What the digest of a view begins with.
const VIEW: &[u8] = b"ironroot view 1\n";

/// The entries that an agent may serve, as one value: equal for equal entries in equal states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewName([u8; 32]);

/// A trust bundle, as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleName([u8; 32]);

/// Which state of which entry: its ID, revision number, and the UNIX second in which it was created.
pub type EntryState<'e> = (&'e str, i64, i64);

impl ViewName {
    /// Of these entries, in the order of their IDs.
    pub fn of<'e>(entries: impl IntoIterator<Item = EntryState<'e>>) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(VIEW);
        for (id, revision_number, created_at) in entries {
            context.update(&(id.len() as u64).to_be_bytes());
            context.update(id.as_bytes());
            context.update(&revision_number.to_be_bytes());
            context.update(&created_at.to_be_bytes());
        }
        Self(bytes_of(&context.finish()))
    }

    /// The wire form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl BundleName {
    /// Of that bundle.
    pub fn of(bundle: &Bundle) -> Self {
        Self(bytes_of(&digest(&SHA256, &bundle.encode_to_vec())))
    }

    /// The wire form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

fn bytes_of(digest: &aws_lc_rs::digest::Digest) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_the_name_that_the_protocol_says() {
        let expected = [VIEW, &[0, 0, 0, 0, 0, 0, 0, 1], b"a", &[0; 7], &[7], &[0; 7], &[9]].concat();
        assert_eq!(ViewName::of([("a", 7, 9)]).as_bytes(), digest(&SHA256, &expected).as_ref());
        assert_eq!(ViewName::of([]).as_bytes(), digest(&SHA256, VIEW).as_ref());
    }

    #[test]
    fn views_that_differ_in_anything_have_other_names() {
        let views: [&[EntryState<'_>]; 7] = [
            &[],
            &[("a", 1, 2)],
            &[("a", 2, 1)],
            &[("b", 1, 2)],
            &[("a", 1, 2), ("b", 1, 2)],
            &[("ab", 1, 2)],
            &[("a", 1, 2), ("a", 1, 2)],
        ];
        let names = views.map(|view| ViewName::of(view.iter().copied()));
        for (one, name) in names.iter().enumerate() {
            assert!(names[..one].iter().all(|other| other != name), "{one}");
        }
    }

    #[test]
    fn a_bundle_that_says_something_else_has_another_name() {
        let bundle = |sequence_number| Bundle { trust_domain: "td".into(), sequence_number, ..Bundle::default() };
        assert_eq!(BundleName::of(&bundle(1)), BundleName::of(&bundle(1)));
        assert_ne!(BundleName::of(&bundle(1)).as_bytes(), BundleName::of(&bundle(2)).as_bytes());
    }
}
