use std::time::Duration;

use super::*;

fn settings(text: &str) -> Settings {
    Settings::parse(Path::new("x.conf"), text).expect("HCL")
}

fn lines(errors: &ConfigErrors) -> Vec<String> {
    errors.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn reads_values_in_spires_loose_types() {
    let settings =
        settings("a { port = \"8081\" other = 443 yes = \"true\" name = 5 empty = \"\" ttl = \"1h\" l = [\"x\", 1] }");
    let checked = settings.check(|root| {
        let a = root.block("a");
        let read = (
            a.port("port", 1)?,
            a.port("other", 1)?,
            a.boolean("yes")?,
            a.string("name")?,
            a.string("empty"),
            a.duration("ttl")?,
            a.strings("l")?,
            a.boolean("absent"),
        );
        a.finish();
        Some(read)
    });
    let wanted =
        (8081, 443, true, "5".to_owned(), None, Duration::from_secs(3600), vec!["x".to_owned(), "1".to_owned()], None);
    assert_eq!(checked.expect("no mistake").value, wanted);
}

//= FLT-S19
#[test]
fn reports_every_mistake_at_once_in_the_order_of_the_lines() {
    let text = "a {\n  port = 70000\n  ttl = \"1x\"\n  yes = 5\n  l = \"x\"\n  prot = 1\n  ttl = \"1s\"\n  b = 1\n}\n\nzzz = 1\n";
    let errors = settings(text)
        .check(|root| {
            let a = root.block("a");
            let port = a.port("port", 1);
            let _ = (a.duration("ttl"), a.boolean("yes"), a.strings("l"));
            a.block("b");
            let name: Option<String> = a.required("name", a.string("name"), "give it a name");
            a.finish();
            name.zip(port)
        })
        .expect_err("mistakes");
    assert_eq!(
        lines(&errors),
        [
            "x.conf:1: a.name: missing: give it a name",
            "x.conf:2: a.port: \"70000\": not a whole number from 1 to 65535",
            "x.conf:3: a.ttl: \"1x\": not a duration: write numbers with units, such as 90s, 10m or 1h30m (units: ns, us, ms, s, m, h)",
            "x.conf:4: a.yes: expected true or false, found a number",
            "x.conf:5: a.l: expected a list such as [\"a\", \"b\"], found a string",
            "x.conf:6: a.prot: unknown key: did you mean port?",
            "x.conf:7: a.ttl: given more than once: keep one",
            "x.conf:8: a.b: expected a block in braces, found a number",
            "x.conf:11: zzz: unknown key",
        ]
    );
}

#[test]
fn what_is_required_and_empty_is_missing_whatever_its_kind() {
    for empty in ["", "name = \"\"", "name = []"] {
        let errors = settings(&format!("a {{\n  {empty}\n}}")).check(|root| {
            let a = root.block("a");
            let name = match empty.contains('[') {
                true => a.strings("name").filter(|all| !all.is_empty()),
                false => a.string("name").map(|one| vec![one]),
            };
            a.finish();
            a.required("name", name, "give it a name")
        });
        let said = lines(&errors.expect_err("missing"));
        assert!(said.len() == 1 && said[0].ends_with("a.name: missing: give it a name"), "{empty}: {said:?}");
    }
}

#[test]
fn the_command_line_wins_and_is_named_in_messages() {
    let mut settings = settings("a {\n  port = \"x\"\n  name = \"file\"\n}");
    settings.override_with(
        "a",
        &[
            Override { flag: "-port", key: "port", value: "0".to_owned() },
            Override { flag: "-name", key: "name", value: "flag".to_owned() },
        ],
    );
    let errors = settings.check(|root| root.block("a").port("port", 1)).expect_err("port 0");
    assert_eq!(lines(&errors)[0], "command line, -port: a.port: \"0\": not a whole number from 1 to 65535");
    let name = settings.check(|root| {
        let a = root.block("a");
        a.port("port", 0);
        a.string("name")
    });
    assert_eq!(name.expect("fine").value, "flag");
}

#[test]
fn environment_variables_are_literal_unless_asked_for() {
    let text = "a = \"$X\"\nb = \"${Y}\"\n";
    let read =
        |settings: &Settings| settings.check(|root| Some((root.string("a")?, root.string("b")?))).expect("fine").value;
    assert_eq!(read(&settings(text)), ("$X".to_owned(), "${Y}".to_owned()));
    let expanded = Settings::parse_expanded(Path::new("x.conf"), text, |name| Some(name.to_lowercase()));
    assert_eq!(read(&expanded.expect("set")), ("x".to_owned(), "y".to_owned()));
    let errors = Settings::parse_expanded(Path::new("x.conf"), text, |_| None).expect_err("unset");
    assert_eq!(
        lines(&errors),
        ["x.conf:1: environment variable X is not set", "x.conf:2: environment variable Y is not set"]
    );
}

#[test]
fn plugins_have_names_and_may_be_disabled() {
    let text = "plugins {\n A \"one\" { plugin_data { k = \"v\" } }\n A \"two\" { enabled = false plugin_data = {} }\n A \"three\" { }\n B { }\n C \"x\" {\n  plugin_cmd = \"/bin/x\"\n }\n}";
    let settings = settings(text);
    let errors = settings
        .check(|root| {
            let plugins = root.block("plugins");
            let found: Vec<_> = plugins.plugins("A").into_iter().map(|p| (p.name, p.data.string("k"))).collect();
            assert_eq!(found, [("one".to_owned(), Some("v".to_owned())), ("three".to_owned(), None)]);
            plugins.plugins("B");
            plugins.plugins("C");
            plugins.finish();
            Some(())
        })
        .expect_err("mistakes");
    assert_eq!(
        lines(&errors),
        [
            "x.conf:5: plugins.B: a plugin has a name in quotes: B \"name\" { plugin_data { } }",
            "x.conf:7: plugins.C.x.plugin_cmd: external plugins are not supported: only the built-in ones are, with plugin_data",
        ]
    );
}

#[test]
fn an_unreadable_file_is_a_mistake_like_any_other() {
    let errors = Settings::load(Path::new("/nonexistent/x.conf"), false).expect_err("no file");
    assert_eq!(
        errors.to_string(),
        "/nonexistent/x.conf: cannot read the file: No such file or directory (os error 2); name the file with -config"
    );
}

/// As SPIRE's Helm chart writes its files.
#[test]
fn a_file_in_json_says_what_the_same_in_hcl_says() {
    let hcl = r#"server { trust_domain = "example.org" port = 8081 yes = true l = ["a/b"] }
        plugins {
            DataStore "sql" { plugin_data { path = "x" } }
            NodeAttestor "a" { plugin_data { } }
            NodeAttestor "b" { plugin_data { } }
            NodeAttestor "c" { enabled = false }
        }"#;
    let json = r#"{
        "server": {"trust_domain": "example.org", "port": 8081, "yes": true, "l": ["a\/b"]},
        "plugins": {
            "DataStore": [{"sql": {"plugin_data": {"path": "x"}}}],
            "NodeAttestor": {"a": {"plugin_data": {}}, "b": {"plugin_data": [{}]}, "c": {"enabled": false}}
        }
    }"#;
    let [in_hcl, in_json] = [hcl, json].map(|text| {
        let read = |root: &Section<'_>| {
            let (server, plugins) = (root.block("server"), root.block("plugins"));
            let attestors = plugins.plugins("NodeAttestor");
            attestors.iter().for_each(|plugin| plugin.data.finish());
            let names: Vec<String> = attestors.into_iter().map(|plugin| plugin.name).collect();
            let store = plugins.only_plugin("DataStore")?;
            let path = store.data.string("path");
            let values =
                (server.string("trust_domain"), server.port("port", 1), server.boolean("yes"), server.strings("l"));
            [&server, &plugins, &store.data, root].iter().for_each(|section| section.finish());
            Some((values, names, store.name, path))
        };
        settings(text).check(read).expect("no mistake").value
    });
    assert_eq!(in_json, in_hcl);
    assert_eq!(in_json.1, ["a", "b"]);
}

#[test]
fn a_mistake_in_json_has_its_line() {
    let errors = settings("{\n\"plugins\": {\n\"B\": [{\"plugin_data\": {}}],\n\"C\": {\"x\": 5}\n}}").check(|root| {
        let plugins = root.block("plugins");
        let found = plugins.plugins("B").len() + plugins.plugins("C").len();
        (found > 0).then_some(())
    });
    let wanted = |line, kind| {
        format!("x.conf:{line}: plugins.{kind}: a plugin has a name in quotes: {kind} \"name\" {{ plugin_data {{ }} }}")
    };
    assert_eq!(lines(&errors.expect_err("mistakes")), [wanted(3, "B"), wanted(4, "C")]);
}
