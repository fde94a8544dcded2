//! A command that measures a model in a process of its own, so that the memory of that process is that model's.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use switchable_quant::reader::running::stop::StopFlag;

/// How often a process is asked whether it has ended.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs this program again with its arguments and some more, and gives back what that prints. What it says on
/// standard error goes where this program's does.
///
/// # Errors
///
/// When it cannot be started, fails, or this program is asked to stop.
pub fn run_again(more: &[&str], stop: &StopFlag) -> anyhow::Result<String> {
    let program = std::env::current_exe().context("the program that measures a model")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = Running(command.spawn().context("a process that measures a model")?);
    // It ends when this pipe does, so that none is left behind where this program is killed.
    let _alive = child.0.stdin.take();
    let mut output = child.0.stdout.take().context("what the process prints")?;
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let status = loop {
        stop.check()?;
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        std::thread::sleep(PAUSE);
    };
    // Ctrl-C reaches both, and the other may have ended of it first.
    if !status.success() {
        std::thread::sleep(PAUSE);
        stop.check()?;
    }
    ensure!(status.success(), "the process that measures a model ended with {status}; its error stands above");
    let text = reading.join().map_err(|_| anyhow::anyhow!("what the process prints cannot be read"))??;
    Ok(text)
}

/// Ends this process when the one that started it does.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let ended = std::io::stdin().read(&mut [0]);
        if matches!(ended, Ok(0) | Err(_)) {
            std::process::exit(1);
        }
    });
}

/// A process that is ended when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
