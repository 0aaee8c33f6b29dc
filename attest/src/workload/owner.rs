//! Whose a process is, of the text of /proc/PID/status.

/// Of the fifty lines of that file, the three that tell whose the process is. They are read without the others, which are more work
/// than anything else in looking at a caller again. Source: proc_pid_status(5).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// Effective user ID.
    pub euid: u32,
    /// Effective group ID.
    pub egid: u32,
    /// Supplementary group IDs.
    pub groups: Vec<u32>,
}

impl Owner {
    /// `None` if a line is missing, was cut off, or holds anything but numbers. The process's name, which may be any bytes, is a line
    /// of its own: the kernel escapes its line ends.
    pub fn parse(status: &[u8]) -> Option<Self> {
        let numbers = |name: &str| -> Option<Vec<u32>> {
            let mut lines = status.split_inclusive(|byte| *byte == b'\n');
            let line = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_suffix(b"\n"))?;
            std::str::from_utf8(line).ok()?.split_ascii_whitespace().map(|number| number.parse().ok()).collect()
        };
        // Real, effective, saved, and that for files.
        let effective = |name| numbers(name).and_then(|ids| (ids.len() == 4).then(|| ids[1]));
        Some(Self { euid: effective("Uid:")?, egid: effective("Gid:")?, groups: numbers("Groups:")? })
    }
}

/// Whether a process is in the PID namespace of the /proc that its status was read from: one that is in a namespace below has a number
/// in each. Kernels without such namespaces have no such line. Source: proc_pid_status(5), NSpid.
pub(super) fn has_one_number(status: &[u8]) -> bool {
    let mut lines = status.split(|byte| *byte == b'\n');
    let numbers = lines.find_map(|line| line.strip_prefix(b"NSpid:"));
    numbers.is_none_or(|numbers| numbers.trim_ascii().split(u8::is_ascii_whitespace).count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tweb\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t7\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n\
                          FDSize:\t64\nGroups:\t4 24 100000 \nNStgid:\t7\nCapEff:\t0000000000000000\n";

    #[test]
    fn the_effective_ids_and_all_groups_are_told() {
        let owner = Owner::parse(STATUS.as_bytes()).expect("parses");
        assert_eq!(owner, Owner { euid: 2, egid: 6, groups: vec![4, 24, 100_000] });
        let alone = STATUS.replace("4 24 100000 ", "");
        assert_eq!(Owner::parse(alone.as_bytes()).expect("parses").groups, [0; 0]);
    }

    //= FLT-A17
    #[test]
    fn a_name_of_any_bytes_does_not_hide_whose_a_process_is() {
        for name in [&b"Uid:\t0\t0\t0\t0"[..], b"\\nUid:\t0\t0\t0\t0", b"\xff\xfe", b"", b"Groups:\t0"] {
            let status = [b"Name:\t", name, &STATUS.as_bytes()["Name:\tweb".len()..]].concat();
            assert_eq!(Owner::parse(&status), Owner::parse(STATUS.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn who_has_numbers_in_several_pid_namespaces_is_in_the_last() {
        for (line, one) in [("NSpid:\t7\n", true), ("NSpid:\t7\t1\n", false), ("NSpid:\t7\t5\t1\n", false), ("", true)]
        {
            assert_eq!(has_one_number(format!("{STATUS}{line}CapInh:\t0\n").as_bytes()), one, "{line:?}");
        }
        let named = STATUS.replacen("web", "NSpid:\t7\t1", 1);
        assert!(has_one_number(format!("{named}NSpid:\t7\n").as_bytes()), "a name is no line of its own");
    }

    #[test]
    fn what_is_cut_off_or_no_number_tells_nothing() {
        let cut = STATUS.find("0000 \n").expect("within the groups");
        assert_eq!(Owner::parse(&STATUS.as_bytes()[..cut]), None, "a group less would be another process's");
        for (part, other) in [("Uid:", "uid:"), ("\t2\t", "\t"), ("\t6\t", "\t-6\t"), (" 24 ", " x "), ("Groups", "G")]
        {
            assert_eq!(Owner::parse(STATUS.replacen(part, other, 1).as_bytes()), None, "{part:?} as {other:?}");
        }
        assert_eq!(Owner::parse(b""), None);
    }
}
