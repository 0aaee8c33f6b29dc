//! Asking web servers: where they are, whom to believe, and one bounded question.

mod endpoint_url;
mod question;
mod trust;

pub use endpoint_url::{EndpointUrl, MAX_URL_BYTES, OtherUrlError, UrlError};
pub use question::{WebAnswer, WebQuestion, WebQuestionError};
pub use trust::{ALPN, authorities, client_config, client_config_with};
