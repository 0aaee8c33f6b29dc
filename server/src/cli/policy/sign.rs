//! `policy sign`: a boot state that devices' sealed caches are to open in. Asks no server.

mod key;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_attest::pcr_policy::{Epoch, PolicyAuthority, SignedPolicy, Statement};
use ironroot_shell::command_line::{CommandError, Output, Reply, replace_file};
use ironroot_text::HumanFile;
use ironroot_text::hex::hex;
use serde_json::json;

use key::SigningKey;
use values::Values;

/// Largest file with a public key or a signature, bytes.
const MAX_SMALL_FILE_BYTES: usize = 8 * 1024;

/// Signs a boot state, so that devices which boot it keep their offline identities.
#[derive(Debug, Args)]
#[command(
    after_help = "Devices that have policy_key_path and policy_directory in offline_cache open their sealed cache in the state that it was sealed
in, or in one of the signed policies in that directory. Put the file there with the update, or before it.
The registers must be those of offline_cache { pcrs }, which is 7 unless it says otherwise. Make the key once and keep its private half
away from servers and devices:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out policy.key; openssl pkey -in policy.key -pubout -out policy.pub
With a key in a token: write the bytes with -toBeSigned, sign them there with SHA-256 (ECDSA as DER, or RSA PKCS #1 v1.5), and give the
same values again with -publicKey and -signature.
A higher -epoch withdraws all that was signed with a lower one, on each device that sees it; a device that missed more than six of them
gets its identities from the server again.

Example: ironroot-server policy learn -device SN-0001 -name next && ironroot-server policy show next -output json > next.json
         ironroot-server policy sign -values next.json -name \"firmware 1.3\" -epoch 1 -key policy.key firmware-1.3.json
Example: ironroot-server policy sign -eventLog binary_bios_measurements -name \"firmware 1.3\" -epoch 1 -key policy.key firmware-1.3.json
Example: ironroot-server policy sign -pcr 7=65ca... -name \"new db\" -epoch 2 -key policy.key new-db.json"
)]
pub(in crate::cli) struct Sign {
    /// The file to write
    #[arg(value_name = "FILE")]
    into: PathBuf,
    /// What people call the state; not signed
    #[arg(long, value_name = "NAME")]
    name: String,
    /// What it is signed for; lower epochs are withdrawn
    #[arg(long, value_name = "NUMBER")]
    epoch: Epoch,
    /// The operator's private key: P-256 or RSA, PKCS #8 in PEM
    #[arg(long, value_name = "PATH", required_unless_present_any = ["to_be_signed", "signature"], conflicts_with = "signature")]
    key: Option<PathBuf>,
    /// Write what is to be signed to FILE, and nothing else
    #[arg(long = "toBeSigned", conflicts_with_all = ["key", "signature"])]
    to_be_signed: bool,
    /// A signature that was made elsewhere
    #[arg(long, value_name = "PATH", requires = "public_key")]
    signature: Option<PathBuf>,
    /// The public half of the key that made it, in PEM
    #[arg(long = "publicKey", value_name = "PATH", requires = "signature")]
    public_key: Option<PathBuf>,
    #[command(flatten)]
    values: Values,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Sign {
    pub(super) fn execute(self) -> ExitCode {
        Reply::print(&self.sign(), self.output)
    }

    fn sign(&self) -> Result<Reply, CommandError> {
        let (bank, values) = self.values.read()?;
        let statement = Statement::new(&self.name, self.epoch, bank, &values).map_err(usage)?;
        if self.to_be_signed {
            self.write(&statement.to_be_signed())?;
            let path = self.into.display().to_string();
            return Ok(Reply::new(json!({ "to_be_signed": path }), format!("Sign {path} with SHA-256\n")));
        }
        let (authority, signature) = self.signature(&statement)?;
        let policy = hex(&statement.policy());
        let signed = SignedPolicy::new(statement, &authority, signature).map_err(usage)?;
        self.write(signed.to_json().as_bytes())?;
        Ok(self.reply(&policy, &authority, &signed))
    }

    fn signature(&self, statement: &Statement) -> Result<(PolicyAuthority, Vec<u8>), CommandError> {
        if let Some(path) = &self.key {
            let key = SigningKey::read(path).map_err(CommandError::run)?;
            let signature = key.sign(&statement.to_be_signed()).map_err(CommandError::run)?;
            return Ok((key.into_authority(), signature));
        }
        let Some((public_key, signature)) = self.public_key.as_deref().zip(self.signature.as_deref()) else {
            return Err(CommandError::Usage("give -key, or -publicKey and -signature".to_owned()));
        };
        let file = HumanFile::regular(public_key, MAX_SMALL_FILE_BYTES).map_err(CommandError::run)?;
        let authority = PolicyAuthority::from_pem(file.text())
            .map_err(|error| CommandError::Usage(format!("{}: {error}", public_key.display())))?;
        Ok((authority, values::read_binary(signature, MAX_SMALL_FILE_BYTES)?))
    }

    fn write(&self, bytes: &[u8]) -> Result<(), CommandError> {
        let failed = |error| CommandError::Usage(format!("cannot write {}: {error}", self.into.display()));
        replace_file(&self.into, bytes, 0o644).map_err(failed)
    }

    fn reply(&self, policy: &str, authority: &PolicyAuthority, signed: &SignedPolicy) -> Reply {
        let (file, key) = (self.into.display().to_string(), hex(&authority.fingerprint()));
        let registers = signed.registers();
        let json = json!({ "file": file, "name": self.name, "epoch": u32::from(self.epoch), "registers": registers, "policy": policy, "key": key });
        let text = format!(
            "Signed {:?} for epoch {} into {file}:\n  PCRs    : {registers}\n  Policy  : {policy}\n  Key     : {key}\n",
            self.name, self.epoch
        );
        Reply::new(json, text)
    }
}

fn usage(error: impl std::error::Error) -> CommandError {
    CommandError::Usage(error.to_string())
}
