//! Where a span stands: its trace, itself, and whether its trace is sent. Source: W3C, "Trace Context", §3.2.

use std::fmt;

use ironroot_api::tls::provider;
use tracing::Dispatch;
use tracing::dispatcher::get_default;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::LookupSpan;

use super::layer::Open;

/// The header that tells whoever is called of the caller's span.
pub const TRACEPARENT: &str = "traceparent";

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub trace: [u8; 16],
    pub span: [u8; 8],
    pub is_sampled: bool,
}

impl Place {
    /// The first of a trace, of which one in `one_in` is sent.
    pub fn new_trace(one_in: u64) -> Self {
        let trace: [u8; 16] = random();
        let lot = u64::from_be_bytes(trace[8..].try_into().expect("eight bytes"));
        Self { trace, span: random(), is_sampled: lot.is_multiple_of(one_in) }
    }

    /// Another below this one.
    pub fn below(self) -> Self {
        Self { span: random(), ..self }
    }

    /// What a header of that name says; none if it says nothing legal.
    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_first_version = version == "00" && parts.next().is_none();
        let (trace, span, [flags]) = (bytes(trace)?, bytes(span)?, bytes::<1>(flags)?);
        let is_legal = is_first_version && trace != [0; 16] && span != [0; 8];
        is_legal.then_some(Self { trace, span, is_sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.is_sampled))
    }
}

/// The header's value for whoever is called from within the current span; none outside of any.
pub fn traceparent() -> Option<String> {
    get_default(|dispatch| current(dispatch).map(|place| place.to_string()))
}

fn current(dispatch: &Dispatch) -> Option<Place> {
    let registry = dispatch.downcast_ref::<Registry>()?;
    let span = registry.span(dispatch.current_span().id()?)?;
    span.scope().find_map(|span| span.extensions().get::<Open>().map(Open::place))
}

/// Lowercase hexadecimal of exactly that many bytes.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut found = [0; N];
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in found.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(found)
}

/// Zero if the provider has no randomness: a trace that is then mixed up with others harms nobody.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let filled = provider().secure_random.fill(&mut bytes);
    if filled.is_ok() { bytes } else { [0; N] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_is_read_and_written_as_the_recommendation_shows_it() {
        let place = Place::parse(HEADER).expect("W3C's own example");
        assert_eq!((place.to_string().as_str(), place.is_sampled), (HEADER, true));
        assert!(!Place::parse(&HEADER.replace("-01", "-00")).expect("legal").is_sampled);
    }

    #[test]
    fn what_is_no_header_of_version_0_counts_for_nothing() {
        let (none, long) = (HEADER.replace("00f067aa0ba902b7", "0000000000000000"), HEADER.to_owned() + "-00");
        for wrong in ["", "00", &HEADER.to_uppercase(), &none, &long, &HEADER[1..], &HEADER.replace("00-4", "ff-4")] {
            assert_eq!(Place::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn one_in_so_many_traces_is_sent_and_all_that_is_below_it() {
        let sampled = (0..4000).filter(|_| Place::new_trace(4).is_sampled).count();
        assert!((800..1200).contains(&sampled), "{sampled} of 4000");
        let first = Place::new_trace(1);
        let below = first.below();
        assert!(first.is_sampled && below.is_sampled && below.trace == first.trace && below.span != first.span);
    }
}
