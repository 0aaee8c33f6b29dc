//! A workload that is told apart by the fs-verity digest of its executable, on a kernel that has fs-verity.

use ironroot_lab::deployment::wait_for;
use ironroot_lab::machine::Shell;

use crate::Outcome;
use crate::lab::{AGENT_DEADLINE, Lab, explain_by, fetch_by, first_svid, journal};
use crate::stories::require;

/// The user that the entry names beside the digest.
const USER: u32 = 60_006;
/// What the unit and `agent.conf` say to do where executables are told; by hand, as an operator tries it.
const LOOK_AT_EXECUTABLES: &str = r#"set -e
sed -e 's/# discover_workload_path = false/discover_workload_path = true/' \
  -e 's/# executable_in_other_mounts = false/executable_in_other_mounts = true/' /etc/ironroot/agent.conf > /run/lab-agent.conf
chmod 644 /run/lab-agent.conf
mkdir -p /run/systemd/system/ironroot-agent.service.d
cat > /run/systemd/system/ironroot-agent.service.d/lab.conf <<'END'
[Service]
AmbientCapabilities=CAP_SYS_PTRACE
CapabilityBoundingSet=CAP_SYS_PTRACE
ExecStart=
ExecStart=/usr/bin/ironroot-agent run -config /run/lab-agent.conf
END
systemctl daemon-reload
systemctl restart ironroot-agent"#;
/// A file system that allows fs-verity, in a file of the data partition, and in it the same program three times.
const THREE_COPIES: &str = "set -e; mkdir -p /var/lab /run/lab-programs; truncate -s 80M /var/lab/programs; \
     mkfs.ext4 -q -b 4096 -O verity /var/lab/programs; mount -o loop /var/lab/programs /run/lab-programs; \
     for copy in plain sealed salted; do install -m 755 /usr/bin/ironroot-agent /run/lab-programs/$copy; done; sync";
/// `fsverity enable` and `fsverity measure` in the words of the Perl that every Debian has: the image has no fsverity. The second argument
/// is a salt. Source: Linux, include/uapi/linux/fsverity.h, FS_IOC_ENABLE_VERITY and FS_IOC_MEASURE_VERITY.
const SEAL: &str = r#"perl -e '
  my ($file, $salt) = @ARGV;
  open my $open, "<", $file or die "$file: $!";
  my $how = pack("L4 P", 1, 1, 4096, length $salt, $salt) . "\0" x 104;
  ioctl($open, 0x40806685, $how) or die "enable: $!";
  my $told = pack("S2 x64", 0, 64);
  ioctl($open, 0xc0046686, $told) or die "measure: $!";
  my ($hash, $length, $digest) = unpack("S2 a*", $told);
  $hash == 1 or die "hash $hash";
  print unpack("H*", substr($digest, 0, $length));' "#;
/// The disk below changes: the first block of the sealed program is zeros, which no write through the file system could do.
const CHANGE_BELOW: &str = "set -e; umount /run/lab-programs; block=$(debugfs -R 'bmap /sealed 0' /var/lab/programs 2> /dev/null); \
     dd if=/dev/zero of=/var/lab/programs bs=4096 seek=$block count=1 conv=notrunc,fsync status=none; \
     mount -o loop /var/lab/programs /run/lab-programs";

pub fn tell(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    let shell = machine.shell()?;
    // In a shell of its own, which may end at the first mistake.
    shell.run(&alone(LOOK_AT_EXECUTABLES))?;
    shell.run(&alone(THREE_COPIES))?;
    let digest = shell.run(&format!("{SEAL} /run/lab-programs/sealed ''"))?;
    let salted = shell.run(&format!("{SEAL} /run/lab-programs/salted salt"))?;
    require(digest.len() == 64 && digest != salted, &format!("the kernel measures {digest}, with a salt {salted}"))?;
    let entry = lab.create_entry_of("/sealed", &[&user(), &format!("unix:fs_verity:sha256:{digest}")]);
    let told = served_as_sealed(shell)?;
    let refused = refused_when_changed_below(shell)?;
    lab.server.cli(&["entry", "delete", "-entryID", &entry]);
    Ok(format!(
        "by the digest that the kernel measures, {}…, also where the seal has a salt; the plain copy: {told}; after a change below: {refused}",
        &digest[..8]
    ))
}

fn user() -> String {
    format!("unix:uid:{USER}")
}

fn alone(script: &str) -> String {
    format!("sh <<'ALONE'\n{script}\nALONE")
}

/// Waits for the sealed program's identity; what the plain copy is told.
fn served_as_sealed(shell: &mut Shell) -> Outcome<String> {
    let served = wait_for(AGENT_DEADLINE, || fetch_by(shell, "/run/lab-programs/sealed", USER).ok()?.ok());
    let said = served.ok_or_else(|| format!("the sealed program gets no identity: {}", journal(shell)))?;
    require(said.contains("/sealed"), &format!("the sealed program gets something else: {said}"))?;
    // Whose seal has a salt is guarded as well, and has the same content.
    require(fetch_by(shell, "/run/lab-programs/salted", USER)?.is_ok(), "a seal with a salt counts for nothing")?;
    require(fetch_by(shell, "/run/lab-programs/plain", USER)?.is_err(), "a copy that nobody guards is served")?;
    require(fetch_by(shell, "/run/lab-programs/sealed", USER + 1)?.is_err(), "another user is served")?;
    let said = explain_by(shell, "/run/lab-programs/plain", USER)?;
    let line = said.lines().find_map(|line| line.split_once("unix:fs_verity: ")).map(|(_, why)| why.to_owned());
    Ok(line.ok_or_else(|| format!("nobody says why: {said}"))?)
}

/// What reading the sealed program says after its first block was changed on the disk below.
fn refused_when_changed_below(shell: &mut Shell) -> Outcome<String> {
    let written = shell.try_run("echo changed >> /run/lab-programs/sealed")?;
    require(written.1 != "0", "what is sealed can be written to")?;
    shell.run(&alone(CHANGE_BELOW))?;
    let (said, code) = shell.try_run("cat /run/lab-programs/sealed > /dev/null")?;
    require(code != "0" && said.contains("Input/output error"), &format!("what was changed is read: {said}"))?;
    require(fetch_by(shell, "/run/lab-programs/sealed", USER)?.is_err(), "what was changed runs, and is served")?;
    require(fetch_by(shell, "/run/lab-programs/salted", USER)?.is_ok(), "what was not changed is served no more")?;
    Ok("Input/output error".to_owned())
}
