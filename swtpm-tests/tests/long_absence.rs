//! Devices, and images, that outlive the CA they knew.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ironroot_api::certificate::Certificate;
use ironroot_api::tls::TrustAnchors;
use ironroot_lab::deployment::{AgentOptions, DEADLINE, Device, Server, ServerOptions, expect_within};
use ironroot_lab::manufacturer::Manufacturer;
use ironroot_lab::workload_client;
use webpki::KeyUsage;

/// A new CA is prepared after 6 s, signs after 10 s, and ends after 12 s.
fn short_ca(server_lines: &str) -> ServerOptions {
    let server_lines = server_lines.to_owned();
    ServerOptions { ca_ttl: "12s", agent_ttl: "4s", x509_svid_ttl: "4s", server_lines, ..Default::default() }
}

struct Lab {
    server: Server,
    maker: Manufacturer,
    /// What a device's image holds: the bundle of the first day.
    image: String,
    uid: u32,
}

impl Lab {
    fn new(options: &ServerOptions) -> Self {
        let server = Server::start(options);
        let image = server.bundle_pem();
        let maker = Manufacturer::new("Toy TPM Works").expect("maker");
        Self { server, maker, image, uid: nix::unistd::geteuid().as_raw() }
    }

    fn device(&self) -> Device {
        let device = Device::manufacture(&self.maker);
        self.server.import_devices(&format!("ek_sha256\n{}\n", device.ek_sha256()));
        self.server.create_entry(&device.agent_id(), "/probe", &[&format!("unix:uid:{}", self.uid)], &[]);
        device.provision_with_bundle(&self.image, self.server.port(), &AgentOptions::default());
        device
    }

    fn activated(&self) -> usize {
        self.server.log().matches("CA activated").count()
    }

    /// Until nothing that was signed before, nor a CA of then, is left.
    fn wait_for_another_ca(&self) {
        let enough = self.activated() + 3;
        expect_within(DEADLINE, "the CA rotates three times", || self.server.log(), || self.activated() >= enough);
    }
}

#[test]
fn a_device_that_was_off_for_longer_than_the_ca_comes_back_by_its_tpm_alone() {
    let lab = Lab::new(&short_ca(""));
    let mut device = lab.device();
    device.start();
    device.expect_identity(lab.uid);
    device.power_cycle();
    lab.wait_for_another_ca();
    device.start();
    device.expect_identity(lab.uid);
    assert_eq!(lab.server.bundle_pem(), lab.image, "the bundle is the root and stays what it was");
    // And one that is new out of the box, with that old image.
    let mut boxed = lab.device();
    boxed.start();
    boxed.expect_identity(lab.uid);
}

#[test]
fn without_a_root_the_agent_says_when_its_bundle_ended_and_comes_back_with_a_new_one() {
    let mut lab = Lab::new(&short_ca("root { enabled = false }"));
    let mut device = lab.device();
    lab.wait_for_another_ca();
    device.start();
    device.expect_log("this trust bundle's last certificate ended on ");
    device.expect_log("a new one is needed");
    lab.image = lab.server.bundle_pem();
    std::fs::write(device.bundle_path(), &lab.image).expect("bundle written");
    device.expect_identity(lab.uid);
}

//= FLT-A4
/// Three years by every clock of both machines, which were started anew meanwhile.
#[test]
fn a_device_that_was_off_for_three_years_comes_back_by_its_tpm_alone() {
    const LATER: &str = "+1096d";
    let mut lab = Lab::new(&ServerOptions::default());
    let mut device = lab.device();
    device.start();
    device.expect_identity(lab.uid);
    device.power_cycle();
    lab.server.kill();
    lab.server.reboot_at(LATER);
    device.start_at(Some(LATER));
    // The lab's own clock is right: it asks without judging.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let served = runtime.block_on(workload_client::first_svid(&device.socket(), Instant::now(), DEADLINE));
    let (served, _) = served.unwrap_or_else(|status| panic!("{status}\n{}\n{}", device.log(), lab.server.log()));
    let chain = Certificate::parse_concatenated(&served.svids[0].x509_svid).expect("a chain");
    let [leaf, ca] = &chain[..] else { panic!("{} certificates", chain.len()) };
    let image = Certificate::parse_pem(&lab.image).expect("PEM");
    let id = leaf.leaf_spiffe_id().expect("an X509-SVID");
    let anchors = TrustAnchors::new(id.trust_domain(), &[image[0].der().clone()]).expect("anchors");
    let later = SystemTime::now() + Duration::from_secs(1096 * 24 * 3600);
    let later = later.duration_since(UNIX_EPOCH).expect("after 1970").as_secs().try_into().expect("a time");
    let verified = anchors.verify(leaf.der(), &[ca.der().clone()], KeyUsage::server_auth(), later);
    verified.expect("who has that image believes it");
    let log = device.log();
    assert_eq!(log.matches("agent attested").count(), 2, "by its TPM, again: {log}");
}
