//! Who runs what refuses to run as root.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use rustix::process::geteuid;

use crate::Error;

/// The users who are taken, in this order.
const NAMES: [&str; 2] = ["postgres", "nobody"];

/// A user who is not root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The number of the user.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
    /// The name.
    pub name: &'static str,
}

impl Owner {
    /// Whoever has to run what refuses to run as root; nobody where we are not root.
    pub(crate) fn wanted() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        NAMES.into_iter().find_map(|name| Self::of(&users, name)).map(Some).ok_or(Error::NoOwner)
    }

    fn of(users: &str, name: &'static str) -> Option<Self> {
        let mut fields = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.split(':').skip(1);
        Some(Self { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()?, name })
    }

    pub(crate) fn take(&self, path: &Path) -> std::io::Result<()> {
        chown(path, Some(self.uid), Some(self.gid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "root:x:0:0::/:/bin/sh\nnobody2:x:7:7::/:/bin/sh\nnobody:x:65534:65533:n:/:/bin/sh\n";
        assert_eq!(Owner::of(users, "nobody"), Some(Owner { uid: 65_534, gid: 65_533, name: "nobody" }));
        assert_eq!(Owner::of(users, "postgres"), None);
    }
}
