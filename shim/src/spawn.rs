//! Child processes that cannot outlive the shim.
//!
//! A child is the leader of a process group of its own, is killed by the kernel when the shim dies in any way
//! (`PR_SET_PDEATHSIG`), and is reaped by a thread of its own. All children are started by one thread that never
//! ends, because the kernel sends that signal when the **thread** that forked ends.

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpid, kill_process_group, waitid};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use tokio::sync::watch;

/// A running child. Dropping it kills its group.
pub(crate) struct Process {
    shared: Arc<Shared>,
    exit: watch::Receiver<Option<String>>,
}

struct Shared {
    pid: Pid,
    /// Held while signalling and while reaping: a process id is never signalled after it has been given back.
    reaped: Mutex<bool>,
}

impl Process {
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        command.process_group(0);
        die_with_parent(&mut command);
        let child = on_spawner(command)?;
        let pid = Pid::from_child(&child);
        let shared = Arc::new(Shared {
            pid,
            reaped: Mutex::new(false),
        });
        let (sender, exit) = watch::channel(None);
        let reaper = shared.clone();
        thread::Builder::new()
            .name("reaper".into())
            .spawn(move || {
                let how = reaper.reap(child);
                // Nobody may be interested any more.
                let _ = sender.send(Some(how));
            })?;
        Ok(Self { shared, exit })
    }

    /// How it ended, once it has.
    pub(crate) fn exit(&self) -> watch::Receiver<Option<String>> {
        self.exit.clone()
    }

    /// Kills the whole group at once.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        let reaped = self
            .shared
            .reaped
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            // It may be a zombie already, which is as dead as wanted.
            let _ = kill_process_group(self.shared.pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn reap(&self, mut child: Child) -> String {
        // Waits without giving the process id back, so that the lock is held only for the moment in which it is.
        while let Err(rustix::io::Errno::INTR) = waitid(
            WaitId::Pid(self.pid),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        ) {}
        let mut reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever it has started goes with it.
        let _ = kill_process_group(self.pid, Signal::KILL);
        let how = child.wait().map_or_else(
            |e| format!("cannot be waited for: {e}"),
            |status| status.to_string(),
        );
        *reaped = true;
        how
    }
}

type Job = (Command, SyncSender<io::Result<Child>>);

/// Starts a command on the thread that never ends.
fn on_spawner(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, result) = sync_channel(1);
    let gone = || io::Error::other("the spawning thread is gone");
    spawner.send((command, answer)).map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}

#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let shim = getpid();
    let set = move || {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // Died in between: then the signal will never come.
        if rustix::process::getppid() != Some(shim) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe functions may be called. It
    // makes two system calls and neither allocates nor locks: both errors are made without allocation.
    unsafe {
        command.pre_exec(set);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;

    async fn ended(process: &Process) -> String {
        let mut exit = process.exit();
        let how = tokio::time::timeout(Duration::from_secs(10), exit.wait_for(Option::is_some))
            .await
            .unwrap()
            .unwrap();
        how.clone().unwrap()
    }

    fn sh(script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Process::spawn(command).unwrap()
    }

    #[tokio::test]
    async fn exits_and_kills_are_reported() {
        assert_eq!(ended(&sh("exit 3")).await, "exit status: 3");
        let sleeper = sh("sleep 1000");
        sleeper.terminate();
        assert!(ended(&sleeper).await.contains("15"));
        assert!(Process::spawn(Command::new("/does/not/exist")).is_err());
    }

    #[tokio::test]
    async fn a_child_s_children_go_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let process = sh(&format!(
            "sleep 1000 & echo $! > {f}.tmp; mv {f}.tmp {f}; wait",
            f = file.display()
        ));
        let pid = loop {
            match std::fs::read_to_string(&file) {
                Ok(text) => break text.trim().to_owned(),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        process.kill();
        assert!(ended(&process).await.contains('9'));
        // Dead or a zombie that init has yet to reap.
        for _ in 0..100 {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            if stat.map_or(true, |s| {
                s.rsplit(") ").next().is_some_and(|s| s.starts_with('Z'))
            }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("grandchild {pid} still runs");
    }
}
