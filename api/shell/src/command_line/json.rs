//! JSON that people read and write; values in the JSON form of protocol buffers: 64-bit integers are strings, bytes are base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::error::Category;

/// A 64-bit integer. Source: ProtoJSON format, "int64".
pub fn int64(value: i64) -> Value {
    Value::String(value.to_string())
}

/// Bytes. Source: ProtoJSON format, "bytes".
pub fn base64(bytes: &[u8]) -> Value {
    Value::String(STANDARD.encode(bytes))
}

/// Words of serde's that name types of the program, and what they are in a file.
const TYPES: [(&str, &str); 10] = [
    ("i32", "a whole number"),
    ("i64", "a whole number"),
    ("u32", "a whole number that is not negative"),
    ("u64", "a whole number that is not negative"),
    ("a sequence", "a list"),
    ("sequence", "a list"),
    ("a map", "an object"),
    ("map", "an object"),
    ("a boolean", "true or false"),
    ("any valid JSON value", "a value"),
];

/// What is wrong with a file of JSON, for whoever wrote it: what is there, what is wanted, line and column.
pub fn json_mistake(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Eof => {
            format!("the JSON ends before it is whole, at line {} column {}", error.line(), error.column())
        }
        Category::Syntax => format!("this is no JSON: {error}"),
        Category::Data | Category::Io => in_words_of_files(error.to_string()),
    }
}

fn in_words_of_files(mut told: String) -> String {
    for (of_programs, of_files) in TYPES {
        for (before, behind) in [("expected ", " at "), ("invalid type: ", ",")] {
            told = told.replace(&format!("{before}{of_programs}{behind}"), &format!("{before}{of_files}{behind}"));
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_file_of_json_is_corrected_without_knowing_the_program() {
        let told = |text: &str| {
            json_mistake(&serde_json::from_str::<BTreeMap<String, Vec<i32>>>(text).expect_err("it is wrong"))
        };
        for (text, wanted) in [
            ("{\"a\": [1,", "the JSON ends before it is whole, at line 1 column 9"),
            ("", "the JSON ends before it is whole, at line 1 column 0"),
            ("hello", "this is no JSON: expected value at line 1 column 1"),
            ("[]", "invalid type: a list, expected an object at line 1 column 0"),
            ("{\"a\": 5}", "invalid type: integer `5`, expected a list at line 1 column 7"),
            ("{\"a\": [\"1h\"]}", "invalid type: string \"1h\", expected a whole number at line 1 column 11"),
            ("{\"a\": [{}]}", "invalid type: an object, expected a whole number at line 1 column 7"),
        ] {
            assert_eq!(told(text), wanted, "{text}");
        }
    }
}
