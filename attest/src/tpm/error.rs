//! Why a TPM did not do what was asked, by what a caller can do about it.

use std::fmt;

use nix::errno::Errno;
use thiserror::Error;
use tss_esapi::{Error as EsapiError, WrapperErrorKind};

use super::address::TpmAddress;
use super::hierarchy::KeyHierarchy;
use super::response_code::{self as rc, Layer, ResponseCode};
use crate::node::tpm2::PcrHash;
use crate::pcr_policy::PolicyDigest;

/// What the device said, in its own words: the command and the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The TPM command, such as `TPM2_Unseal`.
    pub command: &'static str,
    /// What came back.
    cause: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Code(ResponseCode),
    Wrapper(WrapperErrorKind),
}

impl Failure {
    /// The TSS2_RC, unless the failure is the library wrapper's own.
    pub fn code(&self) -> Option<ResponseCode> {
        match self.cause {
            Cause::Code(code) => Some(code),
            Cause::Wrapper(_) => None,
        }
    }

    /// The TPM_RC without handle, session and parameter numbers; 0 if no TPM said it.
    pub(super) fn tpm_code(&self) -> u16 {
        self.code().map_or(0, ResponseCode::tpm)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Code(code) => write!(f, "{}: {code}", self.command),
            Cause::Wrapper(kind) => write!(f, "{}: {kind}", self.command),
        }
    }
}

/// Why a TPM did not do what was asked.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum TpmError {
    /// Nothing answers there; the message says what to look at.
    #[error("no TPM answers at {address}{}: {failure}", remedy(source.as_ref()))]
    Absent {
        /// The device or socket that was tried.
        address: TpmAddress,
        failure: Failure,
        /// What the operating system says about the device, if that is the reason.
        source: Option<std::io::Error>,
    },
    /// The connection broke during a command. The next job connects again.
    #[error("the connection to the TPM broke: {0}")]
    Transport(Failure),
    /// A software TPM did not answer, or cut its answer short: its connection was closed. The next job connects again.
    #[error("the TPM did not answer {command} within {seconds} s")]
    Hung {
        command: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Still busy, testing itself or sparing its flash, after all patience. Try later.
    #[error("the TPM is busy: {0}")]
    Busy(Failure),
    /// Dictionary attack lockout. Trying again makes it worse: wait for its recovery time or reset it with the lockout
    /// authorization.
    #[error("the TPM is locked out after failed authorizations: {0}")]
    LockedOut(Failure),
    /// No TPM2_Startup since a reset: somebody reset the chip under a running system. A security event.
    #[error("the TPM was reset and not started: {0}")]
    NotStarted(Failure),
    /// Failure mode. Only a power cycle helps.
    #[error("the TPM has failed and needs a power cycle: {0}")]
    FailureMode(Failure),
    /// The PCRs are not those that the secret was sealed to.
    #[error("a PCR is not what the secret was sealed to: {0}")]
    WrongPolicy(Failure),
    /// As [`WrongPolicy`](TpmError::WrongPolicy), seen before the TPM was asked: nothing signed is about this state.
    #[error("a PCR is not what the secret was sealed to, and the state of now is not one that a signed policy opens")]
    UnsignedState {
        /// The policy of the registers of now.
        present: PolicyDigest,
    },
    /// The TPM cannot verify with the operator's key: it has not the algorithm, or not at that length.
    #[error("the TPM does not take the key that boot policies are signed with")]
    PolicyKey(#[source] Box<TpmError>),
    /// The chip does not take the authorization that its own key asks for: a policy was not reset, or the chip has a mistake.
    #[error("the TPM does not accept how its own key is authorized: {0}")]
    PolicyRefused(Failure),
    /// The blob is for another TPM, was damaged, or the TPM was cleared since.
    #[error("the key was not made by this TPM, or the TPM was cleared since: {0}")]
    ForeignKey(Failure),
    /// As [`ForeignKey`](TpmError::ForeignKey), seen before the TPM was asked: the parent has another name.
    #[error("the key belongs under another parent key than this TPM has: another TPM, or cleared since")]
    ForeignParent,
    /// A key or an NV index has a password that we were not given.
    #[error("the TPM refuses our authorization: {0}")]
    Unauthorized(Failure),
    /// A hierarchy has another password than we were given.
    #[error(
        "the TPM's {hierarchy} hierarchy has another password than the one configured \
         (give it as {hierarchy}_hierarchy_password_file of NodeAttestor \"tpm2\"): {failure}"
    )]
    Password { hierarchy: KeyHierarchy, failure: Failure },
    /// A hierarchy is switched off until the next TPM reset, by firmware or by its owner.
    #[error("the TPM's {hierarchy} hierarchy is switched off, perhaps by firmware settings: {failure}")]
    HierarchyOff { hierarchy: KeyHierarchy, failure: Failure },
    /// A response was not made by the chip that the session was opened with: something sits on the bus.
    #[error("an answer of the TPM is forged: {0}")]
    Forged(Failure),
    /// The TPM cannot do this at all.
    #[error("the TPM does not support this: {0}")]
    Unsupported(Failure),
    /// No PCR bank that we may use is active, or not these PCRs in it.
    #[error(
        "the TPM's {bank} bank does not have the PCRs {wanted} (active banks: {active}): \
         activate it in the firmware's settings, or choose another bank with pcr_banks on the server"
    )]
    PcrBank {
        bank: PcrHash,
        wanted: String,
        /// Names of the active banks.
        active: String,
    },
    /// The PCRs changed faster than they could be read.
    #[error("the PCRs keep changing")]
    RestlessPcrs,
    /// No free slot although nothing of ours is loaded: another user of a TPM without resource manager.
    #[error("the TPM is full, something else keeps objects or sessions loaded: {0}")]
    Full(Failure),
    /// Any other refusal.
    #[error("the TPM refused: {0}")]
    Refused(Failure),
    /// An argument that no TPM can take.
    #[error("{0}")]
    Argument(&'static str),
    /// An answer that makes no sense.
    #[error("the answer to {command} is malformed: {reason}")]
    Malformed {
        command: &'static str,
        /// Which part of the answer breaks which rule.
        reason: &'static str,
    },
    /// The queue in front of the TPM is full.
    #[error("{waiting} jobs wait for the TPM already, {what} is not queued")]
    Overloaded { what: &'static str, waiting: usize },
    /// The TPM hangs, or what was queued before takes that long.
    #[error("no answer to {what} within {seconds} s")]
    NoAnswer { what: &'static str, seconds: u64 },
    /// The job was dropped: it panicked.
    #[error("{what} ended without an answer")]
    Stopped { what: &'static str },
    /// The operating system gives no thread.
    #[error("cannot start the TPM's thread")]
    Thread(#[source] std::io::Error),
}

/// What to do about a device that the operating system does not open for us. Source: open(2), Linux's tpm-dev.c and tpmrm-dev.c.
fn remedy(error: Option<&std::io::Error>) -> &'static str {
    match error.and_then(std::io::Error::raw_os_error).map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => {
            " (no such device: is there a TPM 2.0, is it switched on in the firmware's settings, has the kernel its driver?)"
        }
        Some(Errno::EACCES) => " (not for this user: it must belong to the group of the device, tss)",
        Some(Errno::EPERM) => " (the service may not use this device: DeviceAllow= in its unit)",
        Some(Errno::EBUSY) => " (another process has it alone: use /dev/tpmrm0, which is shared)",
        _ => "",
    }
}

impl TpmError {
    /// Sorts what the library returned for `command`.
    pub(super) fn of(command: &'static str, error: EsapiError) -> Self {
        let code = match (ResponseCode::of(error), error) {
            (Some(code), _) => code,
            (None, EsapiError::WrapperError(kind)) => {
                return TpmError::Refused(Failure { command, cause: Cause::Wrapper(kind) });
            }
            // "Success" as an error does not occur; it would be the wrapper's mistake.
            (None, EsapiError::Tss2Error(_)) => ResponseCode(0),
        };
        Self::sort(Failure { command, cause: Cause::Code(code) }, code)
    }

    fn sort(failure: Failure, code: ResponseCode) -> Self {
        if code.is_forged_response() {
            return TpmError::Forged(failure);
        }
        if code.layer() != Layer::Tpm {
            return TpmError::Transport(failure);
        }
        match code.tpm() {
            rc::RETRY | rc::YIELDED | rc::CANCELED | rc::TESTING | rc::NV_RATE | rc::NV_UNAVAILABLE => {
                TpmError::Busy(failure)
            }
            rc::LOCKOUT => TpmError::LockedOut(failure),
            rc::INITIALIZE => TpmError::NotStarted(failure),
            rc::FAILURE | rc::REBOOT => TpmError::FailureMode(failure),
            // Only an Unseal has PCRs in its policy.
            rc::POLICY_FAIL | rc::POLICY | rc::PCR | rc::PCR_CHANGED if failure.command == "TPM2_Unseal" => {
                TpmError::WrongPolicy(failure)
            }
            rc::POLICY_FAIL | rc::POLICY => TpmError::PolicyRefused(failure),
            rc::INTEGRITY => TpmError::ForeignKey(failure),
            rc::BAD_AUTH | rc::AUTH_FAIL | rc::AUTH_MISSING | rc::AUTH_UNAVAILABLE => TpmError::Unauthorized(failure),
            rc::COMMAND_CODE | rc::HASH | rc::CURVE | rc::SYMMETRIC => TpmError::Unsupported(failure),
            rc::OBJECT_MEMORY | rc::SESSION_MEMORY | rc::MEMORY | rc::SESSION_HANDLES => TpmError::Full(failure),
            _ => TpmError::Refused(failure),
        }
    }

    /// What the device said, where it said something.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            TpmError::Absent { failure, .. }
            | TpmError::Transport(failure)
            | TpmError::Busy(failure)
            | TpmError::LockedOut(failure)
            | TpmError::NotStarted(failure)
            | TpmError::FailureMode(failure)
            | TpmError::WrongPolicy(failure)
            | TpmError::ForeignKey(failure)
            | TpmError::PolicyRefused(failure)
            | TpmError::Unauthorized(failure)
            | TpmError::Password { failure, .. }
            | TpmError::HierarchyOff { failure, .. }
            | TpmError::Forged(failure)
            | TpmError::Unsupported(failure)
            | TpmError::Full(failure)
            | TpmError::Refused(failure) => Some(failure),
            TpmError::PolicyKey(error) => error.failure(),
            TpmError::ForeignParent
            | TpmError::UnsignedState { .. }
            | TpmError::Hung { .. }
            | TpmError::PcrBank { .. }
            | TpmError::RestlessPcrs
            | TpmError::Argument(_)
            | TpmError::Malformed { .. }
            | TpmError::Overloaded { .. }
            | TpmError::NoAnswer { .. }
            | TpmError::Stopped { .. }
            | TpmError::Thread(_) => None,
        }
    }

    /// Whether it says nothing about the command, but that the connection is of no use any more: ESYS answers BAD_SEQUENCE for
    /// ever after a broken transport, and a reset chip has forgotten what the context thinks is loaded.
    pub(super) fn is_about_the_connection(&self) -> bool {
        matches!(
            self,
            TpmError::Transport(_)
                | TpmError::Hung { .. }
                | TpmError::NotStarted(_)
                | TpmError::Forged(_)
                | TpmError::FailureMode(_)
        )
    }

    /// This error of a command that `hierarchy` authorised.
    pub(super) fn of_hierarchy(self, hierarchy: KeyHierarchy) -> Self {
        match self {
            TpmError::Unauthorized(failure) => TpmError::Password { hierarchy, failure },
            TpmError::Refused(failure) if failure.tpm_code() == rc::HIERARCHY => {
                TpmError::HierarchyOff { hierarchy, failure }
            }
            other => other,
        }
    }

    /// Whether the TPM said `code` (handle, session and parameter numbers aside).
    pub(super) fn is(&self, code: u16) -> bool {
        self.failure().is_some_and(|f| f.tpm_code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tss_esapi::constants::response_code::Tss2ResponseCode;

    fn of(code: u32) -> TpmError {
        TpmError::of("TPM2_Unseal", EsapiError::Tss2Error(Tss2ResponseCode::from(code)))
    }

    #[test]
    fn sorts_by_what_a_caller_can_do() {
        assert!(matches!(of(0x922), TpmError::Busy(_)));
        assert!(matches!(of(0x909), TpmError::Busy(_)));
        assert!(matches!(of(0x921), TpmError::LockedOut(_)));
        assert!(matches!(of(0x100), TpmError::NotStarted(_)));
        assert!(matches!(of(0x101), TpmError::FailureMode(_)));
        assert!(matches!(of(0x99d), TpmError::WrongPolicy(_)));
        assert!(matches!(of(0x128), TpmError::WrongPolicy(_)));
        assert!(matches!(of(0x1df), TpmError::ForeignKey(_)));
        assert!(matches!(of(0x9a2), TpmError::Unauthorized(_)));
        assert!(matches!(of(0xb_0143), TpmError::Unsupported(_)));
        assert!(matches!(of(0x902), TpmError::Full(_)));
        assert!(matches!(of(0xa_000a), TpmError::Transport(_)));
        assert!(matches!(of(0x7_0007), TpmError::Transport(_)));
        assert!(matches!(of(0x7_001b), TpmError::Forged(_)));
        assert!(matches!(of(0x2c2), TpmError::Refused(_)));
    }

    #[test]
    fn a_refused_policy_is_about_pcrs_only_where_a_secret_is_unsealed() {
        let error = TpmError::of("TPM2_ActivateCredential", EsapiError::Tss2Error(Tss2ResponseCode::from(0x99d)));
        assert!(matches!(error, TpmError::PolicyRefused(_)));
        assert!(!error.to_string().contains("PCR"), "{error}");
    }

    #[test]
    fn a_refused_password_names_its_hierarchy() {
        for (hierarchy, key) in [(KeyHierarchy::Owner, "owner_"), (KeyHierarchy::Endorsement, "endorsement_")] {
            let password = of(0x9a2).of_hierarchy(hierarchy);
            assert!(password.to_string().contains(&format!("{key}hierarchy_password_file")), "{password}");
            let off = of(0x185).of_hierarchy(hierarchy);
            assert!(off.to_string().contains("switched off"), "{off}");
        }
        assert!(matches!(of(0x922).of_hierarchy(KeyHierarchy::Owner), TpmError::Busy(_)));
    }

    #[test]
    fn a_device_that_cannot_be_opened_is_told_with_what_to_do() {
        for (code, remedy) in [(Errno::ENOENT, "switched on"), (Errno::EACCES, "tss"), (Errno::EPERM, "DeviceAllow=")] {
            let TpmError::Transport(failure) = of(0xa_000a) else { panic!("an error of the transport") };
            let source = Some(std::io::Error::from_raw_os_error(code as i32));
            let absent = TpmError::Absent { address: TpmAddress::Device("/dev/tpmrm0".into()), failure, source };
            assert!(absent.to_string().contains(remedy), "{absent}");
        }
    }

    #[test]
    fn keeps_the_devices_words() {
        assert_eq!(
            of(0x99d).to_string(),
            "a PCR is not what the secret was sealed to: TPM2_Unseal: TPM_RC_POLICY_FAIL (0x99d)"
        );
    }
}
