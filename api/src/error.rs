//! How a request fails: RFC 9457 problem documents with stable codes, the same type on the server and in the client.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why a verb failed. Scripts may rely on the code, people read the detail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ApiError {
    pub code: Code,
    /// One sentence that names the object and the cause.
    pub detail: String,
    /// The field of the request that is wrong, as a path: `IPAM.Config[0].Subnet`.
    pub field: Option<String>,
    /// What the user can do about it.
    pub remedy: Option<String>,
}

/// The kinds of failure, each with one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request itself is wrong.
    Invalid,
    /// It may not be done to this object.
    Forbidden,
    NotFound,
    /// Something that exists is in the way.
    Conflict,
    /// Addresses, ports or another bounded resource ran out.
    Exhausted,
    /// The daemon, or a part that it needs, is not ready.
    Unavailable,
    /// The kernel refused.
    Kernel,
}

/// The body of every answer that is not a success; `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:netd:error:<code>`.
    pub r#type: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    pub code: Code,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Problem {
    pub const CONTENT_TYPE: &'static str = "application/problem+json";
}

impl ApiError {
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), field: None, remedy: None }
    }

    #[must_use]
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::Invalid, detail)
    }

    #[must_use]
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Code::NotFound, detail)
    }

    #[must_use]
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(Code::Conflict, detail)
    }

    #[must_use]
    pub fn exhausted(detail: impl Into<String>) -> Self {
        Self::new(Code::Exhausted, detail)
    }

    #[must_use]
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, detail)
    }

    #[must_use]
    pub fn kernel(detail: impl Into<String>) -> Self {
        Self::new(Code::Kernel, detail)
    }

    #[must_use]
    pub fn at(self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..self }
    }

    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    #[must_use]
    pub fn problem(self) -> Problem {
        Problem {
            r#type: format!("urn:netd:error:{}", self.code.as_str()),
            title: self.code.title().into(),
            status: self.code.status(),
            detail: self.detail,
            code: self.code,
            field: self.field,
            remedy: self.remedy,
        }
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self { code: problem.code, detail: problem.detail, field: problem.field, remedy: problem.remedy }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of what is in the way the field says nothing that the detail does not.
        if let (Code::Invalid, Some(field)) = (self.code, &self.field) {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.detail)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl Code {
    pub const ALL: [Self; 7] = [
        Self::Invalid,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::Exhausted,
        Self::Unavailable,
        Self::Kernel,
    ];

    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::Exhausted => 409,
            Self::Unavailable => 503,
            Self::Kernel => 500,
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Kernel => "kernel",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The request is not valid",
            Self::Forbidden => "Not allowed on this object",
            Self::NotFound => "No such object",
            Self::Conflict => "In conflict with something that exists",
            Self::Exhausted => "Nothing left to give",
            Self::Unavailable => "Not available now",
            Self::Kernel => "The kernel refused",
        }
    }
}
