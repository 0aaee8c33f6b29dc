//! Each address: who may, what the server is asked, and the page that it makes.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Form, FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Redirect, Response};
use ironroot_api::SpiffeId;
use ironroot_api::pb::device::DeviceRecord;
use ironroot_api::pb::entry::list_entries_request::Filter;
use ironroot_api::pb::types::Agent;
use ironroot_shell::clock::wall_unix;
use maud::Markup;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::Seat;
use crate::console::House;
use crate::console::asked::Unanswered;
use crate::console::audit_file::{self, AuditLine};
use crate::console::changes::{Change, Confirmed};
use crate::console::door::{Refused, Visitor, own_host};
use crate::console::fleet::{Fleet, State as DeviceState, Wanted};
use crate::console::identities::Identities;
use crate::console::pages::{self, DevicePage, EntriesPage};
use crate::console::validity;

/// Entries on a page.
const ENTRIES: i32 = 100;

type ThisHouse = State<Arc<House>>;

/// Why a page is not shown.
#[derive(Debug)]
pub enum NoPage {
    Refused(Refused),
    Unanswered(Unanswered),
}

impl From<Refused> for NoPage {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Unanswered> for NoPage {
    fn from(unanswered: Unanswered) -> Self {
        Self::Unanswered(unanswered)
    }
}

impl IntoResponse for NoPage {
    fn into_response(self) -> Response {
        let (status, why) = match &self {
            Self::Refused(refused) => (refused.status(), refused.to_string()),
            Self::Unanswered(why @ Unanswered::NotFound(_)) => (StatusCode::NOT_FOUND, why.to_string()),
            Self::Unanswered(why @ Unanswered::Malformed(_)) => (StatusCode::BAD_REQUEST, why.to_string()),
            Self::Unanswered(why @ Unanswered::Failed(_)) => (StatusCode::BAD_GATEWAY, why.to_string()),
        };
        page(status, &pages::refusal(status, &why))
    }
}

impl FromRequestParts<Arc<House>> for Visitor {
    type Rejection = NoPage;

    async fn from_request_parts(parts: &mut Parts, house: &Arc<House>) -> Result<Self, Self::Rejection> {
        let visitor = house.door.visitor(&parts.headers, Instant::now())?;
        parts.extensions.get::<Seat>().into_iter().for_each(Seat::is_a_visitors);
        Ok(visitor)
    }
}

/// Opens the door, once.
pub(super) async fn open(
    State(house): ThisHouse,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, NoPage> {
    own_host(&headers)?;
    let cookie = house.door.open(&key, Instant::now())?;
    let mut answer = page(StatusCode::OK, &pages::opened(&house.door.home()));
    let value = house.door.set_cookie(&cookie).parse().expect("hexadecimal digits are legal in a header");
    answer.headers_mut().insert(header::SET_COOKIE, value);
    Ok(answer)
}

/// What the fleet page is asked to show; what is left empty asks for nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    text: String,
    label: String,
    state: String,
}

impl Search {
    fn wanted(self) -> Wanted {
        let label = self.label.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()));
        Wanted { state: DeviceState::from_word(&self.state), label, text: self.text.trim().to_owned() }
    }
}

pub(super) async fn fleet(
    _: Visitor,
    State(house): ThisHouse,
    Query(search): Query<Search>,
) -> Result<Response, NoPage> {
    let wanted = search.wanted();
    let fleet = Fleet::now(&house.server, &wanted).await?;
    Ok(page(StatusCode::OK, &pages::fleet(&fleet, &wanted, wall_unix())))
}

/// What was just done, told once on the device's page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Done {
    done: String,
}

pub(super) async fn device(
    visitor: Visitor,
    State(house): ThisHouse,
    Path(ek_sha256): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Response, NoPage> {
    let device = house.server.device(&ek_sha256).await?;
    let agent = agent_of(&house, &device).await?;
    let identities = match &agent {
        Some(agent) => Identities::of(&house.server, agent).await?,
        None => Identities::default(),
    };
    let audit = audit_of(&house, &device).await;
    let done = [Change::Approve, Change::Ban].into_iter().find(|change| change.word() == done);
    let shown = DevicePage { device, agent, identities, audit, done, form: visitor.form() };
    Ok(page(StatusCode::OK, &pages::device(&shown, wall_unix())))
}

/// None if it has none, or it was forgotten.
async fn agent_of(house: &House, device: &DeviceRecord) -> Result<Option<Agent>, Unanswered> {
    let Ok(id) = SpiffeId::parse(&device.agent_id) else { return Ok(None) };
    match house.server.agent(&id).await {
        Ok(agent) => Ok(Some(agent)),
        Err(Unanswered::NotFound(_)) => Ok(None),
        Err(failed) => Err(failed),
    }
}

async fn audit_of(house: &House, device: &DeviceRecord) -> Option<Result<Vec<AuditLine>, String>> {
    let path = house.audit_file.clone()?;
    let names = [device.ek_sha256.clone(), device.agent_id.clone()];
    let read = move || audit_file::lines(&path, &names.each_ref().map(String::as_str));
    let lines = spawn_blocking(read).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    Some(lines.map_err(|error| error.to_string()))
}

/// A form of a device's page.
#[derive(Debug, Deserialize)]
pub(super) struct Typed {
    /// What only the session's own forms carry.
    form: String,
    /// The device's name, typed by whoever means it.
    name: String,
}

pub(super) async fn approve(
    visitor: Visitor,
    house: ThisHouse,
    path: Path<String>,
    headers: HeaderMap,
    form: Form<Typed>,
) -> Result<Redirect, NoPage> {
    change(Change::Approve, &visitor, house, path, &headers, form).await
}

pub(super) async fn ban(
    visitor: Visitor,
    house: ThisHouse,
    path: Path<String>,
    headers: HeaderMap,
    form: Form<Typed>,
) -> Result<Redirect, NoPage> {
    change(Change::Ban, &visitor, house, path, &headers, form).await
}

async fn change(
    change: Change,
    visitor: &Visitor,
    State(house): ThisHouse,
    Path(ek_sha256): Path<String>,
    headers: &HeaderMap,
    Form(typed): Form<Typed>,
) -> Result<Redirect, NoPage> {
    let by = visitor.writer(headers, &typed.form)?;
    let device = house.server.device(&ek_sha256).await?;
    let confirmed = Confirmed::new(&device, &typed.name)?;
    let changed = change.make(&house.server, by, confirmed).await?;
    Ok(Redirect::to(&format!("../{}?done={}", changed.ek_sha256, change.word())))
}

/// Which entries are asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entries {
    id: String,
    page: String,
}

pub(super) async fn entries(
    _: Visitor,
    State(house): ThisHouse,
    Query(Entries { id, page: token }): Query<Entries>,
) -> Result<Response, NoPage> {
    let (filter, mistake) = match id.trim() {
        "" => (Filter::default(), None),
        id => match SpiffeId::parse(id) {
            Ok(id) => (Filter { by_spiffe_id: Some(id.to_pb()), ..Filter::default() }, None),
            Err(error) => (Filter::default(), Some(format!("{id:?} is no SPIFFE ID: {error}"))),
        },
    };
    let found = house.server.entries(filter, ENTRIES, &token).await?;
    let advice = house.server.advice(found.entries.clone()).await?;
    let shown = EntriesPage {
        entries: found.entries.into_iter().zip(advice).collect(),
        in_all: house.server.status().await?.entries,
        spiffe_id: id.trim().to_owned(),
        next: found.next_page_token,
        mistake,
    };
    Ok(page(StatusCode::OK, &pages::entries(&shown, wall_unix())))
}

pub(super) async fn authorities(_: Visitor, State(house): ThisHouse) -> Result<Response, NoPage> {
    let (bundle, status) = (house.server.bundle().await?, house.server.status().await?);
    let local = match house.server.x509_authorities().await {
        Err(Unanswered::NotFound(_)) => Default::default(),
        local => local?,
    };
    let (x509, jwt) = (validity::x509(&bundle, &local, &status), validity::jwt(&bundle, &status));
    Ok(page(StatusCode::OK, &pages::authorities(&x509, &jwt, &status, wall_unix())))
}

pub(super) async fn live(_: Visitor, State(house): ThisHouse) -> Response {
    Sse::new(house.watcher.changes()).keep_alive(KeepAlive::default()).into_response()
}

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], pages::STYLE)
}

pub(super) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], pages::SCRIPT)
}

pub(super) async fn nothing_there(_: Visitor) -> Response {
    page(StatusCode::NOT_FOUND, &pages::refusal(StatusCode::NOT_FOUND, "there is no such page"))
}

fn page(status: StatusCode, markup: &Markup) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], markup.0.clone()).into_response()
}
