//! A lab that stays up for whoever wants to see more.

use std::io::{self, BufRead, Write};
use std::sync::mpsc;
use std::time::Duration;

use ironroot_lab::deployment::binary;

use super::Outcome;
use super::chapters::{ALICE, Lab};

/// Says how to look around, and waits for Enter or Ctrl-C.
pub(super) fn look_around(lab: &Lab, interruption: &mpsc::Receiver<()>) -> Outcome<()> {
    let (server, device) = (&lab.server, &lab.device);
    let admin = format!("-socketPath {}", server.socket().display());
    let verbs = |verbs: &str| format!("  {} {verbs} {admin}", binary("ironroot-server").display());
    let mut lines = vec!["\nThe lab stays up. Look around from another terminal:\n".to_owned()];
    lines.extend(["agent list", "entry show", "device list", "bundle show", "console -write"].map(verbs));
    lines.push(format!(
        "  setpriv --reuid={ALICE} --regid={ALICE} --clear-groups {} api fetch x509 -socketPath {}",
        binary("ironroot-agent").display(),
        device.socket().display()
    ));
    lines.push(format!("  tail -f {}\n\nEnter or Ctrl-C ends it: ", device.log_path().display()));
    let mut out = io::stdout().lock();
    out.write_all(lines.join("\n").as_bytes())?;
    out.flush()?;
    drop(out);
    wait_for_enter(interruption);
    Ok(())
}

/// Until somebody presses Enter, closes standard input, or presses Ctrl-C.
fn wait_for_enter(interruption: &mpsc::Receiver<()>) {
    let (sender, entered) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_line(&mut String::new());
        let _ = sender.send(());
    });
    while entered.try_recv().is_err() && interruption.recv_timeout(Duration::from_millis(50)).is_err() {}
}
