//! Which unix socket a command talks to.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why it is not clear which socket is meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SocketError {
    /// `-instance` without its template.
    #[error("-instance needs the environment variable {0}, a path with %i in it")]
    Template(&'static str),
    /// An environment variable with something that is no unix socket.
    #[error("{0} is {1:?}: give unix:/path, or an absolute path")]
    Endpoint(&'static str, String),
    /// The working directory is gone.
    #[error("cannot tell what {0:?} is relative to")]
    Relative(PathBuf),
}

/// The ways to name a socket, strongest first.
#[derive(Clone, Debug)]
pub struct SocketChoice<'a> {
    /// `-socketPath`, which is `default` where it was not given.
    pub flag: &'a Path,
    /// `-instance`, put into the template in place of `%i`.
    pub instance: Option<&'a str>,
    /// The environment variable with the template.
    pub template_variable: &'static str,
    /// The environment variable with a path, or `unix:` and a path.
    pub variable: &'static str,
    /// Where the daemon listens unless its configuration says otherwise.
    pub default: &'static str,
}

impl SocketChoice<'_> {
    /// The socket's absolute path; `lookup` reads the environment.
    pub fn resolve(&self, lookup: impl Fn(&str) -> Option<String>) -> Result<PathBuf, SocketError> {
        let flag = Some(self.flag).filter(|flag| flag.as_os_str() != self.default);
        let lookup = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let path = match (flag, self.instance, lookup(self.variable)) {
            (Some(flag), ..) => flag_path(flag)?,
            (None, Some(instance), _) => {
                let template = lookup(self.template_variable).filter(|template| template.contains("%i"));
                template.ok_or(SocketError::Template(self.template_variable))?.replace("%i", instance).into()
            }
            (None, None, Some(environment)) => {
                unix_path(&environment).ok_or(SocketError::Endpoint(self.variable, environment))?
            }
            (None, None, None) => PathBuf::from(self.default),
        };
        std::path::absolute(&path).map_err(|_| SocketError::Relative(path))
    }

    /// The same in this process's environment.
    pub fn resolve_here(&self) -> Result<PathBuf, SocketError> {
        self.resolve(|name| std::env::var(name).ok())
    }
}

/// A path, or as the environment has it; a URI of another kind is no path.
fn flag_path(flag: &Path) -> Result<PathBuf, SocketError> {
    match flag.to_str() {
        Some(text) if text.starts_with("unix:") || text.contains("://") => {
            let path = text.strip_prefix("unix:").and_then(|_| unix_path(text));
            path.ok_or_else(|| SocketError::Endpoint("-socketPath", text.to_owned()))
        }
        _ => Ok(flag.to_owned()),
    }
}

fn unix_path(address: &str) -> Option<PathBuf> {
    let path = match address.strip_prefix("unix:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => address,
    };
    //= WLE-05 SPIFFE Workload Endpoint 4: "the path component MUST be set to the absolute path"
    path.starts_with('/').then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is meant with the flag, the instance and the environment's own choice; "" is an unset or empty variable.
    fn resolved(flag: &str, instance: Option<&str>, environment: &str, template: &str) -> Result<PathBuf, SocketError> {
        let default = "/default.sock";
        let flag = Path::new(if flag.is_empty() { default } else { flag });
        let choice = SocketChoice { flag, instance, template_variable: "TEMPLATE", variable: "SOCKET", default };
        choice.resolve(|name| Some(if name == "SOCKET" { environment } else { template }.to_owned()))
    }

    //= WLE-05
    #[test]
    fn the_flag_wins_then_the_instance_then_the_environment() {
        for (flag, instance, environment, wanted) in [
            ("/flag.sock", Some("a"), "/env.sock", "/flag.sock"),
            ("unix:///flag.sock", None, "/env.sock", "/flag.sock"),
            ("unix:/flag.sock", None, "/env.sock", "/flag.sock"),
            ("", Some("a"), "/env.sock", "/run/a/api.sock"),
            ("", None, "/env.sock", "/env.sock"),
            ("", None, "unix:/env.sock", "/env.sock"),
            ("", None, "unix:///env.sock", "/env.sock"),
            ("", None, "", "/default.sock"),
        ] {
            assert_eq!(resolved(flag, instance, environment, "/run/%i/api.sock"), Ok(PathBuf::from(wanted)));
        }
        assert_eq!(resolved("", Some("a"), "", ""), Err(SocketError::Template("TEMPLATE")));
        for bad in ["tcp://127.0.0.1:1", "unix:relative", "x"] {
            assert_eq!(resolved("", None, bad, ""), Err(SocketError::Endpoint("SOCKET", bad.to_owned())));
        }
        for bad in ["tcp://127.0.0.1:1", "unix:relative", "unix://host/a.sock"] {
            assert_eq!(resolved(bad, None, "", ""), Err(SocketError::Endpoint("-socketPath", bad.to_owned())));
        }
    }

    #[test]
    fn a_relative_flag_starts_at_the_working_directory() {
        let wanted = std::env::current_dir().expect("a directory").join("api.sock");
        assert_eq!(resolved("api.sock", None, "", ""), Ok(wanted));
    }
}
