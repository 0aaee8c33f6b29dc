//! Counts the fields of a protobuf message while its bytes arrive: two bytes make an empty item, hundreds of bytes of memory
//! once they are decoded.

use ironroot_api::arriving::{Fields, Walk, WalkError};
use thiserror::Error;

use super::super::policy::MAX_ENTRIES;

/// Most fields of a message, and of the messages that its fields are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldLimits {
    /// Of the message itself: the items of a batch.
    pub outer: usize,
    /// Of all the messages it holds together. None where its length-delimited fields may be anything but messages: then they
    /// are passed over.
    pub inner: Option<usize>,
}

/// Fields that were counted in one piece of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Of the message itself.
    pub outer: usize,
    /// Of the messages it holds.
    pub inner: usize,
}

/// Why a message is not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FieldError {
    /// More fields than this kind of request may have.
    #[error("request has more than {0} items{advice}", advice = advice(*.0))]
    TooMany(usize),
    /// Not what a protobuf encoder makes.
    #[error("request is not a protobuf message")]
    Malformed,
}

/// What to do, if it is a batch.
fn advice(limit: usize) -> String {
    if limit > MAX_ENTRIES { format!(": at most {MAX_ENTRIES} in a batch; send several") } else { String::new() }
}

/// A message of which some bytes have been seen.
#[derive(Clone, Debug)]
pub struct FieldCounter(Walk<Counting>);

#[derive(Clone, Debug)]
struct Counting {
    limits: FieldLimits,
    all: Counted,
}

#[derive(Clone, Copy, Debug)]
enum Depth {
    Outer,
    Inner,
}

impl FieldCounter {
    /// Nothing seen yet.
    pub fn new(limits: FieldLimits) -> Self {
        // Its end is the decoder's to judge.
        Self(Walk::new(Counting { limits, all: Counted::default() }, Depth::Outer, u64::MAX))
    }

    /// Goes on with the next `bytes` of the message and says how many fields began in them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Counted, FieldError> {
        let before = self.0.fields().all;
        self.0.feed(bytes).map_err(|error| match error {
            WalkError::Refused(too_many) => too_many,
            WalkError::Malformed => FieldError::Malformed,
        })?;
        let all = self.0.fields().all;
        Ok(Counted { outer: all.outer - before.outer, inner: all.inner - before.inner })
    }
}

impl Fields for Counting {
    type Message = Depth;
    type Refusal = FieldError;

    fn begin(&mut self, within: Depth, _number: u64) -> Result<Option<Depth>, FieldError> {
        let (counted, limit, inside) = match within {
            Depth::Outer => (&mut self.all.outer, self.limits.outer, self.limits.inner.map(|_| Depth::Inner)),
            Depth::Inner => (&mut self.all.inner, self.limits.inner.unwrap_or(0), None),
        };
        *counted += 1;
        if *counted > limit { Err(FieldError::TooMany(limit)) } else { Ok(inside) }
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::device::{ImportDevicesRequest, NewDevice};
    use ironroot_api::pb::entry::BatchCreateEntryRequest;
    use ironroot_api::pb::types::{Entry, EntryMask, Selector, Spiffeid};
    use ironroot_fuzz::proptest::prelude::*;
    use prost::Message;

    use super::*;

    const PLENTY: FieldLimits = FieldLimits { outer: usize::MAX, inner: Some(usize::MAX) };

    fn batch() -> BatchCreateEntryRequest {
        let selector = |value: &str| Selector { r#type: "unix".to_owned(), value: value.to_owned() };
        let entry = |id: &str| Entry {
            id: id.to_owned(),
            spiffe_id: Some(Spiffeid { trust_domain: "td".to_owned(), path: "/x".to_owned() }),
            selectors: vec![selector("uid:1"), Selector::default()],
            x509_svid_ttl: -1,
            expires_at: i64::MAX,
            ..Entry::default()
        };
        let entries = vec![entry("a"), Entry::default(), entry(&"b".repeat(300))];
        BatchCreateEntryRequest { entries, output_mask: Some(EntryMask { spiffe_id: true, ..EntryMask::default() }) }
    }

    #[test]
    fn counts_what_an_encoder_made_however_it_is_cut() {
        let bytes = batch().encode_to_vec();
        for piece in [1, 2, 3, 7, 128, bytes.len()] {
            let mut counter = FieldCounter::new(PLENTY);
            let mut all = Counted::default();
            for bytes in bytes.chunks(piece) {
                let counted = counter.feed(bytes).expect("well formed");
                all = Counted { outer: all.outer + counted.outer, inner: all.inner + counted.inner };
            }
            // Three entries and a mask; of the two that say something id, spiffe_id, two selectors, TTL, end; one of the mask.
            assert_eq!(all, Counted { outer: 4, inner: 13 }, "pieces of {piece}");
        }
    }

    #[test]
    fn millions_of_empty_items_are_refused_at_the_first_one_too_many() {
        let mut counter = FieldCounter::new(FieldLimits { outer: 10_000, inner: None });
        assert!(counter.feed(&[0x0a, 0].repeat(10_000)).is_ok());
        assert_eq!(counter.feed(&[0x0a, 0]), Err(FieldError::TooMany(10_000)));
    }

    #[test]
    fn empty_items_inside_an_item_count_as_well() {
        let selectors = vec![Selector::default(); 2000];
        let request =
            BatchCreateEntryRequest { entries: vec![Entry { selectors, ..Entry::default() }], output_mask: None };
        let mut counter = FieldCounter::new(FieldLimits { outer: 10, inner: Some(1999) });
        assert_eq!(counter.feed(&request.encode_to_vec()), Err(FieldError::TooMany(1999)));
        let labels = (0..2000).map(|n| (n.to_string(), String::new())).collect();
        let devices = vec![NewDevice { labels, ..NewDevice::default() }];
        let request = ImportDevicesRequest { devices, ..ImportDevicesRequest::default() };
        let mut counter = FieldCounter::new(FieldLimits { outer: 10, inner: Some(1999) });
        assert_eq!(counter.feed(&request.encode_to_vec()), Err(FieldError::TooMany(1999)));
    }

    #[test]
    fn what_no_encoder_makes_is_refused() {
        for bytes in [
            &[0x0b][..],                  // a group
            &[0x80; 11],                  // a key without end
            &[0x0a, 2, 0x0a, 9, 1, 1],    // a field longer than the message it is in
            &[0x0a, 1, 0x08],             // a number that is not in the message it began in
            &[0x0a, 3, 0x0d, 1, 2, 3, 4], // four bytes where two are left
        ] {
            assert_eq!(FieldCounter::new(PLENTY).feed(bytes), Err(FieldError::Malformed), "{bytes:x?}");
        }
    }

    proptest! {
        #![proptest_config(ironroot_fuzz::cases(300))]
        #[test]
        fn never_counts_less_than_the_decoder_makes(bytes in ironroot_fuzz::altered(batch().encode_to_vec())) {
            let message = BatchCreateEntryRequest::decode(&bytes[..]);
            let counted = FieldCounter::new(PLENTY).feed(&bytes);
            prop_assume!(message.is_ok() && counted.is_ok());
            let (message, counted) = (message.expect("assumed"), counted.expect("assumed"));
            let selectors: usize = message.entries.iter().map(|entry| entry.selectors.len()).sum();
            prop_assert!(counted.outer >= message.entries.len() && counted.inner >= selectors);
        }

        #[test]
        fn any_bytes_are_judged_alike_however_they_are_cut(
            bytes in ironroot_fuzz::damaged(vec![batch().encode_to_vec()]),
            piece in 1..100_usize,
        ) {
            let whole = FieldCounter::new(PLENTY).feed(&bytes).map(|counted| (counted.outer, counted.inner));
            let mut counter = FieldCounter::new(PLENTY);
            let pieces = bytes.chunks(piece).try_fold((0, 0), |(outer, inner), bytes| {
                counter.feed(bytes).map(|counted| (outer + counted.outer, inner + counted.inner))
            });
            prop_assert_eq!(pieces, whole);
        }
    }
}
