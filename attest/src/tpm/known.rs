//! What was learnt of a chip over one connection; it is forgotten with it.

use tss_esapi::handles::KeyHandle;
use tss_esapi::structures::Public;
use tss_esapi::utils::TpmsContext;

use super::endorsement_kind::EndorsementKind;
use super::primary::Primary;

/// The keys and certificates that need not be asked for again.
#[derive(Default)]
pub struct Known {
    /// Of its primary keys.
    pub primaries: Primaries,
    /// Its endorsement key certificates, as far as they were read.
    pub certificates: CertificatesRead,
}

/// What is known of the chip's primary keys.
#[derive(Default)]
pub struct Primaries {
    /// All persistent handles of the chip.
    pub handles: Option<Vec<u32>>,
    /// What was looked for at its persistent handle.
    pub persistent: Vec<(Primary, Option<Persistent>)>,
    /// Primary keys that are not persistent, with what loads them again.
    pub made: Vec<(Primary, Made)>,
    /// Persistent handles that keys were taken from, for whoever wants to know.
    pub used: Vec<u32>,
}

/// A key at its persistent handle whose public part is the template's.
#[derive(Clone)]
pub struct Persistent {
    pub handle: KeyHandle,
    pub public: Public,
    pub name: Vec<u8>,
}

/// A key that was made, outside the chip again.
pub struct Made {
    pub context: TpmsContext,
    pub public: Public,
    pub name: Vec<u8>,
}

/// What a connection has read; a maker's service that writes a certificate later is noticed by the next one.
#[derive(Default)]
pub struct CertificatesRead {
    /// All NV indices from the first of certificates on.
    pub indices: Option<Vec<u32>>,
    /// What stood at the index of each kind.
    pub endorsement: Vec<(EndorsementKind, Option<Vec<u8>>)>,
}
