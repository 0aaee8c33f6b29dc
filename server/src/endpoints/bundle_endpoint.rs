//! The bundle endpoint: this trust domain's bundle for others that federate with it.
//!
//! Source: SPIFFE Federation §5; the form of the answers is SPIRE's.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ironroot_api::bundle::document;
use ironroot_api::pb::types;
use prost::bytes::Bytes;
use tokio::sync::watch;
use tonic::codegen::http::StatusCode;
use tonic::codegen::http::request::Parts;

use super::bundle_api;
use super::web::{Answer, Answers, answer, refusal};
use crate::ca::TrustBundle;

/// What the endpoint answers: the newest bundle, written down once for all who ask.
pub struct BundleEndpoint {
    bundle: watch::Receiver<Arc<TrustBundle>>,
    refresh_hint_seconds: i64,
    written: Mutex<Option<Written>>,
}

struct Written {
    bundle: Arc<TrustBundle>,
    document: Bytes,
}

impl BundleEndpoint {
    /// Shows what `bundle` holds, and says that others are to look again after `refresh_hint`.
    pub fn answers(bundle: watch::Receiver<Arc<TrustBundle>>, refresh_hint: Duration) -> Answers {
        let refresh_hint_seconds = refresh_hint.as_secs().try_into().unwrap_or(i64::MAX);
        let endpoint = Self { bundle, refresh_hint_seconds, written: Mutex::default() };
        Arc::new(move |request: &Parts| endpoint.answer(request))
    }

    fn answer(&self, request: &Parts) -> Answer {
        refusal(request, "/").unwrap_or_else(|| match self.document() {
            Some(document) => answer(StatusCode::OK, "application/json", document),
            None => {
                let words = "500 unable to marshal local bundle\n";
                answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", words.into())
            }
        })
    }

    //= FED-01 SPIFFE Federation 4.1: "new keys MUST be published at the bundle endpoint prior to the keys being used to issue SVIDs"
    fn document(&self) -> Option<Bytes> {
        let bundle = self.bundle.borrow().clone();
        // One value, replaced as a whole.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(written) = written.as_ref().filter(|written| Arc::ptr_eq(&written.bundle, &bundle)) {
            return Some(written.document.clone());
        }
        let wire = types::Bundle { refresh_hint: self.refresh_hint_seconds, ..bundle_api::to_pb(&bundle) };
        let document = Bytes::from(document(&wire).ok()?);
        *written = Some(Written { bundle, document: document.clone() });
        Some(document)
    }
}
