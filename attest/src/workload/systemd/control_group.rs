//! The unit that a process's control group says.
//!
//! systemd puts each unit's processes into a control group named after the unit, and only root, or whom root has delegated
//! that very group to, can put a process there. What is below a unit, such as a user's own manager (`user@1000.service`), is
//! arranged by its owner and counts for nothing: the first unit on the way down is the one. systemd itself reads units so.
//! Source: systemd.slice(5), cgroups(7), cg_path_get_unit() of systemd.

use procfs::ProcessCGroups;

/// Units that have processes. Source: systemd.unit(5).
const SUFFIXES: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];
/// Longest unit name, bytes. Source: systemd.unit(5).
const MAX_UNIT_BYTES: usize = 255;

/// The unit of a process in these groups; `None` outside of units.
pub(super) fn unit(groups: &ProcessCGroups) -> Option<&str> {
    unit_below_slices(&systemds(groups)?.pathname)
}

/// systemd's own hierarchy: a named one where there are several, else the only one.
fn systemds(groups: &ProcessCGroups) -> Option<&procfs::ProcessCGroup> {
    let named = |group: &&procfs::ProcessCGroup| group.controllers == ["name=systemd"];
    groups.0.iter().find(named).or_else(|| groups.0.iter().find(|group| group.hierarchy == 0))
}

/// The unit in a path such as `/system.slice/system-getty.slice/getty@tty1.service/below`.
fn unit_below_slices(path: &str) -> Option<&str> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let mut slice = parts.next()?.strip_suffix(".slice").filter(|slice| is_name(slice) && !slice.contains('-'))?;
    for part in parts {
        // Names that the kernel has a use for are escaped so. Source: cg_escape() of systemd.
        let part = part.strip_prefix('_').unwrap_or(part);
        match part.strip_suffix(".slice") {
            // A slice in a slice bears its name.
            Some(below) if below.strip_prefix(slice).is_some_and(|rest| rest.starts_with('-') && is_name(below)) => {
                slice = below;
            }
            Some(_) => return None,
            None => return Some(part).filter(|part| is_unit(part)),
        }
    }
    None
}

fn is_unit(name: &str) -> bool {
    let has_suffix = SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
    has_suffix && is_name(name)
}

fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    (1..=MAX_UNIT_BYTES).contains(&text.len()) && text.bytes().all(legal)
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;

    use super::*;

    fn of(lines: &str) -> Option<String> {
        unit(&ProcessCGroups::from_buf_read(lines.as_bytes()).expect("parses")).map(str::to_owned)
    }

    #[test]
    fn control_groups_survive_damage_and_name_only_units() {
        let lines =
            "12:cpu,cpuacct:/\n1:name=systemd:/system.slice/app.service\n0::/system.slice/system-a.slice/b.scope\n";
        ironroot_fuzz::Target::new("control groups").seed(lines).survives(|bytes| {
            let Ok(groups) = ProcessCGroups::from_buf_read(bytes) else { return };
            if let Some(unit) = unit(&groups) {
                assert!(is_unit(unit), "{unit:?}");
            }
        });
    }

    #[test]
    fn the_first_unit_below_slices_is_named_and_nothing_else() {
        for (path, unit) in [
            ("/system.slice/app.service", Some("app.service")),
            ("/system.slice/app.service/made by itself/deeper", Some("app.service")),
            ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
            ("/system.slice/system-a.slice/system-a-b.slice/c.scope", Some("c.scope")),
            ("/system.slice/docker-0123abcd.scope", Some("docker-0123abcd.scope")),
            ("/system.slice/_cpu.service", Some("cpu.service")),
            ("/system.slice/dev-disk-by\\x2dlabel-swap.swap", Some("dev-disk-by\\x2dlabel-swap.swap")),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/app.service", Some("user@1000.service")),
            ("/user.slice/user-1000.slice/session-1.scope", Some("session-1.scope")),
            ("/apps.slice/apps-web.slice/app.service", Some("app.service")),
            ("/apps-web.slice/app.service", None),
            ("/made by hand.slice/app.service", None),
            ("/system.slice/user.slice/app.service", None),
            ("/system.slice/systematic.slice/app.service", None),
            ("/system.slice", None),
            ("/system.slice/", None),
            ("/system.slice/.service", None),
            ("/system.slice/app.service (deleted)", None),
            ("/system.slice/made-by-hand/app.service", None),
            ("/../system.slice/app.service", None),
            ("/app.service", None),
            ("/", None),
            ("", None),
        ] {
            let expected = unit.map(str::to_owned);
            assert_eq!(of(&format!("0::{path}\n")), expected, "{path}");
            assert_eq!(of(&format!("7:pids:/x\n1:name=systemd:{path}\n0::/\n")), expected, "{path}");
        }
        assert_eq!(of(&format!("0::/system.slice/{}.service", "a".repeat(MAX_UNIT_BYTES))), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn other_hierarchies_say_nothing_of_units() {
        assert_eq!(of("4:memory:/system.slice/app.service\n2:name=other:/system.slice/app.service\n"), None);
        assert_eq!(of("1:name=systemd:/\n0::/system.slice/app.service\n"), None, "systemd's own hierarchy counts");
    }
}
