//! Child processes that do not outlive this one, however it ends.
//!
//! Each child holds the reading end of a pipe on its standard input and ends when that ends. A child that stands still (SIGSTOP)
//! would not see it; on Linux the kernel kills it, too.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

type Order = (Command, Sender<io::Result<Child>>);

/// Starts children. Linux sends a child its parent's death signal when the *thread* that started it ends, so they are all started by
/// one that lives as long as this.
pub struct Nursery {
    orders: Sender<Order>,
}

impl Nursery {
    pub fn new() -> io::Result<Self> {
        let (orders, taken): (Sender<Order>, Receiver<Order>) = channel();
        thread::Builder::new().name("nursery".to_owned()).spawn(move || {
            for (mut command, answer) in taken {
                // Nobody waiting for it: the child is dropped, and its standard input with it, upon which it ends.
                let _ = answer.send(command.spawn());
            }
        })?;
        Ok(Self { orders })
    }

    /// Starts a child with a pipe on its standard input.
    pub fn start(&self, mut command: Command) -> io::Result<Child> {
        command.stdin(Stdio::piped());
        die_with_parent(&mut command);
        let (answer, answered) = channel();
        let gone = || io::Error::other("the thread that starts children has ended");
        self.orders.send((command, answer)).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }
}

/// On Linux the kernel kills the child when the thread that starts it ends.
#[cfg(target_os = "linux")]
pub fn die_with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec the closure makes one system call and touches no memory of the parent.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
    }
}

#[cfg(not(target_os = "linux"))]
pub fn die_with_parent(_command: &mut Command) {}

/// Sends a signal to a child that has not been waited for, so that its id is still its own.
pub fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

/// SIGKILL, and its end awaited.
pub fn kill(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// Asks children to end, kills those that do not in time; returns whether all went by themselves.
pub fn end(children: &mut [Child], within: Duration) -> bool {
    for child in children.iter_mut() {
        let _ = signal(child, Signal::TERM);
        // A thread of the child's may wait for it to end.
        drop(child.stdin.take());
    }
    let deadline = Instant::now() + within;
    let mut all = true;
    for child in children {
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        if !matches!(child.try_wait(), Ok(Some(_))) {
            all = false;
            let _ = kill(child);
        }
    }
    all
}
