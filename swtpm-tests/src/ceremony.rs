//! A ceremony as the handbook has it: another machine with the root's token, which no server ever sees; files are carried.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::deployment::{Server, TRUST_DOMAIN, binary};
use crate::softhsm::{LABEL, SoftHsm};

/// The machine of the ceremony, and its papers.
#[derive(Debug)]
pub struct Ceremony {
    token: SoftHsm,
    papers: TempDir,
}

impl Default for Ceremony {
    fn default() -> Self {
        Self::new()
    }
}

impl Ceremony {
    /// With a token of its own.
    pub fn new() -> Self {
        Self { token: SoftHsm::new(), papers: tempfile::tempdir().expect("a directory") }
    }

    /// The token.
    pub fn token(&self) -> &SoftHsm {
        &self.token
    }

    /// A file or directory among the papers.
    pub fn paper(&self, name: &str) -> PathBuf {
        self.papers.path().join(name)
    }

    /// Runs a verb with the token's flags; whatever the outcome.
    pub fn output(&self, verb: &str, arguments: &[&str]) -> Output {
        let (module, pin) = (text(&SoftHsm::module_path()), text(&self.token.pin_file()));
        let token = ["-module", &module, "-token", LABEL, "-pinFile", &pin];
        let (variable, configuration) = self.token.environment();
        let mut command = Command::new(binary("ironroot-server"));
        command.args(["ca", "ceremony", verb]).args(token).args(arguments).env(variable, configuration);
        command.output().expect("ironroot-server starts")
    }

    /// What a refused verb says.
    pub fn refused(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.output(verb, arguments);
        assert!(!output.status.success(), "{verb} {arguments:?} is not refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Makes a root of the lab's trust domain in the directory `name`; its certificate.
    pub fn root(&self, name: &str, more: &[&str]) -> PathBuf {
        let out = text(&self.paper(name));
        self.done("root", &[&["-trustDomain", TRUST_DOMAIN, "-keyLabel", name, "-out", &out], more].concat());
        self.paper(name).join("root.pem")
    }

    /// Has the root `root` sign `request` into the directory `name`; the CA's certificate.
    pub fn sign(&self, root: &str, request: &Path, name: &str, more: &[&str]) -> PathBuf {
        let (certificate, out) = (text(&self.paper(root).join("root.pem")), text(&self.paper(name)));
        let request = text(request);
        let named = ["-root", &certificate, "-keyLabel", root, "-request", &request, "-out", &out];
        self.done("sign", &[&named, more].concat());
        self.paper(name).join("ca.pem")
    }

    /// Carries what waits at the server here, has `root` sign it, and carries it back.
    pub fn certify(&self, server: &Server, root: &str, name: &str, more: &[&str]) {
        let request = self.carry_request(server, &format!("{name}-request.pem"));
        let ca = self.sign(root, &request, name, more);
        server.ceremony(&["take", "-certificate", &text(&ca)]);
    }

    /// The request that waits at the server, as a file here.
    pub fn carry_request(&self, server: &Server, name: &str) -> PathBuf {
        let path = self.paper(name);
        server.ceremony(&["request", "-out", &text(&path)]);
        path
    }

    /// A transcript, as programs read it.
    pub fn transcript(&self, name: &str, what: &str) -> Value {
        let path = self.paper(name).join(format!("{what}-transcript.json"));
        serde_json::from_slice(&std::fs::read(path).expect("a transcript")).expect("JSON")
    }

    fn done(&self, verb: &str, arguments: &[&str]) {
        let output = self.output(verb, arguments);
        assert!(output.status.success(), "{verb}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("the lab's paths are UTF-8").to_owned()
}
