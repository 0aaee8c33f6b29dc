//! `run` and `validate`, as far as both daemons do them alike.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use nix::sys::stat::{Mode, umask};
use tracing::{error, warn};

use super::{CommandError, Reply};
use crate::describe;
use crate::logging::{self, Log, LogConfig};
use crate::settings::{ConfigErrors, Origin, Override};
use crate::telemetry::otlp::SpanLayer;

/// Files we make are nobody else's business. Source: SPIRE, which sets the same.
const UMASK: u32 = 0o027;

/// A flag that stands for a key of the configuration file, and its value if it was given.
pub type Given = (&'static str, &'static str, Option<String>);

/// A daemon's own flags of `run` and `validate`.
pub trait ConfigFlags: Args {
    /// The file that is read without `-config`: SPIRE's path, relative to the working directory.
    const DEFAULT_FILE: &'static str;
    /// The one that is read where that is not there: the package's.
    const PACKAGED_FILE: &'static str;

    /// Every flag; the key's reader does it, warns of it or refuses it, naming the flag.
    fn given(&self) -> Vec<Given>;
}

/// The configuration file, and the flags that win over it.
#[derive(Debug, Args)]
pub struct ConfigFile<F: ConfigFlags> {
    #[arg(long, value_name = "PATH", help = format!("The configuration file [default: {}, else {}]", F::DEFAULT_FILE, F::PACKAGED_FILE))]
    config: Option<PathBuf>,
    /// Replace $NAME and ${NAME} in the file from the environment
    #[arg(long = "expandEnv")]
    expand_env: bool,
    #[command(flatten)]
    flags: F,
}

impl<F: ConfigFlags> ConfigFile<F> {
    /// What `read` makes of the file and the flags.
    pub fn load<T>(
        &self,
        read: impl FnOnce(&Path, &[Override], bool) -> Result<T, ConfigErrors>,
    ) -> Result<T, ConfigErrors> {
        let given = self.flags.given().into_iter();
        let overrides: Vec<_> =
            given.filter_map(|(flag, key, value)| Some(Override { flag, key, value: value? })).collect();
        read(&self.path()?, &overrides, self.expand_env)
    }

    /// What was named, or the first that there is of what is looked for.
    fn path(&self) -> Result<PathBuf, ConfigErrors> {
        let looked_for = [F::DEFAULT_FILE, F::PACKAGED_FILE].map(Path::new);
        self.config.clone().map_or_else(|| first_there(looked_for), Ok)
    }

    /// What `validate` answers, in SPIRE's words, which scripts look for. `daemon`: "agent" or "server". `read` gives the file's
    /// warnings.
    pub fn validate(
        &self,
        daemon: &str,
        read: impl FnOnce(&Path, &[Override], bool) -> Result<Vec<String>, ConfigErrors>,
    ) -> Result<Reply, CommandError> {
        let invalid = |errors: ConfigErrors| {
            let warnings: String = errors.warnings().iter().map(|warning| format!("\nWarning: {warning}")).collect();
            format!("SPIRE {daemon} configuration file is invalid:\n{errors}{warnings}")
        };
        let warnings = self.load(read).map_err(|errors| CommandError::Malformed(invalid(errors)))?;
        let complaints = warnings.iter().map(|warning| format!("Warning: {warning}\n")).collect();
        let file = self.path().map_err(|errors| CommandError::Malformed(invalid(errors)))?;
        let text = format!("{}: SPIRE {daemon} configuration file is valid.\n", file.display());
        Ok(Reply { text, complaints, ..Reply::default() })
    }
}

fn first_there([usual, packaged]: [&Path; 2]) -> Result<PathBuf, ConfigErrors> {
    let found = [usual, packaged].into_iter().find(|path| path.exists());
    found.map(Path::to_owned).ok_or_else(|| {
        let reason = format!("there is no such file, nor {}: name the file with -config", packaged.display());
        ConfigErrors::single(usual, Origin::File, "", reason)
    })
}

/// Flags about the log.
#[derive(Debug, Args)]
pub struct LogFlags {
    /// File to log to
    #[arg(long = "logFile", value_name = "PATH")]
    file: Option<String>,
    /// text or json
    #[arg(long = "logFormat", value_name = "FORMAT")]
    format: Option<String>,
    /// DEBUG, INFO, WARN or ERROR
    #[arg(long = "logLevel", value_name = "LEVEL")]
    level: Option<String>,
    /// Without meaning here; told in a warning
    #[arg(long = "logSourceLocation")]
    source_location: bool,
}

impl LogFlags {
    /// See [`ConfigFlags::given`].
    pub fn given(&self) -> [Given; 4] {
        [
            ("-logFile", "log_file", self.file.clone()),
            ("-logFormat", "log_format", self.format.clone()),
            ("-logLevel", "log_level", self.level.clone()),
            ("-logSourceLocation", "log_source_location", switched_on(self.source_location)),
        ]
    }
}

/// A switch's value as the file would have it.
pub fn switched_on(switch: bool) -> Option<String> {
    switch.then(|| "true".to_owned())
}

/// From now on files are made for their owner and group alone.
pub fn keep_files_private() {
    umask(Mode::from_bits_truncate(UMASK));
}

/// Begins to log, with the `warnings` that the configuration earned, and to gather `spans`, if they are wanted.
pub fn begin_log(config: &LogConfig, spans: Option<SpanLayer>, warnings: &[String]) -> Result<Log, CommandError> {
    let log = logging::init(config, spans).map_err(CommandError::run)?;
    for warning in warnings {
        warn!("{warning}");
    }
    Ok(log)
}

/// The answer of a daemon that ended: of one that failed, why, once where the log is standard error, and there too where the log
/// is a file that nobody looks into yet. `logs_to_file`: the latter.
pub fn ended<E: Error + 'static>(
    daemon: &str,
    logs_to_file: bool,
    ended: Result<(), E>,
    exit_code: impl FnOnce(&E) -> Option<u8>,
) -> Reply {
    let Err(failure) = ended else { return Reply::default() };
    error!(error = describe(&failure), "{daemon} stopped");
    let complaints = if logs_to_file { format!("Error: {}\n", describe(&failure)) } else { String::new() };
    Reply { failed: true, failed_with: exit_code(&failure), complaints, ..Reply::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_the_usual_file_is_read_and_where_there_is_none_the_packages() {
        let directory = tempfile::tempdir().expect("directory");
        let [usual, packaged] = ["server.conf", "etc.conf"].map(|name| directory.path().join(name));
        let found = || first_there([&usual, &packaged]);
        let none = found().expect_err("nothing is there").to_string();
        let wanted = format!(
            "{}: there is no such file, nor {}: name the file with -config",
            usual.display(),
            packaged.display()
        );
        assert_eq!(none, wanted);
        for there in [&packaged, &usual] {
            std::fs::write(there, "").expect("written");
            assert_eq!(found().as_ref(), Ok(there));
        }
    }
}
