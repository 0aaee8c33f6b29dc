use super::*;

fn symbols(bytes: &[u8]) -> Vec<Option<u8>> {
    let (mut at, mut found) = (0, Vec::new());
    while let Decoded::Symbol(symbol, length) = decode(bytes, at) {
        found.push(symbol);
        at += length;
    }
    found
}

#[test]
fn decodes_the_standards_examples() {
    // RFC 7541 C.4.1 and C.6.1.
    let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
    assert_eq!(symbols(&www), b"www.example.com".map(Some));
    assert_eq!(symbols(&[0x64, 0x02]), b"302".map(Some));
}

#[test]
fn every_filler_is_legal_and_of_its_length() {
    for bits in (5..=8).chain(10..=15).chain(19..=30) {
        let mut bytes = [0xff; 5];
        write(&mut bytes, 0, filler(bits), bits);
        let (mut at, mut rule) = (0, Rule::default());
        while at < bits {
            let Decoded::Symbol(Some(symbol), length) = decode(&bytes, at) else { panic!("{bits} bits at {at}") };
            assert!(rule.accepts(symbol));
            at += length;
        }
        assert_eq!(at, bits, "ends where the replaced symbol ended");
    }
}
