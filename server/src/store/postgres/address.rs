//! Which database, as whom, and how its server proves itself: `connection_string`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ironroot_api::tls::KeyExchanges;
use thiserror::Error;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// What a kernel that gets no acknowledgement waits before it gives the connection up.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

/// What the database's administrator sees connected.
const PROGRAM: &str = "ironroot-server";

/// A database of PostgreSQL. What is shown of it holds no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// All but the hosts.
    config: Config,
    /// Each with its port, in the order in which they are tried.
    hosts: Vec<(Host, u16)>,
    /// None where every host is a unix socket.
    proof: Option<ServerProof>,
}

/// What shows that a database server is the one that is meant, and who we are if a certificate says that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerProof {
    pub roots: Roots,
    /// The files of our certificate and of its key.
    pub client: Option<(PathBuf, PathBuf)>,
    pub exchanges: KeyExchanges,
}

/// Whose word counts for a database server's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Roots {
    /// The authorities of this file, PEM.
    File(PathBuf),
    /// Those that this machine knows.
    System,
}

/// Why a connection string is not taken. No message holds any of its values but those of `ssl*`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[expect(missing_docs, reason = "the messages name the fields")]
pub enum AddressError {
    #[error("not a connection string: {0}")]
    Malformed(String),
    #[error("no host: give host=NAME, or host=/DIRECTORY of a unix socket")]
    NoHost,
    #[error("no user: give user=NAME")]
    NoUser,
    #[error(
        "sslmode={0} lets anybody between here and the database read and change what is sent: use sslmode=verify-full and sslrootcert"
    )]
    Unproven(String),
    #[error(
        "over TCP the database server has to prove itself: give sslmode=verify-full and sslrootcert=FILE (or sslrootcert=system)"
    )]
    NoSslMode,
    #[error(
        "sslmode=verify-full needs sslrootcert=FILE: the authorities, in PEM, by which the database server proves its name (or sslrootcert=system)"
    )]
    NoRoots,
    #[error("sslcert and sslkey belong together: give both, or neither")]
    HalfCertificate,
    #[error("a unix socket has no TLS: leave {0} out")]
    TlsOnSocket(&'static str),
    #[error("give as many ports as hosts, or one for all")]
    Ports,
    #[error("hostaddr is not supported: give the name that the server's certificate has as host")]
    HostAddress,
}

/// The keywords that say how TLS is done; the others are read by the database's own client.
#[derive(Debug, Default)]
struct Tls {
    mode: Option<String>,
    roots: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

impl Tls {
    fn place(&mut self, keyword: &str) -> Option<&mut Option<String>> {
        match keyword {
            "sslmode" => Some(&mut self.mode),
            "sslrootcert" => Some(&mut self.roots),
            "sslcert" => Some(&mut self.certificate),
            "sslkey" => Some(&mut self.key),
            _ => None,
        }
    }
}

impl Address {
    /// Reads a connection string as libpq has it (`host=db user=ironroot ...`, or `postgres://user@db/name?...`). `exchanges`: what TLS
    /// may agree keys with.
    ///
    /// Source: PostgreSQL, "Connection Strings".
    pub fn parse(text: &str, exchanges: KeyExchanges) -> Result<Self, AddressError> {
        let (rest, tls) = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            of_url(text)?
        } else {
            of_keywords(text)?
        };
        let config: Config = rest.parse().map_err(|error| AddressError::Malformed(told(&error)))?;
        let hosts = hosts(&config)?;
        let proof = proof(tls, &hosts, exchanges)?;
        if config.get_user().is_none_or(str::is_empty) {
            return Err(AddressError::NoUser);
        }
        Ok(Self { config: without_hosts(&config, hosts.len(), proof.is_some()), hosts, proof })
    }

    /// The same, with a password if it has none.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        if self.config.get_password().is_none() {
            self.config.password(password);
        }
        self
    }

    /// The same, with sessions that the database tells from those of others: see [`super::claim`].
    pub(super) fn with_own_sessions(mut self) -> Self {
        self.config.application_name(format!("{PROGRAM} {:016x}", uuid::Uuid::new_v4().as_u64_pair().0));
        self
    }

    /// Whether the files that it names can be read, and are what they are to be.
    pub fn files_are_good(&self) -> Result<(), String> {
        self.proof().map_or(Ok(()), |proof| super::tls::Tls::of(proof).map(drop).map_err(|error| error.to_string()))
    }

    pub(super) fn proof(&self) -> Option<&ServerProof> {
        self.proof.as_ref()
    }

    /// How each of its hosts is connected to, in turn.
    pub(super) fn each_host(&self) -> impl Iterator<Item = Config> {
        self.hosts.iter().map(|(host, port)| {
            let mut config = self.config.clone();
            match host {
                Host::Tcp(name) => config.host(name),
                Host::Unix(directory) => config.host_path(directory),
            };
            config.port(*port);
            config
        })
    }
}

/// Where it is, for a log line: `host:5432/name`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgreSQL ")?;
        for (at, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(directory) => write!(f, "{comma}{}:{port}", directory.display())?,
            }
        }
        let user = self.config.get_user().unwrap_or_default();
        write!(f, "/{} as {user}", self.config.get_dbname().unwrap_or(user))
    }
}

fn told(error: &tokio_postgres::Error) -> String {
    // Its cause names the keyword.
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}

fn hosts(config: &Config) -> Result<Vec<(Host, u16)>, AddressError> {
    const DEFAULT: u16 = 5432;
    if !config.get_hostaddrs().is_empty() {
        return Err(AddressError::HostAddress);
    }
    let (hosts, ports) = (config.get_hosts(), config.get_ports());
    if hosts.is_empty() {
        return Err(AddressError::NoHost);
    }
    let port_of = |at: usize| match ports {
        [] => Some(DEFAULT),
        [port] => Some(*port),
        ports => ports.get(at).copied().filter(|_| ports.len() == hosts.len()),
    };
    let each = hosts.iter().enumerate().map(|(at, host)| Some((host.clone(), port_of(at)?)));
    each.collect::<Option<_>>().ok_or(AddressError::Ports)
}

fn proof(tls: Tls, hosts: &[(Host, u16)], exchanges: KeyExchanges) -> Result<Option<ServerProof>, AddressError> {
    let Tls { mode, roots, certificate, key } = tls;
    if hosts.iter().all(|(host, _)| matches!(host, Host::Unix(_))) {
        let given = [(roots, "sslrootcert"), (certificate, "sslcert"), (key, "sslkey")];
        let of_tls = given.into_iter().find_map(|(value, keyword)| value.map(|_| keyword));
        let asks = mode.is_some_and(|mode| !["disable", "allow", "prefer"].contains(&mode.as_str()));
        return match of_tls.or(asks.then_some("sslmode")) {
            Some(keyword) => Err(AddressError::TlsOnSocket(keyword)),
            None => Ok(None),
        };
    }
    match mode.as_deref() {
        Some("verify-full") => {}
        Some(mode) => return Err(AddressError::Unproven(mode.to_owned())),
        None => return Err(AddressError::NoSslMode),
    }
    let roots = match roots.ok_or(AddressError::NoRoots)? {
        system if system == "system" => Roots::System,
        file => Roots::File(file.into()),
    };
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => return Err(AddressError::HalfCertificate),
    };
    Ok(Some(ServerProof { roots, client, exchanges }))
}

/// What is the same for every host.
fn without_hosts(given: &Config, hosts: usize, with_tls: bool) -> Config {
    let mut config = Config::new();
    if let Some(user) = given.get_user() {
        config.user(user);
    }
    if let Some(password) = given.get_password() {
        config.password(password);
    }
    if let Some(name) = given.get_dbname() {
        config.dbname(name);
    }
    if let Some(options) = given.get_options() {
        config.options(options);
    }
    config.channel_binding(given.get_channel_binding());
    config.ssl_negotiation(given.get_ssl_negotiation());
    config.ssl_mode(if with_tls { SslMode::Require } else { SslMode::Disable });
    config.application_name(PROGRAM);
    config.tcp_user_timeout(TCP_PATIENCE).keepalives_idle(TCP_PATIENCE).keepalives_interval(TCP_PATIENCE);
    if hosts > 1 {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
    config
}

/// `keyword = value` pairs; a value with blanks stands in single quotes, a backslash takes the next character as it is.
fn of_keywords(text: &str) -> Result<(String, Tls), AddressError> {
    let (mut rest, mut tls) = (String::new(), Tls::default());
    let mut left = text.trim_start();
    while !left.is_empty() {
        let no_equals = || AddressError::Malformed("a keyword without \"=\"".into());
        let (keyword, after) = left.split_once('=').ok_or_else(no_equals)?;
        let (value, after) = value_of(after.trim_start())?;
        match tls.place(keyword.trim()) {
            Some(place) => *place = Some(value),
            None => {
                let quoted = value.replace('\\', "\\\\").replace('\'', "\\'");
                rest.push_str(&format!("{}='{quoted}' ", keyword.trim()));
            }
        }
        left = after.trim_start();
    }
    Ok((rest, tls))
}

/// The value that a text begins with, and what is behind it.
fn value_of(text: &str) -> Result<(String, &str), AddressError> {
    let (is_quoted, text) = text.strip_prefix('\'').map_or((false, text), |inner| (true, inner));
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, &text[at + 1..])),
            blank if !is_quoted && blank.is_whitespace() => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if is_quoted { Err(AddressError::Malformed("a quote is not closed".into())) } else { Ok((value, "")) }
}

fn of_url(text: &str) -> Result<(String, Tls), AddressError> {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let (mut kept, mut tls) = (Vec::new(), Tls::default());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (keyword, value) = pair.split_once('=').unwrap_or((pair, ""));
        match tls.place(keyword) {
            Some(place) => *place = Some(decoded(value)?),
            None => kept.push(pair),
        }
    }
    let mark = if kept.is_empty() { "" } else { "?" };
    Ok((format!("{base}{mark}{}", kept.join("&")), tls))
}

fn decoded(value: &str) -> Result<String, AddressError> {
    let text = percent_encoding::percent_decode_str(value).decode_utf8();
    Ok(text.map_err(|_| AddressError::Malformed("not UTF-8".into()))?.into_owned())
}

#[cfg(test)]
mod tests;
