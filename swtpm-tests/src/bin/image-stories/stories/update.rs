//! What a device has booted, as the operator sees it: a policy that was learned, and an update that was signed in advance.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ironroot_lab::deployment::{TRUST_DOMAIN, wait_for};
use ironroot_lab::machine::{Board, Machine, Shell};
use ironroot_lab::policy_operator::{P256, PolicyOperator};

use crate::Outcome;
use crate::lab::{AGENT_DEADLINE, Lab, WORKLOAD, expect_identity, expect_log, expect_sealed, fetch, first_svid};
use crate::stories::require;

/// A workload that has an identity only where the boot is as it was learned.
const TRUSTED: u32 = 60_005;
/// The registers that the cache is sealed to: what signs kernels, and what is in the one that booted (its command line names the root's
/// hash, so every update changes it). Source: systemd-stub(7), "TPM PCR Notes".
const REGISTERS: &str = "7,11";
/// Where a device has signed policies. Not in the root: a policy in it would have to hold a value that the root's own hash is part of.
const POLICIES: &str = "/var/lib/ironroot-policies";
/// The firmware's log, and the boot loader's.
const BOOT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";

pub fn boot_policy(lab: &mut Lab) -> Outcome<String> {
    let board = lab.enrolled_board()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    let serial = lab.serial()?;
    learn(lab, &serial)?;
    let parent = format!("spiffe://{TRUST_DOMAIN}/spire/server");
    let trusted = format!("spiffe://{TRUST_DOMAIN}/trusted");
    let node = lab.server.create_entry(&parent, "/trusted", &["tpm2:policy:golden"], &[]);
    let entry = lab.server.create_entry(&trusted, "/measured", &[&format!("unix:uid:{TRUSTED}")], &[]);
    expect_identity(machine.shell()?, TRUSTED)?;
    machine.shut_down()?;
    board.forget_keys()?;
    let told = without_secure_boot(lab, &board, &serial);
    for id in [&entry, &node] {
        lab.server.cli(&["entry", "delete", "-entryID", id]);
    }
    lab.server.cli(&["policy", "delete", "golden"]);
    told
}

/// The policy, as soon as the device has attested: what it serves before is what it had sealed.
fn learn(lab: &Lab, serial: &str) -> Outcome<()> {
    let mut said = String::new();
    let learned = wait_for(AGENT_DEADLINE, || {
        let output = lab.server.cli_output(&["policy", "learn", "-device", serial, "-name", "golden"]);
        said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        output.status.success().then_some(())
    });
    require(learned.is_some() && said.contains("tpm2:policy:golden"), &format!("nothing was learned: {said}"))
}

fn without_secure_boot(lab: &Lab, board: &Board, serial: &str) -> Outcome<String> {
    let mut machine = board.power_on(&lab.power())?;
    expect_log(machine.shell()?, "did not boot as it did when the file was sealed")?;
    // Its other entries ask for no policy: it has attested, and what it lacks is the policy's.
    first_svid(&mut machine)?;
    require(fetch(machine.shell()?, TRUSTED)?.is_err(), "an identity for a boot that the policy does not know")?;
    let shown = lab.server.cli(&["device", "show", serial]);
    let told = "PCR 7: Secure Boot was on, is off";
    require(shown.contains(told), &format!("the operator is not told: {shown}"))?;
    Ok(format!("cache shut, no identity of the policy's; device show: {told}"))
}

pub fn signed(lab: &mut Lab) -> Outcome<String> {
    let operator = PolicyOperator::new(&P256);
    let (old, new) = (image(lab, &operator, "first")?, image(lab, &operator, "second")?);
    let board = lab.board_with(&old)?;
    let machine = enrolled(lab, &board)?;
    let policy = sign(lab, &operator, &new)?;
    machine.shut_down()?;
    // One device gets the policy before the update, another one the update alone. From here on the server sees only one of the two chips.
    lab.server.kill();
    let forgotten = board.copy()?;
    let mut machine = board.power_on(&lab.power())?;
    bring(machine.shell()?, &policy)?;
    machine.shut_down()?;
    let facts = offline_after(lab, &board, &new)?;
    asks_its_server(lab, &forgotten, &new)?;
    Ok(facts)
}

/// An image whose agent seals to [`REGISTERS`] and knows the operator.
fn image(lab: &Lab, operator: &PolicyOperator, version: &str) -> Outcome<PathBuf> {
    let public = std::fs::read_to_string(operator.path("policy.pub"))?;
    let configuration = format!(
        r#"agent {{
    trust_domain = "{TRUST_DOMAIN}"
    server_address = "10.0.2.100"
    server_port = 8081
    trust_bundle_path = "/etc/ironroot/bootstrap.pem"
    data_dir = "/var/lib/ironroot-agent"
    socket_path = "/run/ironroot-agent/public/api.sock"
    offline_cache {{
        pcrs = [{REGISTERS}]
        policy_key_path = "/etc/ironroot/policy.pub"
        policy_directory = "{POLICIES}"
    }}
}}
plugins {{
    NodeAttestor "tpm2" {{ plugin_data {{}} }}
    KeyManager "tpm" {{ plugin_data {{}} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#
    );
    lab.image(
        version,
        &[
            ("etc/ironroot/agent.conf", &configuration),
            ("etc/ironroot/policy.pub", &public),
            ("usr/lib/lab/version", version),
        ],
    )
}

/// A device that was never seen, until it has sealed what it serves.
fn enrolled(lab: &Lab, board: &Board) -> Outcome<Machine> {
    let mut machine = board.power_on(&lab.power())?;
    lab.enrol(&mut machine)?;
    expect_sealed(machine.shell()?)?;
    Ok(machine)
}

/// The boot of a golden device with the new image, signed by the operator: the policy.
fn sign(lab: &Lab, operator: &PolicyOperator, image: &Path) -> Outcome<String> {
    let golden = lab.board_with(image)?;
    let mut machine = golden.power_on(&lab.power())?;
    let log = machine.shell()?.run(&format!("base64 -w0 {BOOT_LOG}"))?;
    machine.cut();
    std::fs::write(operator.path("golden.log"), BASE64_STANDARD.decode(log.trim())?)?;
    let policy = operator.path("second.json");
    let state = ["-eventLog", "golden.log", "-pcrs", REGISTERS, "-name", "second", "-epoch", "1", "-key", "policy.key"];
    let output = operator.command(&policy, &state);
    require(output.status.success(), &String::from_utf8_lossy(&output.stderr))?;
    Ok(std::fs::read_to_string(policy)?)
}

/// Puts the policy where the device looks for some.
fn bring(shell: &mut Shell, policy: &str) -> Outcome<()> {
    let policy = BASE64_STANDARD.encode(policy);
    shell.run(&format!("mkdir -p {POLICIES} && echo {policy} | base64 -d > {POLICIES}/second.json && sync"))?;
    Ok(())
}

/// The device boots the new image without a server, and serves.
fn offline_after(lab: &Lab, board: &Board, image: &Path) -> Outcome<String> {
    board.update(image)?;
    let mut machine = board.power_on(&lab.power())?;
    let svid = first_svid(&mut machine)?;
    let shell = machine.shell()?;
    require(shell.run("cat /usr/lib/lab/version")? == "second", "the old image has booted")?;
    expect_log(shell, "the device booted what the operator has signed")?;
    expect_sealed(shell)?;
    // Sealed anew it needs no policy any more.
    shell.run(&format!("rm {POLICIES}/second.json && sync"))?;
    machine.shut_down()?;
    let mut machine = board.power_on(&lab.power())?;
    first_svid(&mut machine)?;
    Ok(format!(
        "PCRs {REGISTERS}: {:.1} s from the new kernel's start to an identity without a server; sealed anew",
        svid.seconds
    ))
}

/// The device boots the new image without a policy: nothing until its server answers.
fn asks_its_server(lab: &mut Lab, board: &Board, image: &Path) -> Outcome<()> {
    board.update(image)?;
    let mut machine = board.power_on(&lab.power())?;
    expect_log(machine.shell()?, "did not boot as it did when the file was sealed")?;
    require(fetch(machine.shell()?, WORKLOAD)?.is_err(), "an identity in a boot state that nobody signed")?;
    lab.server.restart();
    first_svid(&mut machine)?;
    expect_log(machine.shell()?, "identities sealed").map(drop)
}
