//! Who calls, and what that caller may do: found out once, at the door, and carried with the request.

use std::sync::Arc;

use axum::http::request::Parts;

use crate::model::ident::CredentialName;

/// What a credential allows. Prefixes are of names and of groups alike, compared byte by byte; the empty one means all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    pub name: CredentialName,
    pub read: Vec<String>,
    pub write: Vec<String>,
    /// May do everything: read and write all, end anybody's leases, change the cluster and its faults.
    pub admin: bool,
}

/// The caller of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller(Option<Arc<Grants>>);

impl Caller {
    /// A caller of a server that asks for no credentials: may do everything.
    pub fn anybody() -> Self {
        Self(None)
    }

    /// Who has shown this credential.
    pub fn holding(grants: Arc<Grants>) -> Self {
        Self(Some(grants))
    }

    /// The caller that the door has noted in the request. A request that came by no door is nobody's in particular.
    pub fn of(parts: &Parts) -> Self {
        parts.extensions.get::<Caller>().cloned().unwrap_or_else(Self::anybody)
    }

    pub fn is_admin(&self) -> bool {
        self.0.as_ref().is_none_or(|grants| grants.admin)
    }

    /// Whose the leases are that this caller makes. None: no credentials are asked for here.
    pub fn name(&self) -> Option<CredentialName> {
        self.0.as_ref().map(|grants| grants.name.clone())
    }

    /// On whose word leases are kept alive and revoked. None: on that of somebody who may do so with anybody's.
    pub fn acts_as(&self) -> Option<CredentialName> {
        if self.is_admin() { None } else { self.name() }
    }

    /// Whether it may read what stands under this name or group. To write something is to be allowed to read it.
    pub fn may_read(&self, key: &str) -> bool {
        self.may(key, |grants| grants.read.iter().chain(&grants.write))
    }

    /// Whether it may change what stands under this name or group.
    pub fn may_write(&self, key: &str) -> bool {
        self.may(key, |grants| grants.write.iter().chain(&[]))
    }

    /// The prefixes of what it may read. None: it may read everything.
    pub fn readable(&self) -> Option<Vec<&str>> {
        let grants = self.0.as_ref().filter(|grants| !grants.admin)?;
        Some(grants.read.iter().chain(&grants.write).map(String::as_str).collect())
    }

    fn may<'g, I: Iterator<Item = &'g String>>(&'g self, key: &str, prefixes: impl Fn(&'g Grants) -> I) -> bool {
        match &self.0 {
            None => true,
            Some(grants) => grants.admin || prefixes(grants).any(|prefix| key.starts_with(prefix.as_str())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_allows_what_its_prefixes_say_and_no_more() {
        let grants = |read: &[&str], write: &[&str], admin| {
            let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let name = "team".parse().unwrap();
            Caller::holding(Arc::new(Grants { name, read: texts(read), write: texts(write), admin }))
        };
        let team = grants(&["shared/"], &["team/"], false);
        assert!(team.may_read("shared/x") && team.may_read("team/x") && team.may_write("team/x"));
        assert!(!team.may_write("shared/x") && !team.may_read("tea") && !team.may_read("other"));
        assert_eq!((team.name(), team.acts_as()), (Some("team".parse().unwrap()), Some("team".parse().unwrap())));
        let admin = grants(&[], &[], true);
        assert!(admin.may_write("other") && admin.acts_as().is_none() && admin.name().is_some());
        assert!(Caller::anybody().may_write("") && Caller::anybody().is_admin());
    }
}
