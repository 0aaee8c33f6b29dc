//! `console`.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ironroot_api::pb::server_status::GetStatusRequest;
use ironroot_api::pb::server_status::status_client::StatusClient;
use ironroot_shell::command_line::{CommandError, Output, Reply, block_on, within};
use ironroot_shell::process::stop_asked;
use serde_json::json;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::connection::Connection;
use crate::console::{Console as FleetPage, ConsoleOptions, LINK_MINUTES};

/// Longest the server may take to answer before the console starts, seconds.
const PATIENCE_SECONDS: u64 = 20;
/// Links asked for that wait to be printed.
const ASKED_LINKS: usize = 1;

/// Shows the fleet in a browser of this machine: devices, what they boot, entries, authorities.
#[derive(Debug, Args)]
#[command(
    after_help = "It has the rights of whoever starts it: run it as root or the server's user. It prints a link that opens once; Enter prints \
        another. From your own machine, first: ssh -L 8182:127.0.0.1:8182 root@SERVER, and then open the link there.

Example: ironroot-server console
Example: ironroot-server console -write -auditLog /var/log/ironroot/audit.log"
)]
pub(super) struct Console {
    #[command(flatten)]
    connection: Connection,
    /// Port of 127.0.0.1; 0: one that is free
    #[arg(long, value_name = "PORT", default_value = "8182")]
    port: u16,
    /// Let devices be approved and banned in it
    #[arg(long)]
    write: bool,
    /// The server's audit_log_file, to show what was done to a device
    #[arg(long = "auditLog", value_name = "PATH")]
    audit_log: Option<PathBuf>,
}

impl Console {
    pub(super) fn execute(self) -> ExitCode {
        Reply::print(&block_on(self.run()), Output::Pretty)
    }

    async fn run(self) -> Result<Reply, CommandError> {
        let channel = self.connection.open().await?;
        within(PATIENCE_SECONDS, answers(channel.clone())).await?;
        let options = ConsoleOptions { channel, port: self.port, may_write: self.write, audit_file: self.audit_log };
        let bound = FleetPage::bind(options).await;
        let page = bound.map_err(|error| {
            let port = self.port;
            CommandError::Usage(format!(
                "cannot listen on 127.0.0.1:{port}: {error}; choose another with -port, or -port 0"
            ))
        })?;
        let stop = stop_asked().map_err(CommandError::run)?;
        tokio::select! {
            () = stop => {}
            ended = page.serve() => ended.map_err(CommandError::run)?,
            ended = print_links(&page, self.connection.output()) => ended.map_err(CommandError::run)?,
        }
        Ok(Reply::new(json!({}), ""))
    }
}

/// A server that does not answer is told before there is a page.
async fn answers(channel: Channel) -> Result<(), CommandError> {
    StatusClient::new(channel).get_status(GetStatusRequest {}).await?;
    Ok(())
}

/// Prints a link now, and one each time Enter is pressed.
async fn print_links(page: &FleetPage, form: Output) -> io::Result<()> {
    let mut asked = enters();
    loop {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", told(&page.link(), form))?;
        out.flush()?;
        drop(out);
        if asked.recv().await.is_none() {
            // Nobody can ask: what was given stays good.
            std::future::pending::<()>().await;
        }
    }
}

fn told(link: &str, form: Output) -> String {
    match form {
        Output::Json => json!({ "url": link }).to_string(),
        Output::Pretty => {
            format!("{link}\nopens the fleet page, once, within {LINK_MINUTES} minutes. Enter: another link.")
        }
    }
}

/// A message for each line of standard input.
fn enters() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(ASKED_LINKS);
    std::thread::spawn(move || {
        for _line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(()).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_reads_the_link_as_json() {
        assert_eq!(told("http://127.0.0.1:1/open/x", Output::Json), r#"{"url":"http://127.0.0.1:1/open/x"}"#);
        assert!(told("http://x", Output::Pretty).starts_with("http://x\nopens the fleet page"));
    }
}
