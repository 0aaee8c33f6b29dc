//! Values in the JSON form of protocol buffers: 64-bit integers are strings, bytes are base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// A 64-bit integer. Source: ProtoJSON format, "int64".
pub fn int64(value: i64) -> Value {
    Value::String(value.to_string())
}

/// Bytes. Source: ProtoJSON format, "bytes".
pub fn base64(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}
