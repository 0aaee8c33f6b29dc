//! What a protobuf message becomes in memory, counted while its bytes arrive: two bytes can be an empty item of a hundred.
//!
//! Source: protobuf.dev/programming-guides/encoding.

use thiserror::Error;

use super::shapes::Field;

/// Why a message is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum SizeRefusal {
    /// It would take more memory than its method needs.
    #[error("its items would take more than {0} bytes of memory")]
    TooLarge(usize),
    /// Not what a protobuf encoder makes.
    #[error("it is not a protobuf message")]
    Malformed,
}

/// A message of which some bytes have been seen.
#[derive(Debug)]
pub(super) struct DecodedSize {
    limit: usize,
    size: usize,
    state: State,
    /// The message and, inside it, those that are being read. As deep as the table of fields.
    levels: Vec<Level>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    left: u64,
    fields: &'static [Field],
}

#[derive(Clone, Copy, Debug)]
enum State {
    Key(Varint),
    Length(Varint, Option<&'static Field>),
    Value(Varint),
    /// Bytes that are passed over.
    Skip(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    bytes: u32,
}

impl Varint {
    /// The number, if `byte` is its last. At most ten bytes.
    fn push(&mut self, byte: u8) -> Result<Option<u64>, SizeRefusal> {
        if self.bytes >= 10 {
            return Err(SizeRefusal::Malformed);
        }
        // The tenth byte's upper bits fall out, as in every decoder.
        self.value |= u64::from(byte & 0x7f).checked_shl(7 * self.bytes).unwrap_or(0);
        self.bytes += 1;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

impl DecodedSize {
    /// A message of `bytes`, with `fields` that count, that may take `limit` bytes of memory.
    pub fn of(bytes: u64, fields: &'static [Field], limit: usize) -> Self {
        let state = State::Key(Varint::default());
        Self { limit, size: 0, state, levels: vec![Level { left: bytes, fields }] }
    }

    /// Goes on with the next bytes of the message.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), SizeRefusal> {
        while let Some((&first, _)) = bytes.split_first() {
            let used = match &self.state {
                State::Skip(left) => bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX)),
                _ => 1,
            };
            self.take(used as u64)?;
            self.state = self.next(first, used as u64)?;
            self.leave()?;
            bytes = &bytes[used..];
        }
        Ok(())
    }

    /// The state after `used` bytes, of which `first` is the first.
    fn next(&mut self, first: u8, used: u64) -> Result<State, SizeRefusal> {
        let number = match &mut self.state {
            State::Skip(left) if *left == used => return Ok(State::Key(Varint::default())),
            State::Skip(left) => return Ok(State::Skip(*left - used)),
            State::Key(varint) | State::Length(varint, _) | State::Value(varint) => match varint.push(first)? {
                Some(number) => number,
                None => return Ok(self.state),
            },
        };
        match self.state {
            State::Key(_) => self.begin(number),
            State::Length(_, Some(field)) if field.is_message => {
                self.take(number)?;
                self.levels.push(Level { left: number, fields: field.fields });
                Ok(State::Key(Varint::default()))
            }
            State::Length(..) if number > 0 => Ok(State::Skip(number)),
            _ => Ok(State::Key(Varint::default())),
        }
    }

    /// The state in which a field's value is read.
    fn begin(&mut self, key: u64) -> Result<State, SizeRefusal> {
        let fields = self.levels.last().map_or(&[][..], |level| level.fields);
        let field = fields.iter().find(|field| field.number == key >> 3);
        self.size = self.size.saturating_add(field.map_or(0, |field| field.size));
        if self.size > self.limit {
            return Err(SizeRefusal::TooLarge(self.limit));
        }
        match key & 7 {
            0 => Ok(State::Value(Varint::default())),
            1 => Ok(State::Skip(8)),
            2 => Ok(State::Length(Varint::default(), field)),
            5 => Ok(State::Skip(4)),
            _ => Err(SizeRefusal::Malformed),
        }
    }

    fn take(&mut self, bytes: u64) -> Result<(), SizeRefusal> {
        let level = self.levels.last_mut().ok_or(SizeRefusal::Malformed)?;
        level.left = level.left.checked_sub(bytes).ok_or(SizeRefusal::Malformed)?;
        Ok(())
    }

    /// Ends the messages of which nothing is left; a field that goes on past the end of its message is none.
    fn leave(&mut self) -> Result<(), SizeRefusal> {
        let between_fields = matches!(self.state, State::Key(Varint { bytes: 0, .. }));
        while self.levels.last().is_some_and(|level| level.left == 0) {
            if !between_fields {
                return Err(SizeRefusal::Malformed);
            }
            self.levels.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ironroot_api::pb::entry::SyncAuthorizedEntriesResponse;
    use ironroot_api::pb::svid::{BatchNewX509svidResponse, batch_new_x509svid_response};
    use ironroot_api::pb::types::{Bundle, Entry, JwtKey, Selector, X509Certificate, X509svid};
    use ironroot_fuzz::proptest::prelude::*;
    use prost::Message;

    use super::super::shapes::{Shape, shape_of};
    use super::*;

    fn size_in_pieces(message: &impl Message, shape: Shape, piece: usize) -> Result<usize, SizeRefusal> {
        let bytes = message.encode_to_vec();
        let mut size = DecodedSize::of(bytes.len() as u64, shape.fields, shape.decoded_bytes);
        bytes.chunks(piece).try_for_each(|bytes| size.feed(bytes))?;
        Ok(size.size)
    }

    fn size(message: &impl Message, method: &str) -> Result<usize, SizeRefusal> {
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
        let too_large = |outcome| matches!(outcome, Err(SizeRefusal::TooLarge(_)));
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
            let mut size = DecodedSize::of(bytes.len() as u64, shape_of(SYNC).fields, usize::MAX);
            assert_eq!(size.feed(bytes), Err(SizeRefusal::Malformed), "{bytes:x?}");
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
    fn size_of_bytes(bytes: &[u8], piece: usize) -> Result<usize, SizeRefusal> {
        let mut size = DecodedSize::of(bytes.len() as u64, shape_of(SYNC).fields, usize::MAX);
        bytes.chunks(piece).try_for_each(|bytes| size.feed(bytes))?;
        Ok(size.size)
    }
}
