//! `ironroot.api.server.device.v1`: the fleet, for administrators.

mod aside;

use std::collections::HashMap;
use std::sync::Arc;

use crate::devices::NewDevice;
use ironroot_api::pb::device as pb;
use ironroot_api::pb::device::device_server::Device;
use ironroot_api::pb::device::{
    DeviceRequest, ImportDevicesRequest, ImportDevicesResponse, ListDevicesRequest, ListDevicesResponse,
    import_devices_response,
};
use tonic::{Request, Response, Status};

use super::caller::granted;
use super::entry_api::within_batch;
use super::{ServerState, count, device_status, item_ok, store_status};
use crate::devices::{DeviceFilter, DuplicateSerials, Standing};
use crate::facts::device::{DeviceRecord, boots_to_pb};
use crate::node_attestation::told_of_chip;
use crate::registry::{Dependents, EntryAdvice, Registry};
use crate::rights::Administrator;
use aside::Aside;
use ironroot_text::hex::{hex, parse_hex};

/// Most mistakes told at once: the message goes into HTTP/2 headers, of which clients accept 8 to 16 kB.
const MAX_MISTAKES: usize = 20;

/// Ours: `ironroot.api.server.device.v1.Device`.
#[derive(Clone, Debug)]
pub struct DeviceApi {
    server: Arc<ServerState>,
    aside: Aside,
}

impl DeviceApi {
    pub(super) fn new(server: Arc<ServerState>) -> Self {
        Self { aside: Aside::new(server.registry.clone()), server }
    }
}

impl DeviceApi {
    /// A device's record, and how it stands.
    fn shown(&self, device: &DeviceRecord) -> pb::DeviceRecord {
        let Standing { boot_changed_at, booted_otherwise, suspected } = self.server.devices.standing(&device.ek_sha256);
        let last_seen_at = device.agent_id.as_ref().map_or(0, |agent| self.server.registry.agent_seen_at(agent));
        pb::DeviceRecord { boot_changed_at, booted_otherwise, suspected, last_seen_at, ..device.to_pb() }
    }

    /// What its agent's attestation proved of its chip: the firmware's version and known faults.
    fn told_of_chip(&self, device: &DeviceRecord) -> (String, Vec<String>) {
        let agent = device.agent_id.as_ref().and_then(|agent| self.server.registry.agent(agent));
        let Some(agent) = agent else { return Default::default() };
        let (version, faults) = told_of_chip(&agent.selectors);
        (version.map(|version| version.to_string()).unwrap_or_default(), faults)
    }
}

#[tonic::async_trait]
impl Device for DeviceApi {
    async fn import_devices(
        &self,
        request: Request<ImportDevicesRequest>,
    ) -> Result<Response<ImportDevicesResponse>, Status> {
        let by: Administrator = granted(&request)?;
        let refused = |status| self.server.audit.refused(by.caller(), "ImportDevices", "manifest", status);
        let ImportDevicesRequest { devices, allow_duplicate_serials, known_only } = request.into_inner();
        let devices = manifest(&devices).map_err(refused)?;
        let duplicates = if allow_duplicate_serials { DuplicateSerials::Allowed } else { DuplicateSerials::Refused };
        let (registry, now_unix) = (&self.server.devices, self.server.now_unix());
        let imported = match known_only {
            true => registry.approve_described(&by, devices, duplicates, now_unix).await,
            false => registry.import(&by, devices, duplicates, now_unix).await,
        };
        let imported = imported.map_err(|error| refused(device_status(error)))?;
        let total = format_args!("{} created, {} updated", imported.created, imported.updated);
        self.server.audit.done(by.caller(), "ImportDevices", total);
        for (device, changes) in imported.devices.iter().filter(|(_, changes)| !changes.is_empty()) {
            let changed = format_args!("{}: {}", hex(&device.ek_sha256), changes.join("; "));
            self.server.audit.done(by.caller(), "ImportDevices", changed);
        }
        let (created, updated) = (count(imported.created), count(imported.updated));
        let result = |(device, changes): (Arc<DeviceRecord>, Vec<String>)| import_devices_response::Result {
            status: Some(item_ok()),
            device: Some(device.to_pb()),
            changes,
        };
        let results = imported.devices.into_iter().map(result).collect();
        Ok(Response::new(ImportDevicesResponse { results, created, updated }))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let request = request.into_inner();
        let filter = DeviceFilter::from_pb(&request);
        let page = self.server.devices.list(&filter, request.page_size, &request.page_token);
        let page = page.map_err(device_status)?;
        let devices = page.items.iter().map(|device| self.shown(device)).collect();
        Ok(Response::new(ListDevicesResponse { devices, next_page_token: page.next_page_token }))
    }

    async fn get_device(&self, request: Request<DeviceRequest>) -> Result<Response<pb::DeviceRecord>, Status> {
        let _: Administrator = granted(&request)?;
        let ek_sha256 = key(request.get_ref())?;
        let device = self.server.devices.device(&ek_sha256).ok_or_else(|| Status::not_found("device not found"))?;
        let boots = self.server.devices.boots(&ek_sha256).await.map_err(store_status)?;
        let (firmware_version, weaknesses) = self.told_of_chip(&device);
        let boots = boots_to_pb(&boots);
        Ok(Response::new(pb::DeviceRecord { boots, firmware_version, weaknesses, ..self.shown(&device) }))
    }

    async fn approve_device(&self, request: Request<DeviceRequest>) -> Result<Response<pb::DeviceRecord>, Status> {
        let by: Administrator = granted(&request)?;
        let device = self.server.devices.approve(&by, &key(request.get_ref())?).await.map_err(device_status)?;
        self.server.audit.done(by.caller(), "ApproveDevice", &request.get_ref().ek_sha256);
        Ok(Response::new(device.to_pb()))
    }

    /// The device, and its agents with it.
    async fn ban_device(&self, request: Request<DeviceRequest>) -> Result<Response<pb::DeviceRecord>, Status> {
        let by: Administrator = granted(&request)?;
        let ek_sha256 = key(request.get_ref())?;
        let banned = self.server.devices.ban(&by, &ek_sha256, self.server.now_unix()).await.map_err(device_status)?;
        self.server.audit.banned(by.caller(), &ek_sha256, &banned.agents);
        Ok(Response::new(banned.device.to_pb()))
    }

    async fn delete_device(&self, request: Request<DeviceRequest>) -> Result<Response<()>, Status> {
        let by: Administrator = granted(&request)?;
        self.server.devices.delete(&by, &key(request.get_ref())?).await.map_err(device_status)?;
        self.server.audit.done(by.caller(), "DeleteDevice", &request.get_ref().ek_sha256);
        Ok(Response::new(()))
    }

    async fn advise_on_entries(
        &self,
        request: Request<pb::AdviseOnEntriesRequest>,
    ) -> Result<Response<pb::AdviseOnEntriesResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let entries = request.into_inner().entries;
        within_batch(entries.len())?;
        let advice = |EntryAdvice { warnings, notes }| pb::advise_on_entries_response::Advice { warnings, notes };
        let server = self.server.clone();
        let advise =
            move |registry: &Registry| registry.advise(&entries, &server.exchange_parents, &|id| server.has_rights(id));
        let told = self.aside.find(advise).await?;
        Ok(Response::new(pb::AdviseOnEntriesResponse { advice: told.into_iter().map(advice).collect() }))
    }

    async fn count_dependents(
        &self,
        request: Request<pb::CountDependentsRequest>,
    ) -> Result<Response<pb::CountDependentsResponse>, Status> {
        let _: Administrator = granted(&request)?;
        let ids = request.into_inner().ids;
        within_batch(ids.len())?;
        let dependents = |d: Dependents| pb::count_dependents_response::Dependents {
            id: d.id,
            spiffe_id: Some(d.spiffe_id.to_pb()),
            entries: count(d.entries),
            given_by_others: d.given_by_others,
        };
        let found = self.aside.find(move |registry| registry.dependents(&ids)).await?;
        Ok(Response::new(pb::CountDependentsResponse { dependents: found.into_iter().map(dependents).collect() }))
    }
}

/// Every device checked; if any is wrong, all that is wrong, by place in the request (the first is 0).
fn manifest(devices: &[pb::NewDevice]) -> Result<Vec<NewDevice>, Status> {
    let (mut checked, mut mistakes) = (Vec::with_capacity(devices.len()), Vec::new());
    let mut places = HashMap::new();
    for (place, device) in devices.iter().enumerate() {
        match NewDevice::from_pb(device) {
            Err(found) => mistakes.extend(found.iter().map(|mistake| format!("device {place}: {mistake}"))),
            Ok(device) => match places.insert(device.ek_sha256(), place) {
                Some(first) => mistakes.push(format!("device {place}: is device {first} again")),
                None => checked.push(device),
            },
        }
    }
    if mistakes.is_empty() {
        return Ok(checked);
    }
    let more = mistakes.len().saturating_sub(MAX_MISTAKES);
    mistakes.truncate(MAX_MISTAKES);
    if more > 0 {
        mistakes.push(format!("and {more} more"));
    }
    Err(Status::invalid_argument(mistakes.join("; ")))
}

fn key(request: &DeviceRequest) -> Result<[u8; 32], Status> {
    parse_hex(&request.ek_sha256).ok_or_else(|| Status::invalid_argument("ek_sha256 must be 64 hexadecimal digits"))
}
