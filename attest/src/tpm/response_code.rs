//! TSS2_RC: which layer failed, and how. Names from TCG TPM 2.0 Library Part 2 §6.6 and the TSS 2.0 overview §5.

use std::fmt;

use tss_esapi::Error;
use tss_esapi::constants::response_code::Tss2ResponseCode;

/// A TSS2_RC as the TSS library returns it: a layer in bits 16 to 23, that layer's code in the lower 16.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResponseCode(pub(super) u32);

// Each is named as in Part 2 §6.6, without TPM_RC_.
/// TPM_RC_INITIALIZE: no TPM2_Startup since the last reset.
pub const INITIALIZE: u16 = 0x100;
pub const FAILURE: u16 = 0x101;
pub const POLICY: u16 = 0x126;
pub const PCR: u16 = 0x127;
pub const PCR_CHANGED: u16 = 0x128;
pub const AUTH_MISSING: u16 = 0x125;
pub const AUTH_UNAVAILABLE: u16 = 0x12f;
pub const REBOOT: u16 = 0x130;
pub const COMMAND_CODE: u16 = 0x143;
pub const NV_UNINITIALIZED: u16 = 0x14a;
pub const NEEDS_TEST: u16 = 0x153;
pub const HASH: u16 = 0x083;
pub const HIERARCHY: u16 = 0x085;
pub const HANDLE: u16 = 0x08b;
pub const CURVE: u16 = 0x0a6;
pub const AUTH_FAIL: u16 = 0x08e;
pub const SYMMETRIC: u16 = 0x096;
pub const POLICY_FAIL: u16 = 0x09d;
pub const INTEGRITY: u16 = 0x09f;
pub const BAD_AUTH: u16 = 0x0a2;
pub const CONTEXT_GAP: u16 = 0x901;
pub const OBJECT_MEMORY: u16 = 0x902;
pub const SESSION_MEMORY: u16 = 0x903;
pub const MEMORY: u16 = 0x904;
pub const SESSION_HANDLES: u16 = 0x905;
pub const YIELDED: u16 = 0x908;
pub const CANCELED: u16 = 0x909;
pub const TESTING: u16 = 0x90a;
/// TPM_RC_REFERENCE_H0, first of the range up to [`REFERENCE_S6`].
pub const REFERENCE_H0: u16 = 0x910;
pub const REFERENCE_S6: u16 = 0x91e;
pub const NV_RATE: u16 = 0x920;
pub const LOCKOUT: u16 = 0x921;
pub const RETRY: u16 = 0x922;
pub const NV_UNAVAILABLE: u16 = 0x923;

/// TSS2_BASE_RC_RSP_AUTH_FAILED: the HMAC of a response does not verify.
const BASE_RSP_AUTH_FAILED: u16 = 27;

/// Who returned the code. Source: TSS 2.0 overview §5.2.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The TPM, or the kernel's resource manager in its words.
    Tpm,
    /// The TSS library above the transport.
    Tss,
    /// Between library and chip: the device file or socket.
    Tcti,
}

impl ResponseCode {
    /// The code inside an error of the wrapper; none for the wrapper's own errors.
    ///
    /// The wrapper keeps the number to itself and prints it ("Response code value: 0x922"), so it is read from there.
    pub(super) fn of(error: Error) -> Option<Self> {
        let text = match error {
            Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.to_string(),
            Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.to_string(),
            Error::Tss2Error(Tss2ResponseCode::Success) | Error::WrapperError(_) => return None,
        };
        let (_, hex) = text.rsplit_once("0x")?;
        u32::from_str_radix(hex, 16).ok().map(Self)
    }

    pub(super) fn layer(self) -> Layer {
        match self.0 >> 16 & 0xff {
            // 11 is the kernel's resource manager, which answers for the TPM (unknown commands).
            0 | 11 => Layer::Tpm,
            10 => Layer::Tcti,
            _ => Layer::Tss,
        }
    }

    /// The TPM_RC without the number of the handle, session or parameter that it is about; 0 if no TPM said it.
    pub(super) fn tpm(self) -> u16 {
        let code = (self.0 & 0xffff) as u16;
        match self.layer() {
            Layer::Tpm if code & 0x80 != 0 => code & 0x0bf,
            Layer::Tpm => code & 0xfff,
            Layer::Tss | Layer::Tcti => 0,
        }
    }

    /// Whether the library found that a response was not made by whom the session was opened with.
    pub(super) fn is_forged_response(self) -> bool {
        self.layer() == Layer::Tss && self.0 as u16 == BASE_RSP_AUTH_FAILED
    }

    fn name(self) -> Option<&'static str> {
        let (table, code): (&[_], _) = match self.layer() {
            Layer::Tpm => (TPM_NAMES, self.tpm()),
            Layer::Tss | Layer::Tcti => (BASE_NAMES, self.0 as u16),
        };
        table.iter().find(|(number, _)| *number == code).map(|(_, name)| *name)
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (prefix, fallback) = match self.layer() {
            Layer::Tpm => ("TPM_RC_", "TPM_RC"),
            Layer::Tss => ("TSS2_RC_", "TSS2_RC"),
            Layer::Tcti => ("TSS2_TCTI_RC_", "TSS2_TCTI_RC"),
        };
        match self.name() {
            Some(name) => write!(f, "{prefix}{name} ({:#x})", self.0),
            None => write!(f, "{fallback} {:#x}", self.0),
        }
    }
}

impl fmt::Debug for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// TPM 2.0 Part 2 §6.6.3, table 16.
const TPM_NAMES: &[(u16, &str)] = &[
    (INITIALIZE, "INITIALIZE"),
    (FAILURE, "FAILURE"),
    (0x103, "SEQUENCE"),
    (0x10b, "PRIVATE"),
    (0x119, "HMAC"),
    (0x120, "DISABLED"),
    (0x121, "EXCLUSIVE"),
    (0x124, "AUTH_TYPE"),
    (AUTH_MISSING, "AUTH_MISSING"),
    (POLICY, "POLICY"),
    (PCR, "PCR"),
    (PCR_CHANGED, "PCR_CHANGED"),
    (0x12d, "UPGRADE"),
    (0x12e, "TOO_MANY_CONTEXTS"),
    (AUTH_UNAVAILABLE, "AUTH_UNAVAILABLE"),
    (REBOOT, "REBOOT"),
    (0x131, "UNBALANCED"),
    (0x142, "COMMAND_SIZE"),
    (COMMAND_CODE, "COMMAND_CODE"),
    (0x144, "AUTHSIZE"),
    (0x145, "AUTH_CONTEXT"),
    (0x146, "NV_RANGE"),
    (0x147, "NV_SIZE"),
    (0x148, "NV_LOCKED"),
    (0x149, "NV_AUTHORIZATION"),
    (NV_UNINITIALIZED, "NV_UNINITIALIZED"),
    (0x14b, "NV_SPACE"),
    (0x14c, "NV_DEFINED"),
    (0x150, "BAD_CONTEXT"),
    (0x151, "CPHASH"),
    (0x152, "PARENT"),
    (NEEDS_TEST, "NEEDS_TEST"),
    (0x154, "NO_RESULT"),
    (0x155, "SENSITIVE"),
    (0x081, "ASYMMETRIC"),
    (0x082, "ATTRIBUTES"),
    (HASH, "HASH"),
    (0x084, "VALUE"),
    (HIERARCHY, "HIERARCHY"),
    (0x087, "KEY_SIZE"),
    (0x088, "MGF"),
    (0x089, "MODE"),
    (0x08a, "TYPE"),
    (HANDLE, "HANDLE"),
    (0x08c, "KDF"),
    (0x08d, "RANGE"),
    (AUTH_FAIL, "AUTH_FAIL"),
    (0x08f, "NONCE"),
    (0x090, "PP"),
    (0x092, "SCHEME"),
    (0x095, "SIZE"),
    (SYMMETRIC, "SYMMETRIC"),
    (0x097, "TAG"),
    (0x098, "SELECTOR"),
    (0x09a, "INSUFFICIENT"),
    (0x09b, "SIGNATURE"),
    (0x09c, "KEY"),
    (POLICY_FAIL, "POLICY_FAIL"),
    (INTEGRITY, "INTEGRITY"),
    (0x0a0, "TICKET"),
    (0x0a1, "RESERVED_BITS"),
    (BAD_AUTH, "BAD_AUTH"),
    (0x0a3, "EXPIRED"),
    (0x0a4, "POLICY_CC"),
    (0x0a5, "BINDING"),
    (CURVE, "CURVE"),
    (0x0a7, "ECC_POINT"),
    (CONTEXT_GAP, "CONTEXT_GAP"),
    (OBJECT_MEMORY, "OBJECT_MEMORY"),
    (SESSION_MEMORY, "SESSION_MEMORY"),
    (MEMORY, "MEMORY"),
    (SESSION_HANDLES, "SESSION_HANDLES"),
    (0x906, "OBJECT_HANDLES"),
    (0x907, "LOCALITY"),
    (YIELDED, "YIELDED"),
    (CANCELED, "CANCELED"),
    (TESTING, "TESTING"),
    (REFERENCE_H0, "REFERENCE_H0"),
    (0x911, "REFERENCE_H1"),
    (0x912, "REFERENCE_H2"),
    (0x918, "REFERENCE_S0"),
    (0x919, "REFERENCE_S1"),
    (0x91a, "REFERENCE_S2"),
    (NV_RATE, "NV_RATE"),
    (LOCKOUT, "LOCKOUT"),
    (RETRY, "RETRY"),
    (NV_UNAVAILABLE, "NV_UNAVAILABLE"),
];

/// TSS2_BASE_RC_*, tss2_common.h.
const BASE_NAMES: &[(u16, &str)] = &[
    (1, "GENERAL_FAILURE"),
    (2, "NOT_IMPLEMENTED"),
    (3, "BAD_CONTEXT"),
    (5, "BAD_REFERENCE"),
    (6, "INSUFFICIENT_BUFFER"),
    (7, "BAD_SEQUENCE"),
    (8, "NO_CONNECTION"),
    (9, "TRY_AGAIN"),
    (10, "IO_ERROR"),
    (11, "BAD_VALUE"),
    (12, "NOT_PERMITTED"),
    (16, "BAD_SIZE"),
    (17, "MALFORMED_RESPONSE"),
    (18, "INSUFFICIENT_CONTEXT"),
    (19, "INSUFFICIENT_RESPONSE"),
    (23, "MEMORY"),
    (24, "BAD_TR"),
    (BASE_RSP_AUTH_FAILED, "RSP_AUTH_FAILED"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u32) -> ResponseCode {
        ResponseCode::of(Error::Tss2Error(Tss2ResponseCode::from(code))).expect("a code")
    }

    #[test]
    fn keeps_the_number_that_the_wrapper_hides() {
        for code in [0x922, 0x99d, 0x18b, 0xa000a, 0x7_0007, 0xb_0143] {
            assert_eq!(of(code), ResponseCode(code));
        }
    }

    #[test]
    fn names_the_code_and_its_layer() {
        for (code, text) in [
            (0x922, "TPM_RC_RETRY (0x922)"),
            (0x99d, "TPM_RC_POLICY_FAIL (0x99d)"),
            (0x128, "TPM_RC_PCR_CHANGED (0x128)"),
            (0x2c2, "TPM_RC_ATTRIBUTES (0x2c2)"),
            (0x18b, "TPM_RC_HANDLE (0x18b)"),
            (0x1df, "TPM_RC_INTEGRITY (0x1df)"),
            (0xb_0143, "TPM_RC_COMMAND_CODE (0xb0143)"),
            (0xa_000a, "TSS2_TCTI_RC_IO_ERROR (0xa000a)"),
            (0x7_0007, "TSS2_RC_BAD_SEQUENCE (0x70007)"),
            (0x7_0fff, "TSS2_RC 0x70fff"),
        ] {
            assert_eq!(of(code).to_string(), text);
        }
    }

    #[test]
    fn a_transport_error_is_never_taken_for_a_tpm_code() {
        assert_eq!(of(0xa_0001).tpm(), 0);
        assert_eq!(of(0x7_0122).tpm(), 0);
    }
}
