//! Push: messages that go to their consumer by HTTP. Here it is a setting and nothing more; who carries it out is no
//! business of the core.

use crate::error::Error;

/// The longest URL that messages are pushed to, in bytes.
pub const PUSH_ENDPOINT_BYTES_MAX: usize = 2_048;

/// Where messages are pushed to, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushConfig {
    endpoint: String,
    /// The version of the JSON that was asked for, if one was.
    pub version: Option<PushVersion>,
    /// What the body of a request is; none stands for the default, which is [`PushBody::Wrapped`].
    pub body: Option<PushBody>,
}

/// The versions of the JSON around a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushVersion {
    /// `v1`
    V1,
    /// `v1beta2`, the older name of the same.
    V1Beta2,
    /// `v1beta1`, with attributes as labels.
    V1Beta1,
}

/// What the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushBody {
    /// The message and where it comes from, as JSON.
    Wrapped,
    /// The message's data as it is.
    Raw {
        /// Whether everything else becomes headers.
        write_metadata: bool,
    },
}

impl PushConfig {
    /// Pushes to a URL that begins with `http://` or `https://`; the rest of it is for the caller to check.
    pub fn new(endpoint: String, version: Option<PushVersion>, body: Option<PushBody>) -> Result<Self, Error> {
        let invalid = |why| Err(Error::InvalidArgument { field: "push_config.push_endpoint", why });
        if !["http://", "https://"].iter().any(|scheme| endpoint.starts_with(scheme)) {
            return invalid(format!("`{endpoint}` is not an http:// or https:// URL"));
        }
        if endpoint.len() > PUSH_ENDPOINT_BYTES_MAX {
            return invalid(format!("{} bytes are more than {PUSH_ENDPOINT_BYTES_MAX}", endpoint.len()));
        }
        Ok(PushConfig { endpoint, version, body })
    }

    /// The URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
