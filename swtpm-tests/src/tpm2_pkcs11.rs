//! A second implementation of PKCS#11: tpm2-pkcs11 over a software TPM of one's own.
//!
//! It shows that nothing here depends on SoftHSM: it is slow, has few sessions, and refuses templates that say too much.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ironroot_hsm::{Pin, TokenConfig, TokenUri, UserLogin};
use tempfile::TempDir;

use crate::rerun;
use crate::softhsm::{LABEL, PIN};
use crate::swtpm::Swtpm;

/// The variable that the module takes its database's directory from.
pub const STORE_VARIABLE: &str = "TPM2_PKCS11_STORE";

const SO_PIN: &str = "lab-so-8";
/// Where distributions put the module.
const MODULES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib64/pkcs11/libtpm2_pkcs11.so",
];

/// A chip, and a token on it.
#[derive(Debug)]
pub struct Tpm2Token {
    root: PathBuf,
    owned: Option<(Swtpm, TempDir)>,
}

impl Tpm2Token {
    /// A fresh token. Panics with what to install if the module is missing: a missing emulator is a red test.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let chip = Swtpm::start().expect("swtpm; run: apt-get install swtpm");
        let mut token = Self { root: directory.path().to_owned(), owned: Some((chip, directory)) };
        fs::create_dir(token.root.join("store")).expect("a directory of our own");
        let mut pin = fs::OpenOptions::new();
        let mut pin =
            pin.write(true).create_new(true).mode(0o600).open(token.root.join("pin")).expect("a file of our own");
        pin.write_all(PIN.as_bytes()).expect("a file of our own");
        token.run(&["--slot-index", "0", "--init-token", "--label", LABEL, "--so-pin", SO_PIN]);
        token.run(&[
            "--token-label",
            LABEL,
            "--login",
            "--login-type",
            "so",
            "--so-pin",
            SO_PIN,
            "--init-pin",
            "--pin",
            PIN,
        ]);
        token
    }

    /// The token that this process's environment names, made by a parent that outlives us.
    pub fn of_environment() -> Self {
        let store = PathBuf::from(std::env::var_os(STORE_VARIABLE).expect("the parent set it"));
        Self { root: store.parent().unwrap_or(Path::new("/")).to_owned(), owned: None }
    }

    /// Runs `body` in a child process of this test binary whose environment names a fresh token.
    ///
    /// `test` is the full name of the calling test.
    pub fn run_in_child(test: &str, body: impl FnOnce(&Self)) {
        if rerun::is_child_of(test) {
            let token = Self::of_environment();
            body(&token);
            rerun::mark_end(&token.root);
        } else {
            let token = Self::new();
            rerun::run(test, token.environment(), &token.root);
        }
    }

    /// What a process that uses this token needs in its environment.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let tcti = self.owned.as_ref().map(|(chip, _)| chip.tcti()).unwrap_or_default();
        vec![
            (STORE_VARIABLE, self.root.join("store").into()),
            ("TPM2_PKCS11_TCTI", tcti.into()),
            ("TPM2_PKCS11_BACKEND", "esysdb".into()),
            ("TSS2_LOG", "all+none".into()),
        ]
    }

    /// The PKCS#11 module.
    pub fn module_path() -> PathBuf {
        let found = MODULES.iter().map(PathBuf::from).find(|p| p.exists());
        found.expect("tpm2-pkcs11 is missing; run: apt-get install libtpm2-pkcs11-1")
    }

    /// How to open the token, in a process that has [`Tpm2Token::environment`].
    pub fn token_config(&self, sessions: usize) -> TokenConfig {
        TokenConfig {
            module_path: Self::module_path(),
            token: TokenUri::with_label(LABEL),
            login: UserLogin::Pin(Pin::from_file(&self.root.join("pin")).expect("the lab\'s own PIN file")),
            sessions,
        }
    }

    /// Runs pkcs11-tool. There is no resource manager here, and what one process leaves in the chip would fill it: so the
    /// chip is power-cycled afterwards.
    fn run(&mut self, arguments: &[&str]) {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(Self::module_path()).args(arguments).envs(self.environment()).stdin(Stdio::null());
        let output =
            command.output().unwrap_or_else(|e| panic!("pkcs11-tool is missing ({e}); run: apt-get install opensc"));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "pkcs11-tool {arguments:?}: {text}");
        if let Some((chip, _)) = &mut self.owned {
            chip.power_cycle().expect("swtpm starts again");
        }
    }
}
