//! What metrics call a gRPC method.

/// Services whose metrics have a shorter name. Source: SPIRE, pkg/common/api/middleware/names.go; those of `ironroot.` are ours.
const SHORT: [(&str, &str); 9] = [
    ("spire.api.server.", ""),
    ("ironroot.api.server.", ""),
    ("ironroot.api.agent.", ""),
    ("SpiffeWorkloadAPI", "WorkloadAPI"),
    ("envoy.service.secret.v3.SecretDiscoveryService", "SDS.v3"),
    ("grpc.health.v1.Health", "Health"),
    ("spire.api.agent.logger.v1.Logger", "Logger"),
    ("spire.agent.debug.v1.Debug", "Debug"),
    ("spire.api.agent.delegatedidentity.v1.DelegatedIdentity", "DelegatedIdentity"),
];

/// Methods whose name is not what the rule makes of it. Source: the same.
const EXCEPTIONS: [(&str, &str); 2] =
    [("SubscribeToX509SVIDs", "subscribe_to_x509_svids"), ("logger.v1.Logger", "logger")];

/// The name of the method at `path`: `rpc.agent.v1.agent.attest_agent` of `/spire.api.server.agent.v1.Agent/AttestAgent`.
pub fn call_name(path: &str) -> String {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let short = SHORT.iter().find_map(|(long, short)| service.strip_prefix(long).map(|rest| format!("{short}{rest}")));
    let service = short.unwrap_or_else(|| service.to_owned());
    let service =
        exception(&service).map_or_else(|| service.split('.').map(key).collect::<Vec<_>>().join("."), str::to_owned);
    let method = exception(method).map_or_else(|| key(method), str::to_owned);
    format!("rpc.{service}.{method}")
}

fn exception(name: &str) -> Option<&'static str> {
    EXCEPTIONS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key)
}

/// `BatchNewX509SVID` as `batch_new_x509svid`. Source: SPIRE's `metricKey`.
fn key(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut key = String::with_capacity(name.len() + 8);
    for (at, &letter) in letters.iter().enumerate() {
        let is_word = letter.is_uppercase() && at > 0 && at + 1 < letters.len();
        let has_small_neighbour = |at: usize| letters[at + 1].is_lowercase() || letters[at - 1].is_lowercase();
        if is_word && has_small_neighbour(at) && !key.ends_with('_') {
            key.push('_');
        }
        match letter.is_alphanumeric() {
            true => key.extend(letter.to_lowercase()),
            false => key.push('_'),
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_have_the_names_that_spire_gives_them() {
        for (path, wanted) in [
            ("/spire.api.server.agent.v1.Agent/AttestAgent", "rpc.agent.v1.agent.attest_agent"),
            ("/spire.api.server.svid.v1.SVID/BatchNewX509SVID", "rpc.svid.v1.svid.batch_new_x509svid"),
            ("/spire.api.server.svid.v1.SVID/NewJWTSVID", "rpc.svid.v1.svid.new_jwtsvid"),
            ("/spire.api.server.logger.v1.Logger/GetLogger", "rpc.logger.get_logger"),
            ("/grpc.health.v1.Health/Check", "rpc.health.check"),
            ("/SpiffeWorkloadAPI/FetchX509SVID", "rpc.workload_api.fetch_x509svid"),
            ("/SpiffeWorkloadAPI/FetchJWTBundles", "rpc.workload_api.fetch_jwt_bundles"),
            ("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", "rpc.sds.v3.stream_secrets"),
            (
                "/spire.api.agent.delegatedidentity.v1.DelegatedIdentity/SubscribeToX509SVIDs",
                "rpc.delegated_identity.subscribe_to_x509_svids",
            ),
            ("/ironroot.api.server.device.v1.Device/ListDevices", "rpc.device.v1.device.list_devices"),
        ] {
            assert_eq!(call_name(path), wanted, "{path}");
        }
    }
}
