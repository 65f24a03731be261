//! Namespaces of the kernel: the system calls alone. Other systems than Linux have none.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;

/// A network namespace that has no name: it goes when the last process and descriptor in it have gone.
#[derive(Clone, Debug)]
pub struct Space(Arc<OwnedFd>);

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::{self, File};
    use std::os::fd::AsFd;
    use std::os::unix::process::CommandExt;
    use std::thread;

    use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

    use super::*;

    /// Moves this process into new namespaces. Threads take after the one that starts them, so it is refused once there are several.
    fn leave(flags: UnshareFlags) -> io::Result<()> {
        if fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other("only a process with one thread can move as a whole"));
        }
        // SAFETY: the flags given share nothing of memory or descriptors.
        unsafe { Ok(unshare_unsafe(flags)?) }
    }

    /// Moves this process into a network namespace of its own, where there is nothing yet.
    pub fn own_network() -> io::Result<()> {
        leave(UnshareFlags::NEWNET)
    }

    /// Moves this process into a mount namespace of its own: what it mounts is seen by it and its children alone.
    pub fn own_mounts() -> io::Result<()> {
        leave(UnshareFlags::NEWNS)?;
        let private = Command::new("mount").args(["--make-rprivate", "/"]).status()?;
        private.success().then_some(()).ok_or_else(|| io::Error::other("mount --make-rprivate / did not succeed"))
    }

    impl Space {
        pub fn new() -> io::Result<Self> {
            let made = thread::spawn(|| {
                // SAFETY: as above; and the thread ends here, so that nothing else is done in the new namespace.
                unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
                File::open("/proc/thread-self/ns/net")
            });
            Ok(Self(Arc::new(joined(made)?.into())))
        }

        /// Has a child begin in the namespace.
        pub fn enter(&self, command: &mut Command) {
            let space = self.clone();
            // SAFETY: between fork and exec the closure makes one system call and touches no memory of the parent.
            unsafe {
                command.pre_exec(move || space.join());
            }
        }

        /// Does something in the namespace: the sockets that it makes stay there, whoever uses them.
        pub fn within<T: Send + 'static>(&self, act: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
            let space = self.clone();
            joined(thread::spawn(move || {
                space.join()?;
                act()
            }))
        }

        fn join(&self) -> io::Result<()> {
            Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
        }
    }

    fn joined<T>(thread: thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace has panicked")))
    }
}

#[cfg(target_os = "linux")]
pub use linux::{own_mounts, own_network};

#[cfg(not(target_os = "linux"))]
mod others {
    use super::*;

    pub fn own_network() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn own_mounts() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    impl Space {
        pub fn new() -> io::Result<Self> {
            Err(io::ErrorKind::Unsupported.into())
        }

        pub fn enter(&self, _command: &mut Command) {}

        pub fn within<T: Send + 'static>(
            &self,
            _act: impl FnOnce() -> io::Result<T> + Send + 'static,
        ) -> io::Result<T> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub use others::{own_mounts, own_network};
