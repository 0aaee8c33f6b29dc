//! gRPC server reflection, so that tools such as grpcurl can list what the socket offers.
//!
//= WLE-09 SPIFFE Workload Endpoint 7: "endpoint implementers SHOULD include support for [gRPC Server Reflection]"
//! Source: SPIFFE_Workload_Endpoint.md §4 (SHOULD); SPIRE serves v1 and v1alpha, without the security header.

use ironroot_api::pb::{broker, workload};
use tonic::service::Routes;
use tonic_reflection::server::Builder;

use super::door::MAX_MESSAGE_BYTES;

/// Adds both versions to `routes` of the workloads' socket.
pub(super) fn add_to(routes: Routes) -> Routes {
    add_of(&[workload::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET], routes)
}

/// The same of the brokers'.
pub(super) fn add_to_brokers(routes: Routes) -> Routes {
    add_of(&[broker::DESCRIPTORS], routes)
}

fn add_of(described: &[&'static [u8]], routes: Routes) -> Routes {
    let builder =
        || described.iter().fold(Builder::configure(), |it, set| it.register_encoded_file_descriptor_set(set));
    let (v1, v1alpha) = (builder().build_v1(), builder().build_v1alpha());
    let v1 = v1.expect("descriptors that were generated with the services");
    let v1alpha = v1alpha.expect("descriptors that were generated with the services");
    let routes = routes.add_service(v1.max_decoding_message_size(MAX_MESSAGE_BYTES));
    routes.add_service(v1alpha.max_decoding_message_size(MAX_MESSAGE_BYTES))
}
