//! CSV manifests, as people and spreadsheets write them. Source: RFC 4180, with commas, semicolons or tabs.

use csv::{ReaderBuilder, StringRecord, Trim};

use super::{Lines, Mistake, Record};
use crate::devices::DeviceTexts;

const LABEL_PREFIX: &str = "label:";

/// What separates fields: spreadsheets take the semicolon where the comma is the decimal mark.
const SEPARATORS: [char; 3] = [',', ';', '\t'];

/// A line of the file, or several where a quoted field spans them.
struct Row {
    line: usize,
    fields: StringRecord,
}

/// What a column holds.
#[derive(Debug, PartialEq, Eq)]
enum Column {
    EkSha256,
    EkCertificate,
    Serial,
    Label(String),
}

/// The records, and what is wrong with the file as CSV.
pub(super) fn records(text: &str) -> (Vec<Record>, Vec<Mistake>) {
    let (rows, mistakes) = rows(text);
    let mut rows = rows.into_iter();
    let Some(header) = rows.next().filter(|_| mistakes.is_empty()) else { return (Vec::new(), mistakes) };
    let columns = match columns(&header) {
        Ok(columns) => columns,
        Err(mistakes) => return (Vec::new(), mistakes),
    };
    let (mut records, mut mistakes) = (Vec::new(), Vec::new());
    for row in rows {
        match record(&columns, &row) {
            Ok(record) => records.push(record),
            Err(what) => mistakes.push(Mistake { line: row.line, what }),
        }
    }
    (records, mistakes)
}

/// Names of columns are repeated in messages only where the line is a manifest's header: otherwise they might be anything,
/// a PIN for example.
fn columns(header: &Row) -> Result<Vec<Column>, Vec<Mistake>> {
    // Spreadsheets end rows with separators.
    let named =
        header.fields.iter().enumerate().filter(|(_, name)| !name.is_empty()).last().map_or(0, |(last, _)| last + 1);
    let columns: Vec<Option<Column>> = header.fields.iter().take(named).map(Column::parse).collect();
    let line = header.line;
    if !columns.iter().flatten().any(|column| matches!(column, Column::EkSha256 | Column::EkCertificate)) {
        let what = "this is no manifest: its first line must name the columns, ek_sha256 or ek_certificate among them";
        return Err(vec![Mistake { line, what: what.to_owned() }]);
    }
    let mut mistakes = Vec::new();
    for (place, (column, name)) in columns.iter().zip(&header.fields).enumerate() {
        let name: String = name.chars().take(64).collect();
        if column.is_none() {
            let what = format!("unknown column {name:?}: must be ek_sha256, ek_certificate, serial or label:<name>");
            mistakes.push(Mistake { line, what });
        } else if columns[..place].contains(column) {
            mistakes.push(Mistake { line, what: format!("column {name:?} stands twice") });
        }
    }
    if mistakes.is_empty() { Ok(columns.into_iter().flatten().collect()) } else { Err(mistakes) }
}

impl Column {
    fn parse(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "ek_sha256" => Some(Self::EkSha256),
            "ek_certificate" => Some(Self::EkCertificate),
            "serial" => Some(Self::Serial),
            _ => label_name(name).map(|label| Self::Label(label.to_owned())),
        }
    }
}

fn label_name(column: &str) -> Option<&str> {
    let (prefix, label) = column.split_at_checked(LABEL_PREFIX.len())?;
    let is_label = prefix.eq_ignore_ascii_case(LABEL_PREFIX) && !label.trim().is_empty();
    is_label.then_some(label.trim())
}

/// More than empty fields behind the last column is a mistake.
fn record(columns: &[Column], row: &Row) -> Result<Record, String> {
    let surplus = row.fields.iter().skip(columns.len()).any(|field| !field.is_empty());
    if row.fields.len() < columns.len() || surplus {
        return Err(format!("{} fields, the header has {}", row.fields.len(), columns.len()));
    }
    let mut texts = DeviceTexts::default();
    for (column, value) in columns.iter().zip(&row.fields) {
        let value = value.to_owned();
        match column {
            Column::EkSha256 => texts.ek_sha256 = value,
            Column::EkCertificate => texts.ek_certificate = value,
            Column::Serial => texts.serial = Some(value),
            Column::Label(label) => drop(texts.labels.insert(label.clone(), value)),
        }
    }
    Ok(Record { line: row.line, texts })
}

/// Splits the text; rows without any content are left out.
fn rows(text: &str) -> (Vec<Row>, Vec<Mistake>) {
    let (separator, text) = separator(text);
    let mut reader = ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .flexible(true)
        .trim(Trim::All)
        .from_reader(text.as_bytes());
    let mut lines = Lines::new(text);
    let (mut rows, mut mistakes) = (Vec::new(), Vec::new());
    let mut record = StringRecord::new();
    loop {
        let begin = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX);
        match reader.read_record(&mut record) {
            Ok(false) => return (rows, mistakes),
            Err(error) => {
                mistakes.push(Mistake { line: lines.line_at(begin), what: error.to_string() });
                return (rows, mistakes);
            }
            Ok(true) => {}
        }
        let end = usize::try_from(reader.position().byte()).unwrap_or(usize::MAX);
        let raw = text.get(begin..end).unwrap_or_default();
        // The reader passes over line ends in front of a record.
        let line = lines.line_at(begin + raw.len() - raw.trim_start_matches('\n').len());
        if raw.matches('"').count() % 2 != 0 {
            let what = "a quotation mark is not closed, or not where it may be".to_owned();
            mistakes.push(Mistake { line, what });
        }
        if record.iter().any(|field| !field.is_empty()) {
            rows.push(Row { line, fields: record.clone() });
        }
    }
}

/// The separator, and the text behind a line that only names it (Excel's `sep=;`), whose line end stays.
fn separator(text: &str) -> (u8, &str) {
    let first = text.lines().next().unwrap_or_default();
    let named = first.strip_prefix("sep=").filter(|named| SEPARATORS.iter().any(|s| *named == s.to_string()));
    if let Some(named) = named {
        return (named.as_bytes()[0], &text[first.len()..]);
    }
    let header = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let often = |separator: &char| header.matches(*separator).count();
    // Of equally frequent ones the last would be taken: the comma must come last.
    let separator = SEPARATORS.into_iter().rev().max_by_key(often).unwrap_or(',');
    (u8::try_from(separator).unwrap_or(b','), text)
}
