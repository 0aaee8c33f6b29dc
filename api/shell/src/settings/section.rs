//! Reading one block: typed values out, mistakes in, and a note of every key that somebody asked for.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::hcl::{Body, Item, Value};
use super::mistakes::Mistakes;
use super::nearest::nearest;
use super::{Origin, host, parse_duration, places};

/// A block of the file, or the whole file. A block that is not there reads as an empty one.
///
/// Readers give `None` for a key that is absent, empty text (as in SPIRE), or wrong; what is wrong is reported.
#[derive(Debug)]
pub struct Section<'a> {
    name: String,
    origin: Origin,
    body: Option<&'a Body>,
    mistakes: &'a Mistakes,
    asked: RefCell<BTreeSet<String>>,
}

/// One `Type "name" { ... }` of the `plugins` block.
#[derive(Debug)]
pub struct Plugin<'a> {
    /// The name: `sql` in `DataStore "sql"`.
    pub name: String,
    /// Its `plugin_data`: an empty section where the block has none.
    pub data: Section<'a>,
    origin: Origin,
}

impl<'a> Section<'a> {
    pub(super) fn root(body: &'a Body, mistakes: &'a Mistakes) -> Self {
        Self::new(String::new(), Origin::File, Some(body), mistakes)
    }

    fn new(name: String, origin: Origin, body: Option<&'a Body>, mistakes: &'a Mistakes) -> Self {
        Self { name, origin, body, mistakes, asked: RefCell::default() }
    }

    /// Whether the file has this block.
    pub fn is_present(&self) -> bool {
        self.body.is_some()
    }

    /// Whether `key` is in the block, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.items(key).next().is_some()
    }

    /// Text. Numbers are text too.
    pub fn string(&self, key: &str) -> Option<String> {
        let item = self.item(key)?;
        match &item.value {
            Value::String(text) | Value::Number(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            other => self.wrong_kind(item, other, "a string in quotes"),
        }
    }

    /// Text that `parse` understands.
    pub fn parsed<T, E: Display>(&self, key: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let text = self.string(key)?;
        parse(&text).map_err(|error| self.mistake(key, format!("{text:?}: {error}"))).ok()
    }

    /// A path; relative ones are relative to the working directory, as in SPIRE.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.string(key).map(PathBuf::from)
    }

    /// The path of a socket, made absolute: its directory is checked up to the root.
    pub fn socket_path(&self, key: &str) -> Option<PathBuf> {
        let path = self.parsed(key, |text| std::path::absolute(text))?;
        places::fits_a_socket_address(&path).map_err(|reason| self.mistake(key, reason)).ok()?;
        Some(path)
    }

    /// Whether the files that the configuration names may be on another machine: then none of them is read.
    pub fn is_of_another_machine(&self) -> bool {
        self.mistakes.is_of_another_machine()
    }

    /// Has `look` judge what `key` names, if the operator wants it looked at; what it finds is a mistake of `key`.
    pub fn look(&self, key: &str, look: impl FnOnce() -> Result<(), String>) {
        if self.mistakes.is_looking()
            && let Err(reason) = look()
        {
            self.mistake(key, reason);
        }
    }

    /// The same of what may be otherwise when the daemon runs: a warning.
    pub fn doubt(&self, key: &str, look: impl FnOnce() -> Option<String>) {
        if self.mistakes.is_looking()
            && let Some(reason) = look()
        {
            self.warn(key, reason);
        }
    }

    /// A Go duration such as `1h30m`. Source: Go's `time.ParseDuration`, without negative ones.
    pub fn duration(&self, key: &str) -> Option<Duration> {
        self.parsed(key, parse_duration)
    }

    /// An IP address, or `localhost`.
    pub fn ip_address(&self, key: &str) -> Option<IpAddr> {
        self.parsed(key, |text| match text {
            "localhost" => Ok(IpAddr::from([127, 0, 0, 1])),
            text => text
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| "not an IP address: give one of this machine's, or 0.0.0.0 for all"),
        })
    }

    /// Where to listen or whom to ask: an IP address, or what a host may be called. Whether anybody knows the name is not asked.
    pub fn host(&self, key: &str) -> Option<String> {
        self.parsed(key, |text| match host::has_form(text) {
            true => Ok(text.to_owned()),
            false => Err("neither an IP address nor the name of a host: give one such as 127.0.0.1 or localhost"),
        })
    }

    /// An integer within `range`; in quotes, too.
    pub fn integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        self.parsed(key, |text| {
            let value = match text.strip_prefix("0x") {
                Some(digits) => i64::from_str_radix(digits, 16),
                None => text.parse(),
            };
            value
                .ok()
                .filter(|value| range.contains(value))
                .ok_or_else(|| format!("not a whole number from {} to {}", range.start(), range.end()))
        })
    }

    /// A TCP port; `least` is 0 where the kernel may choose, otherwise 1.
    pub fn port(&self, key: &str, least: u16) -> Option<u16> {
        self.integer(key, i64::from(least)..=i64::from(u16::MAX)).and_then(|port| u16::try_from(port).ok())
    }

    /// Notes that the daemon listens at that host and port, which `key` names. One that another key has already is a mistake.
    pub fn listens(&self, key: &str, host: &str, port: u16) {
        let other = self.mistakes.listeners.add(self.origin_of(key), &self.full(key), (host, port));
        if let Some((other, origin)) = other {
            let line = match origin {
                Origin::Line(line) => format!(" (line {line})"),
                Origin::Flag(flag) => format!(" ({flag})"),
                Origin::File => String::new(),
            };
            self.mistake(
                key,
                format!("{other}{line} listens on port {port} of {host} already: give each a port of its own"),
            );
        }
    }

    /// `true` or `false`; in quotes, too.
    pub fn boolean(&self, key: &str) -> Option<bool> {
        let item = self.item(key)?;
        match &item.value {
            Value::Bool(value) => Some(*value),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            other => self.wrong_kind(item, other, "true or false"),
        }
    }

    /// A list of strings; none if the key is absent, an empty one if the list is.
    pub fn strings(&self, key: &str) -> Option<Vec<String>> {
        let texts = |(origin, value): &(Origin, Value)| match value {
            Value::String(text) | Value::Number(text) => Some(text.clone()),
            other => {
                self.mistakes.add(
                    *origin,
                    &self.full(key),
                    format!("expected a string in quotes, found {}", other.kind()),
                );
                None
            }
        };
        let item = self.item(key)?;
        match &item.value {
            Value::List(values) => Some(values.iter().filter_map(texts).collect()),
            other => self.wrong_kind(item, other, "a list such as [\"a\", \"b\"]"),
        }
    }

    /// A list whose every element `parse` understands.
    pub fn parsed_list<T, E: Display>(&self, key: &str, parse: impl Fn(&str) -> Result<T, E>) -> Option<Vec<T>> {
        let checked = |text: String| parse(&text).map_err(|error| self.mistake(key, format!("{text:?}: {error}"))).ok();
        Some(self.strings(key)?.into_iter().filter_map(checked).collect())
    }

    /// The block named `key`, empty if there is none.
    pub fn block(&self, key: &str) -> Section<'a> {
        let name = self.full(key);
        let Some(item) = self.item(key) else { return Self::new(name, self.origin, None, self.mistakes) };
        let body = match &item.value {
            Value::Block(body) if item.labels.is_empty() => Some(body),
            Value::Block(_) => self.wrong(item, format!("takes no name: write {key} {{ ... }}")),
            // In JSON one block may stand in a list.
            Value::List(values) if let [(_, Value::Block(body))] = values.as_slice() => Some(body),
            other => self.wrong_kind(item, other, "a block in braces"),
        };
        Self::new(name, item.origin, body, self.mistakes)
    }

    /// The blocks `key = [{ ... }, { ... }]`, in the order of the file; `key { ... }`, also several times, is the same in HCL.
    pub fn blocks(&self, key: &str) -> Vec<Section<'a>> {
        let bodies = self.items(key).flat_map(|item| self.bodies_in(item)).enumerate();
        let section =
            |(at, (origin, body))| Section::new(format!("{}[{at}]", self.full(key)), origin, Some(body), self.mistakes);
        bodies.map(section).collect()
    }

    fn bodies_in(&self, item: &'a Item) -> Vec<(Origin, &'a Body)> {
        match &item.value {
            Value::Block(body) if item.labels.is_empty() => vec![(item.origin, body)],
            Value::List(values) => {
                values.iter().filter_map(|(origin, value)| Some((*origin, self.body(item, *origin, value)?))).collect()
            }
            other => self.wrong_kind(item, other, "a list of blocks in braces").unwrap_or_default(),
        }
    }

    fn body(&self, item: &Item, origin: Origin, value: &'a Value) -> Option<&'a Body> {
        let Value::Block(body) = value else {
            let reason = format!("expected a block in braces, found {}", value.kind());
            self.mistakes.add(origin, &self.full(&item.key), reason);
            return None;
        };
        Some(body)
    }

    /// The blocks `key "name" { ... }` with their names, in the order of the file; `key { "name" { ... } }` is the same in HCL.
    pub fn named_blocks(&self, key: &str) -> Vec<(String, Section<'a>)> {
        let items: Vec<&'a Item> = self.items(key).collect();
        items.into_iter().flat_map(|item| self.named_in(key, item)).collect()
    }

    fn named_in(&self, key: &str, item: &'a Item) -> Vec<(String, Section<'a>)> {
        let named = |(name, origin, body): (&'a String, Origin, &'a Body)| {
            let section = Section::new(format!("{}.{name}", self.full(key)), origin, Some(body), self.mistakes);
            (name.clone(), section)
        };
        self.bodies_with_names(item, &format!("takes a name: write {key} \"name\" {{ ... }}")).map(named).collect()
    }

    /// The names and bodies of `key "name" { ... }`, of `key { "name" { ... } }`, and of a list of these, as JSON has it; `reason` is what
    /// is wrong with anything else.
    fn bodies_with_names(
        &self,
        item: &'a Item,
        reason: &str,
    ) -> impl Iterator<Item = (&'a String, Origin, &'a Body)> + use<'a> {
        let mut found = Vec::new();
        let bodies: Vec<&'a Body> = match (&item.value, item.labels.as_slice()) {
            (Value::Block(body), [name]) => {
                found.push((name, item.origin, body));
                Vec::new()
            }
            (Value::Block(body), []) => vec![body],
            (Value::List(_), []) => self.bodies_in(item).into_iter().map(|(_, body)| body).collect(),
            _ => {
                self.wrong::<()>(item, reason.to_owned());
                Vec::new()
            }
        };
        for inner in bodies.iter().flat_map(|body| &body.items) {
            match &inner.value {
                Value::Block(body) if inner.labels.is_empty() => found.push((&inner.key, inner.origin, body)),
                _ => self.mistakes.add(inner.origin, &self.full(&item.key), reason.to_owned()),
            }
        }
        found.into_iter()
    }

    /// Whether there are blocks of the plugin type `kind`, none of them wrong, and all of them switched off or none at all.
    pub fn has_no_plugin(&self, kind: &str) -> bool {
        let before = self.mistakes.count();
        self.plugins(kind).is_empty() && self.mistakes.count() == before
    }

    /// The blocks of the plugin type `kind` that are enabled, in the order of the file. `self` is the `plugins` block.
    pub fn plugins(&self, kind: &str) -> Vec<Plugin<'a>> {
        let reason = format!("a plugin has a name in quotes: {kind} \"name\" {{ plugin_data {{ }} }}");
        let items: Vec<&'a Item> = self.items(kind).collect();
        let is_empty = |item: &&&Item| item.labels.is_empty() && item.value == Value::Block(Body::default());
        items.iter().filter(is_empty).for_each(|item| self.mistakes.add(item.origin, &self.full(kind), reason.clone()));
        let named = items.into_iter().flat_map(|item| self.bodies_with_names(item, &reason));
        named.filter_map(|(name, origin, body)| self.plugin(kind, name, (origin, body), &reason)).collect()
    }

    fn plugin(&self, kind: &str, name: &str, (origin, body): (Origin, &'a Body), nameless: &str) -> Option<Plugin<'a>> {
        if name == "plugin_data" {
            self.mistakes.add(origin, &self.full(kind), nameless.to_owned());
            return None;
        }
        let plugin = Section::new(format!("{}.{kind}.{name}", self.name), origin, Some(body), self.mistakes);
        for key in ["plugin_cmd", "plugin_args", "plugin_checksum", "plugin_data_file"] {
            plugin.refuse(key, "external plugins are not supported: only the built-in ones are, with plugin_data");
        }
        let enabled = plugin.boolean("enabled").unwrap_or(true);
        let mut data = plugin.block("plugin_data");
        if !data.is_present() {
            data.origin = origin;
        }
        plugin.finish();
        enabled.then(|| Plugin { name: name.to_owned(), data, origin })
    }

    /// `value`, or a mistake saying that `key` must be given; `hint` says what to write. A value that was given wrongly
    /// has its own mistake already.
    pub fn required<T>(&self, key: &str, value: Option<T>, hint: &str) -> Option<T> {
        let absent = |item: &Item| match &item.value {
            Value::String(text) => text.is_empty(),
            Value::List(values) => values.is_empty(),
            Value::Block(body) => {
                body.items.iter().any(|item| item.key == "enabled" && item.value == Value::Bool(false))
            }
            _ => false,
        };
        if value.is_none() && self.items(key).all(absent) {
            self.mistake(key, format!("missing: {hint}"));
        }
        value
    }

    /// Reports `key` with `reason` if it is there.
    pub fn refuse(&self, key: &str, reason: &str) {
        if self.has(key) {
            self.mistake(key, reason);
        }
    }

    /// Refuses each of `keys` that is there with anything but `false` or nothing: known to SPIRE, not to `program` yet.
    pub fn not_supported(&self, program: &str, keys: &[&str]) {
        keys.iter()
            .for_each(|key| self.refuse_unless_empty(key, &format!("not supported by {program} yet: remove it")));
    }

    /// Refuses `key` with `reason` if it is there with anything but `false` or nothing.
    pub fn refuse_unless_empty(&self, key: &str, reason: &str) {
        let asks_for_something = |item: &Item| match &item.value {
            Value::Bool(value) => *value,
            Value::String(text) => !text.is_empty(),
            Value::List(values) => !values.is_empty(),
            Value::Block(body) => !body.items.is_empty() || !item.labels.is_empty(),
            Value::Number(_) => true,
        };
        if self.items(key).any(asks_for_something) {
            self.mistake(key, reason);
        }
    }

    /// Warns of each of `keys` that is there: known to SPIRE, and without meaning in `program`, which does without it.
    pub fn no_meaning(&self, program: &str, keys: &[&str]) {
        for key in keys.iter().filter(|key| self.has(key)) {
            self.warn(key, format!("has no meaning in {program} and is passed over"));
        }
    }

    /// The only enabled plugin of the type `kind`; several are a mistake.
    pub fn only_plugin(&self, kind: &str) -> Option<Plugin<'a>> {
        let mut found = self.plugins(kind).into_iter();
        let first = found.next();
        if let Some(second) = found.next() {
            let reason = "only one can be enabled: keep one";
            self.plugin_mistake(kind, &second, reason);
        }
        first
    }

    /// Adds a mistake at `key`'s line, or this block's if the key is not there.
    pub fn mistake(&self, key: &str, reason: impl Into<String>) {
        self.mistakes.add(self.origin_of(key), &self.full(key), reason);
    }

    /// Adds a mistake at the section's own line.
    pub fn own_mistake(&self, reason: impl Into<String>) {
        self.mistakes.add(self.origin, &self.name, reason);
    }

    /// Adds a mistake at the line of `plugin`, which is of the type `kind`.
    pub fn plugin_mistake(&self, kind: &str, plugin: &Plugin<'_>, reason: impl Into<String>) {
        self.mistakes.add(plugin.origin, &format!("{}.{}", self.full(kind), plugin.name), reason);
    }

    /// Adds a warning at `key`'s line.
    pub fn warn(&self, key: &str, reason: impl Into<String>) {
        self.mistakes.warn(self.origin_of(key), &self.full(key), reason);
    }

    /// Adds a warning at the section's own line.
    pub fn own_warn(&self, reason: impl Into<String>) {
        self.mistakes.warn(self.origin, &self.name, reason);
    }

    /// Adds a warning at the line of `plugin`, which is of the type `kind`.
    pub fn plugin_warn(&self, kind: &str, plugin: &Plugin<'_>, reason: impl Into<String>) {
        self.mistakes.warn(plugin.origin, &format!("{}.{}", self.full(kind), plugin.name), reason);
    }

    /// Reports every key that was never asked for.
    pub fn finish(&self) {
        let asked = self.asked.borrow();
        for item in self.body.iter().flat_map(|body| &body.items) {
            if !asked.contains(&item.key) {
                let hint =
                    nearest(&item.key, asked.iter()).map_or_else(String::new, |key| format!(": did you mean {key}?"));
                self.mistakes.add(item.origin, &self.full(&item.key), format!("unknown key{hint}"));
            }
        }
    }

    /// The only item named `key`; the later ones are mistakes.
    fn item(&self, key: &str) -> Option<&'a Item> {
        let mut items = self.items(key);
        let first = items.next()?;
        for again in items {
            self.mistakes.add(again.origin, &self.full(key), "given more than once: keep one");
        }
        Some(first)
    }

    fn items(&self, key: &str) -> impl Iterator<Item = &'a Item> + use<'a> {
        self.asked.borrow_mut().insert(key.to_owned());
        let key = key.to_owned();
        self.body.into_iter().flat_map(|body| &body.items).filter(move |item| item.key == key)
    }

    fn origin_of(&self, key: &str) -> Origin {
        self.items(key).next().map_or(self.origin, |item| item.origin)
    }

    fn wrong_kind<T>(&self, item: &Item, found: &Value, expected: &str) -> Option<T> {
        self.wrong(item, format!("expected {expected}, found {}", found.kind()))
    }

    fn wrong<T>(&self, item: &Item, reason: String) -> Option<T> {
        self.mistakes.add(item.origin, &self.full(&item.key), reason);
        None
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
