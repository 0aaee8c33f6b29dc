//! The fields of a protobuf message, in the order in which their bytes arrive. Source: protobuf.dev/programming-guides/encoding.

use thiserror::Error;

/// Who wants to know of each field.
pub trait Fields {
    /// What is known of a message that is being read.
    type Message: Copy;
    /// Why the rest is not read.
    type Refusal;

    /// A field with `number` begins in `within`. What its bytes are to be read as, if they are a message; otherwise they are
    /// passed over.
    fn begin(&mut self, within: Self::Message, number: u64) -> Result<Option<Self::Message>, Self::Refusal>;
}

/// Why a message is not walked any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WalkError<R> {
    /// [`Fields`] does not want the rest.
    #[error("{0}")]
    Refused(R),
    /// Not what a protobuf encoder makes.
    #[error("it is not a protobuf message")]
    Malformed,
}

/// A message of which some bytes have been seen.
#[derive(Clone, Debug)]
pub struct Walk<F: Fields> {
    fields: F,
    state: State<F::Message>,
    /// The message and, inside it, those that are being read: as deep as `fields` follows them.
    levels: Vec<Level<F::Message>>,
}

#[derive(Clone, Copy, Debug)]
struct Level<M> {
    left: u64,
    message: M,
}

#[derive(Clone, Copy, Debug)]
enum State<M> {
    Key(Varint),
    Length(Varint, Option<M>),
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
    /// The number, if `byte` is its last. None if there are more than ten bytes of it.
    fn push(&mut self, byte: u8) -> Option<Option<u64>> {
        if self.bytes >= 10 {
            return None;
        }
        // The tenth byte's upper bits fall out, as in every decoder.
        self.value |= u64::from(byte & 0x7f).checked_shl(7 * self.bytes).unwrap_or(0);
        self.bytes += 1;
        Some((byte & 0x80 == 0).then_some(self.value))
    }
}

impl<F: Fields> Walk<F> {
    /// `message`, of `bytes` bytes, of which nothing has been seen. u64::MAX if it ends when no more comes.
    pub fn new(fields: F, message: F::Message, bytes: u64) -> Self {
        Self { fields, state: State::Key(Varint::default()), levels: vec![Level { left: bytes, message }] }
    }

    /// What was found so far.
    pub fn fields(&self) -> &F {
        &self.fields
    }

    /// Goes on with the next bytes of the message.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), WalkError<F::Refusal>> {
        while let Some(&first) = bytes.first() {
            let used = match self.state {
                State::Skip(left) => bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)),
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
    fn next(&mut self, first: u8, used: u64) -> Result<State<F::Message>, WalkError<F::Refusal>> {
        let number = match &mut self.state {
            State::Skip(left) if *left == used => return Ok(State::Key(Varint::default())),
            State::Skip(left) => return Ok(State::Skip(*left - used)),
            State::Key(varint) | State::Length(varint, _) | State::Value(varint) => {
                match varint.push(first).ok_or(WalkError::Malformed)? {
                    Some(number) => number,
                    None => return Ok(self.state),
                }
            }
        };
        match self.state {
            State::Key(_) => self.begin(number),
            State::Length(_, Some(message)) => {
                self.take(number)?;
                self.levels.push(Level { left: number, message });
                Ok(State::Key(Varint::default()))
            }
            State::Length(..) if number > 0 => Ok(State::Skip(number)),
            _ => Ok(State::Key(Varint::default())),
        }
    }

    /// The state in which a field's value is read.
    fn begin(&mut self, key: u64) -> Result<State<F::Message>, WalkError<F::Refusal>> {
        let within = self.levels.last().ok_or(WalkError::Malformed)?.message;
        let message = self.fields.begin(within, key >> 3).map_err(WalkError::Refused)?;
        match key & 7 {
            0 => Ok(State::Value(Varint::default())),
            1 => Ok(State::Skip(8)),
            2 => Ok(State::Length(Varint::default(), message)),
            5 => Ok(State::Skip(4)),
            _ => Err(WalkError::Malformed),
        }
    }

    fn take(&mut self, bytes: u64) -> Result<(), WalkError<F::Refusal>> {
        let level = self.levels.last_mut().ok_or(WalkError::Malformed)?;
        level.left = level.left.checked_sub(bytes).ok_or(WalkError::Malformed)?;
        Ok(())
    }

    /// Ends the messages of which nothing is left; a field that goes on past the end of its message is none.
    fn leave(&mut self) -> Result<(), WalkError<F::Refusal>> {
        let between_fields = matches!(self.state, State::Key(Varint { bytes: 0, .. }));
        while self.levels.last().is_some_and(|level| level.left == 0) {
            if !between_fields {
                return Err(WalkError::Malformed);
            }
            self.levels.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Notes how deep each field is; everything is a message down to the third level.
    #[derive(Debug, Default)]
    struct Depths(Vec<(u8, u64)>);

    impl Fields for Depths {
        type Message = u8;
        type Refusal = ();

        fn begin(&mut self, within: u8, number: u64) -> Result<Option<u8>, ()> {
            self.0.push((within, number));
            if number == 15 { Err(()) } else { Ok((within < 2).then_some(within + 1)) }
        }
    }

    /// Field 1 of which field 2 has a number, four bytes and a text; then a number.
    const MESSAGE: &[u8] = &[0x0a, 14, 0x12, 12, 0x08, 0x96, 0x01, 0x15, 1, 2, 3, 4, 0x1a, 2, b'h', b'i', 0x18, 1];

    #[test]
    fn every_field_is_found_in_its_message_however_the_bytes_are_cut() {
        for piece in 1..=MESSAGE.len() {
            let mut walk = Walk::new(Depths::default(), 0, MESSAGE.len() as u64);
            MESSAGE.chunks(piece).try_for_each(|bytes| walk.feed(bytes)).expect("well formed");
            assert_eq!(walk.fields().0, [(0, 1), (1, 2), (2, 1), (2, 2), (2, 3), (0, 3)], "pieces of {piece}");
        }
    }

    #[test]
    fn nothing_is_read_past_a_refusal_or_past_the_end() {
        let mut walk = Walk::new(Depths::default(), 0, u64::MAX);
        assert_eq!(walk.feed(&[0x78, 1, 0x08, 1]), Err(WalkError::Refused(())));
        let mut walk = Walk::new(Depths::default(), 0, 2);
        assert_eq!(walk.feed(&[0x08, 1, 0x08]), Err(WalkError::Malformed));
    }
}
