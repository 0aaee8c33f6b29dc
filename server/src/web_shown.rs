//! Which certificates of the web's a listener shows, and until when: for who asks how the server is.

use std::fmt;
use std::sync::Arc;

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::SvidResolver;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use crate::acme::Doorman;

/// What one listener shows; looked at when somebody asks.
#[derive(Clone)]
pub struct WebShown {
    listener: &'static str,
    certificates: Certificates,
}

#[derive(Clone)]
enum Certificates {
    /// Of a file, by its path.
    File(String, Arc<SvidResolver>),
    /// Of names that a CA issues for.
    Names(Arc<Doorman>),
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Whose: `bundle`, `discovery` or `token exchange`.
    pub listener: &'static str,
    /// The file's path, or the name that it is for.
    pub name: String,
    /// UNIX seconds; none where there is no certificate yet.
    pub until: Option<i64>,
}

impl WebShown {
    /// `listener` shows what is in the file at `path`.
    pub fn of_file(listener: &'static str, path: String, resolver: Arc<SvidResolver>) -> Self {
        Self { listener, certificates: Certificates::File(path, resolver) }
    }

    /// `listener` shows what a CA has issued.
    pub(crate) fn of_names(listener: &'static str, doorman: Arc<Doorman>) -> Self {
        Self { listener, certificates: Certificates::Names(doorman) }
    }

    /// As they are now.
    pub fn certificates(&self) -> Vec<ShownCertificate> {
        let shown = |(name, until)| ShownCertificate { listener: self.listener, name, until };
        match &self.certificates {
            Certificates::File(path, resolver) => vec![shown((path.clone(), resolver.chain().first().and_then(end)))],
            Certificates::Names(doorman) => doorman
                .shown()
                .map(|(name, certified)| (name.to_owned(), certified.as_deref().and_then(leaf).and_then(end)))
                .map(shown)
                .collect(),
        }
    }
}

impl fmt::Debug for WebShown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.certificates()).finish()
    }
}

fn leaf(certified: &CertifiedKey) -> Option<&CertificateDer<'static>> {
    certified.cert.first()
}

fn end(leaf: &CertificateDer<'static>) -> Option<i64> {
    Certificate::parse(leaf).ok().map(|leaf| leaf.not_after_unix())
}
