//! `tpm show`: what a factory writes down about a device, before there is a server or a configuration; and `tpm provision`.

mod description;
mod provision;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Subcommand};
use ironroot_attest::tpm::{EndorsementChoice, Tpm, TpmAddress, TpmError, TpmSettings};
use ironroot_shell::command_line::{CommandError, Output, Reply, describe};

use crate::config::{AgentConfig, DEFAULT_TPM, PasswordSource};
use crate::run::tpm_settings;
use description::{Description, ManifestLine};

/// What else to do where no chip answers; the error says what to look at.
const ANOTHER_CHIP: &str = "-tpm names another chip";

#[derive(Debug, Subcommand)]
pub(super) enum TpmCommand {
    Show(Show),
    Provision(provision::Provision),
}

impl TpmCommand {
    pub(super) fn execute(self) -> ExitCode {
        match self {
            Self::Show(show) => show.execute(),
            Self::Provision(provision) => provision.execute(),
        }
    }
}

/// Shows this device's TPM: the key that names the device, its certificate, the maker, the boot registers.
#[derive(Debug, Args)]
#[command(
    after_help = "Needs no server and no configuration, and changes nothing in the TPM. Run it as root, or as a user who may use the \
        TPM (group tss). The agent uses the same key as is shown here, unless its configuration sets another one with \"ek\", or it \
        has attested with another one before.

With -output csv it prints a manifest: a head line and one line for this device, as \"device import\" takes it. In a factory, for \
        every device, and then on the server, for each file:

  ironroot-agent tpm show -output csv -serial SN-0001 -label site=berlin > SN-0001.csv
  ironroot-server device import SN-0001.csv

Example: ironroot-agent tpm show
Example: ironroot-agent tpm show -tpm swtpm:host=127.0.0.1,port=2321 -output json
Example: ironroot-agent tpm show -output csv | ssh server ironroot-server device import -"
)]
pub(super) struct Show {
    /// Where the TPM is: a device, swtpm:host=IP,port=N or mssim:host=IP,port=N; /dev/tpmrm0 if neither this nor -config is given
    #[arg(long, value_name = "ADDRESS")]
    tpm: Option<TpmAddress>,
    /// The agent's configuration file, to see exactly what that agent will show the server
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Which endorsement key: auto, p256, rsa2048, p384, rsa3072 or rsa4096
    #[arg(long, value_name = "KIND")]
    ek: Option<EndorsementChoice>,
    /// File with the password of the endorsement hierarchy, if somebody has set one
    #[arg(long = "endorsementPasswordFile", value_name = "PATH")]
    endorsement_password_file: Option<PathBuf>,
    /// For -output csv: the device's serial number
    #[arg(long, value_name = "TEXT")]
    serial: Option<String>,
    /// For -output csv: a label of the device; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Form of the answer: pretty, json or csv
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Form,
}

/// Who reads the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Pretty,
    Json,
    /// `device import`.
    Csv,
}

impl FromStr for Form {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err("use pretty, json or csv"),
        }
    }
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, such as site=berlin"),
    }
}

impl Show {
    fn execute(self) -> ExitCode {
        let output = if self.output == Form::Json { Output::Json } else { Output::Pretty };
        Reply::print(&self.reply(), output)
    }

    fn reply(&self) -> Result<Reply, CommandError> {
        let names_device = self.serial.is_some() || !self.labels.is_empty();
        if names_device && self.output != Form::Csv {
            return Err(CommandError::Usage("-serial and -label are words of a manifest: give -output csv".to_owned()));
        }
        let description = self.look()?;
        let text = if self.output == Form::Csv {
            ManifestLine { ek_sha256: &description.ek_sha256, serial: self.serial.as_deref(), labels: &self.labels }
                .to_csv()
        } else {
            description.to_text()
        };
        Ok(Reply::new(description.to_json(), text))
    }

    fn look(&self) -> Result<Description, CommandError> {
        let failed = CommandError::run;
        let settings = self.settings()?;
        let address = settings.address.to_string();
        let tpm = Tpm::open_blocking(settings).map_err(unopened)?;
        tpm.run_blocking("describe the TPM", move |chip| Description::of(address, chip)).map_err(failed)
    }

    /// What the configuration says, and over it what the flags say.
    fn settings(&self) -> Result<TpmSettings, CommandError> {
        let password = CommandError::run;
        let mut settings = chip_settings(self.config.as_deref(), self.tpm.as_ref(), self.ek)?;
        if let Some(file) = &self.endorsement_password_file {
            settings.endorsement_password = PasswordSource::File(file.clone()).read().map_err(password)?;
        }
        Ok(settings)
    }
}

/// What the configuration says of the chip, or most chips are like, and over it what the flags say.
fn chip_settings(
    config: Option<&Path>,
    tpm: Option<&TpmAddress>,
    ek: Option<EndorsementChoice>,
) -> Result<TpmSettings, CommandError> {
    let mut settings = match config {
        None => TpmSettings::from(DEFAULT_TPM.parse::<TpmAddress>().expect("a legal device path")),
        Some(path) => {
            let config = AgentConfig::load(path, &[], false)?;
            let none = || CommandError::Usage(format!("{} configures no TPM", path.display()));
            tpm_settings(config.tpm().ok_or_else(none)?, &config).map_err(CommandError::run)?
        }
    };
    settings.address = tpm.cloned().unwrap_or(settings.address);
    settings.endorsement = ek.unwrap_or(settings.endorsement);
    Ok(settings)
}

/// Whoever asks for a chip that is not there has no log to look into.
fn unopened(error: TpmError) -> CommandError {
    match &error {
        TpmError::Absent { .. } => CommandError::Malformed(format!("{}; {ANOTHER_CHIP}", describe(&error))),
        _ => CommandError::run(error),
    }
}
