//! ZooKeeper's protocol, as much of it as a registry needs: frames of big-endian numbers and counted strings.
//!
//! A client of the referee has to know of each request whether anything of it was sent, and nothing may be sent twice: so it is spoken
//! here, and not by a library that keeps sessions alive by itself.

use anyhow::{Context, bail, ensure};

/// Why the server did not do what it was asked to.
pub const NO_NODE: i32 = -101;
pub const BAD_VERSION: i32 = -103;
pub const NODE_EXISTS: i32 = -110;

const CREATE: i32 = 1;
const DELETE: i32 = 2;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const SYNC: i32 = 9;
const CHECK: i32 = 13;
const MULTI: i32 = 14;
const ERROR: i32 = -1;
/// Whatever the version.
const ANY: i32 = -1;
/// Longer answers are not ours.
const FRAME_LEN_MAX: usize = 16 << 20;

/// What can be asked of a server. A node is its path.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Create {
        path: String,
        data: String,
    },
    Delete {
        path: String,
    },
    Exists {
        path: String,
    },
    Get {
        path: String,
    },
    Children {
        path: String,
    },
    /// Writes nothing that matters, and counts the node's version up.
    Touch {
        path: String,
    },
    /// Nothing, if the node has that version; within `Multi` alone.
    Check {
        path: String,
        version: i32,
    },
    /// Has the server catch up with the leader.
    Sync {
        path: String,
    },
    /// All or nothing.
    Multi(Vec<Request>),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    Done,
    Stat(Stat),
    Data(String, Stat),
    Children(Vec<String>),
    Multi(Vec<Answer>),
    /// The server's number for why not.
    Refused(i32),
}

/// What is known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The transaction that created it.
    pub created: i64,
    /// The transaction that touched it last.
    pub changed: i64,
    pub version: i32,
}

/// The first frame of a connection: a new session.
pub fn hello(timeout_ms: i32) -> Vec<u8> {
    let mut frame = Writer::default();
    frame.int(0);
    frame.long(0);
    frame.int(timeout_ms);
    frame.long(0);
    frame.bytes(&[0; 16]);
    frame.bool(false);
    frame.frame()
}

/// Err if the answer to [`hello`] grants no session.
pub fn welcomed(body: &[u8]) -> anyhow::Result<()> {
    let mut reader = Reader(body);
    let (_version, timeout, session) = (reader.int()?, reader.int()?, reader.long()?);
    ensure!(timeout > 0 && session != 0, "the server grants no session");
    Ok(())
}

/// A frame that asks.
pub fn asked(number: i32, request: &Request) -> Vec<u8> {
    let mut frame = Writer::default();
    frame.int(number);
    frame.int(request.code());
    request.write(&mut frame);
    frame.frame()
}

/// What the answer to a request says; it has to bear the request's number.
pub fn answered(number: i32, request: &Request, body: &[u8]) -> anyhow::Result<Answer> {
    let mut reader = Reader(body);
    let (told, _zxid, error) = (reader.int()?, reader.long()?, reader.int()?);
    ensure!(told == number, "the answer to another request");
    match error {
        0 => request.read(&mut reader),
        error => Ok(Answer::Refused(error)),
    }
}

/// How long the frame is that begins so.
pub fn frame_len(head: [u8; 4]) -> anyhow::Result<usize> {
    let len = usize::try_from(i32::from_be_bytes(head)).context("a frame of negative length")?;
    ensure!(len <= FRAME_LEN_MAX, "a frame of {len} bytes");
    Ok(len)
}

impl Request {
    fn code(&self) -> i32 {
        match self {
            Request::Create { .. } => CREATE,
            Request::Delete { .. } => DELETE,
            Request::Exists { .. } => EXISTS,
            Request::Get { .. } => GET_DATA,
            Request::Children { .. } => GET_CHILDREN,
            Request::Touch { .. } => SET_DATA,
            Request::Check { .. } => CHECK,
            Request::Sync { .. } => SYNC,
            Request::Multi(_) => MULTI,
        }
    }

    fn write(&self, to: &mut Writer) {
        match self {
            Request::Create { path, data } => {
                to.text(path);
                to.bytes(data.as_bytes());
                // Open to the world: one entry, all rights.
                to.int(1);
                to.int(31);
                to.text("world");
                to.text("anyone");
                // Persistent, as named.
                to.int(0);
            }
            Request::Delete { path } => {
                to.text(path);
                to.int(ANY);
            }
            Request::Exists { path } | Request::Get { path } | Request::Children { path } => {
                to.text(path);
                to.bool(false);
            }
            Request::Touch { path } => {
                to.text(path);
                to.bytes(&[]);
                to.int(ANY);
            }
            Request::Check { path, version } => {
                to.text(path);
                to.int(*version);
            }
            Request::Sync { path } => to.text(path),
            Request::Multi(parts) => {
                for part in parts {
                    to.multi_header(part.code(), false);
                    part.write(to);
                }
                to.multi_header(ERROR, true);
            }
        }
    }

    fn read(&self, from: &mut Reader) -> anyhow::Result<Answer> {
        Ok(match self {
            Request::Exists { .. } | Request::Touch { .. } => Answer::Stat(from.stat()?),
            Request::Get { .. } => Answer::Data(String::from_utf8(from.bytes()?.to_vec())?, from.stat()?),
            Request::Children { .. } => {
                let count = from.int()?;
                Answer::Children((0..count).map(|_| from.text()).collect::<anyhow::Result<_>>()?)
            }
            Request::Create { .. } | Request::Sync { .. } => {
                from.text()?;
                Answer::Done
            }
            Request::Delete { .. } | Request::Check { .. } => Answer::Done,
            Request::Multi(parts) => {
                let mut answers = Vec::new();
                for part in parts {
                    let (code, done, _) = (from.int()?, from.bool()?, from.int()?);
                    ensure!(!done, "fewer answers than requests");
                    answers.push(if code == ERROR { Answer::Refused(from.int()?) } else { part.read(from)? });
                }
                Answer::Multi(answers)
            }
        })
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn int(&mut self, number: i32) {
        self.0.extend(number.to_be_bytes());
    }

    fn long(&mut self, number: i64) {
        self.0.extend(number.to_be_bytes());
    }

    fn bool(&mut self, yes: bool) {
        self.0.push(u8::from(yes));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        // What is asked here is never long.
        self.int(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        self.0.extend(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn multi_header(&mut self, code: i32, done: bool) {
        self.int(code);
        self.bool(done);
        self.int(-1);
    }

    fn frame(self) -> Vec<u8> {
        let mut frame = Writer::default();
        frame.bytes(&self.0);
        frame.0
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> anyhow::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).context("the answer ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn int(&mut self) -> anyhow::Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    fn long(&mut self) -> anyhow::Result<i64> {
        Ok(i64::from_be_bytes(self.take(8)?.try_into()?))
    }

    fn bool(&mut self) -> anyhow::Result<bool> {
        Ok(self.take(1)? != [0])
    }

    fn bytes(&mut self) -> anyhow::Result<&'a [u8]> {
        match self.int()? {
            // None at all.
            -1 => Ok(&[]),
            len if len >= 0 => self.take(len as usize),
            len => bail!("{len} bytes"),
        }
    }

    fn text(&mut self) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.bytes()?.to_vec())?)
    }

    /// czxid mzxid ctime mtime version cversion aversion ephemeralOwner dataLength numChildren pzxid
    fn stat(&mut self) -> anyhow::Result<Stat> {
        let (created, changed) = (self.long()?, self.long()?);
        self.take(16)?;
        let version = self.int()?;
        self.take(32)?;
        Ok(Stat { created, changed, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_frame_with_its_number_and_kind() {
        let asking = asked(7, &Request::Exists { path: "/n".to_owned() });
        assert_eq!(asking, [0, 0, 0, 15, 0, 0, 0, 7, 0, 0, 0, 3, 0, 0, 0, 2, b'/', b'n', 0]);
    }

    #[test]
    fn what_a_server_sends_is_believed_no_further_than_it_goes() {
        let get = Request::Get { path: "/n".to_owned() };
        let mut told = Writer::default();
        told.int(7);
        told.long(1);
        told.int(0);
        told.int(9_999);
        assert!(answered(7, &get, &told.0).is_err());
        assert!(answered(8, &get, &told.0).unwrap_err().to_string().contains("another request"));
        assert!(frame_len([0x7f, 0xff, 0xff, 0xff]).is_err() && frame_len([0xff; 4]).is_err());
    }

    #[test]
    fn each_part_of_a_refused_whole_says_why() {
        let parts =
            vec![Request::Check { path: "/c".to_owned(), version: 3 }, Request::Delete { path: "/n".to_owned() }];
        let mut told = Writer::default();
        told.int(7);
        told.long(1);
        told.int(0);
        for error in [BAD_VERSION, -2] {
            told.multi_header(ERROR, false);
            told.int(error);
        }
        told.multi_header(ERROR, true);
        let refused = Answer::Multi(vec![Answer::Refused(BAD_VERSION), Answer::Refused(-2)]);
        assert_eq!(answered(7, &Request::Multi(parts), &told.0).unwrap(), refused);
    }
}
