//! The files that a golden device has measured: those of its list that its quote has proven.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use ironroot_api::pb::device::device_client::DeviceClient;
use ironroot_api::pb::device::{BootState, DeviceRequest, MeasuredFiles};
use ironroot_api::pb::pcr_policy as pb;
use ironroot_attest::ima::{Measured, Reached, Replay, read_part};
use ironroot_attest::node::tpm2::PcrHash;
use ironroot_shell::command_line::CommandError;
use tonic::transport::Channel;

use crate::facts::device::PcrValue;
use crate::facts::ima_policy::MeasuredFile;

/// The files of the list at `path`, as far as the device has proven it to its server.
pub(super) async fn proven(path: &Path, channel: Channel, ek_sha256: &str) -> Result<Vec<pb::File>, CommandError> {
    let request = DeviceRequest { ek_sha256: ek_sha256.to_owned() };
    let device = DeviceClient::new(channel).get_device(request).await?.into_inner();
    let said = |error: String| CommandError::Usage(format!("{}: {error}", path.display()));
    let (bank, files) = last_proven(device.boots.first()).map_err(CommandError::Usage)?;
    let learnt = learn(path, bank, files).map_err(said)?;
    Ok(learnt.iter().map(MeasuredFile::to_pb).collect())
}

fn last_proven(boot: Option<&BootState>) -> Result<(PcrHash, &MeasuredFiles), String> {
    let boot = boot.ok_or("the device has proven no boot state yet: let it attest")?;
    let files =
        boot.ima.as_ref().ok_or("the server asks for no lists of files: set ima_log of NodeAttestor \"tpm2\"")?;
    if !files.missing.is_empty() {
        return Err(files.missing.clone());
    }
    Ok((boot.bank.parse::<PcrHash>().map_err(|_| "the device was quoted from a bank that is not known here")?, files))
}

fn learn(path: &Path, bank: PcrHash, proven: &MeasuredFiles) -> Result<BTreeSet<MeasuredFile>, String> {
    let register: PcrValue = proven.register.parse().map_err(str::to_owned)?;
    let mut replay = Replay::new(bank, register.0);
    let mut learnt = BTreeSet::new();
    while replay.reached() == Reached::NotYet {
        let list = File::open(path).map_err(|error| error.to_string())?;
        let part = read_part(std::io::BufReader::new(list), replay.entries()).map_err(|error| error.to_string())?;
        let extended = replay.extend(&part, |measured| {
            if let Measured::File { path, digest } = measured {
                learnt.insert(MeasuredFile { digest, path });
            }
        });
        extended.map_err(|error| {
            format!("{error}; is it the list of this device, of the boot that it attested in last?")
        })?;
    }
    Ok(learnt)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../attest/tests/boot_logs/ovmf_direct_ima_tcb_ext4/ima_binary_runtime_measurements"
    );

    fn quoted(register: &[u8]) -> MeasuredFiles {
        MeasuredFiles { register: PcrValue(register.to_vec()).to_string(), ..MeasuredFiles::default() }
    }

    #[test]
    fn a_real_list_is_learnt_as_far_as_it_is_proven_and_no_further() {
        let list = std::fs::read(REAL).expect("the list");
        let (mut replay, mut values) = (Replay::new(PcrHash::Sha256, vec![0xff; 32]), Vec::new());
        let mut rest = &list[..];
        while !rest.is_empty() {
            let (_, behind) = ironroot_attest::ima::Entry::read(rest, 1).expect("an entry");
            replay.extend(&rest[..rest.len() - behind.len()], |_| {}).expect("extended");
            values.push(replay.register().to_vec());
            rest = behind;
        }
        let learnt = |value: &[u8]| learn(Path::new(REAL), PcrHash::Sha256, &quoted(value));
        assert_eq!(learnt(&values[0]).expect("the boot aggregate").len(), 0);
        assert_eq!(learnt(&values[2]).expect("two files").len(), 2);
        let all = learnt(values.last().expect("some")).expect("all");
        assert!(all.len() > 50 && all.iter().any(|file| file.path == "/bin/busybox"), "{all:?}");
        let refused = learnt(&[1; 32]).expect_err("another device's");
        assert!(refused.contains("57 entries do not give"), "{refused}");
    }

    #[test]
    fn what_is_missing_is_said() {
        assert!(last_proven(None).expect_err("nothing").contains("let it attest"));
        let boot = |ima| BootState { bank: "sha256".into(), ima, ..BootState::default() };
        assert!(last_proven(Some(&boot(None))).expect_err("not asked").contains("ima_log"));
        let missing = MeasuredFiles { missing: "no list".into(), ..MeasuredFiles::default() };
        assert_eq!(last_proven(Some(&boot(Some(missing)))), Err("no list".to_owned()));
        assert!(last_proven(Some(&boot(Some(quoted(&[1; 32]))))).is_ok());
    }
}
