//! What needs no hardware. What does is in the lab's tests.

use super::*;
use crate::pem;

#[test]
fn a_set_that_was_cut_off_or_is_no_tokens_is_none() {
    let set = tempfile::tempdir().expect("directory");
    let write = |name: &str, text: &str| std::fs::write(set.path().join(name), text).expect("written");
    assert!(Current::read(set.path()).is_none());
    write("svid.pem", &pem::certificates([[1_u8; 8]]));
    assert!(Current::read(set.path()).is_none(), "keys of the agent's making");
    for note in [
        "",
        r#"{"key":{"slot":"3"},"version":""}"#,
        r#"{"key":{"slot":"1"}}"#,
        r#"{"key":{"slot":"1"},"version":"?"}"#,
        r#"{"key":{"wrapped":{"public":""}},"version":""}"#,
    ] {
        write(NOTE, note);
        assert!(Current::read(set.path()).is_none(), "{note}");
    }
    write(NOTE, r#"{"key":{"slot":"2"},"version":"AQI="}"#);
    let current = Current::read(set.path()).expect("whole");
    assert_eq!(
        (current.key, current.version, &current.chain[..]),
        (KeyPlace::Slot(Slot::Second), vec![1, 2], &[1; 8][..])
    );
    write(NOTE, r#"{"key":{"wrapped":{"public":"AQ==","private":"Ag==","parent":"Aw=="}},"version":"AQI="}"#);
    let wrapped = KeyBlob { public: vec![1], private: vec![2], parent: vec![3] };
    assert_eq!(Current::read(set.path()).expect("whole").key, KeyPlace::Wrapped(wrapped));
}
