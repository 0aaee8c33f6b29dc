//! The claims of a token as protobuf has them.

use ironroot_api::jwt::JwtSvid;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::Value as Json;

/// What a token says of all that is told. An audience is a list, though the token may have it as one text: so SPIRE answers.
pub(super) fn of(svid: &JwtSvid, is_told: impl Fn(&str) -> bool) -> Struct {
    let audience = svid.audience().iter().map(|audience| string(audience)).collect();
    let told = svid.claims().iter().filter(|(name, _)| is_told(name));
    let fields = told.map(|(name, claim)| (name.clone(), value(claim)));
    let mut fields: Struct = Struct { fields: fields.collect() };
    fields.fields.insert("aud".to_owned(), list(audience));
    fields
}

fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        // Protobuf has floats only, and so has JSON in many languages.
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => return string(text),
        Json::Array(items) => return list(items.iter().map(value).collect()),
        Json::Object(members) => {
            let fields = members.iter().map(|(name, member)| (name.clone(), value(member))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}

fn string(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}
