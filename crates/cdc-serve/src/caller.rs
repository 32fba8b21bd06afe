//! Who asks, and what the local policy shows him.

use cdc_core::TableName;
use cdc_manifest::Manifest;
use cdc_query::TableAccess;

use crate::{Error, Result};

/// The caller of one request, after authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `user:ana`, `token:default`, `stdio`, …
    pub principal: String,
    /// A role that the request names; narrows what the principal sees.
    pub role: Option<String>,
    /// Names the request in logs, evidence and audit.
    pub request_id: String,
}

/// The policy of a deployment without governance: everything is visible, except that a role sees
/// the columns that the source grants it (`manifest.roles`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalPolicy {
    /// Roles that a caller may name. `None` is any, for callers at a prompt: naming a role only
    /// narrows what they see, and who may read the files is the operating system's to say.
    pub roles: Option<Vec<String>>,
}

/// The decisions for one caller at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Decisions<'m> {
    role: Option<(&'m Manifest, String)>,
}

impl LocalPolicy {
    /// Checks the role once per request.
    ///
    /// # Errors
    /// [`Error::RoleDenied`] for a role that the caller may not name.
    pub(crate) fn decide<'m>(
        &self,
        caller: &Caller,
        manifest: &'m Manifest,
    ) -> Result<Decisions<'m>> {
        let role = match &caller.role {
            None => None,
            Some(role) if self.may_name(role) => Some((manifest, role.clone())),
            Some(role) => return Err(Error::RoleDenied(role.clone())),
        };
        Ok(Decisions { role })
    }

    fn may_name(&self, role: &String) -> bool {
        self.roles.as_ref().is_none_or(|roles| roles.contains(role))
    }
}

impl Decisions<'_> {
    /// The names of the columns that are visible now, where not all are.
    pub(crate) fn columns(&self, table: &TableName) -> Option<Vec<String>> {
        let (manifest, _) = self.role.as_ref()?;
        let access = self.access(table)?;
        let columns = &manifest.schemas.get(table)?.columns;
        let visible = columns.iter().filter(|column| access.shows(column.field_id));
        Some(visible.map(|column| column.name.clone()).collect())
    }

    /// What is visible of a table; `None` where the table does not exist for the caller.
    pub(crate) fn access(&self, table: &TableName) -> Option<TableAccess> {
        let Some((manifest, role)) = &self.role else {
            return Some(TableAccess::full(table.clone()));
        };
        let granted = manifest.roles.get(role)?.tables.get(table)?;
        let columns = &manifest.schemas.get(table)?.columns;
        let visible = columns.iter().filter(|column| granted.allows(&column.name));
        TableAccess::of_columns(table.clone(), visible.map(|column| column.field_id))
    }
}
