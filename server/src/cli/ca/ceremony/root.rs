//! `ca ceremony root`.

use std::path::PathBuf;
use std::process::ExitCode;

use aws_lc_rs::rand;
use clap::Args;
use ironroot_api::TrustDomain;
use ironroot_api::certificate::Certificate;
use ironroot_hsm::{HsmError, KeyId, KeyKind, KeyName, TokenKey};
use ironroot_shell::clock::wall_unix;
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on, positive_seconds};

use super::facts::{of_a_certificate, of_the_ceremony, of_the_key, of_the_token};
use super::open::Opened;
use super::outputs::Outputs;
use super::transcript::{Transcript, line};
use crate::ca::{CaSubject, CeremonyRefusal, make_root};
use crate::cli::token_flags::TokenFlags;
use crate::config::key_kind;
use crate::keys::Key;

/// Makes a root: a key in the token, its certificate, and a transcript for two people to sign.
#[derive(Debug, Args)]
#[command(
    after_help = "The key is made in the token and never leaves it; M-of-N, if the token has it, is the token's. Nothing is written over. root.pem is \
        what images carry and what the server's roots_path names; root-transcript.txt is printed and signed, root-transcript.json kept.
For the next root, years before this one ends: the same with another token, or with another -keyLabel, and its root.pem appended to \
        roots_path: from then on bundles and images have both.

Example: ironroot-server ca ceremony root -trustDomain example.org -module /usr/lib/p11.so -token ROOT -pinFile root.pin -out root-2026"
)]
pub(in crate::cli) struct MakeRoot {
    #[command(flatten)]
    token: TokenFlags,
    /// Whose root it is
    #[arg(long = "trustDomain", value_name = "NAME", value_parser = TrustDomain::new)]
    trust_domain: TrustDomain,
    /// How long it lives: as long as images and devices that know it alone
    #[arg(long, value_name = "TIME", default_value = "175200h", value_parser = positive_seconds)]
    ttl: i32,
    /// ec-p256, ec-p384, rsa-2048, rsa-4096, ml-dsa-44, ml-dsa-65 or ml-dsa-87
    #[arg(long = "keyType", value_name = "TYPE", default_value = "ec-p384", value_parser = key_kind)]
    key_type: KeyKind,
    /// What the key is called in the token
    #[arg(long = "keyLabel", value_name = "LABEL", default_value = "ironroot-root")]
    key_label: String,
    /// Organization of the root's subject
    #[arg(long, value_name = "NAME", default_value = "SPIFFE")]
    organization: String,
    /// Directory for root.pem and the transcripts
    #[arg(long, value_name = "DIRECTORY")]
    out: PathBuf,
    /// Form of the answer: pretty or json
    #[arg(long, value_name = "FORM", default_value = "pretty")]
    output: Output,
}

impl MakeRoot {
    pub(super) fn execute(self) -> ExitCode {
        let output = self.output;
        Reply::print(&self.make(), output)
    }

    fn make(self) -> Result<Reply, CommandError> {
        let began = wall_unix();
        let label = KeyName::labelled(&self.key_label);
        let name = label.ok_or_else(|| CommandError::Usage("-keyLabel is empty: give the key a name".to_owned()))?;
        let outputs = Outputs::prepare(&self.out, "root")?;
        let opened = Opened::open(self.token.read()?)?;
        let plan = Plan {
            trust_domain: self.trust_domain,
            kind: self.key_type,
            subject: CaSubject { country: Vec::new(), organization: vec![self.organization], common_name: None },
            ttl_seconds: i64::from(self.ttl),
        };
        let (key, root) = block_on(plan.carry_out(&opened, &name, began))?;
        let mut transcript = Transcript::new(format!("Ironroot: the root of {}", plan.trust_domain.as_str()));
        transcript.section("Ceremony", of_the_ceremony(began, wall_unix()));
        if let Some(token) = opened.facts() {
            transcript.section("Token", of_the_token(&opened.named.module_path, &opened.survey, token));
        }
        transcript.section("Key", of_the_key(&key));
        transcript.section("Root", of_a_certificate(&root));
        transcript.section("Checked", checks());
        transcript.next(next(&outputs, &self.key_label));
        let json = transcript.json();
        let text = outputs.write(&root, transcript)?;
        Ok(Reply::new(json, text))
    }
}

struct Plan {
    trust_domain: TrustDomain,
    kind: KeyKind,
    subject: CaSubject,
    ttl_seconds: i64,
}

impl Plan {
    /// The key and its certificate; if there is no certificate there is no key either.
    async fn carry_out(
        &self,
        opened: &Opened,
        name: &KeyName,
        now_unix: i64,
    ) -> Result<(TokenKey, Certificate), CommandError> {
        refuse_what_is_there(opened, name, self.kind).await?;
        let made = opened.token.generate(self.kind, &random_id(), name.label().unwrap_or_default()).await;
        let key = made.map_err(CommandError::run)?;
        let signer = Key::Token(key.clone());
        match make_root(&signer, &self.subject, &self.trust_domain, self.ttl_seconds, now_unix).await {
            Ok(root) => Ok((key, root)),
            Err(error) => {
                opened.token.destroy(key.name()).await.map_err(CommandError::run)?;
                Err(CommandError::run(error))
            }
        }
    }
}

/// Whatever has the name: a key that is there is never taken for a new one.
async fn refuse_what_is_there(opened: &Opened, name: &KeyName, kind: KeyKind) -> Result<(), CommandError> {
    match opened.token.find_of(kind, name).await {
        Ok(None) => Ok(()),
        Ok(Some(_))
        | Err(
            HsmError::KeyUnusable { .. }
            | HsmError::KeyOfAnotherKind { .. }
            | HsmError::DuplicateKey { .. }
            | HsmError::KeyUnprotected { .. }
            | HsmError::PublicKeyMissing(_),
        ) => Err(CommandError::run(CeremonyRefusal::KeyExists(name.clone()))),
        Err(error) => Err(CommandError::run(error)),
    }
}

fn random_id() -> KeyId {
    let mut id = [0; 16];
    rand::fill(&mut id).expect("the system has randomness");
    KeyId::new(&id).expect("sixteen bytes are a CKA_ID")
}

fn checks() -> Vec<(String, String)> {
    vec![
        line(
            "Key",
            "made in the token by this program; sensitive and never extractable by the token's word; its halves belong together",
        ),
        line("Certificate", "read back; its signature verifies with the key; a CA of this trust domain"),
    ]
}

fn next(outputs: &Outputs, key_label: &str) -> [String; 3] {
    [
        format!("copy {} to the server's roots_path, and into images", outputs.certificate().display()),
        "ironroot-server ca ceremony request -config /etc/ironroot/server.conf -out request.pem      (on the server)"
            .to_owned(),
        format!(
            "ironroot-server ca ceremony sign -root {} -keyLabel {key_label} -request request.pem ...",
            outputs.certificate().display()
        ),
    ]
}
