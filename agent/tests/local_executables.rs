//! What is told of the program that a caller runs, tried with programs of their own (`tests/callers/*.c`).

#[path = "support/callers.rs"]
mod callers;
#[path = "support/served.rs"]
mod served;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use callers::{Callers, HONEST, USER};
use ironroot_attest::workload::{ConnectionWriter, ExecutableLink, ExecutableSelectors, UnixAttestorConfig};

const OWN: &str = "got /app /user";
const USER_ONLY: &str = "got /user";

/// Where root alone can make them, forgeries that need one fail by themselves.
fn users_can_make_user_namespaces() -> bool {
    ExecutableLink::of_this_kernel() != ExecutableLink::NoUserNamespaces
}

#[tokio::test]
async fn a_client_whose_whole_request_waits_at_accept_has_its_own_program() {
    let callers = Callers::new();
    let program = callers.compile("honest", &[]);
    callers.publish(&program);
    let mut caller = callers.start(&program, USER, &["queued"]);
    caller.says_while_the_agent_sleeps("asked");
    assert_eq!(caller.verdict().await, OWN);
}

#[tokio::test]
async fn a_client_that_never_writes_again_keeps_what_its_user_gives_it() {
    let callers = Callers::new();
    assert_eq!(callers.told("honest", &["silent"]).await, USER_ONLY);
}

//= FLT-A14
#[tokio::test]
async fn a_request_queued_before_its_process_became_another_program_is_not_that_programs() {
    let callers = Callers::new();
    callers.publish(HONEST.as_ref());
    let program = callers.compile("queue_and_exec", &[]);
    for queued in [&[][..], &["acknowledge"]] {
        let mut caller = callers.start(&program, USER, queued);
        caller.says_while_the_agent_sleeps("honest");
        caller.runs_while_the_agent_sleeps(HONEST);
        caller.go_on();
        assert_eq!(caller.verdict().await, USER_ONLY, "{queued:?}");
    }
}

/// A program whose output was bound to the connection speaks, but no HTTP/2. The known limit: one that copies bytes which the
/// caller chose.
#[tokio::test]
async fn a_program_that_prints_into_a_connection_it_inherited_is_not_who_asked_unless_it_copies_the_callers_bytes() {
    const COPIER: &str = "/usr/bin/tail";
    let callers = Callers::new();
    callers.publish(&fs::canonicalize(COPIER).expect("there"));
    let program = callers.compile("bound_output", &[]);
    for (how, told) in [("print", USER_ONLY), ("copy", OWN)] {
        let directory = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::chown(directory.path(), Some(USER), Some(USER)).expect("root");
        let file = directory.path().join("appended");
        let mut caller = callers.start(&program, USER, &[file.to_str().expect("UTF-8"), how]);
        caller.says_while_the_agent_sleeps("honest");
        caller.runs_while_the_agent_sleeps(COPIER);
        caller.go_on();
        assert_eq!(caller.verdict().await, told, "{how}");
    }
}

//= FLT-A13
#[tokio::test]
async fn a_link_forged_in_a_user_namespace_of_its_own_tells_nothing() {
    let callers = Callers::new();
    callers.publish(&fs::canonicalize(HONEST).expect("there"));
    let mut caller = callers.start_preloaded("/usr/bin/true", "forged_link", &["own"]);
    let said = caller.says().await;
    if ExecutableLink::of_this_kernel() != ExecutableLink::Forgeable {
        assert!(said.starts_with("cannot"), "the agent calls this kernel safe, but: {said}");
        return;
    }
    assert_eq!(said, "forged", "the forgery as such works");
    assert_eq!(
        fs::read_link(format!("/proc/{}/exe", caller.pid())).expect("reads"),
        fs::canonicalize(HONEST).expect("there")
    );
    caller.go_on();
    assert_eq!(caller.verdict().await, USER_ONLY);
}

/// The known limit: nothing in /proc tells. Where it is possible, `where_unforgeable` tells no executables at all.
#[tokio::test]
async fn a_link_forged_by_a_child_with_the_same_memory_is_believed_only_by_who_believes_always() {
    for (executable_selectors, told) in [
        (ExecutableSelectors::Always, OWN),
        (ExecutableSelectors::WhereUnforgeable, USER_ONLY),
        (ExecutableSelectors::Never, USER_ONLY),
    ] {
        let attestor =
            UnixAttestorConfig { discover_workload_path: true, executable_selectors, ..UnixAttestorConfig::default() };
        let callers = Callers::with(attestor, ConnectionWriter::Peer);
        callers.publish(&fs::canonicalize(HONEST).expect("there"));
        let mut caller = callers.start_preloaded("/usr/bin/true", "forged_link", &["shared"]);
        let said = caller.says().await;
        if ExecutableLink::of_this_kernel() != ExecutableLink::Forgeable {
            assert!(said.starts_with("cannot"), "the agent calls this kernel safe, but: {said}");
            continue;
        }
        assert_eq!(said, "forged", "the agent calls this kernel forgeable");
        caller.go_on();
        assert_eq!(caller.verdict().await, told, "{executable_selectors:?}");
    }
}

/// What the handbook says closes the known limit.
#[tokio::test]
async fn a_link_cannot_be_forged_to_a_file_that_its_user_may_not_execute_nor_where_there_are_no_user_namespaces() {
    let callers = Callers::new();
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("opens it to all");
    let guarded = directory.path().join("guarded");
    fs::copy(HONEST, &guarded).expect("copies");
    fs::set_permissions(&guarded, Permissions::from_mode(0o744)).expect("root");
    let guarded = guarded.to_str().expect("UTF-8");
    let mut caller = callers.start_preloaded("/usr/bin/true", "forged_link", &["shared", guarded]);
    let said = caller.says().await;
    if ExecutableLink::of_this_kernel() != ExecutableLink::Forgeable {
        assert!(said.starts_with("cannot"), "the agent calls this kernel safe, but: {said}");
        return;
    }
    assert_eq!(said, "cannot forge the link: Permission denied");

    let closed = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
    let mut caller = callers.start_preloaded_in(closed, "forged_link", &["shared"]);
    assert_eq!(caller.says().await, "cannot clone: No space left on device");
}

/// The known limit: the code is the caller's, the program is not.
#[tokio::test]
async fn code_of_the_same_user_in_an_honest_program_is_that_program() {
    let callers = Callers::new();
    callers.publish(&fs::canonicalize(HONEST).expect("there"));
    assert_eq!(callers.start_preloaded(HONEST, "preload", &[]).verdict().await, OWN);
}

#[tokio::test]
async fn a_writer_forged_in_a_namespace_has_no_executable_and_outside_of_it_no_connection() {
    let callers = Callers::new();
    let outside = callers.told("forged_credentials", &["outside"]).await;
    if !users_can_make_user_namespaces() {
        assert!(
            outside.starts_with("cannot make namespaces"),
            "the agent says that users can make none, but: {outside}"
        );
        return;
    }
    assert_eq!(outside, "ended");
    assert_eq!(callers.told("forged_credentials", &["inside"]).await, USER_ONLY);
}

#[tokio::test]
async fn a_process_with_its_own_process_ids_has_no_executable() {
    let callers = Callers::new();
    let program = callers.compile("honest", &[]);
    callers.publish(&program);
    let mut caller = callers.start_behind(&["unshare", "--pid", "--fork", "--kill-child"], &program, USER);
    assert_eq!(caller.verdict().await, USER_ONLY);
}

#[tokio::test]
async fn other_mounts_are_told_of_only_where_the_operator_says_so() {
    for (executable_in_other_mounts, told) in [(false, USER_ONLY), (true, OWN)] {
        let attestor = UnixAttestorConfig {
            discover_workload_path: true,
            executable_in_other_mounts,
            ..UnixAttestorConfig::default()
        };
        let callers = Callers::with(attestor, ConnectionWriter::Peer);
        let program = callers.compile("honest", &[]);
        callers.publish(&program);
        let mut caller = callers.start_behind(&["unshare", "--mount"], &program, USER);
        assert_eq!(caller.verdict().await, told);
    }
}

#[tokio::test]
async fn a_stream_goes_on_when_its_program_is_replaced_on_disk() {
    let callers = Callers::new();
    let program = callers.compile("watch", &[]);
    callers.publish(&program);
    let mut caller = callers.start(&program, USER, &[]);
    assert_eq!(caller.verdict().await, OWN);
    // As a package manager does it: the old file keeps a second name for a while, the new one takes the first at once.
    let (new, old) = (program.with_extension("new"), program.with_extension("old"));
    fs::copy(&program, &new).expect("copies");
    fs::hard_link(&program, &old).expect("keeps");
    fs::rename(&new, &program).expect("installs");
    callers.publish(&program);
    assert_eq!(caller.verdict().await, OWN, "the name leads to another file");
    fs::remove_file(&old).expect("removes");
    callers.publish(&program);
    assert_eq!(caller.verdict().await, OWN, "what runs has no name any more");
}
