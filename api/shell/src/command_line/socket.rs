//! Which unix socket a command talks to.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why it is not clear which socket is meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SocketError {
    /// `-instance` without its template.
    #[error("-instance needs the environment variable {0}, a path with %i in it")]
    Template(&'static str),
    /// `SPIFFE_ENDPOINT_SOCKET` with something that is no unix socket.
    #[error("SPIFFE_ENDPOINT_SOCKET is {0:?}: only unix:/path is supported")]
    Endpoint(String),
    /// The working directory is gone.
    #[error("cannot tell what {0:?} is relative to")]
    Relative(PathBuf),
}

/// The ways to name a socket, strongest first.
#[derive(Clone, Debug)]
pub struct SocketChoice<'a> {
    /// `-socketPath`.
    pub flag: Option<&'a Path>,
    /// `-instance`, put into the template in place of `%i`.
    pub instance: Option<&'a str>,
    /// The environment variable with the template.
    pub template_variable: &'static str,
    /// The environment's own choice, already read: a path, or `unix:` and a path.
    pub environment: Option<String>,
    /// Where the daemon listens unless its configuration says otherwise.
    pub default: &'static str,
}

impl SocketChoice<'_> {
    /// The socket's absolute path; `lookup` reads the environment.
    pub fn resolve(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<PathBuf, SocketError> {
        let path = match (self.flag, self.instance, &self.environment) {
            (Some(flag), ..) => flag.to_owned(),
            (None, Some(instance), _) => {
                let template = lookup(self.template_variable).filter(|template| template.contains("%i"));
                template.ok_or(SocketError::Template(self.template_variable))?.replace("%i", instance).into()
            }
            (None, None, Some(environment)) => unix_path(environment)?,
            (None, None, None) => PathBuf::from(self.default),
        };
        std::path::absolute(&path).map_err(|_| SocketError::Relative(path))
    }
}

fn unix_path(address: &str) -> Result<PathBuf, SocketError> {
    let path = match address.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => address,
    };
    //= WLE-05 SPIFFE Workload Endpoint 4: "the path component MUST be set to the absolute path"
    if !path.starts_with('/') {
        return Err(SocketError::Endpoint(address.to_owned()));
    }
    Ok(PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice<'a>(flag: Option<&'a str>, instance: Option<&'a str>, environment: Option<&str>) -> SocketChoice<'a> {
        SocketChoice {
            flag: flag.map(Path::new),
            instance,
            template_variable: "TEMPLATE",
            environment: environment.map(str::to_owned),
            default: "/default.sock",
        }
    }

    //= WLE-05
    #[test]
    fn the_flag_wins_then_the_instance_then_the_environment() {
        let template = |name: &str| (name == "TEMPLATE").then(|| "/run/%i/api.sock".to_owned());
        for (flag, instance, environment, wanted) in [
            (Some("/flag.sock"), Some("a"), Some("/env.sock"), "/flag.sock"),
            (None, Some("a"), Some("/env.sock"), "/run/a/api.sock"),
            (None, None, Some("/env.sock"), "/env.sock"),
            (None, None, Some("unix:/env.sock"), "/env.sock"),
            (None, None, Some("unix:///env.sock"), "/env.sock"),
            (None, None, None, "/default.sock"),
        ] {
            assert_eq!(choice(flag, instance, environment).resolve(template), Ok(PathBuf::from(wanted)));
        }
        assert_eq!(choice(None, Some("a"), None).resolve(|_| None), Err(SocketError::Template("TEMPLATE")));
        for bad in ["tcp://127.0.0.1:1", "unix:relative", "x"] {
            assert_eq!(choice(None, None, Some(bad)).resolve(|_| None), Err(SocketError::Endpoint(bad.to_owned())));
        }
    }

    #[test]
    fn a_relative_flag_starts_at_the_working_directory() {
        let wanted = std::env::current_dir().expect("a directory").join("api.sock");
        assert_eq!(choice(Some("api.sock"), None, None).resolve(|_| None), Ok(wanted));
    }
}
