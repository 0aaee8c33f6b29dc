//! `ironroot.api.server.issued.v1`: what agents have signed with their own CAs while this server was away, as they say.
//!
//! Nothing is granted by it: each SVID has its audit line and its record in the issuance log, whether or not an entry still says so.

use std::sync::Arc;

use ironroot_api::SpiffeId;
use ironroot_api::jwt::MAX_KEY_ID_BYTES;
use ironroot_api::pb::issued::issued_server::Issued;
use ironroot_api::pb::issued::{IssuedJwt, IssuedSvid, ReportIssuedRequest, ReportIssuedResponse};
use ironroot_api::utc;
use ironroot_shell::logging::clipped;
use thiserror::Error;
use tonic::{Request, Response, Status};

use super::caller::granted;
use super::policy::MAX_ISSUED;
use super::{ServerState, invalid};
use crate::facts::entry::MAX_ENTRY_ID_BYTES;
use crate::rights::AuthenticatedAgent;

/// What audit lines and the issuance log call it.
const METHOD: &str = "ReportIssued";
/// Digits of the largest serial number, of 20 bytes. Source: RFC 5280 §4.1.2.2.
const MAX_SERIAL_DIGITS: usize = 49;

/// Why a report is not taken; none of its SVIDs is noted then.
#[derive(Debug, Error)]
enum ReportError {
    #[error("more than {MAX_ISSUED} SVIDs at once")]
    TooMany,
    #[error("SVID {0} has no entry ID of at most {MAX_ENTRY_ID_BYTES} bytes")]
    EntryId(usize),
    #[error("SVID {0} has no SPIFFE ID of this trust domain")]
    SpiffeId(usize),
    #[error("SVID {0} has no serial number in decimal")]
    Serial(usize),
    #[error("SVID {0} is a JWT-SVID without the ID of its key, of at most {MAX_KEY_ID_BYTES} bytes")]
    KeyId(usize),
}

/// Ours: `ironroot.api.server.issued.v1.Issued`.
#[derive(Clone, Debug)]
pub struct IssuedApi(pub(super) Arc<ServerState>);

#[tonic::async_trait]
impl Issued for IssuedApi {
    async fn report_issued(
        &self,
        request: Request<ReportIssuedRequest>,
    ) -> Result<Response<ReportIssuedResponse>, Status> {
        let agent: AuthenticatedAgent = granted(&request)?;
        let (server, svids) = (&self.0, request.into_inner().svids);
        server.limits.status(agent.caller().address()).await?;
        let noted = notes(&svids, server);
        let notes = noted.map_err(|error| server.audit.refused(agent.caller(), METHOD, agent.id(), invalid(&error)))?;
        notes.iter().for_each(|note| server.audit.done(agent.caller(), METHOD, note));
        Ok(Response::new(ReportIssuedResponse {}))
    }
}

/// What is noted of each, if all of them are what they must be.
fn notes(svids: &[IssuedSvid], server: &ServerState) -> Result<Vec<String>, ReportError> {
    if svids.len() > MAX_ISSUED {
        return Err(ReportError::TooMany);
    }
    (1..).zip(svids).map(|(number, svid)| note(number, svid, server)).collect()
}

/// `spiffe://td/w serial 77, entry e1, issued … until …`, and whether there is such an entry now; of JWT-SVIDs
/// `spiffe://td/w JWT-SVID by key 78 audience a,b, entry …`.
fn note(number: usize, svid: &IssuedSvid, server: &ServerState) -> Result<String, ReportError> {
    let id = SpiffeId::parse(&svid.spiffe_id).ok().and_then(|id| id.as_member_of(&server.trust_domain).ok());
    let id = id.ok_or(ReportError::SpiffeId(number))?;
    if svid.entry_id.is_empty() || svid.entry_id.len() > MAX_ENTRY_ID_BYTES || svid.entry_id.contains(char::is_control)
    {
        return Err(ReportError::EntryId(number));
    }
    let what = svid.jwt.as_ref().map_or_else(|| certificate(number, &svid.serial_number), |jwt| token(number, jwt))?;
    let is_known = server.registry.entry(&svid.entry_id).is_some_and(|entry| *entry.spiffe_id() == id);
    let known = if is_known { "" } else { ", which no entry of that ID says now" };
    let (from, until) = (utc(svid.issued_at), utc(svid.expires_at));
    Ok(format!("{id} {what}, entry {}, issued {from} until {until}{known}", svid.entry_id))
}

fn certificate(number: usize, serial: &str) -> Result<String, ReportError> {
    let is_serial =
        (1..=MAX_SERIAL_DIGITS).contains(&serial.len()) && serial.bytes().all(|digit| digit.is_ascii_digit());
    if is_serial { Ok(format!("serial {serial}")) } else { Err(ReportError::Serial(number)) }
}

/// What it says is not refused for its audience: a workload has chosen that, and the report would be stuck.
fn token(number: usize, jwt: &IssuedJwt) -> Result<String, ReportError> {
    let key_id = &jwt.key_id;
    if key_id.is_empty() || key_id.len() > MAX_KEY_ID_BYTES || key_id.contains(char::is_control) {
        return Err(ReportError::KeyId(number));
    }
    let audience = clipped(&jwt.audience).to_string().replace(char::is_control, "\u{fffd}");
    let what = if jwt.count > 1 { format!("{} JWT-SVIDs", jwt.count) } else { "JWT-SVID".to_owned() };
    Ok(format!("{what} by key {key_id} audience {audience}"))
}
