//! The value of `--network`: a name, a mode, or Docker's long form with what is wanted on that network.

use std::str::FromStr;

use netd_api::sandbox::{Attachment, NetworkMode};
use netd_api::value::Invalid;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NetworkArg {
    Network(Attachment),
    /// `host`, `none` or `container:SANDBOX`.
    Mode(NetworkMode),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NetworkArgError {
    #[error(transparent)]
    Value(#[from] Invalid),
    #[error("{0}= takes an IP address")]
    Address(&'static str),
    #[error("there is no key {0:?}; use name, alias, ip, ip6 and mac")]
    Key(String),
    #[error("name= is missing; write name=NET,alias=A,ip=IP,ip6=IP,mac=MAC")]
    NoName,
}

impl FromStr for NetworkArg {
    type Err = NetworkArgError;

    fn from_str(text: &str) -> Result<Self, NetworkArgError> {
        if text == "host" || text == "none" || text.starts_with("container:") {
            return Ok(Self::Mode(text.parse()?));
        }
        if !text.split(',').any(|part| part.starts_with("name=")) {
            let is_long = text.contains('=') && text.contains(',');
            return if is_long {
                Err(NetworkArgError::NoName)
            } else {
                Ok(Self::Network(Attachment::to(text.parse()?)))
            };
        }
        let name = text.split(',').find_map(|part| part.strip_prefix("name=")).unwrap_or_default();
        let mut attachment = Attachment::to(name.parse()?);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "name" => {}
                "alias" => attachment.aliases.push(value.parse()?),
                "ip" => {
                    attachment.ipv4_address =
                        Some(value.parse().map_err(|_| NetworkArgError::Address("ip"))?);
                }
                "ip6" => {
                    attachment.ipv6_address =
                        Some(value.parse().map_err(|_| NetworkArgError::Address("ip6"))?);
                }
                "mac" | "mac-address" => attachment.mac_address = Some(value.parse()?),
                _ => return Err(NetworkArgError::Key(key.into())),
            }
        }
        Ok(Self::Network(attachment))
    }
}
