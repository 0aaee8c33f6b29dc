//! `grpc.health.v1` on the workloads' socket, as SPIRE's agent has it there: serving once there is something to serve from,
//! and not while nobody is served since the agent is banned or evicted.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::server::{HealthReporter, health_reporter};

use super::serving::Serving;

/// The service; a task that ends with `serving`'s publisher tells it so.
pub(super) fn service(serving: &Serving) -> HealthServer<impl Health> {
    let (reporter, service) = health_reporter();
    tokio::spawn(follow(reporter, serving.clone()));
    service
}

async fn follow(reporter: HealthReporter, serving: Serving) {
    let (mut published, mut told) = (serving.follow_published(), None);
    loop {
        let is_serving = {
            let all = published.borrow_and_update();
            all.bundle().is_some() && all.cast_out().is_none()
        };
        let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        if told.replace(status) != Some(status) {
            // The empty name is the whole process. Source: grpc.health.v1.
            reporter.set_service_status("", status).await;
        }
        if published.changed().await.is_err() {
            return;
        }
    }
}
