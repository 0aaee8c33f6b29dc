//! What the audit's file says of a device.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use serde::Deserialize;

/// How much of the file's end is looked at, bytes: some 3,000 lines.
const MAX_READ_BYTES: u64 = 1024 * 1024;
/// Most lines shown, the newest.
pub const MAX_LINES: usize = 50;

/// A line, as `audit_log_file` has it. What a line lacks is empty.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct AuditLine {
    pub time: String,
    pub status: String,
    pub method: String,
    pub object: String,
    pub caller: String,
}

/// The newest lines that name one of `names`, the newest first. Errors: the file cannot be read, or is none.
pub fn lines(path: &Path, names: &[&str]) -> io::Result<Vec<AuditLine>> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(MAX_READ_BYTES)))?;
    let mut end = Vec::new();
    file.take(MAX_READ_BYTES).read_to_end(&mut end)?;
    Ok(newest(&String::from_utf8_lossy(&end), names))
}

fn newest(text: &str, names: &[&str]) -> Vec<AuditLine> {
    let about = |line: &&str| names.iter().any(|name| !name.is_empty() && line.contains(name));
    let read = |line: &str| serde_json::from_str(line).ok();
    text.lines().rev().filter(about).filter_map(read).take(MAX_LINES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_about_a_device_are_shown_and_half_a_line_is_none() {
        let line = |time: usize, object: &str| {
            serde_json::json!({"time": time.to_string(), "object": object, "method": "BanDevice", "pid": 7}).to_string()
        };
        let mut text: Vec<String> = (0..MAX_LINES + 9).map(|time| line(time, "5f1c: banned")).collect();
        text.push(line(900, "other"));
        text.push("{\"object\": \"5f1c".to_owned());
        let found = newest(&text.join("\n"), &["5f1c", ""]);
        assert_eq!(found.len(), MAX_LINES);
        assert_eq!((found[0].time.as_str(), found[0].method.as_str()), ("58", "BanDevice"));
    }

    #[test]
    fn of_a_long_file_the_end_alone_is_read_and_what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("audit.log");
        let first = "{\"object\": \"5f1c\", \"time\": \"first\"}\n";
        let filler = format!("{}\n", "x".repeat(1023)).repeat(1024);
        std::fs::write(&path, format!("{first}{filler}{}", first.replace("first", "last"))).expect("written");
        let found = lines(&path, &["5f1c"]).expect("readable");
        assert_eq!(found.iter().map(|line| &*line.time).collect::<Vec<_>>(), ["last"]);
        assert!(lines(directory.path(), &["x"]).is_err());
    }
}
