//! Messages on their way: resolved where they were sent, carried to every node, put into the inboxes there.
//!
//! [`office`] finds out who holds the name or is in the group, and hands the message to this node's [`hub`] and, by [`lines`], to
//! those of its peers. A node drops a message whose grant it knows to have ended.

mod hub;
mod lines;
mod office;

pub use office::PostOffice;
