//! A refusal's message as the wire has it: gRPC percent-encodes what is not printable ASCII, and a space is; tonic encodes it too, and
//! programs that print a message as they get it (Envoy) then print `%20`.

use http_body::Frame;
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};

const NAME: &str = "grpc-message";
/// A space. A per cent sign that is meant is `%25`, so these three are never anything else.
const SPACE: &[u8] = b"%20";

/// `response` with spaces in the message of its status, be that in headers or in trailers.
///
/// Source: gRPC over HTTP2, "Percent-Encoded": 0x20 to 0x24 and 0x26 to 0x7E stand for themselves.
pub fn with_spaces(mut response: Response<Body>) -> Response<Body> {
    let is_refusal = response.headers().contains_key("grpc-status");
    space_out(response.headers_mut());
    match is_refusal {
        true => response,
        false => response.map(|body| Body::new(body.map_frame(of_trailers))),
    }
}

fn of_trailers<D>(frame: Frame<D>) -> Frame<D> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            space_out(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

fn space_out(headers: &mut HeaderMap) {
    let spaced = headers.get(NAME).and_then(|message| HeaderValue::from_bytes(&spaced(message.as_bytes())).ok());
    if let Some(spaced) = spaced {
        headers.insert(NAME, spaced);
    }
}

/// Not at either end: HTTP/2 refuses a field whose value begins or ends with a space (RFC 9113, 8.2.1).
fn spaced(encoded: &[u8]) -> Vec<u8> {
    let (mut spaced, mut rest) = (Vec::with_capacity(encoded.len()), encoded);
    while let Some((first, others)) = rest.split_first() {
        match rest.strip_prefix(SPACE) {
            Some(others) if !spaced.is_empty() && has_more(others) => {
                spaced.push(b' ');
                rest = others;
            }
            _ => {
                spaced.push(*first);
                rest = others;
            }
        }
    }
    spaced
}

/// Whether anything but spaces follows.
fn has_more(mut encoded: &[u8]) -> bool {
    while let Some(others) = encoded.strip_prefix(SPACE) {
        encoded = others;
    }
    !encoded.is_empty()
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn spaces_stand_for_themselves_and_all_else_is_as_it_was() {
        for (text, wire) in [
            ("no identity issued", "no identity issued"),
            ("100% of \"it\"", "100%25 of %22it%22"),
            ("a literal %20", "a literal %2520"),
            (" at the ends  ", "%20at the ends%20%20"),
            ("   ", "%20%20%20"),
            ("zwei Sätze\n", "zwei S%C3%A4tze%0A"),
            ("", ""),
        ] {
            let response = with_spaces(Status::permission_denied(text).into_http());
            let message = response.headers().get(NAME).map(|value| value.to_str().expect("ASCII"));
            assert_eq!(message.unwrap_or_default(), wire);
            let read = Status::from_header_map(response.headers()).expect("a status");
            assert_eq!(read.message(), text, "whoever decodes it reads the same");
        }
    }

    #[tokio::test]
    async fn trailers_are_headers_in_this() {
        let mut trailers = HeaderMap::new();
        Status::internal("of a stream").add_header(&mut trailers).expect("legal");
        let body = http_body_util::Empty::<prost::bytes::Bytes>::new().with_trailers(async { Some(Ok(trailers)) });
        let answer = with_spaces(Response::new(Body::new(body.map_err(|never| match never {}))));
        let collected = answer.into_body().collect().await.expect("no error");
        assert_eq!(collected.trailers().and_then(|trailers| trailers.get(NAME)).expect("one"), "of a stream");
    }
}
