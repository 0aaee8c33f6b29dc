//! Generates the wire types and service glue from `proto/`. No protoc needed: protox parses in Rust.
use std::error::Error;
use std::path::PathBuf;

use prost::Message;
use prost_types::field_descriptor_proto::Type;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

const PROTOS: [&str; 29] = [
    "proto/ironroot/api/head/v1/head.proto",
    "proto/spire/api/types/types.proto",
    "proto/spire/api/server/agent/v1/agent.proto",
    "proto/spire/api/server/entry/v1/entry.proto",
    "proto/spire/api/server/svid/v1/svid.proto",
    "proto/spire/api/server/bundle/v1/bundle.proto",
    "proto/spire/api/server/debug/v1/debug.proto",
    "proto/spire/api/server/localauthority/v1/localauthority.proto",
    "proto/spire/api/server/logger/v1/logger.proto",
    "proto/spire/api/agent/debug/v1/debug.proto",
    "proto/spire/api/agent/logger/v1/logger.proto",
    "proto/spire/api/agent/delegatedidentity/v1/delegatedidentity.proto",
    "proto/ironroot/api/agent/status/v1/status.proto",
    "proto/ironroot/api/agent/explain/v1/explain.proto",
    "proto/ironroot/api/agent/explain/v1/administration.proto",
    "proto/ironroot/api/agent/hardwarekey/v1/hardware_key.proto",
    "proto/spire/api/server/trustdomain/v1/trustdomain.proto",
    "proto/ironroot/api/server/change/v1/change.proto",
    "proto/ironroot/api/server/device/v1/device.proto",
    "proto/ironroot/api/server/issued/v1/issued.proto",
    "proto/ironroot/api/server/root/v1/root.proto",
    "proto/ironroot/api/server/status/v1/status.proto",
    "proto/ironroot/api/server/pcrpolicy/v1/pcr_policy.proto",
    "proto/workload.proto",
    "proto/brokerapi.proto",
    "proto/google/rpc/error_details.proto",
    "proto/envoy/service/secret/v3/sds.proto",
    "proto/envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "proto/opentelemetry/trace_service.proto",
];
/// What the agent's socket for workloads serves, and what that imports.
const ON_THE_WORKLOAD_SOCKET: [&str; 10] = [
    "workload.proto",
    "ironroot/api/agent/explain/v1/explain.proto",
    "ironroot/api/agent/hardwarekey/v1/hardware_key.proto",
    "envoy/service/secret/v3/sds.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "envoy/config/core/v3/core.proto",
    "envoy/type/v3/version.proto",
    "google/rpc/status.proto",
    "google/protobuf/any.proto",
    "google/protobuf/struct.proto",
];
/// The same of the broker's socket.
const ON_THE_BROKERS_SOCKET: [&str; 2] = ["brokerapi.proto", "google/protobuf/any.proto"];
const ENTRY_PACKAGE: &str = "spire.api.server.entry.v1";
const ENCODED_MESSAGES: [&str; 2] = ["GetAuthorizedEntriesResponse", "SyncAuthorizedEntriesResponse"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors.clone())?;

    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    for (name, files) in [("workload", &ON_THE_WORKLOAD_SOCKET[..]), ("broker", &ON_THE_BROKERS_SOCKET)] {
        let chosen = only(&descriptors, files).encode_to_vec();
        std::fs::write(out_dir.join(format!("{name}.descriptors")), chosen)?;
    }

    let encoded = out_dir.join("encoded");
    std::fs::create_dir_all(&encoded)?;
    let descriptors = with_encoded_entries(descriptors);
    let mut generator = tonic_prost_build::configure()
        .build_client(false)
        .bytes(".")
        .extern_path(".spire.api.types", "crate::pb::types")
        .out_dir(encoded);
    for message in unchanged_messages(&descriptors) {
        generator =
            generator.extern_path(format!(".{ENTRY_PACKAGE}.{message}"), format!("crate::pb::entry::{message}"));
    }
    generator.compile_fds(descriptors)?;
    Ok(())
}

/// The services of one socket and what they import, for server reflection.
fn only(descriptors: &FileDescriptorSet, files: &[&str]) -> FileDescriptorSet {
    let file = descriptors.file.iter().filter(|file| files.contains(&file.name())).cloned();
    let file = file.map(|file| FileDescriptorProto { source_code_info: None, ..file });
    FileDescriptorSet { file: file.collect() }
}

/// The messages of the entry service that hold no encoded entries: both forms of the service share their types.
fn unchanged_messages(descriptors: &FileDescriptorSet) -> Vec<String> {
    let entry_files = descriptors.file.iter().filter(|f| f.package() == ENTRY_PACKAGE);
    let names = entry_files.flat_map(|f| &f.message_type).map(|m| m.name().to_owned());
    names.filter(|name| !ENCODED_MESSAGES.contains(&name.as_str())).collect()
}

/// The entry service as the server speaks it: in answers to agents an entry is bytes that were encoded when it was
/// stored. `repeated Entry` and `repeated bytes` are the same on the wire, so a sync copies and never encodes.
fn with_encoded_entries(mut descriptors: FileDescriptorSet) -> FileDescriptorSet {
    for file in descriptors.file.iter_mut().filter(|f| f.package() == ENTRY_PACKAGE) {
        for message in &mut file.message_type {
            if ENCODED_MESSAGES.contains(&message.name()) {
                for field in message.field.iter_mut().filter(|f| f.name() == "entries") {
                    field.set_type(Type::Bytes);
                    field.type_name = None;
                }
            }
        }
    }
    let needed = [ENTRY_PACKAGE, "spire.api.types", "google.protobuf"];
    descriptors.file.retain(|f| needed.contains(&f.package()));
    descriptors
}
