use super::*;

const FIELDS: &[Field] = &[
    ("PluginName", Kind::Text),
    ("Subject.CommonName", Kind::Text),
    ("Subject.Organization", Kind::List),
    ("URISanSelectors", Kind::Map),
];

fn value(name: &str) -> Option<Value> {
    Some(match name {
        "PluginName" => "x509pop".into(),
        "Subject.CommonName" => " Device One ".into(),
        "Subject.Organization" => Value::List(vec!["Müller".to_owned(), "org".to_owned()]),
        "URISanSelectors.rack" => "r1".into(),
        "URISanSelectors.data-center" => "dc".into(),
        _ => return None,
    })
}

fn rendered(text: &str) -> Result<String, NoName> {
    AgentPathTemplate::parse(text, FIELDS).unwrap_or_else(|error| panic!("{text}: {error}")).render(&value)
}

/// What Go's text/template with sprig makes of the same.
#[test]
fn a_template_gives_what_gos_gives() {
    for (text, path) in [
        ("/fixed", "/fixed"),
        ("/{{ .PluginName }}/{{.URISanSelectors.rack}}", "/x509pop/r1"),
        ("/{{- /* nothing */ -}} {{ .PluginName -}} /x", "/x509pop/x"),
        ("/{{/* nothing */}}{{ .PluginName }}", "/x509pop"),
        ("/{{ .Subject.CommonName | trim | lower | replace \" \" \"-\" }}", "/device-one"),
        ("/{{ replace `-` \"\\\"\\\\\" (nospace .Subject.CommonName) }}", "/DeviceOne"),
        ("/{{ index .Subject.Organization 1 }}/{{ last .Subject.Organization }}", "/org/org"),
        ("/{{ index .URISanSelectors \"data-center\" | upper }}", "/DC"),
        ("/{{ join \"-\" (splitList \"0\" .PluginName) }}", "/x5-9pop"),
        ("/{{ trunc 4 .PluginName }}/{{ trunc -3 .PluginName }}/{{ trunc 99 .PluginName }}", "/x509/pop/x509pop"),
        ("/{{ substr 1 4 .PluginName }}/{{ substr -1 4 .PluginName }}/{{ substr 4 -1 .PluginName }}", "/509/x509/pop"),
        ("/{{ trimPrefix \"x\" .PluginName }}/{{ trimSuffix \"pop\" .PluginName }}", "/509pop/x509"),
        ("/{{ trimAll \"xp\" .PluginName }}/{{ default \"d\" \"\" }}/{{ default \"d\" \"e\" }}", "/509po/d/e"),
        ("/{{ sha1sum \"abc\" }}", "/a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("/{{ sha256sum \"abc\" | trunc 8 }}/{{ 7 }}", "/ba7816bf/7"),
    ] {
        assert_eq!(rendered(text).as_deref(), Ok(path), "{text}");
    }
}

#[test]
fn a_node_without_what_a_template_asks_for_gets_no_name() {
    for (text, why) in [
        ("/{{ .URISanSelectors.row }}", NoName::Missing("URISanSelectors.row".to_owned())),
        ("/{{ index .Subject.Organization 2 }}", NoName::Element),
        ("/{{ trunc 2 (first .Subject.Organization) }}", NoName::Cut),
    ] {
        assert_eq!(rendered(text), Err(why), "{text}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name_when_it_is_read() {
    let refused = |text: &str| AgentPathTemplate::parse(text, FIELDS).expect_err(text);
    let syntax = |text: &str| TemplateError::Syntax(text.to_owned());
    for (text, why) in [
        (&*format!("/{}", "a".repeat(MAX_TEMPLATE_BYTES)), TemplateError::TooLong),
        ("{{ .PluginName }}/x", TemplateError::NoSlash),
        ("/{{ .PluginName }", syntax("}")),
        ("/{{ .PluginName", TemplateError::Unclosed("\"{{\"")),
        ("/{{ \"x }}", TemplateError::Unclosed("a text")),
        ("/{{ `x }}", TemplateError::Unclosed("a text")),
        ("/{{ /* x }}", TemplateError::Unclosed("a comment")),
        ("/{{ (lower .PluginName }}", TemplateError::Unclosed("\"(\"")),
        ("/{{ if .PluginName }}x{{ end }}", TemplateError::Statement("if".to_owned())),
        ("/{{ uuidv4 }}", TemplateError::Function("uuidv4".to_owned())),
        ("/{{ .PluginName | regexFind \"x\" }}", TemplateError::Function("regexFind".to_owned())),
        ("/{{ $x }}", syntax("$x")),
        ("/{{ . }}", syntax(".")),
        ("/{{ }}", syntax("{{}}")),
        ("/{{ \"\\n\" }}", syntax("\\n")),
        ("/{{ .PluginName ) }}", syntax(")")),
    ] {
        assert_eq!(refused(text), why, "{text}");
    }
    for (text, said) in [
        ("/{{ .Fingerprnt }}", "there is no field .Fingerprnt: there are .PluginName, .Subject.CommonName,"),
        ("/{{ .Subject }}", "there is no field .Subject:"),
        ("/{{ .URISanSelectors }}", "name a key of it, .URISanSelectors.<key>"),
        ("/{{ trunc .PluginName 4 }}", "trunc takes a number, a text"),
        ("/{{ lower }}", "lower takes a text"),
        ("/{{ lower upper .PluginName }}", "in parentheses: (upper ...)"),
        ("/{{ .PluginName .PluginName }}", "takes no arguments"),
        ("/{{ lower .PluginName | \"x\" }}", "takes no arguments"),
        ("/{{ uuidv4 }}", "there are default, first, index, join"),
    ] {
        let refusal = refused(text).to_string();
        assert!(refusal.contains(said), "{text}: {refusal}");
    }
}
