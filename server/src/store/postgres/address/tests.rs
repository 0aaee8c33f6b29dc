//! Connection strings: what is taken, what is refused by name, and that no password is shown.

use super::*;

fn parse(text: &str) -> Result<Address, AddressError> {
    Address::parse(text, KeyExchanges::default())
}

const PROVEN: &str = "sslmode=verify-full sslrootcert=/ca.pem";

#[test]
fn both_forms_of_a_connection_string_say_the_same() {
    let words =
        format!(r"host=a.test,b.test port=1,2 user=iron password='p w\'\\' dbname=td {PROVEN} sslcert=/c sslkey=/k");
    let url = "postgres://iron:p%20w%27%5C@a.test:1,b.test:2/td?sslmode=verify-full&sslrootcert=%2Fca.pem&sslcert=/c&sslkey=/k";
    let (words, url) = (parse(&words).expect("taken"), parse(url).expect("taken"));
    assert_eq!(words, url);
    assert_eq!(words.to_string(), "PostgreSQL a.test:1,b.test:2/td as iron");
    let hosts: Vec<_> = words.each_host().collect();
    assert_eq!(hosts.len(), 2);
    for config in &hosts {
        assert_eq!(config.get_ssl_mode(), SslMode::Require, "never in clear");
        assert_eq!(config.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(config.get_password(), Some(&b"p w'\\"[..]));
    }
    let proof = words.proof().expect("over TCP");
    assert_eq!(proof.roots, Roots::File("/ca.pem".into()));
    assert_eq!(proof.client, Some(("/c".into(), "/k".into())));
}

#[test]
fn a_unix_socket_needs_no_proof() {
    for text in ["host=/run/postgresql user=iron", "host=/run/postgresql user=iron sslmode=disable"] {
        let address = parse(text).expect("taken");
        assert!(address.proof().is_none());
        assert_eq!(address.to_string(), "PostgreSQL /run/postgresql:5432/iron as iron");
        assert!(address.each_host().all(|config| config.get_ssl_mode() == SslMode::Disable));
    }
}

#[test]
fn what_is_unsafe_or_unfinished_is_refused_by_name() {
    for mode in ["disable", "allow", "prefer", "require", "verify-ca", "nonsense"] {
        let refused = parse(&format!("host=db user=iron sslmode={mode} sslrootcert=/ca.pem"));
        assert_eq!(refused, Err(AddressError::Unproven(mode.into())));
    }
    for (text, why) in [
        ("host=db user=iron", AddressError::NoSslMode),
        ("host=/run,db user=iron", AddressError::NoSslMode),
        ("postgres://iron@db/td", AddressError::NoSslMode),
        ("host=db user=iron sslmode=verify-full", AddressError::NoRoots),
        ("host=db sslmode=verify-full sslrootcert=system", AddressError::NoUser),
        ("user=iron sslmode=verify-full sslrootcert=system", AddressError::NoHost),
        ("host=db user=iron sslmode=verify-full sslrootcert=system sslcert=/c", AddressError::HalfCertificate),
        ("host=/run user=iron sslmode=verify-full", AddressError::TlsOnSocket("sslmode")),
        ("host=/run user=iron sslrootcert=/ca.pem", AddressError::TlsOnSocket("sslrootcert")),
        ("host=a,b,c port=1,2 user=iron sslmode=verify-full sslrootcert=system", AddressError::Ports),
        ("host=db hostaddr=127.0.0.1 user=iron sslmode=verify-full sslrootcert=system", AddressError::HostAddress),
        ("host", AddressError::Malformed("a keyword without \"=\"".into())),
        ("host='db", AddressError::Malformed("a quote is not closed".into())),
    ] {
        assert_eq!(parse(text), Err(why), "{text}");
    }
    let unknown = parse("host=/run user=iron sslcrl=/x").expect_err("not known");
    assert!(unknown.to_string().contains("sslcrl"), "{unknown}");
}

#[test]
fn nothing_that_is_shown_holds_the_password() {
    let texts = [
        format!("host=db user=iron password=geheim {PROVEN}"),
        "postgres://iron:geheim@db/td?sslmode=verify-full&sslrootcert=system".into(),
    ];
    for text in texts {
        let address = parse(&text).expect("taken");
        assert!(!format!("{address} {address:?}").contains("geheim"));
    }
    for text in ["host=db password=geheim", "password='geheim", "postgres://iron:geheim@db/td?x=y", "password geheim"] {
        let refused = parse(text).expect_err("refused");
        assert!(!format!("{refused} {refused:?}").contains("geheim"), "{refused}");
    }
}
