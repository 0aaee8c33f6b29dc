//! Serial numbers of certificates.

/// A certificate's serial number: 1 to 2^128 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(u128);

impl Serial {
    /// 128 random bits.
    ///
    /// # Panics
    /// If the kernel has no random numbers, which does not happen.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).expect("the kernel's random numbers do not fail");
        //= X509-20 RFC 5280 4.1.2.2: "The serial number MUST be a positive integer"
        //= FLT-S8 server faults: "128 random bits do not repeat"
        Self::from(u128::from_be_bytes(bytes))
    }

    /// In decimal, as SPIRE stores and prints it.
    pub fn decimal(self) -> String {
        self.0.to_string()
    }

    pub(super) fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl From<Serial> for u128 {
    fn from(serial: Serial) -> Self {
        serial.0
    }
}

impl From<u128> for Serial {
    /// Zero is no serial number: one stands for it.
    fn from(number: u128) -> Self {
        Self(number.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    //= X509-20 FLT-S8
    #[test]
    fn serial_numbers_are_never_zero_and_never_repeat() {
        let serials: std::collections::HashSet<String> = (0..10_000).map(|_| Serial::random().decimal()).collect();
        assert_eq!(serials.len(), 10_000);
        assert!(!serials.contains("0"));
        assert_eq!(Serial::from(0).decimal(), "1");
    }
}
