//! Bundles of other trust domains in files.

use std::path::Path;

use ironroot_api::TrustDomain;
use ironroot_api::bundle::{Bundle, MAX_DOCUMENT_BYTES};
use ironroot_api::certificate::Certificate;
use ironroot_api::pb::types;
use ironroot_shell::command_line::{CommandError, describe};
use ironroot_text::HumanFile;

use super::Format;

/// A bundle that was read, and what to say of it on standard error, with line ends.
#[derive(Debug)]
pub(in crate::cli) struct BundleFile {
    pub bundle: types::Bundle,
    pub notes: String,
}

impl BundleFile {
    /// The bundle of `trust_domain` in the file at `path`; `-` is standard input.
    pub fn read(path: &Path, format: Format, trust_domain: TrustDomain) -> Result<Self, CommandError> {
        let file = HumanFile::argument(path, MAX_DOCUMENT_BYTES)?;
        parse(file.text(), format, trust_domain)
            .map_err(|why| CommandError::Malformed(format!("unable to parse bundle data: {}: {why}", file.name())))
    }
}

/// The bundle of `trust_domain` that `text` says, or why it says none.
pub(in crate::cli) fn parse(text: &str, format: Format, trust_domain: TrustDomain) -> Result<BundleFile, String> {
    match format {
        Format::Pem => {
            let certificates = Certificate::parse_pem(text).map_err(|why| describe(&why))?;
            let bundle = Bundle::of_certificates(trust_domain, &certificates).map_err(|why| describe(&why))?;
            Ok(BundleFile { bundle: bundle.to_pb().clone(), notes: String::new() })
        }
        //= FED-13 SPIFFE Federation 5.2.2.2: "Clients MUST support specifying the bundle in [SPIFFE Bundle Format]"
        Format::Spiffe => {
            let read = Bundle::from_document(trust_domain, text.as_bytes()).map_err(|why| describe(&why))?;
            let notes = match read.passed_over {
                0 => String::new(),
                count => format!(
                    "Warning: {count} keys of the bundle are for uses that nobody here knows, and are left out\n"
                ),
            };
            Ok(BundleFile { bundle: read.bundle.to_pb().clone(), notes })
        }
    }
}
