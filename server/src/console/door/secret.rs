//! Something that only one browser knows.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand;
use ironroot_text::hex::hex;
use zeroize::Zeroizing;

/// Bytes of a secret: nobody guesses 256 bits.
const BYTES: usize = 32;

/// Random hexadecimal digits, compared in a time that says nothing about them.
#[derive(Clone)]
pub(super) struct Secret(Zeroizing<String>);

impl Secret {
    pub fn random() -> Self {
        let mut bytes = Zeroizing::new([0; BYTES]);
        rand::fill(&mut *bytes).expect("the kernel's random numbers do not fail");
        Self(Zeroizing::new(hex(&*bytes)))
    }

    /// For whom it is made.
    pub fn shown(&self) -> String {
        self.0.to_string()
    }

    pub fn is(&self, told: &str) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), told.as_bytes()).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_itself_alone_and_is_shown_to_nobody_by_accident() {
        let (one, other) = (Secret::random(), Secret::random());
        assert!(one.is(&one.shown()) && !one.is(&other.shown()) && !one.is("") && !one.is(&one.shown()[1..]));
        assert_eq!(format!("{one:?}"), "Secret(..)");
    }
}
