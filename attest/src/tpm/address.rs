//! Where the TPM is: a character device, or a software TPM over TCP.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use tss_esapi::tcti_ldr::{DeviceConfig, NetworkTPMConfig, TctiNameConf};

/// Why a text is not the address of a TPM.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "not a TPM address: {reason}; write /dev/tpmrm0, device:/dev/tpmrm0, swtpm:host=127.0.0.1,port=2321 or mssim:host=127.0.0.1,port=2321"
)]
pub struct TpmAddressError {
    reason: &'static str,
}

/// Where the TPM is. Parsed here and not by the TSS library: that reads `swtpm:path=/x` as localhost:2321, and a
/// device without path as /dev/tpm0, which has no resource manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TpmAddress {
    /// A character device of the kernel, such as `/dev/tpmrm0`.
    Device(PathBuf),
    /// The data port of swtpm. Its control port is the next one.
    Swtpm {
        /// Its address. Loopback in practice: the protocol is neither encrypted nor authenticated.
        host: IpAddr,
        /// Its TCP data port.
        port: u16,
    },
    /// The command port of a simulator that speaks the protocol of the TPM reference code. Its platform port is the next
    /// one. For trials: who reaches the ports controls the TPM.
    Mssim {
        /// Its address; see [`Swtpm`](TpmAddress::Swtpm).
        host: IpAddr,
        /// Its TCP command port.
        port: u16,
    },
}

impl TpmAddress {
    /// The TCP port of a software TPM.
    pub(super) fn socket(&self) -> Option<SocketAddr> {
        match self {
            TpmAddress::Device(_) => None,
            TpmAddress::Swtpm { host, port } | TpmAddress::Mssim { host, port } => Some((*host, *port).into()),
        }
    }

    /// In the words of the TSS library. Not by its parser of the whole, which compiles regular expressions to read one word: half a
    /// megabyte that stays.
    pub(super) fn tcti(&self) -> tss_esapi::Result<TctiNameConf> {
        let network = |host, port| NetworkTPMConfig::from_str(&format!("host={host},port={port}"));
        Ok(match self {
            TpmAddress::Device(path) => TctiNameConf::Device(DeviceConfig::from_str(&path.to_string_lossy())?),
            TpmAddress::Swtpm { host, port } => TctiNameConf::Swtpm(network(host, port)?),
            TpmAddress::Mssim { host, port } => TctiNameConf::Mssim(network(host, port)?),
        })
    }
}

impl FromStr for TpmAddress {
    type Err = TpmAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |reason| TpmAddressError { reason };
        if let Some(fields) = text.strip_prefix("swtpm:") {
            let (host, port) = host_and_port(fields).map_err(refuse)?;
            return Ok(TpmAddress::Swtpm { host, port });
        }
        if let Some(fields) = text.strip_prefix("mssim:") {
            let (host, port) = host_and_port(fields).map_err(refuse)?;
            return Ok(TpmAddress::Mssim { host, port });
        }
        let path = text.strip_prefix("device:").unwrap_or(text);
        if !Path::new(path).is_absolute() {
            return Err(refuse("a device needs an absolute path"));
        }
        if path.contains(|c: char| c.is_control()) || path.len() > 255 {
            return Err(refuse("the device path is too long or has control characters"));
        }
        Ok(TpmAddress::Device(path.into()))
    }
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TpmAddress::Device(path) => write!(f, "{}", path.display()),
            TpmAddress::Swtpm { host, port } => write!(f, "swtpm:host={host},port={port}"),
            TpmAddress::Mssim { host, port } => write!(f, "mssim:host={host},port={port}"),
        }
    }
}

fn host_and_port(fields: &str) -> Result<(IpAddr, u16), &'static str> {
    let (mut host, mut port) = (None, None);
    for field in fields.split(',') {
        match field.split_once('=') {
            Some(("host", value)) if host.is_none() => {
                host = Some(if value == "localhost" { "127.0.0.1" } else { value }.parse::<IpAddr>());
            }
            Some(("port", value)) if port.is_none() => port = Some(value.parse::<u16>()),
            _ => return Err("a software TPM takes host=IP and port=NUMBER, each once"),
        }
    }
    match (host, port) {
        (Some(Ok(host)), Some(Ok(port))) if port != 0 => Ok((host, port)),
        _ => Err("host must be an IP address and port a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_prints() {
        for text in
            ["/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321", "swtpm:host=::1,port=65535", "mssim:host=::1,port=9"]
        {
            assert_eq!(text.parse::<TpmAddress>().expect("legal").to_string(), text);
        }
        assert_eq!("device:/dev/tpm1".parse(), Ok(TpmAddress::Device("/dev/tpm1".into())));
        assert_eq!(
            "swtpm:port=7,host=localhost".parse(),
            Ok(TpmAddress::Swtpm { host: [127, 0, 0, 1].into(), port: 7 })
        );
    }

    #[test]
    fn the_library_understands_the_same() {
        for text in
            ["device:/dev/tpmrm0", "swtpm:host=127.0.0.1,port=2321", "swtpm:host=::1,port=9", "mssim:host=::1,port=9"]
        {
            let ours = text.parse::<TpmAddress>().expect("legal").tcti().expect("the library's");
            assert_eq!(ours, TctiNameConf::from_str(text).expect("legal"), "{text}");
        }
    }

    #[test]
    fn refuses_what_the_library_would_silently_replace() {
        for text in [
            "swtpm:path=/run/tpm.sock",
            "swtpm:",
            "swtpm",
            "swtpm:port=2321",
            "swtpm:host=127.0.0.1",
            "swtpm:host=127.0.0.1,port=0",
            "swtpm:host=127.0.0.1,port=2321,path=/x",
            "swtpm:host=127.0.0.1,port=2321,port=2322",
            "swtpm:host=tpm.example,port=2321",
            "device",
            "device:",
            "device:tpmrm0",
            "mssim:",
            "mssim:host=127.0.0.1",
            "tabrmd:",
            "",
        ] {
            assert!(text.parse::<TpmAddress>().is_err(), "{text}");
        }
    }
}
