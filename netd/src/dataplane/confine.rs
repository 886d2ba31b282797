//! What the data plane gives up before it reads the first byte that a stranger sent.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use netd_sys::process::{Identity, raise_descriptor_limit, renounce_privileges, start_session};

/// The data plane's user where `/etc/passwd` has no [`USER`]: a number that no distribution hands out by default.
const NOBODY_ELSE: u32 = 64_742;
const USER: &str = "netd";

/// Everything but the filter on system calls, see [`netd_sys::process::restrict_system_calls`]. No thread may run yet.
pub(crate) fn confine(user: Option<&str>, root: Option<&Path>) -> Result<()> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let identity = identity(&passwd, user)?;
    start_session()?;
    let descriptors = raise_descriptor_limit()?;
    renounce_privileges(identity, root)
        .with_context(|| format!("cannot become user {} of the data plane", identity.uid))?;
    tracing::debug!(uid = identity.uid, gid = identity.gid, descriptors, ?root, "confined");
    Ok(())
}

/// Looks the user up in the file itself: a directory service that is away must not hold the data plane up.
fn identity(passwd: &str, user: Option<&str>) -> Result<Identity> {
    let wanted = user.unwrap_or(USER);
    let entry = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(wanted) {
            return None;
        }
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Identity { uid, gid })
    });
    match (entry, user) {
        (Some(Identity { uid: 0, .. }), _) => {
            anyhow::bail!("user `{wanted}` is root: the data plane needs a user without privileges")
        }
        (Some(identity), _) => Ok(identity),
        (None, Some(user)) => {
            anyhow::bail!("user `{user}` is not in /etc/passwd: add it, or leave `dataplane.user` out")
        }
        (None, None) => Ok(Identity { uid: NOBODY_ELSE, gid: NOBODY_ELSE }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nnetdx:x:7:7::/:\nbad:x\nnetd:x:990:980::/:/usr/sbin/nologin\n";

    #[test]
    fn the_user_is_the_one_named_or_netd_or_a_number_of_its_own() {
        assert_eq!(identity(PASSWD, None).unwrap(), Identity { uid: 990, gid: 980 });
        assert_eq!(identity(PASSWD, Some("netdx")).unwrap(), Identity { uid: 7, gid: 7 });
        assert_eq!(identity("", None).unwrap(), Identity { uid: NOBODY_ELSE, gid: NOBODY_ELSE });
    }

    #[test]
    fn root_and_users_that_are_not_there_are_refused() {
        for user in ["root", "nobody-here", "bad", ""] {
            assert!(identity(PASSWD, Some(user)).is_err(), "{user}");
        }
    }
}
