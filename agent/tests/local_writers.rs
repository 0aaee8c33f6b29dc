//! Who may write into a connection, tried with programs of their own (`tests/callers/*.c`).

#[path = "support/callers.rs"]
mod callers;
#[path = "support/served.rs"]
mod served;

use callers::{Callers, OTHER_USER, USER};
use ironroot_attest::workload::{ConnectionWriter, UnixAttestorConfig};

const OWN: &str = "got /app /user";

#[tokio::test]
async fn an_honest_client_is_served_also_byte_by_byte_and_from_another_thread() {
    let callers = Callers::new();
    assert_eq!(callers.told("honest", &[]).await, OWN);
    assert_eq!(callers.told("honest", &["bytes"]).await, OWN);
    assert_eq!(callers.told("thread", &[]).await, OWN);
}

//= FLT-A14
#[tokio::test]
async fn a_child_that_speaks_on_its_parents_connection_ends_it() {
    let callers = Callers::new();
    let program = callers.compile("fork", &[]);
    callers.publish(&program);
    let mut caller = callers.start(&program, USER, &[]);
    assert_eq!(caller.says().await, "connected");
    caller.go_on();
    assert_eq!(caller.verdict().await, "ended");
}

#[tokio::test]
async fn a_connection_handed_to_another_user_ends() {
    let callers = Callers::new();
    let program = callers.compile("pass_descriptor", &[]);
    callers.publish(&program);
    let (owner, heir) = (USER.to_string(), OTHER_USER.to_string());
    assert_eq!(callers.start(&program, 0, &[&owner, &heir]).verdict().await, "ended");
}

#[tokio::test]
async fn a_connection_taken_by_pidfd_getfd_ends() {
    assert_eq!(Callers::new().told("steal", &[]).await, "ended");
}

#[tokio::test]
async fn bytes_that_another_process_moves_in_without_writing_end_it() {
    let callers = Callers::new();
    assert_eq!(callers.told("splice", &[]).await, "ended");
    assert_eq!(callers.told("splice", &["vmsplice"]).await, "ended");
}

/// A kernel whose administrator has switched io_uring off has nothing to refuse.
#[tokio::test]
async fn a_ring_that_another_process_enters_ends_it_also_when_its_maker_became_another_program() {
    let callers = Callers::new();
    let program = callers.compile("ring", &[]);
    for (how, word) in [("hold", "connected"), ("exec", "honest")] {
        callers.publish(if how == "exec" { callers::HONEST.as_ref() } else { &program });
        let mut caller = callers.start(&program, USER, &[how]);
        let said = caller.next_line_while_the_agent_sleeps();
        if said.starts_with("cannot make a ring") {
            assert!(said.ends_with("Operation not permitted") || said.ends_with("Function not implemented"), "{said}");
            return;
        }
        assert_eq!(said, word);
        if how == "exec" {
            caller.runs_while_the_agent_sleeps(callers::HONEST);
        }
        caller.go_on();
        assert_eq!(caller.verdict().await, "ended", "{how}");
    }
}

#[tokio::test]
async fn a_connection_whose_opener_became_another_program_before_it_was_accepted_is_not_its_childs() {
    let callers = Callers::new();
    let program = callers.compile("fork", &[]);
    callers.publish(callers::HONEST.as_ref());
    let mut caller = callers.start(&program, USER, &["exec"]);
    caller.says_while_the_agent_sleeps("honest");
    caller.go_on();
    assert_eq!(caller.verdict().await, "ended");
}

#[tokio::test]
async fn descriptors_sent_along_end_the_connection_and_none_of_them_stays() {
    let callers = Callers::new();
    let program = callers.compile("with_descriptor", &[]);
    callers.publish(&program);
    let open = || std::fs::read_dir("/proc/self/fd").expect("reads").count();
    let before = open();
    for _ in 0..20 {
        assert_eq!(callers.start(&program, USER, &[]).verdict().await, "ended");
    }
    // The other tests of this process have descriptors, too: fewer than the 1,280 that were sent.
    assert!(open() < before + 200, "{before} before, {} now", open());
}

#[tokio::test]
async fn all_that_a_client_may_send_before_it_is_accepted_is_read() {
    let callers = Callers::new();
    let program = callers.compile("queue", &[]);
    callers.publish(&program);
    // A whole window (RFC 9113 §6.9.2) and headers: an Envoy tells its metadata at once.
    let mut caller = callers.start(&program, USER, &[&(80 * 1024).to_string()]);
    caller.says_while_the_agent_sleeps("queued");
    caller.go_on();
    assert_ne!(caller.verdict().await, "ended");
}

#[tokio::test]
async fn a_child_of_the_same_user_may_speak_where_the_operator_says_so_and_another_user_may_not() {
    let attestor = UnixAttestorConfig { discover_workload_path: true, ..UnixAttestorConfig::default() };
    let callers = Callers::with(attestor, ConnectionWriter::User);
    let program = callers.compile("fork", &[]);
    callers.publish(&program);
    let mut caller = callers.start(&program, USER, &[]);
    assert_eq!(caller.says().await, "connected");
    caller.go_on();
    assert_eq!(caller.verdict().await, "got /user", "nothing of the executable of a process that did not ask");
    let (owner, heir) = (USER.to_string(), OTHER_USER.to_string());
    let passing = callers.compile("pass_descriptor", &[]);
    assert_eq!(callers.start(&passing, 0, &[&owner, &heir]).verdict().await, "ended");
}
