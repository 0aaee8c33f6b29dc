//! Messages of D-Bus: a call that is sent, and what comes.
//!
//! ```text
//!  endian u8 · type u8 · flags u8 · version u8 · body bytes u32 · serial u32 · fields a(yv) · to a multiple of 8 · body
//! ```
//! Source: D-Bus specification, "Message format", "Header fields".

use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use zbus::wire::serialized::{Context, Data};
use zbus::wire::{BE, Endian, LE, to_bytes};
use zbus::{Error, Fd, ObjectPath, Signature, Type, Variant};

use super::error::BusError;

/// Bytes up to and with the length of the fields.
pub(super) const FIXED_BYTES: usize = 16;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const VERSION: u8 = 1;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
const UNIX_FDS: u8 = 9;

type Header<T> = (u8, u8, u8, u8, u32, u32, Vec<(u8, T)>);

/// A field that is sent.
#[derive(Type)]
#[zbus(signature = "v")]
enum Field<'a> {
    Plain(Variant<'a>),
    /// The signature of a body: several, which is more than a value may have elsewhere.
    Arguments(&'a Signature),
}

impl Serialize for Field<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Plain(value) => value.serialize(serializer),
            // As a variant is written, see Variant::serialize.
            Self::Arguments(signature) => {
                let mut value = serializer.serialize_struct("Variant", 2)?;
                value.serialize_field("signature", &Signature::Signature)?;
                value.serialize_field("value", &arguments(signature))?;
                value.end()
            }
        }
    }
}

/// A method of the bus, by the four names that a call carries. Source: D-Bus specification, "Message Types".
#[derive(Debug)]
pub(in super::super) struct Method<'a> {
    pub service: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
}

/// The first call on each connection: the bus gives it a name.
pub(super) const HELLO: Method<'static> = Method {
    service: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
    member: "Hello",
};

/// A call as it is sent.
pub(super) struct Question {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<Fd<'static>>,
}

/// A message, for whom waits for the answer to a call.
pub(super) enum Reply {
    Answer(Body),
    /// The name of an error.
    Error(String),
    Unreadable(Error),
    /// Something else.
    Other,
}

/// What came back.
#[derive(Debug)]
pub(in super::super) struct Body {
    bytes: Vec<u8>,
    endian: Endian,
    start: usize,
    signature: String,
}

/// `method` called with `body`, a tuple of its arguments.
pub(super) fn encode<B: Serialize + Type>(serial: u32, method: &Method<'_>, body: &B) -> Result<Question, Error> {
    let body_data = to_bytes(Context::new(LE, 0), body)?;
    let mut fields = vec![
        (PATH, Field::Plain(ObjectPath::try_from(method.path)?.into())),
        (INTERFACE, Field::Plain(method.interface.into())),
        (MEMBER, Field::Plain(method.member.into())),
        (DESTINATION, Field::Plain(method.service.into())),
    ];
    if *B::SIGNATURE != Signature::Unit {
        fields.push((SIGNATURE, Field::Arguments(B::SIGNATURE)));
    }
    let descriptors = body_data.fds().iter().map(|fd| fd.try_to_owned()).collect::<Result<Vec<_>, _>>()?;
    if !descriptors.is_empty() {
        fields.push((UNIX_FDS, Field::Plain((descriptors.len() as u32).into())));
    }
    let header: Header<Field<'_>> = (b'l', METHOD_CALL, 0, VERSION, body_data.len() as u32, serial, fields);
    let mut bytes = to_bytes(Context::new(LE, 0), &header)?.to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend_from_slice(&body_data);
    Ok(Question { bytes, descriptors })
}

/// How many bytes follow the first ones.
pub(super) fn rest_bytes(fixed: &[u8; FIXED_BYTES]) -> Result<u64, Error> {
    let [endian, _, _, _, body @ .., _, _, _, _, _, _, _, _] = *fixed;
    let [.., a, b, c, d] = *fixed;
    let number = match endian_of(endian)? {
        Endian::Little => u32::from_le_bytes,
        Endian::Big => u32::from_be_bytes,
    };
    let fields = u64::from(number([a, b, c, d])).next_multiple_of(8);
    Ok(fields + u64::from(number(body)))
}

/// What the message `bytes` is for whom waits for the answer to the call `serial`.
pub(super) fn answer_to(serial: u32, bytes: Vec<u8>) -> Reply {
    match parse(serial, bytes) {
        Ok(reply) => reply,
        Err(error) => Reply::Unreadable(error),
    }
}

fn parse(serial: u32, bytes: Vec<u8>) -> Result<Reply, Error> {
    let endian = endian_of(bytes.first().copied().unwrap_or_default())?;
    let data = Data::new(bytes.as_slice(), Context::new(endian, 0));
    let ((_, kind, _, _, _, _, fields), header_bytes): (Header<Variant<'_>>, usize) = data.deserialize()?;
    let field = |code| fields.iter().find(|(found, _)| *found == code).map(|(_, value)| value);
    if !matches!(kind, METHOD_RETURN | ERROR) || field(REPLY_SERIAL) != Some(&Variant::U32(serial)) {
        return Ok(Reply::Other);
    }
    if kind == ERROR {
        return Ok(Reply::Error(field(ERROR_NAME).map(String::try_from).transpose()?.unwrap_or_default()));
    }
    let signature = match field(SIGNATURE) {
        Some(Variant::Signature(signature)) => arguments(signature),
        _ => String::new(),
    };
    let start = header_bytes.next_multiple_of(8);
    drop(fields);
    Ok(Reply::Answer(Body { bytes, endian, start, signature }))
}

impl Body {
    /// The answer as the tuple `T`, if that is what came.
    pub fn read<T: DeserializeOwned + Type>(&self) -> Result<T, BusError> {
        if self.signature != arguments(T::SIGNATURE) {
            let found = Signature::try_from(self.signature.as_str()).unwrap_or_default();
            return Err(BusError::Malformed(Error::SignatureMismatch(found, T::SIGNATURE.to_string())));
        }
        let body = self.bytes.get(self.start..).ok_or(BusError::Malformed(Error::OutOfBounds))?;
        let data = Data::new(body, Context::new(self.endian, 0));
        data.deserialize().map(|(value, _)| value).map_err(BusError::Malformed)
    }
}

fn endian_of(byte: u8) -> Result<Endian, Error> {
    match byte {
        b'l' => Ok(LE),
        b'B' => Ok(BE),
        _ => Err(Error::IncorrectType),
    }
}

/// The signatures of a call's arguments: those of a tuple's fields.
fn arguments(signature: &Signature) -> String {
    signature.to_string_no_parens()
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use zbus::{OwnedObjectPath, OwnedVariant};

    use super::*;

    const GET: Method<'_> =
        Method { service: "a.b", path: "/a/b", interface: "org.freedesktop.DBus.Properties", member: "Get" };

    fn fixed(bytes: &[u8]) -> [u8; FIXED_BYTES] {
        bytes[..FIXED_BYTES].try_into().expect("long enough")
    }

    /// A message of this type with these fields and this body, in either order of bytes.
    fn message(endian: Endian, kind: u8, fields: Vec<(u8, Variant<'_>)>, body: &(impl Serialize + Type)) -> Vec<u8> {
        let body = to_bytes(Context::new(endian, 0), body).expect("encodes");
        let mark = if endian == LE { b'l' } else { b'B' };
        let header: Header<Variant<'_>> = (mark, kind, 0, VERSION, body.len() as u32, 77, fields);
        let mut bytes = to_bytes(Context::new(endian, 0), &header).expect("encodes").to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The answer to the first call on a connection.
    pub fn welcome() -> Vec<u8> {
        message(LE, METHOD_RETURN, vec![(REPLY_SERIAL, 1u32.into()), signature("s")], &(":1.7",))
    }

    /// A message that is nobody's answer.
    pub fn signal() -> Vec<u8> {
        message(LE, 4, vec![(MEMBER, "NameAcquired".into()), signature("s")], &(":1.7",))
    }

    fn signature(text: &str) -> (u8, Variant<'static>) {
        (SIGNATURE, Signature::try_from(text).expect("legal").into())
    }

    #[test]
    fn a_call_is_what_the_specification_says() {
        let file = File::open("/").expect("opens");
        let question = encode(3, &GET, &("x", Fd::from(file.as_fd()))).expect("encodes");
        assert_eq!(question.descriptors.len(), 1);
        assert_eq!(question.bytes[..4], [b'l', METHOD_CALL, 0, VERSION]);
        // Body: a string and the number of a descriptor.
        assert_eq!(question.bytes[4..12], [12, 0, 0, 0, 3, 0, 0, 0]);
        assert!(question.bytes.ends_with(b"\x01\0\0\0x\0\0\0\0\0\0\0"));
        assert_eq!(rest_bytes(&fixed(&question.bytes)).expect("legal") as usize + FIXED_BYTES, question.bytes.len());
        assert!(question.bytes.windows(4).any(|bytes| bytes == b"\x02sh\0"), "{:?}", question.bytes);
        assert!(question.bytes.windows(8).any(|bytes| bytes == b"\x09\x01u\0\x01\0\0\0"), "{:?}", question.bytes);
    }

    #[test]
    fn an_answer_in_either_order_of_bytes_is_read_as_what_it_is() {
        for endian in [LE, BE] {
            let path = ObjectPath::try_from("/org/freedesktop/systemd1/unit/app_2eservice").expect("legal");
            let body = (path.clone(), "app.service", vec![7u8; 16]);
            let fields = vec![(REPLY_SERIAL, 9u32.into()), (6, ":1.5".into()), signature("osay")];
            let bytes = message(endian, METHOD_RETURN, fields, &body);
            assert_eq!(rest_bytes(&fixed(&bytes)).expect("legal") as usize + FIXED_BYTES, bytes.len());
            assert!(matches!(answer_to(8, bytes.clone()), Reply::Other), "of another call");
            let Reply::Answer(answer) = answer_to(9, bytes) else { panic!("an answer") };
            let read = answer.read::<(OwnedObjectPath, String, Vec<u8>)>().expect("reads");
            assert_eq!((read.0.as_str(), read.1.as_str(), read.2.len()), (path.as_str(), "app.service", 16));
            assert!(answer.read::<(OwnedObjectPath,)>().is_err(), "not what came");
        }
    }

    #[test]
    fn an_error_is_its_name_and_a_signal_is_nothing() {
        let fields = vec![(REPLY_SERIAL, 9u32.into()), (ERROR_NAME, "a.b.NoUnit".into()), signature("s")];
        let error = answer_to(9, message(LE, ERROR, fields.clone(), &("no unit",)));
        assert!(matches!(error, Reply::Error(name) if name == "a.b.NoUnit"));
        assert!(matches!(answer_to(9, message(LE, 4, fields, &("no unit",))), Reply::Other));
        assert!(rest_bytes(&[b'x'; FIXED_BYTES]).is_err(), "neither order of bytes");
        assert_eq!(
            rest_bytes(&[b'l', 2, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255]).expect("legal"),
            (1 << 33) - 1
        );
    }

    #[test]
    fn messages_survive_damage() {
        let fields = || vec![(REPLY_SERIAL, 9u32.into()), (6, ":1.5".into()), signature("v")];
        let value = (Variant::from("/lib/systemd/system/app.service"),);
        let target = ironroot_fuzz::Target::new("D-Bus messages");
        let target = target.seed(message(LE, METHOD_RETURN, fields(), &value));
        target.seed(message(BE, METHOD_RETURN, fields(), &value)).survives(|bytes| {
            if let Some(fixed) = bytes.first_chunk() {
                let _ = rest_bytes(fixed);
            }
            let Reply::Answer(answer) = answer_to(9, bytes.to_vec()) else { return };
            let _ = answer.read::<(OwnedVariant,)>().map(|(value,)| String::try_from(value));
            let _ = answer.read::<(OwnedObjectPath, String, Vec<u8>)>();
        });
    }
}
