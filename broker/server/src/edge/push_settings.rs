//! Push configurations: from the wire to settings and back.

use std::collections::HashMap;

use axum::http::Uri;
use broker_core::{PushBody, PushConfig, PushVersion};
use orderflow_proto::google::pubsub::v1 as pb;
use orderflow_proto::google::pubsub::v1::push_config::{NoWrapper, PubsubWrapper, Wrapper};

use super::status::Invalid;

/// The one attribute that a push configuration can have.
const VERSION: &str = "x-goog-version";

/// The configuration; none for the empty one, which says that messages are pulled.
pub(super) fn push_config_of(config: pb::PushConfig) -> Result<Option<PushConfig>, Invalid> {
    if config == pb::PushConfig::default() {
        return Ok(None);
    }
    // Every field is named, so that one which the declarations gain can't be forgotten here.
    let pb::PushConfig { push_endpoint, attributes, authentication_method, wrapper } = config;
    if authentication_method.is_some() {
        return Err(Invalid::new("oidc_token", "requests are not signed here, so it must not be set"));
    }
    check_url(&push_endpoint).map_err(|why| Invalid::new("push_endpoint", why))?;
    let body = wrapper.map(|wrapper| match wrapper {
        Wrapper::PubsubWrapper(PubsubWrapper {}) => PushBody::Wrapped,
        Wrapper::NoWrapper(NoWrapper { write_metadata }) => PushBody::Raw { write_metadata },
    });
    // The core names the field with its parent, which the caller adds as well.
    let config = PushConfig::new(push_endpoint, version_of(&attributes)?, body).map_err(|error| {
        let invalid = super::parse::invalid(error);
        Invalid::new(invalid.field.trim_start_matches("push_config."), invalid.why)
    })?;
    Ok(Some(config))
}

pub(super) fn push_config(config: &PushConfig) -> pb::PushConfig {
    let wrapper = config.body.map(|body| match body {
        PushBody::Wrapped => Wrapper::PubsubWrapper(PubsubWrapper {}),
        PushBody::Raw { write_metadata } => Wrapper::NoWrapper(NoWrapper { write_metadata }),
    });
    let version = config.version.map(|version| (VERSION.to_owned(), name_of(version).to_owned()));
    pb::PushConfig {
        push_endpoint: config.endpoint().to_owned(),
        attributes: version.into_iter().collect(),
        authentication_method: None,
        wrapper,
    }
}

fn check_url(url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Err("must be set".to_owned());
    }
    let uri: Uri = url.parse().map_err(|error| format!("`{url}` is not a URL: {error}"))?;
    let authority = uri.authority().ok_or_else(|| format!("`{url}` has no host"))?;
    if authority.host().is_empty() {
        return Err(format!("`{url}` has no host"));
    }
    if authority.as_str().contains('@') {
        return Err("a user name or password in the URL would not be sent".to_owned());
    }
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    if !port.is_empty() && authority.port_u16().is_none_or(|port| port == 0) {
        return Err(format!("`{url}` has no valid port"));
    }
    Ok(())
}

fn version_of(attributes: &HashMap<String, String>) -> Result<Option<PushVersion>, Invalid> {
    if let Some(other) = attributes.keys().find(|key| *key != VERSION) {
        return Err(Invalid::new("attributes", format!("`{other}` is not known; there is only `{VERSION}`")));
    }
    let Some(version) = attributes.get(VERSION) else { return Ok(None) };
    let versions = [PushVersion::V1, PushVersion::V1Beta2, PushVersion::V1Beta1];
    let found = versions.into_iter().find(|known| name_of(*known) == version);
    let wrong = || Invalid::new("attributes", format!("`{VERSION}` is `v1` or `v1beta1`, and not `{version}`"));
    found.ok_or_else(wrong).map(Some)
}

fn name_of(version: PushVersion) -> &'static str {
    match version {
        PushVersion::V1 => "v1",
        PushVersion::V1Beta2 => "v1beta2",
        PushVersion::V1Beta1 => "v1beta1",
    }
}
