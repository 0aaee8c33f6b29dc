//! The process that a broker stands for, held so that its number cannot come to mean another one.

use ironroot_attest::workload::{Peer, WorkloadRefusal};
use tonic::{Code, Status};

use super::reference::ProcessNumber;
use super::refusal::BrokerRefusal;
use crate::endpoints::caller::Known;
use crate::endpoints::exit::ExitWatch;
use crate::endpoints::serving::{Attested, Serving, attestation_failed};
use crate::identities::Identities;

/// See the module.
pub(super) struct Workload {
    process: Peer,
    exit: ExitWatch,
}

impl Workload {
    /// Whoever has the number now, and what is known of it. The outer error is about the broker's turn.
    pub async fn find(
        serving: &Serving,
        broker: &Known,
        number: &ProcessNumber,
    ) -> Result<Result<(Self, Attested), BrokerRefusal>, Status> {
        //= BRK-04 SPIFFE Broker API 3.1.2: "deployments MUST ensure servers do not receive requests originating from outside the node"
        if !serving.shares_numbers_with(broker).await? {
            return Ok(Err(BrokerRefusal::OtherNumbers));
        }
        //= BRK-06 SPIFFE Broker API 3.1.1: "References MUST be resolved on the server"
        match serving.attest_referred(broker, number.get()).await? {
            Ok((process, attested)) => Ok(Ok((Self::watched(process)?, attested))),
            Err(WorkloadRefusal::Exited { pid }) => Ok(Err(BrokerRefusal::NoSuchProcess(pid))),
            Err(other) => Err(attestation_failed(&other)),
        }
    }

    fn watched(process: Peer) -> Result<Self, Status> {
        Ok(Self { exit: ExitWatch::of(&process, "a broker's")?, process })
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Whether it still runs.
    pub fn check(&self) -> Result<(), BrokerRefusal> {
        if self.process.still_alive() { Ok(()) } else { Err(BrokerRefusal::Exited(self.pid())) }
    }

    /// Done when it has ended; never where the kernel does not tell of that: there each look at it does.
    pub async fn exited(&self) {
        self.exit.ended().await;
    }

    /// What is known of it now.
    pub async fn attest(&self, serving: &Serving, broker: &Known) -> Result<Attested, Status> {
        serving.attest_referred_again(broker, &self.process).await?.map_err(|refusal| match refusal {
            WorkloadRefusal::Exited { pid } => BrokerRefusal::Exited(pid).into(),
            other => attestation_failed(&other),
        })
    }

    /// The refusal of a workload without an identity that is handed on, said in the log.
    pub fn not_entitled(
        &self,
        serving: &Serving,
        attested: &Attested,
        method: &'static str,
        all: &Identities,
    ) -> Status {
        let status = serving.no_identity(&self.process, attested, method, all);
        if status.code() == Code::PermissionDenied { BrokerRefusal::NotEntitled.into() } else { status }
    }
}
