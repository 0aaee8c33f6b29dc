//! `ironroot.api.server.device.v1`: the fleet, for administrators.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_api::device::NewDevice;
use ironroot_api::pb::device::device_server::Device;
use ironroot_api::pb::device::{
    DeviceRecord, DeviceRequest, ImportDevicesRequest, ImportDevicesResponse, ListDevicesRequest, ListDevicesResponse,
    import_devices_response,
};
use tonic::{Request, Response, Status};

use super::caller::{Caller, Listener};
use super::{Shared, count, device_status, item_ok, store_status};
use crate::devices::parse_hex;

/// The device service.
#[derive(Clone, Debug)]
pub struct DeviceApi(pub(super) Arc<Shared>, pub(super) Listener);

#[tonic::async_trait]
impl Device for DeviceApi {
    async fn import_devices(
        &self,
        request: Request<ImportDevicesRequest>,
    ) -> Result<Response<ImportDevicesResponse>, Status> {
        let caller = Caller::of(&request, self.1)?;
        let _right = self.0.administrator(&caller)?;
        let parsed: Result<Vec<NewDevice>, _> = request.get_ref().devices.iter().map(NewDevice::from_pb).collect();
        let devices = parsed.map_err(|e| Status::invalid_argument(e.to_string()))?;
        let imported = self.0.devices.import(devices, self.0.now_unix()).await.map_err(device_status)?;
        self.0.audit.done(
            &caller,
            "ImportDevices",
            format_args!("{} created, {} updated", imported.created, imported.updated),
        );
        let result = |device: &crate::devices::DeviceRecord| import_devices_response::Result {
            status: Some(item_ok()),
            device: Some(device.to_pb()),
        };
        Ok(Response::new(ImportDevicesResponse {
            results: imported.devices.iter().map(|d| result(d)).collect(),
            created: count(imported.created),
            updated: count(imported.updated),
        }))
    }

    async fn list_devices(
        &self,
        request: Request<ListDevicesRequest>,
    ) -> Result<Response<ListDevicesResponse>, Status> {
        let _right = self.0.administrator(&Caller::of(&request, self.1)?)?;
        let request = request.into_inner();
        let labels: BTreeMap<String, String> = request.by_labels.clone().into_iter().collect();
        let page = self.0.devices.list(request.by_state(), &labels, request.page_size, &request.page_token);
        let page = page.map_err(device_status)?;
        let devices = page.items.iter().map(|d| d.to_pb()).collect();
        Ok(Response::new(ListDevicesResponse { devices, next_page_token: page.next_page_token }))
    }

    async fn get_device(&self, request: Request<DeviceRequest>) -> Result<Response<DeviceRecord>, Status> {
        let _right = self.0.administrator(&Caller::of(&request, self.1)?)?;
        let ek_sha256 = key(request.get_ref())?;
        let device = self.0.devices.device(&ek_sha256).ok_or_else(|| Status::not_found("device not found"))?;
        Ok(Response::new(device.to_pb()))
    }

    async fn approve_device(&self, request: Request<DeviceRequest>) -> Result<Response<DeviceRecord>, Status> {
        let caller = Caller::of(&request, self.1)?;
        let _right = self.0.administrator(&caller)?;
        let device = self.0.devices.approve(&key(request.get_ref())?).await.map_err(device_status)?;
        self.0.audit.done(&caller, "ApproveDevice", &request.get_ref().ek_sha256);
        Ok(Response::new(device.to_pb()))
    }

    /// The device first, then its agent: between the two the agent can no longer attest, only use what it holds.
    async fn ban_device(&self, request: Request<DeviceRequest>) -> Result<Response<DeviceRecord>, Status> {
        let caller = Caller::of(&request, self.1)?;
        let _right = self.0.administrator(&caller)?;
        let device = self.0.devices.ban(&key(request.get_ref())?).await.map_err(device_status)?;
        if let Some(agent) = &device.agent_id {
            self.0.registry.ban_agent(agent).await.map_err(store_status)?;
        }
        self.0.audit.done(&caller, "BanDevice", &request.get_ref().ek_sha256);
        Ok(Response::new(device.to_pb()))
    }

    async fn delete_device(&self, request: Request<DeviceRequest>) -> Result<Response<()>, Status> {
        let caller = Caller::of(&request, self.1)?;
        let _right = self.0.administrator(&caller)?;
        self.0.devices.delete(&key(request.get_ref())?).await.map_err(device_status)?;
        self.0.audit.done(&caller, "DeleteDevice", &request.get_ref().ek_sha256);
        Ok(Response::new(()))
    }
}

fn key(request: &DeviceRequest) -> Result<[u8; 32], Status> {
    parse_hex(&request.ek_sha256).ok_or_else(|| Status::invalid_argument("ek_sha256 must be 64 hexadecimal digits"))
}
