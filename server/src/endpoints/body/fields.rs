//! Counts the fields of a protobuf message while its bytes arrive: two bytes make an empty item, hundreds of bytes of memory
//! once they are decoded. Source: protobuf.dev/programming-guides/encoding.

use thiserror::Error;

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
    #[error("request has more than {0} items")]
    TooMany(usize),
    /// Not what a protobuf encoder makes.
    #[error("request is not a protobuf message")]
    Malformed,
}

/// A message of which some bytes have been seen.
#[derive(Clone, Debug)]
pub struct FieldCounter {
    limits: FieldLimits,
    all: Counted,
    state: State,
    /// Bytes left of the inner message that is being read.
    inner_left: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Key(Varint),
    Length(Varint),
    Value(Varint),
    /// Bytes of a value that are passed over.
    Skip(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    /// The number, if `byte` is its last. At most ten bytes.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, FieldError> {
        if self.bytes >= 10 {
            return Err(FieldError::Malformed);
        }
        // The tenth byte's upper bits fall out, as in every decoder.
        self.value |= u64::from(byte & 0x7f).checked_shl(7 * self.bytes).unwrap_or(0);
        self.bytes += 1;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

impl FieldCounter {
    /// Nothing seen yet.
    pub fn new(limits: FieldLimits) -> Self {
        Self { limits, all: Counted::default(), state: State::Key(Varint::default()), inner_left: None }
    }

    /// Goes on with the next `bytes` of the message and says how many fields began in them.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<Counted, FieldError> {
        let before = self.all;
        while let Some((&first, rest)) = bytes.split_first() {
            let used = match &mut self.state {
                State::Skip(left) => {
                    let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= used as u64;
                    bytes = &bytes[used..];
                    used
                }
                State::Key(varint) | State::Length(varint) | State::Value(varint) => {
                    bytes = rest;
                    if let Some(number) = varint.push(first)? {
                        self.state = self.after(number)?;
                    }
                    1
                }
            };
            self.consumed(used as u64)?;
        }
        Ok(Counted { outer: self.all.outer - before.outer, inner: self.all.inner - before.inner })
    }

    /// What follows the number that is complete now.
    fn after(&mut self, number: u64) -> Result<State, FieldError> {
        Ok(match self.state {
            State::Key(_) => {
                self.count()?;
                match number & 7 {
                    0 => State::Value(Varint::default()),
                    1 => State::Skip(8),
                    2 => State::Length(Varint::default()),
                    5 => State::Skip(4),
                    _ => return Err(FieldError::Malformed),
                }
            }
            State::Length(_) if self.inner_left.is_none() && self.limits.inner.is_some() && number > 0 => {
                // One more than its bytes: the last byte of the length itself is taken off next.
                self.inner_left = Some(number.checked_add(1).ok_or(FieldError::Malformed)?);
                State::Key(Varint::default())
            }
            State::Length(_) => State::Skip(number),
            State::Value(_) | State::Skip(_) => State::Key(Varint::default()),
        })
    }

    fn count(&mut self) -> Result<(), FieldError> {
        let (counted, limit) = match self.inner_left {
            None => (&mut self.all.outer, self.limits.outer),
            Some(_) => (&mut self.all.inner, self.limits.inner.unwrap_or(0)),
        };
        *counted += 1;
        if *counted > limit { Err(FieldError::TooMany(limit)) } else { Ok(()) }
    }

    /// Takes `used` bytes off what is being read; the end of a value begins the next field.
    fn consumed(&mut self, used: u64) -> Result<(), FieldError> {
        if matches!(self.state, State::Skip(0)) {
            self.state = State::Key(Varint::default());
        }
        if let Some(left) = self.inner_left {
            let left = left.checked_sub(used).ok_or(FieldError::Malformed)?;
            let between_fields = matches!(self.state, State::Key(Varint { bytes: 0, .. }));
            self.inner_left = match (left, between_fields) {
                (0, true) => None,
                // A field that goes on past the message it is in.
                (0, false) => return Err(FieldError::Malformed),
                (left, _) => Some(left),
            };
        }
        Ok(())
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
