//! Which servers, which registry, and how the answer is printed: what all commands of the registry share.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Exit;
use super::render::Form;
use crate::client::call::Cause;
use crate::client::client::{Builder, Client};
use crate::client::error::Error;
use crate::model::ident::{Mode, Token};
use crate::wire::status::Code;

#[derive(Args, Clone, Debug)]
pub struct Connect {
    /// The registry: cp (linearizable) or ap (always answers)
    #[arg(long, env = "QUORATE_MODE", default_value = "cp")]
    pub mode: Mode,
    #[command(flatten)]
    servers: Servers,
    /// When to give up
    #[arg(long, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=30_000))]
    timeout_ms: u64,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Which servers, and how they are approached.
#[derive(Args, Clone, Debug)]
pub struct Servers {
    /// Servers of one cluster; if one cannot help, the next is asked
    #[arg(
        long,
        env = "QUORATE_ENDPOINTS",
        value_name = "URL,…",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7401"
    )]
    endpoints: Vec<String>,
    /// A file with the token of the credential to show; or set QUORATE_CREDENTIAL to the token itself
    #[arg(long, value_name = "FILE")]
    credential_file: Option<PathBuf>,
    /// The roots (PEM) by which servers at https:// are believed
    #[arg(long, env = "QUORATE_TLS_ROOTS", value_name = "FILE")]
    tls_roots: Option<PathBuf>,
    /// The client's own certificate (PEM), for servers that ask for one
    #[arg(long, env = "QUORATE_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, env = "QUORATE_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// The files that hold what servers are shown, and by what they are believed.
#[derive(Clone, Copy, Debug)]
pub struct Papers<'a> {
    pub credential: Option<&'a Path>,
    pub roots: Option<&'a Path>,
    pub cert: Option<&'a Path>,
    pub key: Option<&'a Path>,
}

/// What was typed does not fit together.
#[derive(Debug)]
pub struct Misused(pub String);

impl<T: std::fmt::Display> From<T> for Misused {
    fn from(why: T) -> Self {
        Misused(why.to_string())
    }
}

impl Connect {
    /// The client that was asked for.
    pub fn client(&self) -> Result<Client, Misused> {
        self.servers.client(self.mode, Duration::from_millis(self.timeout_ms))
    }

    pub fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Human }
    }

    /// A token of the registry that was chosen.
    pub fn token(&self, text: Option<&str>) -> Result<Option<Token>, Misused> {
        Ok(text.map(|text| Token::parse(self.mode, text)).transpose()?)
    }
}

impl Servers {
    /// A client of theirs.
    pub fn client(&self, mode: Mode, timeout: Duration) -> Result<Client, Misused> {
        let papers = Papers {
            credential: self.credential_file.as_deref(),
            roots: self.tls_roots.as_deref(),
            cert: self.tls_cert.as_deref(),
            key: self.tls_key.as_deref(),
        };
        if papers.roots.is_none()
            && let Some(url) = self.endpoints.iter().find(|url| url.starts_with("https://"))
        {
            return Err(Misused(format!(
                "{url} speaks TLS: --tls-roots says by which roots its certificate is believed"
            )));
        }
        let builder = Client::builder().endpoints(&self.endpoints).mode(mode).timeout(timeout);
        Ok(papers.shown_by(builder)?.build()?)
    }
}

impl Papers<'_> {
    /// A client that shows what is in the files.
    pub fn shown_by(self, mut builder: Builder) -> Result<Builder, Misused> {
        let credential = match self.credential {
            Some(file) => Some(String::from_utf8_lossy(&read(file)?).trim().to_owned()),
            // Not a flag: every user of a machine can read what others type.
            None => std::env::var("QUORATE_CREDENTIAL").ok(),
        };
        if let Some(token) = credential {
            builder = builder.credential(token);
        }
        if let Some(roots) = self.roots {
            builder = builder.tls_roots(read(roots)?);
        }
        if let (Some(certificate), Some(key)) = (self.cert, self.key) {
            builder = builder.tls_identity(read(certificate)?, read(key)?);
        }
        Ok(builder)
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Misused> {
    std::fs::read(file).map_err(|why| Misused(format!("{} cannot be read: {why}", file.display())))
}

/// Runs what was understood, or says why it was not.
pub fn run<F>(understood: Result<F, Misused>) -> anyhow::Result<Exit>
where
    F: Future<Output = anyhow::Result<Exit>>,
{
    match understood {
        Ok(work) => super::runtime()?.block_on(work),
        Err(Misused(why)) => {
            eprintln!("quorate: {why}");
            Ok(Exit::Usage)
        }
    }
}

/// Says on one line why nothing came of a call and what may help, and tells the exit code.
pub fn failed(error: &Error) -> Exit {
    // What may help goes on where a server's sentence ends.
    let with = |help: &str| match help {
        "" => eprintln!("quorate: {error}"),
        _ => eprintln!("quorate: {}; {help}", error.to_string().trim_end_matches('.')),
    };
    match error {
        Error::Refused(_) => {
            eprintln!("quorate: {error}");
            Exit::No
        }
        Error::NotApplied(cause) | Error::Unanswered(cause) => {
            with(mend(cause));
            Exit::NotDone
        }
        Error::Unknown(cause) => {
            with(mend(cause));
            Exit::Unknown
        }
        Error::Word(_) => {
            eprintln!("quorate: {error}");
            Exit::Usage
        }
    }
}

/// What may help, if that is not plain from the cause itself.
fn mend(cause: &Cause) -> &'static str {
    use crate::registry::Reason;
    match cause {
        Cause::Unreachable(_) => "is a server running there? --endpoints says where to look",
        Cause::Late => "a longer --timeout-ms or another of --endpoints may help",
        Cause::Lost(_) => "look what became of it",
        Cause::Garbled(_) => "is it a server of this version?",
        Cause::Server(reason) => match reason {
            Reason::NoQuorum | Reason::NoLeader => {
                "name other servers by --endpoints, or ask for less: --mode ap, --consistency stale, a smaller --r"
            }
            Reason::Overloaded | Reason::Starting => "try again in a moment",
            Reason::Behind { .. } | Reason::Timeout | Reason::NotLeader { .. } | Reason::Internal(_) => "",
        },
        Cause::Rejected { code: Code::Unauthorized, .. } => "--credential-file names the file with the token to show",
        Cause::Rejected { .. } => "",
    }
}
