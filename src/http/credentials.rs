//! Credentials: who may come in, known by the hash of a token that its holder alone has.
//!
//! The file has one JSON object a line, so that a line can be added, given away and struck out by itself; empty lines and
//! those that begin with `#` are skipped. A name may stand there twice with equal rights while its token is being changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::caller::{Caller, Grants};
use crate::model::ident::CredentialName;

/// What every token begins with: tools that look for leaked secrets find it by that.
const TOKEN_PREFIX: &str = "quorate_";
/// Bytes of chance in a token. So many that its hash needs no salt and no slowness.
const TOKEN_LEN: usize = 32;

/// Credentials that may change while a server runs.
pub type CurrentCredentials = Arc<ArcSwap<Credentials>>;

type Hash = [u8; SHA256_OUTPUT_LEN];

/// All that may come in.
pub struct Credentials {
    entries: Vec<(Hash, Caller)>,
}

/// Why a text holds no credentials. It says where and never what stands there: somebody may have put a token in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    #[error("line {line}: not a credential; `quorate credential new NAME` prints one")]
    Malformed { line: usize },
    #[error("line {line}: sha256 is not that of a token: 64 hexadecimal digits are wanted")]
    NoHash { line: usize },
    #[error("line {line}: the same token as on an earlier line")]
    SameToken { line: usize },
    #[error("line {line}: {name} stands there already with other rights: a name has one set of them")]
    OtherRights { line: usize, name: CredentialName },
    #[error("no credential in it: with it, nobody could come in")]
    Empty,
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: CredentialName,
    sha256: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    read: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    write: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    admin: bool,
}

/// A new credential: the token for its holder, to be shown once, and the line for the server's file.
pub struct Minted {
    pub token: String,
    pub line: String,
}

/// Makes a credential of these rights.
pub fn mint(grants: &Grants) -> Minted {
    let mut chance = [0; TOKEN_LEN];
    SystemRandom::new().fill(&mut chance).expect("the operating system has randomness");
    let token = format!("{TOKEN_PREFIX}{}", HEXLOWER.encode(&chance));
    let line = Line {
        name: grants.name.clone(),
        sha256: HEXLOWER.encode(&hash(token.as_bytes())),
        read: grants.read.clone(),
        write: grants.write.clone(),
        admin: grants.admin,
    };
    Minted { token, line: serde_json::to_string(&line).expect("a credential is plain data") }
}

impl Credentials {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let mut entries = Vec::<(Hash, Caller)>::new();
        let mut names = BTreeMap::<CredentialName, Arc<Grants>>::new();
        for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text.trim())) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let parsed = serde_json::from_str::<Line>(text).map_err(|_| CredentialsError::Malformed { line })?;
            let hash = HEXLOWER_PERMISSIVE.decode(parsed.sha256.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
            let hash: Hash = hash.ok_or(CredentialsError::NoHash { line })?;
            if entries.iter().any(|(known, _)| *known == hash) {
                return Err(CredentialsError::SameToken { line });
            }
            let Line { name, read, write, admin, .. } = parsed;
            let grants = Arc::new(Grants { name, read, write, admin });
            let known = names.entry(grants.name.clone()).or_insert_with(|| grants.clone());
            if *known != grants {
                return Err(CredentialsError::OtherRights { line, name: grants.name.clone() });
            }
            entries.push((hash, Caller::holding(known.clone())));
        }
        if entries.is_empty() { Err(CredentialsError::Empty) } else { Ok(Self { entries }) }
    }

    /// Whose token this is. How long that takes tells nothing about any of them: hashes are compared, all of them, to the end.
    pub fn find(&self, token: &[u8]) -> Option<&Caller> {
        let hash = hash(token);
        let mut found = u64::MAX;
        for (at, (known, _)) in self.entries.iter().enumerate() {
            found.conditional_assign(&(at as u64), known.ct_eq(&hash));
        }
        self.entries.get(usize::try_from(found).ok()?).map(|(_, caller)| caller)
    }
}

fn hash(token: &[u8]) -> Hash {
    digest(&SHA256, token).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(name: &str, write: &str) -> Grants {
        Grants { name: name.parse().unwrap(), read: vec![], write: vec![write.to_owned()], admin: false }
    }

    #[test]
    fn a_minted_token_finds_its_rights_and_no_other_does() {
        let (team, other) = (mint(&grants("team", "team/")), mint(&grants("other", "")));
        let file = format!("# who may come in\n\n{}\n  {}\n", team.line, other.line);
        assert!(!file.contains(&team.token));
        let credentials = Credentials::parse(&file).unwrap();
        let found = credentials.find(team.token.as_bytes()).unwrap();
        assert_eq!(found.name().unwrap().as_str(), "team");
        assert!(found.may_write("team/x") && !found.may_write("x"));
        assert_eq!(credentials.find(other.token.as_bytes()).unwrap().name().unwrap().as_str(), "other");
        assert!(credentials.find(b"").is_none() && credentials.find(&team.token.as_bytes()[1..]).is_none());
        assert_ne!(mint(&grants("team", "")).token, mint(&grants("team", "")).token);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_without_what_stands_there() {
        let good = mint(&grants("team", "team/")).line;
        let second = mint(&grants("team", "team/")).line;
        assert!(Credentials::parse(&format!("{good}\n{second}")).is_ok(), "a token that is being changed");
        let wider = mint(&grants("team", "")).line;
        let name = "team".parse().unwrap();
        for (text, expected) in [
            (String::new(), CredentialsError::Empty),
            ("# none".to_owned(), CredentialsError::Empty),
            (format!("{good}\nquorate_secret"), CredentialsError::Malformed { line: 2 }),
            (r#"{"name":"a","token":"quorate_secret"}"#.to_owned(), CredentialsError::Malformed { line: 1 }),
            (r#"{"name":"a","sha256":"quorate_secret"}"#.to_owned(), CredentialsError::NoHash { line: 1 }),
            (format!("{good}\n{good}"), CredentialsError::SameToken { line: 2 }),
            (format!("{good}\n{wider}"), CredentialsError::OtherRights { line: 2, name }),
        ] {
            let error = Credentials::parse(&text).err().unwrap();
            assert_eq!(error, expected, "{text}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}
