//! `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.

use crate::error::{Code, Failure, Result};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Args<'a> {
    pub ip: Option<&'a str>,
    pub mac: Option<&'a str>,
    pub pod_name: Option<&'a str>,
}

impl<'a> Args<'a> {
    pub(crate) fn read(text: &'a str) -> Result<Self> {
        let mut args = Self::default();
        let (mut ignore, mut unknown) = (false, None);
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=').filter(|(_, value)| !value.contains('=')) else {
                return Err(refused(&format!("{pair:?} is not KEY=VALUE")));
            };
            let value = Some(value).filter(|value| !value.is_empty());
            match key {
                "IgnoreUnknown" => ignore = matches!(value, Some("1" | "t" | "T" | "true" | "True" | "TRUE")),
                "IP" => args.ip = value,
                "MAC" => args.mac = value,
                "K8S_POD_NAME" => args.pod_name = value,
                "K8S_POD_NAMESPACE" | "K8S_POD_INFRA_CONTAINER_ID" | "K8S_POD_UID" => {}
                _ => unknown = Some(key),
            }
        }
        match unknown {
            Some(key) if !ignore => {
                Err(refused(&format!("the key {key:?} is not known, and IgnoreUnknown is not set")))
            }
            _ => Ok(args),
        }
    }
}

fn refused(cause: &str) -> Failure {
    Failure::new(Code::InvalidEnvironment, "invalid CNI_ARGS", cause)
}
