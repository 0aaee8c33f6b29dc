//! Relationships in flags and in JSON files. Source of flags and names: SPIRE's `cmd/spire-server/cli/federation/common.go`.

use std::path::{Path, PathBuf};

use clap::Args;
use ironroot_api::pb::types::federation_relationship::BundleEndpointProfile;
use ironroot_api::pb::types::{Bundle, FederationRelationship, HttpsWebProfile, HttpsspiffeProfile};
use ironroot_api::{SpiffeId, TrustDomain};
use ironroot_shell::command_line::{CommandError, as_go_reads, json_mistake};
use ironroot_text::HumanFile;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::bundle::{BundleFile, Format, parse};

/// Largest file accepted, bytes: a batch with a few bundles.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// One relationship as flags, or a file with several.
#[derive(Debug, Args)]
pub(super) struct Asked {
    /// A JSON file with relationships instead of the flags; - for standard input
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Name of the trust domain to federate with
    #[arg(long = "trustDomain", value_name = "TRUST_DOMAIN", default_value = "", hide_default_value = true)]
    trust_domain: String,
    /// Where it shows its bundle: an https URL
    #[arg(long = "bundleEndpointURL", value_name = "URL", default_value = "", hide_default_value = true)]
    bundle_endpoint_url: String,
    /// How that place is proven: https_web or https_spiffe
    #[arg(long = "bundleEndpointProfile", value_name = "PROFILE", default_value = "", hide_default_value = true)]
    bundle_endpoint_profile: String,
    /// The SPIFFE ID that it must have (https_spiffe)
    #[arg(long = "endpointSpiffeID", value_name = "ID", default_value = "", hide_default_value = true)]
    endpoint_spiffe_id: String,
    /// A file with its bundle of today
    #[arg(long = "trustDomainBundlePath", value_name = "PATH")]
    trust_domain_bundle_path: Option<PathBuf>,
    /// pem: certificates; spiffe: a SPIFFE bundle document
    #[arg(long = "trustDomainBundleFormat", value_name = "FORMAT", default_value = "pem")]
    trust_domain_bundle_format: Format,
}

/// What is asked for, and what to say of it on standard error, with line ends.
pub(super) struct Read {
    pub relationships: Vec<FederationRelationship>,
    pub notes: String,
}

/// Keys count in any case, as Go reads them.
#[derive(Deserialize)]
#[serde(expecting = "an object with the list \"federationRelationships\"")]
struct File {
    #[serde(rename = "federationRelationships")]
    relationships: Option<Vec<FileRelationship>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, expecting = "a relationship: an object")]
#[derive(Default)]
struct FileRelationship {
    trust_domain: String,
    #[serde(rename = "bundleEndpointURL")]
    bundle_endpoint_url: String,
    bundle_endpoint_profile: String,
    #[serde(rename = "endpointSPIFFEID")]
    endpoint_spiffe_id: String,
    trust_domain_bundle: Option<Value>,
    trust_domain_bundle_format: String,
}

/// The keys of a file, as they are written here.
const KEYS: [&str; 7] = [
    "federationRelationships",
    "trustDomain",
    "bundleEndpointURL",
    "bundleEndpointProfile",
    "endpointSPIFFEID",
    "trustDomainBundle",
    "trustDomainBundleFormat",
];

/// The texts of one relationship.
struct Texts<'a> {
    trust_domain: &'a str,
    url: &'a str,
    profile: &'a str,
    endpoint_id: &'a str,
}

impl Asked {
    /// What flags or file ask for.
    pub fn read(&self) -> Result<Read, CommandError> {
        let Some(path) = &self.data else { return self.read_flags() };
        if !self.has_no_flags() {
            return Err(usage("cannot use other flags to specify relationship fields when 'data' flag is set"));
        }
        from_file(path)
    }

    fn has_no_flags(&self) -> bool {
        let texts =
            [&self.trust_domain, &self.bundle_endpoint_url, &self.bundle_endpoint_profile, &self.endpoint_spiffe_id];
        texts.iter().all(|text| text.is_empty())
            && self.trust_domain_bundle_path.is_none()
            && self.trust_domain_bundle_format == Format::Pem
    }

    fn read_flags(&self) -> Result<Read, CommandError> {
        let texts = Texts {
            trust_domain: &self.trust_domain,
            url: &self.bundle_endpoint_url,
            profile: &self.bundle_endpoint_profile,
            endpoint_id: &self.endpoint_spiffe_id,
        };
        let (mut relationship, of) = texts.relationship().map_err(CommandError::Usage)?;
        let mut notes = String::new();
        if let Some(path) = &self.trust_domain_bundle_path {
            let of = TrustDomain::new(&of).map_err(|why| usage(&why.to_string()))?;
            let read = BundleFile::read(path, self.trust_domain_bundle_format, of)?;
            relationship.trust_domain_bundle = Some(read.bundle);
            notes = read.notes;
        }
        Ok(Read { relationships: vec![relationship], notes })
    }
}

fn from_file(path: &Path) -> Result<Read, CommandError> {
    let file = HumanFile::argument(path, MAX_FILE_BYTES)?;
    let malformed = |why: String| CommandError::Malformed(format!("{}: {why}", file.name()));
    let read: File = serde_json::from_str(&as_go_reads(file.text(), &KEYS))
        .map_err(|why| malformed(format!("failed to parse JSON: {}", json_mistake(&why))))?;
    let mut asked = Read { relationships: Vec::new(), notes: String::new() };
    for (place, item) in read.relationships.unwrap_or_default().into_iter().enumerate() {
        let wrong = |why| malformed(format!("could not parse item {place}: {why}"));
        let (relationship, notes) = item.relationship().map_err(wrong)?;
        asked.relationships.push(relationship);
        asked.notes.push_str(&notes);
    }
    Ok(asked)
}

impl FileRelationship {
    fn relationship(self) -> Result<(FederationRelationship, String), String> {
        let texts = Texts {
            trust_domain: &self.trust_domain,
            url: &self.bundle_endpoint_url,
            profile: &self.bundle_endpoint_profile,
            endpoint_id: &self.endpoint_spiffe_id,
        };
        let (mut relationship, of) = texts.relationship()?;
        let mut notes = String::new();
        if let Some(bundle) = self.trust_domain_bundle {
            let (bundle, said) = embedded(bundle, &self.trust_domain_bundle_format, &of)
                .map_err(|why| format!("cannot parse bundle raw message: {why}"))?;
            (relationship.trust_domain_bundle, notes) = (Some(bundle), said);
        }
        Ok((relationship, notes))
    }
}

/// A bundle that stands in the file itself: PEM in a text, or a document.
fn embedded(bundle: Value, format: &str, of: &str) -> Result<(Bundle, String), String> {
    let (text, format) = match (format, bundle) {
        ("pem", Value::String(pem)) => (pem, Format::Pem),
        ("pem", _) => return Err("certificates in PEM are a text".to_owned()),
        ("spiffe", document) => (document.to_string(), Format::Spiffe),
        (other, _) => return Err(format!("bundle format {other:?} is unsupported")),
    };
    let of = TrustDomain::new(of).map_err(|why| why.to_string())?;
    let read = parse(&text, format, of)?;
    Ok((read.bundle, read.notes))
}

impl Texts<'_> {
    /// The relationship, and whose bundle comes with it: that of the endpoint's trust domain.
    fn relationship(&self) -> Result<(FederationRelationship, String), String> {
        if self.trust_domain.is_empty() {
            return Err("trust domain is required".to_owned());
        }
        if self.url.is_empty() {
            return Err("bundle endpoint URL is required".to_owned());
        }
        let (profile, of) = match self.profile {
            "https_web" => (BundleEndpointProfile::HttpsWeb(HttpsWebProfile {}), self.trust_domain.to_owned()),
            "https_spiffe" => self.spiffe_profile()?,
            other => return Err(format!("unknown bundle endpoint profile type: {other:?}")),
        };
        let relationship = FederationRelationship {
            trust_domain: self.trust_domain.to_owned(),
            bundle_endpoint_url: self.url.to_owned(),
            bundle_endpoint_profile: Some(profile),
            trust_domain_bundle: None,
        };
        Ok((relationship, of))
    }

    fn spiffe_profile(&self) -> Result<(BundleEndpointProfile, String), String> {
        if self.endpoint_id.is_empty() {
            return Err("endpoint SPIFFE ID is required if 'https_spiffe' endpoint profile is set".to_owned());
        }
        let id = SpiffeId::parse(self.endpoint_id)
            .map_err(|why| format!("cannot parse bundle endpoint SPIFFE ID: {why}"))?;
        let profile = HttpsspiffeProfile { endpoint_spiffe_id: self.endpoint_id.to_owned() };
        Ok((BundleEndpointProfile::HttpsSpiffe(profile), id.trust_domain_name().to_owned()))
    }
}

fn usage(reason: &str) -> CommandError {
    CommandError::Usage(reason.to_owned())
}
