//! A SoftHSM token of one's own.
//!
//! SoftHSM reads its configuration's path from the environment, once per process. So a test that uses a token inside its
//! own process runs in a child process ([`SoftHsm::run_in_child`]), and a server gets the variable in its environment
//! ([`SoftHsm::environment`]).
//!
//! SoftHSM is no model of a token's durability: it rewrites its token file in place at each login, and a process that is
//! killed in that moment leaves an empty one. Tests that kill wait until the login is done.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ironroot_hsm::{Pin, TokenConfig, TokenUri, UserLogin};
use tempfile::TempDir;

use crate::rerun;

/// The variable that SoftHSM takes its configuration's path from.
pub const CONFIGURATION_VARIABLE: &str = "SOFTHSM2_CONF";
/// The label of every lab token.
pub const LABEL: &str = "ironroot-lab";
/// The user PIN of every lab token.
pub const PIN: &str = "lab-pin8";

const SO_PIN: &str = "lab-so-8";
/// Where distributions put the module.
const MODULES: [&str; 5] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A directory with one initialised token, its configuration and its PIN file. Gone on drop.
#[derive(Debug)]
pub struct SoftHsm {
    root: PathBuf,
    _owned: Option<TempDir>,
}

impl SoftHsm {
    /// The `KeyManager` block of an agent whose keys are in this token.
    pub fn key_manager(&self) -> String {
        format!(
            "KeyManager \"pkcs11\" {{ plugin_data {{\nmodule_path = \"{}\"\ntoken_label = \"{LABEL}\"\npin_file = \"{}\"\n}} }}",
            Self::module_path().display(),
            self.pin_file().display()
        )
    }

    /// A fresh token. Panics with what to install if SoftHSM is missing: a missing emulator is a red test.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let owned = tempfile::tempdir().expect("a temporary directory");
        let hsm = Self { root: owned.path().to_owned(), _owned: Some(owned) };
        hsm.write_files();
        hsm.initialize_token(LABEL);
        hsm
    }

    /// The token that this process's environment names, made by a parent that outlives us.
    pub fn of_environment() -> Self {
        let configuration = PathBuf::from(std::env::var_os(CONFIGURATION_VARIABLE).expect("the parent set it"));
        Self { root: configuration.parent().unwrap_or(Path::new("/")).to_owned(), _owned: None }
    }

    /// Runs `body` in a child process of this test binary whose environment names a fresh token.
    ///
    /// `test` is the full name of the calling test. Panics, and with it the test fails, if the child fails, hangs, or does
    /// not get to the end of `body`.
    pub fn run_in_child(test: &str, body: impl FnOnce(&Self)) {
        if rerun::is_child_of(test) {
            let hsm = Self::of_environment();
            body(&hsm);
            rerun::mark_end(&hsm.root);
        } else {
            let hsm = Self::new();
            let (variable, path) = hsm.environment();
            rerun::run(test, vec![(variable, path.into())], &hsm.root);
        }
    }

    /// Starts a child process of this test binary that runs only `test`, with this token, and a variable that tells the test
    /// that it is the child. For tests that kill their children.
    pub fn start_child(&self, test: &str, role: (&str, &str)) -> Child {
        let (variable, path) = self.environment();
        rerun::start(test, vec![(variable, path.into()), (role.0, role.1.into())], &self.root)
    }

    /// What the last child printed.
    pub fn child_output(&self) -> String {
        rerun::output(&self.root)
    }

    /// What a process that uses this token needs in its environment.
    pub fn environment(&self) -> (&'static str, PathBuf) {
        (CONFIGURATION_VARIABLE, self.root.join("softhsm2.conf"))
    }

    /// The PKCS#11 module.
    pub fn module_path() -> PathBuf {
        MODULES
            .iter()
            .map(PathBuf::from)
            .find(|p| p.exists())
            .expect("SoftHSM is missing; run: apt-get install softhsm2")
    }

    /// A file of mode 0600 with the user PIN.
    pub fn pin_file(&self) -> PathBuf {
        self.root.join("pin")
    }

    /// A file beside the token, for what a test must find again.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where SoftHSM keeps the token; renaming it away is pulling the token out.
    pub fn token_directory(&self) -> PathBuf {
        self.root.join("tokens")
    }

    /// How to open the token, in a process that has [`SoftHsm::environment`].
    pub fn token_config(&self, sessions: usize) -> TokenConfig {
        TokenConfig {
            module_path: Self::module_path(),
            token: TokenUri::with_label(LABEL),
            login: UserLogin::Pin(Pin::from_file(&self.pin_file()).expect("the lab\'s own PIN file")),
            sessions,
        }
    }

    /// Initialises one more token in the next free slot.
    pub fn initialize_token(&self, label: &str) {
        self.run("softhsm2-util", &["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN]);
    }

    /// Runs pkcs11-tool as the user of this token, as an operator would by hand.
    pub fn by_hand(&self, arguments: &[&str]) -> String {
        let module = Self::module_path();
        let token = ["--module", module.to_str().unwrap_or_default(), "--token-label", LABEL, "--login", "--pin", PIN];
        self.run("pkcs11-tool", &[&token[..], arguments].concat())
    }

    /// Takes the public half of the key of this label out of the token: the key cannot be used any more.
    pub fn delete_public_half(&self, label: &str) {
        self.by_hand(&["--delete-object", "--type", "pubkey", "--label", label]);
    }

    /// Runs a program against this token and returns what it printed; panics if it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        let (variable, path) = self.environment();
        let output = Command::new(program).args(arguments).env(variable, path).stdin(Stdio::null()).output();
        let output =
            output.unwrap_or_else(|e| panic!("{program} is missing ({e}); run: apt-get install softhsm2 opensc"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {text}");
        text
    }

    fn write_files(&self) {
        fs::create_dir(self.token_directory()).expect("a directory of our own");
        fs::set_permissions(self.token_directory(), fs::Permissions::from_mode(0o700)).expect("a directory of our own");
        let configuration = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            self.token_directory().display()
        );
        fs::write(self.root.join("softhsm2.conf"), configuration).expect("a file of our own");
        let mut pin = fs::OpenOptions::new();
        let mut pin = pin.write(true).create_new(true).mode(0o600).open(self.pin_file()).expect("a file of our own");
        std::io::Write::write_all(&mut pin, PIN.as_bytes()).expect("a file of our own");
    }
}
