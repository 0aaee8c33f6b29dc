//! What a protobuf message becomes in memory, counted while its bytes arrive: two bytes can be an empty item of a hundred.

use ironroot_api::arriving::{Fields, Walk};
use thiserror::Error;

use super::shapes::Field;

/// It would take more memory than its method needs: this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("its items would take more than {0} bytes of memory")]
pub(super) struct TooLarge(usize);

/// A message of which some bytes have been seen.
pub(super) type DecodedSize = Walk<Sum>;

/// What its items take so far, and may take in all.
#[derive(Debug)]
pub(super) struct Sum {
    size: usize,
    limit: usize,
}

/// A message of `bytes`, with `fields` that count, that may take `limit` bytes of memory.
pub(super) fn decoded_size(bytes: u64, fields: &'static [Field], limit: usize) -> DecodedSize {
    Walk::new(Sum { size: 0, limit }, fields, bytes)
}

impl Fields for Sum {
    type Message = &'static [Field];
    type Refusal = TooLarge;

    fn begin(&mut self, within: &'static [Field], number: u64) -> Result<Option<&'static [Field]>, TooLarge> {
        let Some(field) = within.iter().find(|field| field.number == number) else { return Ok(None) };
        self.size = self.size.saturating_add(field.size);
        if self.size > self.limit { Err(TooLarge(self.limit)) } else { Ok(field.is_message.then_some(field.fields)) }
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::arriving::WalkError;
    use ironroot_api::pb::entry::SyncAuthorizedEntriesResponse;
    use ironroot_api::pb::svid::{BatchNewX509svidResponse, batch_new_x509svid_response};
    use ironroot_api::pb::types::{Bundle, Entry, JwtKey, Selector, X509Certificate, X509svid};
    use ironroot_fuzz::proptest::prelude::*;
    use prost::Message;

    use super::super::shapes::{Shape, shape_of};
    use super::*;

    fn size_in_pieces(message: &impl Message, shape: Shape, piece: usize) -> Result<usize, WalkError<TooLarge>> {
        let bytes = message.encode_to_vec();
        let mut size = decoded_size(bytes.len() as u64, shape.fields, shape.decoded_bytes);
        bytes.chunks(piece).try_for_each(|bytes| size.feed(bytes))?;
        Ok(size.fields().size)
    }

    fn size(message: &impl Message, method: &str) -> Result<usize, WalkError<TooLarge>> {
        size_in_pieces(message, shape_of(method), usize::MAX)
    }

    const BUNDLE: &str = "/spire.api.server.bundle.v1.Bundle/GetBundle";
    const SVIDS: &str = "/spire.api.server.svid.v1.SVID/BatchNewX509SVID";
    const SYNC: &str = "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries";

    fn entry() -> Entry {
        let selector = Selector { r#type: "unix".to_owned(), value: "uid:1".to_owned() };
        Entry { id: "x".repeat(36), selectors: vec![selector; 3], dns_names: vec!["a".to_owned()], ..Entry::default() }
    }

    #[test]
    fn millions_of_empty_items_of_every_kind_are_refused() {
        let too_large = |outcome| matches!(outcome, Err(WalkError::Refused(TooLarge(_))));
        let jwt_authorities = vec![JwtKey::default(); 100_000];
        assert!(too_large(size(&Bundle { jwt_authorities, ..Bundle::default() }, BUNDLE)));
        let x509_authorities = vec![X509Certificate::default(); 100_000];
        assert!(too_large(size(&Bundle { x509_authorities, ..Bundle::default() }, BUNDLE)));
        let svid = X509svid { cert_chain: vec![prost::bytes::Bytes::new(); 200_000], ..X509svid::default() };
        let result = batch_new_x509svid_response::Result { status: None, svid: Some(svid) };
        assert!(too_large(size(&BatchNewX509svidResponse { results: vec![result] }, SVIDS)));
        let entries = vec![Entry::default(); 100_000];
        assert!(too_large(size(&SyncAuthorizedEntriesResponse { entries, ..Default::default() }, SYNC)));
        let entries = vec![Entry { selectors: vec![Selector::default(); 500_000], ..Entry::default() }];
        assert!(too_large(size(&SyncAuthorizedEntriesResponse { entries, ..Default::default() }, SYNC)));
    }

    #[test]
    fn what_servers_send_is_taken_however_it_is_cut() {
        let message = SyncAuthorizedEntriesResponse { entries: vec![entry(); 500], ..Default::default() };
        let whole = size(&message, SYNC).expect("taken");
        let expected = 500 * 2 * (size_of::<Entry>() + 3 * size_of::<Selector>() + size_of::<String>());
        assert_eq!(whole, expected);
        for piece in [1, 2, 7, 1000] {
            assert_eq!(size_in_pieces(&message, shape_of(SYNC), piece), Ok(whole), "pieces of {piece}");
        }
        let authority = X509Certificate { asn1: vec![0; 900].into(), tainted: true };
        assert!(size(&Bundle { x509_authorities: vec![authority; 256], ..Bundle::default() }, BUNDLE).is_ok());
    }

    #[test]
    fn what_no_encoder_makes_is_refused() {
        for bytes in [
            &[0x0b][..],                  // a group
            &[0x80; 11],                  // a key without end
            &[0x12, 2, 0x0a, 9, 1, 1],    // a field longer than the message it is in
            &[0x12, 1, 0x08],             // a number that is not in the message it began in
            &[0x12, 3, 0x0d, 1, 2, 3, 4], // four bytes where two are left
            &[0x12, 9],                   // a message longer than the one it is in
        ] {
            let mut size = decoded_size(bytes.len() as u64, shape_of(SYNC).fields, usize::MAX);
            assert_eq!(size.feed(bytes), Err(WalkError::Malformed), "{bytes:x?}");
        }
    }

    proptest! {
        #![proptest_config(ironroot_fuzz::cases(300))]
        #[test]
        fn never_counts_less_than_the_decoder_makes(bytes in ironroot_fuzz::altered(honest())) {
            let message = SyncAuthorizedEntriesResponse::decode(&bytes[..]);
            let size = size_of_bytes(&bytes, usize::MAX);
            prop_assume!(message.is_ok() && size.is_ok());
            let entries = message.expect("assumed").entries;
            let selectors: usize = entries.iter().map(|entry| entry.selectors.len()).sum();
            prop_assert!(size.expect("assumed") >= entries.len() * size_of::<Entry>() + selectors * size_of::<Selector>());
        }

        #[test]
        fn any_bytes_are_judged_alike_however_they_are_cut(
            bytes in ironroot_fuzz::damaged(vec![honest()]),
            piece in 1..100_usize,
        ) {
            prop_assert_eq!(size_of_bytes(&bytes, piece), size_of_bytes(&bytes, usize::MAX));
        }
    }

    fn honest() -> Vec<u8> {
        SyncAuthorizedEntriesResponse { entries: vec![entry(); 3], ..Default::default() }.encode_to_vec()
    }

    /// Of an answer to a sync, without a limit.
    fn size_of_bytes(bytes: &[u8], piece: usize) -> Result<usize, WalkError<TooLarge>> {
        let mut size = decoded_size(bytes.len() as u64, shape_of(SYNC).fields, usize::MAX);
        bytes.chunks(piece).try_for_each(|bytes| size.feed(bytes))?;
        Ok(size.fields().size)
    }
}
