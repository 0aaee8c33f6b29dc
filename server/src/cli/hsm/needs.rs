//! What this server needs of a token, and whether one has it: by trial where there was one, else by the token's own word.

use ironroot_api::MlDsa;
use ironroot_hsm::{KeyKind, KeyTrial, MechanismSurvey, TokenSurvey};

/// A use of keys.
pub(super) struct Need {
    /// What for.
    pub(super) what: &'static str,
    /// Whether it is met: none if only a trial would tell.
    pub(super) is_met: Option<bool>,
    /// How that is known, or what is missing.
    pub(super) because: String,
}

/// Kinds of keys, as `ca_key_type` and `jwt_key_type` call them, and what each is for.
pub(super) const KINDS: [(KeyKind, &str, &str); 7] = [
    (KeyKind::EcP256, "ec-p256", "ec-p256: CAs, and JWT-SVIDs by ES256"),
    (KeyKind::EcP384, "ec-p384", "ec-p384: CAs, and JWT-SVIDs by ES384"),
    (KeyKind::Rsa2048, "rsa-2048", "rsa-2048: CAs, and JWT-SVIDs by RS256"),
    (KeyKind::Rsa4096, "rsa-4096", "rsa-4096: CAs, and JWT-SVIDs by RS256"),
    (KeyKind::MlDsa(MlDsa::MlDsa44), "ml-dsa-44", "ml-dsa-44: CAs whose signatures outlive quantum computers"),
    (KeyKind::MlDsa(MlDsa::MlDsa65), "ml-dsa-65", "ml-dsa-65: likewise"),
    (KeyKind::MlDsa(MlDsa::MlDsa87), "ml-dsa-87", "ml-dsa-87: likewise"),
];

/// All of them, the most usual first.
pub(super) fn needs(token: &TokenSurvey, trials: Option<&[KeyTrial]>) -> Vec<Need> {
    let of_kinds = KINDS.into_iter().map(|(kind, _, what)| {
        let trial = trials.and_then(|trials| trials.iter().find(|trial| trial.kind == kind));
        let how = if trials.is_some() {
            "by its own word; -slow tries it"
        } else {
            "by its own word; with a PIN it is tried"
        };
        let (is_met, because) = trial.map_or_else(|| by_its_word(token, kind, how), by_trial);
        Need { what, is_met, because }
    });
    of_kinds.collect()
}

/// The first kind that the server can use there, as the configuration calls it: one that was tried, or where nothing was, one that a trial
/// might show.
pub(super) fn best_kind(needs: &[Need], is_tried: bool) -> Option<&'static str> {
    let is_fit = |need: &Need| need.is_met == Some(true) || (!is_tried && need.is_met.is_none());
    needs.iter().zip(KINDS).find(|(need, _)| is_fit(need)).map(|(_, (_, name, _))| name)
}

fn by_trial(trial: &KeyTrial) -> (Option<bool>, String) {
    if let Some(trouble) = trial.trouble() {
        return (Some(false), trouble);
    }
    let milliseconds = |duration: Option<std::time::Duration>| {
        duration.map_or_else(String::new, |duration| format!("{:.1} ms", duration.as_secs_f64() * 1000.0))
    };
    let made = milliseconds(trial.made.as_ref().ok().copied());
    let signed = milliseconds(trial.signed.as_ref().and_then(|signed| signed.as_ref().ok().copied()));
    let local = if trial.says_local { "" } else { "; the token does not say that it was made inside (CKA_LOCAL)" };
    (Some(true), format!("made in {made}, found again, a signature takes {signed}, destroyed{local}"))
}

/// Which mechanisms a kind needs, and how long its keys are, bits. A token that keeps silent about lengths may have any, and of ML-DSA a trial
/// alone tells the sets that it has.
fn by_its_word(token: &TokenSurvey, kind: KeyKind, how: &str) -> (Option<bool>, String) {
    let (makes, signs, bits) = match kind {
        KeyKind::EcP256 => ("CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA", 256),
        KeyKind::EcP384 => ("CKM_EC_KEY_PAIR_GEN", "CKM_ECDSA", 384),
        KeyKind::Rsa2048 => ("CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_RSA_PKCS", 2048),
        KeyKind::Rsa4096 => ("CKM_RSA_PKCS_KEY_PAIR_GEN", "CKM_RSA_PKCS", 4096),
        KeyKind::MlDsa(_) => ("CKM_ML_DSA_KEY_PAIR_GEN", "CKM_ML_DSA", 0),
    };
    let find = |name: &str| token.mechanisms.iter().find(|one| one.name == name);
    let Some(signer) = find(signs) else { return (Some(false), format!("it offers no {signs}")) };
    let Some(maker) = find(makes) else {
        return (
            None,
            format!("it offers no {makes}: only with keys that an administrator makes (key_labels, key_ids)"),
        );
    };
    let is_too_short = |one: &MechanismSurvey| one.key_sizes.is_some_and(|[_, most]| most < bits);
    match is_too_short(signer) || is_too_short(maker) {
        true => (Some(false), format!("its keys have fewer than {bits} bits")),
        false => (None, how.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use ironroot_hsm::UserPinState;

    use super::*;

    fn token(mechanisms: &[(&str, usize)]) -> TokenSurvey {
        let mechanism = |(name, most): &(&str, usize)| MechanismSurvey {
            name: (*name).to_owned(),
            key_sizes: Some([112, *most]),
            signs: true,
            makes_pairs: true,
            in_hardware: false,
        };
        TokenSurvey {
            label: "t".to_owned(),
            serial: "1".to_owned(),
            manufacturer: String::new(),
            model: String::new(),
            firmware: String::new(),
            is_initialized: true,
            is_write_protected: false,
            login_required: true,
            has_pad: false,
            pin: UserPinState::Good,
            max_sessions: None,
            mechanisms: mechanisms.iter().map(mechanism).collect(),
        }
    }

    #[test]
    fn what_a_token_says_of_itself_decides_what_is_worth_trying() {
        let ec = [("CKM_EC_KEY_PAIR_GEN", 256), ("CKM_ECDSA", 256)];
        let met = |token: &TokenSurvey| needs(token, None).iter().map(|need| need.is_met).collect::<Vec<_>>();
        let no = Some(false);
        assert_eq!(met(&token(&ec)), [None, no, no, no, no, no, no]);
        let rsa = [("CKM_RSA_PKCS_KEY_PAIR_GEN", 4096), ("CKM_RSA_PKCS", 4096)];
        assert_eq!(met(&token(&rsa)), [no, no, None, None, no, no, no]);
        assert_eq!(best_kind(&needs(&token(&rsa), None), false), Some("rsa-2048"));
        assert_eq!(best_kind(&needs(&token(&[]), None), false), None);
        let given = needs(&token(&[("CKM_ECDSA", 521)]), None);
        assert!(given[0].is_met.is_none() && given[0].because.contains("key_labels"), "{}", given[0].because);
        let post_quantum = [("CKM_ML_DSA_KEY_PAIR_GEN", 2592), ("CKM_ML_DSA", 2592)];
        assert_eq!(met(&token(&post_quantum)), [no, no, no, no, None, None, None]);
        assert_eq!(best_kind(&needs(&token(&post_quantum), None), false), Some("ml-dsa-44"));
        assert_eq!(needs(&token(&ec), None)[4].because, "it offers no CKM_ML_DSA");
    }
}
