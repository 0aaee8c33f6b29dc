//! Whom a request names: may the broker use such a name, and what does it say?

use std::sync::Arc;

use ironroot_api::pb::broker::{WorkloadPidReference, WorkloadReference};
use prost::Message;
use prost_types::Any;

use super::refusal::BrokerRefusal;
use super::trust::AuthenticatedBroker;
use crate::config::PID_REFERENCE;

/// A reference of a type that its broker may use. Only [`Permitted::of`] makes one.
#[derive(Debug)]
pub(super) struct Permitted(Any);

/// The number of a process, above 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ProcessNumber(i32);

impl Permitted {
    /// Whether `broker` may use the type of `reference`; of what it says nothing has been looked at.
    pub fn of(broker: &Arc<AuthenticatedBroker>, reference: Option<WorkloadReference>) -> Result<Self, BrokerRefusal> {
        let any = reference.and_then(|reference| reference.reference).filter(|any| !any.type_url.is_empty());
        //= BRK-03 SPIFFE Broker API 3.1.1: "servers MUST reject requests that lack one or whose reference type is not understood"
        let any = any.ok_or(BrokerRefusal::NoReference)?;
        match broker.types().contains(&any.type_url) {
            true => Ok(Self(any)),
            false => Err(BrokerRefusal::type_not_allowed(broker.spiffe_id(), &any.type_url)),
        }
    }

    /// The process that it names.
    pub fn process(&self) -> Result<ProcessNumber, BrokerRefusal> {
        ProcessNumber::named_by(&self.0)
    }
}

impl ProcessNumber {
    fn named_by(any: &Any) -> Result<Self, BrokerRefusal> {
        if any.type_url != PID_REFERENCE {
            return Err(BrokerRefusal::unknown_type(&any.type_url));
        }
        let reference = WorkloadPidReference::decode(&any.value[..]).map_err(|_| BrokerRefusal::Malformed)?;
        match reference.pid {
            pid if pid > 0 => Ok(Self(pid)),
            pid => Err(BrokerRefusal::NoProcessNumber(pid)),
        }
    }

    /// As the kernel has it.
    pub fn get(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, value: Vec<u8>) -> Any {
        Any { type_url: type_url.to_owned(), value }
    }

    fn of_pid(pid: i32) -> Any {
        any(PID_REFERENCE, WorkloadPidReference { pid }.encode_to_vec())
    }

    #[test]
    fn a_process_is_named_by_a_number_above_zero() {
        assert_eq!(ProcessNumber::named_by(&of_pid(7)).map(ProcessNumber::get).ok(), Some(7));
        assert_eq!(ProcessNumber::named_by(&of_pid(i32::MAX)).map(ProcessNumber::get).ok(), Some(i32::MAX));
        for pid in [0, -1, i32::MIN] {
            let refused = ProcessNumber::named_by(&of_pid(pid));
            assert!(matches!(refused, Err(BrokerRefusal::NoProcessNumber(found)) if found == pid), "{refused:?}");
        }
    }

    //= BRK-03
    #[test]
    fn other_types_and_forms_are_refused_by_name() {
        let value = WorkloadPidReference { pid: 7 }.encode_to_vec();
        let kubernetes = "type.googleapis.com/spiffe.broker.KubernetesObjectReference";
        for type_url in [kubernetes, "spiffe.broker.WorkloadPIDReference", "https://x/y", "*", &"x".repeat(4000)] {
            let refused = ProcessNumber::named_by(&any(type_url, value.clone())).expect_err("another type");
            assert!(matches!(refused, BrokerRefusal::UnknownType(_)), "{refused:?}");
            assert!(refused.to_string().len() < 400, "{refused}");
        }
        for value in [vec![0xff], vec![8], vec![0x0a, 1, 0], vec![8, 0xff, 0xff]] {
            let refused = ProcessNumber::named_by(&any(PID_REFERENCE, value));
            assert!(matches!(refused, Err(BrokerRefusal::Malformed)), "{refused:?}");
        }
    }

    #[test]
    fn references_survive_damage() {
        let seed = WorkloadReference { reference: Some(of_pid(4711)) }.encode_to_vec();
        ironroot_fuzz::Target::new("references of brokers").seed(seed).survives(|bytes| {
            let Ok(WorkloadReference { reference: Some(any) }) = WorkloadReference::decode(bytes) else { return };
            match ProcessNumber::named_by(&any) {
                Ok(number) => assert!(number.get() > 0 && any.type_url == PID_REFERENCE),
                Err(refusal) => assert!(refusal.to_string().len() < 400),
            }
        });
    }
}
