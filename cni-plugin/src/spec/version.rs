//! The versions of the specification. A configuration's string either is one of them or is refused.

use crate::error::{Code, Failure, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V010,
    V020,
    V030,
    V031,
    V040,
    V100,
    V110,
}

impl Version {
    pub(crate) const ALL: [Self; 7] =
        [Self::V010, Self::V020, Self::V030, Self::V031, Self::V040, Self::V100, Self::V110];
    pub(crate) const NEWEST: Self = Self::V110;

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V010 => "0.1.0",
            Self::V020 => "0.2.0",
            Self::V030 => "0.3.0",
            Self::V031 => "0.3.1",
            Self::V040 => "0.4.0",
            Self::V100 => "1.0.0",
            Self::V110 => "1.1.0",
        }
    }

    /// A configuration without a version is of the first one.
    pub(crate) fn read(text: Option<&str>) -> Result<Self> {
        let Some(text) = text else { return Ok(Self::V010) };
        Self::ALL.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(" ");
            let details = format!("config is {text:?}, plugin supports [{known}]");
            Failure::new(Code::IncompatibleVersion, "incompatible CNI versions", details)
        })
    }

    /// For verbs that came later than others.
    pub(crate) fn at_least(self, since: Self, verb: &str) -> Result<()> {
        if self >= since {
            return Ok(());
        }
        let (own, since) = (self.as_str(), since.as_str());
        let details = format!("config is {own:?}, {verb} exists since {since}");
        Err(Failure::new(Code::IncompatibleVersion, "the config's version does not allow it", details))
    }
}
