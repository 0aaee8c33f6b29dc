//! `grpc.health.v1` on the workloads' socket, as SPIRE's agent has it there: serving once there is something to serve from.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use super::serving::Serving;

/// The service; a task that ends with `serving`'s publisher, or once there is something, tells it so.
pub(super) fn service(serving: &Serving) -> HealthServer<impl Health> {
    let (reporter, service) = health_reporter();
    tokio::spawn(follow(reporter, serving.clone()));
    service
}

async fn follow(reporter: HealthReporter, serving: Serving) {
    if serving.started().is_ok() {
        return;
    }
    // The empty name is the whole process. Source: grpc.health.v1.
    reporter.set_service_status("", ServingStatus::NotServing).await;
    if serving.has_started().await {
        reporter.set_service_status("", ServingStatus::Serving).await;
    }
}
