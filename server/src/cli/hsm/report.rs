//! What a probe found, for people and for programs.

use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;

use ironroot_hsm::{KeyTrial, MechanismSurvey, ModuleSurvey, SlotSurvey, TokenSurvey};
use ironroot_shell::command_line::{Reply, describe, shown};
use serde_json::{Value, json};

use super::needs::{Need, best_kind, needs};
use super::stanza::stanza;
use crate::config::LoginMode;

/// All that was found.
pub(super) struct Findings {
    pub(super) module_path: PathBuf,
    pub(super) survey: ModuleSurvey,
    /// The slot of the token that is meant; none if nothing says which.
    pub(super) slot: Option<u64>,
    pub(super) login: Option<LoginMode>,
    /// What was tried; none if nothing was.
    pub(super) trials: Option<Vec<KeyTrial>>,
    /// Why nothing could be tried, though it should have been.
    pub(super) refused: Option<Box<dyn Error>>,
}

impl Findings {
    pub(super) fn reply(&self) -> Reply {
        let needs = self.chosen().map(|token| needs(token, self.trials.as_deref()));
        let stanza = self.stanza(needs.as_deref());
        let json = self.json(needs.as_deref(), stanza.as_deref());
        let text = self.text(needs.as_deref(), stanza.as_deref());
        let failed = self.refused.is_some() || needs.as_deref().is_some_and(|needs| self.best(needs).is_none());
        let complaints = self.refused.as_ref().map(|why| format!("Error: {}\n", describe(why.as_ref())));
        Reply { failed, complaints: complaints.unwrap_or_default(), ..Reply::new(json, text) }
    }

    fn best(&self, needs: &[Need]) -> Option<&'static str> {
        best_kind(needs, self.trials.is_some())
    }

    fn chosen(&self) -> Option<&TokenSurvey> {
        let slot = self.slot?;
        self.survey.slots.iter().find(|one| one.id == slot)?.token.as_ref().ok()
    }

    fn stanza(&self, needs: Option<&[Need]>) -> Option<String> {
        let (slot, token) = (self.slot?, self.chosen());
        let is_label_unique =
            token.is_some_and(|token| self.survey.tokens().filter(|(_, one)| one.label == token.label).count() == 1);
        let kind = needs.and_then(|needs| self.best(needs));
        Some(stanza(&self.module_path, (slot, token), is_label_unique, self.login.as_ref(), kind))
    }

    fn text(&self, needs: Option<&[Need]>, stanza: Option<&str>) -> String {
        let ModuleSurvey { manufacturer, description, version, cryptoki, slots } = &self.survey;
        let mut text = format!("Module           : {}\n", self.module_path.display());
        let _ = writeln!(
            text,
            "Library          : {}",
            shown(format_args!("{description} {version}, by {manufacturer}, PKCS#11 {cryptoki}"))
        );
        slots.iter().for_each(|slot| write_slot(&mut text, slot, self.slot == Some(slot.id)));
        match needs {
            Some(needs) => write_needs(&mut text, needs, self.trials.is_some()),
            None => text.push_str(
                "\nSeveral tokens, or none: say with -token which one is meant to learn what it is good for.\n",
            ),
        }
        if let Some(stanza) = stanza {
            let _ = write!(text, "\nFor the configuration:\n\n{stanza}");
        }
        text
    }

    fn json(&self, needs: Option<&[Need]>, stanza: Option<&str>) -> Value {
        let ModuleSurvey { manufacturer, description, version, cryptoki, slots } = &self.survey;
        json!({
            "module": {
                "path": self.module_path, "manufacturer": manufacturer, "description": description, "version": version,
                "cryptoki": cryptoki,
            },
            "slots": slots.iter().map(slot_json).collect::<Vec<_>>(),
            "slot": self.slot,
            "tried": self.trials.is_some(),
            "refused": self.refused.as_ref().map(|why| describe(why.as_ref())),
            "needs": needs.unwrap_or_default().iter().map(|need| {
                json!({ "what": need.what, "met": need.is_met, "because": need.because })
            }).collect::<Vec<_>>(),
            "configuration": stanza,
        })
    }
}

fn write_slot(text: &mut String, slot: &SlotSurvey, is_meant: bool) {
    let mark = if is_meant { ", the one that is meant" } else { "" };
    let _ =
        writeln!(text, "\nSlot {}{mark}: {} (firmware {})", slot.id, shown(&slot.description), shown(&slot.firmware));
    let token = match &slot.token {
        Ok(token) => token,
        Err(why) => {
            let _ = writeln!(text, "  {}", shown(why));
            return;
        }
    };
    let TokenSurvey { label, serial, manufacturer, model, firmware, .. } = token;
    let sessions = token.max_sessions.map_or_else(|| "no limit told".to_owned(), |most| format!("{most} at once"));
    let state = match (token.is_initialized, token.is_write_protected) {
        (false, _) => "blank: it must be initialised first",
        (true, true) => "write-protected: no keys can be made",
        (true, false) => "initialised, writable",
    };
    let login = match (token.login_required, token.has_pad) {
        (false, _) => "none needed (login = \"none\")",
        (true, true) => "at its own pad or reader (login = \"pinpad\")",
        (true, false) => "by a PIN",
    };
    let lines = [
        ("Token", format!("{label:?}, serial {serial}, {model} by {manufacturer}, firmware {firmware}")),
        ("State", state.to_owned()),
        ("Login", login.to_owned()),
        ("User PIN", token.pin.in_words().to_owned()),
        ("Sessions", sessions),
    ];
    for (name, value) in lines {
        let _ = writeln!(text, "  {name:<15}: {}", shown(value));
    }
    write_mechanisms(text, &token.mechanisms);
}

/// Those that sign or make key pairs, with their key sizes; of the others how many there are.
fn write_mechanisms(text: &mut String, mechanisms: &[MechanismSurvey]) {
    let (of_use, others): (Vec<_>, Vec<_>) = mechanisms.iter().partition(|one| one.signs || one.makes_pairs);
    let described = of_use.iter().map(|one| match one.key_sizes {
        Some([least, most]) => format!("{} ({least}-{most})", one.name),
        None => one.name.clone(),
    });
    let described = described.collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "  {:<15}: {described}; {} others", "Mechanisms", others.len());
}

fn write_needs(text: &mut String, needs: &[Need], is_tried: bool) {
    let how =
        if is_tried { "tried with keys that are destroyed again" } else { "by the token's word; give a PIN to try" };
    let _ = writeln!(text, "\nWhat it is good for ({how}):");
    for need in needs {
        let met = match need.is_met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "may be",
        };
        let _ = writeln!(text, "  {met:<7}{}: {}", need.what, need.because);
    }
}

fn slot_json(slot: &SlotSurvey) -> Value {
    let (token, trouble) = match &slot.token {
        Ok(token) => (token_json(token), None),
        Err(why) => (Value::Null, Some(why)),
    };
    json!({
        "id": slot.id, "description": slot.description, "firmware": slot.firmware, "token": token, "trouble": trouble,
    })
}

fn token_json(token: &TokenSurvey) -> Value {
    let mechanisms = token.mechanisms.iter().map(|one| {
        json!({
            "name": one.name, "key_sizes": one.key_sizes, "signs": one.signs, "makes_key_pairs": one.makes_pairs,
            "in_hardware": one.in_hardware,
        })
    });
    json!({
        "label": token.label, "serial": token.serial, "manufacturer": token.manufacturer, "model": token.model,
        "firmware": token.firmware, "initialized": token.is_initialized, "write_protected": token.is_write_protected,
        "login_required": token.login_required, "has_pad": token.has_pad, "user_pin": token.pin.in_words(),
        "max_sessions": token.max_sessions, "mechanisms": mechanisms.collect::<Vec<_>>(),
    })
}
