//! gRPC server reflection, so that tools such as grpcurl can list what the socket offers.
//!
//= WLE-09 SPIFFE Workload Endpoint 7: "endpoint implementers SHOULD include support for [gRPC Server Reflection]"
//! Source: SPIFFE_Workload_Endpoint.md §4 (SHOULD); SPIRE serves v1 and v1alpha, without the security header.

use ironroot_api::pb::workload;
use tonic::service::Routes;
use tonic_reflection::server::Builder;

use super::door::MAX_MESSAGE_BYTES;

/// Adds both versions to `routes`.
pub(super) fn add_to(mut routes: Routes) -> Routes {
    let builder = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(workload::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (v1, v1alpha) = (builder().build_v1(), builder().build_v1alpha());
    let v1 = v1.expect("descriptors that were generated with the services");
    let v1alpha = v1alpha.expect("descriptors that were generated with the services");
    routes = routes.add_service(v1.max_decoding_message_size(MAX_MESSAGE_BYTES));
    routes.add_service(v1alpha.max_decoding_message_size(MAX_MESSAGE_BYTES))
}
