//! Who asks, and as whom it is decided.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// Characters of a principal's name.
const PRINCIPAL_CHARS_MAX: usize = 256;
/// The pseudo-principal of AWS that stands for everybody; a grant to it counts for nobody.
const EVERYBODY: &str = "iam_allowed_principals";

/// Somebody who can be granted something: `user:ana`, `role:analyst`, `group:finance`, `token:ci`,
/// `cert:CN=x`, `local:ana`, `stdio`, or the ARN of a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(String);

impl Principal {
    /// The principal of a role.
    ///
    /// # Errors
    /// [`Error::Principal`].
    pub fn role(role: &str) -> Result<Principal> {
        if role.starts_with("arn:") { role.parse() } else { format!("role:{role}").parse() }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Principal {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const KINDS: [&str; 7] = ["user", "role", "group", "token", "cert", "local", "arn"];
        let is_named = text
            .split_once(':')
            .is_some_and(|(kind, name)| KINDS.contains(&kind) && !name.trim().is_empty());
        let is_sound = text.chars().count() <= PRINCIPAL_CHARS_MAX
            && !text.chars().any(char::is_control)
            && !text.to_lowercase().contains(EVERYBODY);
        if is_sound && (is_named || text == "stdio") {
            Ok(Principal(text.to_owned()))
        } else {
            Err(Error::Principal { text: text.to_owned() })
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The caller of one request, after authentication. What he may see is decided for
/// [`Caller::principals`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    principal: Principal,
    groups: BTreeSet<Principal>,
    role: Option<Principal>,
}

impl Caller {
    /// A caller with the groups that his credential or the configuration names.
    pub fn new(principal: Principal, groups: impl IntoIterator<Item = Principal>) -> Caller {
        Caller { principal, groups: groups.into_iter().collect(), role: None }
    }

    /// The same caller acting as a role, which narrows: his own grants and those of his groups then
    /// count for nothing.
    ///
    /// # Errors
    /// [`Error::RoleDenied`] unless the role is among the `allowed` ones.
    pub fn acting_as(self, role: &str, allowed: &BTreeSet<String>) -> Result<Caller> {
        if !allowed.contains(role) {
            return Err(Error::RoleDenied { role: role.to_owned() });
        }
        Ok(Caller { role: Some(Principal::role(role)?), ..self })
    }

    /// Who asks.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The role, or the caller and his groups.
    pub fn principals(&self) -> Vec<&Principal> {
        match &self.role {
            Some(role) => vec![role],
            None => std::iter::once(&self.principal).chain(&self.groups).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_and_nonsense_are_no_principals() {
        for text in
            ["", "ana", "user:", "user: ", "x:y", "group:a\n", "role:IAM_ALLOWED_PRINCIPALS"]
        {
            assert!(text.parse::<Principal>().is_err(), "{text:?}");
        }
        assert!(format!("user:{}", "a".repeat(252)).parse::<Principal>().is_err());
        for text in ["user:ana", "stdio", "arn:aws:iam::1:role/r", "cert:CN=a,O=b"] {
            assert_eq!(text.parse::<Principal>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn a_role_replaces_the_caller_and_must_be_allowed() {
        let caller = || {
            let groups = [("group:g").parse().unwrap()];
            Caller::new("user:ana".parse().unwrap(), groups)
        };
        let names =
            |caller: &Caller| caller.principals().iter().map(|p| p.to_string()).collect::<Vec<_>>();
        assert_eq!(names(&caller()), ["user:ana", "group:g"]);
        let allowed = BTreeSet::from(["analyst".to_owned()]);
        assert_eq!(names(&caller().acting_as("analyst", &allowed).unwrap()), ["role:analyst"]);
        assert!(caller().acting_as("admin", &allowed).is_err());
    }
}
