//! SoftHSM with the manners of other tokens: a PKCS#11 module that wraps it and bends what it does, built from
//! `quirk/quirk.c`, where the quirks are listed. A test changes them while the token is in use.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ironroot_hsm::TokenConfig;

use crate::softhsm::SoftHsm;

/// The module's source; it needs nothing but the C library.
const SOURCE: &str = include_str!("../quirk/quirk.c");

/// The bent module of one SoftHSM token. The environment that SoftHSM needs is all it needs too.
#[derive(Debug)]
pub struct Quirks {
    module: PathBuf,
    control: PathBuf,
    log: PathBuf,
}

impl Quirks {
    /// The module for this token, built if it is not yet.
    ///
    /// # Panics
    /// If there is no C compiler: a missing tool is a red test.
    pub fn of(hsm: &SoftHsm) -> Self {
        let quirks = Self { module: hsm.file("quirk.so"), control: hsm.file("quirks"), log: hsm.file("quirk.log") };
        if !quirks.module.exists() {
            build(&hsm.file("quirk.c"), &quirks.module);
        }
        quirks
    }

    /// As [`SoftHsm::run_in_child`], with the quirks of its token.
    pub fn run_in_child(test: &str, body: impl FnOnce(&SoftHsm, &Self)) {
        SoftHsm::run_in_child(test, |hsm| body(hsm, &Self::of(hsm)));
    }

    /// The shared object to name as `module_path`: SoftHSM with the chosen manners.
    pub fn module_path(&self) -> &Path {
        &self.module
    }

    /// How to open the token through the bent module.
    pub fn token_config(&self, hsm: &SoftHsm, sessions: usize) -> TokenConfig {
        TokenConfig { module_path: self.module.clone(), ..hsm.token_config(sessions) }
    }

    /// From now on the token has these quirks and no others.
    pub fn set(&self, lines: &[&str]) {
        let draft = self.control.with_extension("new");
        fs::write(&draft, lines.join("\n") + "\n").expect("a file of our own");
        fs::rename(draft, &self.control).expect("a file of our own");
    }

    /// How often a line of the module's log begins with `call`: `C_Login pin`, `C_Initialize`, `C_GenerateKeyPair`.
    pub fn count(&self, call: &str) -> usize {
        fs::read_to_string(&self.log).unwrap_or_default().lines().filter(|line| line.starts_with(call)).count()
    }
}

fn build(source: &Path, module: &Path) {
    fs::write(source, SOURCE).expect("a file of our own");
    let real = format!("-DREAL_MODULE=\"{}\"", SoftHsm::module_path().display());
    // Under another name first: another test process may be looking for it.
    let draft = module.with_extension("building");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", &real, "-o"]).arg(&draft).arg(source);
    let output = command.args(["-ldl", "-lpthread"]).output();
    let output = output.unwrap_or_else(|e| panic!("cc is missing ({e}); run: apt-get install build-essential"));
    assert!(output.status.success(), "quirk.c: {}", String::from_utf8_lossy(&output.stderr));
    fs::rename(draft, module).expect("a file of our own");
}
