//! `ca ceremony sign`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_hsm::{HsmError, KeyName, TokenKey};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on, positive_seconds};
use ironroot_text::HumanFile;

use super::facts::{hash_of_file, of_a_certificate, of_the_ceremony, of_the_key, of_the_token, sha256};
use super::open::Opened;
use super::outputs::Outputs;
use super::transcript::{Transcript, line};
use crate::ca::{CeremonyRefusal, RootToSign, WaitingRequest, WantedCa, certified_kind, refuse_no_root};
use crate::cli::token_flags::TokenFlags;
use crate::keys::Key;

/// Largest file with a root's certificate, bytes.
const MAX_ROOT_BYTES: usize = 64 * 1024;

/// Has a root sign the CA that a server asks for, with a transcript for two people to sign.
#[derive(Debug, Args)]
#[command(
    after_help = "The request was carried here from the server (ca ceremony request); compare its SHA-256 with what was read out there. ca.pem is carried \
        back (ca ceremony take). Refused, each by name: another token, a root that has ended or is no CA, a request of another trust domain.

Example: ironroot-server ca ceremony sign -root root-2026/root.pem -request request.pem -ttl 8760h -module /usr/lib/p11.so -token ROOT \\
             -pinFile root.pin -out ca-2027"
)]
pub(in crate::cli) struct Sign {
    #[command(flatten)]
    token: TokenFlags,
    /// The root's certificate
    #[arg(long, value_name = "PATH")]
    root: PathBuf,
    /// The server's request
    #[arg(long, value_name = "PATH")]
    request: PathBuf,
    /// How long the CA lives, and no longer than the root
    #[arg(long, value_name = "TIME", default_value = "8760h", value_parser = positive_seconds)]
    ttl: i32,
    /// What the root's key is called in the token
    #[arg(long = "keyLabel", value_name = "LABEL", default_value = "ironroot-root")]
    key_label: String,
    /// Directory for ca.pem and the transcripts
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl Sign {
    pub(super) fn execute(self) -> ExitCode {
        let output = self.output;
        Reply::print(&self.sign(), output)
    }

    fn sign(self) -> Result<Reply, CommandError> {
        let began = wall_unix();
        let (root, trust_domain) = read_root(&self.root)?;
        refuse_no_root(&root, &trust_domain).map_err(CommandError::run)?;
        let request = WaitingRequest::read(&self.request).map_err(CommandError::run)?;
        let wanted = WantedCa::asked(request.der(), &trust_domain).map_err(CommandError::run)?;
        let label = KeyName::labelled(&self.key_label);
        let name = label.ok_or_else(|| CommandError::Usage("-keyLabel is empty: name the root's key".to_owned()))?;
        let outputs = Outputs::prepare(&self.out, "ca")?;
        let opened = Opened::open(self.token.read()?)?;
        let (key, ca) = block_on(async {
            let key = find_root(&opened, &name, &root).await?;
            let signer = RootToSign::of(Key::Token(key.clone()), &root, &trust_domain, began);
            let signed = signer.map_err(CommandError::run)?.sign(&wanted, i64::from(self.ttl), began).await;
            Ok((key, signed.map_err(CommandError::run)?))
        })?;
        let mut transcript = Transcript::new(format!("Ironroot: a CA below the root of {}", trust_domain.as_str()));
        transcript.section("Ceremony", of_the_ceremony(began, wall_unix()));
        if let Some(token) = opened.facts() {
            transcript.section("Token", of_the_token(&opened.named.module_path, &opened.survey, token));
        }
        transcript.section("Key of the root", of_the_key(&key));
        transcript.section("Root", of_a_certificate(&root));
        transcript.section("Request", of_the_request(&self.request, &wanted));
        transcript.section("CA", of_a_certificate(&ca));
        transcript.section("Checked", checks());
        let take = format!(
            "ironroot-server ca ceremony take -config /etc/ironroot/server.conf -certificate {}",
            outputs.certificate().display()
        );
        transcript
            .next([format!("{take}      (on the server)"), "unplug the root's token and lock it away".to_owned()]);
        let json = transcript.json();
        let text = outputs.write(&ca, transcript)?;
        Ok(Reply::new(json, text))
    }
}

/// The root's certificate, and the trust domain that it says it is of.
fn read_root(path: &std::path::Path) -> Result<(Certificate, TrustDomain), CommandError> {
    let file = HumanFile::regular(path, MAX_ROOT_BYTES).map_err(CommandError::run)?;
    let mut roots = Certificate::parse_pem(file.text()).map_err(CommandError::run)?;
    if roots.len() != 1 {
        let many = format!(
            "{} holds {} certificates: name the file with the one root that signs",
            path.display(),
            roots.len()
        );
        return Err(CommandError::Usage(many));
    }
    let root = roots.remove(0);
    let id = root.spiffe_id().map_err(CommandError::run)?;
    let trust_domain = TrustDomain::new(id.trust_domain_name()).map_err(CommandError::run)?;
    Ok((root, trust_domain))
}

async fn find_root(opened: &Opened, name: &KeyName, root: &Certificate) -> Result<TokenKey, CommandError> {
    match opened.token.find_of(certified_kind(root), name).await {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(CommandError::run(CeremonyRefusal::NoKey(name.clone()))),
        // Of another kind than the root's: another root's.
        Err(HsmError::KeyUnusable { .. } | HsmError::KeyOfAnotherKind { .. }) => {
            Err(CommandError::run(CeremonyRefusal::WrongToken(name.clone())))
        }
        Err(error) => Err(CommandError::run(error)),
    }
}

fn of_the_request(path: &std::path::Path, wanted: &WantedCa) -> Vec<(String, String)> {
    vec![
        line("File", path.display().to_string()),
        line("File SHA-256", hash_of_file(path)),
        line("Public key SHA-256", sha256(wanted.spki().as_der())),
    ]
}

fn checks() -> Vec<(String, String)> {
    vec![
        line(
            "Root",
            "a CA of this trust domain that is valid now; its key is in this token, never extractable by the token's word",
        ),
        line("Request", "signed by its own key; it names this trust domain and nothing else"),
        line("CA", "read back; its signature verifies with the root's key; it ends no later than the root"),
    ]
}
