use super::*;

fn compact(body: &Body) -> String {
    let items: Vec<String> = body
        .items
        .iter()
        .map(|item| {
            let labels: String = item.labels.iter().map(|label| format!(" {label}")).collect();
            let Origin::Line(line) = item.origin else { panic!("items come from lines") };
            format!("{line}:{}{labels}={}", item.key, compact_value(&item.value))
        })
        .collect();
    items.join(" ")
}

fn compact_value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Number(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::List(values) => {
            let values: Vec<String> = values.iter().map(|(_, value)| compact_value(value)).collect();
            format!("[{}]", values.join(","))
        }
        Value::Block(body) => format!("{{{}}}", compact(body)),
    }
}

#[test]
fn reads_every_form_of_version_one() {
    for (text, wanted) in [
        ("", ""),
        ("a = 1 b = 2", "1:a=1 1:b=2"),
        ("\"a\" = \"b\"", "1:a=\"b\""),
        ("a {\n  b = true\n}", "1:a={2:b=true}"),
        ("a = {}", "1:a={}"),
        ("a = { b = 1, c = 2 }", "1:a={1:b=1 1:c=2}"),
        ("a { b = 1 c = 2 }", "1:a={1:b=1 1:c=2}"),
        ("a {\n b = 1,\n}", "1:a={2:b=1}"),
        ("A \"b\" \"c\" { }", "1:A b c={}"),
        ("A b { }", "1:A b={}"),
        ("a = [1, \"x\", [true,],]", "1:a=[1,\"x\",[true]]"),
        ("a = [\n  { b = 1 },\n  { b = 2 },\n]", "1:a=[{2:b=1},{3:b=2}]"),
        ("# c\n// c\n/* c\nc */ a = 1 # c", "4:a=1"),
        ("a = \"${X} ${y(\"z\")} $$ %{if}\"", "1:a=\"${X} ${y(\\\"z\\\")} $$ %{if}\""),
        ("a = \"\\\"\\\\\\t\\u00e9\"", "1:a=\"\\\"\\\\\\té\""),
        ("a = <<EOF\nx\n  y\nEOF\nb = 1", "1:a=\"x\\n  y\\n\" 5:b=1"),
        ("a = <<-EOF\n    x\n      y\n    EOF\n", "1:a=\"x\\n  y\\n\""),
        ("a = -1.5e3 b = 0xff", "1:a=-1.5e3 1:b=0xff"),
        ("a = 1\r\nb = 2\r\n", "1:a=1 2:b=2"),
    ] {
        assert_eq!(parse(text).map(|body| compact(&body)), Ok(wanted.to_owned()), "{text}");
    }
}

#[test]
fn names_the_line_and_the_cure_of_a_syntax_error() {
    for (text, line, reason) in [
        ("a {\n\n", 3, "the file ends inside the block opened on line 1: add \"}\""),
        ("a = [1,\n", 2, "the file ends inside the list opened on line 1: add \"]\""),
        ("\na = \"x\nb = 1", 2, "this string is never closed: add '\"' on the same line"),
        ("a = x", 1, "a word without quotes is not a value: put text in quotes"),
        ("a =\n}", 2, "expected a value, found \"}\""),
        ("a\n= 1\n1 = 2", 3, "expected a key, found a number"),
        ("12345678\n", 1, "expected a key, found a number"),
        ("user-pin\n", 2, "expected \"=\" or \"{\" after a key, found the end of the file"),
        ("a\n\"b\" { }", 2, "expected \"=\" or \"{\" after a key, found text in quotes"),
        ("user-pin\nso-pin\n", 2, "expected \"=\" or \"{\" after a key, found a word"),
        ("a = 1\n}", 2, "expected a key, found \"}\""),
        ("a = \"\\.\"", 1, "\\. is no escape: write \\\\ for a backslash"),
        ("a = \"\\u12\"", 1, "\\u12\" is no escape: write \\\\ for a backslash"),
        ("/* a", 1, "this comment is never closed: add \"*/\""),
        ("a = <<EOF\nx", 1, "this text is never closed: add a line EOF"),
        ("a = <<\nx", 1, "expected a name after \"<<\""),
        ("a = 1;", 1, "unexpected character ';'"),
        ("a: 1", 1, "expected \"=\" or \"{\" after a key, found \":\""),
        ("\n{\"a\": {\n}", 3, "the file ends inside the block opened on line 2: add \"}\""),
        ("{\"a\": 1}\nb = 1", 2, "expected nothing behind the last \"}\", found a word"),
        ("{\"a\": nil}", 1, "a word without quotes is not a value: put text in quotes"),
        ("{\"a\": [null]}", 1, "null is no value in a list: leave it out"),
        ("a = null", 1, "a word without quotes is not a value: put text in quotes"),
    ] {
        assert_eq!(parse(text), Err(SyntaxError { line, reason: reason.to_owned() }), "{text}");
    }
}

#[test]
fn null_in_json_is_as_not_given() {
    let with = "{\"server\": {\"a\": null, \"b\": 1, \"c\": null}, \"d\": null}";
    assert_eq!(parse(with), parse("{\"server\": {\"b\": 1}}"));
}

#[test]
fn nesting_has_a_bound() {
    let nested = |depth: usize| format!("{}{}", "a {".repeat(depth), "}".repeat(depth));
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(parse(&nested(MAX_DEPTH + 1)).is_err());
    assert!(parse(&format!("a = {}", "[".repeat(100_000))).is_err());
}

#[test]
fn never_panics_on_a_broken_file() {
    let text = "server { a = \"x\\n${b}\" l = [1, \"é\"] <<EOF\nq\nEOF\n P \"n\" { } } /* c */ # d\n";
    for cut in (0..text.len()).filter(|cut| text.is_char_boundary(*cut)) {
        let _ = parse(&text[..cut]);
        let _ = parse(&text[cut..]);
    }
}
