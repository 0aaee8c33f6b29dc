//! The list of measured files (IMA) of a device whose quote is proven: asked for in parts, held against the policies about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ironroot_attest::ima::{ImaError, Measured, Reached, Replay};
use ironroot_attest::node::tpm2::{ImaQuote, ImaRequest};

use crate::devices::ImaTask;
use crate::facts::device::{BootFacts, ImaFacts, Judged, PcrValue};
use crate::facts::ima_policy::MeasuredFile;
use crate::facts::pcr_policy::PcrPolicy;

/// A list on its way. Nothing that it told counts before it has led to the quoted register.
#[derive(Debug)]
pub(super) struct FileList {
    quote: ImaQuote,
    boot_id: String,
    policies: Vec<Arc<PcrPolicy>>,
    replay: Replay,
    facts: ImaFacts,
    is_resumed: bool,
}

impl FileList {
    /// From where the list of the same boot ended the last time, if each policy was held against all of it; otherwise from its start.
    /// `boot_id`: what the device calls its boot. A false one costs it a second try: what counts is where the list leads to.
    pub fn new(quote: ImaQuote, boot_id: &str, ImaTask { policies, last }: ImaTask) -> Self {
        let known = last.and_then(|last| known(&last, &quote, boot_id, &policies));
        let (facts, replay, is_resumed) = match known {
            Some((facts, register)) => {
                let replay = Replay::resumed(quote.bank, quote.register.clone(), facts.entries, register);
                (facts, replay, true)
            }
            None => (begun(&policies), Replay::new(quote.bank, quote.register.clone()), false),
        };
        Self { quote, boot_id: boot_id.to_owned(), policies, replay, facts, is_resumed }
    }

    /// Whether the list leads to the quoted register.
    pub fn is_proven(&self) -> bool {
        self.replay.reached() == Reached::Quoted
    }

    /// What the device is asked next.
    pub fn request(&self) -> ImaRequest {
        ImaRequest { known: self.replay.entries() }
    }

    /// Takes what the device answered. What does not follow what was known may follow from the start: then the whole list is asked for.
    pub fn take(&mut self, part: &[u8]) -> Result<(), ImaError> {
        let Self { replay, facts, policies, .. } = self;
        match replay.extend(part, |measured| note(facts, policies, measured)) {
            Ok(_) => Ok(()),
            Err(_) if self.is_resumed => {
                self.facts = begun(&self.policies);
                self.replay = Replay::new(self.quote.bank, self.quote.register.clone());
                self.is_resumed = false;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What is proven, or why it is nothing.
    pub fn facts(self) -> Result<ImaFacts, String> {
        if self.replay.entries() == 0 {
            return Err("the kernel has measured no file into PCR 10 (IMA)".to_owned());
        }
        Ok(ImaFacts {
            boot_id: self.boot_id,
            entries: self.replay.entries(),
            register: Some(PcrValue(self.replay.register().to_vec())),
            is_aggregate_quoted: self.facts.aggregate == self.quote.aggregate.digest(),
            ..self.facts
        })
    }
}

/// What was proven of the same boot, by the same bank, for all of these policies; and PCR 10 then.
fn known(
    last: &BootFacts,
    quote: &ImaQuote,
    boot_id: &str,
    policies: &[Arc<PcrPolicy>],
) -> Option<(ImaFacts, Vec<u8>)> {
    let facts = last.ima.as_ref().filter(|facts| facts.boot_id == boot_id && last.bank == quote.bank)?;
    let is_judged = |policy: &Arc<PcrPolicy>| {
        let lineage = policy.ima.as_ref().map(|files| &files.lineage);
        facts.judged.get(&policy.name).map(|judged| &judged.lineage) == lineage
    };
    let register = facts.register.as_ref().filter(|register| register.0.len() == quote.bank.bytes())?;
    policies.iter().all(is_judged).then(|| (facts.clone(), register.0.clone()))
}

fn begun(policies: &[Arc<PcrPolicy>]) -> ImaFacts {
    let judged = policies.iter().filter_map(|policy| {
        let lineage = policy.ima.as_ref()?.lineage.clone();
        Some((policy.name.clone(), Judged { lineage, ..Judged::default() }))
    });
    ImaFacts { judged: judged.collect::<BTreeMap<_, _>>(), ..ImaFacts::default() }
}

fn note(facts: &mut ImaFacts, policies: &[Arc<PcrPolicy>], measured: Measured) {
    match measured {
        Measured::Violation => facts.violations += 1,
        // A kexec adds one; as long as it says the same, it is that of the registers.
        Measured::BootAggregate { digest } if facts.aggregate.is_empty() => facts.aggregate = digest,
        Measured::BootAggregate { digest } if facts.aggregate == digest => {}
        Measured::BootAggregate { .. } => facts.aggregate = "several".to_owned(),
        Measured::File { path, digest } => {
            let file = MeasuredFile { digest, path };
            for policy in policies {
                if let (Some(files), Some(judged)) = (&policy.ima, facts.judged.get_mut(&policy.name)) {
                    judged.hold(files, &file);
                }
            }
        }
    }
}
