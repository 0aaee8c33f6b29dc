//! Workloads whose keys are of the kind that the agent's file names, signed for by its own CA while the server is away.

use super::*;

#[test]
fn workloads_keys_of_each_kind_are_signed_for_by_the_agents_own_ca() {
    for (name, kind) in [("ec-p384", KeyKind::EcP384), ("rsa-2048", KeyKind::Rsa)] {
        let agent = AgentOptions {
            agent_lines: format!("workload_x509_svid_key_type = \"{name}\""),
            ..AgentOptions::default()
        };
        let mut lab = lab_on(ServerOptions::default(), Device::manufacture, agent, "", DOWNSTREAM);
        lab.device.start();
        let own = goes_on_by_itself(&mut lab);
        assert_eq!(Spki::parse(&chain(&own)[0].spki_der()).expect("a key").kind(), kind, "{name}");
        lab.device.expect_identity(BOB);
    }
}
